//! What the administrator is told of a running system.

mod station;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use station::sink::Sink;
use station::{House, wait_for};

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n";

/// The paths of the history's files.
fn history(house: &House) -> Vec<std::path::PathBuf> {
    let folder = fs::read_dir(house.path("spool/history")).unwrap();
    folder.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_audit_comes_out_even_and_finds_what_is_lost() {
    let house = House::start("");
    let id = house.send("a@x.example", &["alice@example.org"], MESSAGE);
    house.wait_for_mail("alice", 1);
    house.wait_for_empty_queue();
    // Nobody listens there.
    let late = house.send("a@x.example", &["bob@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&late, "status=deferred"]);
    // It is put off a moment after the log has it.
    let waits = wait_for("what waits", || {
        Some(house.output("postactl", &["when", "--json"])).filter(|waits| !waits.is_empty())
    });
    let wait: serde_json::Value = serde_json::from_str(waits.lines().next().unwrap()).unwrap();
    assert!(wait["destination"].is_string() && wait["deferred"].is_u64(), "{waits}");
    let audit = || house.command("postactl", &["audit", "--since", "1h"]).output().unwrap();
    let told = wait_for("the history has it all", || {
        let output = audit();
        let text = String::from_utf8(output.stdout).unwrap();
        text.contains("2 accepted").then_some((output.status.code(), text))
    });
    let even = "2 accepted = 1 delivered + 0 bounced + 0 discarded + 1 queued\n";
    assert_eq!(told, (Some(0), even.to_string()));
    // As if the message had vanished.
    for file in history(&house) {
        let text = fs::read_to_string(&file).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.ends_with(&format!("{id} removed"))).collect();
        fs::write(&file, kept.join("\n") + "\n").unwrap();
    }
    let output = audit();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(
        text.contains(" + 1 UNCLEAR\n") && text.contains(&format!("\n{id}: it is not in the queue")),
        "{text}"
    );
    assert!(text.contains("<alice@example.org> sent"), "{text}");
}

/// The words of posta(7) that make our log Postfix's.
const AS_POSTFIX: [&str; 2] =
    [r"s/^\([^ ]*Z\) posta-/\1 mail posta-/", r"s/ posta-\([a-z]*\[\)/ postfix\/\1/"];

#[test]
fn pflogsumm_understands_the_log() {
    let page = fs::read_to_string("man/posta.7").unwrap().replace("\\e", "\\");
    assert!(AS_POSTFIX.iter().all(|words| page.contains(words)), "posta(7) has other words");
    if Command::new("pflogsumm").arg("--version").output().is_err() {
        return eprintln!("pflogsumm is not installed: nothing was tested");
    }
    let house = House::start("");
    house.send("a@x.example", &["alice@example.org"], MESSAGE);
    house.wait_for_mail("alice", 1);
    let late = house.send("a@x.example", &["bob@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&late, "status=deferred"]);
    let mut client = house.client();
    client.hello();
    client.expect("MAIL FROM:<a@x.example>", "250");
    client.expect("RCPT TO:<nobody@-x>", "5");
    client.expect("RCPT TO:<alice@example.org>", "250");
    client.quit();
    house.wait_for_log(&["reject: RCPT"]);
    house.wait_for_log(&["status=sent"]);
    let mut sed = Command::new("sed");
    sed.arg("-e").arg(AS_POSTFIX[0]).arg("-e").arg(AS_POSTFIX[1]).arg(house.path("log"));
    let log = sed.output().unwrap().stdout;
    let mut pflogsumm =
        Command::new("pflogsumm").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    pflogsumm.stdin.take().unwrap().write_all(&log).unwrap();
    let report = pflogsumm.wait_with_output().unwrap().stdout;
    let report = String::from_utf8(report).unwrap();
    let words: Vec<&str> = report.split_whitespace().collect();
    let report = words.join(" ");
    for line in ["messages 2 received 1 delivered 0 forwarded 1 deferred", " 0 bounced 1 rejected"] {
        assert!(report.contains(line), "{line:?} is not in:\n{report}");
    }
}

#[test]
fn the_level_of_the_log_is_changed_while_all_runs() {
    let house = House::start("");
    let programs = ["posta", "posta-auth", "posta-local", "posta-remote", "posta-queue", "posta-smtpd"];
    // A program that has just begun does not take the signal yet.
    wait_for("all programs", || {
        let told = house.output("postactl", &["log", "debug"]);
        programs.iter().all(|name| told.contains(&format!("{name}["))).then_some(())
    });
    let now_at = |program: &str, level: &str| {
        house.wait_for_log(&[&format!("{program}["), &format!("log level is now {level}")]);
    };
    programs.iter().for_each(|program| now_at(program, "DEBUG"));
    assert_eq!(house.output("postactl", &["log", "warn", "posta-queue"]).lines().count(), 1);
    now_at("posta-queue", "WARN");
    house.signal_keeper("-HUP");
    programs.iter().for_each(|program| now_at(program, "INFO"));
    let wrong = house.command("postactl", &["log", "loud"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    let other = house.command("postactl", &["log", "info", "posta-quue"]).output().unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("\"posta-queue\""));
}

/// The administrator mends the way that mail was to take: it takes the new one, and does not have to be
/// sent again.
#[test]
fn mail_that_waits_takes_the_way_that_is_in_force() {
    let house = House::start("[queue]\nfirst_retry = \"1h\"\nlongest_retry = \"1h\"");
    let id = house.send("a@x.example", &["bob@elsewhere.example"], MESSAGE);
    house.wait_for_log(&[&id, "status=deferred"]);
    let sink = Sink::start(SocketAddr::new(house.address, 2527));
    let config = fs::read_to_string(house.config()).unwrap();
    assert!(config.contains(":2526"), "{config}");
    fs::write(house.config(), config.replace(":2526", ":2527")).unwrap();
    house.signal_keeper("-HUP");
    house.wait_for_log(&["posta-queue[", "configuration read again"]);
    house.output("postactl", &["retry", "Elsewhere.Example"]);
    assert_eq!(sink.wait_for(1)[0].to.len(), 1);
    house.wait_for_empty_queue();
}

/// For node_exporter: a file of what all programs count, readable for everybody.
#[test]
fn counters_are_written_to_a_file() {
    let mut house = House::set_up("");
    let file = house.path("posta.prom");
    let setting = format!("[queue]\nmetrics_file = \"{}\"\n", file.display());
    let config = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), config.replacen("[queue]\n", &setting, 1)).unwrap();
    house.run();
    wait_for("the counters", || {
        let text = fs::read_to_string(&file).ok()?;
        ["posta_up{program=\"posta-queue\"} 1\n", "posta_smtpd_sessions_total "]
            .iter()
            .all(|line| text.contains(line))
            .then_some(())
            // posta-smtpd may begin after the first time it is written; a reload has it written at once.
            .or_else(|| {
                house.signal_keeper("-HUP");
                None
            })
    });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
}
