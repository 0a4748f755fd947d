//! A message's whole life, failed, stopped and cut from its power at every single call.
//!
//! Three messages are handed in: A is delivered at once; B (of several blocks) has one recipient
//! that is delivered, one that must be tried again and one that never can be, is put on hold and
//! released, and its sender is told; C comes through `drop/`. A small queue runner works on them, and
//! delivers into true Maildirs on the same disk. The same is then done again, once for each call to the disk and each way for it to go wrong. Then the
//! spool is opened again on a disk that works, and the runner goes on.
//!
//! At the end, always: what was acknowledged is in its mailbox or reported; each mailbox has it once
//! and whole; what a live process refused is in none; and nothing is left in the spool. One fault
//! repeats one report at most.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use posta::courier::request::{Leaf, Target};
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};
use posta::maildir::copy::{self, Copy, Message};
use posta::maildir::deliver::{self, DeliverError, Maildir};
use posta::maildir::name::Name;
use posta::maildir::place;
use posta::spool::{Committer, Draft, Entry, Habits, Journal, Place, Record, Spool, SpoolError};
use posta::unix::durable::staged::{Fault, Lost, Staged};
use posta::unix::durable::{Disk, Durable};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// What goes wrong at each call, besides a power cut; and, in turn, one of the others.
const FAULTS: [Fault; 3] = [Fault::Fail(EIO), Fault::Short(ENOSPC), Fault::Stop];
const OTHER_FAULTS: [Fault; 3] = [Fault::Fail(ENOSPC), Fault::Fail(EINTR), Fault::Short(EIO)];

/// How a life is led.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Every commit is one `syncfs`; else files and folder are synced.
    syncfs: bool,
    /// There is no O_TMPFILE.
    fall_back: bool,
    /// The file system has a journal: a rename is done or not.
    journal: bool,
}

#[test]
fn without_a_journal_of_the_file_system() {
    at_every_call(Way { syncfs: false, fall_back: false, journal: false });
}

#[test]
fn files_synced() {
    at_every_call(Way { syncfs: false, fall_back: false, journal: true });
}

#[test]
fn files_synced_without_unnamed_files() {
    at_every_call(Way { syncfs: false, fall_back: true, journal: true });
}

#[test]
fn file_system_synced() {
    at_every_call(Way { syncfs: true, fall_back: false, journal: true });
}

#[test]
fn file_system_synced_without_unnamed_files() {
    at_every_call(Way { syncfs: true, fall_back: true, journal: true });
}

fn at_every_call(way: Way) {
    let calls = without_a_fault(way);
    assert!(calls > 40, "the life is too short to say anything: {calls} calls");
    for at in 0..calls {
        for fault in FAULTS.into_iter().chain([OTHER_FAULTS[at as usize % 3]]) {
            let world = World::new(way);
            world.disk.plan(at, fault);
            world.live();
            world.recover();
            world.check(&format!("{way:?}, call {at}: {fault:?}"), fault == Fault::Stop);
        }
        cut_the_power(way, at);
    }
}

/// None of the names that no sync covers survive, or some, or all. What is lost of the bytes goes
/// round from case to case: names and bytes have nothing to do with each other.
fn cut_the_power(way: Way, at: u64) {
    for kept in 0.. {
        let lost = [Lost::All, Lost::End, Lost::Start][(at as usize + kept) % 3];
        let world = World::new(way);
        world.disk.plan(at, Fault::Stop);
        world.live();
        let unsynced = world.disk.unsynced_names();
        world.disk.power_cut(kept, lost).unwrap();
        world.recover();
        let when = format!("{way:?}, call {at}: power cut, {kept} of {unsynced} names kept, {lost:?} lost");
        world.check(&when, true);
        if kept >= unsynced {
            break;
        }
    }
}

/// Everything goes well: each recipient has one copy. Gives the number of calls.
fn without_a_fault(way: Way) -> u64 {
    let world = World::new(way);
    world.live();
    world.check(&format!("{way:?}, no fault"), false);
    assert_eq!(world.acknowledged.borrow().len(), MESSAGES.len());
    let expected =
        [("done-a", 1), ("done-b", 1), ("later-b", 1), ("never-b", 0), ("done-c", 1), ("done-sender", 1)];
    assert_eq!(expected.map(|(to, _)| (to, world.mailbox(to).len())), expected);
    world.disk.calls()
}

