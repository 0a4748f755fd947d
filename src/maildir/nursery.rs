//! Where the copies of a busy Maildir are born: a folder of its own in `tmp/`, far from all others.
//!
//! ext4 without a journal doesn't use the inode of a deleted file again for a minute and more, but
//! steps over it, one by one, whenever it makes a file near by. Where a mailbox gets much and its
//! reader deletes much, that soon costs more than all else that is done for a message. A file lies
//! near the folder that it was made in, whatever it is renamed to later. So once an opened Maildir has
//! had more than a few copies, it makes a folder in `tmp/` that the file system puts somewhere else
//! ([`Folder::spread_while`]), and the next ones are made there. The folder goes when there is
//! nothing to do for a moment, and the next one lies elsewhere again. A copy stays there only until it is
//! renamed to `tmp/`, before its first octet is written. What a killed process leaves is swept
//! ([`super::deliver::Maildir::sweep`]). Readers of a Maildir don't look for folders in `tmp/`.
//!
//! Nothing depends on it: where the file system knows no such wish, or makes no folder, copies are
//! made in `tmp/`. Nor does a promise: what makes a name in `new/` durable covers the file that it
//! names, wherever the file was made.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use crate::unix::durable::{Durable, Folder};

use super::place::PRIVATE;

/// So many copies go into an opened Maildir's `tmp/` first: most get fewer.
const FEW: u32 = 16;
/// So many of what comes at once do so too: for one or two no folder is made.
const AT_FIRST: u32 = 2;
/// What the folders' names begin with.
const NAME: &str = "nursery-";

/// Whether a name in `tmp/` is that of such a folder.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with(NAME)
}

/// The birthplaces of one opened Maildir.
#[derive(Debug)]
pub(super) struct Nursery {
    tmp: Rc<Folder>,
    /// Copies since it was opened, and since the last rest.
    copies: Cell<(u32, u32)>,
    refused: Cell<bool>,
    made: RefCell<Option<Made>>,
}

impl Nursery {
    /// For a Maildir with this `tmp/`.
    pub fn new(tmp: Folder) -> Nursery {
        Nursery {
            tmp: Rc::new(tmp),
            copies: Cell::default(),
            refused: Cell::default(),
            made: RefCell::default(),
        }
    }

    /// `tmp/`.
    pub fn tmp(&self) -> &Rc<Folder> {
        &self.tmp
    }

    /// Where the next copy is to be made.
    pub fn next(&self, disk: &dyn Durable) -> Rc<Folder> {
        let (all, lately) = self.copies.get();
        self.copies.set((all.saturating_add(1), lately.saturating_add(1)));
        let mut made = self.made.borrow_mut();
        if made.is_none() && all >= FEW && lately >= AT_FIRST && !self.refused.get() {
            match Made::new(disk, &self.tmp) {
                Ok(new) => *made = Some(new),
                Err(error) => {
                    log::debug!("{}: no folder far away: {error}", self.tmp.path().display());
                    self.refused.set(true);
                }
            }
        }
        Rc::clone(made.as_ref().map_or(&self.tmp, |made| &made.folder))
    }

    /// Nothing is left to do: the folder goes.
    pub fn rest(&self) {
        self.made.take();
        self.copies.set((self.copies.get().0, 0));
    }

    /// Does without from now on: somebody has removed the folder. Whether there was one.
    pub fn leave(&self) -> bool {
        self.refused.set(true);
        self.made.take().is_some()
    }
}

/// One that is there; it goes when this is dropped. Files in it have an `Rc` of the Maildir.
#[derive(Debug)]
struct Made {
    tmp: Rc<Folder>,
    folder: Rc<Folder>,
    name: String,
}

impl Made {
    fn new(disk: &dyn Durable, tmp: &Rc<Folder>) -> io::Result<Made> {
        // Other processes, other hosts and an earlier process of that number have names of their own.
        let name = format!("{NAME}{}-{:016x}", std::process::id(), fastrand::u64(..));
        tmp.spread_while(|| disk.make_folder(tmp, &name, PRIVATE))?;
        let folder = Rc::new(tmp.inner(&name)?);
        Ok(Made { tmp: Rc::clone(tmp), folder, name })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // One that stays is swept later.
        let _ = self.tmp.remove_inner(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use crate::unix::durable::Disk;

    use super::*;

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        Folder::open(folder.path()).unwrap().names(100).unwrap()
    }

    /// One that has had its few copies, or `None` where the file system knows no such wish.
    fn busy(folder: &tempfile::TempDir) -> Option<Nursery> {
        let nursery = Nursery::new(Folder::open(folder.path()).unwrap());
        nursery.tmp().spread_while(|| Ok(())).ok()?;
        for _ in 0..FEW {
            assert_eq!(nursery.next(&Disk).path(), folder.path());
        }
        assert_eq!(names(folder), [""; 0]);
        Some(nursery)
    }

    #[test]
    fn much_is_born_in_a_folder_that_goes_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let Some(nursery) = busy(&folder) else { return };
        let first = nursery.next(&Disk);
        assert!(is_one(first.path().file_name().unwrap().to_str().unwrap()));
        assert_eq!(nursery.next(&Disk).path(), first.path());
        assert_eq!(names(&folder).len(), 1);
        nursery.rest();
        assert_eq!(names(&folder), [""; 0]);
        for _ in 0..AT_FIRST {
            assert_eq!(nursery.next(&Disk).path(), folder.path());
        }
        assert_ne!(nursery.next(&Disk).path(), first.path());
        drop(nursery);
        assert_eq!(names(&folder), [""; 0]);
    }

    #[test]
    fn one_that_can_t_be_made_is_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let Some(nursery) = busy(&folder) else { return };
        std::fs::remove_dir(folder.path()).unwrap();
        for _ in 0..3 {
            assert_eq!(nursery.next(&Disk).path(), folder.path());
        }
        assert!(!nursery.leave());
    }
}
