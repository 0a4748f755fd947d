//! What posta-remote keeps of a session in which something went wrong, and what it counts.

use std::fs;
use std::path::Path;

use posta::courier::report::Outcome;
use posta::courier::request::Target;
use posta::logbook::{count, sessions};

use crate::house::{House, request, short};
use crate::logins::with_logins;
use crate::sink::{Asked, Say, polite, say};
use crate::{d, one_host};

/// Delivers one message; what became of its recipient.
fn send(house: &House, target: Target) -> Outcome {
    house.hand_out(&request(target, &["a@d.example"], b"text\r\n"), b"text\r\n");
    house.report().outcomes.remove(0)
}

/// Ends the program, and reads what it has kept of the session that an outcome names.
fn kept(house: &mut House, outcome: &Outcome) -> String {
    house.terminate();
    assert!(house.end().success());
    let session = outcome.session.expect("a session is named");
    assert!(house.log().contains(&format!("session={session}")), "{}", house.log());
    sessions::read(&house.path(sessions::SENDING), session).unwrap().expect("it is kept")
}

/// How many files are in a folder.
fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_session_with_a_refusal_is_kept_and_named() {
    let (mut house, _sink) = one_host(|asked| match asked.line {
        line if line.starts_with("RCPT") => say("550-5.1.1 no\n550 5.1.1 such user"),
        _ => polite(asked),
    });
    let outcome = send(&house, d());
    assert_eq!(outcome.tls, "none (policy may)");
    let text = kept(&mut house, &outcome);
    let lines: Vec<&str> =
        text.lines().map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest)).collect();
    for line in [
        "< 220 sink.example ESMTP",
        "> EHLO own.example",
        "< 250-sink.example",
        "< 250 DSN",
        "> RCPT TO:<a@d.example>",
        "< 550-5.1.1 no",
        "< 550 5.1.1 such user",
    ] {
        assert!(lines.contains(&line), "{line} in {text}");
    }
    assert!(lines[0].contains("with d.example[127.0.0.2]:"), "{text}");
}

#[test]
fn what_went_well_leaves_nothing_behind() {
    let (mut house, _sink) = one_host(polite);
    assert_eq!(send(&house, d()).session, None);
    house.terminate();
    house.end();
    assert_eq!(files(&house.path(sessions::SENDING)), 0);
}

#[test]
fn hosts_that_do_not_welcome_us_or_go_are_told_of_too() {
    let unwelcoming =
        |asked: &Asked<'_>| if asked.is("CONNECT") { say("554 not you") } else { polite(asked) };
    let (mut house, _sink) = one_host(unwelcoming);
    let outcome = send(&house, d());
    assert!(kept(&mut house, &outcome).contains(" < 554 not you"));
    let (mut house, _sink) = one_host(|asked| if asked.is(".") { Say::Close } else { polite(asked) });
    let outcome = send(&house, d());
    let text = kept(&mut house, &outcome);
    assert!(text.contains(" = lost connection with d.example[127.0.0.2]"), "{text}");
}

#[test]
fn a_password_is_in_no_record() {
    for (mechanism, challenge) in [("PLAIN", ""), ("LOGIN", "334 VXNlcm5hbWU6\n")] {
        let (mut house, _sink, relay) = with_logins("me topsecret\n", move |asked| match asked.line {
            line if line.starts_with("EHLO") => say(&format!("250-sink\n250 AUTH {mechanism}")),
            line if line.starts_with("AUTH PLAIN") => say("535 5.7.8 no"),
            line if line.starts_with("AUTH LOGIN") => say(challenge.trim_end()),
            "bWU=" => say("334 UGFzc3dvcmQ6"),
            "dG9wc2VjcmV0" => say("535 5.7.8 no"),
            _ => polite(asked),
        });
        let outcome = send(&house, relay);
        assert_eq!(short(&outcome), "4.7.8 535 5.7.8 no");
        let text = kept(&mut house, &outcome);
        assert!(text.contains("< 535 5.7.8 no") && text.contains(&format!("> AUTH {mechanism}")), "{text}");
        for secret in ["topsecret", "dG9wc2VjcmV0", "AG1lAHRvcHNlY3JldA==", "bWU="] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn connections_transactions_and_troubles_are_counted() {
    let (mut house, _sink) = one_host(|asked| match asked.line {
        line if line.contains("<no@") => say("550 5.1.1 no"),
        _ => polite(asked),
    });
    house.deliver(&d(), &["a@d.example"], b"x\r\n");
    house.deliver(&d(), &["no@d.example"], b"x\r\n");
    house.terminate();
    house.end();
    let text = fs::read_to_string(house.path(count::SENDING).join("posta-remote")).unwrap();
    for line in [
        "posta_remote_connects_total{result=\"done\"} 1",
        "posta_remote_transactions_total 2",
        "posta_remote_reused_total 1",
        "posta_remote_odd_sessions_total 1",
        "posta_remote_handshakes_total{result=\"done\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
