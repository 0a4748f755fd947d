//! posta-remote as posta-queue and the net see it: the real program, a server with a script on
//! loopback, a zone file in place of the DNS.

#[allow(dead_code)]
#[path = "../certificates/mod.rs"]
mod certificates;
mod chunks;
mod dns;
mod house;
mod logins;
mod nameserver;
mod reach;
mod record;
mod sink;
mod tls;

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use posta::courier::request::{Hop, Target};
use posta::mail::envelope::{BodyKind, Notify, Ret};
use posta::mail::status::Fate;

use house::{House, listeners, request};
use sink::{Asked, Say, Sink, polite, say};

/// A house and one sink, `d.example` at 127.0.0.2.
fn one_host(script: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static) -> (House, Sink) {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), script);
    (House::start(port, "d.example A 127.0.0.2", ""), sink)
}

/// A house and two sinks: `d.example` has mx1 at 127.0.0.2, which is better, and mx2 at 127.0.0.3.
fn two_hosts(
    first: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static,
    second: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static,
) -> (House, Sink, Sink) {
    let (port, mut listening) = listeners(&[2, 3]);
    let second = Sink::tcp(listening.remove(1), second);
    let first = Sink::tcp(listening.remove(0), first);
    let zone = "d.example MX 20 mx2.example\nd.example MX 10 mx1.example\n\
                mx1.example A 127.0.0.2\nmx2.example A 127.0.0.3";
    (House::start(port, zone, ""), first, second)
}

fn d() -> Target {
    Target::Mx("d.example".into())
}

#[test]
fn the_best_exchanger_is_taken_and_named() {
    let (house, first, second) = two_hosts(polite, polite);
    house.hand_out(&request(d(), &["a@d.example"], b"text\r\n"), b"text\r\n");
    let report = house.report();
    assert_eq!((report.job, report.unreachable), (7, false));
    let outcome = &report.outcomes[0];
    assert_eq!((outcome.n, outcome.fate(), outcome.said, outcome.passed_on), (10, Fate::Done, true, true));
    assert!(outcome.relay.starts_with("mx1.example[127.0.0.2]:"), "{}", outcome.relay);
    assert_eq!(first.messages(), [b"Received: from test\r\ntext\r\n".to_vec()]);
    assert_eq!(first.commands("EHLO"), ["EHLO own.example"]);
    assert_eq!(second.heard().len(), 0);
}

#[test]
fn a_host_that_is_down_or_unwilling_gives_way_to_the_next() {
    let (port, listening) = listeners(&[3]);
    let sink = Sink::tcp(listening.into_iter().next().unwrap(), polite);
    let zone = "d.example MX 10 down.example\nd.example MX 20 up.example\n\
                down.example A 127.0.0.9\nup.example A 127.0.0.3\nalone.example A 127.0.0.9";
    let house = House::start(port, zone, "");
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    house.hand_out(&request(Target::Mx("alone.example".into()), &["a@alone.example"], b""), b"");
    let report = house.report();
    assert!(report.unreachable);
    assert_eq!(report.outcomes[0].status.to_string(), "4.4.1");
    assert_eq!(report.outcomes[0].relay, "");
    assert!(report.outcomes[0].text.contains("alone.example[127.0.0.9]"), "{}", report.outcomes[0].text);
    drop(sink);

    for greeting in ["421 too busy", "554 not you", "what?", ""] {
        let unwilling = move |asked: &Asked<'_>| match asked.line {
            "CONNECT" if greeting.is_empty() => Say::Close,
            "CONNECT" => say(greeting),
            _ => polite(asked),
        };
        let (house, first, second) = two_hosts(unwilling, polite);
        assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok", "{greeting}");
        assert_eq!((first.messages().len(), second.messages().len()), (0, 1));
    }
}

#[test]
fn an_unwelcome_client_waits_and_does_not_bounce() {
    let (house, _sink) = one_host(|_| Say::Last("554 not you".into()));
    house.hand_out(&request(d(), &["a@d.example"], b""), b"");
    let report = house.report();
    assert!(!report.unreachable, "it can be reached");
    assert_eq!((report.outcomes[0].fate(), report.outcomes[0].text.as_str()), (Fate::Later, "554 not you"));
    assert!(report.outcomes[0].relay.starts_with("d.example[127.0.0.2]:"));
}

