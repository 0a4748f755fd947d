//! posta-smtpd alone: chunks, proxies, trusted hosts, LMTP.

use posta::mail::envelope::{BodyKind, Origin};

use super::daemon::{Ground, wait_until};

/// A plain listener, one behind a proxy, one of LMTP.
const DOORS: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
proxy = true
[[listen]]
address = "127.0.0.1:0"
lmtp = true
[domains]
"example.org" = { users = "*", mailbox = "/nowhere/" }
[smtpd]
relay_from = ["192.0.2.9"]
xclient_from = ["127.0.0.7"]
xforward_from = ["127.0.0.8"]
max_message_size = 100000
"#;

#[test]
fn a_message_in_chunks_with_pauses() {
    let mut daemon = Ground::new(DOORS).start();
    let mut client = daemon.client();
    client.greet();
    client.say("MAIL FROM:<a@b.test> BODY=BINARYMIME", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.send("BDAT 6\r\nab");
    wait_until("the chunk is waited for", || daemon.read_log().contains("client=unknown[127.0.0.1]"));
    client.send("\0\n\rc");
    client.expect("250");
    wait_until("the session is parked", || daemon.status("Threads") < 9);
    client.send("BDAT 3\r\ndefBDAT 0 LAST\r\n");
    client.expect("250");
    client.expect("250 2.0.0 Ok: queued as ");
    let (entry, content) = daemon.ground.only_message();
    assert_eq!((content.as_slice(), entry.envelope.body), (&b"ab\0\n\rcdef"[..], BodyKind::BinaryMime));
    // What is never finished is never there.
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.send("BDAT 5\r\nabcde");
    client.expect("250");
    client.send("BDAT 1000\r\nabcde");
    drop(client);
    daemon.wait_for_log("lost connection after BDAT from unknown[127.0.0.1]");
    daemon.ground.only_message();
}

#[test]
fn chunks_that_are_not_wanted_are_read() {
    let daemon = Ground::new(DOORS).start();
    let mut client = daemon.client();
    client.greet();
    let noise = "QUIT\r\n".repeat(20_000);
    client.send(format!("BDAT {}\r\n{noise}NOOP\r\n", noise.len()));
    client.expect("503");
    client.expect("250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.send(format!("BDAT {} LAST\r\n{noise}NOOP\r\n", noise.len()));
    client.expect("552 5.3.4 ");
    client.expect("250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.say("BDAT 18446744073709551615 LAST", "552 5.3.4 ");
    client.expect_end();
    assert!(daemon.ground.messages().is_empty());
    assert!(daemon.status("VmRSS") < 60_000);
}

#[test]
fn a_proxy_says_who_the_client_is() {
    let mut daemon = Ground::new(DOORS).start();
    let headers: [&[u8]; 2] = [
        b"PROXY TCP4 192.0.2.9 192.0.2.1 40000 25\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc0\0\x02\x01\x9c\x40\0\x19",
    ];
    for header in headers {
        let mut client = daemon.connect_to(1, "127.0.0.1").unwrap();
        client.send(header);
        client.expect("220");
        client.begin("x@elsewhere.test");
        client.send(".\r\n");
        client.expect("250");
    }
    daemon.wait_for_log("connect from unknown[192.0.2.9]");
    for (entry, _) in daemon.ground.messages() {
        let Origin::Client { address, .. } = entry.envelope.origin else { panic!() };
        assert_eq!(address, Some("192.0.2.9".parse().unwrap()));
    }
    let mut nobody = daemon.connect_to(1, "127.0.0.1").unwrap();
    nobody.send("EHLO client.test\r\n");
    nobody.expect("421 4.3.0 ");
    nobody.expect_end();
    daemon.wait_for_log("warning: proxy unknown[127.0.0.1]: no PROXY header: ");
    // The address of a client is not to be had by anybody else.
    let mut other = daemon.client();
    other.say("PROXY TCP4 192.0.2.9 192.0.2.1 40000 25", "500");
}

#[test]
fn a_trusted_host_speaks_for_others() {
    let mut daemon = Ground::new(DOORS).start();
    let mut proxy = daemon.client_from("127.0.0.7");
    assert!(proxy.greet().iter().any(|offer| offer.starts_with("XCLIENT ")));
    proxy.say("XCLIENT NAME=h.test ADDR=192.0.2.77 HELO=h.test PROTO=ESMTP", "220");
    proxy.say("MAIL FROM:<a@b.test>", "250");
    proxy.say("RCPT TO:<x@elsewhere.test>", "554 5.7.1 ");
    proxy.say("RCPT TO:<x@example.org>", "250");
    proxy.say("DATA", "354");
    proxy.send(".\r\n");
    proxy.expect("250");
    daemon.wait_for_log("client=h.test[192.0.2.77]");
    let trace = String::from_utf8(daemon.ground.only_message().0.envelope.trace).unwrap();
    assert!(trace.starts_with("Received: from h.test (h.test [192.0.2.77])"), "{trace}");
    // Whom it speaks for may not say so in its turn.
    assert!(proxy.greet().iter().all(|offer| !offer.starts_with('X')));
    proxy.say("XCLIENT ADDR=192.0.2.9", "550 5.7.0 ");
    proxy.say("XFORWARD NAME=x", "550 5.7.0 ");
    let mut proxy = daemon.client_from("127.0.0.7");
    proxy.say("XCLIENT ADDR=192.0.2.9", "220");
    proxy.begin("x@elsewhere.test");
    let mut other = daemon.client();
    assert!(other.greet().iter().all(|offer| !offer.starts_with('X')));
    other.say("XCLIENT ADDR=192.0.2.9", "550 5.7.0 ");
}

#[test]
fn a_filter_says_whom_it_has_mail_from() {
    let mut daemon = Ground::new(DOORS).start();
    let mut filter = daemon.client_from("127.0.0.8");
    filter.greet();
    filter.say("XFORWARD NAME=h.test ADDR=192.0.2.77 IDENT=3Y7", "250");
    filter.say("MAIL FROM:<a@b.test>", "250");
    filter.say("RCPT TO:<x@example.org>", "250");
    filter.say("DATA", "354");
    filter.send(".\r\n");
    filter.expect("250");
    daemon.wait_for_log("client=unknown[127.0.0.8], orig_queue_id=3Y7, orig_client=h.test[192.0.2.77]");
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let daemon = Ground::new(DOORS).start();
    let mut client = daemon.connect_to(2, "127.0.0.1").unwrap();
    client.expect("220 mx.test LMTP ");
    client.say("EHLO client.test", "500");
    client.say("LHLO client.test", "250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.say("RCPT TO:<x@example.org>", "250");
    client.say("RCPT TO:<x@elsewhere.test>", "554");
    client.say("RCPT TO:<y@example.org>", "250");
    client.say("DATA", "354");
    client.send("text\r\n.\r\nQUIT\r\n");
    let first = client.expect("250 2.0.0 Ok: queued as ");
    assert_eq!(client.expect("250"), first);
    client.expect("221");
    let (entry, _) = daemon.ground.only_message();
    assert_eq!(entry.envelope.recipients.len(), 2);
    assert!(String::from_utf8(entry.envelope.trace).unwrap().contains(" with LMTP id "));
}

#[test]
fn addresses_beyond_ascii_have_their_parameter() {
    let daemon = Ground::new(DOORS).start();
    let mut client = daemon.client();
    client.greet();
    client.say("MAIL FROM:<jürgen@b.test>", "553 5.6.7 ");
    client.say("MAIL FROM:<jürgen@b.test> SMTPUTF8 BODY=8BITMIME", "250");
    client.say("RCPT TO:<žofie@example.org>", "250");
    client.say("DATA", "354");
    client.send("Subject: grüße\r\n\r\n.\r\n");
    client.expect("250");
    let (entry, _) = daemon.ground.only_message();
    assert!(entry.envelope.utf8 && entry.envelope.sender.to_string() == "jürgen@b.test");
    assert!(String::from_utf8(entry.envelope.trace).unwrap().contains(" with UTF8SMTP id "));
}

#[test]
fn many_errors_are_answered_slowly() {
    let daemon = Ground::new(&format!("{DOORS}max_errors = 3\n")).start();
    let begun = std::time::Instant::now();
    let mut client = daemon.client();
    for _ in 0..3 {
        client.say("FROB", "500");
    }
    client.say("FROB", "421 4.7.0 ");
    assert!(begun.elapsed() >= std::time::Duration::from_secs(2));
    // Our own clients are not slowed.
    let mut ours = daemon.client_from("127.0.0.7");
    ours.say("XCLIENT ADDR=192.0.2.9", "220");
    ours.say("FROB", "500");
}
