//! What is known of a message that could not be finished at once (S3, S4, S5).
//!
//! A journal is only ever appended to, one write for all that is learnt at once. What a crash tore off
//! is cut away before the next line is written, so that a torn line never becomes whole by what
//! follows it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use crate::mail::id::Id;
use crate::unix::durable::Durable;

use super::format::FormatError;
use super::layout::split;
use super::write::now;
use super::{Entry, Place, Record, Spool, SpoolError};

const JOURNAL_MODE: u32 = 0o600;

/// A journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    id: Id,
    disk: Arc<dyn Durable>,
    file: File,
    path: PathBuf,
    head: Record,
    records: Vec<Record>,
    /// Length of what is good in it.
    length: u64,
    /// There may be more in it than that.
    is_torn: bool,
    /// Its name may not be synced yet, nor its message's new place.
    is_fresh: AtomicBool,
}

impl Journal {
    /// What was in it when it was opened.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends lines (one write); not synced. This sets the time of the next attempt to now: so
    /// [`set_next`](Journal::set_next) comes after it. After an error none of these lines counts.
    pub fn append(&mut self, records: &[Record]) -> Result<(), SpoolError> {
        let failed = |e| SpoolError::io(&self.path, e);
        let now = now();
        let mut lines = Vec::new();
        let head = Some(&self.head).filter(|_| self.length == 0);
        for record in head.into_iter().chain(records.iter().filter(|r| !matches!(r, Record::Head { .. }))) {
            let unwritable = || SpoolError::Unwritable { id: self.id, source: FormatError::Value("to") };
            record.put(&mut lines, now).ok_or_else(unwritable)?;
        }
        if self.is_torn {
            self.disk.truncate(&self.file, self.length).map_err(failed)?;
        }
        self.is_torn = true;
        self.disk.write(&self.file, &lines).map_err(failed)?;
        self.is_torn = false;
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Sets the mtime: when it is tried next, and for which destination (a hash below 10^9). Does
    /// not sync: a power cut may bring the message back to an earlier time, when it is tried once more.
    pub fn set_next(&mut self, seconds: u64, destination: u32) -> Result<(), SpoolError> {
        let nanoseconds = destination % 1_000_000_000;
        let set = self.disk.set_modified(&self.file, seconds, nanoseconds);
        set.map_err(|e| SpoolError::io(&self.path, e))
    }

    /// Waits until its lines are on the disk, and its message's place too. For several journals at
    /// once see [`Spool::sync_journals`].
    pub fn sync(&self) -> Result<(), SpoolError> {
        let done = if self.is_fresh.load(Ordering::Relaxed) {
            self.disk.sync_file_system(self.file.as_fd())
        } else {
            self.disk.sync_file(&self.file)
        };
        done.map_err(|e| SpoolError::io(&self.path, e))?;
        self.is_fresh.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Spool {
    /// Opens the journal of a message; `None` if there is none, or if it does not belong to this
    /// queue file or can't be read (then it goes to `corrupt/`, and the log says so): the message is
    /// routed anew. So it is if the journal is there but has no complete expansion in it.
    pub fn journal(&self, entry: &Entry) -> Result<Option<Journal>, SpoolError> {
        let rooms = self.rooms()?;
        let name = split(entry.id);
        let path = rooms.journal.path().join(&name);
        let failed = |e| SpoolError::io(&path, e);
        let mut text = Vec::new();
        match rooms.journal.read(&name).and_then(|mut file| file.read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed)?,
        };
        let head = Record::Head { inode: entry.inode, crc: entry.crc };
        let (records, length) = match read(&text, &head) {
            Ok(read) => read,
            Err(why) => {
                log::error!("{}: journal ignored, and moved to corrupt/: {why}", entry.id);
                self.set_journal_apart(entry.id)?;
                return Ok(None);
            }
        };
        let file = self.disk.append(&rooms.journal, &name, false, JOURNAL_MODE).map_err(failed)?;
        let is_torn = length < text.len() as u64;
        let disk = Arc::clone(&self.disk);
        Ok(Some(Journal {
            id: entry.id,
            disk,
            file,
            path,
            head,
            records,
            length,
            is_torn,
            is_fresh: AtomicBool::new(true),
        }))
    }

    /// What a journal says, for a list: nothing is opened to be written, and nothing moved. One that is
    /// not there, or of no use, says nothing.
    pub fn peek_journal(&self, entry: &Entry) -> Result<Vec<Record>, SpoolError> {
        let rooms = self.rooms()?;
        let name = split(entry.id);
        let mut text = Vec::new();
        match rooms.journal.read(&name).and_then(|mut file| file.read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.map_err(|e| SpoolError::io(rooms.journal.path().join(&name), e))?,
        };
        let head = Record::Head { inode: entry.inode, crc: entry.crc };
        Ok(read(&text, &head).map(|(records, _)| records).unwrap_or_default())
    }

    /// Makes the journal, writes the first records, and moves the message from `new/` to `cur/`
    /// (S2b, S3, S4). One that lies in `cur/` or `hold/` without a journal stays there. After an error
    /// it is as it was before.
    pub fn set_aside(&self, entry: &Entry, records: &[Record]) -> Result<Journal, SpoolError> {
        let rooms = self.rooms()?;
        let _moving = rooms.moving.read().unwrap_or_else(PoisonError::into_inner);
        let name = split(entry.id);
        let path = rooms.journal.path().join(&name);
        if rooms.journal.holds(&name).map_err(|e| SpoolError::io(&path, e))? {
            log::warn!("{}: has a journal already: moved to corrupt/", entry.id);
            self.set_journal_apart(entry.id)?;
        }
        let create = || self.disk.append(&rooms.journal, &name, true, JOURNAL_MODE);
        let file = self.put(&rooms.journal, &name, create).map_err(|e| SpoolError::io(&path, e))?;
        let mut journal = Journal {
            id: entry.id,
            disk: Arc::clone(&self.disk),
            file,
            path,
            head: Record::Head { inode: entry.inode, crc: entry.crc },
            records: Vec::new(),
            length: 0,
            is_torn: false,
            is_fresh: AtomicBool::new(true),
        };
        match journal.append(records).and_then(|()| self.move_aside(entry.id)) {
            Ok(()) => Ok(journal),
            Err(error) => {
                if let Err(second) = self.disk.unlink(&rooms.journal, &name) {
                    log::warn!("{}: {second}: its journal stays", entry.id);
                }
                Err(error)
            }
        }
    }

    /// From S3 to S4. A scan may have done it already.
    pub(super) fn move_aside(&self, id: Id) -> Result<(), SpoolError> {
        let rooms = self.rooms()?;
        if self.stays_in_new {
            return if self.is_in(id, Place::Cur)? { Ok(()) } else { Err(SpoolError::Gone { id }) };
        }
        let name = split(id);
        let rename = || self.disk.rename(&self.entrance, id.as_str(), &rooms.cur, &name);
        match self.put(&rooms.cur, &name, rename) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for place in [Place::Cur, Place::Hold] {
                    if self.is_in(id, place)? {
                        return Ok(());
                    }
                }
                Err(SpoolError::Gone { id })
            }
            Err(error) => Err(SpoolError::io(rooms.cur.path().join(name), error)),
        }
    }

