//! What is in the spool, without opening a message. A million of them must scan well: names are
//! listed, and only journals are looked at.

use std::collections::HashSet;
use std::fs::ReadDir;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use crate::mail::id::Id;
use crate::unix::durable::Folder;

use super::layout::{TEMPORARY, split};
use super::write::now;
use super::{Place, Spool, SpoolError};

/// After so many seconds nobody is still writing to a file.
pub(super) const STALE: u64 = 86_400;

/// What a scan of `cur/`, `hold/` and `journal/` says of a message without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Which.
    pub id: Id,
    /// Where it lies: `cur/` or `hold/`.
    pub place: Place,
    /// When it is due. Seconds since 1970: the journal's mtime. 0 if there is no journal.
    pub next: u64,
    /// The journal's mtime's nanoseconds: a hash of the destination that it waits for (less than
    /// 10^9). After a crash it may be any number: it groups messages, and decides nothing.
    pub destination: u32,
}

/// The hash of a destination's name that is kept with a deferred message: less than 10^9, since it
/// is kept where a journal's mtime has its nanoseconds.
pub fn hash_of(destination: &str) -> u32 {
    // FNV-1a: the same on every machine and in every version, unlike the standard library's.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    (destination.bytes().fold(0xcbf2_9ce4_8422_2325, step) % 1_000_000_000) as u32
}

/// For posta-queue only.
impl Spool {
    /// Every id in `new/`; where what is put aside stays there, only those that are not. Leftovers of
    /// `.tmp.ID` older than a day are swept.
    pub fn scan_new(&self, each: &mut dyn FnMut(Id)) -> Result<(), SpoolError> {
        self.scan_entrance(&self.entrance, &mut |id| {
            if !self.stays_in_new || !self.has_journal(id).unwrap_or(false) {
                each(id);
            }
        })
    }

    /// The same at the start, when nobody works on a message yet. One whose journal is there was being
    /// set aside when the last runner stopped (S3): its move is done now, and it is left to
    /// [`scan_aside`](Spool::scan_aside). For if it were opened where it lies, its journal would not
    /// be heeded, and the message would be moved under the hands of who works on it.
    pub fn scan_new_at_start(&self, each: &mut dyn FnMut(Id)) -> Result<(), SpoolError> {
        let mut begun = Vec::new();
        let journal = &self.rooms()?.journal;
        self.scan_new(&mut |id| match journal.holds(&split(id)) {
            Ok(false) => each(id),
            // What can't be looked up may be there.
            Ok(true) | Err(_) => begun.push(id),
        })?;
        for id in begun {
            if let Err(error) = self.settle_orphan(id) {
                log::error!("{id}: was being set aside, and can't be moved to cur/: {error}");
            }
        }
        Ok(())
    }

    /// Every id in `drop/`, and the same sweep.
    pub fn scan_drop(&self, each: &mut dyn FnMut(Id)) -> Result<(), SpoolError> {
        self.scan_entrance(&self.rooms()?.drop, each)
    }

    fn scan_entrance(&self, folder: &Folder, each: &mut dyn FnMut(Id)) -> Result<(), SpoolError> {
        for name in names(folder.path())? {
            let name = name?;
            match Id::parse(&name) {
                Some(id) => each(id),
                None if name.starts_with(TEMPORARY) => self.sweep_temporary(folder, &name)?,
                None => log::debug!("{}/{name}: not ours, left alone", folder.path().display()),
            }
        }
        Ok(())
    }

    fn sweep_temporary(&self, folder: &Folder, name: &str) -> Result<(), SpoolError> {
        let modified = folder.modified(name).map_err(|e| SpoolError::io(folder.path().join(name), e))?;
        if !modified.is_some_and(|(seconds, _)| is_stale(seconds)) {
            return Ok(());
        }
        log::info!("{}/{name}: never finished, older than a day: swept", folder.path().display());
        self.remove(folder, name)
    }

    /// Every message in `cur/` and `hold/`; journals without a queue file are swept (S5), a message
    /// that is both in `new/` and has a journal is renamed (S3). To be run after
    /// [`scan_new_at_start`](Spool::scan_new_at_start); at other times a message that is on its way
    /// from one place to the other may be missed.
    pub fn scan_aside(&self, each: &mut dyn FnMut(Aside)) -> Result<(), SpoolError> {
        let rooms = self.rooms()?;
        let held = ids(rooms.hold.path())?;
        for part in parts(&[rooms.cur.path(), rooms.journal.path()])? {
            let mut current = ids(&rooms.cur.path().join(&part))?;
            if self.stays_in_new {
                current = self.bring_back(current)?;
            }
            for id in ids(&rooms.journal.path().join(&part))? {
                let place = match (current.remove(&id), held.contains(&id)) {
                    (true, _) => Place::Cur,
                    (false, true) => Place::Hold,
                    (false, false) => match self.settle_orphan(id) {
                        Ok(Some(place)) => place,
                        Ok(None) => continue,
                        // It stops no other.
                        Err(error) => {
                            log::error!(
                                "{id}: its journal's message can't be moved, or it can't be swept: {error}"
                            );
                            continue;
                        }
                    },
                };
                each(self.aside(id, place)?);
            }
            for id in current {
                each(Aside { id, place: Place::Cur, next: 0, destination: 0 });
            }
        }
        for id in held {
            if !self.rooms()?.journal.holds(&split(id)).map_err(|e| SpoolError::io(rooms.hold.path(), e))? {
                each(Aside { id, place: Place::Hold, next: 0, destination: 0 });
            }
        }
        Ok(())
    }

