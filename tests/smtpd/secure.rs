//! posta-smtpd alone: TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslContextBuilder, SslMethod, SslStream, SslVersion};
use posta::net::stream::Stream;

use super::SETTINGS;
use super::certificates::{Made, authority, certificate, ec_key};
use super::daemon::{Client, Daemon, Ground, command_on, wait_until};

/// A plain listener with STARTTLS, and one of TLS from the first octet.
pub const SECURE: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
tls = "implicit"
[tls]
certificate = "CERTIFICATE"
[domains]
"example.org" = { users = "*", mailbox = "/nowhere/" }
[smtpd]
"#;

/// The beginning of a ClientHello, and no more.
const HALF: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc";

/// Writes a certificate, with its key, into the ground.
pub fn put_certificate(ground: &Ground) -> Made {
    let made = certificate(None, &["mx.test"], ec_key(), 30);
    let both = [made.certificate_pem(), made.key_pem()].concat();
    std::fs::write(ground.path("cert.pem"), both).unwrap();
    made
}

/// A ground with these settings and a certificate.
pub fn secure_ground(settings: &str) -> Ground {
    let ground = Ground::new("");
    put_certificate(&ground);
    ground.configure(&settings.replace("CERTIFICATE", ground.path("cert.pem").to_str().unwrap()));
    ground
}

/// A client's side of TLS, which trusts everybody.
pub fn context() -> SslContextBuilder {
    SslContextBuilder::new(SslMethod::tls_client()).unwrap()
}

/// A client's handshake.
pub fn handshake(builder: SslContextBuilder, socket: TcpStream) -> Result<SslStream<TcpStream>, String> {
    let mut stream = SslStream::new(Ssl::new(&builder.build()).unwrap(), socket).unwrap();
    stream.connect().map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Turns a client that has been greeted to TLS.
pub fn starttls(client: Client) -> Client<SslStream<TcpStream>> {
    starttls_by(context(), client)
}

/// The same, with this side of TLS.
pub fn starttls_by(builder: SslContextBuilder, mut client: Client) -> Client<SslStream<TcpStream>> {
    client.say("STARTTLS", "220 2.0.0 ");
    Client::over(handshake(builder, client.into_socket()).unwrap())
}

/// A client of a listener of TLS, which has been greeted.
pub fn implicit(daemon: &Daemon, listener: usize) -> Client<SslStream<TcpStream>> {
    let socket = daemon.connect_to(listener, "127.0.0.1").unwrap().into_socket();
    let mut client = Client::over(handshake(context(), socket).unwrap());
    client.expect("220");
    client
}

#[test]
fn a_message_over_starttls_says_so() {
    let mut daemon = secure_ground(SECURE).start();
    let mut client = daemon.client();
    assert!(client.greet().contains(&"STARTTLS".to_string()));
    client.say("MAIL FROM:<a@b.test>", "250");
    let mut client = starttls(client);
    client.say("RCPT TO:<x@example.org>", "503");
    let offers = client.greet();
    assert!(!offers.contains(&"STARTTLS".to_string()) && offers.contains(&"REQUIRETLS".to_string()));
    client.say("STARTTLS", "503");
    client.say("MAIL FROM:<a@b.test> REQUIRETLS", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.say("DATA", "354");
    client.send("text\r\n.\r\nQUIT\r\n");
    client.expect("250");
    client.expect("221");
    client.expect_end();
    let (entry, content) = daemon.ground.only_message();
    assert_eq!(content, b"text\r\n");
    assert!(entry.envelope.require_tls);
    let trace = String::from_utf8(entry.envelope.trace).unwrap();
    assert!(
        trace.contains("\r\n\t(using TLSv1.3 with cipher TLS_") && trace.contains(" with ESMTPS id "),
        "{trace}"
    );
    daemon.wait_for_log(
        "Anonymous TLS connection established from unknown[127.0.0.1]: TLSv1.3 with cipher TLS_",
    );
    daemon.wait_for_log(" ehlo=2 starttls=1/2 mail=2 rcpt=1/2 data=1 quit=1 commands=8/10");
}

#[test]
fn tls_from_the_first_octet() {
    let daemon = secure_ground(SECURE).start();
    let mut client = implicit(&daemon, 1);
    let big = format!("{}\r\n", "x".repeat(998)).repeat(40);
    for _ in 0..2 {
        client.begin("x@example.org");
        client.send(format!("{big}.\r\n"));
        client.expect("250");
    }
    client.say("QUIT", "221");
    client.expect_end();
    assert_eq!(daemon.ground.messages()[1].1, big.as_bytes());
}

#[test]
fn idle_sessions_under_tls_are_parked_too() {
    let daemon = secure_ground(SECURE).start();
    let mut idle: Vec<_> = (0..20).map(|_| implicit(&daemon, 1)).collect();
    let silent: Vec<_> = (0..20).map(|_| daemon.connect_to(1, "127.0.0.1").unwrap()).collect();
    wait_until("the workers have gone", || daemon.status("Threads") < 10);
    for client in &mut idle {
        client.begin("x@example.org");
        client.send("text\r\n.\r\n");
        client.expect("250");
    }
    let mut client =
        Client::over(handshake(context(), silent.into_iter().next().unwrap().into_socket()).unwrap());
    client.expect("220");
    assert_eq!(daemon.ground.messages().len(), 20);
}

/// What stops once in the middle of the first thing that it says, and does that meanwhile.
struct Halting<F> {
    socket: TcpStream,
    meanwhile: Option<F>,
}

impl<F: FnOnce()> Write for Halting<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(meanwhile) = self.meanwhile.take() else { return self.socket.write(bytes) };
        let half = self.socket.write(&bytes[..bytes.len() / 2])?;
        meanwhile();
        Ok(half)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<F> Read for Halting<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(buffer)
    }
}

