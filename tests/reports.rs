//! What senders are told, by the real programs: RFC 3461 and 3464 from the client's parameters to the
//! report in its mailbox.

mod station;

use std::net::SocketAddr;

use station::House;
use station::sink::Sink;

const MESSAGE: &str = "From: alice@example.org\nSubject: hello\n\nThe body.\n";

/// Sends with parameters of MAIL, and of RCPT with each recipient.
fn send(house: &House, mail: &str, recipients: &[(&str, &str)]) -> String {
    let mut client = house.client();
    client.hello();
    client.expect(&format!("MAIL FROM:<alice@example.org> {mail}"), "250");
    for (recipient, wishes) in recipients {
        client.expect(&format!("RCPT TO:<{recipient}> {wishes}"), "250");
    }
    client.try_data(MESSAGE).expect("the message was not accepted")
}

/// The lines must all be there.
fn has(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|l| l == *line), "{line:?} in\n{report}");
    }
}

#[test]
fn success_is_told_by_who_delivers_or_hands_on_to_a_server_without_dsn() {
    let house = House::start("");
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = send(
        &house,
        "RET=FULL ENVID=QQ+2B314",
        &[
            ("bob@example.org", "NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bx@old.example"),
            ("carol@example.org", "NOTIFY=FAILURE"),
            ("good@elsewhere.example", "NOTIFY=SUCCESS,FAILURE"),
        ],
    );
    sink.wait_for(1);
    let report = &house.wait_for_mail("alice", 1)[0];
    has(
        report,
        &[
            "Subject: Successful mail delivery report",
            "Original-Envelope-Id: QQ+314",
            &format!("X-Posta-Queue-Id: {id}"),
            "Original-Recipient: rfc822; Bob+x@old.example",
            "Final-Recipient: rfc822; bob@example.org",
            "Action: delivered",
            "Final-Recipient: rfc822; good@elsewhere.example",
            "Action: relayed",
            "Content-Type: text/rfc822-headers",
        ],
    );
    assert!(!report.contains("carol@") && !report.contains("The body."), "{report}");
    house.wait_for_empty_queue();
    assert_eq!(house.mailbox("alice").len(), 1, "one report for both");
}

#[test]
fn a_failure_gives_back_what_was_asked_for_and_never_is_silent() {
    let house = House::start("");
    let _sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = send(
        &house,
        "RET=FULL",
        &[
            ("bad1@elsewhere.example", ""),
            ("bad2@elsewhere.example", "NOTIFY=NEVER"),
            ("bad3@elsewhere.example", "NOTIFY=FAILURE"),
        ],
    );
    let report = &house.wait_for_mail("alice", 1)[0];
    has(report, &["Content-Type: message/rfc822", "The body.", "Auto-Submitted: auto-replied"]);
    let own = report.lines().find_map(|l| l.strip_prefix("Message-ID: <")).expect("a Message-ID");
    assert!(own.ends_with("@mail.example.org>") && !own.contains(&id), "{own}");
    assert_eq!(report.matches("Action: failed").count(), 2, "{report}");
    assert!(!report.contains("bad2@"), "{report}");
    house.wait_for_log(&[&id, "bad2@", "the sender asked not to be told"]);
    house.wait_for_empty_queue();
    assert_eq!(house.mailbox("alice").len(), 1);
}

#[test]
fn a_delay_is_told_once_and_only_to_who_wants_it() {
    let house = House::start(
        "[queue]\nwarn_after = \"1s\"\ngive_up = \"1h\"\nfirst_retry = \"1s\"\nlongest_retry = \"1s\"",
    );
    let id = send(&house, "", &[("bob@dead.example", ""), ("carol@dead.example", "NOTIFY=FAILURE")]);
    let report = &house.wait_for_mail("alice", 1)[0];
    has(report, &["Action: delayed", "Final-Recipient: rfc822; bob@dead.example"]);
    assert!(report.contains("Will-Retry-Until: ") && !report.contains("carol@"), "{report}");
    // Three attempts later there is still one.
    let tried = || house.log().lines().filter(|l| l.contains(&id) && l.contains("to=<bob@dead")).count();
    let before = tried();
    station::wait_for("three more attempts", || (tried() >= before + 3).then_some(()));
    assert_eq!(house.mailbox("alice").len(), 1);
}

/// Sends mail of the null sender, as reports are.
fn send_bounce(house: &House, to: &str) -> String {
    let mut client = house.client();
    client.hello();
    client.expect("MAIL FROM:<>", "250");
    client.expect(&format!("RCPT TO:<{to}>"), "250");
    client.try_data(MESSAGE).expect("the message was not accepted")
}