/// The spool, and what is outside of it.
struct World {
    root: tempfile::TempDir,
    disk: Arc<Staged>,
    way: Way,
    /// Who was promised what: the messages whose commit has returned.
    acknowledged: RefCell<BTreeMap<&'static str, Id>>,
    /// Who is not served again: it was noted that they have their copy, and the note was synced.
    noted: RefCell<BTreeSet<String>>,
}

/// What is handed in: its name, its recipients.
const MESSAGES: [(&str, &[&str]); 3] =
    [("A", &["done-a"]), ("B", &["done-b", "later-b", "never-b"]), ("C", &["done-c"])];

fn content(name: &str) -> Vec<u8> {
    let lines = if name == "B" { 5_000 } else { 10 };
    let mut text = format!("Subject: {name}\r\n\r\n");
    (0..lines).for_each(|n| text.push_str(&format!("line {n} of {name}\r\n")));
    text.into_bytes()
}

fn mailbox(local: &str) -> Mailbox {
    Mailbox::from_parts(local, "example.net").unwrap()
}

fn envelope(sender: ReversePath, recipients: &[&str], origin: Origin) -> Envelope {
    Envelope {
        sender,
        ret: None,
        envid: None,
        recipients: recipients.iter().map(|local| Recipient::plain(mailbox(local))).collect(),
        origin,
        arrived: 7,
        body: BodyKind::SevenBit,
        utf8: false,
        require_tls: false,
        trace: b"Received: by x\r\n".to_vec(),
    }
}

impl World {
    fn new(way: Way) -> World {
        // In memory where possible: its power is only cut by the model.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Spool::make(&root.path().join("spool"), None).unwrap();
        fs::create_dir(root.path().join("attic")).unwrap();
        let disk = Staged::new(&root.path().join("attic"));
        let disk = if way.journal { disk } else { disk.without_journal() };
        let disk = Arc::new(if way.fall_back { disk.without_unnamed() } else { disk });
        fs::create_dir(root.path().join("mail")).unwrap();
        let (acknowledged, noted) = Default::default();
        World { root, disk, way, acknowledged, noted }
    }

    /// What is in the `new/` of a mailbox.
    fn mailbox(&self, local: &str) -> Vec<String> {
        let new = self.root.path().join("mail").join(local).join("new");
        let copies = if new.is_dir() { files(&new) } else { Vec::new() };
        copies.iter().map(|path| String::from_utf8(fs::read(path).unwrap()).unwrap()).collect()
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("spool")
    }

