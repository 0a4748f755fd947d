//! Opening messages: the queue file is checked, its journal read, its recipients resolved.
//!
//! Done by a few threads, so that a slow disk or a name service that hangs holds up neither the
//! schedule nor each other for long.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, RwLock};

use posta::mail::address::Mailbox;
use posta::mail::envelope::Origin;
use posta::mail::id::Id;
use posta::mail::status::Status;

use posta::courier::request::{Leaf, Target as Where};

use posta::route::{Failure, NoRoute, Relaying, Router};
use posta::spool::{Place, Record, Spool, SpoolError};

use crate::message::{Message, News, Target};
use crate::runner::{Event, now};

/// Threads that open messages.
const THREADS: usize = 3;

/// Hands messages to be opened to the threads, in turn.
#[derive(Debug)]
pub struct Ingest {
    lines: Vec<Sender<(Id, Place)>>,
    next: usize,
}

/// The router in force; replaced when the configuration is read again.
pub type SharedRouter = Arc<RwLock<Arc<Router>>>;

impl Ingest {
    /// Starts the threads. Every message asked for comes back as [`Event::Opened`], [`Event::NotOpened`] or
    /// [`Event::PutOnHold`].
    pub fn start(
        spool: &Arc<Spool>,
        router: &SharedRouter,
        events: &Sender<Event>,
    ) -> std::io::Result<Ingest> {
        let mut lines = Vec::new();
        for n in 0..THREADS {
            let (line, wanted) = channel();
            let (spool, router, events) = (spool.clone(), router.clone(), events.clone());
            let thread = std::thread::Builder::new().name(format!("ingest-{n}"));
            thread.spawn(move || {
                let open = |id, place| {
                    let router = router.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
                    open(&spool, &router, id, place)
                };
                work(&spool, open, &wanted, &events);
            })?;
            lines.push(line);
        }
        Ok(Ingest { lines, next: 0 })
    }

    /// Asks for a message to be opened.
    pub fn open(&mut self, id: Id, place: Place) {
        self.next = (self.next + 1) % self.lines.len();
        if self.lines[self.next].send((id, place)).is_err() {
            // The thread is gone only when it panicked; the others go on.
            log::error!("{id}: a thread that opens messages has died; it stays until the next start");
        }
    }
}

