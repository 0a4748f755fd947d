//! A mail's whole way, through the real programs.

mod station;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use station::sink::Sink;
use station::{House, wait_for};

const MESSAGE: &str =
    "From: a@x.example\nTo: alice@example.org\nSubject: hello\n\nOne line.\n.\n..two dots\n \u{e4}\n";

fn sink(house: &House) -> Sink {
    Sink::start(SocketAddr::new(house.address, 2526))
}

/// What a mailbox copy holds below the fields that were put on top.
fn original(copy: &str) -> &str {
    let at = copy.find("From: ").or_else(|| copy.find("Subject: ")).expect("no header field of the original");
    &copy[at..]
}

#[test]
fn a_mail_is_put_into_its_mailbox_byte_for_byte() {
    let house = House::start("");
    let id = house.send("a@x.example", &["alice@example.org"], MESSAGE);
    let copy = &house.wait_for_mail("alice", 1)[0];
    assert_eq!(original(copy), MESSAGE);
    let fields: Vec<&str> = copy.lines().take(3).collect();
    assert_eq!(fields[..2], ["Return-Path: <a@x.example>", "Delivered-To: alice@example.org"]);
    assert!(fields[2].starts_with("Received: from client.example (unknown [127."), "{copy}");
    assert!(copy.contains(&id) && !copy.contains('\r'), "{copy}");
    house.wait_for_log(&[&id, "from=<a@x.example>", "nrcpt=1 (queue active)"]);
    house.wait_for_log(&[&id, "to=<alice@example.org>", "relay=local", "dsn=2.", "status=sent"]);
    house.wait_for_log(&[&id, "removed"]);
    // Postfix's cleanup has this line too; the test's message has no such field.
    house.wait_for_log(&[&format!("{id}: message-id=<>")]);
    house.wait_for_empty_queue();
}

#[test]
fn a_mail_for_a_relayed_domain_arrives_at_its_server() {
    let house = House::start("");
    let sink = sink(&house);
    let id = house.send("a@x.example", &["bob@elsewhere.example", "eve@elsewhere.example"], MESSAGE);
    let arrived = &sink.wait_for(1)[0];
    assert_eq!(arrived.to, ["bob@elsewhere.example", "eve@elsewhere.example"]);
    assert!(arrived.from.starts_with("<a@x.example>"), "{}", arrived.from);
    assert_eq!(original(&arrived.data), MESSAGE.replace('\n', "\r\n"));
    assert!(arrived.data.starts_with("Received: from client.example"), "{}", arrived.data);
    house.wait_for_log(&[&id, "to=<bob@elsewhere.example>", ":2526", "status=sent (250 2.0.0 taken)"]);
    house.wait_for_empty_queue();
}

#[test]
fn a_refusal_comes_back_as_a_report_and_names_only_who_was_refused() {
    let house = House::start("");
    let sink = sink(&house);
    let to = ["bad@elsewhere.example", "good@elsewhere.example", "later@elsewhere.example"];
    let id = house.send("alice@example.org", &to, MESSAGE);
    let report = &house.wait_for_mail("alice", 1)[0];
    for part in [
        "Return-Path: <>",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Auto-Submitted: auto-replied",
        "Reporting-MTA: dns; mail.example.org",
        "Final-Recipient: rfc822; bad@elsewhere.example",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user here",
        "Subject: hello",
    ] {
        assert!(report.contains(part), "{part:?} in\n{report}");
    }
    assert!(
        !report.contains("good@") && !report.contains("later@") && !report.contains("One line."),
        "{report}"
    );
    sink.wait_for(2);
    assert_eq!(sink.attempts("good@elsewhere.example"), 1);
    house.wait_for_log(&[&id, "to=<bad@elsewhere.example>", "dsn=5.1.1", "status=bounced"]);
    house.wait_for_log(&[&id, "to=<later@elsewhere.example>", "dsn=4.7.1", "status=deferred"]);
    house.wait_for_empty_queue();
    assert_eq!(sink.attempts("bad@elsewhere.example"), 1);
    assert_eq!(sink.attempts("later@elsewhere.example"), 2);
    assert_eq!(house.mailbox("alice").len(), 1);
}

