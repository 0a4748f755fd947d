//! A spool and a runner for tests.

use std::sync::mpsc::Sender;
use std::sync::{Arc, RwLock};

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
use posta::mail::id::Id;
use posta::unix::durable::Disk;

use posta::config::{self, Config};
use posta::logbook::history::{History, Keep};

use posta::route::{Router, Settings};
use posta::spool::{Committer, Draft, Spool};

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
    _folder: tempfile::TempDir,
    pub spool: Arc<Spool>,
    committer: Arc<Committer>,
}

impl Stage {
    pub fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        Spool::make(&path, None).unwrap();
        let spool = Arc::new(Spool::for_running(&path, Arc::new(Disk)).unwrap());
        let committer = Arc::new(Committer::new(spool.clone()));
        Stage { _folder: folder, spool, committer }
    }

    /// Puts a message for `to` into `new/`.
    pub fn commit(&self, to: &str) -> Id {
        let envelope = Envelope {
            sender: ReversePath::parse("sender@example.org", false).unwrap(),
            ret: None,
            envid: None,
            recipients: vec![Recipient::plain(Mailbox::parse(to, false).unwrap())],
            origin: Origin::Posta,
            arrived: crate::runner::now(),
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: Vec::new(),
        };
        let mut draft = Draft::begin(&self.spool).unwrap();
        draft.push(b"Subject: x\r\n\r\nbody\r\n").unwrap();
        self.committer.commit(draft, &envelope).unwrap().id()
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
        let none = Keep { age: std::time::Duration::ZERO, ..settings::history(&config) };
        let history = History::start(none).unwrap();
        Runner::new(schedule, settings::rules(&config), ingest, clerks, history)
    }
}