#[test]
fn what_the_dns_says_decides_the_fate() {
    let zone = "null.example MX 0 .\nself.example MX 10 own.example\nself.example MX 20 worse.example\n\
                broken.example SERVFAIL\nsilent.example TIMEOUT\nempty.example EMPTY\n\
                nohost.example MX 10 missing.example\nnow.example MX 10 broken.example";
    let house = House::start(2, zone, "");
    let cases = [
        ("null.example", "5.1.10", false),
        ("missing.example", "5.1.2", false),
        ("empty.example", "5.1.2", false),
        ("self.example", "5.4.6", false),
        ("nohost.example", "5.4.4", false),
        ("broken.example", "4.4.3", true),
        ("silent.example", "4.4.3", true),
        ("now.example", "4.4.3", true),
    ];
    for (domain, status, unreachable) in cases {
        house.hand_out(&request(Target::Mx(domain.into()), &["a@x.example"], b""), b"");
        let report = house.report();
        let outcome = &report.outcomes[0];
        assert_eq!(
            (outcome.status.to_string().as_str(), report.unreachable),
            (status, unreachable),
            "{domain}"
        );
        assert!(!outcome.said && outcome.relay.is_empty(), "{outcome:?}");
    }
}

#[test]
fn each_recipient_has_the_reply_that_was_given_to_it() {
    let (house, sink) = one_host(|asked| {
        say(match asked.line {
            line if line.contains("<no@") => "550-5.1.1 no such\n550 5.1.1 user",
            line if line.contains("<later@") => "450 busy mailbox",
            line if line.contains("<lines@") => "250-one\n250-\n250",
            _ => return polite(asked),
        })
    });
    let recipients = ["a@d.example", "no@d.example", "later@d.example", "lines@d.example"];
    let outcomes = house.deliver(&d(), &recipients, b"x\r\n");
    let expected = [
        "2.0.0 250 2.0.0 ok",
        "5.1.1 550 5.1.1 no such user",
        "4.0.0 450 busy mailbox",
        "2.0.0 250 2.0.0 ok",
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(sink.messages().len(), 1);
    assert_eq!(sink.commands("RCPT")[0], "RCPT TO:<a@d.example>");
}

#[test]
fn a_421_in_the_middle_leaves_the_undecided_to_the_next_host() {
    let closing = |asked: &Asked<'_>| match asked.line {
        line if line.contains("<no@") => say("550 5.1.1 no"),
        line if line.contains("<then@") => Say::Last("421 4.3.2 closing".into()),
        _ => polite(asked),
    };
    let (house, first, second) = two_hosts(closing, polite);
    let outcomes = house.deliver(&d(), &["a@d.example", "no@d.example", "then@d.example"], b"x\r\n");
    assert_eq!(outcomes, ["2.0.0 250 2.0.0 ok", "5.1.1 550 5.1.1 no", "2.0.0 250 2.0.0 ok"]);
    assert_eq!(first.messages().len(), 0);
    assert_eq!(second.commands("RCPT"), ["RCPT TO:<a@d.example>", "RCPT TO:<then@d.example>"]);

    let (house, _sink) = one_host(closing);
    let outcomes = house.deliver(&d(), &["a@d.example", "then@d.example"], b"x\r\n");
    assert_eq!(outcomes, ["4.3.2 421 4.3.2 closing"; 2], "alone, it means later for all");
}

#[test]
fn a_connection_serves_the_next_message_and_ends_with_quit() {
    let (house, sink) = one_host(polite);
    for _ in 0..3 {
        assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    }
    assert_eq!(sink.heard().len(), 1, "one connection");
    assert_eq!(sink.commands("RSET").len(), 0);
    sink.wait_for("QUIT", |heard| heard[0].closed);
    assert_eq!(sink.heard()[0].commands.last().unwrap(), "QUIT");
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert_eq!(sink.heard().len(), 2);
}

