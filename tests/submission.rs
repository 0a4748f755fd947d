//! Mail that a user hands in, through the real programs: the keeper gives the keys to posta-smtpd,
//! posta-auth knows the password, and the message arrives at another server.

#[path = "certificates/mod.rs"]
#[allow(dead_code)] // the rooms of TLS need the rest
mod certificates;
mod station;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVersion};
use posta::sasl::client::{Exchange, Login};
use posta::sasl::mechanism::Binding;

use certificates::{certificate, ec_key};
use station::sink::Sink;
use station::{House, PATIENCE, wait_for};

/// `\0carol@users.example\0secret`, as AUTH PLAIN has it.
const RIGHT: &str = "AGNhcm9sQHVzZXJzLmV4YW1wbGUAc2VjcmV0";
/// The same with another password.
const WRONG: &str = "AGNhcm9sQHVzZXJzLmV4YW1wbGUAd3Jvbmc=";

/// A house where carol can log in at port 2465, under TLS.
fn house() -> House {
    let mut house = House::set_up("");
    let made = certificate(None, &["mail.example.org"], ec_key(), 30);
    fs::write(house.path("cert.pem"), made.certificate_pem()).unwrap();
    fs::write(house.path("key.pem"), made.key_pem()).unwrap();
    fs::write(house.path("users"), "carol@users.example:{PLAIN}secret:::::\n").unwrap();
    let root = house.folder.path().display();
    let more = format!(
        "[[listen]]\naddress = \"{}:2465\"\ntls = \"implicit\"\nsubmission = true\n\
         [tls]\ncertificate = \"{root}/cert.pem\"\nkey = \"{root}/key.pem\"\n\
         [domains.\"users.example\"]\nusers = \"{root}/users\"\nmailbox = \"{root}/mail/{{user}}/\"\n",
        house.address
    );
    let settings = fs::read_to_string(house.config()).unwrap();
    let settings = settings.replace("relay_from = [\"127.0.0.0/8\"]", "relay_from = []");
    fs::write(house.config(), settings + &more).unwrap();
    house.run();
    house
}

/// A client under TLS, which has been greeted.
struct User(BufReader<SslStream<TcpStream>>);

impl User {
    fn new(house: &House) -> User {
        User::by(house, SslVersion::TLS1_3)
    }

    fn by(house: &House, version: SslVersion) -> User {
        let socket = TcpStream::connect(SocketAddr::new(house.address, 2465)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        context.set_max_proto_version(Some(version)).unwrap();
        let mut stream = SslStream::new(Ssl::new(&context.build()).unwrap(), socket).unwrap();
        stream.connect().unwrap();
        let mut user = User(BufReader::new(stream));
        user.expect("220");
        user
    }

    fn expect(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert!(line.starts_with(start), "wanted {start}, heard {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// RFC 9266 2: what names this connection.
    fn exporter(&self) -> Vec<u8> {
        let mut exported = vec![0; 32];
        let ssl = self.0.get_ref().ssl();
        ssl.export_keying_material(&mut exported, "EXPORTER-Channel-Binding", Some(&[])).unwrap();
        exported
    }

    /// Logs in by SCRAM-SHA-256-PLUS, bound to `channel`; what is said in the end.
    fn scram_plus(&mut self, password: &str, binding: Binding, channel: Vec<u8>) -> String {
        let login = Login { name: "carol@users.example".into(), password: password.into() };
        let offered = ["SCRAM-SHA-256-PLUS".to_string()];
        let (mut exchange, first) =
            Exchange::begin(&login, &offered, &[(binding, channel)], "fyko+d2lbbFgONRv9qkxdawL").unwrap();
        let first = STANDARD.encode(first.unwrap());
        let mut said = self.tell(&format!("AUTH SCRAM-SHA-256-PLUS {first}"));
        while let Some(challenge) = said.strip_prefix("334 ") {
            let answer = exchange.answer(&STANDARD.decode(challenge.trim_end()).unwrap()).unwrap();
            said = self.tell(&STANDARD.encode(answer));
        }
        assert_eq!(exchange.is_over().is_ok(), said.starts_with("235"), "{said}");
        said
    }

    /// Says a line; the last line of the answer.
    fn tell(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.expect("")
    }

    fn say(&mut self, line: &str, start: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.expect(start)
    }
}

#[test]
fn a_users_mail_goes_out_under_his_own_name() {
    let house = house();
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    let mechanisms = house.path("run/mechanisms");
    wait_for("posta-auth to tell what it can do", || fs::read_to_string(&mechanisms).ok());
    let mut carol = User::new(&house);
    carol.say("EHLO laptop.example", "250");
    carol.say("MAIL FROM:<carol@users.example>", "530 5.7.0 ");
    carol.say(&format!("AUTH PLAIN {WRONG}"), "535 5.7.8 ");
    carol.say(&format!("AUTH PLAIN {RIGHT}"), "235 2.7.0 ");
    carol.say("MAIL FROM:<alice@example.org>", "553 5.7.1 ");
    carol.say("MAIL FROM:<carol@users.example> BODY=8BITMIME", "250");
    carol.say("RCPT TO:<bob@elsewhere.example>", "250");
    carol.say("DATA", "354");
    carol.say("Subject: hello\r\nTo: bob@elsewhere.example\r\n\r\nOne line.\r\n.", "250");
    carol.say("QUIT", "221");
    let arrived = &sink.wait_for(1)[0];
    assert!(arrived.from.starts_with("<carol@users.example>"), "{}", arrived.from);
    for part in [
        " with ESMTPSA id ",
        "(using TLSv1.3 with cipher ",
        "From: carol@users.example\r\n",
        "Date: ",
        "Message-ID: ",
    ] {
        assert!(arrived.data.contains(part), "{part} in {}", arrived.data);
    }
    house.wait_for_log(&["sasl_method=PLAIN", "sasl_username=carol@users.example"]);
    house.wait_for_log(&["SASL PLAIN authentication failed"]);
    house.wait_for_empty_queue();
}

/// The real posta-auth, over the real posta-smtpd: a login that was carried on by somebody between
/// the two has another channel, and fails.
#[test]
fn a_login_is_bound_to_its_own_connection() {
    let house = house();
    let mechanisms = house.path("run/mechanisms");
    wait_for("posta-auth to tell what it can do", || fs::read_to_string(&mechanisms).ok());
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut carol = User::by(&house, version);
        carol.say("EHLO laptop.example", "250");
        let channel = carol.exporter();
        let said = carol.scram_plus("secret", Binding::Exporter, channel);
        assert!(said.starts_with("235 2.7.0 "), "{said}");
        carol.say("MAIL FROM:<carol@users.example>", "250");
        carol.say("RCPT TO:<bob@elsewhere.example>", "250");
    }
    house.wait_for_log(&["mechanism=SCRAM-SHA-256-PLUS", "status=accepted"]);
    let elsewhere = User::new(&house).exporter();
    let mut carol = User::new(&house);
    carol.say("EHLO laptop.example", "250");
    let said = carol.scram_plus("secret", Binding::Exporter, elsewhere);
    assert!(said.starts_with("535 5.7.8 "), "{said}");
    carol.say("MAIL FROM:<carol@users.example>", "530 5.7.0 ");
}
