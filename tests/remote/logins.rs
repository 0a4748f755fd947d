//! Who posta-remote is to a relay: by the sender of each message, if the file says so.

use std::os::unix::fs::PermissionsExt;

use posta::courier::report::Report;
use posta::courier::request::{Hop, Target};
use posta::mail::address::ReversePath;

use crate::house::{House, listeners, request, short};
use crate::sink::{Asked, Say, Sink, polite, say};

/// Wants to know who we are, and believes it.
fn doorman(asked: &Asked<'_>) -> Say {
    match asked.line {
        line if line.starts_with("EHLO") => say("250-sink\n250 AUTH PLAIN"),
        line if line.starts_with("AUTH") => say("235 2.7.0 welcome"),
        _ => polite(asked),
    }
}

/// A house whose relay, on this host, wants the login in a file with this text.
pub fn with_logins(
    text: &str,
    script: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static,
) -> (House, Sink, Target) {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), script);
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let relay = format!("127.0.0.2:{port}");
    let domains = format!("[domains]\n\"*\" = {{ relay = \"{relay}\", login = \"{}\" }}", path.display());
    (House::start(port, "", &domains), sink, Target::Smtp(Hop::parse(&relay, 25).unwrap()))
}

/// Sends a message of this sender.
fn send(house: &House, relay: &Target, sender: &str) -> Report {
    let mut wishes = request(relay.clone(), &["r@d.example"], b"text\r\n");
    wishes.sender = ReversePath::parse(sender, false).unwrap();
    house.hand_out(&wishes, b"text\r\n");
    house.report()
}

#[test]
fn each_sender_is_who_the_file_says_and_no_session_serves_two_of_them() {
    let (house, sink, relay) =
        with_logins("all secret\n<alice@own.example> alice hers\n<@other.example> other theirs\n", doorman);
    for sender in ["alice@own.example", "bob@other.example", "bob@own.example", "", "Alice@own.example"] {
        assert_eq!(short(&send(&house, &relay, sender).outcomes[0]), "2.0.0 250 2.0.0 ok", "{sender}");
    }
    let said = |connection: usize| -> Vec<String> {
        let commands = sink.heard()[connection].commands.clone();
        commands.into_iter().filter(|line| line.starts_with("AUTH") || line.starts_with("MAIL")).collect()
    };
    assert_eq!(sink.heard().len(), 3, "one session for each login");
    let alice =
        ["AUTH PLAIN AGFsaWNlAGhlcnM=", "MAIL FROM:<alice@own.example>", "MAIL FROM:<Alice@own.example>"];
    assert_eq!(said(0), alice);
    assert_eq!(said(1), ["AUTH PLAIN AG90aGVyAHRoZWlycw==", "MAIL FROM:<bob@other.example>"]);
    assert_eq!(said(2), ["AUTH PLAIN AGFsbABzZWNyZXQ=", "MAIL FROM:<bob@own.example>", "MAIL FROM:<>"]);
}

#[test]
fn a_sender_without_a_login_waits_and_is_no_fault_of_the_relay() {
    let (house, sink, relay) = with_logins("<alice@own.example> alice hers\n", doorman);
    for sender in ["bob@own.example", ""] {
        let report = send(&house, &relay, sender);
        let said = short(&report.outcomes[0]);
        assert!(said.starts_with(&format!("4.3.5 there is no login for mail of <{sender}> in /")), "{said}");
        assert!(!report.unreachable, "others can go");
    }
    assert!(sink.heard().is_empty());
    assert_eq!(short(&send(&house, &relay, "alice@own.example").outcomes[0]), "2.0.0 250 2.0.0 ok");
}