    fn runner(&self, disk: Arc<dyn Durable>, dies_with: Option<Arc<Staged>>) -> Runner<'_> {
        let spool = Arc::new(Spool::for_running(&self.path(), disk.clone()).unwrap());
        Runner { world: self, committer: self.committer(&spool), spool, disk, dies_with }
    }

    fn committer(&self, spool: &Arc<Spool>) -> Committer {
        let few = if self.way.syncfs { 0 } else { usize::MAX };
        Committer::with_habits(Arc::clone(spool), Habits { few, ..Habits::default() })
    }

    /// Hands in all messages, and runs the queue until nothing more happens.
    fn live(&self) {
        let runner = self.runner(self.disk.clone(), Some(self.disk.clone()));
        for (name, recipients) in MESSAGES {
            let done = match name {
                "C" => self.drop_in(name, recipients),
                _ => self.receive(&runner, name, recipients),
            };
            if let Ok(id) = done {
                self.acknowledged.borrow_mut().insert(name, id);
            }
        }
        runner.run();
    }

    /// What posta-smtpd does.
    fn receive(&self, runner: &Runner<'_>, name: &str, to: &[&str]) -> Result<Id, SpoolError> {
        let sender = ReversePath::Mailbox(mailbox("done-sender"));
        let origin = Origin::Client {
            address: Some([127, 0, 0, 1].into()),
            helo: "x".into(),
            protocol: "SMTP".into(),
            login: None,
        };
        let mut draft = Draft::begin(&runner.spool)?;
        for chunk in content(name).chunks(10_000) {
            draft.push(chunk)?;
        }
        Ok(runner.committer.commit(draft, &envelope(sender, to, origin))?.id())
    }

    /// What posta-drop does.
    fn drop_in(&self, name: &str, to: &[&str]) -> Result<Id, SpoolError> {
        let spool = Arc::new(Spool::for_dropping(&self.path(), self.disk.clone())?);
        let sender = ReversePath::Mailbox(mailbox("done-sender"));
        let mut draft = Draft::begin(&spool)?;
        draft.push(&content(name))?;
        let origin = Origin::User { uid: 1000, name: "alice".into() };
        Ok(self.committer(&spool).commit(draft, &envelope(sender, to, origin))?.id())
    }

    /// Starts again on a disk that works; what nobody writes to any more has grown old.
    fn recover(&self) {
        for folder in ["new", "drop"] {
            for path in files(&self.path().join(folder)) {
                if path.file_name().unwrap().to_str().unwrap().starts_with(".tmp.") || folder == "drop" {
                    let old = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1));
                    fs::File::options().write(true).open(path).unwrap().set_times(old).unwrap();
                }
            }
        }
        self.runner(Arc::new(Disk), None).run();
    }

    fn check(&self, when: &str, has_died: bool) {
        let acknowledged = self.acknowledged.borrow();
        let told = self.mailbox("done-sender");
        for (name, recipients) in MESSAGES {
            for to in recipients {
                let copies = self.mailbox(to);
                assert!(copies.len() <= 1, "{when}: {to} has {} copies", copies.len());
                let whole = copy("done-sender@example.net", to, &content(name));
                assert!(copies.iter().all(|copy| *copy == whole), "{when}: {to} has half a message");
                let is_reported = told.contains(&copy("", "done-sender", &bounce(name, to)));
                if acknowledged.contains_key(name) {
                    assert_ne!(copies.is_empty(), !to.starts_with("never"), "{when}: {to}");
                    assert_eq!(is_reported, to.starts_with("never"), "{when}: {to}");
                } else if !has_died {
                    assert!(copies.is_empty() && !is_reported, "{when}: {to} has what was refused");
                }
            }
        }
        assert!(told.len() <= 2, "{when}: {} reports", told.len());
        let report = copy("", "done-sender", &bounce("B", "never-b"));
        told.iter().for_each(|told| assert_eq!(*told, report, "{when}"));
        self.check_spool(when, has_died);
    }

    /// Nothing is left in it, and what was acknowledged is not among what was set apart.
    fn check_spool(&self, when: &str, has_died: bool) {
        for folder in ["new", "drop", "cur", "journal", "hold"] {
            let left = files(&self.path().join(folder));
            assert!(left.is_empty(), "{when}: {left:?}");
        }
        let kept = files(&self.path().join("corrupt"));
        let promised: BTreeSet<String> =
            self.acknowledged.borrow().values().map(|id| id.to_string()).collect();
        let lost = kept.iter().filter(|p| promised.contains(p.file_name().unwrap().to_str().unwrap()));
        // What came by drop/ keeps its id: half a copy of it is set apart before it is made anew.
        let lost = lost.filter(|p| !self.has_arrived_by_drop(p));
        assert_eq!(lost.count(), 0, "{when}: {kept:?}");
        assert!(has_died || kept.is_empty(), "{when}: {kept:?}");
    }

    fn has_arrived_by_drop(&self, kept: &Path) -> bool {
        let dropped = self.acknowledged.borrow().get("C").map(Id::to_string);
        dropped.as_deref() == kept.file_name().unwrap().to_str() && self.mailbox("done-c").len() == 1
    }
}

/// What a mailbox gets.
fn copy(sender: &str, to: &str, message: &[u8]) -> String {
    let text = String::from_utf8(message.to_vec()).unwrap().replace("\r\n", "\n");
    format!("Return-Path: <{sender}>\nDelivered-To: {to}@example.net\nReceived: by x\n{text}")
}

