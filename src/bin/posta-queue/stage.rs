//! A spool and a runner for tests.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
use posta::mail::id::Id;
use posta::unix::durable::staged::Staged;
use posta::unix::durable::{Disk, Durable};

use posta::config::{self, Config};
use posta::logbook::history::{History, Keep};

use posta::route::{Router, Settings};
use posta::spool::{Committer, Draft, Spool, SpoolError};

use crate::bounce::Bouncer;
use crate::clerk::Clerks;
use crate::ingest::Ingest;
use crate::runner::{Event, Runner};
use crate::schedule::Schedule;
use crate::settings;

/// One that says nothing.
fn config() -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    config::load(Some(file.path())).unwrap()
}

/// A router without aliases.
pub fn router() -> Router {
    Router::new(Settings::of(&config()))
}

/// A spool, and what works on it.
pub struct Stage {
    folder: tempfile::TempDir,
    pub spool: Arc<Spool>,
    committer: Arc<Committer>,
}

impl Stage {
    pub fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        Spool::make(&folder.path().join("spool"), None).unwrap();
        Stage::open(folder, Arc::new(Disk))
    }

    /// One on a disk that fails when it is told to, and that disk.
    pub fn staged() -> (Stage, Arc<Staged>) {
        // In memory where possible: its power is only cut by the model.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Spool::make(&folder.path().join("spool"), None).unwrap();
        let attic = folder.path().join("attic");
        std::fs::create_dir(&attic).unwrap();
        let disk = Arc::new(Staged::new(&attic));
        (Stage::open(folder, disk.clone()), disk)
    }

    fn open(folder: tempfile::TempDir, disk: Arc<dyn Durable>) -> Stage {
        let begun = Instant::now();
        let spool = loop {
            match Spool::for_running(&folder.path().join("spool"), disk.clone()) {
                // Threads of a runner that was dropped may not have ended yet.
                Err(SpoolError::Locked { .. }) if begun.elapsed() < Duration::from_secs(60) => {
                    std::thread::yield_now();
                }
                opened => break Arc::new(opened.unwrap()),
            }
        };
        let committer = Arc::new(Committer::new(spool.clone()));
        Stage { folder, spool, committer }
    }

    /// The same spool after a restart, on a disk that works.
    pub fn reopened(self) -> Stage {
        let Stage { folder, spool, committer } = self;
        // With the last of them the lock goes.
        drop((spool, committer));
        Stage::open(folder, Arc::new(Disk))
    }

    /// Puts a message for `to` into `new/`.
    pub fn commit(&self, to: &str) -> Id {
        self.try_commit(&[to]).unwrap()
    }

    /// The same for several recipients, on a disk that may fail.
    pub fn try_commit(&self, to: &[&str]) -> Result<Id, SpoolError> {
        let recipient = |to: &&str| Recipient::plain(Mailbox::parse(to, false).unwrap());
        let envelope = Envelope {
            sender: ReversePath::parse("sender@example.org", false).unwrap(),
            ret: None,
            envid: None,
            recipients: to.iter().map(recipient).collect(),
            origin: Origin::Posta,
            arrived: crate::runner::now(),
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: Vec::new(),
        };
        let mut draft = Draft::begin(&self.spool)?;
        draft.push(b"Subject: x\r\n\r\nbody\r\n")?;
        Ok(self.committer.commit(draft, &envelope)?.id())
    }

    /// Who commits notices and copies.
    pub fn bouncer(&self) -> Bouncer {
        let (spool, committer) = (self.spool.clone(), self.committer.clone());
        Bouncer { spool, committer, hostname: config().hostname }
    }

    /// A runner whose threads tell `events` what they do.
    pub fn runner(&self, events: &Sender<Event>) -> Runner {
        let config = config();
        let bouncer = Arc::new(self.bouncer());
        let clerks = Clerks::start(&self.spool, &bouncer, events).unwrap();
        let router = Arc::new(RwLock::new(Arc::new(router())));
        let ingest = Ingest::start(&self.spool, &router, events).unwrap();
        let schedule = Schedule::new(settings::schedule(&config));
        let none = Keep { age: Duration::ZERO, ..settings::history(&config) };
        let history = History::start(none).unwrap();
        Runner::new(schedule, settings::rules(&config), ingest, clerks, history)
    }
}