#[test]
fn a_bounce_is_never_bounced() {
    let house = House::start("");
    let _sink = sink(&house);
    let id = house.send("", &["bad@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&id, "the null sender is not told"]);
    house.wait_for_empty_queue();
}

#[test]
fn what_takes_too_long_is_given_up() {
    let house = House::start("[queue]\ngive_up = \"4s\"\nwarn_after = \"1s\"");
    house.send("alice@example.org", &["bob@dead.example"], MESSAGE);
    let mail = house.wait_for_mail("alice", 2);
    let all = mail.concat();
    assert!(
        all.contains("Action: delayed") && all.contains("Action: failed") && all.contains("Status: 5.4.7"),
        "{all}"
    );
    house.wait_for_empty_queue();
}

#[test]
fn one_domain_and_one_kind_of_error_can_have_their_own_times() {
    let house = House::start("[[retry]]\ndomain = \"dead.example\"\nstatus = \"4.4\"\ngive_up = \"1s\"");
    let _sink = sink(&house);
    house.send("alice@example.org", &["bob@dead.example", "later@elsewhere.example"], MESSAGE);
    let report = &house.wait_for_mail("alice", 1)[0];
    assert!(report.contains("Action: failed") && report.contains("bob@dead.example"), "{report}");
    assert!(!report.contains("elsewhere.example"), "{report}");
    house.wait_for_empty_queue();
    assert_eq!(house.mailbox("alice").len(), 1);
}

#[test]
fn a_dead_destination_delays_nobody() {
    let house = House::start("");
    let sink = sink(&house);
    let mut client = house.client();
    client.hello();
    for _ in 0..300 {
        client.send("a@x.example", &["bob@dead.example"], MESSAGE);
    }
    client.send("a@x.example", &["bob@elsewhere.example", "alice@example.org"], MESSAGE);
    sink.wait_for(1);
    house.wait_for_mail("alice", 1);
}

#[test]
fn a_stranger_relays_nothing_and_an_unknown_user_is_refused() {
    let house =
        House::start("[smtpd]\nrelay_from = []\n[domains]\n\"users.example\" = { users = \"system\" }");
    let mut client = house.client();
    client.hello();
    client.expect("MAIL FROM:<a@x.example>", "250");
    client.expect("RCPT TO:<bob@nowhere.example>", "554 5.7.1");
    client.expect("RCPT TO:<bob@elsewhere.example>", "554 5.7.1");
    client.expect("RCPT TO:<no-such-user-here@users.example>", "550 5.1.1");
    client.expect("RCPT TO:<postmaster>", "250");
    client.expect("RCPT TO:<PostMaster@users.example>", "250");
    client.expect("RCPT TO:<alice@example.org>", "250");
    house.wait_for_log(&["NOQUEUE: reject: RCPT from", "550 5.1.1", "no-such-user-here@users.example"]);
}

/// Sends while a program is killed again and again; everything that was acknowledged must arrive.
fn survives_killing(program: &str, to: &str, arrived: impl Fn(&House) -> Vec<String>) {
    let house = House::start("");
    let mut acknowledged = Vec::new();
    for n in 0..120 {
        if n % 20 == 10 {
            house.kill(program);
        }
        let mark = format!("Subject: mark-{n}-end\n\nbody\n");
        let sent = wait_for("a server", || {
            let mut client = station::client::Client::try_connect(SocketAddr::new(house.address, 2525))?;
            if !client.greeting.starts_with("220") {
                return None;
            }
            let dialogue = format!("EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<{to}>\r\n");
            client.write(dialogue.as_bytes());
            for _ in 0..3 {
                client.try_reply()?;
            }
            client.write(b"DATA\r\n");
            client.try_reply().filter(|r| r.starts_with("354"))?;
            client.write(format!("{}.\r\n", mark.replace('\n', "\r\n")).as_bytes());
            client.try_reply().filter(|r| r.starts_with("250"))
        });
        assert!(sent.starts_with("250"));
        acknowledged.push(format!("mark-{n}-end"));
    }
    wait_for("everything acknowledged", || {
        let is_held = release_held(&house);
        let all = arrived(&house).concat();
        (!is_held && acknowledged.iter().all(|mark| all.contains(mark))).then_some(())
    });
    house.wait_for_empty_queue();
    assert!(!house.pids(program).is_empty(), "{program} was not started again");
}

/// Releases what three deaths have met, which may have been their cause and is rightly on hold. Says whether
/// there was any.
fn release_held(house: &House) -> bool {
    let held = house.spooled("hold");
    for id in held.iter().filter_map(|path| path.file_name()?.to_str()) {
        house.command("postactl", &["release", id]).output().unwrap();
    }
    !held.is_empty()
}

#[test]
fn posta_smtpd_may_be_killed() {
    survives_killing("posta-smtpd", "alice@example.org", |house| house.mailbox("alice"));
}

#[test]
fn posta_queue_may_be_killed() {
    survives_killing("posta-queue", "alice@example.org", |house| house.mailbox("alice"));
}

#[test]
fn posta_local_may_be_killed() {
    survives_killing("posta-local", "alice@example.org", |house| house.mailbox("alice"));
}

#[test]
fn the_keeper_may_be_killed() {
    let mut house = House::start("");
    for n in 0..5 {
        house.send("a@x.example", &["alice@example.org"], &format!("Subject: mark-{n}-end\n\nbody\n"));
        house.kill_all();
        house.run();
    }
    house.wait_for_mail("alice", 5);
    house.wait_for_empty_queue();
    house.stop();
}

#[test]
fn what_was_acknowledged_is_delivered_after_the_next_start() {
    let mut house = House::start("");
    let sink = sink(&house);
    house.send("a@x.example", &["later@elsewhere.example"], MESSAGE);
    house.wait_for_log(&["status=deferred"]);
    house.kill_all();
    house.run();
    sink.wait_for(1);
    house.wait_for_empty_queue();
}

#[test]
fn a_bad_configuration_is_reported_and_the_old_one_stays() {
    let house = House::start("");
    // All programs have read the good one: the last to be started is the one that greets, but not the
    // last to be ready.
    let is_ready = || house.command("postactl", &["queue"]).output().unwrap().status.success().then_some(());
    wait_for("posta-queue", is_ready);
    let good = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), format!("{good}\n[remote]\nmax_conections = 3\n")).unwrap();
    house.signal_keeper("-HUP");
    house.wait_for_log(&["posta.toml:", "max_conections", "did you mean \"max_connections\""]);
    house.send("a@x.example", &["alice@example.org"], MESSAGE);
    house.wait_for_mail("alice", 1);
}

