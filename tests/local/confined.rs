//! A delivery process keeps to its owner's home and to the mailboxes, where the kernel can see to it;
//! where it can't, the log says so. Which of the two it is, the kernel is asked.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use posta::courier::request::Place;
use posta::unix::enclosure;

use super::station::*;

/// A station whose mailboxes lie in `mail/`, where a link leads out of it to a Maildir that the owner
/// could write.
fn station(confine: &str) -> Station {
    let station = Station::start(&format!("mailbox = \"FOLDER/mail/{{user}}/\"\n{confine}"));
    let account = account();
    for name in ["mail", "outside"] {
        fs::create_dir(station.path(name)).unwrap();
        chown(station.path(name), Some(account.uid), Some(account.gid)).unwrap();
    }
    symlink(station.path("outside"), station.path("mail/link")).unwrap();
    station
}

#[test]
fn a_link_among_the_mailboxes_leads_nowhere() {
    let station = station("");
    let mut runner = station.runner();
    let owner = owner(&account());
    assert_eq!(runner.deliver(&owner, maildir(&station.path("mail/alice"))).status.class, 2);
    let outcome = runner.deliver(&owner, maildir(&station.path("mail/link")));
    if enclosure::knows_files() {
        assert_eq!(outcome.status.to_string(), "4.2.1");
        assert!(outcome.text.ends_with("Permission denied"), "{}", outcome.text);
        assert_eq!(fs::read_dir(station.path("outside")).unwrap().count(), 0);
    } else {
        assert_eq!(outcome.status.class, 2);
        assert!(station.log().contains("are not confined"), "{}", station.log());
    }
}

#[test]
fn a_list_outside_of_the_home_can_t_be_read() {
    let station = station("");
    let account = account();
    let homes = station.path("homes");
    let home = homes.join("alice");
    fs::create_dir_all(&home).unwrap();
    fs::write(station.path("outside/list"), "bob@example.net").unwrap();
    fs::write(home.join(".forward"), format!(":include:{}", station.path("outside/list").display())).unwrap();
    assert!(
        std::process::Command::new("chown")
            .arg("-R")
            .arg(account.uid.to_string())
            .arg(&homes)
            .status()
            .unwrap()
            .success()
    );
    let place = Place::Home(Box::new(Place::Maildir("~/Maildir/".into())));
    let outcome = station.runner().deliver(&owner_at(&account, &home), place);
    // The list is root's, which is as good as the owner's.
    let expected = if enclosure::knows_files() { "4.3.5" } else { "2.0.0" };
    assert_eq!(outcome.status.to_string(), expected, "{outcome:?}");
}

#[test]
fn commands_and_files_elsewhere_are_left_their_owner_s_rights() {
    let station = station("");
    let mut runner = station.runner();
    let account = account();
    let owner = owner(&account);
    assert_eq!(runner.deliver(&owner, maildir(&station.path("mail/alice"))).status.class, 2);
    let command = format!("cat > {}", station.path("outside/seen").display());
    assert_eq!(runner.deliver(&owner, Place::Command(command)).text, "delivered to command");
    let mbox = Place::Mbox(station.path("outside/mbox").display().to_string());
    assert_eq!(runner.deliver(&owner, mbox).status.class, 2);
}

#[test]
fn the_administrator_can_do_without() {
    let station = station("confine = false");
    let mut runner = station.runner();
    let owner = owner(&account());
    assert_eq!(runner.deliver(&owner, maildir(&station.path("mail/link"))).status.class, 2);
    assert_eq!(mail(&station.path("outside")).len(), 1);
}
