//! Delivery into a Maildir, in steps: write, sync, name, sync.
//!
//! The syncs between the steps are the caller's, so that many deliveries can share one;
//! [`deliver`] does all steps for one message.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::unix::durable::{Durable, Folder};

use super::copy::{Copy, Message};
use super::name::Name;
use super::nursery::{self, Nursery};
use super::place::{Reached, inner_or_made};
use super::quota::Quota;

/// A file in `tmp/` that is older than this belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(36 * 3600);
/// Most files of `tmp/` looked at in one sweep.
const SWEPT: usize = 1000;

/// Why a delivery failed: a call of the operating system, and where.
#[derive(Debug, Error)]
#[error("{path}: {source}")]
pub struct DeliverError {
    /// The file or folder.
    pub path: String,
    /// The reason.
    pub source: io::Error,
}

/// An opened Maildir.
#[derive(Debug)]
pub struct Maildir {
    nursery: Nursery,
    new: Folder,
    device: u64,
    /// Folders around it that were made for it, and not synced by themselves.
    changed: RefCell<Vec<Folder>>,
    quota: Option<Quota>,
}

impl Maildir {
    /// Opens the Maildir in a folder; its three folders are made where they are missing.
    pub fn open(disk: &dyn Durable, reached: Reached) -> Result<Maildir, DeliverError> {
        let Reached { folder, mut changed } = reached;
        let inner = |name: &str| inner_or_made(disk, &folder, name).map_err(failed(&folder, name));
        let (tmp, tmp_is_new) = inner("tmp")?;
        let (new, new_is_new) = inner("new")?;
        // Readers want it; a delivery does not.
        let (_, cur_is_new) = inner("cur")?;
        let device = new.device().map_err(failed(&folder, "new"))?;
        if tmp_is_new || new_is_new || cur_is_new {
            changed.push(folder);
        }
        Ok(Maildir { nursery: Nursery::new(tmp), new, device, changed: RefCell::new(changed), quota: None })
    }

    /// The same with a limit to what may be put into it.
    pub fn limited(self, quota: Option<Quota>) -> Maildir {
        Maildir { quota, ..self }
    }

    /// `new/`: any of its descriptors stands for the file system.
    pub fn new_folder(&self) -> &Folder {
        &self.new
    }

    /// The device it lies on.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Nothing is being delivered into it: `tmp/` is left as it was found.
    pub fn rest(&self) {
        self.nursery.rest();
    }

    /// Removes files from `tmp/` that have lain there for 36 hours, and folders that were made to
    /// make files in and that nobody has used for so long.
    pub fn sweep(&self, disk: &dyn Durable, now: SystemTime) -> io::Result<()> {
        let tmp = self.nursery.tmp();
        for name in abandoned(tmp, now)? {
            match tmp.inner(&name) {
                Ok(folder) if nursery::is_one(&name) => {
                    for name in abandoned(&folder, now)? {
                        disk.unlink(&folder, &name)?;
                    }
                    tmp.remove_inner(&name)?;
                }
                // Somebody else's.
                Ok(_) => {}
                Err(_) => disk.unlink(tmp, &name)?,
            }
        }
        Ok(())
    }
}

/// What has lain in a folder for 36 hours; a link counts by its own age.
fn abandoned(folder: &Folder, now: SystemTime) -> io::Result<Vec<String>> {
    let since = now.checked_sub(ABANDONED).and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let since = since.unwrap_or_default().as_secs();
    let mut old = Vec::new();
    for name in folder.names(SWEPT)? {
        if folder.modified(&name)?.is_some_and(|(modified, _)| modified < since) {
            old.push(name);
        }
    }
    Ok(old)
}

/// A copy in `tmp/` (state M1). Dropped, it stays there until it is swept.
#[derive(Debug)]
pub struct Written {
    maildir: Rc<Maildir>,
    file: File,
    tmp_name: String,
    new_name: String,
    size: u64,
}

