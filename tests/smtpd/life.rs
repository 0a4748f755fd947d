//! posta-smtpd alone: how it starts, how it bears a crowd, how it ends.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use super::SETTINGS;
use super::daemon::{Client, Daemon, Ground, PROGRAM, wait_until};

#[test]
fn it_says_what_is_wrong_and_does_not_start() {
    let ground = Ground::new(SETTINGS);
    let file = ground.path("posta.toml");
    let file = file.to_str().unwrap();
    let (code, said) = ground.run(&["-x"]);
    assert_eq!(code, 64, "{said}");
    assert_eq!(ground.run(&["-c", file, "more"]).0, 64);

    std::fs::remove_dir(ground.path("spool/new")).unwrap();
    let (code, said) = ground.run(&["-c", file]);
    assert_eq!(code, 73, "{said}");
    assert!(said.contains(ground.path("spool/new").to_str().unwrap()), "{said}");

    ground.configure("[smtpd]\nmax_sesions = 3\n");
    let (code, said) = ground.run(&["-c", file]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains(&format!("{file}:6:1: ")) && said.contains("max_sessions"), "{said}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ground.configure(&SETTINGS.replace("127.0.0.1:0", &address));
    let (code, said) = ground.run(&["-c", file]);
    assert_eq!(code, 71, "{said}");
    assert!(said.contains(&address), "{said}");

    ground.configure("[[listen]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n");
    assert_eq!(ground.run(&["-c", file]).0, 78);
}

#[test]
fn help_and_version_are_told() {
    for option in ["-h", "-V"] {
        let done = Command::new(PROGRAM).arg(option).output().unwrap();
        assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("posta-smtpd"));
    }
}

#[test]
fn a_full_house_says_421() {
    let settings = format!("{SETTINGS}max_sessions = 3\nmax_sessions_per_client = 2\n");
    let mut daemon = Ground::new(&settings).start();
    let _two = [daemon.client(), daemon.client()];
    let mut third = daemon.connect_from("127.0.0.1").unwrap();
    third.expect("421 4.7.0 mx.test ");
    third.expect_end();
    let other = daemon.client_from("127.0.0.2");
    let mut fourth = daemon.connect_from("127.0.0.3").unwrap();
    fourth.expect("421 4.3.2 mx.test ");
    fourth.expect_end();
    daemon.wait_for_log("NOQUEUE: reject: CONNECT from unknown[127.0.0.3]: 421 4.3.2 ");
    drop(other);
    wait_until("there is a seat again", || {
        daemon.connect_from("127.0.0.3").unwrap().reply().starts_with("220")
    });
}

#[test]
fn idle_sessions_cost_no_threads_and_go_on_later() {
    let daemon = Ground::new(SETTINGS).start();
    let mut idle: Vec<_> = (0..60).map(|_| daemon.client()).collect();
    for client in &mut idle {
        client.say("EHLO client.test", "250");
        client.say("MAIL FROM:<a@b.test>", "250");
        client.send("RCPT TO:<x@exa");
    }
    wait_until("the workers have gone", || daemon.status("Threads") < 10);
    let mut fresh = daemon.client();
    fresh.begin("x@example.org");
    fresh.send("fresh\r\n.\r\n");
    fresh.expect("250");
    for client in &mut idle {
        client.say("mple.org>", "250");
        client.say("DATA", "354");
        client.send("idle\r\n.\r\n");
        client.expect("250");
    }
    assert_eq!(daemon.ground.messages().len(), 61);
}

/// Each of them may take five minutes for its next piece, but not while it takes the threads from
/// others: not even the first one, which had begun before there was a crowd.
#[test]
fn who_holds_threads_has_less_time_in_a_crowd() {
    let mut daemon = Ground::new(&format!("{SETTINGS}max_sessions = 4\n")).start();
    let mut slow: Vec<_> = (0..3)
        .map(|_| {
            let mut client = daemon.client();
            client.begin("x@example.org");
            client.send("a piece, and no more");
            client
        })
        .collect();
    for client in &mut slow {
        client.expect("421 4.4.2 ");
        client.expect_end();
    }
    daemon.wait_for_log("timeout after DATA from unknown[127.0.0.1]");
}

