//! sendmail, posta-drop and postactl as their callers see them, with no posta running: the spool is a
//! temporary folder, and where posta-queue would answer, a thread of the test does.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use posta::unix::durable::Disk;
use posta::unix::enclosure;
use posta::unix::pass::{MAX_PACKET, PacketListener};

use posta::mail::envelope::{BodyKind, Envelope, Origin};
use posta::mail::id::Id;

use posta::courier::drop::{Dropped, Submission};
use posta::courier::order::{Answer, Failure, Order, Row};

use posta::spool::Spool;

/// A spool and a configuration of one's own.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place { folder };
        Spool::make(&place.path("spool"), None).unwrap();
        fs::create_dir(place.path("run")).unwrap();
        place.configure("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, more: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "hostname = \"h.example\"\nspool = \"{at}/spool\"\nrun = \"{at}/run\"\ndrop_privileges = false\n{more}\n\
             [local]\naliases = \"{at}/aliases\"\n"
        );
        fs::write(self.path("posta.toml"), text).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.path("posta.toml"));
        command
    }

    fn sendmail(&self, arguments: &[&str], message: &str) -> Output {
        run(self.command(env!("CARGO_BIN_EXE_sendmail")).args(arguments), message)
    }

    fn postactl(&self, arguments: &[&str]) -> Output {
        run(self.command(env!("CARGO_BIN_EXE_postactl")).args(arguments), "")
    }

    fn dropped(&self) -> Vec<Id> {
        let names = fs::read_dir(self.path("spool/drop")).unwrap();
        names.map(|entry| Id::parse(entry.unwrap().file_name().to_str().unwrap()).unwrap()).collect()
    }

    /// The one message in `drop/`: its envelope and text.
    fn only(&self) -> (Envelope, String) {
        let ids = self.dropped();
        assert_eq!(ids.len(), 1, "{ids:?}");
        let spool = Spool::for_running(&self.path("spool"), Arc::new(Disk)).unwrap();
        let (entry, _uid) = spool.open_drop(ids[0]).unwrap();
        let mut text = vec![0; entry.size as usize];
        std::os::unix::fs::FileExt::read_exact_at(&*entry.file, &mut text, 0).unwrap();
        (entry.envelope, String::from_utf8(text).unwrap())
    }

    /// Answers one order as posta-queue would.
    fn queue(&self, answers: Vec<Answer>) -> JoinHandle<Order> {
        let listener = PacketListener::bind(&self.path("run/queue"), 0o666).unwrap();
        std::thread::spawn(move || {
            let client = listener.accept().unwrap();
            let mut buffer = [0; 512];
            let (length, _) = client.receive(&mut buffer).unwrap();
            for answer in answers {
                client.send(&answer.encode().unwrap(), None).unwrap();
            }
            Order::decode(&buffer[..length]).unwrap()
        })
    }
}

fn run(command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who is refused early may not read it all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn recipients(envelope: &Envelope) -> Vec<String> {
    envelope.recipients.iter().map(|to| to.address.to_string()).collect()
}

#[test]
fn a_message_is_stored_with_crlf_and_a_complete_header_while_nothing_runs() {
    let place = Place::new();
    let output = place.sendmail(&["-f", "me@x.example", "bob@y.example", "al"], "Subject: s\n\na\n.b\nc\n");
    assert_eq!(code(&output), 0, "{output:?}");
    let (envelope, text) = place.only();
    assert_eq!(envelope.sender.to_string(), "me@x.example");
    assert_eq!(recipients(&envelope), ["bob@y.example", "al@h.example"]);
    assert_eq!(envelope.body, BodyKind::SevenBit);
    assert!(matches!(envelope.origin, Origin::User { .. }), "{:?}", envelope.origin);
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "a\r\n.b\r\nc\r\n");
    assert!(header.starts_with("Subject: s\r\nFrom: me@x.example\r\nDate: "), "{header}");
    assert!(header.contains("\r\nMessage-ID: <") && header.ends_with("@h.example>"), "{header}");
    assert_eq!(text.replace("\r\n", "").matches(['\r', '\n']).count(), 0);
}