#[test]
fn a_connection_serves_no_more_messages_than_it_may() {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = House::start(port, "d.example A 127.0.0.2", "max_messages_per_connection = 2");
    for _ in 0..3 {
        house.deliver_one("d.example");
    }
    sink.wait_for("the first one's end", |heard| heard.len() == 2 && heard[0].closed);
    assert_eq!(sink.heard()[0].commands.last().unwrap(), "QUIT");
}

#[test]
fn a_kept_connection_that_has_died_is_no_failure() {
    for goodbye in ["", "421 4.4.2 idle too long"] {
        let (house, sink) = one_host(move |asked| match asked.line {
            "." if asked.connection == 0 && goodbye.is_empty() => Say::Last("250 2.0.0 ok".into()),
            "." if asked.connection == 0 => Say::Last(format!("250 2.0.0 ok\n{goodbye}")),
            _ => polite(asked),
        });
        assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
        sink.wait_for("the first one's end", |heard| heard[0].closed);
        assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok", "{goodbye}");
        assert_eq!(sink.messages().len(), 2);
    }
}

#[test]
fn a_host_that_goes_after_the_dot_may_have_the_message() {
    let (house, first, second) =
        two_hosts(|asked| if asked.is(".") { Say::Close } else { polite(asked) }, polite);
    let outcome = house.deliver_one("d.example");
    assert!(outcome.starts_with("4.4.2 lost connection"), "{outcome}");
    assert_eq!((first.messages().len(), second.heard().len()), (1, 0));
}

#[test]
fn a_host_that_goes_before_the_dot_gives_way_to_the_next() {
    let (house, _first, second) =
        two_hosts(|asked| if asked.is("DATA") { Say::Close } else { polite(asked) }, polite);
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert_eq!(second.messages().len(), 1);
}

#[test]
fn servers_of_the_old_school_are_spoken_to_step_by_step() {
    let (house, sink) = one_host(|asked| match asked.line {
        line if line.starts_with("EHLO") => say("502 5.5.1 what?"),
        "CONNECT" => say("220-welcome\n220-to\n220 us"),
        line if line.contains("<no@") => say("550 no"),
        _ => polite(asked),
    });
    let message = b"x\r\n";
    let mut wishes = request(d(), &["a@d.example", "no@d.example"], message);
    (wishes.ret, wishes.body) = (Some(Ret::Full), BodyKind::EightBitMime);
    house.hand_out(&wishes, message);
    let report = house.report();
    let passed_on: Vec<bool> = report.outcomes.iter().map(|outcome| outcome.passed_on).collect();
    assert_eq!(passed_on, [false, false]);
    let expected = [
        "EHLO own.example",
        "HELO own.example",
        "MAIL FROM:<s@own.example>",
        "RCPT TO:<a@d.example>",
        "RCPT TO:<no@d.example>",
        "DATA",
    ];
    assert_eq!(sink.heard()[0].commands, expected, "7-bit text called 8BITMIME goes without BODY");
    assert_eq!(sink.messages().len(), 1);
}

/// Takes seven bits only.
fn old_fashioned(asked: &Asked<'_>) -> Say {
    if asked.is("EHLO") { say("250-sink\n250-PIPELINING\n250 SIZE 1000000") } else { polite(asked) }
}

#[test]
fn eight_bit_text_is_converted_for_who_does_not_take_it() {
    let (house, sink) = one_host(old_fashioned);
    let head = "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    let message = format!(
        "{head}--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\u{17e}lu\u{165}\r\n\
         .\r\n--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\u{17e}\r\n--b--\r\n"
    );
    let wanted = "Received: from test\r\nContent-Type: multipart/mixed; boundary=b\r\n\
        Content-Transfer-Encoding: 7bit\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n=C5=BElu=C5=A5\r\n.\r\n--b\r\nContent-Type: application/x\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nxb4=\r\n--b--\r\n";
    // What was not called 8BITMIME, but is, and BINARYMIME, which we can't pass on.
    for body in [BodyKind::EightBitMime, BodyKind::SevenBit, BodyKind::BinaryMime] {
        let mut wishes = request(d(), &["a@d.example"], message.as_bytes());
        wishes.body = body;
        house.hand_out(&wishes, message.as_bytes());
        assert_eq!(house.report().outcomes[0].status.to_string(), "2.0.0", "{body:?}");
    }
    let size = wanted.len();
    assert_eq!(sink.commands("MAIL"), vec![format!("MAIL FROM:<s@own.example> SIZE={size}"); 3]);
    assert!(sink.messages().iter().all(|got| got == wanted.as_bytes()), "{:?}", sink.messages());
}