fn bounce(name: &str, to: &str) -> Vec<u8> {
    format!("Subject: {name} can't be delivered to {to}\r\n").into_bytes()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What posta-queue does, without its clock and its hands.
struct Runner<'a> {
    world: &'a World,
    spool: Arc<Spool>,
    committer: Committer,
    /// That the mailboxes are on, too.
    disk: Arc<dyn Durable>,
    /// When this disk stops, the process is dead: it reads no more, and delivers nothing.
    dies_with: Option<Arc<Staged>>,
}

impl Runner<'_> {
    /// Passes over the queue: as many as any life needs, with one fault in it.
    fn run(&self) {
        for _ in 0..8 {
            // An error concerns one message, or one scan: the next pass tries again.
            let _ = self.pass();
        }
    }

    fn pass(&self) -> Result<(), SpoolError> {
        let (mut dropped, mut new, mut aside) = (Vec::new(), BTreeSet::new(), Vec::new());
        self.spool.scan_drop(&mut |id| dropped.push(id))?;
        dropped.into_iter().for_each(|id| drop(self.import(id)));
        // Each pass is a start: nobody works on a message while it scans.
        self.spool.scan_new_at_start(&mut |id| new.extend([id]))?;
        self.spool.scan_aside(&mut |found| aside.push(found))?;
        for found in aside {
            assert!(!new.contains(&found.id), "{} is found twice", found.id);
            let _ = self.work_on(found.id, found.place);
        }
        new.into_iter().for_each(|id| drop(self.work_on(id, Place::New)));
        Ok(())
    }

    fn import(&self, id: Id) -> Result<(), SpoolError> {
        let (entry, _owner) = self.spool.open_drop(id)?;
        if let Some(mut draft) = self.spool.import(&entry)? {
            draft.push(&message(&entry))?;
            self.committer.commit(draft, &entry.envelope)?;
        }
        self.spool.undrop(id)
    }

    fn work_on(&self, id: Id, place: Place) -> Result<(), SpoolError> {
        if self.dies_with.as_ref().is_some_and(|disk| disk.has_stopped()) {
            return Ok(());
        }
        let entry = self.spool.open(id, place)?;
        let mut journal = self.spool.journal(&entry)?;
        let mut known = Known::read(journal.as_ref());
        // An expansion is there wholly or not at all: else a recipient would be forgotten.
        let wanted = if known.is_expanded { entry.envelope.recipients.len() as u32 } else { 0 };
        assert_eq!(known.targets, (0..wanted).collect::<Vec<_>>());
        if place == Place::Hold {
            if let Some(journal) = &mut journal {
                journal.append(&[Record::Released { at: 1 }])?;
            }
            self.spool.move_to(id, Place::Hold, Place::Cur)?;
        }
        let news = self.attempt(&entry, &mut known);
        if known.is_settled(&entry) && place == Place::New && journal.is_none() && known.never.is_empty() {
            return self.spool.finish(id, Place::New);
        }
        let mut journal = match journal {
            Some(mut journal) => {
                journal.append(&news)?;
                journal
            }
            None => self.spool.set_aside(&entry, &news)?,
        };
        self.report(&entry, &known, &mut journal)?;
        if known.is_settled(&entry) {
            return self.spool.finish(id, Place::Cur);
        }
        journal.set_next(2, 3)?;
        self.spool.sync_journals()?;
        let noted = known.done.iter().map(|n| entry.envelope.recipients[*n as usize].address.local());
        self.world.noted.borrow_mut().extend(noted.map(str::to_string));
        // Where a rename may lose it, an order of the administrator is the one that is made all the same.
        if known.attempts == 1 && self.world.way.journal {
            journal.append(&[Record::Held { at: 1, why: "by hand".into() }])?;
            journal.sync()?;
            self.spool.move_to(id, Place::Cur, Place::Hold)?;
        }
        Ok(())
    }

    /// Tries every recipient that is outstanding; gives what is to be noted.
    fn attempt(&self, entry: &Entry, known: &mut Known) -> Vec<Record> {
        let mut news = Vec::new();
        if !known.is_expanded {
            for (n, recipient) in (0..).zip(&entry.envelope.recipients) {
                let (address, target) = (recipient.address.clone(), Target::Mx("example.net".into()));
                news.push(Record::Target {
                    n,
                    recipient: n,
                    leaf: Leaf { address, target, place: None, sender: None, of_list: false }.into(),
                });
            }
            news.push(Record::Expanded);
        }
        known.attempts += 1;
        for (n, recipient) in (0..).zip(&entry.envelope.recipients) {
            if known.done.contains(&n) || known.never.contains(&n) {
                continue;
            }
            let (at, relay, text) = (1, "mx.example.net".to_string(), "ok".to_string());
            news.push(match fate(recipient.address.local(), known.attempts) {
                Fate::Done if self.deliver(entry, n).is_ok() => {
                    known.done.insert(n);
                    Record::Done { n, at, relay, text, passed_on: false }
                }
                Fate::Done | Fate::Later => {
                    Record::Later { n, at, status: Status::new(4, 0, 0), relay, text, said: false }
                }
                Fate::Never => {
                    known.never.insert(n);
                    Record::Never { n, at, status: Status::new(5, 0, 0), relay, text, said: false }
                }
            });
        }
        news.push(Record::Attempt { at: 1, count: known.attempts });
        news
    }

    /// What posta-local does, for one recipient at a time: a copy that is there already is replaced.
    fn deliver(&self, entry: &Entry, n: u32) -> Result<(), DeliverError> {
        let address = &entry.envelope.recipients[n as usize].address;
        assert!(!self.world.noted.borrow().contains(address.local()), "{address} is served again");
        let home = self.world.root.path().join("mail");
        let failed = |source| DeliverError { path: address.to_string(), source };
        let disk = &*self.disk;
        let reached = place::below(disk, &home, Path::new(address.local())).map_err(failed)?;
        let maildir = Rc::new(Maildir::open(disk, reached)?);
        let file = entry.file.try_clone().map_err(failed)?;
        let message = Message::open(file, entry.size).map_err(failed)?;
        let top = copy::top(&entry.envelope.sender, address, &entry.envelope.trace);
        let name = Name::new(entry.envelope.arrived, entry.id, n, "mail.example.net");
        deliver::deliver(disk, &maildir, &name, &mut Copy::new(&message, top))
    }

    /// Tells the sender; only then is it noted that he was told.
    fn report(&self, entry: &Entry, known: &Known, journal: &mut Journal) -> Result<(), SpoolError> {
        for n in known.never.difference(&known.reported) {
            let to = entry.envelope.recipients[*n as usize].address.local();
            let name = &String::from_utf8(message(entry)).unwrap()[9..10];
            let mut draft = Draft::begin(&self.spool)?;
            draft.push(&bounce(name, to))?;
            let sender = entry.envelope.sender.mailbox().expect("only mail with a sender is bounced");
            let envelope = envelope(ReversePath::Null, &[sender.local()], Origin::Posta);
            self.committer.commit(draft, &envelope)?;
            journal.append(&[Record::Reported { n: *n, at: 1 }])?;
        }
        Ok(())
    }
}