#[test]
fn crlf_stays_crlf_and_a_dot_ends_the_message_unless_told_not_to() {
    let place = Place::new();
    assert_eq!(code(&place.sendmail(&["a@x"], "From: me\r\n\r\nä\r\n.\r\nrest\r\n")), 0);
    let (envelope, text) = place.only();
    assert!(text.ends_with("\r\n\r\nä\r\n") && text.starts_with("From: me@h.example\r\n"), "{text}");
    assert_eq!(envelope.body, BodyKind::EightBitMime);
    for dots in ["-i", "-oi"] {
        let place = Place::new();
        assert_eq!(code(&place.sendmail(&[dots, "a@x"], "A: 1\n\n.\nrest")), 0);
        assert!(place.only().1.ends_with("\r\n\r\n.\r\nrest\r\n"));
    }
}

#[test]
fn t_reads_the_header_and_keeps_blind_copies_blind() {
    let place = Place::new();
    let message = "To: \"B, B\" <b@x>, group: c@x, d;\nCc: (e) e@x\nBcc: f@x,\n g@x\nSubject: s\n\nx\n";
    assert_eq!(code(&place.sendmail(&["-t", "-N", "success,delay", "-R", "hdrs", "-V", "i d"], message)), 0);
    let (envelope, text) = place.only();
    assert_eq!(recipients(&envelope), ["b@x", "c@x", "d@h.example", "e@x", "f@x", "g@x"]);
    assert!(!text.contains("f@x") && !text.to_lowercase().contains("bcc"), "{text}");
    assert_eq!(envelope.envid.as_deref(), Some("i+20d"));
    assert!(envelope.recipients.iter().all(|to| to.notify.success && to.notify.delay && !to.notify.failure));
}

