//! Homes of people who want mail to be written where they could not write it, or never to end.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use posta::courier::request::{Owner, Place};
use posta::unix::users;

use super::station::*;

/// A home, and beside it a place that its owner has no business in.
struct Scene {
    station: Station,
    runner: Runner,
    account: users::Account,
    home: PathBuf,
    outside: PathBuf,
}

impl Scene {
    fn set() -> Scene {
        Scene::set_with("")
    }

    fn set_with(local: &str) -> Scene {
        let station = Station::start(local);
        let account = account();
        let home = station.home(&account);
        let outside = station.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(outside.join("file"), "precious").unwrap();
        fs::set_permissions(outside.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
        Scene { runner: station.runner(), station, account, home, outside }
    }

    fn owner(&self) -> Owner {
        owner_at(&self.account, &self.home)
    }

    fn own(&self, name: &str) -> PathBuf {
        let path = self.home.join(name);
        chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }

    /// The status of a delivery.
    fn status(&mut self, place: Place) -> String {
        let owner = self.owner();
        self.runner.deliver(&owner, place).status.to_string()
    }

    fn maildir(&mut self) -> String {
        self.status(Place::Maildir("~/Maildir/".into()))
    }

    fn mbox(&mut self) -> String {
        self.status(Place::Mbox("~/mbox".into()))
    }

    /// What lies outside is as it was; the daemon still serves.
    fn all_is_well_outside(mut self) {
        let names: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(self.outside.join("file")).unwrap(), "precious");
        let box_beside = self.station.path("beside");
        fs::create_dir(&box_beside).unwrap();
        chown(&box_beside, Some(self.account.uid), Some(self.account.gid)).unwrap();
        assert_eq!(self.status(maildir(&box_beside)), "2.0.0");
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg("-m").arg("666").arg(path).status().unwrap().success());
}

#[test]
fn a_maildir_that_is_a_link_is_not_gone_through() {
    let mut scene = Scene::set();
    symlink(&scene.outside, scene.home.join("Maildir")).unwrap();
    assert_eq!(scene.maildir(), "4.2.1");
    scene.all_is_well_outside();
}

#[test]
fn folders_of_a_maildir_that_are_links_or_no_folders_are_not_gone_through() {
    for name in ["tmp", "new", "cur"] {
        for make in
            [&(|path: &Path, to: &Path| symlink(to, path).unwrap()) as &dyn Fn(&Path, &Path), &|path, _| {
                fifo(path)
            }]
        {
            let mut scene = Scene::set();
            fs::create_dir(scene.home.join("Maildir")).unwrap();
            scene.own("Maildir");
            make(&scene.home.join("Maildir").join(name), &scene.outside);
            assert_eq!(scene.maildir(), "4.2.1", "{name}");
            scene.all_is_well_outside();
        }
    }
}

#[test]
fn a_folder_that_is_exchanged_in_between_leads_nowhere() {
    let mut scene = Scene::set();
    assert_eq!(scene.maildir(), "2.0.0");
    let maildir = scene.home.join("Maildir");
    for name in ["tmp", "new"] {
        fs::rename(maildir.join(name), maildir.join(format!("{name}.old"))).unwrap();
        symlink(&scene.outside, maildir.join(name)).unwrap();
    }
    // At first the folders that were opened are used, whatever they are called now; then the links
    // are seen.
    let last = patiently("a refusal", || Some(scene.maildir()).filter(|status| status != "2.0.0"));
    assert_eq!(last, "4.2.1");
    scene.all_is_well_outside();
}

#[test]
fn an_mbox_that_is_a_link_of_either_kind_is_not_written() {
    let mut scene = Scene::set();
    symlink(scene.outside.join("file"), scene.home.join("mbox")).unwrap();
    assert_eq!(scene.mbox(), "4.2.1");
    fs::remove_file(scene.home.join("mbox")).unwrap();
    // Its own file, too: a second name may be in a place that only the maker of the link knows.
    for file in [scene.outside.join("file"), scene.home.join("own")] {
        if !file.exists() {
            fs::write(&file, "").unwrap();
            scene.own("own");
        }
        fs::hard_link(&file, scene.home.join("mbox")).unwrap();
        assert_eq!(scene.mbox(), "4.2.1");
        fs::remove_file(scene.home.join("mbox")).unwrap();
    }
    assert_eq!(scene.mbox(), "2.0.0");
    scene.all_is_well_outside();
}

#[test]
fn an_mbox_that_is_no_file_hangs_nobody() {
    let mut scene = Scene::set();
    let path = scene.home.join("mbox");
    fifo(&path);
    assert_eq!(scene.mbox(), "4.2.1");
    // One that somebody reads could take what is written.
    const O_NONBLOCK: i32 = 0o4000;
    let mut reader = fs::File::options().read(true).write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
    assert_eq!(scene.mbox(), "4.2.1");
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    scene.own("mbox");
    assert_eq!(scene.mbox(), "4.2.1");
    scene.all_is_well_outside();
}

#[test]
fn a_lock_that_is_no_file_is_waited_for_and_no_longer() {
    let mut scene = Scene::set_with("timeout = \"3s\"");
    symlink(scene.outside.join("file"), scene.home.join("mbox.lock")).unwrap();
    assert_eq!(scene.mbox(), "4.2.0");
    assert!(!scene.home.join("mbox").exists());
    scene.all_is_well_outside();
}

#[test]
fn what_belongs_to_others_is_not_written() {
    if !is_root() {
        return;
    }
    let mut scene = Scene::set();
    fs::write(scene.home.join("mbox"), "").unwrap();
    fs::set_permissions(scene.home.join("mbox"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(scene.mbox(), "4.2.1");
    assert_eq!(fs::metadata(scene.home.join("mbox")).unwrap().len(), 0);
    fs::create_dir(scene.home.join("Maildir")).unwrap();
    assert_eq!(scene.maildir(), "4.2.1");
    scene.all_is_well_outside();
}

#[test]
fn a_home_that_is_a_link_is_where_the_administrator_put_it() {
    let mut scene = Scene::set();
    let real = scene.station.path("real");
    fs::rename(&scene.home, &real).unwrap();
    symlink(&real, &scene.home).unwrap();
    assert_eq!(scene.maildir(), "2.0.0");
    assert_eq!(mail(&real.join("Maildir")).len(), 1);
    scene.all_is_well_outside();
}

#[test]
fn a_folder_that_everybody_can_write_is_its_owner_s_trouble_alone() {
    let mut scene = Scene::set();
    fs::create_dir(scene.home.join("Maildir")).unwrap();
    let maildir = scene.own("Maildir");
    fs::set_permissions(&maildir, fs::Permissions::from_mode(0o777)).unwrap();
    // Somebody else has made tmp/ in it: what is written there stays below it.
    fs::create_dir(maildir.join("tmp")).unwrap();
    fs::set_permissions(maildir.join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(scene.maildir(), "2.0.0");
    let file = fs::read_dir(maildir.join("new")).unwrap().next().unwrap().unwrap().metadata().unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (scene.account.uid, 0o600));
    scene.all_is_well_outside();
}
