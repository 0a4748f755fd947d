//! TLS to other servers: what each policy takes, and what becomes of the mail where it takes nothing.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::ssl::{Ssl, SslAcceptor, SslContext, SslMethod, SslStream, SslVersion};
use posta::courier::request::{Hop, Target};
use posta::sasl::keys::Keys;
use posta::sasl::scram::{Channel, First};

use crate::certificates::{Made, authority, certificate, ec_key};
use crate::house::{House, listeners, request, short};

/// How a server behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Proper,
    OffersNone,
    /// It answers STARTTLS with 454.
    CantNow,
    /// It says something else than TLS after its 220.
    Breaks,
    /// Somebody has put an answer behind the 220.
    SaysMore,
    /// It begins with TLS.
    Implicit,
}

/// What a server heard: command lines, each after `tls ` if it came under TLS, and what TLS was.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    resumed: Vec<bool>,
}

struct Server {
    heard: Arc<Mutex<Heard>>,
}

impl Server {
    fn start(listener: TcpListener, made: &Made, manner: Manner, more: &'static str) -> Server {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        builder.set_certificate(&made.certificate).unwrap();
        builder.set_private_key(&made.key).unwrap();
        builder.set_session_id_context(b"test").unwrap();
        builder.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
        let context = builder.build().into_context();
        let server = Server { heard: Arc::default() };
        let heard = Arc::clone(&server.heard);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (context, heard) = (context.clone(), Arc::clone(&heard));
                // A client that goes without a word is part of the play.
                std::thread::spawn(move || drop(attend(socket.unwrap(), &context, manner, more, &heard)));
            }
        });
        server
    }

    fn lines(&self) -> Vec<String> {
        self.heard.lock().unwrap().lines.clone()
    }

    fn heard(&self, line: &str) -> bool {
        self.lines().iter().any(|heard| heard == line)
    }
}

fn attend(
    mut socket: TcpStream,
    context: &SslContext,
    manner: Manner,
    more: &str,
    heard: &Mutex<Heard>,
) -> io::Result<()> {
    if manner != Manner::Implicit {
        socket.write_all(b"220 tls.example ESMTP\r\n")?;
        let offer = if manner == Manner::OffersNone { "HELP" } else { "STARTTLS" };
        if !talk(&mut socket, offer, "", heard)? {
            return Ok(());
        }
        match manner {
            Manner::CantNow => {
                socket.write_all(b"454 not now\r\n")?;
                return talk(&mut socket, offer, "", heard).map(drop);
            }
            Manner::Breaks => {
                socket.write_all(b"220 go\r\n")?;
                socket.read_exact(&mut [0; 16])?;
                return socket.write_all(b"500 what?\r\n");
            }
            Manner::SaysMore => return socket.write_all(b"220 go\r\n250 injected\r\n"),
            _ => socket.write_all(b"220 go\r\n")?,
        }
    }
    let mut stream = SslStream::new(Ssl::new(context)?, socket)?;
    stream.accept().map_err(io::Error::other)?;
    heard.lock().unwrap().resumed.push(stream.ssl().session_reused());
    if manner == Manner::Implicit {
        stream.write_all(b"220 tls.example ESMTP\r\n")?;
    }
    talk(&mut stream, more, "tls ", heard).map(drop)
}

/// One line.
fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        line.push(octet[0]);
    }
    Ok(String::from_utf8(line).unwrap().trim_end().to_string())
}

/// Plays AUTH; whether the client is `me` with the password `secret`.
fn login(stream: &mut (impl Read + Write), mechanism: &str, first: &str) -> io::Result<bool> {
    let mut ask = |challenge: &str| {
        stream.write_all(format!("334 {}\r\n", STANDARD.encode(challenge)).as_bytes())?;
        Ok::<_, io::Error>(STANDARD.decode(read_line(stream)?).unwrap())
    };
    let first = STANDARD.decode(first).unwrap();
    match mechanism {
        "PLAIN" => Ok(first == b"\0me\0secret"),
        "LOGIN" => Ok(ask("Username:")? == b"me" && ask("Password:")? == b"secret"),
        _ => {
            let first = First::read(&first, false, &Channel::default()).unwrap();
            let last = first.challenge(Keys::derive("secret", b"salt", 4096).unwrap(), "ours");
            let answer = ask(last.message())?;
            let Ok(proof) = last.verify(&answer) else { return Ok(false) };
            Ok(last.login == "me" && ask(&proof)?.is_empty())
        }
    }
}