#[test]
fn each_program_says_more_or_less_when_told() {
    let house = House::start("");
    for program in std::iter::once("posta").chain(station::PROGRAMS) {
        for (signal, level) in [("-USR1", "DEBUG"), ("-USR2", "INFO"), ("-USR2", "WARN"), ("-USR1", "INFO")] {
            let said = || house.log().matches(&format!("log level is now {level}")).count();
            let before = said();
            house.signal(program, signal);
            wait_for(&format!("{program} at {level}"), || (said() > before).then_some(()));
        }
    }
}

#[test]
fn a_queue_file_cut_short_is_put_aside_and_stops_nobody() {
    let mut house = House::start("");
    house.send("a@x.example", &["bob@dead.example"], MESSAGE);
    house.wait_for_log(&["status=deferred"]);
    house.kill_all();
    // Without a journal of the file system it stays in new/.
    let file = house.spooled("cur").into_iter().chain(house.spooled("new")).next().expect("no queue file");
    let length = fs::metadata(&file).unwrap().len();
    fs::File::options().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
    house.run();
    wait_for("the file in corrupt/", || house.spooled("corrupt").pop());
    house.wait_for_log(&["corrupt"]);
    house.send("a@x.example", &["alice@example.org"], MESSAGE);
    house.wait_for_mail("alice", 1);
}

