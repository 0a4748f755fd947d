//! posta-smtpd alone: other people's programs as its clients, and clients that are cut off anywhere.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::daemon::{Client, Daemon, wait_until};
use super::login::{SUBMISSION, with_logins};
use super::secure::{implicit, starttls};
use super::stand_in::{LOGIN, PLAIN, WRONG};

const PASSWORD: &str = "pass word";
const MESSAGE: &str =
    "From: alice@example.org\r\nTo: bob@elsewhere.test\r\nSubject: by another's program\r\n\r\ntext\r\n";

/// Runs a program that may not be there, or not whole; none if so.
fn run(command: &mut Command, input: &str) -> Option<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: {:?}: {error}", command.get_program());
            return None;
        }
    };
    // One that has ended already says why itself.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    // swaks does TLS by a package of its own.
    if String::from_utf8_lossy(&done.stderr).contains("TLS not available") {
        eprintln!("skipped: {:?} without TLS", command.get_program());
        return None;
    }
    Some(done)
}

/// Runs a program that is to hand one message in.
fn hands_in(daemon: &Daemon, command: &mut Command, input: &str) {
    let before = daemon.ground.messages().len();
    let Some(done) = run(command, input) else { return };
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{:?}: {said}", command.get_program());
    let messages = daemon.ground.messages();
    assert_eq!(messages.len(), before + 1, "{:?}: {said}", command.get_program());
    let trace = String::from_utf8(messages.last().unwrap().0.envelope.trace.clone()).unwrap();
    assert!(trace.contains(" with ESMTPSA id "), "{trace}");
}

#[test]
fn swaks_hands_mail_in() {
    let daemon = with_logins(SUBMISSION).start();
    for (listener, tls) in [(0, "--tls"), (1, "--tls-on-connect")] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let mut command = Command::new("swaks");
            command.args([
                "--server",
                "127.0.0.1",
                "--port",
                &daemon.address(listener).port().to_string(),
                tls,
            ]);
            command.args(["--from", LOGIN, "--to", "bob@elsewhere.test", "--auth", mechanism]);
            command.args(["--auth-user", LOGIN, "--auth-password", PASSWORD, "--timeout", "60"]);
            hands_in(&daemon, &mut command, "");
        }
    }
}

#[test]
fn curl_hands_mail_in() {
    let daemon = with_logins(SUBMISSION).start();
    let urls = [(0, "smtp"), (1, "smtps")];
    for (listener, scheme) in urls {
        let mut command = Command::new("curl");
        command.args(["-sS", "-k", "--ssl-reqd", "--max-time", "60", "-T", "-"]);
        command.arg(format!("{scheme}://{}/client.test", daemon.address(listener)));
        command.args(["--user", &format!("{LOGIN}:{PASSWORD}"), "--mail-from", LOGIN]);
        command.args(["--mail-rcpt", "bob@elsewhere.test"]);
        hands_in(&daemon, &mut command, MESSAGE);
    }
}

#[test]
fn msmtp_hands_mail_in() {
    let daemon = with_logins(SUBMISSION).start();
    for (listener, starttls) in [(0, "on"), (1, "off")] {
        let mut command = Command::new("msmtp");
        command.args(["--host=127.0.0.1", &format!("--port={}", daemon.address(listener).port())]);
        command.args([
            "--tls=on",
            &format!("--tls-starttls={starttls}"),
            "--tls-certcheck=off",
            "--auth=plain",
        ]);
        command.args([&format!("--user={LOGIN}"), "--passwordeval=echo 'pass word'"]);
        command.args([&format!("--from={LOGIN}"), "--timeout=60", "bob@elsewhere.test"]);
        hands_in(&daemon, &mut command, MESSAGE);
    }
}

#[test]
fn python_hands_mail_in() {
    let daemon = with_logins(SUBMISSION).start();
    let script = r#"
import smtplib, ssl, sys
plain, secure, user, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl._create_unverified_context()
if plain:
    session = smtplib.SMTP('127.0.0.1', plain, timeout=60)
    session.starttls(context=context)
else:
    session = smtplib.SMTP_SSL('127.0.0.1', secure, timeout=60, context=context)
session.login(user, password)
session.sendmail(user, ['bob@elsewhere.test'], sys.stdin.read().encode())
session.quit()
"#;
    for listener in [0, 1] {
        let port = daemon.address(listener).port().to_string();
        let ports = if listener == 0 { [port.as_str(), "0"] } else { ["0", port.as_str()] };
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(ports).args([LOGIN, PASSWORD]);
        hands_in(&daemon, &mut command, MESSAGE);
    }
}

#[test]
fn s_client_sees_what_was_agreed_on() {
    let daemon = with_logins(SUBMISSION).start();
    let address = daemon.address(0).to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-starttls", "smtp", "-tls1_3", "-crlf"]);
    let Some(done) = run(&mut command, "QUIT\r\n") else { return };
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        said.contains("TLSv1.3") && said.contains("CN = mx.test") || said.contains("CN=mx.test"),
        "{said}"
    );
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &address,
        "-starttls",
        "smtp",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
    ]);
    let Some(done) = run(&mut command, "QUIT\r\n") else { return };
    assert!(!done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// What a client says whose connection breaks somewhere in it.
fn script() -> Vec<u8> {
    let all = format!(
        "EHLO client.test\r\nAUTH PLAIN {PLAIN}\r\nMAIL FROM:<{LOGIN}>\r\nRCPT TO:<x@example.org>\r\n\
         BDAT 4\r\nab\r\nBDAT 4\r\ncd\r\nRSET\r\nMAIL FROM:<{LOGIN}>\r\nRCPT TO:<x@example.org>\r\n\
         DATA\r\nSubject: a\r\n\r\nnever ended"
    );
    all.into_bytes()
}

/// Says the first `length` octets of the script, line by line, with the answers read; then goes.
fn say_some<S: std::io::Read + Write>(client: &mut Client<S>, length: usize) {
    for line in script()[..length].split_inclusive(|octet| *octet == b'\n') {
        client.send(line);
        // A chunk is answered after its octets.
        let unanswered = line.starts_with(b"BDAT") || line.starts_with(b"Subject") || line == b"\r\n";
        if line.ends_with(b"\n") && !unanswered {
            client.reply();
        }
    }
}

#[test]
fn clients_that_break_off_anywhere_leave_nothing_behind() {
    let mut daemon = with_logins(SUBMISSION).start();
    let files =
        |daemon: &Daemon| std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().count();
    let mut first = implicit(&daemon, 1);
    first.greet();
    first.say("QUIT", "221");
    first.expect_end();
    daemon.wait_for_log("disconnect from ");
    let before = files(&daemon);
    // Ends that lie all over the script, the same in every run.
    let ends = (0..60).map(|n| n * 7919 % script().len());
    for (n, end) in ends.enumerate() {
        if n % 2 == 0 {
            say_some(&mut implicit(&daemon, 1), end);
        } else {
            say_some(&mut starttls(daemon.client()), end);
        }
    }
    // One that goes while its answer is kept back.
    let mut resting = implicit(&daemon, 1);
    resting.greet();
    resting.send(format!("AUTH PLAIN {WRONG}\r\n"));
    daemon.wait_for_log("SASL PLAIN authentication failed");
    drop(resting);
    wait_until("all descriptors are closed", || files(&daemon) <= before);
    wait_until("the workers have gone", || daemon.status("Threads") < 10);
    assert!(daemon.ground.messages().is_empty());
    let lost = daemon.read_log().matches("lost connection after").count();
    assert!(lost >= 60, "{lost}");
}