    /// Whether a message lies there.
    pub(super) fn is_in(&self, id: Id, place: Place) -> Result<bool, SpoolError> {
        let (folder, name) = self.lies(id, place)?;
        let is_there = folder.holds(&name).map_err(|e| SpoolError::io(folder.path().join(&name), e))?;
        match place {
            Place::New | Place::Cur if is_there && self.stays_in_new => {
                Ok(self.has_journal(id)? == (place == Place::Cur))
            }
            _ => Ok(is_there),
        }
    }

    /// Whether a message has a journal.
    pub(super) fn has_journal(&self, id: Id) -> Result<bool, SpoolError> {
        let (journal, name) = (&self.rooms()?.journal, split(id));
        journal.holds(&name).map_err(|e| SpoolError::io(journal.path().join(&name), e))
    }

    /// Moves a message between `cur/` and `hold/`, which needs no journal. Not synced; but on a file system
    /// without a journal at once, since until then a power cut may leave it no name at all.
    pub fn move_to(&self, id: Id, from: Place, to: Place) -> Result<(), SpoolError> {
        let _moving = self.rooms()?.moving.read().unwrap_or_else(PoisonError::into_inner);
        let ((old, name), (new, new_name)) = (self.lies(id, from)?, self.lies(id, to)?);
        match self.put(new, &new_name, || self.disk.rename(old, &name, new, &new_name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpoolError::Gone { id }),
            done => done.map_err(|e| SpoolError::io(old.path().join(&name), e)),
        }?;
        if self.stays_in_new { self.sync_journals() } else { Ok(()) }
    }

    /// The message is finished: unlinks it, then its journal if it has one (never the other way
    /// round: without its journal it would be delivered again). One that is gone already is no error.
    pub fn finish(&self, id: Id, place: Place) -> Result<(), SpoolError> {
        let rooms = self.rooms()?;
        let _moving = rooms.moving.read().unwrap_or_else(PoisonError::into_inner);
        let (folder, name) = self.lies(id, place)?;
        self.remove(folder, &name)?;
        match place {
            // A journal is only made together with the move to cur/; what a crash between left
            // (S3) is moved, or swept (S5), by a scan.
            Place::New => Ok(()),
            Place::Cur | Place::Hold => self.remove(&rooms.journal, &split(id)),
        }
    }