#[test]
fn half_handshakes_cost_no_threads_and_go_on_later() {
    let daemon = secure_ground(SECURE).start();
    let mut halves: Vec<_> = (0..30).map(|_| daemon.connect_to(1, "127.0.0.1").unwrap()).collect();
    halves.iter_mut().for_each(|client| client.send(HALF));
    let mut asked = daemon.client();
    asked.say("STARTTLS", "220");
    asked.send(HALF);
    let meanwhile = || wait_until("the workers have gone", || daemon.status("Threads") < 10);
    let socket = daemon.connect_to(1, "127.0.0.1").unwrap().into_socket();
    let halting = Halting { socket, meanwhile: Some(meanwhile) };
    let mut stream = SslStream::new(Ssl::new(&context().build()).unwrap(), halting).unwrap();
    stream.connect().unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220");
    drop((halves, asked));
}

#[test]
fn who_was_introduced_stays_so_under_tls() {
    let daemon =
        secure_ground(&format!("{SECURE}relay_from = [\"127.0.0.7\"]\nxclient_from = [\"127.0.0.7\"]\n"))
            .start();
    let mut proxy = daemon.client_from("127.0.0.7");
    proxy.say("XCLIENT NAME=h.test ADDR=192.0.2.9", "220");
    let mut proxy = starttls(proxy);
    assert!(proxy.greet().iter().all(|offer| !offer.starts_with('X')));
    proxy.say("XCLIENT ADDR=127.0.0.7", "550 5.7.0 ");
    proxy.say("MAIL FROM:<a@b.test>", "250");
    proxy.say("RCPT TO:<x@elsewhere.test>", "554 5.7.1 ");
    proxy.begin("x@example.org");
    proxy.send(".\r\n");
    proxy.expect("250");
    let trace = String::from_utf8(daemon.ground.only_message().0.envelope.trace).unwrap();
    assert!(trace.contains(" (h.test [192.0.2.9])"), "{trace}");
}

#[test]
fn a_certificate_is_its_holder_s_and_not_the_introduced_client_s() {
    let ground = Ground::new("");
    let ca = authority("clients");
    put_certificate(&ground);
    let holder = certificate(Some(&ca), &["proxy.test"], ec_key(), 30);
    std::fs::write(ground.path("ca.pem"), ca.certificate_pem()).unwrap();
    let print: String = holder
        .certificate
        .digest(MessageDigest::sha256())
        .unwrap()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let settings = SECURE
        .replace(
            "CERTIFICATE\"",
            &format!("CERTIFICATE\"\nclient_ca = \"{}\"", ground.path("ca.pem").display()),
        )
        .replace("CERTIFICATE", ground.path("cert.pem").to_str().unwrap());
    ground.configure(&format!(
        "{settings}relay_from = []\nrelay_fingerprints = [\"{print}\"]\nxclient_from = [\"127.0.0.7\"]\n"
    ));
    let daemon = ground.start();
    for (introduction, answer) in [("NAME=h.test", "250"), ("ADDR=192.0.2.9", "554 5.7.1 ")] {
        let mut proxy = daemon.client_from("127.0.0.7");
        proxy.say(&format!("XCLIENT {introduction}"), "220");
        proxy.say("STARTTLS", "220");
        let mut context = context();
        context.set_certificate(&holder.certificate).unwrap();
        context.set_private_key(&holder.key).unwrap();
        let mut proxy = Client::over(handshake(context, proxy.into_socket()).unwrap());
        proxy.greet();
        proxy.say("MAIL FROM:<a@b.test>", "250");
        proxy.say("RCPT TO:<x@elsewhere.test>", answer);
    }
}

