//! posta-smtpd alone: logins, and mail that users hand in.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use openssl::ssl::{Ssl, SslStream};
use posta::mail::envelope::Origin;
use posta::net::stream::Stream;

use super::daemon::{Client, Daemon, Ground, command_on, wait_until};
use super::secure::{context, implicit, secure_ground, starttls};
use super::stand_in::{LOGIN, PENALTY, PLAIN, WRONG, stand_in};

/// Submission with STARTTLS, with TLS, and on a trusted way.
pub const SUBMISSION: &str = r#"
[[listen]]
address = "127.0.0.1:0"
submission = true
[[listen]]
address = "127.0.0.1:0"
tls = "implicit"
submission = true
[[listen]]
address = "127.0.0.1:0"
trusted = true
[tls]
certificate = "CERTIFICATE"
[domains]
"example.org" = { users = "*", mailbox = "/nowhere/" }
[smtpd]
relay_from = []
"#;

/// A ground where alice can log in.
pub fn with_logins(settings: &str) -> Ground {
    let ground = secure_ground(settings);
    stand_in(&ground.path("run"));
    ground
}

fn start(more: &str) -> Daemon {
    with_logins(&format!("{SUBMISSION}{more}")).start()
}

#[test]
fn thunderbirds_way_of_handing_mail_in() {
    let mut daemon = start("");
    let mut client = daemon.client();
    let offers = client.greet();
    assert!(offers.iter().all(|offer| !offer.starts_with("AUTH")), "{offers:?}");
    client.say(&format!("AUTH PLAIN {PLAIN}"), "538 5.7.11 ");
    client.say(&format!("MAIL FROM:<{LOGIN}>"), "530 5.7.0 say STARTTLS first");
    let mut client = starttls(client);
    assert!(client.greet().contains(&"AUTH PLAIN LOGIN".to_string()));
    client.say(&format!("MAIL FROM:<{LOGIN}>"), "530 5.7.0 authentication required");
    client.say(&format!("AUTH PLAIN {PLAIN}"), "235 2.7.0 ");
    client.say(&format!("MAIL FROM:<{LOGIN}> BODY=8BITMIME SIZE=300"), "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "250");
    client.say("DATA", "354");
    client.send("Subject: hello\r\nTo: bob\r\nBcc: carol@elsewhere.test\r\n\r\ntext\r\n.\r\n");
    client.expect("250");
    client.say("QUIT", "221");
    let (entry, content) = daemon.ground.only_message();
    let content = String::from_utf8(content).unwrap();
    for line in
        ["Subject: hello\r\n", "Date: ", "Message-ID: <", &format!("From: {LOGIN}\r\n"), "\r\n\r\ntext\r\n"]
    {
        assert!(content.contains(line), "{line} in {content}");
    }
    assert!(!content.contains("carol"), "{content}");
    assert!(String::from_utf8(entry.envelope.trace).unwrap().contains(" with ESMTPSA id "));
    assert!(matches!(entry.envelope.origin, Origin::Client { login: Some(login), .. } if login == LOGIN));
    daemon.wait_for_log(&format!("client=unknown[127.0.0.1], sasl_method=PLAIN, sasl_username={LOGIN}"));
}

#[test]
fn a_login_sends_under_its_own_addresses() {
    let ground = with_logins(&format!("{SUBMISSION}hide_client = true\n"));
    let daemon = ground.start();
    let mut client = implicit(&daemon, 1);
    client.greet();
    client.say(&format!("AUTH PLAIN {PLAIN}"), "235");
    client.say("MAIL FROM:<bob@example.org>", "553 5.7.1 ");
    client.say("MAIL FROM:<>", "250");
    client.say("RSET", "250");
    client.say("MAIL FROM:<Alice+books@example.org>", "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "250");
    client.say("DATA", "354");
    client.send(".\r\n");
    client.expect("250");
    let trace = String::from_utf8(daemon.ground.only_message().0.envelope.trace).unwrap();
    assert!(trace.starts_with("Received: from hidden\r\n") && !trace.contains("127.0.0.1"), "{trace}");
}

#[test]
fn a_table_says_whose_addresses_are_whose() {
    let ground = with_logins(SUBMISSION);
    let table = ground.path("senders");
    std::fs::write(&table, format!("{LOGIN} @example.org\n")).unwrap();
    let settings = SUBMISSION.replace("CERTIFICATE", ground.path("cert.pem").to_str().unwrap());
    ground.configure(&format!("{settings}login_senders = \"{}\"\n", table.display()));
    let mut daemon = ground.start();
    let mut client = implicit(&daemon, 1);
    client.greet();
    client.say(&format!("AUTH PLAIN {PLAIN}"), "235");
    client.say("MAIL FROM:<bob@example.org>", "250");
    client.say("RSET", "250");
    client.say("MAIL FROM:<bob@elsewhere.test>", "553 5.7.1 ");
    std::fs::write(&table, "alice what\n").unwrap();
    daemon.signal("-HUP");
    daemon.wait_for_log("senders:1: what is \"what\"?");
    daemon.wait_for_log("the configuration is not changed");
}

#[test]
fn a_trusted_way_needs_no_tls() {
    let daemon = start("");
    let mut client = daemon.connect_to(2, "127.0.0.1").unwrap();
    client.expect("220");
    assert!(client.greet().contains(&"AUTH PLAIN LOGIN".to_string()));
    client.say("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.say("YWxpY2VAZXhhbXBsZS5vcmc=", "334 UGFzc3dvcmQ6");
    client.say("cGFzcyB3b3Jk", "235");
    // A login forgets nothing, but TLS does.
    let mut client = starttls(client);
    client.greet();
    client.say(&format!("MAIL FROM:<{LOGIN}>"), "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "554 5.7.1 ");
}

/// RFC 6409 8.1, for the envelope and for the header.
#[test]
fn names_without_a_domain_get_the_login_s() {
    let daemon = start("");
    let mut client = implicit(&daemon, 1);
    client.greet();
    client.say("MAIL FROM:<alice>", "530 5.7.0 ");
    client.say(&format!("AUTH PLAIN {PLAIN}"), "235");
    client.say("MAIL FROM:<bob>", "553 5.7.1 <bob@example.org>: this sender is not one of ");
    client.say("MAIL FROM:<alice>", "250");
    client.say("RCPT TO:<bob>", "250");
    client.say("DATA", "354");
    client.send("From: alice\r\nTo: bob, carol@elsewhere.test\r\n\r\ntext\r\n.\r\n");
    client.expect("250");
    let (entry, content) = daemon.ground.only_message();
    assert_eq!(entry.envelope.sender.to_string(), LOGIN);
    assert_eq!(entry.envelope.recipients[0].address.to_string(), "bob@example.org");
    let content = String::from_utf8(content).unwrap();
    assert!(content.contains("From: alice@example.org\r\n"), "{content}");
    assert!(content.contains("To: bob@example.org, carol@elsewhere.test\r\n"), "{content}");
    let mut stranger = daemon.connect_to(2, "127.0.0.1").unwrap();
    stranger.expect("220");
    stranger.greet();
    stranger.say("MAIL FROM:<alice>", "501 5.1.7 ");
}

#[test]
fn wrong_passwords_cost_time_and_no_thread() {
    let mut daemon = start("");
    let mut clients: Vec<_> = (0..12).map(|_| implicit(&daemon, 1)).collect();
    let begun = Instant::now();
    for client in &mut clients {
        client.greet();
        client.send(format!("AUTH PLAIN {WRONG}\r\n"));
    }
    let warning = "warning: unknown[127.0.0.1]: SASL PLAIN authentication failed: ";
    daemon.wait_for_log(warning);
    wait_until("the workers have gone while nobody is answered", || daemon.status("Threads") < 12);
    for client in &mut clients {
        client.expect("535 5.7.8 ");
        client.say("NOOP", "250");
        client.say(&format!("AUTH PLAIN {PLAIN}"), "235");
    }
    assert!(begun.elapsed() >= PENALTY);
    assert_eq!(daemon.read_log().matches(warning).count(), 12);
}

#[test]
fn the_last_wrong_password_costs_time_too() {
    let mut daemon = start("max_errors = 1\n");
    let mut client = implicit(&daemon, 1);
    client.greet();
    let begun = Instant::now();
    client.say(&format!("AUTH PLAIN {WRONG}"), "535 5.7.8 ");
    client.send(format!("AUTH PLAIN {WRONG}\r\n"));
    client.expect("421 4.7.0 ");
    client.expect_end();
    assert!(begun.elapsed() >= 2 * PENALTY);
    daemon.wait_for_log(" auth=0/2 commands=1/3");
}

#[test]
fn without_posta_auth_there_is_no_login() {
    let ground = secure_ground(SUBMISSION);
    let daemon = ground.start();
    let mut client = implicit(&daemon, 1);
    assert!(client.greet().iter().all(|offer| !offer.starts_with("AUTH")));
    client.say(&format!("AUTH PLAIN {PLAIN}"), "502");
    std::fs::write(daemon.ground.path("run/mechanisms"), "PLAIN\n").unwrap();
    let mut client = implicit(&daemon, 1);
    client.greet();
    client.say(&format!("AUTH PLAIN {PLAIN}"), "454 4.7.0 ");
}

#[test]
fn port_25_completes_nothing() {
    let daemon = start("");
    let mut client = daemon.connect_to(2, "127.0.0.1").unwrap();
    client.expect("220");
    client.begin("x@example.org");
    client.send("Subject: a\r\n\r\ntext\r\n.\r\n");
    client.expect("250");
    assert_eq!(daemon.ground.only_message().1, b"Subject: a\r\n\r\ntext\r\n");
}

/// The same words under inetd, where an answer that is kept back keeps only its own process.
#[test]
fn inetd_mode_takes_logins() {
    let ground = with_logins(SUBMISSION);
    let (ours, its) = UnixStream::pair().unwrap();
    let mut child = command_on(OwnedFd::from(its), &ground.path("posta.toml")).spawn().unwrap();
    let mut client = Client::new(Stream::unix(ours.try_clone().unwrap()).unwrap());
    client.expect("220");
    assert!(client.greet().iter().all(|offer| !offer.starts_with("AUTH")));
    client.say(&format!("AUTH PLAIN {PLAIN}"), "538 5.7.11 ");
    client.say("STARTTLS", "220");
    let mut stream = SslStream::new(Ssl::new(&context().build()).unwrap(), ours).unwrap();
    stream.connect().unwrap();
    let mut client = Client::over(stream);
    assert!(client.greet().contains(&"AUTH PLAIN LOGIN".to_string()));
    let begun = Instant::now();
    client.say(&format!("AUTH PLAIN {WRONG}"), "535 5.7.8 ");
    assert!(begun.elapsed() >= PENALTY);
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "554 5.7.1 ");
    client.say("RSET", "250");
    client.say("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.say("YWxpY2VAZXhhbXBsZS5vcmc=", "334 UGFzc3dvcmQ6");
    client.say("cGFzcyB3b3Jk", "235 2.7.0 ");
    client.say("MAIL FROM:<alice>", "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "250");
    client.say("DATA", "354");
    client.send("text\r\n.\r\nQUIT\r\n");
    client.expect("250");
    client.expect("221");
    assert!(child.wait().unwrap().success());
    let (entry, content) = ground.only_message();
    assert_eq!(content, b"text\r\n");
    assert!(matches!(entry.envelope.origin, Origin::Client { login: Some(login), .. } if login == LOGIN));
    assert!(String::from_utf8(entry.envelope.trace).unwrap().contains(" with ESMTPSA id "));
}

/// The real fail2ban on a real log: who guesses and who tries to relay is found, who is put off is not.
#[test]
fn fail2ban_finds_who_guesses() {
    let mut daemon = start("");
    let mut client = implicit(&daemon, 1);
    client.greet();
    client.say(&format!("AUTH PLAIN {WRONG}"), "535");
    let mut client = daemon.connect_to(2, "127.0.0.7").unwrap();
    client.expect("220");
    client.greet();
    client.say("MAIL FROM:<>", "250");
    client.say("RCPT TO:<\"a;[P0404]; from x[192.0.2.66]: \"@elsewhere.test>", "554 5.7.1");
    daemon.wait_for_log("authentication failed");
    daemon.wait_for_log("[P0404]");
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/host/fail2ban.conf");
    let log = daemon.ground.path("log");
    let mut command = std::process::Command::new("fail2ban-regex");
    // What a filter includes is looked for beside it, and then in /etc/fail2ban/filter.d.
    let common = std::path::Path::new("/etc/fail2ban/filter.d/common.conf");
    if !common.exists() {
        eprintln!("skipped: fail2ban is not here; the package fail2ban has it");
        return;
    }
    let folder = daemon.ground.path("filter.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(common, folder.join("common.conf")).unwrap();
    std::fs::copy(filter, folder.join("posta.conf")).unwrap();
    let said = command.args(["-o", "ip"]).arg(&log).arg(folder.join("posta.conf")).output().unwrap();
    let found = String::from_utf8_lossy(&said.stdout);
    let found: Vec<&str> = found.lines().filter(|line| !line.is_empty()).collect();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(found, ["127.0.0.1", "127.0.0.7"], "{errors}\n{}", daemon.read_log());
    // Those that fail2ban has for Postfix find the same, told only how our program is called: posta(7).
    let stock = "postfix[mode=extra, _daemon=posta-smtpd]";
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/posta.7")).unwrap();
    assert!(page.contains(stock));
    let said = std::process::Command::new("fail2ban-regex").args(["-o", "ip"]).arg(&log).arg(stock).output();
    let said = said.unwrap();
    let found = String::from_utf8_lossy(&said.stdout);
    let found: Vec<&str> = found.lines().filter(|line| !line.is_empty()).collect();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(found, ["127.0.0.1", "127.0.0.7"], "{errors}\n{}", daemon.read_log());
}