/// Opens what is wanted, with `open`. A message that makes it panic is put on hold: it stops nobody
/// else, and a person has to look at it.
fn work(
    spool: &Spool,
    open: impl Fn(Id, Place) -> Result<Message, SpoolError>,
    wanted: &Receiver<(Id, Place)>,
    events: &Sender<Event>,
) {
    for (id, place) in wanted {
        let event = match catch_unwind(AssertUnwindSafe(|| open(id, place))) {
            Ok(Ok(message)) => Event::Opened(Box::new(message)),
            Ok(Err(error)) => Event::NotOpened { id, place, error },
            Err(_) => match put_on_hold(spool, id, place) {
                Ok(()) => Event::PutOnHold(id),
                Err(error) => Event::NotOpened { id, place, error },
            },
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Notes why, if that can be done, and moves the message to `hold/`.
fn put_on_hold(spool: &Spool, id: Id, place: Place) -> Result<(), SpoolError> {
    let why = "posta-queue panicked while it opened the message (a bug: please report it)";
    log::error!("{id}: put on hold: {why}; see it with \"postactl show\", then release or delete it");
    let noted = catch_unwind(AssertUnwindSafe(|| note_hold(spool, id, place, why)));
    let place = match noted {
        Ok(Ok(place)) => place,
        // The rename alone keeps it from being tried.
        Ok(Err(_)) | Err(_) => place,
    };
    if place == Place::Hold { Ok(()) } else { spool.move_to(id, place, Place::Hold) }
}

/// Gives where the message lies then.
fn note_hold(spool: &Spool, id: Id, place: Place, why: &str) -> Result<Place, SpoolError> {
    let entry = spool.open(id, place)?;
    let records = [Record::Held { at: now(), why: why.to_string() }];
    let kept = if place == Place::New { None } else { spool.journal(&entry)? };
    match kept {
        Some(mut journal) => journal.append(&records).map(|()| place),
        None => {
            spool.set_aside(&entry, &records)?;
            Ok(if place == Place::New { Place::Cur } else { place })
        }
    }
}

/// Opens one message and finds where it goes.
pub fn open(spool: &Spool, router: &Router, id: Id, place: Place) -> Result<Message, SpoolError> {
    let entry = Arc::new(spool.open(id, place)?);
    let mut message = Message::fresh(entry.clone(), place);
    // A message in new/ whose journal is there already was being put aside when we stopped.
    if let Some(journal) = if place == Place::New { None } else { spool.journal(&entry)? } {
        message.recall(journal.records());
        take_new_ways(&mut message, router);
    }
    expand(&mut message, router, now());
    ask_terms(&mut message, router, now());
    Ok(message)
}

/// Addresses that mail was expanded to stay as they are; the way there is asked anew each time, so that mail
/// which waits takes the one that an administrator has put right meanwhile. Mail for users of this host, or
/// where nobody can say now, goes as before.
fn take_new_ways(message: &mut Message, router: &Router) {
    for target in message.targets.iter_mut().filter(|target| !target.is_final()) {
        if matches!(target.leaf.target, Where::Local(_)) {
            continue;
        }
        if let Ok(Some(way)) = router.relay(&target.leaf.address)
            && way != target.leaf.target
        {
            Arc::make_mut(&mut target.leaf).target = way;
        }
    }
}

/// Resolves the recipients that have no target yet. What leads nowhere for good becomes a target
/// that has failed; what can't be said now stays unresolved.
pub fn expand(message: &mut Message, router: &Router, now: u64) {
    let entry = message.entry.clone();
    let is_forwarded = comes_from_here(&entry.envelope.origin);
    let mut seen = Seen::default();
    for target in &message.targets {
        seen.insert(&target.leaf);
    }
    for n in message.unexpanded() {
        let address = &entry.envelope.recipients[n as usize].address;
        let before = message.targets.len();
        let mut add = |leaf: Leaf| {
            if seen.insert(&leaf) {
                message.add(Target::new(n, leaf));
            }
        };
        match router.expand_into(address, &entry.envelope.sender, is_forwarded, &mut add) {
            Ok(failures) => {
                if message.targets.len() == before {
                    let same = "delivered with another recipient of this message";
                    settle(message, n, News::ours(Status::new(2, 1, 5), same), now);
                }
                message.note_expansion(n, before, now);
                failures.into_iter().for_each(|failure| tell_owner(message, n, failure, now));
            }
            Err(why) => {
                message.targets.drain(before..).for_each(|target| seen.remove(&target.leaf));
                if why.is_temporary() {
                    message.unresolved.push((n, why));
                } else {
                    settle(message, n, News::ours(why.status, why.text), now);
                }
            }
        }
    }
}

/// What the tables say of the way to a relay.
type Said = Result<Option<Arc<Relaying>>, NoRoute>;

/// Asks what the tables say of the way to each relay, and of how much each mailbox may hold. Where they
/// can't say now, nothing is tried: what is meant for TLS only must not go without.
fn ask_terms(message: &mut Message, router: &Router, now: u64) {
    // By domain and relay: a list has many members in few places.
    let mut said: HashMap<(String, Where), Said> = HashMap::new();
    let mut astray = Vec::new();
    for (n, target) in (0..).zip(&mut message.targets).filter(|(_, target)| !target.is_final()) {
        if matches!(target.leaf.target, Where::Local(_)) {
            match router.limit(&target.leaf) {
                Ok(limit) => target.limit = limit,
                Err(why) => {
                    target.astray = true;
                    astray.push((n, why));
                }
            }
            continue;
        }
        let key = (target.leaf.address.domain().to_string(), target.leaf.target.clone());
        let ask = || router.relaying(&target.leaf).map(|said| said.map(Arc::new));
        match said.entry(key).or_insert_with(ask) {
            Ok(relaying) => target.relaying = relaying.clone(),
            Err(why) => {
                target.astray = true;
                astray.push((n, why.clone()));
            }
        }
    }
    // The domain was found before: whatever is wrong now is mended one day.
    for (n, why) in astray {
        message.hear(n, News::ours(Status::new(4, 3, 5), why.text), now);
    }
}

/// Whether a message was made on this host, though perhaps of a stranger's: by a filter, or by
/// ourselves for a user's `.forward`. Its sender may need a way back through us.
fn comes_from_here(origin: &Origin) -> bool {
    match origin {
        Origin::User { .. } | Origin::Posta | Origin::DoubleBounce => true,
        Origin::Client { .. } => false,
    }
}

/// A member of a list that leads nowhere has failed for good, and the list's owner is told. Where there
/// is no owner the log has it: strangers need not learn who is on a list.
fn tell_owner(message: &mut Message, recipient: u32, failure: Failure, now: u64) {
    let Failure { address, why, owner: Some(owner) } = failure else { return };
    let Ok(address) = Mailbox::parse(&address, true) else { return };
    let target = Where::Mx(address.domain().to_string());
    message.add(Target::new(
        recipient,
        Leaf { address, target, place: None, sender: Some(owner), of_list: true },
    ));
    message.hear(message.targets.len() as u32 - 1, News::ours(why.status, why.text), now);
}

/// Destinations that a message goes to already. It keeps a mark of each, not the destination: a list
/// may have a hundred thousand.
#[derive(Debug, Default)]
struct Seen {
    marks: HashSet<u128>,
    keys: [RandomState; 2],
}

impl Seen {
    /// Who sends a copy makes no other place of where it goes.
    fn mark(&self, leaf: &Leaf) -> u128 {
        let place = (&leaf.address, &leaf.target, &leaf.place);
        let [high, low] = &self.keys;
        u128::from(high.hash_one(place)) << 64 | u128::from(low.hash_one(place))
    }

    /// Whether it is a new one.
    fn insert(&mut self, leaf: &Leaf) -> bool {
        self.marks.insert(self.mark(leaf))
    }

    fn remove(&mut self, leaf: &Leaf) {
        self.marks.remove(&self.mark(leaf));
    }
}

/// Adds a target that is final before it was tried; its destination only names its domain.
pub fn settle(message: &mut Message, recipient: u32, news: News, now: u64) {
    let Some(named) = message.entry.envelope.recipients.get(recipient as usize) else { return };
    let address = named.address.clone();
    let target = Where::Mx(address.domain().to_string());
    message.add(Target::new(recipient, Leaf { address, target, place: None, sender: None, of_list: false }));
    message.hear(message.targets.len() as u32 - 1, news, now);
}

#[cfg(test)]
mod tests {
    use crate::stage::{self, Stage};

    use super::*;

    #[test]
    fn one_that_makes_us_panic_is_put_on_hold_and_the_next_is_opened() {
        let stage = Stage::new();
        let (bad, worse, good) = (stage.commit("bad@x"), stage.commit("worse@x"), stage.commit("good@x"));
        let entry = stage.spool.open(worse, Place::New).unwrap();
        drop(stage.spool.set_aside(&entry, &[]).unwrap());
        let open = |id, place| {
            assert!(id == good, "a message that makes us panic");
            super::open(&stage.spool, &stage::router(), id, place)
        };
        let (line, wanted) = channel();
        let (events, heard) = channel();
        for asked in [(bad, Place::New), (worse, Place::Cur), (good, Place::New)] {
            line.send(asked).unwrap();
        }
        drop(line);
        work(&stage.spool, open, &wanted, &events);
        for held in [bad, worse] {
            assert!(matches!(heard.recv(), Ok(Event::PutOnHold(id)) if id == held));
            let entry = stage.spool.open(held, Place::Hold).unwrap();
            let journal = stage.spool.journal(&entry).unwrap().unwrap();
            assert!(matches!(journal.records().last(), Some(Record::Held { .. })), "{:?}", journal.records());
        }
        assert!(matches!(heard.recv(), Ok(Event::Opened(message)) if message.entry.id == good));
    }
}