    /// What was put into `cur/` while its file system had a journal goes back to `new/`. Gives what stays
    /// there: nothing.
    fn bring_back(&self, found: HashSet<Id>) -> Result<HashSet<Id>, SpoolError> {
        let rooms = self.rooms()?;
        for id in &found {
            let moved = self.disk.rename(&rooms.cur, &split(*id), &self.entrance, id.as_str());
            moved.map_err(|e| SpoolError::io(rooms.cur.path().join(split(*id)), e))?;
        }
        if !found.is_empty() {
            self.sync_journals()?;
        }
        Ok(HashSet::new())
    }

    fn aside(&self, id: Id, place: Place) -> Result<Aside, SpoolError> {
        let journal = &self.rooms()?.journal;
        let modified = journal.modified(&split(id)).map_err(|e| SpoolError::io(journal.path(), e))?;
        let (next, destination) = modified.unwrap_or_default();
        Ok(Aside { id, place, next, destination })
    }

    /// A journal whose message was not there when its folder was listed: moves the message if it is
    /// in `new/` (S3), sweeps the journal if it is nowhere (S5). Nothing moves meanwhile.
    fn settle_orphan(&self, id: Id) -> Result<Option<Place>, SpoolError> {
        let rooms = self.rooms()?;
        let _still = rooms.moving.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_in(id, Place::New)? {
            log::info!("{id}: was being set aside: done");
            self.move_aside(id)?;
            return Ok(Some(Place::Cur));
        }
        for place in [Place::Cur, Place::Hold] {
            if self.is_in(id, place)? {
                return Ok(Some(place));
            }
        }
        log::debug!("{id}: finished, its journal is swept");
        self.remove(&rooms.journal, &split(id))?;
        Ok(None)
    }