#[test]
fn eight_bit_text_that_nobody_has_called_so_is_called_so() {
    let (house, sink) = one_host(polite);
    for message in ["\u{17e}lu\u{165}\r\n", "ascii\r\n"] {
        assert_eq!(house.deliver(&d(), &["a@d.example"], message.as_bytes()), ["2.0.0 250 2.0.0 ok"]);
    }
    let expected = ["MAIL FROM:<s@own.example> SIZE=29 BODY=8BITMIME", "MAIL FROM:<s@own.example> SIZE=28"];
    assert_eq!(sink.commands("MAIL"), expected);
    assert_eq!(sink.messages()[0], "Received: from test\r\n\u{17e}lu\u{165}\r\n".as_bytes());
}

#[test]
fn a_signed_message_is_sent_to_who_takes_it_or_back() {
    let message = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\u{17e}\r\n--b--\r\n";
    let send = |house: &House| {
        let mut wishes = request(d(), &["a@d.example"], message.as_bytes());
        wishes.body = BodyKind::EightBitMime;
        house.hand_out(&wishes, message.as_bytes());
        let outcome = house.report().outcomes.remove(0);
        (outcome.status.to_string(), outcome.text)
    };
    let (house, first, second) = two_hosts(old_fashioned, polite);
    assert_eq!(send(&house).0, "2.0.0");
    assert_eq!((first.commands("MAIL").len(), second.messages().len()), (0, 1));
    let (house, sink) = one_host(old_fashioned);
    let why = "the host does not offer 8BITMIME: converting would break its signature";
    assert_eq!(send(&house), ("5.6.3".into(), why.into()));
    assert_eq!(sink.commands("MAIL").len(), 0);
}

#[test]
fn wishes_about_reports_are_passed_on() {
    let (house, sink) = one_host(polite);
    let message = "žluť\r\n".as_bytes();
    let mut wishes = request(d(), &["a@d.example"], message);
    (wishes.ret, wishes.envid, wishes.body) =
        (Some(Ret::Headers), Some("e+20v".into()), BodyKind::EightBitMime);
    wishes.recipients[0].notify = Notify::parse("SUCCESS,FAILURE").unwrap();
    wishes.recipients[0].orcpt = Some("rfc822;o@x.example".into());
    house.hand_out(&wishes, message);
    assert!(house.report().outcomes[0].passed_on);
    let size = wishes.trace.len() + message.len();
    let mail = format!("MAIL FROM:<s@own.example> SIZE={size} BODY=8BITMIME RET=HDRS ENVID=e+20v");
    assert_eq!(sink.commands("MAIL"), [mail]);
    assert_eq!(
        sink.commands("RCPT"),
        ["RCPT TO:<a@d.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@x.example"]
    );
}

#[test]
fn a_message_too_big_for_the_host_is_not_sent() {
    let (house, sink) = one_host(polite);
    let message = b"0123456789abcdef\r\n".repeat(60_000);
    let outcomes = house.deliver(&d(), &["a@d.example"], &message);
    assert!(outcomes[0].starts_with("5.3.4 "), "{outcomes:?}");
    assert_eq!(sink.commands("MAIL").len(), 0);
}

#[test]
fn too_many_recipients_come_in_another_transaction() {
    let (house, sink) = one_host(|asked| match asked.line {
        line if line.starts_with("RCPT") && matches!(asked.times, 3 | 4) => say("452 4.5.3 too many"),
        _ => polite(asked),
    });
    let recipients = ["a@d.example", "b@d.example", "c@d.example", "e@d.example"];
    assert_eq!(house.deliver(&d(), &recipients, b"x\r\n"), ["2.0.0 250 2.0.0 ok"; 4]);
    assert_eq!((sink.messages().len(), sink.heard().len()), (2, 1));
}