    /// Waits until everything in the spool is on the disk, the lines of all journals among it.
    pub fn sync_journals(&self) -> Result<(), SpoolError> {
        self.disk.sync_file_system(self.entrance.as_fd()).map_err(|e| SpoolError::io(&self.path, e))
    }
}

/// The records of a journal, and the length of what is good in it.
fn read(text: &[u8], head: &Record) -> Result<(Vec<Record>, u64), String> {
    let mut records = Vec::new();
    let mut length = 0;
    // Where the expansion begins, until it is known to be complete.
    let mut expansion = None;
    let mut is_expanded = false;
    for line in text.split_inclusive(|b| *b == b'\n') {
        // What was torn off by a crash is no line.
        let Some(whole) = line.strip_suffix(b"\n") else { break };
        match Record::read(whole) {
            Some(record) if length == 0 && record != *head => {
                return Err("it belongs to another queue file".to_string());
            }
            Some(record) => {
                if matches!(record, Record::Target { .. }) {
                    expansion.get_or_insert((records.len(), length));
                }
                is_expanded |= record == Record::Expanded;
                records.push(record);
            }
            // Half an expansion would lose a recipient; anything else is at worst done again.
            None if !is_expanded => return Err(format!("byte {length} begins a line that can't be read")),
            None => log::error!("journal: the line at byte {length} can't be read: it is skipped"),
        }
        length += line.len() as u64;
    }
    // An expansion that was not written to its end counts as none.
    if let Some((count, start)) = expansion.filter(|_| !is_expanded) {
        records.truncate(count);
        length = start;
    }
    Ok((records, length))
}

#[cfg(test)]
pub(super) mod tests {
    use crate::courier::request::{Leaf, Target};
    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
    use crate::unix::durable::Disk;
    use crate::unix::durable::staged::{Fault, Staged};

    use super::super::{Committer, Draft};
    use super::*;