fn message(entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; entry.size as usize];
    entry.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// What becomes of a recipient at this attempt.
fn fate(local: &str, attempt: u32) -> Fate {
    match local.split('-').next() {
        Some("later") if attempt < 3 => Fate::Later,
        Some("never") => Fate::Never,
        _ => Fate::Done,
    }
}

/// What a journal says.
#[derive(Debug, Default)]
struct Known {
    targets: Vec<u32>,
    is_expanded: bool,
    attempts: u32,
    done: BTreeSet<u32>,
    never: BTreeSet<u32>,
    reported: BTreeSet<u32>,
}

impl Known {
    fn read(journal: Option<&Journal>) -> Known {
        let mut known = Known::default();
        for record in journal.map(Journal::records).unwrap_or_default() {
            match record {
                Record::Target { n, .. } => known.targets.push(*n),
                Record::Expanded => known.is_expanded = true,
                Record::Attempt { count, .. } => known.attempts = *count,
                Record::Done { n, .. } => drop(known.done.insert(*n)),
                Record::Never { n, .. } => drop(known.never.insert(*n)),
                Record::Reported { n, .. } => drop(known.reported.insert(*n)),
                _ => {}
            }
        }
        known
    }

    fn is_settled(&self, entry: &Entry) -> bool {
        self.done.len() + self.never.len() == entry.envelope.recipients.len()
    }
}