#[test]
fn closing_finishes_what_is_begun() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut idle = daemon.client();
    idle.say("EHLO client.test", "250");
    let mut sends = daemon.client();
    sends.begin("x@example.org");
    sends.send("begun before, ");
    daemon.signal("-TERM");
    idle.expect("421 4.3.2 mx.test ");
    idle.expect_end();
    assert!(daemon.connect_from("127.0.0.1").is_err(), "nobody is let in any more");
    sends.send("done after\r\n.\r\n");
    sends.expect("250 2.0.0 ");
    sends.expect("421 4.3.2 ");
    sends.expect_end();
    assert!(daemon.wait_for_end().success());
    assert_eq!(daemon.ground.only_message().1, b"begun before, done after\r\n");
}

#[test]
fn a_new_configuration_holds_for_new_sessions() {
    let mut daemon = Ground::new(SETTINGS).start();
    let mut before = daemon.client();
    daemon.ground.configure("[smtpd]\nmax_sessions = \"many\"\n");
    daemon.signal("-HUP");
    daemon.wait_for_log("posta.toml:6:");
    daemon.wait_for_log("the configuration is not changed");

    let changed =
        SETTINGS.replace("\"example.org\"", "\"example.net\"").replace("127.0.0.1:0", "127.0.0.1:1");
    daemon.ground.configure(&format!("{changed}max_sessions = 2\n"));
    daemon.signal("-HUP");
    daemon.wait_for_log("127.0.0.1:1: listeners are opened at the start only");
    daemon.wait_for_log("configuration read again");
    before.begin("x@example.org");
    let mut after = daemon.client();
    after.say("EHLO client.test", "250");
    after.say("MAIL FROM:<>", "250");
    after.say("RCPT TO:<x@example.org>", "554 5.7.1 ");
    after.say("RCPT TO:<x@example.net>", "250");
    daemon.connect_from("127.0.0.1").unwrap().expect("421 4.3.2 ");
}

#[test]
fn nobody_is_greeted_before_the_users_are_known() {
    let ground = Ground::new("");
    let users = ground.path("users").display().to_string();
    let domain = format!("{{ users = \"{users}\", mailbox = \"/nowhere/{{user}}/\" }}");
    ground.configure(&SETTINGS.replace("{ users = \"*\", mailbox = \"/nowhere/\" }", &domain));
    std::fs::write(ground.path("users"), "alice@example.org:{PLAIN}secret:1:1::/::\n").unwrap();
    let mut daemon = ground.start();
    daemon.wait_for_log("waiting for ");
    let mut early = daemon.connect_from("127.0.0.1").unwrap();
    early.expect("421 4.3.0 ");
    early.expect_end();
    let published = format!("posta-users 1\nfile\t{users}\nuser\talice@example.org\t1\t1\t/\n");
    std::fs::write(daemon.ground.path("run/users"), published).unwrap();
    let mut client = daemon.client();
    client.say("EHLO client.test", "250");
    client.say("MAIL FROM:<>", "250");
    client.say("RCPT TO:<alice@example.org>", "250");
    client.say("RCPT TO:<bob@example.org>", "550 5.1.1 <bob@example.org>: ");
}

#[test]
fn without_descriptors_it_waits_and_recovers() {
    let mut daemon = Ground::new(SETTINGS).start_after("ulimit -n 40");
    let mut crowd: Vec<_> = (0..40).map(|_| daemon.connect_from("127.0.0.1").unwrap()).collect();
    daemon.wait_for_log("cannot accept connections just now: ");
    crowd.drain(..30);
    let mut last = crowd.pop().unwrap();
    last.expect("220");
    last.say("NOOP", "250");
    assert_eq!(daemon.read_log().matches("cannot accept").count(), 1);
}

