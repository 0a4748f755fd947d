//! posta-smtpd alone: journeys from a client to the spool.

#[path = "../certificates/mod.rs"]
#[allow(dead_code)] // the rooms of TLS need the rest
mod certificates;
mod certified;
mod daemon;
mod flight;
mod life;
mod login;
mod offers;
mod others;
mod secure;
mod stand_in;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use posta::mail::envelope::Origin;
use posta::net::stream::Stream;

use daemon::{Client, Ground, PROGRAM, command_on, wait_until};

/// Anybody at example.org, from anybody; our clients may send anywhere.
pub const SETTINGS: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[domains]
"example.org" = { users = "*", mailbox = "/nowhere/" }
[smtpd]
relay_from = ["127.0.0.9"]
max_message_size = 100000
command_timeout = "50s"
"#;

/// The same, where every wait is short.
const HASTY: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[domains]
"example.org" = { users = "*", mailbox = "/nowhere/" }
[smtpd]
command_timeout = "1s"
data_timeout = "1s"
message_timeout = "2s"
"#;

#[test]
fn a_message_is_in_the_spool_when_250_is_said() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.begin("alice@example.org");
    client.send("Subject: a\r\n\r\n..dotted\r\n\0\u{e4}\r\n.\r\n");
    let reply = client.expect("250 2.0.0 ");
    let (entry, content) = daemon.ground.only_message();
    assert!(reply.contains(entry.id.as_str()), "{reply}");
    assert_eq!(content, "Subject: a\r\n\r\n.dotted\r\n\0\u{e4}\r\n".as_bytes());
    let envelope = entry.envelope;
    assert_eq!(envelope.sender.to_string(), "sender@client.test");
    let recipients: Vec<String> = envelope.recipients.iter().map(|r| r.address.to_string()).collect();
    assert_eq!(recipients, ["alice@example.org"]);
    let Origin::Client { address, helo, protocol, login } = envelope.origin else {
        panic!("{:?}", envelope.origin)
    };
    assert_eq!((address, login), (Some(IpAddr::from([127, 0, 0, 1])), None));
    assert_eq!((helo.as_str(), protocol.as_str()), ("client.test", "ESMTP"));
    let trace = String::from_utf8(envelope.trace).unwrap();
    assert!(trace.starts_with("Received: from client.test (unknown [127.0.0.1])"), "{trace}");
    assert!(trace.contains(entry.id.as_str()) && trace.ends_with("\r\n"), "{trace}");
    client.say("QUIT", "221");
    client.expect_end();
    daemon.wait_for_log("disconnect from unknown[127.0.0.1] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5");
    assert!(daemon.read_log().contains(&format!("{}: client=unknown[127.0.0.1]", entry.id)));
}

#[test]
fn pipelined_groups_are_answered_in_order() {
    let daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.say("EHLO client.test", "250");
    let group = "MAIL FROM:<a@b.test>\r\nRCPT TO:<x@elsewhere.test>\r\nRCPT TO:<x@example.org>\r\nDATA\r\n";
    client.send(group);
    for start in ["250", "554 5.7.1 <x@elsewhere.test>: Relay access denied", "250", "354"] {
        client.expect(start);
    }
    client.send(format!("one\r\n.\r\n{group}"));
    for start in ["250", "250", "554", "250", "354"] {
        client.expect(start);
    }
    client.send("two\r\n.\r\nQUIT\r\n");
    client.half_close();
    client.expect("250");
    client.expect("221");
    client.expect_end();
    let contents: Vec<Vec<u8>> = daemon.ground.messages().into_iter().map(|(_, content)| content).collect();
    assert_eq!(contents, [b"one\r\n", b"two\r\n"]);
}

#[test]
fn recipients_are_judged() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut stranger = daemon.client();
    stranger.say("HELO client.test", "250");
    stranger.say("MAIL FROM:<>", "250");
    stranger.say("RCPT TO:<x@elsewhere.test>", "554 5.7.1 ");
    stranger.say("DATA", "554 5.5.1 ");
    stranger.say("RCPT TO:<Postmaster>", "250");
    let line =
        daemon.wait_for_log("NOQUEUE: reject: RCPT from unknown[127.0.0.1]: 554 5.7.1 <x@elsewhere.test>: ");
    assert!(line.contains(" from=<> to=<x@elsewhere.test> proto=SMTP helo=<client.test> session="), "{line}");
    let mut ours = daemon.client_from("127.0.0.9");
    ours.begin("x@elsewhere.test");
}

