//! Whose mailbox it is: becoming the owner, and what paths mean in his home.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use posta::unix::durable::{Disk, Durable, Folder};
use posta::unix::enclosure::{Enclosure, Files, InForce};
use posta::unix::seccomp::Power;
use posta::unix::{privilege, users};

use posta::courier::request::Owner;

use posta::maildir::deliver::{DeliverError, Maildir};
use posta::maildir::folder;
use posta::maildir::place::{self, Reached};
use posta::maildir::quota::{Limit, Quota};

use crate::refusal::Refusal;

/// An opened Maildir is opened anew after this, so that one that was moved away is noticed.
const FRESH: Duration = Duration::from_secs(1);
/// Most Maildirs kept open.
const KEPT: usize = 64;
/// One in so many openings sweeps `tmp/`.
const SWEEPS: u32 = 64;

/// Who this process has become.
#[derive(Debug)]
pub struct Identity {
    /// The login name, of an account.
    pub user: Option<String>,
    /// The home, of an account; of ids it comes with each request.
    pub home: Option<PathBuf>,
    /// The user id.
    pub uid: u32,
    /// Root's rights were kept: commands and files outside of Maildirs are refused.
    pub is_root: bool,
}

/// Becomes `owner` for good. The first thing is the name service, which may hang: the parent sees to it.
pub fn become_owner(owner: &Owner, keep_rights: bool) -> Result<Identity, Refusal> {
    let cannot = |error: io::Error| {
        Refusal::new((4, 3, 5), format!("cannot take the rights of the mailbox's owner: {error}"))
    };
    let account = match owner {
        Owner::Account(name) => match users::by_name(name) {
            Ok(Some(account)) => Some(account),
            Ok(None) => return Err(Refusal::new((5, 1, 1), format!("account {name} does not exist"))),
            Err(error) => return Err(Refusal::new((4, 3, 0), format!("looking up account {name}: {error}"))),
        },
        Owner::Ids(..) => None,
    };
    if !keep_rights {
        let (uid, gid, groups) = match (&account, owner) {
            (Some(account), _) => (account.uid, account.gid, users::groups(account).map_err(cannot)?),
            (None, Owner::Ids(uid, gid, _)) => (*uid, *gid, vec![*gid]),
            (None, Owner::Account(_)) => return Err(cannot(io::ErrorKind::NotFound.into())),
        };
        if uid == 0 {
            let text = "mail is not delivered with root's rights; give root an alias";
            return Err(Refusal::new((4, 3, 5), text));
        }
        privilege::become_ids(uid, gid, &groups).map_err(cannot)?;
    }
    privilege::no_new_privileges().map_err(cannot)?;
    privilege::set_umask(0o077);
    std::env::set_current_dir("/").map_err(cannot)?;
    let (_, uid) = users::current();
    let (user, home) = account.map(|account| (account.name, account.home)).unzip();
    Ok(Identity { user, home, uid, is_root: uid == 0 })
}

/// Confines this process to its owner's home and to the folders of mailboxes. One that is not there
/// yet may be made by its owner: then it is the folder around it.
pub fn confine(identity: &Identity, folders: &[PathBuf]) -> io::Result<InForce> {
    let there = |folder: &PathBuf| {
        let around = folder.ancestors().find(|around| around.is_dir())?;
        (around != Path::new("/")).then(|| around.to_path_buf())
    };
    let write = folders.iter().filter_map(there).chain(identity.home.clone()).collect();
    Enclosure { files: Some(Files { write, ..Files::default() }), without: Power::ALL }.enter()
}

/// What tells opened Maildirs apart: the path, the folder within, the limit.
type Key = (PathBuf, Option<String>, Limit);

/// The mailboxes that were opened a moment ago.
#[derive(Debug, Default)]
pub struct Mailboxes {
    limit: Limit,
    open: HashMap<Key, (Rc<Maildir>, Instant)>,
}

impl Mailboxes {
    /// None yet; each Maildir may hold so much, unless a request says otherwise.
    pub fn new(limit: Limit) -> Mailboxes {
        Mailboxes { limit, ..Mailboxes::default() }
    }

    /// The Maildir at `path` as it stands in a request, which may have a `limit` of its own; its folder of
    /// that name, if one is named and there.
    pub fn maildir(
        &mut self,
        home: &Path,
        path: &str,
        folder: Option<&str>,
        limit: Option<Limit>,
        now: Instant,
    ) -> Result<Rc<Maildir>, Refusal> {
        let meant = meant(home, path)?;
        let limit = limit.unwrap_or(self.limit);
        let key = (meant.path(), folder.map(str::to_string), limit);
        self.open.retain(|_, (_, since)| now.duration_since(*since) < FRESH);
        if let Some((maildir, _)) = self.open.get(&key) {
            return Ok(Rc::clone(maildir));
        }
        let maildir = Rc::new(open_anew(&meant, folder, limit)?);
        if fastrand::u32(..SWEEPS) == 0
            && let Err(error) = maildir.sweep(&Disk, SystemTime::now())
        {
            log::warn!("{}: sweeping tmp: {error}", key.0.display());
        }
        if self.open.len() < KEPT {
            self.open.insert(key, (Rc::clone(&maildir), now));
        }
        Ok(maildir)
    }