#[test]
fn the_administrator_sees_holds_and_removes() {
    let house = House::start("[queue]\nfirst_retry = \"1h\"\nlongest_retry = \"2h\"");
    let id = house.send("alice@example.org", &["bob@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&id, "status=deferred"]);
    let listed = || house.output("postactl", &["queue", "--json"]);
    let row = wait_for("a deferred row", || Some(listed()).filter(|l| l.contains("\"deferred\"")));
    for part in
        [&id, "bob@elsewhere.example", "alice@example.org", "\"size\"", "\"arrived\"", "\"next\"", "refused"]
    {
        assert!(row.contains(part), "{part} in {row}");
    }
    let shown = house.output("postactl", &["show", &id]);
    assert!(shown.contains("not yet") && shown.contains("refused"), "{shown}");
    assert!(house.output("postactl", &["cat", &id]).contains("One line."));
    let release = || house.command("postactl", &["release", &id]).output().unwrap().status.code();
    assert_eq!(release(), Some(65), "it is not on hold");
    house.output("postactl", &["hold", &id]);
    wait_for("a held row", || listed().contains("\"held\"").then_some(()));
    let held =
        |words: &[&str]| house.output("postactl", &[&["queue", "--json", "--state", "held"], words].concat());
    assert!(held(&["--domain", "elsewhere.example"]).contains(&id));
    assert_eq!(held(&["--domain", "example.org"]), "");
    assert!(house.output("postactl", &["queue", "--totals"]).contains("elsewhere.example"));
    assert_eq!(release(), Some(0));
    let sink = sink(&house);
    wait_for("delivery", || {
        house.output("postactl", &["retry", "all"]);
        (!sink.arrived().is_empty()).then_some(())
    });
    house.wait_for_empty_queue();
    let second = house.send("alice@example.org", &["later@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&second, "status=deferred"]);
    wait_for("a deferred row", || listed().contains("\"deferred\"").then_some(()));
    house.output("postactl", &["delete", &second]);
    house.wait_for_empty_queue();
    let told = wait_for("its end in the history", || {
        Some(house.output("postactl", &["show", &second])).filter(|told| told.contains("removed"))
    });
    for part in ["from=<alice@example.org>", "status=deferred", "deleted by the administrator"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let unknown = house.command("postactl", &["show", "0123456789ABCDE"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(65), "{unknown:?}");
    let third = house.send("alice@example.org", &["later2@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&third, "status=deferred"]);
    wait_for("a deferred row", || listed().contains("\"deferred\"").then_some(()));
    house.output("postactl", &["retry", "elsewhere.example"]);
    sink.wait_for(2);
}

#[test]
fn each_attempt_tells_how_the_way_was_protected_and_what_was_said() {
    let house = House::start("[queue]\nfirst_retry = \"1h\"\nlongest_retry = \"2h\"");
    let _sink = sink(&house);
    let id = house.send("alice@example.org", &["later@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&id, "status=deferred"]);
    let shown = wait_for("the attempt, with the history's words", || {
        Some(house.output("postactl", &["show", &id])).filter(|shown| shown.contains(", tls="))
    });
    assert!(shown.contains("451 4.7.1 come again, tls=none (policy may), session="), "{shown}");
    let (_, session) = shown.split_once("session=").unwrap();
    let session = session.lines().next().unwrap();
    let told = wait_for("the session", || {
        let output = house.command("postactl", &["session", session]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(told.contains(" < 451 4.7.1 come again") && told.contains(" > EHLO "), "{told}");
    wait_for("the counters", || {
        house.output("postactl", &["metrics"]).contains("posta_remote_odd_sessions_total 1").then_some(())
    });
}

#[test]
fn a_paused_domain_waits_also_over_a_restart_until_it_is_resumed() {
    let mut house = House::start("");
    let sink = sink(&house);
    let said = house.output("postactl", &["pause", "elsewhere.example"]);
    assert!(said.contains(":2526 is paused"), "{said}");
    assert_eq!(
        house.command("postactl", &["pause", "elsewhere.example"]).output().unwrap().status.code(),
        Some(65)
    );
    let id = house.send("a@x.example", &["bob@elsewhere.example", "alice@example.org"], MESSAGE);
    house.wait_for_mail("alice", 1);
    house.wait_for_log(&[
        &id,
        "to=<bob@elsewhere.example>",
        "status=deferred",
        "paused by the administrator",
    ]);
    house.stop();
    house.run();
    let line = wait_for("a line about it", || {
        let lines = house.output("postactl", &["when"]);
        lines.lines().find(|l| l.contains("2526: 1 deferred") && l.ends_with("; paused")).map(str::to_string)
    });
    assert!(line.contains("; next: "), "{line}");
    assert_eq!(sink.arrived().len(), 0);
    house.output("postactl", &["resume", "elsewhere.example"]);
    sink.wait_for(1);
    house.wait_for_empty_queue();
}

#[test]
fn what_a_user_may_not_do_is_told_by_the_exit_code() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can ask as somebody else.
        return;
    }
    let house = House::start("");
    fs::set_permissions(house.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let asked = |words: &[&str]| house.command("postactl", words).uid(65534).gid(65534).output().unwrap();
    assert!(asked(&["queue"]).status.success());
    for words in [&["delete", "0123456789ABCDE"][..], &["retry", "all"], &["show", "0123456789ABCDE"]] {
        let output = asked(words);
        assert_eq!(output.status.code(), Some(77), "{words:?}: {output:?}");
    }
    let output = house.command("postactl", &["delete", "0123456789ABCDE"]).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
}

#[test]
fn sendmail_works_while_nothing_runs() {
    let mut house = House::set_up("");
    let mut sendmail = house.command("sendmail", &["-t", "-i", "-v"]);
    let mut child = sendmail.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let message = "To: alice@example.org\nBcc: carol@example.org\nSubject: by hand\n\n.\nbody\n";
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    house.run();
    let mail = house.wait_for_mail("alice", 1);
    assert!(mail[0].contains("Subject: by hand") && mail[0].ends_with("\n\n.\nbody\n"), "{}", mail[0]);
    assert!(!mail[0].contains("carol") && mail[0].contains("\nMessage-ID: <"), "{}", mail[0]);
    house.wait_for_mail("carol", 1);
    house.wait_for_empty_queue();
    // One id names it from the command to the log and the Received field.
    let said = String::from_utf8(output.stdout).unwrap();
    let id = said.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| word.len() == 15).expect("an id");
    house.wait_for_log(&[id, "to=<alice@example.org>", "status=sent"]);
    assert!(mail[0].contains(&format!("id {id}")), "{}", mail[0]);
}

#[test]
fn one_pass_tries_what_is_due_and_ends() {
    let house = House::start("");
    house.send("a@x.example", &["alice@example.org"], MESSAGE);
    house.output("posta-queue", &["-1"]);
    house.wait_for_mail("alice", 1);
}

#[test]
fn five_hundred_recipients_each_get_their_copy() {
    let house = House::start(
        "[domains]\n\"many.example\" = { users = \"*\", mailbox = \"MAIL/many/{user}/\" }"
            .replace(
                "MAIL",
                &std::env::temp_dir()
                    .join(format!("posta-many-{}", std::process::id()))
                    .display()
                    .to_string(),
            )
            .as_str(),
    );
    let to: Vec<String> = (0..500).map(|n| format!("user{n}@many.example")).collect();
    let names: Vec<&str> = to.iter().map(String::as_str).collect();
    house.send("a@x.example", &names, MESSAGE);
    let root = std::env::temp_dir().join(format!("posta-many-{}", std::process::id()));
    wait_for("500 copies", || {
        let count = (0..500)
            .filter(|n| fs::read_dir(root.join(format!("many/user{n}/new"))).is_ok_and(|d| d.count() == 1))
            .count();
        (count == 500).then_some(())
    });
    house.wait_for_empty_queue();
    fs::remove_dir_all(root).unwrap();
}
