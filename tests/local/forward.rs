//! `.forward` files: what is reported, and what keeps mail waiting.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use posta::courier::report::Outcome;
use posta::courier::request::{Owner, Place};
use posta::unix::users;

use super::station::*;

/// A home with a `.forward`, and its owner.
struct Home {
    path: PathBuf,
    account: users::Account,
}

impl Home {
    fn of(station: &Station, text: &str) -> Home {
        let account = account();
        let home = Home { path: station.home(&account), account };
        home.put(".forward", text);
        home
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }

    fn owner(&self) -> Owner {
        owner_at(&self.account, &self.path)
    }
}

fn mailbox_of_home() -> Place {
    Place::Home(Box::new(Place::Maildir("~/Maildir/".into())))
}

fn deliver(runner: &mut Runner, home: &Home) -> Outcome {
    runner.deliver(&home.owner(), mailbox_of_home())
}

fn why_later(outcome: &Outcome) -> &str {
    assert_eq!((outcome.status.to_string(), outcome.forward.clone()), ("4.3.5".into(), None), "{outcome:?}");
    &outcome.text
}

#[test]
fn what_it_says_is_reported_and_nothing_is_delivered_yet() {
    let station = Station::start("");
    let home = Home::of(&station, "\\a, bob@example.net\n\"|cat > seen\"\n");
    let mut runner = station.runner();
    let outcome = deliver(&mut runner, &home);
    let forward = outcome.forward.unwrap();
    assert_eq!(forward.addresses, [mailbox("bob@example.net")]);
    assert_eq!(forward.places, [Place::Maildir("~/Maildir/".into()), Place::Command("cat > seen".into())]);
    assert_eq!((outcome.status.class, outcome.passed_on), (2, true));
    assert!(!home.path.join("Maildir").exists() && !home.path.join("seen").exists());
    // The places come back as jobs of their own.
    for place in forward.places {
        assert_eq!(runner.deliver(&home.owner(), place).status.class, 2);
    }
    assert_eq!(mail(&home.path.join("Maildir")).len(), 1);
    assert!(fs::read_to_string(home.path.join("seen")).unwrap().starts_with("Return-Path: "));
}

#[test]
fn the_mailbox_is_meant_where_it_says_nothing_else() {
    let station = Station::start("");
    let home = Home::of(&station, "# not now: bob@example.net\n");
    let mut runner = station.runner();
    assert_eq!(deliver(&mut runner, &home).text, "delivered to maildir");
    assert_eq!(mail(&home.path.join("Maildir")).len(), 1);
}

#[test]
fn a_file_that_can_t_be_believed_keeps_the_mail_waiting() {
    let station = Station::start("");
    let home = Home::of(&station, "bob@example.net, and what not");
    let mut runner = station.runner();
    // A file that was read is believed for a second: each look is at a home of its own.
    let mut later = |change: &dyn Fn(&Path)| {
        let copy = station.path(&format!("home{}", fs::read_dir(station.path("")).unwrap().count()));
        fs::create_dir(&copy).unwrap();
        chown(&copy, Some(home.account.uid), Some(home.account.gid)).unwrap();
        let other = Home { path: copy, account: home.account.clone() };
        other.put(".forward", "bob@example.net");
        change(&other.path);
        why_later(&deliver(&mut runner, &other)).to_string()
    };
    let mode = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert!(later(&|home| mode(home.join(".forward"), 0o666)).contains("can be written by others"));
    assert!(later(&|home| mode(home.to_path_buf(), 0o777)).contains("everybody can write there"));
    assert!(later(&|home| mode(home.join(".forward"), 0)).contains("Permission denied") || !is_root());
    assert!(later(&|home| fs::write(home.join(".forward"), "a b").unwrap()).contains("line 1"));
    let replaced = |home: &Path, make: &dyn Fn(&Path)| {
        fs::remove_file(home.join(".forward")).unwrap();
        make(&home.join(".forward"));
    };
    let why = later(&|home| replaced(home, &|path| symlink("/etc/hostname", path).unwrap()));
    assert!(why.ends_with("a link"), "{why}");
    let fifo = |path: &Path| nix_free_fifo(path);
    assert!(later(&|home| replaced(home, &fifo)).ends_with("is no file"));
    if is_root() {
        let somebody = accounts()[1].uid;
        let why = later(&|home| chown(home.join(".forward"), Some(somebody), None).unwrap());
        assert!(why.contains("belongs to somebody else") || why.contains("Permission denied"), "{why}");
        // A second name of somebody else's file, such as another user's own .forward.
        let theirs = station.path("theirs");
        fs::write(&theirs, "|touch /tmp/never\n").unwrap();
        chown(&theirs, Some(somebody), None).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o644)).unwrap();
        let why = later(&|home| replaced(home, &|path| fs::hard_link(&theirs, path).unwrap()));
        assert!(why.contains("belongs to somebody else"), "{why}");
        let why = later(&|home| chown(home, Some(somebody), None).unwrap());
        assert!(why.contains("belongs to somebody else"), "{why}");
        // A file that never ends.
        let device = |path: &Path| {
            let made = std::process::Command::new("mknod").arg(path).args(["c", "1", "5"]).status().unwrap();
            assert!(made.success());
        };
        let why = later(&|home| replaced(home, &device));
        assert!(why.ends_with("is no file") || why.contains("Permission denied"), "{why}");
    }
}

/// By the command, since only `unix/` names libc.
fn nix_free_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn root_s_kept_rights_follow_no_forward() {
    if !is_root() {
        return;
    }
    let station = Station::start_with("drop_privileges = false", "");
    let home = station.path("home");
    fs::create_dir(&home).unwrap();
    let owner = Owner::Ids(0, 0, home.display().to_string());
    let mut runner = station.runner();
    assert_eq!(runner.deliver(&owner, mailbox_of_home()).status.class, 2);
    let other = station.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(".forward"), "|touch /tmp/never").unwrap();
    let owner = Owner::Ids(0, 0, other.display().to_string());
    assert!(why_later(&runner.deliver(&owner, mailbox_of_home())).contains("drop_privileges"));
}