    /// Nothing is being delivered.
    pub fn rest(&self) {
        self.open.values().for_each(|(maildir, _)| maildir.rest());
    }

    /// The folder and name of the mbox file at `path`; a missing folder is made.
    pub fn mbox(home: &Path, path: &str) -> Result<(Folder, String), Refusal> {
        let cut = path.rfind('/').map_or(0, |at| at + 1);
        let (folder, name) = path.split_at(cut);
        if matches!(name, "" | "." | "..") {
            return Err(misplaced(path));
        }
        let Reached { folder, changed } = meant(home, folder)?.reach()?;
        for made_in in changed {
            Disk.sync_folder(&made_in).map_err(|error| Refusal::of(made_in.path().display(), &error))?;
        }
        Ok((folder, name.to_string()))
    }
}

/// Opens a Maildir, or its folder of that name, if one is named and there.
fn open_anew(meant: &Meant, folder: Option<&str>, limit: Limit) -> Result<Maildir, Refusal> {
    let top = meant.reach()?;
    let path = top.folder.path().to_path_buf();
    let failed = |error: io::Error| Refusal::of(path.display(), &error);
    let quota = limit.is_set().then(|| Quota::new(&top.folder, limit));
    let quota = quota.transpose().map_err(failed)?;
    let reached = match folder {
        Some(name) => folder::inside(top, name).map_err(failed)?,
        None => top,
    };
    Ok(Maildir::open(&Disk, reached)?.limited(quota))
}

/// What a path in a request means.
enum Meant {
    /// Below the owner's home.
    Below(PathBuf, PathBuf),
    /// As the administrator wrote it.
    At(PathBuf),
}

impl Meant {
    fn path(&self) -> PathBuf {
        match self {
            Meant::Below(home, rest) => home.join(rest),
            Meant::At(path) => path.clone(),
        }
    }

    fn reach(&self) -> Result<Reached, Refusal> {
        let opened = match self {
            Meant::Below(home, rest) => place::below(&Disk, home, rest),
            Meant::At(path) => place::at(&Disk, path),
        };
        opened.map_err(|source| DeliverError { path: self.path().display().to_string(), source }.into())
    }
}

fn meant(home: &Path, path: &str) -> Result<Meant, Refusal> {
    match path.strip_prefix("~/") {
        Some(_) if !home.is_absolute() => {
            Err(Refusal::new((4, 3, 5), format!("mailbox {path}: its owner has no home folder")))
        }
        Some(rest) => Ok(Meant::Below(home.to_path_buf(), PathBuf::from(rest))),
        None if path.starts_with('/') => Ok(Meant::At(PathBuf::from(path))),
        None => Err(misplaced(path)),
    }
}

fn misplaced(path: &str) -> Refusal {
    Refusal::new((4, 3, 5), format!("mailbox \"{path}\" is neither a path from / nor one from ~/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_a_place_in_the_home_or_the_administrators() {
        let top = tempfile::tempdir().unwrap();
        let mut mailboxes = Mailboxes::default();
        let now = Instant::now();
        mailboxes.maildir(top.path(), "~/Maildir/", None, None, now).unwrap();
        assert!(top.path().join("Maildir/new").is_dir());
        let absolute = top.path().join("a/b/");
        mailboxes.maildir(Path::new(""), absolute.to_str().unwrap(), None, None, now).unwrap();
        assert!(absolute.join("tmp").is_dir());
        for bad in ["Maildir/", "~x/Maildir/", ""] {
            assert_eq!(
                mailboxes.maildir(top.path(), bad, None, None, now).unwrap_err().status.class,
                4,
                "{bad}"
            );
        }
        assert!(mailboxes.maildir(Path::new(""), "~/Maildir/", None, None, now).is_err());
        assert!(Mailboxes::mbox(top.path(), "~/").is_err());
        assert_eq!(Mailboxes::mbox(top.path(), "~/box").unwrap().1, "box");
        let (folder, _) = Mailboxes::mbox(top.path(), "~/new/box").unwrap();
        assert_eq!(folder.path(), top.path().join("new"));
    }

    #[test]
    fn a_maildir_that_was_moved_away_is_noticed() {
        let top = tempfile::tempdir().unwrap();
        let mut mailboxes = Mailboxes::default();
        let now = Instant::now();
        let first = mailboxes.maildir(top.path(), "~/box/", None, None, now).unwrap();
        assert!(Rc::ptr_eq(&first, &mailboxes.maildir(top.path(), "~/box/", None, None, now).unwrap()));
        std::fs::rename(top.path().join("box"), top.path().join("old")).unwrap();
        mailboxes.maildir(top.path(), "~/box/", None, None, now + FRESH).unwrap();
        assert!(top.path().join("box/new").is_dir());
    }
}