#[test]
fn strangers_wait_for_our_word_and_our_own_need_not() {
    let daemon = Ground::new(SETTINGS).start();
    let all =
        "EHLO client.test\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nDATA\r\nall at once\r\n.\r\nQUIT\r\n";
    let mut stranger = daemon.client();
    stranger.send(all);
    stranger.expect("554 5.5.0 ");
    stranger.expect_end();
    let mut ours = daemon.connect_from("127.0.0.9").unwrap();
    ours.send(all);
    for start in ["220", "250", "250", "250", "354", "250", "221", ""] {
        ours.expect(start);
    }
    assert_eq!(daemon.ground.only_message().1, b"all at once\r\n");
}

#[test]
fn bad_data_is_refused_and_the_session_goes_on() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.begin("x@example.org");
    client.send("a\nb\r\n.\nMAIL FROM:<>\r\n\r\n.\r\n");
    client.expect("550 5.6.0 ");
    client.begin("x@example.org");
    client.send([&b"0123456789\r\n".repeat(20_000)[..], b".\r\n"].concat());
    client.expect("552 5.3.4 ");
    daemon.wait_for_log(": reject: END-OF-MESSAGE from unknown[127.0.0.1]: 552 5.3.4 ");
    client.begin("x@example.org");
    client.send([&b"Received: by loop.test\r\n".repeat(51)[..], b"\r\n.\r\n"].concat());
    client.expect("554 5.4.6 ");
    client.say("MAIL FROM:<> SIZE=100001", "552 5.3.4 ");
    client.begin("x@example.org");
    client.send(".\r\n");
    client.expect("250");
    assert_eq!(daemon.ground.only_message().1, b"");
}

#[test]
fn malformed_lines_are_errors_and_nothing_more() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.say("EHLO client.test", "250");
    client.say("NOOP \0", "500 ");
    client.say("\u{fe}\u{ff}", "500 ");
    client.say("NOOP\nNOOP", "500 5.5.2 ");
    client.send("NOOP\nRSET");
    client.say("", "500 5.5.2 ");
    for _ in 0..100 {
        client.send([b'x'; 10_000]);
    }
    client.say("", "500 5.5.2 ");
    client.say("NOOP", "250");
    assert!(daemon.status("VmRSS") < 50_000);
    daemon.wait_for_log("NOQUEUE: reject: UNKNOWN from unknown[127.0.0.1]: 500 5.5.2 line too long;");
}

#[test]
fn errors_have_an_end() {
    let settings = format!("{SETTINGS}max_errors = 5\n");
    let daemon = Ground::new(&settings).start();
    let mut client = daemon.client();
    client.send("XYZZY\r\n".repeat(5000));
    for _ in 0..5 {
        client.expect("500 ");
    }
    // Though we have not read all that it sent, the client sees our last word.
    client.expect("421 4.7.0 ");
    client.expect_end();
}

#[test]
fn a_byte_now_and_then_comes_to_the_deadline() {
    let mut daemon = Ground::new(HASTY).start();
    let mut silent = daemon.client();
    let mut trickles = daemon.client();
    let trickle = std::thread::spawn(move || {
        while trickles.try_send("N").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // What was sent after the close may have made a reset of it, so the reply may be lost.
    });
    silent.expect("421 4.4.2 ");
    silent.expect_end();
    trickle.join().unwrap();
    daemon.wait_for_log("timeout after CONNECT from unknown[127.0.0.1]");

    let mut stalls = daemon.client();
    stalls.begin("x@example.org");
    stalls.send("half a li");
    stalls.expect("421 4.4.2 ");
    stalls.expect_end();
    let mut trickles = daemon.client();
    trickles.begin("x@example.org");
    while trickles.try_send("N").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.wait_for_log("timeout after DATA from unknown[127.0.0.1]");
    assert!(daemon.ground.messages().is_empty());
}

