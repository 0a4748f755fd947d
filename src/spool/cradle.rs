//! Where new files are born: `cradle/`, whose folders are always empty and lie far apart.
//!
//! A queue file is made without a name, is linked into `new/`, and goes within a second. ext4 without
//! a journal doesn't use the inode of a deleted file again for a minute and more, but steps over it,
//! one by one, whenever it makes a file near by: with a thousand messages a second each new file
//! soon costs more than all else that is done for its message. A file lies near the folder that it
//! was made in, whatever it is linked to later. So drafts are made in one folder for a second, then in
//! the next; when it is the first one's turn again, its minute has passed. Within a second all stays
//! close together, which a journal likes.
//!
//! Nothing depends on it: where `cradle/` is missing, drafts are made in `new/`.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::unix::durable::Folder;

/// The folder of the folders.
pub(super) const CRADLE: &str = "cradle";
/// More than the seconds for which ext4 steps over what was deleted.
const FOLDERS: u64 = 64;
/// Whoever may make a file in `new/` may make one here.
const MODE: u32 = 0o1770;

/// The folders, by the one that they are in.
#[derive(Debug, Default)]
pub(super) struct Cradle {
    folder: Option<Folder>,
}

impl Cradle {
    /// Opens it if it is there. It must be on the file system of `entrance`.
    pub fn open(spool: &Path, entrance: &Folder) -> Cradle {
        let is_near = |folder: &Folder| match (folder.device(), entrance.device()) {
            (Ok(here), Ok(there)) => here == there,
            _ => false,
        };
        Cradle { folder: Folder::open(&spool.join(CRADLE)).ok().filter(is_near) }
    }

    /// The folder whose turn it is, as a name in another one; `now` in microseconds since 1970.
    pub fn turn(&self, now: u64) -> Option<(&Folder, String)> {
        Some((self.folder.as_ref()?, name(now / 1_000_000 % FOLDERS)))
    }

    /// Makes the folders, or sets the rights of those that are there; `owner` is a user and a group.
    pub fn make(spool: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
        let spool = Folder::open(spool)?;
        made(&spool, CRADLE)?;
        // Step by step, never by path: what posta-queue may rename must not lead root elsewhere.
        let cradle = spool.inner(CRADLE)?;
        if let Err(error) = cradle.spread() {
            log::debug!("{}: the file system can't be asked to spread it: {error}", cradle.path().display());
        }
        for n in 0..FOLDERS {
            made(&cradle, &name(n))?;
            set_rights(cradle.inner(&name(n))?, owner)?;
        }
        set_rights(cradle, owner)
    }
}

fn name(n: u64) -> String {
    format!("{n:02x}")
}

fn made(folder: &Folder, name: &str) -> io::Result<()> {
    match folder.make_inner(name, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

fn set_rights(folder: Folder, owner: Option<(u32, u32)>) -> io::Result<()> {
    let folder = File::from(folder.into_fd());
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&folder, Some(user), Some(group))?;
    }
    folder.set_permissions(PermissionsExt::from_mode(MODE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn each_second_has_a_folder_for_more_than_a_minute() {
        let top = tempfile::tempdir().unwrap();
        Cradle::make(top.path(), None).unwrap();
        Cradle::make(top.path(), None).unwrap();
        let cradle = Cradle::open(top.path(), &Folder::open(top.path()).unwrap());
        let at = |second: u64| cradle.turn(second * 1_000_000 + 7).unwrap().1;
        let start = 1_795_550_000;
        let turns: std::collections::HashSet<_> = (start..start + 61).map(at).collect();
        assert_eq!(turns.len(), 61);
        assert_eq!(at(start), at(start + FOLDERS));
        let folder = top.path().join(CRADLE).join(at(start));
        assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o7777, MODE);
    }

    #[test]
    fn without_it_there_is_no_turn() {
        let top = tempfile::tempdir().unwrap();
        assert!(Cradle::open(top.path(), &Folder::open(top.path()).unwrap()).turn(0).is_none());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let (top, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(stranger.path(), top.path().join(CRADLE)).unwrap();
        assert!(Cradle::make(top.path(), None).is_err());
        assert_eq!(std::fs::read_dir(stranger.path()).unwrap().count(), 0);
    }
}