#[test]
fn by_lmtp_each_recipient_has_its_own_end() {
    let house = House::start(2, "", "");
    let path = house.path("lmtp");
    let sink = Sink::unix(UnixListener::bind(&path).unwrap(), |asked| {
        say(match asked.line {
            line if line.contains("<no@") => "550 5.1.1 no",
            "." => "250 2.1.5 kept\n552 5.2.2 full\n451 4.2.0 busy",
            _ => return polite(asked),
        })
    });
    let hop = Hop::parse(&format!("unix:{}", path.display()), 24).unwrap();
    let recipients = ["a@d.example", "no@d.example", "full@d.example", "busy@d.example"];
    let outcomes = house.deliver(&Target::Lmtp(hop), &recipients, b"x\r\n");
    let expected =
        ["2.1.5 250 2.1.5 kept", "5.1.1 550 5.1.1 no", "5.2.2 552 5.2.2 full", "4.2.0 451 4.2.0 busy"];
    assert_eq!(outcomes, expected);
    assert_eq!(sink.commands("LHLO"), ["LHLO own.example"]);
}

#[test]
fn data_for_nobody_is_an_empty_message() {
    let (house, sink) =
        one_host(
            |asked| if asked.is("RCPT") && asked.times == 1 { say("550 5.1.1 no") } else { polite(asked) },
        );
    assert_eq!(house.deliver_one("d.example"), "5.1.1 550 5.1.1 no");
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    let heard = sink.heard();
    assert_eq!(heard.len(), 1, "the connection is good for the next message");
    assert_eq!(heard[0].messages[0], b"");
    assert_eq!(heard[0].messages.len(), 2);
    assert_eq!(heard[0].commands.iter().filter(|c| *c == "RSET").count(), 1);
}

#[test]
fn a_refused_data_command_is_for_all_and_a_refused_message_too() {
    let (house, _sink) = one_host(|asked| match (asked.line, asked.times) {
        ("DATA", 1) => say("554 5.7.1 no data"),
        (".", 1) => say("550 5.6.0 bad content"),
        (".", 2) => say("451 not now"),
        _ => polite(asked),
    });
    let both = ["a@d.example", "b@d.example"];
    assert_eq!(house.deliver(&d(), &both, b"x\r\n"), ["5.7.1 554 5.7.1 no data"; 2]);
    assert_eq!(house.deliver(&d(), &both, b"x\r\n"), ["5.6.0 550 5.6.0 bad content"; 2]);
    assert_eq!(house.deliver(&d(), &both, b"x\r\n"), ["4.0.0 451 not now"; 2]);
}

#[test]
fn a_silent_host_delays_nobody_else() {
    let (port, mut listening) = listeners(&[2, 3]);
    let _silent = listening.remove(1); // connections are taken by the kernel, and nobody greets
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = House::start(port, "silent.example A 127.0.0.3\nd.example A 127.0.0.2", "");
    for _ in 0..20 {
        house.hand_out(&request(Target::Mx("silent.example".into()), &["a@silent.example"], b""), b"");
    }
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert_eq!(sink.messages().len(), 1);
}

#[test]
fn the_content_arrives_byte_for_byte() {
    let (house, sink) = one_host(polite);
    let long = [b"x".repeat(998), b"\r\n".to_vec()].concat();
    let big = b"a line, and more\r\n.\r\n..dots\r\n\r\n".repeat(9_000);
    let longer = [b"y".repeat(100_000), b"\r\n".to_vec()].concat();
    let messages: [&[u8]; 7] =
        [b"", b".\r\n", b"..\r\n.x\r\n\r\n \t\r\n", &long, &longer, &big, "žluť\r\n".as_bytes()];
    for message in messages {
        assert_eq!(house.deliver(&d(), &["a@d.example"], message), ["2.0.0 250 2.0.0 ok"]);
        let received = sink.messages().pop().unwrap();
        assert!(received == [b"Received: from test\r\n", message].concat(), "{} octets", message.len());
    }
    house.deliver(&d(), &["a@d.example"], b"no end");
    assert!(sink.messages().pop().unwrap().ends_with(b"no end\r\n"));
}