#[test]
fn data_has_to_come_at_a_pace() {
    let settings = HASTY.replace("message_timeout = \"2s\"", "min_data_rate = 1000000");
    let mut daemon = Ground::new(&settings).start();
    let mut trickles = daemon.client();
    trickles.begin("x@example.org");
    while trickles.try_send("N").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.wait_for_log("timeout after DATA from unknown[127.0.0.1]");
    let mut trickles = daemon.client();
    trickles.say("EHLO client.test", "250");
    trickles.send("BDAT 100000\r\n");
    while trickles.try_send("N").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.wait_for_log("timeout after BDAT from unknown[127.0.0.1]");
}

#[test]
fn a_client_that_does_not_listen_is_left() {
    let mut daemon = Ground::new(HASTY).start();
    let mut client = daemon.client();
    client.say("EHLO client.test", "250");
    client.say("MAIL FROM:<>", "250");
    // Until neither side's buffers take more.
    while client.try_send("RCPT TO:<x@example.org>\r\n".repeat(1000)).is_ok() {}
    daemon.wait_for_log("replies not taken after RCPT by unknown[127.0.0.1]");
    assert!(daemon.status("VmRSS") < 50_000);
}

#[test]
fn a_client_that_goes_in_the_middle_leaves_nothing() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.begin("x@example.org");
    client.send("half a message\r\n");
    drop(client);
    daemon.wait_for_log("lost connection after DATA from unknown[127.0.0.1]");
    assert!(daemon.ground.messages().is_empty());
}

#[test]
fn a_unix_socket_s_client_is_nobody() {
    let ground = Ground::new("");
    let socket = ground.path("smtp");
    let address = format!("unix:{}", socket.display());
    ground.configure(&SETTINGS.replace("127.0.0.1:0", &address).replace("127.0.0.9", "0.0.0.0/0"));
    let mut daemon = ground.start();
    let stream = Stream::unix(UnixStream::connect(&socket).unwrap()).unwrap();
    let mut client = Client::new(stream);
    client.expect("220");
    client.say("EHLO client.test", "250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@elsewhere.test>", "554 5.7.1 ");
    client.say("RCPT TO:<x@example.org>", "250");
    daemon.wait_for_log("reject: RCPT from unknown[unknown]: ");
    // Killed and started again, it takes its own stale socket's place.
    daemon.signal("-KILL");
    daemon.wait_for_end();
    let _again = daemon.ground.clone().start();
    Client::new(Stream::unix(UnixStream::connect(&socket).unwrap()).unwrap()).expect("220");
}

#[test]
fn inetd_mode_serves_one_client() {
    let ground = Ground::new(&SETTINGS.replace("127.0.0.9", "0.0.0.0/0"));
    let (ours, its) = UnixStream::pair().unwrap();
    let mut child = command_on(OwnedFd::from(its), &ground.path("posta.toml")).spawn().unwrap();
    let mut client = Client::new(Stream::unix(ours).unwrap());
    client.expect("220");
    client.say("EHLO client.test", "250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@elsewhere.test>", "554 5.7.1 ");
    client.say("RCPT TO:<x@example.org>", "250");
    client.say("DATA", "354");
    client.send("text\r\n.\r\nQUIT\r\n");
    client.expect("250");
    client.expect("221");
    assert!(child.wait().unwrap().success());
    let (entry, content) = ground.only_message();
    assert_eq!(content, b"text\r\n");
    assert!(matches!(entry.envelope.origin, Origin::Client { address: None, .. }));
}

#[test]
fn inetd_mode_serves_pipes_too() {
    let ground = Ground::new(SETTINGS);
    let mut child = Command::new(PROGRAM)
        .arg("-i")
        .arg("-c")
        .arg(ground.path("posta.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let all = "HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<x@example.org>\r\nDATA\r\ntext\r\n.\r\nQUIT\r\n";
    child.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let codes: Vec<&str> = said.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "221"]);
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(ground.only_message().1, b"text\r\n");
}