/// A limit on threads does not hold for root, and is for all that a user runs: the daemon gets a user of
/// its own.
#[test]
fn without_threads_sessions_wait_and_go_on_later() {
    if posta::unix::users::current().1 != 0 {
        eprintln!("skipped: no right to become a user of whom nothing else runs");
        return;
    }
    let ground = Ground::new(&format!("{SETTINGS}max_sessions = 100\nmax_sessions_per_client = 100\n"));
    let user = 1_000_000 + std::process::id();
    let program = ground.path("posta-smtpd");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(ground.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["run", "spool/new"] {
        chown(ground.path(name), Some(user), Some(user)).unwrap();
    }
    let as_user = || {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command
    };
    let mut command = as_user();
    command.arg(program);
    let mut daemon = ground.start_as(command);
    let pid = daemon.child.id();
    let limit = |most: &str| {
        let limits = [format!("--pid={pid}"), format!("--nproc={most}:")];
        assert!(as_user().arg("prlimit").args(limits).status().unwrap().success());
    };
    // Eight sessions hold a thread each; there are four at the start.
    let threads = daemon.status("Threads") + 4;
    let mut slow: Vec<_> = (0..8).map(|_| daemon.client()).collect();
    for client in &mut slow {
        client.begin("x@example.org");
        client.send("a piece, ");
    }
    wait_until("each of them holds a thread", || daemon.status("Threads") == threads);
    limit("1");
    let mut waiting: Vec<_> = (0..3).map(|_| daemon.connect_from("127.0.0.1").unwrap()).collect();
    daemon.wait_for_log("cannot start another thread: ");
    for client in &mut slow[..2] {
        client.send("and the rest\r\n.\r\n");
        client.expect("250");
    }
    // What they held serves those who waited; then there are threads again for all.
    for client in &mut waiting {
        client.expect("220");
    }
    limit("100");
    for _ in 0..4 {
        slow.push(daemon.client());
    }
    for client in &mut slow[2..8] {
        client.send("and the rest\r\n.\r\n");
        client.expect("250");
    }
    assert_eq!(daemon.ground.messages().len(), 8);
}

#[test]
fn a_disk_that_fails_is_a_later() {
    // A limit on the size of files fails writes as a broken disk does.
    let daemon = Ground::new(SETTINGS).start_after("trap '' XFSZ; ulimit -f 64");
    let mut client = daemon.client();
    client.begin("x@example.org");
    client.send([&b"0123456789\r\n".repeat(8_000)[..], b".\r\n"].concat());
    client.expect("451 4.3.0 ");
    client.begin("x@example.org");
    client.send("small\r\n.\r\n");
    client.expect("250");
    assert_eq!(daemon.ground.only_message().1, b"small\r\n");
}

/// A daemon whose `spool/new` is a small file system of its own; none where that can't be mounted.
fn on_a_small_disk(options: &str) -> Option<Daemon> {
    let mount = format!("mount -t tmpfs -o {options} posta-test");
    let may = Command::new("unshare").args(["-m", "sh", "-c", &format!("{mount} /mnt")]).output();
    if !may.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no right to mount a small file system");
        return None;
    }
    let ground = Ground::new(SETTINGS);
    let new = ground.path("spool/new");
    let mut command = Command::new("unshare");
    let script = format!("{mount} {} && exec {PROGRAM} \"$@\"", new.display());
    command.args(["-m", "sh", "-c", &script, "sh"]);
    Some(ground.start_as(command))
}

#[test]
fn a_full_disk_is_told_and_got_over() {
    let Some(mut daemon) = on_a_small_disk("size=80k") else { return };
    let mut client = daemon.client();
    client.begin("x@example.org");
    client.send([&b"0123456789\r\n".repeat(8_000)[..], b".\r\n"].concat());
    client.expect("452 4.3.1 ");
    daemon.wait_for_log("no space left");
    client.begin("x@example.org");
    client.send("small\r\n.\r\n");
    client.expect("250");
}

/// Three inodes: the folder's own, one message, and one more.
#[test]
fn no_inodes_are_told_and_got_over() {
    let Some(mut daemon) = on_a_small_disk("size=1m,nr_inodes=3") else { return };
    let mut begun = daemon.client();
    begun.begin("x@example.org");
    begun.send("small\r\n");
    let mut client = daemon.client();
    client.begin("x@example.org");
    client.send("small\r\n.\r\n");
    client.expect("250");
    let data = |client: &mut Client| {
        for line in ["EHLO client.test", "MAIL FROM:<>", "RCPT TO:<x@example.org>"] {
            client.say(line, "250");
        }
        client.send("DATA\r\n");
        client.reply()
    };
    let reply = data(&mut client);
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    daemon.wait_for_log("no space left");
    drop(begun);
    wait_until("the inode is free", || data(&mut client).starts_with("354"));
    client.send("small\r\n.\r\n");
    client.expect("250");
}

#[test]
fn sockets_may_be_handed_over() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let ground = Ground::new(&SETTINGS.replace("127.0.0.1:0", &address));
    let mut shell = Command::new("/bin/sh");
    let script = format!("export LISTEN_FDS=1 LISTEN_FDNAMES=smtpd; exec {PROGRAM} \"$@\" 3<&0 </dev/null");
    shell.args(["-c", &script, "sh"]).stdin(std::os::fd::OwnedFd::from(socket));
    let daemon = ground.start_as(shell);
    daemon.client().say("NOOP", "250");
}