/// Answers commands, and takes messages; `true` if STARTTLS has come.
fn talk(stream: &mut (impl Read + Write), offer: &str, mark: &str, heard: &Mutex<Heard>) -> io::Result<bool> {
    let mut content = false;
    loop {
        let line = read_line(stream)?;
        heard.lock().unwrap().lines.push(format!("{mark}{line}"));
        let answer = match line.split([' ', ':']).next().unwrap_or_default() {
            _ if content && line != "." => continue,
            "STARTTLS" => return Ok(true),
            "EHLO" => format!("250-tls.example\r\n250 {offer}\r\n"),
            "AUTH" => {
                let (mechanism, first) = line["AUTH ".len()..].split_once(' ').unwrap_or((&line[5..], ""));
                let knows = login(stream, mechanism, first)?;
                if knows { "235 2.7.0 ok\r\n" } else { "535 5.7.8 no\r\n" }.to_string()
            }
            "DATA" => "354 go\r\n".to_string(),
            _ => "250 2.0.0 ok\r\n".to_string(),
        };
        content = line == "DATA";
        stream.write_all(answer.as_bytes())?;
    }
}

/// A house and a server at `d.example` whose certificate `ca` has signed for `name`, and the authority
/// that the house trusts.
fn meet(manner: Manner, name: &str, policy: &str, more: &'static str) -> (House, Server) {
    let (port, mut listening) = listeners(&[2]);
    let ca = authority("ca.example");
    let made = certificate(Some(&ca), &[name], ec_key(), 30);
    let server = Server::start(listening.remove(0), &made, manner, more);
    (House::start(port, "d.example A 127.0.0.2", &trusting(&ca, policy)), server)
}

/// Settings of `[remote]`. The file lives as long as the test's process.
fn trusting(ca: &Made, policy: &str) -> String {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    std::fs::write(&path, ca.certificate_pem()).unwrap();
    format!("ca_file = \"{}\"\n{policy}\n", path.display())
}

fn deliver(house: &House, require_tls: bool) -> String {
    let mut request = request(Target::Mx("d.example".into()), &["r@d.example"], b"text\r\n");
    request.require_tls = require_tls;
    house.hand_out(&request, b"text\r\n");
    short(&house.report().outcomes[0])
}

const SENT: &str = "2.0.0 250 2.0.0 ok";

#[test]
fn mail_goes_under_tls_where_it_is_offered_and_the_greetings_are_said_anew() {
    let (house, server) = meet(Manner::Proper, "other.example", "", "HELP");
    assert_eq!(deliver(&house, false), SENT);
    let expected = ["EHLO own.example", "STARTTLS", "tls EHLO own.example", "tls MAIL FROM:<s@own.example>"];
    assert_eq!(server.lines()[..4], expected);
    let log = house.log();
    assert!(log.contains("Trusted TLS connection established to d.example[127.0.0.2]:"), "{log}");
    assert!(log.contains(": TLSv1.3 with cipher TLS_"), "{log}");
}

#[test]
fn a_handshake_that_breaks_leads_to_a_plain_connection_or_to_none() {
    for (policy, expected) in [("", SENT), ("tls = \"encrypt\"", "4.7.5"), ("tls = \"verify\"", "4.7.5")] {
        let (house, server) = meet(Manner::Breaks, "d.example", policy, "HELP");
        let outcome = deliver(&house, false);
        assert!(outcome.starts_with(expected), "{policy}: {outcome}");
        assert_eq!(server.heard("MAIL FROM:<s@own.example>"), policy.is_empty());
        assert_eq!(house.log().contains("trying again without TLS"), policy.is_empty());
    }
}