#[test]
fn what_comes_in_the_packet_of_starttls_is_not_obeyed() {
    let daemon = secure_ground(SECURE).start();
    let mut client = daemon.client();
    client.send("STARTTLS\r\nMAIL FROM:<injected@b.test>\r\n");
    client.expect("554 5.5.0 ");
    client.expect_end();
}

/// Plain text there would be taken for a broken handshake: the closing has to say it.
#[test]
fn a_full_house_says_nothing_into_a_handshake() {
    let mut daemon = secure_ground(&format!("{SECURE}max_sessions = 1\n")).start();
    let _one = daemon.client();
    let turned_away = |listener| {
        let mut said = String::new();
        let client = daemon.connect_to(listener, "127.0.0.2").unwrap();
        client.into_reader().read_to_string(&mut said).unwrap();
        said
    };
    assert!(turned_away(0).starts_with("421 4.3.2 "));
    assert_eq!(turned_away(1), "");
    daemon.wait_for_log("reject: CONNECT from unknown[127.0.0.2]: 421 4.3.2 ");
    assert_eq!(daemon.read_log().matches("reject: CONNECT from unknown[127.0.0.2]").count(), 2);
}

#[test]
fn old_versions_are_refused() {
    let mut daemon = secure_ground(SECURE).start();
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let mut client = daemon.client();
        client.say("STARTTLS", "220");
        let mut builder = context();
        builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        assert!(handshake(builder, client.into_socket()).is_err());
    }
    daemon.wait_for_log("SSL_accept error from unknown[127.0.0.1]: ");
    daemon.wait_for_log("lost connection after STARTTLS from unknown[127.0.0.1]");
    let mut builder = context();
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    let mut client = daemon.client();
    client.say("STARTTLS", "220");
    let stream = handshake(builder, client.into_socket()).unwrap();
    assert_eq!(stream.ssl().version_str(), "TLSv1.2");
}

#[test]
fn alpn_is_smtp_or_nothing() {
    let daemon = secure_ground(SECURE).start();
    let offering = |protocols: &[u8]| {
        let mut builder = context();
        builder.set_alpn_protos(protocols).unwrap();
        handshake(builder, daemon.connect_to(1, "127.0.0.1").unwrap().into_socket())
    };
    let stream = offering(b"\x08http/1.1\x04smtp").unwrap();
    assert_eq!(stream.ssl().selected_alpn_protocol(), Some(&b"smtp"[..]));
    assert!(offering(b"\x08http/1.1\x02h2").is_err());
}

#[test]
fn no_tls_where_it_has_to_be_ends_the_session() {
    let mut daemon = secure_ground(&format!("{SECURE}command_timeout = \"2s\"\n")).start();
    let mut plain = daemon.connect_to(1, "127.0.0.1").unwrap();
    plain.send("EHLO client.test\r\n");
    let mut garbage = daemon.client();
    garbage.say("STARTTLS", "220");
    garbage.send([&b"EHLO client.test\r\n"[..], &[0xff; 2000]].concat());
    // A handshake that has begun ends in time, and so does one that never begins.
    let mut halves: Vec<_> = (0..5).map(|_| daemon.connect_to(1, "127.0.0.1").unwrap()).collect();
    halves.iter_mut().for_each(|client| client.send(HALF));
    let mut silent = daemon.client();
    silent.say("STARTTLS", "220");
    let mut stalled = daemon.client();
    stalled.say("STARTTLS", "220");
    stalled.send(HALF);
    daemon.client().say("NOOP", "250");
    for client in [plain, garbage, silent, stalled].into_iter().chain(halves) {
        let mut said = Vec::new();
        // A reset is as good an end as another.
        let _ = std::io::Read::read_to_end(&mut client.into_reader(), &mut said);
        assert!(!said.starts_with(b"2"), "{said:?}");
    }
    daemon.wait_for_log("SSL_accept error from unknown[127.0.0.1]: the TLS handshake has not ended in time");
    daemon.client().say("NOOP", "250");
}