    pub(in crate::spool) fn spool(disk: Arc<dyn Durable>) -> (tempfile::TempDir, Arc<Spool>) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("spool");
        Spool::make(&path, None).unwrap();
        let mut spool = Spool::for_running(&path, disk).unwrap();
        // Wherever the tests run: what they say of cur/ is of a file system with a journal.
        spool.stays_in_new = false;
        (root, Arc::new(spool))
    }

    pub(in crate::spool) fn commit(spool: &Arc<Spool>, message: &[u8], recipients: usize) -> Id {
        let address = |n| Mailbox::parse(&format!("user{n}@example.net"), false).unwrap();
        let envelope = Envelope {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            recipients: (0..recipients).map(|n| Recipient::plain(address(n))).collect(),
            origin: Origin::Posta,
            arrived: 7,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: Vec::new(),
        };
        let mut draft = Draft::begin(spool).unwrap();
        draft.push(message).unwrap();
        Committer::new(spool.clone()).commit(draft, &envelope).unwrap().id()
    }

    fn expansion() -> Vec<Record> {
        let address = Mailbox::parse("bob@example.net", false).unwrap();
        let leaf = Leaf {
            address,
            target: Target::Mx("example.net".into()),
            place: None,
            sender: None,
            of_list: false,
        };
        let target = |n| Record::Target { n, recipient: 0, leaf: leaf.clone().into() };
        vec![target(0), target(1), Record::Expanded]
    }

    fn file(spool: &Spool, id: Id) -> PathBuf {
        spool.path().join("journal").join(split(id))
    }

    fn records(spool: &Spool, id: Id) -> Vec<Record> {
        let entry = spool.open(id, Place::Cur).unwrap();
        spool.journal(&entry).unwrap().unwrap().records()[1..].to_vec()
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        assert!(spool.journal(&entry).unwrap().is_none());
        let mut journal = spool.set_aside(&entry, &expansion()).unwrap();
        journal.append(&[Record::Attempt { at: 1, count: 1 }]).unwrap();
        journal.set_next(2_000_000_000, 123_456_789).unwrap();
        assert!(!spool.path().join("new").join(id.as_str()).exists());
        let mut expected = expansion();
        expected.push(Record::Attempt { at: 1, count: 1 });
        assert_eq!(records(&spool, id), expected);
        let modified = spool.rooms().unwrap().journal.modified(&split(id)).unwrap();
        assert_eq!(modified, Some((2_000_000_000, 123_456_789)));
        spool.move_to(id, Place::Cur, Place::Hold).unwrap();
        assert!(spool.open(id, Place::Hold).is_ok());
        assert!(matches!(spool.move_to(id, Place::Cur, Place::Hold), Err(SpoolError::Gone { .. })));
        spool.finish(id, Place::Hold).unwrap();
        spool.finish(id, Place::Hold).unwrap();
        assert!(!file(&spool, id).exists());
    }

    #[test]
    fn a_torn_line_is_dropped_and_never_becomes_whole() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        drop(spool.set_aside(&entry, &expansion()).unwrap());
        let mut text = std::fs::read(file(&spool, id)).unwrap();
        text.extend_from_slice(b"R 5 1");
        std::fs::write(file(&spool, id), text).unwrap();
        let mut journal = spool.journal(&entry).unwrap().unwrap();
        assert_eq!(journal.records()[1..], expansion());
        journal.append(&[Record::Warned { at: 9 }]).unwrap();
        let mut expected = expansion();
        expected.push(Record::Warned { at: 9 });
        assert_eq!(records(&spool, id), expected);
    }

    #[test]
    fn half_an_expansion_is_none_but_what_came_before_it_stays() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        let held = Record::Held { at: 1, why: "by hand".into() };
        let mut journal = spool.set_aside(&entry, std::slice::from_ref(&held)).unwrap();
        journal.append(&expansion()[..1]).unwrap();
        let mut journal = spool.journal(&entry).unwrap().unwrap();
        assert_eq!(&journal.records()[1..], std::slice::from_ref(&held));
        journal.append(&expansion()).unwrap();
        assert_eq!(records(&spool, id), [&[held], &expansion()[..]].concat());
    }

    #[test]
    fn an_empty_journal_means_routed_again() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        drop(spool.set_aside(&entry, &expansion()).unwrap());
        std::fs::write(file(&spool, id), b"Q 1 2").unwrap();
        let mut journal = spool.journal(&entry).unwrap().unwrap();
        assert!(journal.records().is_empty());
        journal.append(&expansion()).unwrap();
        assert_eq!(records(&spool, id), expansion());
    }

    #[test]
    fn a_journal_of_another_file_is_put_apart_and_a_new_one_made() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        for strange in [&b"Q 1 2 000000ff\nE 3\n"[..], b"garbage\n", b"\0\0\n"] {
            std::fs::create_dir_all(file(&spool, id).parent().unwrap()).unwrap();
            std::fs::write(file(&spool, id), strange).unwrap();
            assert!(spool.journal(&entry).unwrap().is_none());
            let kept = spool.path().join("corrupt").join(format!("{id}.journal"));
            assert_eq!(std::fs::read(kept).unwrap(), strange);
        }
        drop(spool.set_aside(&entry, &expansion()).unwrap());
        // Its journal is lost: it stays where it is, and gets a new one.
        std::fs::remove_file(file(&spool, id)).unwrap();
        drop(spool.set_aside(&entry, &expansion()).unwrap());
        assert_eq!(records(&spool, id), expansion());
    }

    #[test]
    fn a_bad_line_after_the_expansion_is_skipped_one_before_is_not() {
        let head = Record::Head { inode: 1, crc: 2 };
        let mut text = Vec::new();
        head.put(&mut text, 0).unwrap();
        let after_head = text.len();
        expansion().iter().for_each(|r| r.put(&mut text, 0).unwrap());
        let mut late = text.clone();
        late.extend_from_slice(b"Z 1\nW 5\n");
        assert_eq!(read(&late, &head).unwrap().0.last(), Some(&Record::Warned { at: 5 }));
        text.splice(after_head..after_head, *b"Z 1\n");
        assert!(read(&text, &head).is_err());
    }

    #[test]
    fn a_failed_write_leaves_everything_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(Staged::new(root.path()));
        let (_root, spool) = spool(disk.clone());
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        // the folder's absence, the folder, its sync, the file; then the write, or all but the rename
        for calls in [4, 2] {
            disk.plan(calls, Fault::Short(28));
            assert!(matches!(spool.set_aside(&entry, &expansion()), Err(SpoolError::Full { .. })), "{calls}");
            assert!(spool.open(id, Place::New).is_ok() && !file(&spool, id).exists());
        }
        let mut journal = spool.set_aside(&entry, &expansion()).unwrap();
        disk.plan(0, Fault::Short(28));
        assert!(matches!(journal.append(&[Record::Warned { at: 5 }]), Err(SpoolError::Full { .. })));
        journal.append(&[Record::Strike { at: 6 }]).unwrap();
        assert_eq!(records(&spool, id).last(), Some(&Record::Strike { at: 6 }));
        journal.sync().unwrap();
        assert_eq!(disk.unsynced_names(), 0);
    }
}