/// Writes a copy into `tmp/`. `piece` is a buffer to be used again. A file of that name, left by an
/// attempt that was cut off, is replaced.
pub fn write<M: Deref<Target = Message>>(
    disk: &dyn Durable,
    maildir: &Rc<Maildir>,
    name: &Name,
    copy: &mut Copy<M>,
    piece: &mut Vec<u8>,
) -> Result<Written, DeliverError> {
    let tmp = maildir.nursery.tmp();
    let file = born(disk, maildir, name.in_tmp())?;
    let filled = fill(disk, &file, copy, piece).map_err(failed(tmp, name.in_tmp()));
    match filled.and_then(|size| charge(disk, maildir, name, size)) {
        Ok(size) => Ok(Written {
            maildir: Rc::clone(maildir),
            file,
            tmp_name: name.in_tmp().to_string(),
            new_name: name.in_new(size),
            size,
        }),
        Err(error) => {
            // The error that matters is that one; a file that stays is swept later.
            let _ = disk.unlink(tmp, name.in_tmp());
            Err(error)
        }
    }
}

/// Enters the copy of that name in the Maildir's books, if there is a limit. Gives `size` again.
fn charge(disk: &dyn Durable, maildir: &Maildir, name: &Name, size: u64) -> Result<u64, DeliverError> {
    if let Some(quota) = &maildir.quota {
        quota.charge(disk, name.in_tmp(), size, SystemTime::now()).map_err(failed(quota.top(), ""))?;
    }
    Ok(size)
}