#[test]
fn a_hangup_changes_all_or_nothing() {
    let mut daemon = secure_ground(SECURE).start();
    let shown = |daemon: &Daemon| {
        let socket = daemon.connect_to(1, "127.0.0.1").unwrap().into_socket();
        handshake(context(), socket).unwrap().ssl().peer_certificate().unwrap().to_der().unwrap()
    };
    let old = shown(&daemon);
    let other = certificate(None, &["mx.test"], ec_key(), 30);
    let (file, table) = (daemon.ground.path("other.pem"), daemon.ground.path("senders"));
    std::fs::write(&file, [other.certificate_pem(), other.key_pem()].concat()).unwrap();
    std::fs::write(&table, "alice what\n").unwrap();
    let settings = SECURE.replace("CERTIFICATE", file.to_str().unwrap());
    daemon.ground.configure(&format!("{settings}login_senders = \"{}\"\n", table.display()));
    daemon.signal("-HUP");
    daemon.wait_for_log("the configuration is not changed");
    assert!(shown(&daemon) == old);
    std::fs::write(&table, "").unwrap();
    daemon.signal("-HUP");
    daemon.wait_for_log("configuration read again");
    assert!(shown(&daemon) == other.certificate.to_der().unwrap());
}

#[test]
fn a_hangup_renews_the_certificate() {
    let mut daemon = secure_ground(SECURE).start();
    let shown = |daemon: &Daemon| {
        let socket = daemon.connect_to(1, "127.0.0.1").unwrap().into_socket();
        let stream = handshake(context(), socket).unwrap();
        stream.ssl().peer_certificate().unwrap().digest(MessageDigest::sha256()).unwrap().to_vec()
    };
    let mut before = implicit(&daemon, 1);
    let old = shown(&daemon);
    let made = put_certificate(&daemon.ground);
    let new = made.certificate.digest(MessageDigest::sha256()).unwrap().to_vec();
    assert_ne!(old, new);
    daemon.signal("-HUP");
    daemon.wait_for_log("configuration read again");
    assert_eq!(shown(&daemon), new);
    before.say("NOOP", "250");
    std::fs::write(daemon.ground.path("cert.pem"), "no certificate").unwrap();
    daemon.signal("-HUP");
    daemon.wait_for_log("cert.pem");
    daemon.wait_for_log("the certificates in use stay as they are");
    assert_eq!(shown(&daemon), new);
}

#[test]
fn a_listener_of_tls_needs_a_certificate_that_can_be_used() {
    let ground = secure_ground(SECURE);
    std::fs::write(ground.path("cert.pem"), "nothing").unwrap();
    let (code, said) = ground.run(&["-c", ground.path("posta.toml").to_str().unwrap()]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("cert.pem"), "{said}");
    let daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    assert!(!client.greet().contains(&"STARTTLS".to_string()));
    client.say("STARTTLS", "502");
}

#[test]
fn closing_says_goodbye_under_tls() {
    let mut daemon = secure_ground(SECURE).start();
    let mut idle = implicit(&daemon, 1);
    idle.say("EHLO client.test", "250");
    let mut sends = implicit(&daemon, 1);
    sends.begin("x@example.org");
    let mut silent = daemon.connect_to(1, "127.0.0.1").unwrap();
    daemon.signal("-TERM");
    idle.expect("421 4.3.2 mx.test ");
    idle.expect_end();
    silent.expect_end();
    sends.send("text\r\n.\r\n");
    sends.expect("250");
    sends.expect("421 4.3.2 ");
    assert!(daemon.wait_for_end().success());
}

#[test]
fn inetd_mode_turns_to_tls() {
    let ground = secure_ground(SECURE);
    let (ours, its) = UnixStream::pair().unwrap();
    let mut child = command_on(OwnedFd::from(its), &ground.path("posta.toml")).spawn().unwrap();
    let stream = Stream::unix(ours.try_clone().unwrap()).unwrap();
    let mut client = Client::new(stream);
    client.expect("220");
    client.say("STARTTLS", "220");
    let mut stream = SslStream::new(Ssl::new(&context().build()).unwrap(), ours).unwrap();
    stream.connect().unwrap();
    let mut client = Client::over(stream);
    client.begin("x@example.org");
    client.send("text\r\n.\r\nQUIT\r\n");
    client.expect("250");
    client.expect("221");
    assert!(child.wait().unwrap().success());
    assert_eq!(ground.only_message().1, b"text\r\n");
}