    /// Unlinks; what is gone already is no error.
    pub(super) fn remove(&self, folder: &Folder, name: &str) -> Result<(), SpoolError> {
        match self.disk.unlink(folder, name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError::io(folder.path().join(name), error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a time in seconds since 1970 is more than a day ago.
pub(super) fn is_stale(seconds: u64) -> bool {
    seconds + STALE < now() / 1_000_000
}

/// The names in a folder. One that is no UTF-8 is not ours.
fn names(path: &Path) -> Result<impl Iterator<Item = Result<String, SpoolError>> + use<>, SpoolError> {
    let path = path.to_path_buf();
    let listed: ReadDir = std::fs::read_dir(&path).map_err(|e| SpoolError::io(&path, e))?;
    Ok(listed.filter_map(move |entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(SpoolError::io(&path, error))),
    }))
}

/// The ids in a folder; none if it is not there.
fn ids(path: &Path) -> Result<HashSet<Id>, SpoolError> {
    match names(path) {
        Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        // Torn by a power cut: it stops nothing that lies elsewhere.
        Err(SpoolError::Io { source, path }) if source.kind() == io::ErrorKind::NotADirectory => {
            log::error!(
                "{path}: not a folder; what is in it waits until it is removed, and posta-queue started"
            );
            Ok(HashSet::new())
        }
        names => names?.filter_map(|n| n.map(|n| Id::parse(&n)).transpose()).collect(),
    }
}

/// The names of the folders that `cur/` and `journal/` are split into, as far as they are there.
fn parts(folders: &[&Path]) -> Result<Vec<String>, SpoolError> {
    let mut parts = Vec::new();
    for folder in folders {
        for name in names(folder)? {
            let name = name?;
            if name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                parts.push(name);
            }
        }
    }
    parts.sort_unstable();
    parts.dedup();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use crate::unix::durable::Disk;

    use super::super::journal::tests::{commit, spool};
    use super::*;

    fn all_new(spool: &Spool) -> Vec<Id> {
        let mut ids = Vec::new();
        spool.scan_new(&mut |id| ids.push(id)).unwrap();
        ids.sort();
        ids
    }

    fn all_aside(spool: &Spool) -> Vec<Aside> {
        let mut asides = Vec::new();
        spool.scan_aside(&mut |aside| asides.push(aside)).unwrap();
        asides.sort_by_key(|a| a.id);
        asides
    }

    #[test]
    fn a_scan_finds_everything_where_it_lies() {
        let (_root, spool) = spool(Arc::new(Disk));
        let ids: Vec<Id> = (0..4).map(|_| commit(&spool, b"x", 1)).collect();
        assert_eq!(all_new(&spool), ids);
        for (n, id) in ids[1..].iter().enumerate() {
            let entry = spool.open(*id, Place::New).unwrap();
            spool.set_aside(&entry, &[]).unwrap().set_next(1_000 + n as u64, 5).unwrap();
        }
        spool.move_to(ids[2], Place::Cur, Place::Hold).unwrap();
        std::fs::remove_file(spool.path().join("journal").join(split(ids[3]))).unwrap();
        assert_eq!(all_new(&spool), ids[..1]);
        let expected = [
            Aside { id: ids[1], place: Place::Cur, next: 1_000, destination: 5 },
            Aside { id: ids[2], place: Place::Hold, next: 1_001, destination: 5 },
            Aside { id: ids[3], place: Place::Cur, next: 0, destination: 0 },
        ];
        assert_eq!(all_aside(&spool), expected);
    }

    #[test]
    fn what_a_crash_left_half_done_is_finished() {
        let (_root, spool) = spool(Arc::new(Disk));
        let (torn, finished) = (commit(&spool, b"x", 1), commit(&spool, b"y", 1));
        for id in [torn, finished] {
            let entry = spool.open(id, Place::New).unwrap();
            drop(spool.set_aside(&entry, &[]).unwrap());
        }
        let cur = |id| spool.path().join("cur").join(split(id));
        std::fs::rename(cur(torn), spool.path().join("new").join(torn.as_str())).unwrap();
        std::fs::remove_file(cur(finished)).unwrap();
        assert_eq!(all_aside(&spool).iter().map(|a| a.id).collect::<Vec<_>>(), [torn]);
        assert!(cur(torn).exists());
        assert!(!spool.path().join("journal").join(split(finished)).exists());
    }

    #[test]
    fn at_the_start_a_message_that_was_being_set_aside_is_not_new() {
        let (_root, spool) = spool(Arc::new(Disk));
        let (torn, new) = (commit(&spool, b"x", 1), commit(&spool, b"y", 1));
        let entry = spool.open(torn, Place::New).unwrap();
        drop(spool.set_aside(&entry, &[]).unwrap());
        let cur = spool.path().join("cur").join(split(torn));
        std::fs::rename(&cur, spool.path().join("new").join(torn.as_str())).unwrap();
        let mut found = Vec::new();
        spool.scan_new_at_start(&mut |id| found.push(id)).unwrap();
        assert_eq!(found, [new]);
        assert!(cur.exists());
        assert_eq!(all_aside(&spool).iter().map(|a| a.id).collect::<Vec<_>>(), [torn]);
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_stops_no_other() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        drop(spool.set_aside(&spool.open(id, Place::New).unwrap(), &[]).unwrap());
        let part = split(id)[..2].to_string();
        let other = ["00", "ff"].into_iter().find(|name| *name != part).unwrap();
        File::create(spool.path().join("journal").join(other)).unwrap();
        assert_eq!(all_aside(&spool).len(), 1);
    }

    #[test]
    fn only_old_leftovers_are_swept() {
        let (_root, spool) = spool(Arc::new(Disk));
        let path = |name: &str| spool.path().join("new").join(name);
        for name in [".tmp.000000000001AAA", ".tmp.000000000002AAA", "strange"] {
            File::create(path(name)).unwrap();
        }
        let old = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1));
        for name in [".tmp.000000000001AAA", "strange"] {
            File::options().write(true).open(path(name)).unwrap().set_times(old).unwrap();
        }
        assert!(all_new(&spool).is_empty());
        let left = [".tmp.000000000001AAA", ".tmp.000000000002AAA", "strange"].map(|n| path(n).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn a_scan_never_takes_the_journal_of_a_message_on_its_way() {
        let (_root, spool) = spool(Arc::new(Disk));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    all_aside(&spool);
                }
            });
            for _ in 0..200 {
                let id = commit(&spool, b"x", 1);
                let entry = spool.open(id, Place::New).unwrap();
                drop(spool.set_aside(&entry, &[]).unwrap());
                spool.move_to(id, Place::Cur, Place::Hold).unwrap();
                spool.move_to(id, Place::Hold, Place::Cur).unwrap();
                assert!(spool.journal(&entry).unwrap().is_some());
                spool.finish(id, Place::Cur).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(all_aside(&spool).is_empty());
    }
}