#[test]
fn nobody_can_be_the_sender() {
    for nobody in ["", "<>"] {
        let place = Place::new();
        assert_eq!(code(&place.sendmail(&["-f", nobody, "a@x"], "A: 1\n\nx\n")), 0);
        let (envelope, text) = place.only();
        assert_eq!(envelope.sender.mailbox(), None);
        assert!(text.contains("From: MAILER-DAEMON@h.example\r\n"), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_by_the_exit_code_and_nothing_is_stored() {
    let place = Place::new();
    for (arguments, message, wanted) in [
        (&["-t"][..], "Subject: no recipient\n\nx\n", 64),
        (&[], "x", 64),
        (&["-bd"], "", 64),
        (&["-bv"], "", 64),
        (&["-Z"], "", 64),
        (&["a@x\nBcc: evil@y"], "x", 65),
        (&["-F", "a\r\nX: y", "a@x"], "x", 65),
        (&["-f", "a@x\nto evil@y", "b@x"], "x", 65),
        (&["a b@x"], "x", 65),
    ] {
        let output = place.sendmail(arguments, message);
        assert_eq!(code(&output), wanted, "{arguments:?}: {output:?}");
        assert!(said(&output).starts_with("sendmail: "), "{output:?}");
    }
    place.configure("[smtpd]\nmax_message_size = 1000\n");
    let output = place.sendmail(&["a@x"], &"x".repeat(2000));
    assert_eq!(code(&output), 65);
    assert!(said(&output).contains("smtpd.max_message_size"), "{output:?}");
    place.configure("smtpd = 7\n");
    assert_eq!(code(&place.sendmail(&["a@x"], "x")), 78);
    assert_eq!(place.dropped(), []);
}

#[test]
fn letters_that_mean_nothing_here_are_taken() {
    let place = Place::new();
    let letters = "-v -oem -odb -om -B 8BITMIME -O DeliveryMode=b -L tag -Am -d0.1 -m -n -U -G -em -h 5 -p SMTP -i -- -dash@x";
    let letters: Vec<&str> = letters.split(' ').collect();
    let output = place.sendmail(&letters, "A: 1\n\nx\n");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(recipients(&place.only().0), ["-dash@x"]);
    assert!(
        Id::parse(String::from_utf8_lossy(&output.stdout).trim()).is_some(),
        "-v prints the id: {output:?}"
    );
    assert_eq!(code(&place.sendmail(&["-q30m"], "")), 0);
}

#[test]
fn letters_that_write_files_elsewhere_are_refused() {
    let place = Place::new();
    let log = place.path("log.php");
    let log = log.to_str().unwrap();
    // Root is told that there is no such thing, all others that they may not.
    let refused = if posta::unix::users::current().0 == 0 { 64 } else { 77 };
    let queue = format!("-oQ{log}");
    let aliases = format!("AliasFile={log}");
    for words in [vec!["-X", log], vec!["-D", log], vec![&queue], vec!["-O", &aliases]] {
        let output = place.sendmail(&[&words[..], &["a@x"]].concat(), "A: 1\n\n<?php\n");
        assert_eq!(code(&output), refused, "{words:?}: {output:?}");
        assert!(said(&output).contains(words[0]), "{output:?}");
    }
    assert_eq!(code(&place.sendmail(&["-be", "${run{id}}"], "")), 64);
    assert_eq!(place.dropped(), []);
    assert!(!place.path("log.php").exists());
}

#[test]
fn a_sendmail_that_is_killed_in_the_middle_submits_nothing() {
    let place = Place::new();
    let mut command = place.command(env!("CARGO_BIN_EXE_posta-drop"));
    let envelope = "sender a@x\nto b@y\n\n";
    for cut in ["", "A: 1\n\nhalf", "A: 1\n\nhalf\n", "A: 1\n\nhalf\n."] {
        let output = run(&mut command, &format!("{envelope}{cut}"));
        assert_eq!(code(&output), 65, "{cut:?}: {output:?}");
    }
    assert_eq!(place.dropped(), []);
    let output = run(&mut command, &format!("{envelope}A: 1\n\nwhole\n.\n"));
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(place.only().1, "A: 1\r\n\r\nwhole\r\n");
}

#[test]
fn posta_queue_is_woken_by_a_hint() {
    let place = Place::new();
    let spool = Spool::for_running(&place.path("spool"), Arc::new(Disk)).unwrap();
    let trigger = posta::unix::fifo::Trigger::open(&spool.trigger()).unwrap();
    assert_eq!(code(&place.sendmail(&["a@x"], "x")), 0);
    let mut buffer = [0; 64];
    let length = trigger.read(&mut buffer).unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), format!("+{}\n", place.dropped()[0]));
}

/// The kernel is asked, by root, who may write anywhere: posta-drop has given that up.
#[test]
fn posta_drop_writes_nowhere_but_in_the_spool() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    fs::remove_dir(place.path("spool/drop")).unwrap();
    symlink(outside.path(), place.path("spool/drop")).unwrap();
    let output =
        run(&mut place.command(env!("CARGO_BIN_EXE_posta-drop")), "sender a@x\nto b@y\n\nA: 1\n\nx\n.\n");
    if enclosure::knows_files() {
        assert_eq!(code(&output), 75, "{output:?}");
        assert!(said(&output).contains("Permission denied"), "{output:?}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    } else {
        assert_eq!(code(&output), 0, "{output:?}");
    }
}

/// Where `drop/` is closed, the message goes to posta-queue as an open file.
#[test]
fn without_a_right_to_the_folder_the_message_goes_over_the_socket() {
    let place = Place::new();
    fs::set_permissions(place.path("spool/drop"), fs::Permissions::from_mode(0o000)).unwrap();
    // Copied: the one that was built may lie where only its builder can go.
    let program = place.path("posta-drop");
    assert!(
        Command::new("cp").arg(env!("CARGO_BIN_EXE_posta-drop")).arg(&program).status().unwrap().success()
    );
    let mut command = place.command(program.to_str().unwrap());
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let message = "sender a@x\nret FULL\nto b@y\nnotify NEVER\nto c@y\n\nA: 1\n\n..x\n.\n";
    let output = run(&mut command, message);
    assert_eq!(code(&output), 75, "{output:?}");
    assert!(said(&output).contains("run/drop"), "{output:?}");

    let listener = PacketListener::bind(&place.path("run/drop"), 0o666).unwrap();
    let id = Id::parse("0123456789ABCDE").unwrap();
    let queue = std::thread::spawn(move || {
        let client = listener.accept().unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let (length, file) = client.receive(&mut buffer).unwrap();
        client.send(&Dropped::Taken(id).encode().unwrap(), None).unwrap();
        let mut file = fs::File::from(file.unwrap());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        (Submission::decode(&buffer[..length]).unwrap(), text)
    });
    let output = run(&mut command, message);
    assert_eq!(
        (code(&output), String::from_utf8_lossy(&output.stdout).trim()),
        (0, id.as_str()),
        "{output:?}"
    );
    let (submission, text) = queue.join().unwrap();
    assert_eq!(text, "A: 1\r\n\r\n.x\r\n");
    assert_eq!(submission.recipients.len(), 2);
    assert!(submission.recipients[0].notify.given && !submission.recipients[1].notify.given);
}

#[test]
fn newaliases_says_whether_the_aliases_can_be_read() {
    let place = Place::new();
    let newaliases = place.path("newaliases");
    symlink(env!("CARGO_BIN_EXE_sendmail"), &newaliases).unwrap();
    let check = || run(&mut place.command(newaliases.to_str().unwrap()), "");
    assert_eq!(code(&check()), 0, "a missing table is an empty one");
    fs::write(place.path("aliases"), "root: alice\n").unwrap();
    assert_eq!(code(&check()), 0);
    fs::write(place.path("aliases"), "root: alice\nno colon here\n").unwrap();
    let output = check();
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(said(&output).contains("aliases:2: no colon"), "{output:?}");
    let text = said(&place.postactl(&["check"]));
    assert!(text.contains("aliases:2: no colon"), "{text}");
}

#[test]
fn newaliases_builds_the_database_where_the_aliases_are_one() {
    let place = Place::new();
    let text = fs::read_to_string(place.path("posta.toml")).unwrap();
    let text = text.replace("aliases = \"/", "aliases = \"cdb:/").replace("/aliases\"", "/aliases.cdb\"");
    fs::write(place.path("posta.toml"), text).unwrap();
    let newaliases = place.path("newaliases");
    symlink(env!("CARGO_BIN_EXE_sendmail"), &newaliases).unwrap();
    let build = || run(&mut place.command(newaliases.to_str().unwrap()), "");
    fs::write(place.path("aliases"), "staff: root\n").unwrap();
    assert_eq!(code(&build()), 0);
    let text = said(&place.postactl(&["why", "staff"]));
    assert!(text.contains("aliases.cdb: alias staff leads to root"), "{text}");
    fs::write(place.path("aliases"), "staff: root\nno colon\n").unwrap();
    let output = build();
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(said(&output).contains("aliases:2: no colon"), "{output:?}");
}

#[test]
fn why_says_where_an_address_leads() {
    let place = Place::new();
    place.configure("[domains]\n\"y.example\" = { relay = \"127.0.0.1:26\" }\n");
    fs::write(place.path("aliases"), "").unwrap();
    let output = place.postactl(&["why", "bob@y.example"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let text = said(&output);
    assert!(
        text.starts_with("taken from anybody\n") && text.contains("-> bob@y.example: 127.0.0.1:26 by SMTP"),
        "{text}"
    );
    let text = said(&place.postactl(&["why", "--client", "192.0.2.1", "bob@z.example"]));
    assert!(
        text.contains("not taken from 192.0.2.1") && text.contains("the mail exchangers of z.example"),
        "{text}"
    );
    let text = said(&place.postactl(&["why", "--client", "127.0.0.1", "bob@z.example"]));
    assert!(text.contains("taken from 127.0.0.1, which may relay"), "{text}");
    assert_eq!(code(&place.postactl(&["why", "a@-x"])), 64);
}

#[test]
fn why_judges_a_client_as_the_server_does() {
    let place = Place::new();
    let tables = ["clients", "senders"].map(|name| format!("{name} = \"{}\"\n", place.path(name).display()));
    fs::write(place.path("clients"), "192.0.2.1 refuse we had words\n192.0.2.3 discard\n").unwrap();
    fs::write(place.path("senders"), "# nobody\nspammer@z.example refuse\n").unwrap();
    fs::write(place.path("aliases"), "").unwrap();
    let domains = "[domains]\n\"y.example\" = { relay = \"127.0.0.1:26\", tls = \"verify\" }\n";
    place.configure(&format!("{domains}[access]\n{}", tables.concat()));
    let why = |client: &str, from: &str| {
        said(&place.postactl(&["why", "--client", client, "--from", from, "bob@y.example"]))
    };
    let refused = why("192.0.2.1", "a@x.example");
    assert!(refused.contains("/clients:1: refuse\n"), "{refused}");
    assert!(refused.contains("at CONNECT, 554 5.7.1 [192.0.2.1]: we had words [P0201]\n"), "{refused}");
    let refused = why("192.0.2.2", "spammer@z.example");
    assert!(refused.contains("/senders:2: refuse\n") && refused.contains("at MAIL, 5"), "{refused}");
    let taken = why("192.0.2.2", "a@x.example");
    assert!(taken.starts_with("taken from 192.0.2.2\n"), "{taken}");
    assert!(taken.contains("127.0.0.1:26 by SMTP, under TLS only and with a good certificate\n"), "{taken}");
    assert!(why("192.0.2.3", "").contains("and thrown away, by clients table "), "discarded");
    let output = place.postactl(&["why", "--json", "--client", "192.0.2.1", "bob@y.example"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let client = &told["client"];
    assert_eq!(
        (&client["taken"], &client["at"], &client["rows"][0]["line"]),
        (&false.into(), &"CONNECT".into(), &1.into())
    );
    assert_eq!(told["tls"][0], "verify");
}

#[test]
fn bv_says_where_addresses_lead_and_sends_nothing() {
    let place = Place::new();
    let more =
        "[domains]\n\"y.example\" = { relay = \"127.0.0.1:26\" }\n\"z.example\" = { users = \"system\" }\n";
    place.configure(more);
    fs::write(place.path("aliases"), "both: root, eve@far.example\n").unwrap();
    let output = place.sendmail(&["-bv", "bob@y.example", "both@z.example"], "");
    let text = said(&output);
    assert_eq!(code(&output), 0, "{output:?}");
    for line in [
        "bob@y.example... deliverable: mailer esmtp, host 127.0.0.1:26, user bob@y.example\n",
        "both@z.example... deliverable: mailer local, user ",
        "both@z.example... deliverable: mailer esmtp, host far.example, user eve@far.example\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let output = place.sendmail(&["-bv", "no-such-user-here@z.example"], "");
    assert_eq!(code(&output), 67, "{output:?}");
    assert!(said(&output).contains("no-such-user-here@z.example... "), "{output:?}");
    assert_eq!(place.dropped(), []);
}

/// With set-group-id neither `-c` nor the environment is taken. Needs root, and a file system that honours
/// the bit.
#[test]
fn a_set_group_id_program_reads_the_systems_configuration_only() {
    if !nix::unistd::geteuid().is_root()
        || Path::new("/etc/posta").exists()
        || Path::new("/var/spool/posta").exists()
    {
        return;
    }
    let place = Place::new();
    let program = place.path("posta-drop");
    assert!(
        Command::new("cp").arg(env!("CARGO_BIN_EXE_posta-drop")).arg(&program).status().unwrap().success()
    );
    assert!(Command::new("chgrp").arg("mail").arg(&program).status().unwrap().success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o2755)).unwrap();
    let mut command = place.command(program.to_str().unwrap());
    let output = run(command.uid(65534).gid(65534), "sender\nto b@y\n\n.\n");
    assert_eq!(code(&output), 77, "{output:?}");
    let output = run(Command::new(&program).uid(65534).gid(65534), "sender\nto b@y\n\n.\n");
    assert_eq!(code(&output), 75, "{output:?}");
    assert!(said(&output).contains("/var/spool/posta"), "{output:?}");
    assert_eq!(place.dropped(), []);
}

#[test]
fn the_mail_command_sends_through_us() {
    if Command::new("mail").arg("-V").stdin(Stdio::null()).output().is_err() {
        eprintln!("bsd-mailx is not installed: not tried");
        return;
    }
    let place = Place::new();
    let script = place.path("sendmail");
    let text = format!(
        "#!/bin/sh\nexec {} -c {} \"$@\"\n",
        env!("CARGO_BIN_EXE_sendmail"),
        place.path("posta.toml").display()
    );
    fs::write(place.path("script"), text).unwrap();
    fs::set_permissions(place.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    // Renamed by nobody who holds it open.
    assert!(Command::new("cp").arg(place.path("script")).arg(&script).status().unwrap().success());
    fs::write(place.path("mailrc"), format!("set sendmail={}\n", script.display())).unwrap();
    let mut mail = Command::new("mail");
    let mail = mail.env("MAILRC", place.path("mailrc")).args(["-s", "hello", "bob@y.example"]);
    let output = run(mail, "first line\n");
    let mut tries = 0;
    // mail(1) does not wait for sendmail.
    while place.dropped().is_empty() && tries < 500 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        tries += 1;
    }
    assert_eq!(place.dropped().len(), 1, "{output:?}");
    let (envelope, text) = place.only();
    assert_eq!(recipients(&envelope), ["bob@y.example"]);
    assert!(text.contains("Subject: hello\r\n") && text.ends_with("\r\n\r\nfirst line\r\n"), "{text}");
}

fn row() -> Row {
    Row {
        id: Id::parse("0123456789ABCDE").unwrap(),
        state: "deferred".into(),
        sender: "a@x".into(),
        recipients: vec!["b@y".into(), "c@z".into()],
        size: 345,
        arrived: 1_795_550_000_000_000,
        next: Some(1_795_550_300),
        reason: "connection refused".into(),
    }
}

#[test]
fn mailq_prints_the_table_that_scripts_know() {
    let place = Place::new();
    let mailq = place.path("mailq");
    symlink(env!("CARGO_BIN_EXE_sendmail"), &mailq).unwrap();
    let asked = place.queue(vec![Answer::Row(row()), Answer::End]);
    let output = run(&mut place.command(mailq.to_str().unwrap()), "");
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(asked.join().unwrap(), Order::List);
    let text = said(&output);
    assert!(text.starts_with("-Queue ID-") && text.contains("0123456789ABCDE"), "{text}");
    assert!(text.contains("(connection refused)") && text.contains("c@z"), "{text}");
    assert!(text.ends_with("-- 1 Kbytes in 1 Request.\n"), "{text}");
    let asked = place.queue(vec![Answer::End]);
    assert_eq!(said(&place.sendmail(&["-bp"], "")), "Mail queue is empty\n");
    asked.join().unwrap();
}

#[test]
fn the_queue_is_listed_for_people_and_for_programs() {
    let place = Place::new();
    let asked = place.queue(vec![Answer::Row(row()), Answer::Row(row()), Answer::End]);
    let text = said(&place.postactl(&["queue", "--json"]));
    assert_eq!(asked.join().unwrap(), Order::List);
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!((&objects[0]["size"], &objects[0]["recipients"][1]), (&345.into(), &"c@z".into()));
    let asked = place.queue(vec![Answer::Row(row()), Answer::End]);
    let text = said(&place.postactl(&["queue"]));
    asked.join().unwrap();
    assert!(text.contains("a@x -> b@y and 1 more (connection refused)"), "{text}");
}

#[test]
fn orders_are_given_as_they_are_typed() {
    let place = Place::new();
    let id = row().id;
    for (words, wanted) in [
        (&["retry"][..], Order::RetryAll),
        (&["retry", "all"], Order::RetryAll),
        (&["retry", "Example.net"], Order::RetryDomain("example.net".into())),
        (&["retry", id.as_str()], Order::RetryId(id)),
        (&["hold", id.as_str()], Order::Hold(id)),
        (&["release", id.as_str()], Order::Release(id)),
        (&["delete", id.as_str()], Order::Delete(id)),
        (&["bounce", id.as_str()], Order::Bounce(id)),
        (&["show", id.as_str()], Order::Show(id)),
        (&["metrics"], Order::Metrics),
    ] {
        let asked = place.queue(vec![Answer::End]);
        let output = place.postactl(words);
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
        assert_eq!(asked.join().unwrap(), wanted);
    }
    for (failure, exit) in [(Failure::Wrong, 65), (Failure::Denied, 77), (Failure::Later, 75)] {
        let asked = place.queue(vec![Answer::Failed(failure, "no such message".into())]);
        let output = place.postactl(&["delete", id.as_str()]);
        asked.join().unwrap();
        assert_eq!(code(&output), exit, "{failure:?}");
        assert!(said(&output).contains("no such message"), "{output:?}");
    }
}

#[test]
fn cat_copies_the_message_and_not_its_envelope() {
    let place = Place::new();
    let listener = PacketListener::bind(&place.path("run/queue"), 0o666).unwrap();
    let queue = std::thread::spawn(move || {
        let client = listener.accept().unwrap();
        client.receive(&mut [0; 512]).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"A: 1\r\n\r\nx\r\nenvelope").unwrap();
        use std::os::fd::AsFd;
        client.send(&Answer::Text("11".into()).encode().unwrap(), Some(file.as_fd())).unwrap();
        client.send(&Answer::End.encode().unwrap(), None).unwrap();
    });
    let output = place.postactl(&["cat", "0123456789ABCDE"]);
    queue.join().unwrap();
    assert_eq!((code(&output), said(&output).as_str()), (0, "A: 1\r\n\r\nx\r\n"));
}

#[test]
fn a_queue_that_does_not_run_is_named_with_what_to_do() {
    let place = Place::new();
    for output in [place.postactl(&["queue"]), place.sendmail(&["-bp"], ""), place.sendmail(&["-q"], "")] {
        assert_eq!(code(&output), 69, "{output:?}");
        let text = said(&output);
        assert!(
            text.contains("run/queue: posta-queue is not running") && text.contains("start it"),
            "{text}"
        );
    }
}

#[test]
fn words_that_are_none_are_told_the_nearest() {
    let place = Place::new();
    for (words, hint) in [
        (&["queu"][..], "\"queue\""),
        (&["settings", "smtpd.max_recipient"], "\"smtpd.max_recipients\""),
        (&["show", "../x"], "no queue id"),
        (&["show"], "one queue id"),
        (&["queue", "--xml"], "--json"),
        (&[], "what to do?"),
    ] {
        let output = place.postactl(words);
        assert_eq!(code(&output), 64, "{words:?}: {output:?}");
        assert!(said(&output).contains(hint), "{words:?}: {output:?}");
    }
}

#[test]
fn check_prints_every_fault_with_its_place() {
    let place = Place::new();
    let output = place.postactl(&["check"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(said(&output).contains("warning: drop_privileges is false"), "{output:?}");
    let file = place.path("posta.toml");
    fs::write(&file, "hostnam = \"x\"\n\n[smtpd]\nmax_sesions = 7\nmax_recipients = \"many\"\n").unwrap();
    let output = place.postactl(&["check"]);
    assert_eq!(code(&output), 78, "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for fault in ["1:1: ", "4:1: ", "5:18: ", "\"hostname\"", "\"max_sessions\""] {
        assert!(text.contains(fault), "{fault}: {text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
    // So has each table that the configuration names.
    let table = |name: &str, text: &str| {
        let path = place.path(name);
        fs::write(&path, text).unwrap();
        format!("\"{}\"", path.display())
    };
    let settings = format!(
        "hostname = \"mail.example.org\"\n[local]\naliases = {}\n[access]\nclients = {}\n[smtpd]\nlogin_senders = {}\n\
         [routing]\nvirtual_aliases = \"regex:{}\"\n[domains]\n\"x.example\" = {{ users = {} }}\n",
        table("aliases", "root: daemon\na: a\n"),
        table("clients", "192.0.2.1 refuse\n192.0.2.2 reufse\n"),
        table("owners", "alice alice@x.example\nbob bob\n"),
        table("patterns", "/(/ a@x\n").trim_matches('"'),
        table("users", "alice@x.example:!\nbob@x.example:!:x:1\n"),
    );
    fs::write(place.path("tables.toml"), settings).unwrap();
    let file = place.path("tables.toml");
    let check = || {
        run(std::process::Command::new(env!("CARGO_BIN_EXE_postactl")).arg("-c").arg(&file).arg("check"), "")
    };
    let output = check();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for fault in ["/patterns:1: ", "/clients:2:11: ", "/owners:2: ", "/users:2: "] {
        assert!(text.contains(fault), "{fault}: {text}");
    }
    assert_eq!(code(&output), 78, "{text}");
    // Once they are mended, it is said what leads nowhere.
    for (name, text) in [
        ("patterns", "/^x$/ a@x\n"),
        ("clients", "* accept\n"),
        ("owners", ""),
        ("users", "alice@x.example:!\n"),
    ] {
        fs::write(place.path(name), text).unwrap();
    }
    let output = check();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0, "{text}");
    assert!(
        text.contains("warning: ") && text.contains("/aliases:2: alias a leads nowhere: 5.4.6"),
        "{text}"
    );
    // The other programs say the same, and do nothing.
    for output in [place.postactl(&["queue"]), place.sendmail(&["a@x"], "x")] {
        assert_eq!(code(&output), 78, "{output:?}");
        assert!(said(&output).contains("posta.toml:4:1: "), "{output:?}");
    }
}

#[test]
fn settings_are_printed_from_the_table() {
    let place = Place::new();
    let all = said(&place.postactl(&["settings"]));
    assert!(
        all.lines().count() > 40 && all.lines().all(|line| line.contains(" = ") && line.contains(" # ")),
        "{all}"
    );
    let one = said(&place.postactl(&["settings", "smtpd.max_recipients"]));
    assert!(one.starts_with("smtpd.max_recipients = 1000 # ") && one.lines().count() == 1, "{one}");
    assert!(said(&place.postactl(&["settings", "queue"])).lines().all(|line| line.starts_with("queue.")));
}

#[test]
fn set_permissions_makes_a_spool() {
    let place = Place::new();
    fs::remove_dir_all(place.path("spool")).unwrap();
    assert_eq!(code(&place.postactl(&["set-permissions"])), 0);
    Spool::for_running(&place.path("spool"), Arc::new(Disk)).unwrap();
    let mode = fs::metadata(place.path("spool/drop")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1730);
}