#[test]
fn who_cant_is_spoken_to_in_the_clear_or_not_at_all() {
    for manner in [Manner::OffersNone, Manner::CantNow] {
        let (house, server) = meet(manner, "d.example", "", "HELP");
        assert_eq!(deliver(&house, false), SENT);
        assert!(server.heard("MAIL FROM:<s@own.example>"));
        let (house, server) = meet(manner, "d.example", "tls = \"encrypt\"", "HELP");
        let outcome = deliver(&house, false);
        assert!(outcome.starts_with("4.7.4") || outcome.starts_with("4.0.0 454"), "{outcome}");
        assert!(!server.heard("MAIL FROM:<s@own.example>"));
    }
    let (house, server) = meet(Manner::Proper, "d.example", "tls = \"none\"", "HELP");
    assert_eq!(deliver(&house, false), SENT);
    assert!(!server.heard("STARTTLS"));
}

#[test]
fn a_name_and_an_authority_are_looked_at_where_that_is_wanted() {
    let verify = "[domains]\n\"d.example\" = { relay = \"mx\", tls = \"verify\" }";
    let (house, _server) = meet(Manner::Proper, "d.example", verify, "HELP");
    assert_eq!(deliver(&house, false), SENT);
    assert!(house.log().contains("Verified TLS connection established"), "{}", house.log());
    let (house, server) = meet(Manner::Proper, "other.example", verify, "HELP");
    let outcome = deliver(&house, false);
    assert!(outcome.starts_with("4.7.5 TLS with d.example[127.0.0.2]:"), "{outcome}");
    assert!(outcome.contains("hostname mismatch") && house.log().contains("hostname mismatch"), "{outcome}");
    assert!(!server.heard("tls MAIL FROM:<s@own.example>"));
}

#[test]
fn what_tls_has_come_to_is_reported() {
    let verify = "[domains]\n\"d.example\" = { relay = \"mx\", tls = \"verify\" }";
    let encrypt = "tls = \"encrypt\"";
    for (manner, policy, begins, ends) in [
        (Manner::Proper, "", "Verified TLSv1.3 TLS_", " bits) (policy may)"),
        (Manner::Proper, verify, "Verified TLSv1.3 TLS_", " bits) (policy verify)"),
        (Manner::Breaks, "", "none", "none (policy may)"),
        (Manner::Breaks, encrypt, "none", "none (policy encrypt)"),
    ] {
        let (house, _server) = meet(manner, "d.example", policy, "HELP");
        // The second one goes over the connection of the first, if there is one.
        for _ in 0..2 {
            let wishes = request(Target::Mx("d.example".into()), &["r@d.example"], b"text\r\n");
            house.hand_out(&wishes, b"text\r\n");
            let tls = house.report().outcomes.remove(0).tls;
            assert!(tls.starts_with(begins) && tls.ends_with(ends), "{tls}");
        }
    }
}

/// CVE-2021-38371
#[test]
fn an_answer_behind_the_220_ends_the_connection() {
    let (house, server) = meet(Manner::SaysMore, "d.example", "", "HELP");
    let outcome = deliver(&house, false);
    assert!(outcome.starts_with("4.7.5") && outcome.contains("more than it was asked"), "{outcome}");
    assert!(!server.lines().iter().any(|line| line.contains("MAIL")));
}

#[test]
fn a_message_that_requires_tls_goes_to_who_promises_it() {
    let (house, server) = meet(Manner::Proper, "d.example", "", "REQUIRETLS");
    assert_eq!(deliver(&house, true), SENT);
    assert!(server.heard("tls MAIL FROM:<s@own.example> REQUIRETLS"));
    for (manner, name, more, expected) in [
        (Manner::Proper, "d.example", "HELP", "5.7.30"),
        (Manner::OffersNone, "d.example", "HELP", "5.7.30"),
        (Manner::Proper, "other.example", "REQUIRETLS", "4.7.5"),
    ] {
        let (house, server) = meet(manner, name, "", more);
        let outcome = deliver(&house, true);
        assert!(outcome.starts_with(expected), "{outcome}");
        assert!(!server.lines().iter().any(|line| line.contains("MAIL")));
    }
}

