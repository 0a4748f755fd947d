//! Mail that a user hands in, through the real programs: the keeper gives the keys to posta-smtpd,
//! posta-auth knows the password, and the message arrives at another server.

#[path = "certificates/mod.rs"]
#[allow(dead_code)] // the rooms of TLS need the rest
mod certificates;
mod station;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};

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
        let socket = TcpStream::connect(SocketAddr::new(house.address, 2465)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        let mut stream = SslStream::new(Ssl::new(&context).unwrap(), socket).unwrap();
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