/// A new file in `tmp/`. One that was made in the nursery is moved at once, still empty: what a
/// power cut leaves half-written lies in `tmp/` itself, where everybody knows it for what it is.
fn born(disk: &dyn Durable, maildir: &Maildir, name: &str) -> Result<File, DeliverError> {
    let place = maildir.nursery.next(disk);
    match create(disk, &place, name) {
        Ok(file) => {
            let tmp = maildir.nursery.tmp();
            if !Rc::ptr_eq(&place, tmp) {
                disk.rename(&place, name, tmp, name).map_err(failed(&place, name))?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && maildir.nursery.leave() => {
            born(disk, maildir, name)
        }
        Err(error) => Err(failed(&place, name)(error)),
    }
}

fn create(disk: &dyn Durable, tmp: &Folder, name: &str) -> io::Result<File> {
    match disk.create(tmp, name, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.unlink(tmp, name)?;
            disk.create(tmp, name, 0o600)
        }
        done => done,
    }
}

fn fill<M: Deref<Target = Message>>(
    disk: &dyn Durable,
    file: &File,
    copy: &mut Copy<M>,
    piece: &mut Vec<u8>,
) -> io::Result<u64> {
    let mut size = 0;
    while copy.next_piece(piece)? {
        disk.write(file, piece)?;
        size += piece.len() as u64;
    }
    Ok(size)
}

impl Written {
    /// The Maildir that it lies in.
    pub fn maildir(&self) -> &Rc<Maildir> {
        &self.maildir
    }

    /// Makes its bytes durable (state M2), where no shared sync did.
    pub fn sync(&self, disk: &dyn Durable) -> Result<(), DeliverError> {
        disk.sync_file(&self.file).map_err(failed(self.maildir.nursery.tmp(), &self.tmp_name))
    }

    /// Gives it its name in `new/` (state M3); only when its bytes are durable. A copy that an
    /// earlier attempt put there is replaced.
    pub fn name_it(self, disk: &dyn Durable) -> Result<Named, DeliverError> {
        let new = &self.maildir.new;
        match disk.rename(self.maildir.nursery.tmp(), &self.tmp_name, new, &self.new_name) {
            Ok(()) => Ok(Named { maildir: self.maildir, file: self.file }),
            Err(error) => {
                let failure = failed(new, &self.new_name)(error);
                self.give_up(disk);
                Err(failure)
            }
        }
    }

    /// Removes it.
    pub fn give_up(self, disk: &dyn Durable) {
        // A file that stays is swept later; books that are wrong are made anew.
        let _ = disk.unlink(self.maildir.nursery.tmp(), &self.tmp_name);
        let _ = self.maildir.quota.as_ref().map(|quota| quota.give_back(disk, self.size));
    }
}

/// A copy in `new/` (state M3). It is delivered when a sync has covered it. If that sync fails, it
/// stays: it may have replaced one that counts as delivered, and the next attempt replaces it.
#[derive(Debug)]
pub struct Named {
    maildir: Rc<Maildir>,
    file: File,
}

impl Named {
    /// The Maildir that it lies in.
    pub fn maildir(&self) -> &Rc<Maildir> {
        &self.maildir
    }

    /// After the sync: whether that is to be believed ([`Durable::still_works`]).
    pub fn confirm(&self, disk: &dyn Durable) -> Result<(), DeliverError> {
        disk.still_works(&self.file).map_err(failed(&self.maildir.new, ""))
    }

    /// Makes its name durable (state M4), where no shared sync did; and those of the folders that
    /// were made for it.
    pub fn sync(&self, disk: &dyn Durable) -> Result<(), DeliverError> {
        let Maildir { new, changed, .. } = &*self.maildir;
        disk.sync_folder(new).map_err(failed(new, ""))?;
        let mut changed = changed.borrow_mut();
        while let Some(folder) = changed.last() {
            disk.sync_folder(folder).map_err(failed(folder, ""))?;
            changed.pop();
        }
        Ok(())
    }
}

/// All steps for one message: when it returns `Ok`, the copy survives a power cut.
pub fn deliver<M: Deref<Target = Message>>(
    disk: &dyn Durable,
    maildir: &Rc<Maildir>,
    name: &Name,
    copy: &mut Copy<M>,
) -> Result<(), DeliverError> {
    let written = write(disk, maildir, name, copy, &mut Vec::new())?;
    if let Err(error) = written.sync(disk) {
        written.give_up(disk);
        return Err(error);
    }
    let named = written.name_it(disk)?;
    named.sync(disk)?;
    named.confirm(disk)
}

/// The path is put together only where something fails.
fn failed(folder: &Folder, name: &str) -> impl FnOnce(io::Error) -> DeliverError {
    move |source| DeliverError { path: folder.path().join(name).display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::mail::id::Id;

    use crate::maildir::place;
    use crate::unix::durable::Disk;
    use crate::unix::durable::staged::{Fault, Lost, Staged};

    use super::*;

    fn message(text: &str) -> Message {
        let file = tempfile::tempfile().unwrap();
        Disk.write(&file, text.as_bytes()).unwrap();
        Message::open(file, text.len() as u64).unwrap()
    }

    fn name(n: u32) -> Name {
        Name::new(1_795_550_000_000_000, Id::parse("0123456789ABCDE").unwrap(), n, "host")
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_repeated_delivery_replaces_itself() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("box");
        let maildir = Rc::new(Maildir::open(&Disk, place::at(&Disk, &path).unwrap()).unwrap());
        let message = message("A: b\r\n\r\nc\r\n");
        let written =
            write(&Disk, &maildir, &name(0), &mut Copy::new(&message, Vec::new()), &mut Vec::new()).unwrap();
        assert_eq!(files(&path.join("new")), [""; 0]);
        drop(written); // cut off: the file stays in tmp/
        for _ in 0..2 {
            deliver(&Disk, &maildir, &name(0), &mut Copy::new(&message, Vec::new())).unwrap();
        }
        deliver(&Disk, &maildir, &name(1), &mut Copy::new(&message, Vec::new())).unwrap();
        assert_eq!(files(&path.join("tmp")), [""; 0]);
        assert_eq!(files(&path.join("new")), [name(0).in_new(8), name(1).in_new(8)]);
        let content = fs::read(path.join("new").join(name(0).in_new(8))).unwrap();
        assert_eq!(content, b"A: b\n\nc\n");
    }

    #[test]
    fn a_sync_that_lies_is_not_believed() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("attic")).unwrap();
        let disk = Staged::new(&top.path().join("attic"));
        let maildir = Rc::new(Maildir::open(&disk, Folder::open(top.path()).unwrap().into()).unwrap());
        // create, write and sync of the file, rename; then the sync of the folder.
        disk.plan(4, Fault::Lie);
        let copied = message("x");
        assert!(deliver(&disk, &maildir, &name(0), &mut Copy::new(&copied, Vec::new())).is_err());
        assert!(files(&top.path().join("new")).len() == 1 && disk.has_stopped());
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        let maildir = Rc::new(Maildir::open(&Disk, Folder::open(top.path()).unwrap().into()).unwrap());
        let message = message("x");
        let written = || {
            write(&Disk, &maildir, &name(0), &mut Copy::new(&message, Vec::new()), &mut Vec::new()).unwrap()
        };
        written().give_up(&Disk);
        let taken = written();
        fs::remove_dir(top.path().join("new")).unwrap();
        let error = taken.name_it(&Disk).unwrap_err();
        assert!(error.to_string().contains("new/1795550000.0123456789ABCDE_0.host,S=1"), "{error}");
        assert_eq!(files(&top.path().join("tmp")), [""; 0]);
    }

    /// One delivery after another of the same message into a Maildir that is made for it, until the
    /// fault; then the power goes, and `kept` of what no sync covers is there all the same. Whether
    /// the fault was met.
    fn life(calls: u64, fault: Fault, kept: usize) -> bool {
        let top = tempfile::tempdir().unwrap();
        let (attic, path) = (top.path().join("attic"), top.path().join("a/box"));
        fs::create_dir(&attic).unwrap();
        let disk = Staged::new(&attic);
        disk.plan(calls, fault);
        let message = message("A: b\r\n\r\nc\r\n");
        let attempt = || -> Result<(), DeliverError> {
            let reached = place::at(&disk, &path)
                .map_err(|source| DeliverError { path: path.display().to_string(), source })?;
            let maildir = Rc::new(Maildir::open(&disk, reached)?);
            deliver(&disk, &maildir, &name(0), &mut Copy::new(&message, Vec::new()))
        };
        let done = [attempt(), attempt()].iter().any(Result::is_ok);
        let met = disk.calls() > calls;
        disk.power_cut(kept, Lost::All).unwrap();
        let new = path.join("new");
        let found = if new.is_dir() { files(&new) } else { Vec::new() };
        assert!(found.iter().all(|file| fs::read(new.join(file)).unwrap() == b"A: b\n\nc\n"));
        assert!(
            found.len() <= 1 && (!done || found.len() == 1),
            "call {calls}, {fault:?}, {kept} kept: {found:?}"
        );
        met
    }

    #[test]
    fn at_no_call_is_anything_lost_or_seen_by_half() {
        for fault in [Fault::Stop, Fault::Fail(5), Fault::Short(28)] {
            for kept in [0, 1, 2, 100] {
                let calls = (0..1000).take_while(|calls| life(*calls, fault, kept)).count();
                assert!((15..1000).contains(&calls), "{calls}");
            }
        }
    }

    /// As many messages as make a Maildir busy, up to the fault; then the power goes.
    fn busy_life(calls: u64, fault: Fault, kept: usize) -> bool {
        let top = tempfile::tempdir().unwrap();
        let attic = top.path().join("attic");
        fs::create_dir(&attic).unwrap();
        let disk = Staged::new(&attic);
        let message = message("A: b\r\n\r\nc\r\n");
        let maildir = Rc::new(Maildir::open(&disk, Folder::open(top.path()).unwrap().into()).unwrap());
        let deliver_one =
            |n| deliver(&disk, &maildir, &name(n), &mut Copy::new(&message, Vec::new())).is_ok();
        (0..16).for_each(|n| assert!(deliver_one(n)));
        disk.plan(calls, fault);
        let before = disk.calls();
        let done: Vec<u32> = (0..20).filter(|n| *n < 16 || deliver_one(*n)).collect();
        let met = disk.calls() > before + calls;
        disk.power_cut(kept, Lost::All).unwrap();
        let found = files(&top.path().join("new"));
        assert!(
            found.iter().all(|file| fs::read(top.path().join("new").join(file)).unwrap() == b"A: b\n\nc\n")
        );
        assert!(
            done.iter().all(|n| found.contains(&name(*n).in_new(8))),
            "call {calls}, {fault:?}, {kept} kept: {done:?}, {found:?}"
        );
        met
    }

    #[test]
    fn at_no_call_does_a_busy_maildir_lose_what_is_done() {
        for fault in [Fault::Stop, Fault::Fail(5), Fault::Short(28)] {
            for kept in [0, 1, 100] {
                let calls = (0..1000).take_while(|calls| busy_life(*calls, fault, kept)).count();
                assert!((20..1000).contains(&calls), "{calls}");
            }
        }
    }

    #[test]
    fn a_birthplace_that_somebody_removes_is_not_missed() {
        let top = tempfile::tempdir().unwrap();
        let maildir = Rc::new(Maildir::open(&Disk, Folder::open(top.path()).unwrap().into()).unwrap());
        let message = message("x");
        for n in 0..20 {
            if n == 18 {
                for name in files(&top.path().join("tmp")) {
                    fs::remove_dir(top.path().join("tmp").join(name)).unwrap();
                }
            }
            deliver(&Disk, &maildir, &name(n), &mut Copy::new(&message, Vec::new())).unwrap();
        }
        assert_eq!((files(&top.path().join("new")).len(), files(&top.path().join("tmp")).len()), (20, 0));
    }

    #[test]
    fn a_sweep_takes_only_the_old() {
        let (top, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let maildir = Maildir::open(&Disk, Folder::open(top.path()).unwrap().into()).unwrap();
        let tmp = top.path().join("tmp");
        for folder in ["nursery-1-0", "nursery-2-0", "other"] {
            fs::create_dir(tmp.join(folder)).unwrap();
        }
        for file in ["x", "nursery-1-0/y", "other/z"] {
            fs::write(tmp.join(file), "").unwrap();
        }
        fs::write(stranger.path().join("file"), "").unwrap();
        symlink(stranger.path(), tmp.join("nursery-3-0")).unwrap();
        maildir.sweep(&Disk, SystemTime::now()).unwrap();
        assert_eq!(files(&tmp), ["nursery-1-0", "nursery-2-0", "nursery-3-0", "other", "x"]);
        maildir.sweep(&Disk, SystemTime::now() + ABANDONED + Duration::from_secs(60)).unwrap();
        assert_eq!(files(&tmp), ["other"]);
        assert_eq!(files(&tmp.join("other")), ["z"]);
        assert_eq!(files(stranger.path()), ["file"]);
    }

    #[test]
    fn in_a_swept_folder_only_the_old_goes() {
        let top = tempfile::tempdir().unwrap();
        let maildir = Maildir::open(&Disk, Folder::open(top.path()).unwrap().into()).unwrap();
        let nursery = top.path().join("tmp/nursery-1-0");
        fs::create_dir(&nursery).unwrap();
        for file in ["old", "young"] {
            fs::write(nursery.join(file), "").unwrap();
        }
        let long_ago = SystemTime::now() - ABANDONED - Duration::from_secs(60);
        fs::File::open(nursery.join("old")).unwrap().set_modified(long_ago).unwrap();
        // Somebody has set its time: a folder with something in it stays.
        fs::File::open(&nursery).unwrap().set_modified(long_ago).unwrap();
        assert!(maildir.sweep(&Disk, SystemTime::now()).is_err());
        assert_eq!(files(&nursery), ["young"]);
    }
}