#[test]
fn a_bounce_that_can_t_be_delivered_is_dropped_or_told_to_the_postmaster() {
    let house = House::start("");
    let _sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = send_bounce(&house, "bad@elsewhere.example");
    house.wait_for_log(&[&id, "undeliverable, and the null sender is not told: dropped"]);
    house.wait_for_empty_queue();

    let house = House::start("[queue]\ndouble_bounces_to = \"carol@example.org\"");
    let _sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = send_bounce(&house, "bad@elsewhere.example");
    let report = &house.wait_for_mail("carol", 1)[0];
    let lines = ["Return-Path: <>", "Subject: Undeliverable report (double bounce)", "Action: failed"];
    has(report, &lines);
    has(report, &[&format!("X-Posta-Queue-Id: {id}"), "Subject: hello"]);
    house.wait_for_log(&[&id, "postmaster notified"]);
}

#[test]
fn a_report_of_a_double_bounce_is_never_bounced_again() {
    let house = House::start("[queue]\ndouble_bounces_to = \"bad1@elsewhere.example\"");
    let _sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = send_bounce(&house, "bad2@elsewhere.example");
    house.wait_for_log(&[&id, "postmaster notified"]);
    house.wait_for_log(&["to=<bad1@elsewhere.example>", "undeliverable, and the null sender is not told"]);
    house.wait_for_empty_queue();
    assert_eq!(house.log().matches("postmaster notified").count(), 1);
}

/// A house with an alias for one, an alias for two, and a list of two with an owner; what it sends on
/// goes to a server with DSN, as two messages. Mail for all three is sent, with every wish.
fn send_to_aliases() -> (House, Vec<station::sink::Arrived>, String) {
    let mut house = House::set_up("[local]\naliases = \"/dev/null\"");
    let aliases = "one: a@elsewhere.example\ntwo: b@elsewhere.example, carol@example.org\n\
                   list: c@elsewhere.example, badd@elsewhere.example\nowner-list: dave@example.org\n";
    std::fs::write(house.path("aliases"), aliases).unwrap();
    let settings = std::fs::read_to_string(house.config()).unwrap();
    let path = house.path("aliases").display().to_string();
    std::fs::write(house.config(), settings.replace("/dev/null", &path)).unwrap();
    house.run();
    let sink = Sink::with_dsn(SocketAddr::new(house.address, 2526));
    let to = |name: &str| format!("{name}@mail.example.org");
    let wishes = |name: &str| format!("NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{name}@old.example");
    let all = ["one", "two", "list"].map(|name| (to(name), wishes(name)));
    let all: Vec<_> = all.iter().map(|(to, wishes)| (to.as_str(), wishes.as_str())).collect();
    let id = send(&house, "RET=FULL ENVID=QQ314", &all);
    let arrived = sink.wait_for(2);
    (house, arrived, id)
}

#[test]
fn an_alias_hands_wishes_on_and_a_list_keeps_them() {
    let (house, arrived, id) = send_to_aliases();
    let sent = |to: &str| {
        let found = arrived.iter().find(|mail| mail.to.iter().any(|r| r.starts_with(to)));
        let mail = found.unwrap_or_else(|| panic!("{to} in {arrived:?}"));
        (mail.from.as_str(), mail.to.iter().find(|r| r.starts_with(to)).unwrap().as_str())
    };
    let is_sent = |to: &str, from: &[&str], wishes: &[&str], no: &[&str]| {
        let (sender, recipient) = sent(to);
        assert!(from.iter().all(|word| sender.contains(word)), "{sender}");
        assert!(wishes.iter().all(|word| recipient.contains(word)), "{recipient}");
        assert!(
            !no.iter().any(|word| sender.contains(word) || recipient.contains(word)),
            "{sender} {recipient}"
        );
    };
    // RFC 3461 5.2.7.2: the one takes all of it over.
    is_sent("a@", &["alice@example.org", "RET=FULL", "ENVID=QQ314"], &["SUCCESS", "one@old"], &[]);
    // RFC 3461 5.2.7.3: the several no wish for a success.
    is_sent("b@", &["ENVID=QQ314"], &["FAILURE", "DELAY", "two@old"], &["SUCCESS"]);
    // RFC 3461 5.2.7.1: and a list's members nothing at all.
    is_sent("c@", &["owner-list@mail.example.org"], &[], &["RET", "ENVID", "SUCCESS", "ORCPT"]);

    let report = &house.wait_for_mail("alice", 1)[0];
    has(report, &["Final-Recipient: rfc822; two@mail.example.org", "Action: expanded"]);
    has(report, &["Final-Recipient: rfc822; list@mail.example.org", "Action: delivered"]);
    has(report, &["Original-Recipient: rfc822; list@old.example", "Original-Envelope-Id: QQ314"]);
    house.wait_for_empty_queue();
    let told = house.mailbox("alice");
    assert_eq!((told.len(), told[0].matches("Action: ").count()), (1, 2), "{told:?}");
    // Who is on the list is told to its owner only, who did not ask for all of it.
    let report = &house.wait_for_mail("dave", 1)[0];
    has(report, &["Final-Recipient: rfc822; badd@elsewhere.example", &format!("X-Posta-Queue-Id: {id}")]);
    assert!(!report.contains("QQ314") && !report.contains("The body.") && !report.contains("old.example"));
}
