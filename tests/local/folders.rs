//! Maildir++: folders in a Maildir, and how much it may hold.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use posta::courier::report::Outcome;
use posta::courier::request::Place;

use super::station::*;

fn deliver(station: &Station, runner: &mut Runner, address: &str) -> Outcome {
    let account = account();
    let owner = owner_at(&account, &station.path(&account.name));
    let request = runner.request(&owner, &[(address, Place::Maildir("~/Maildir/".into()))]);
    runner.send(&request);
    runner.outcome(request.job)
}

#[test]
fn an_extension_names_a_folder_that_is_there() {
    let station = Station::start("folders = true");
    let account = account();
    let maildir = station.home(&account).join("Maildir");
    fs::create_dir(&maildir).unwrap();
    fs::create_dir(maildir.join(".books")).unwrap();
    for path in [maildir.clone(), maildir.join(".books")] {
        chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
    symlink("/tmp", maildir.join(".link")).unwrap();
    let mut runner = station.runner();
    for address in
        ["a+books@example.org", "a@example.org", "a+other@example.org", "\"a+../.books\"@example.org"]
    {
        assert_eq!(deliver(&station, &mut runner, address).status.class, 2, "{address}");
    }
    assert_eq!((mail(&maildir.join(".books")).len(), mail(&maildir).len()), (1, 3));
    let linked = deliver(&station, &mut runner, "a+link@example.org");
    assert_eq!(linked.status.to_string(), "4.2.1", "{linked:?}");
}

#[test]
fn a_full_mailbox_takes_no_more() {
    for (over, status) in [("later", "4.2.2"), ("never", "5.2.2")] {
        let station = Station::start(&format!(
            "quota = 500\nquota_messages = 10\nover_quota = \"{over}\"\nfolders = true"
        ));
        let account = account();
        let maildir = station.home(&account).join("Maildir");
        let mut runner = station.runner();
        assert_eq!(deliver(&station, &mut runner, "a@example.org").status.class, 2);
        let books = fs::read_to_string(maildir.join("maildirsize")).unwrap();
        let size: u64 = mail(&maildir)[0].1.len() as u64;
        assert_eq!(books, format!("500S,10C\n0 0\n{size} 1\n"));
        // The folders have one limit together.
        fs::create_dir(maildir.join(".books")).unwrap();
        chown(maildir.join(".books"), Some(account.uid), Some(account.gid)).unwrap();
        let mut last = deliver(&station, &mut runner, "a+books@example.org");
        while last.status.class == 2 {
            last = deliver(&station, &mut runner, "a+books@example.org");
        }
        assert_eq!(last.status.to_string(), status);
        assert!(last.text.contains("the mailbox is full: "), "{}", last.text);
        let in_books: Vec<u64> =
            mail(&maildir.join(".books")).iter().map(|(_, copy)| copy.len() as u64).collect();
        let held = size + in_books.iter().sum::<u64>();
        assert!(held <= 500 && held + in_books[0] > 500, "{held}");
        fs::remove_dir_all(maildir.join(".books")).unwrap();
        fs::remove_file(maildir.join("maildirsize")).unwrap();
        assert_eq!(deliver(&station, &mut runner, "a@example.org").status.class, 2);
    }
}