#[test]
fn a_file_shorter_than_it_should_be_is_never_sent_as_whole() {
    let (house, sink) = one_host(polite);
    let mut lie = request(d(), &["a@d.example"], b"x\r\n");
    lie.size = 100_000;
    house.hand_out(&lie, b"x\r\n");
    assert_eq!(house.report().outcomes[0].status.to_string(), "4.3.0");
    sink.wait_for("the connection's end", |heard| heard[0].closed);
    assert_eq!(sink.messages().len(), 0);
}

#[test]
fn a_named_hop_is_asked_without_mx() {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = House::start(2, "hop.example A 127.0.0.2\nhop.example MX 0 .", "");
    let hop = |text: String| Target::Smtp(Hop::parse(&text, 25).unwrap());
    for place in [format!("hop.example:{port}"), format!("127.0.0.2:{port}")] {
        assert_eq!(house.deliver(&hop(place), &["a@d.example"], b"x\r\n"), ["2.0.0 250 2.0.0 ok"]);
    }
    let gone = house.deliver(&hop("gone.example:25".into()), &["a@d.example"], b"x\r\n");
    assert!(gone[0].starts_with("4.4.4 "), "what the administrator misspelt does not bounce: {gone:?}");
    drop(sink);
}

#[test]
fn the_name_server_that_is_set_is_asked() {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house =
        House::with(port, &format!("nameserver = \"{}\"", nameserver::start("d.example A 127.0.0.2")));
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert!(house.deliver_one("other.example").starts_with("5.1.2 "));
    assert_eq!(sink.messages().len(), 1);
}

#[test]
fn another_runner_is_served_when_the_first_has_gone() {
    let (mut house, sink) = one_host(polite);
    assert_eq!(house.credits, 200);
    house.deliver_one("d.example");
    house.new_runner();
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert_eq!(sink.messages().len(), 2);
}

#[test]
fn a_begun_transaction_is_finished_before_the_end() {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (mut house, sink) = one_host(move |asked| {
        if asked.is(".") {
            // The test's end releases it too.
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(30));
        }
        polite(asked)
    });
    house.hand_out(&request(d(), &["a@d.example"], b"x\r\n"), b"x\r\n");
    sink.wait_for("the message", |heard| heard.len() == 1 && heard[0].messages.len() == 1);
    house.terminate();
    release.send(()).unwrap();
    assert_eq!(house.report().outcomes[0].fate(), Fate::Done);
    assert!(house.end().success());
    sink.wait_for("QUIT", |heard| heard[0].commands.last().is_some_and(|c| c == "QUIT"));
}

#[test]
fn a_kept_connection_is_quit_at_the_end() {
    let (mut house, sink) = one_host(polite);
    house.deliver_one("d.example");
    house.terminate();
    assert!(house.end().success());
    sink.wait_for("QUIT", |heard| heard[0].commands.last().is_some_and(|c| c == "QUIT"));
}

#[test]
fn nonsense_ends_the_runner_that_sent_it_and_nobody_else() {
    let (mut house, _sink) = one_host(polite);
    house.runner.send(b"nonsense", None).unwrap();
    assert_eq!(house.runner.receive(&mut [0; 100]).unwrap().0, 0);
    house.new_runner();
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
}

#[test]
fn options_and_faults_are_answered_as_sysexits_says() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_posta-remote")).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    assert_eq!(run(&["-h"]).0, Some(0));
    assert_eq!(run(&["-V"]).1, format!("posta-remote {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["-x"]).0, Some(64));
    assert_eq!(run(&["more"]).0, Some(64));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("posta.toml");
    std::fs::write(&file, "[remote]\nprot = 25\n").unwrap();
    let (code, text) = run(&["-c", file.to_str().unwrap()]);
    assert_eq!(code, Some(78));
    assert!(text.contains("posta.toml:2:1: "), "{text}");
    std::fs::write(
        &file,
        format!("run = \"{}/missing\"\ndrop_privileges = false\n", folder.path().display()),
    )
    .unwrap();
    assert_eq!(run(&["-c", file.to_str().unwrap()]).0, Some(73));
}
