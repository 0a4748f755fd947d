//! A posta with all its own users, and accounts that get mail: started by root, in a namespace whose
//! /etc/passwd and /etc/group are the test's.

mod station;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use posta::unix::{enclosure, users};

use station::{House, program_path, wait_for};

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n";
const ALICE: u32 = 61010;
const BOB: u32 = 61011;
const MAIL: u32 = 61005;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh
posta:x:61001:61001::/nonexistent:/bin/false
postaq:x:61002:61002::/nonexistent:/bin/false
postar:x:61003:61003::/nonexistent:/bin/false
mail:x:61005:61005::/nonexistent:/bin/false
nobody:x:65534:65534::/nonexistent:/bin/false
alice:x:61010:61010::FOLDER/home/alice:/bin/sh
bob:x:61011:61011::FOLDER/home/bob:/bin/sh
";
const GROUP: &str = "root:x:0:
posta:x:61001:postaq
postaq:x:61002:
postar:x:61003:
postadrop:x:61004:postaq
mail:x:61005:
nogroup:x:65534:
alice:x:61010:
bob:x:61011:
";

/// Puts the test's files and programs where those who are no longer root find them. "$0" is the
/// folder.
const NAMESPACE: &str = "mount --bind \"$0/etc/passwd\" /etc/passwd &&
mount --bind \"$0/etc/group\" /etc/group && mount --bind PROGRAMS \"$0/bin\" &&
program=$0/bin/${1##*/} && shift && exec \"$program\" \"$@\"";

/// Whether there can be such a namespace. Without root's rights there can't.
fn is_possible() -> bool {
    let tried =
        Command::new("unshare").args(["-m", "mount", "--bind", "/etc/passwd", "/etc/passwd"]).output();
    users::current().1 == 0 && tried.is_ok_and(|output| output.status.success())
}

fn make(path: PathBuf, uid: u32) {
    fs::create_dir_all(&path).unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
}

fn house() -> House {
    let mut house = House::set_up("");
    let folder = house.folder.path().to_path_buf();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in [("passwd", PASSWD), ("group", GROUP)] {
        fs::create_dir_all(folder.join("etc")).unwrap();
        fs::write(folder.join("etc").join(name), text.replace("FOLDER", &folder.display().to_string()))
            .unwrap();
    }
    fs::create_dir(folder.join("bin")).unwrap();
    make(folder.join("home/alice"), ALICE);
    make(folder.join("home/bob"), BOB);
    make(folder.join("mail"), MAIL);
    let config = fs::read_to_string(house.config()).unwrap();
    let system = "\"example.net\" = { users = \"system\" }";
    let config = config.replacen("drop_privileges = false\n", "", 1).replacen(
        "[domains]",
        &format!("[domains]\n{system}"),
        1,
    ) + &format!(
        "[local]\naliases = \"{0}/aliases\"\nroot_mailbox = \"{0}/mail/root/\"\n",
        folder.display()
    );
    fs::write(house.config(), config).unwrap();
    let programs = program_path("posta").parent().unwrap().display().to_string();
    let namespace = NAMESPACE.replace("PROGRAMS", &programs);
    let words = ["unshare", "-m", "sh", "-c", &namespace, folder.to_str().unwrap()];
    house.wrapper = words.map(str::to_string).into();
    house.output("postactl", &["set-permissions"]);
    house.run();
    house
}

/// The only message in a Maildir.
fn only_message(maildir: &Path) -> PathBuf {
    wait_for(&format!("a message in {}", maildir.display()), || {
        fs::read_dir(maildir.join("new")).ok()?.next().map(|entry| entry.unwrap().path())
    })
}

#[test]
fn each_account_owns_what_is_delivered_to_it() {
    if !is_possible() {
        eprintln!("not tried: this takes root's rights and a mount namespace");
        return;
    }
    let house = house();
    let command = "\\bob, \"|id -un > who; cat /proc/self/status > status\"\n";
    fs::write(house.path("home/bob/.forward"), command).unwrap();
    chown(house.path("home/bob/.forward"), Some(BOB), Some(BOB)).unwrap();
    house.send("a@x.example", &["alice@example.net", "bob@example.net", "root@example.net"], MESSAGE);
    let maildirs = [("home/alice/Maildir", ALICE), ("home/bob/Maildir", BOB), ("mail/root", MAIL)];
    for (name, uid) in maildirs {
        let maildir = house.path(name);
        let message = only_message(&maildir);
        for (path, mode) in [(maildir.clone(), 0o700), (maildir.join("new"), 0o700), (message.clone(), 0o600)]
        {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (uid, uid, mode), "{path:?}");
        }
        assert!(fs::read_to_string(&message).unwrap().ends_with(MESSAGE));
    }
    house.wait_for_empty_queue();
    assert_eq!(fs::read_to_string(house.path("home/bob/who")).unwrap(), "bob\n");
    assert_eq!(fs::metadata(house.path("home/bob/who")).unwrap().uid(), BOB);
    let status = fs::read_to_string(house.path("home/bob/status")).unwrap();
    let has = |line: &str| status.lines().any(|found| found.replace('\t', " ").trim_end() == line);
    assert!(
        has("NoNewPrivs: 1")
            && has("Seccomp: 2")
            && has(&format!("Uid: {BOB} {BOB} {BOB} {BOB}"))
            && has(&format!("Groups: {BOB}")),
        "{status}"
    );
}

