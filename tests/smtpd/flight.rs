//! What is left of sessions: the flight recorder, and the counters.

use std::fs;
use std::process::Command;

use super::daemon::{Daemon, Ground};
use super::{SETTINGS, wait_until};

/// `postactl session ID`.
fn recorded(daemon: &Daemon, id: &str) -> (bool, String) {
    let mut postactl = Command::new(env!("CARGO_BIN_EXE_postactl"));
    let output =
        postactl.arg("-c").arg(daemon.ground.path("posta.toml")).args(["session", id]).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// The name of the session that ends with this line.
fn name(line: &str) -> String {
    line.rsplit_once(" session=").unwrap().1.trim().to_string()
}

#[test]
fn a_session_with_a_refusal_is_kept_and_holds_no_secret() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.greet();
    client.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "5");
    // As who logs in without waiting for our answer goes on.
    client.say("c2VjcmV0", "5");
    client.say("MAIL FROM:<sender@client.test>", "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "554");
    client.say("RCPT TO:<alice@example.org>", "250");
    client.say("DATA", "354");
    client.send("Subject: private\r\n\r\n.\r\n");
    client.expect("250");
    client.say("QUIT", "221");
    client.expect_end();
    let refusal = daemon.wait_for_log("reject: RCPT");
    let end = daemon.wait_for_log("disconnect from");
    assert_eq!(name(&refusal), name(&end));
    let mut told = String::new();
    wait_until("the session is kept", || {
        told = recorded(&daemon, &name(&end)).1;
        !told.is_empty()
    });
    for line in [
        " > 220 mx.test ",
        " < EHLO client.test",
        " < AUTH PLAIN ***",
        " < RCPT TO:<bob@elsewhere.test>",
        " > 554 5.7.1 <bob@elsewhere.test>: ",
        " > 354 ",
        " > 221 ",
    ] {
        assert!(told.contains(line), "{line:?} is not in:\n{told}");
    }
    for secret in ["AGFsaWNlAHNlY3JldA", "c2VjcmV0", "private"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn a_session_that_goes_well_leaves_nothing_and_one_that_is_lost_does() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.begin("alice@example.org");
    client.send(".\r\n");
    client.expect("250");
    client.say("QUIT", "221");
    client.expect_end();
    let end = daemon.wait_for_log("disconnect from");
    assert!(!end.contains("session="), "{end}");
    assert_eq!(fs::read_dir(daemon.ground.path("run/sessions")).unwrap().count(), 0);
    assert!(!recorded(&daemon, "0123456789ABCDE").0);
    let mut client = daemon.client_from("127.0.0.2");
    client.greet();
    drop(client);
    let end = daemon.wait_for_log("session=");
    let mut told = String::new();
    wait_until("the session is kept", || {
        told = recorded(&daemon, &name(&end)).1;
        !told.is_empty()
    });
    assert!(told.ends_with(" = the client is gone\n"), "{told}");
}

#[test]
fn what_happens_is_counted() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut client = daemon.client();
    client.begin("alice@example.org");
    client.send(".\r\n");
    client.expect("250");
    client.say("RCPT TO:<bob@elsewhere.test>", "503");
    client.say("MAIL FROM:<sender@client.test>", "250");
    client.say("RCPT TO:<bob@elsewhere.test>", "554");
    client.say("QUIT", "221");
    client.expect_end();
    daemon.signal("-TERM");
    daemon.wait_for_end();
    let mut postactl = Command::new(env!("CARGO_BIN_EXE_postactl"));
    let file = daemon.ground.path("posta.prom");
    postactl.arg("-c").arg(daemon.ground.path("posta.toml")).args(["metrics", "--file"]).arg(&file);
    // Nobody can be asked about the queue.
    assert_eq!(postactl.output().unwrap().status.code(), Some(69));
    let text = fs::read_to_string(file).unwrap();
    for line in [
        "posta_up{program=\"posta-queue\"} 0\n",
        "posta_smtpd_sessions_total 1\n",
        "posta_smtpd_messages_total 1\n",
        "posta_smtpd_refusals_total{rule=\"P0404\"} 1\n",
        "posta_smtpd_refusals_total{rule=\"none\"} 1\n",
        "posta_smtpd_odd_sessions_total 1\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}