#[test]
fn the_next_connection_goes_on_with_the_session_of_the_last() {
    let (house, server) = meet(Manner::Proper, "d.example", "max_messages_per_connection = 1", "HELP");
    for _ in 0..2 {
        assert_eq!(deliver(&house, false), SENT);
    }
    assert_eq!(server.heard.lock().unwrap().resumed, [false, true]);
}

#[test]
fn port_465_begins_with_tls() {
    // Only root can listen there.
    let Ok(listener) = TcpListener::bind("127.46.5.1:465") else { return };
    let ca = authority("ca.example");
    let made = certificate(Some(&ca), &["relay.example"], ec_key(), 30);
    let server = Server::start(listener, &made, Manner::Implicit, "STARTTLS");
    let policy = "[domains]\n\"*\" = { relay = \"relay.example:465\", tls = \"verify\" }";
    let house = House::start(25, "relay.example A 127.46.5.1", &trusting(&ca, policy));
    let target = Target::Smtp(Hop::parse("relay.example:465", 25).unwrap());
    assert_eq!(house.deliver(&target, &["r@d.example"], b"text\r\n"), [SENT]);
    assert!(server.lines().iter().all(|line| line.starts_with("tls ") && !line.contains("STARTTLS")));
}

/// A house whose relay `relay.example`, at 127.0.0.2, wants the login in `file`.
fn with_login(file: &Path, offer: &'static str) -> (House, Server, Target) {
    let (port, mut listening) = listeners(&[2]);
    let ca = authority("ca.example");
    let made = certificate(Some(&ca), &["relay.example"], ec_key(), 30);
    let server = Server::start(listening.remove(0), &made, Manner::Proper, offer);
    let relay = format!("relay.example:{port}");
    let policy = format!(
        "[domains]\n\"*\" = {{ relay = \"{relay}\", tls = \"verify\", login = \"{}\" }}",
        file.display()
    );
    let house = House::start(port, "relay.example A 127.0.0.2", &trusting(&ca, &policy));
    (house, server, Target::Smtp(Hop::parse(&relay, 25).unwrap()))
}

#[test]
fn a_relay_is_shown_who_we_are_and_not_that_before_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("smarthost");
    std::fs::write(&file, "me secret\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (offer, taken) in [
        ("AUTH LOGIN CRAM-MD5", "LOGIN"),
        ("AUTH LOGIN PLAIN", "PLAIN AG1lAHNlY3JldA=="),
        ("AUTH PLAIN SCRAM-SHA-256", "SCRAM-SHA-256 "),
    ] {
        let (house, server, relay) = with_login(&file, offer);
        assert_eq!(house.deliver(&relay, &["r@d.example"], b"text\r\n"), [SENT], "{offer}");
        let auth: Vec<String> = server.lines().into_iter().filter(|line| line.contains("AUTH")).collect();
        assert!(auth.len() == 1 && auth[0].starts_with(&format!("tls AUTH {taken}")), "{auth:?}");
    }
    let (house, server, relay) = with_login(&file, "AUTH CRAM-MD5");
    let outcome = house.deliver(&relay, &["r@d.example"], b"text\r\n").remove(0);
    assert!(outcome.starts_with("4.7.8 login at relay.example[127.0.0.2]"), "{outcome}");
    assert!(!server.heard("tls MAIL FROM:<s@own.example>"));
}

#[test]
fn a_wrong_password_makes_mail_wait_until_it_is_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("smarthost");
    std::fs::write(&file, "me wrong\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for offer in ["AUTH PLAIN", "AUTH SCRAM-SHA-256"] {
        std::fs::write(&file, "me wrong\n").unwrap();
        let (house, _server, relay) = with_login(&file, offer);
        let outcome = house.deliver(&relay, &["r@d.example"], b"text\r\n").remove(0);
        assert_eq!(outcome, "4.7.8 535 5.7.8 no");
        std::fs::write(&file, "me secret\n").unwrap();
        assert_eq!(house.deliver(&relay, &["r@d.example"], b"text\r\n"), [SENT]);
    }
}