#[test]
fn each_program_has_the_rights_of_its_own_user() {
    if !is_possible() {
        eprintln!("not tried: this takes root's rights and a mount namespace");
        return;
    }
    let house = house();
    // Of root's powers, posta-auth keeps that of reading any file; who becomes others keeps all.
    const NONE: u64 = 0;
    const READ_ANY_FILE: u64 = 1 << 2;
    let programs = [
        ("posta-smtpd", 61001, NONE),
        ("posta-queue", 61002, NONE),
        ("posta-remote", 61003, NONE),
        ("posta-auth", 0, READ_ANY_FILE),
        ("posta-local", 0, u64::MAX),
        ("posta", 0, u64::MAX),
    ];
    for (program, uid, powers) in programs {
        // It gives rights up a moment after it was started.
        wait_for(&format!("{program} with the rights of {uid}"), || {
            let [pid] = house.pids(program)[..] else { return None };
            let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let statuses: Vec<String> = threads
                .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok())
                .collect();
            let all = statuses.iter().all(|status| is_confined(status, uid, powers));
            (all && !statuses.is_empty()).then_some(())
        });
    }
    // Nobody but root can make these in run/.
    for (name, mode) in [("counters", 0o755), ("sessions", 0o750)] {
        let found = fs::metadata(house.path("run").join(name)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (61001, mode), "{name}");
    }
    // Any user of this host may read what is counted.
    let counters = wait_for("the counters", || fs::metadata(house.path("run/counters/posta-smtpd")).ok());
    assert_eq!((counters.uid(), counters.mode() & 0o777), (61001, 0o644));
}

/// A link leads out of the spool, to where the user of posta-smtpd might write.
#[test]
fn posta_smtpd_writes_nowhere_but_in_the_spool() {
    let mut house = House::set_up("");
    let outside = tempfile::tempdir().unwrap();
    fs::remove_dir(house.path("spool/new")).unwrap();
    symlink(outside.path(), house.path("spool/new")).unwrap();
    house.run();
    let mut client = house.client();
    client.hello();
    client.expect("MAIL FROM:<a@x.example>", "250");
    client.expect("RCPT TO:<b@example.org>", "250");
    let said = client.try_data(MESSAGE);
    if enclosure::knows_files() {
        assert!(said.unwrap_err().starts_with("451 4.3.0"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    } else {
        assert!(house.log().contains("the files of its user are left to it"));
    }
}

/// What the kernel says of a thread: whose it is, that it gets no more rights and is behind a filter of
/// system calls, and that it has no other powers than these.
fn is_confined(status: &str, uid: u32, powers: u64) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>()
    };
    let left = u64::from_str_radix(field("CapEff:").first().unwrap_or(&"x"), 16);
    field("Uid:").iter().all(|id| *id == uid.to_string())
        && left.is_ok_and(|left| left & !powers == 0)
        && field("NoNewPrivs:") == ["1"]
        && field("Seccomp:") == ["2"]
}
