//! What the administrator wants: orders on `run/queue` (courier/order), answered.
//!
//! The thread that serves a connection reads files; the runner only says what it knows and does what
//! changes the queue.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use posta::mail::address::Mailbox;
use posta::mail::id::Id;
use posta::unix::pass::{MAX_PACKET, PacketListener, Packets, Peer};

use posta::courier::order::{Answer, Failure, Order, Row};

use posta::logbook::history;

use posta::spool::{Place, Record, Spool, SpoolError};

use crate::destination::of_target;
use crate::ingest::SharedRouter;
use crate::listed::{Listed, State};
use crate::message::Message;
use crate::runner::{Event, date, failure};

/// Connections served at once.
const CONNECTIONS: usize = 16;
/// Of these so many are kept for those who may change the queue.
const KEPT: usize = 4;
/// A peer has this long to say what it wants, and for reading each answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// While an answer is waited for, it is looked this often whether anybody still waits.
const LOOK: Duration = Duration::from_secs(1);

/// A message in a list: what the runner knows of it.
#[derive(Debug)]
pub struct Listing {
    /// Which, where, and in what state.
    pub listed: Listed,
    /// The row, where the message is open.
    pub row: Option<Box<Row>>,
}

/// Serves `run/queue`.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The queue's spool.
    pub spool: Arc<Spool>,
    /// Tells which destination a domain's mail waits for.
    pub router: SharedRouter,
    /// To the runner.
    pub events: Sender<Event>,
    /// Connections that are being served.
    pub busy: Arc<AtomicUsize>,
    /// The folder with what became of messages that are gone.
    pub history: PathBuf,
}

impl Desk {
    /// Serves `listener` for ever, in threads of its own.
    pub fn serve(self, listener: PacketListener) -> io::Result<()> {
        std::thread::Builder::new().name("desk".into()).spawn(move || {
            loop {
                match listener.accept() {
                    Ok(packets) => self.accept(packets),
                    Err(error) => {
                        log::error!("run/queue: {error}");
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            }
        })?;
        Ok(())
    }

    fn accept(&self, packets: Packets) {
        let most = if packets.peer().is_ok_and(is_master) { CONNECTIONS } else { CONNECTIONS - KEPT };
        if self.busy.fetch_add(1, Ordering::Relaxed) >= most {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            let busy = Answer::Failed(Failure::Later, format!("{most} others are being answered; try again"));
            // Whoever asked sees the end of the connection if even this does not reach it.
            let _ = busy.encode().map(|packet| packets.try_send(&packet, None));
            return;
        }
        let desk = self.clone();
        let spawned = std::thread::Builder::new().name("order".into()).spawn(move || {
            if let Err(error) = desk.answer(&packets) {
                log::debug!("run/queue: {error}");
            }
            desk.busy.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            log::error!("run/queue: no thread to answer: {error}");
        }
    }

    fn answer(&self, packets: &Packets) -> io::Result<()> {
        packets.set_receive_timeout(PATIENCE)?;
        packets.set_send_timeout(PATIENCE)?;
        let peer = packets.peer()?;
        let mut buffer = vec![0; MAX_PACKET];
        let (length, _) = packets.receive(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let order = match Order::decode(&buffer[..length]) {
            Ok(order) => order,
            Err(error) => return say(packets, &Answer::Failed(Failure::Wrong, error.to_string())),
        };
        if !order.is_harmless() && !is_master(peer) {
            let why = "only root and the queue's own user may do this".to_string();
            return say(packets, &Answer::Failed(Failure::Denied, why));
        }
        match order {
            Order::List => self.list(packets),
            Order::Show(id) => self.show(packets, id),
            Order::Cat(id) => self.cat(packets, id),
            Order::RetryDomain(domain) => match self.destination(&domain) {
                Ok(name) => {
                    log::info!("order: retry {domain} (uid={})", peer.uid);
                    self.retry(packets, &domain, name)
                }
                Err((kind, why)) => say(packets, &Answer::Failed(kind, why)),
            },
            Order::Pause(domain) => self.pause(packets, &domain, true, peer.uid),
            Order::Resume(domain) => self.pause(packets, &domain, false, peer.uid),
            other => {
                if !other.is_harmless() {
                    log::info!("order: {other:?} (uid={})", peer.uid);
                }
                self.pass_on(packets, other)
            }
        }
    }

    /// Notes a pause, or its end, so that it outlives the runner; then tells the runner.
    fn pause(&self, packets: &Packets, domain: &str, paused: bool, uid: u32) -> io::Result<()> {
        let name = match self.destination(domain) {
            Ok(name) => name,
            Err((kind, why)) => return say(packets, &Answer::Failed(kind, why)),
        };
        log::info!("order: {} {name} (uid={uid})", if paused { "pause" } else { "resume" });
        match self.spool.set_paused(&name, paused) {
            Ok(_) => {
                let order = if paused { Order::Pause(name) } else { Order::Resume(name) };
                self.pass_on(packets, order)
            }
            Err(error) => say(packets, &Answer::Failed(failure(&error), error.to_string())),
        }
    }

    /// The name of the destination that mail for a domain goes to; what is no domain may be such a
    /// name itself. Mail for a domain with users goes to no one destination.
    fn destination(&self, domain: &str) -> Result<String, (Failure, String)> {
        let router = self.router.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let Ok(address) = Mailbox::from_parts("postmaster", domain) else { return Ok(domain.to_lowercase()) };
        match router.relay(&address) {
            Ok(Some(target)) => Ok(of_target(&target).1),
            Ok(None) => {
                let why =
                    format!("{domain} has its users here; this is for domains whose mail goes elsewhere");
                Err((Failure::Wrong, why))
            }
            Err(why) => Err((Failure::Later, format!("{domain}: {why}"))),
        }
    }

    /// Gives an order to the runner and its answers to the peer.
    fn pass_on(&self, packets: &Packets, order: Order) -> io::Result<()> {
        let (sender, answers) = channel();
        self.events.send(Event::Order(order, sender)).map_err(io::Error::other)?;
        self.tell(packets, &answers)
    }

    /// Gives the runner's answers to the peer.
    pub(crate) fn tell(&self, packets: &Packets, answers: &Receiver<Answer>) -> io::Result<()> {
        loop {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => {
                    say(packets, &answer)?;
                    if matches!(answer, Answer::End | Answer::Failed(..)) {
                        return Ok(());
                    }
                }
                // The order is carried out all the same.
                Err(RecvTimeoutError::Timeout) if packets.has_gone()? => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        say(packets, &Answer::Failed(Failure::Later, "posta-queue is going down".into()))
    }

    /// Row by row, in the order of the ids: however long the queue is, one message is open at a time.
    fn list(&self, packets: &Packets) -> io::Result<()> {
        let (sender, answer) = channel();
        self.events.send(Event::List(sender)).map_err(io::Error::other)?;
        let mut listings = answer.recv().map_err(io::Error::other)?;
        listings.sort_unstable_by_key(|listing| listing.listed.id);
        for Listing { listed, row } in listings {
            let row = match row {
                Some(row) => Some(*row),
                None => self.look(listed.id, listed.place).ok().map(|(m, _)| make_row(&m, &listed)),
            };
            // One that was finished since the list was made is not in it.
            if let Some(row) = row {
                say(packets, &Answer::Row(row))?;
            }
        }
        say(packets, &Answer::End)
    }

    /// A message that is not open, as its files say; nothing of it is changed.
    pub(crate) fn look(&self, id: Id, place: Place) -> Result<(Message, Vec<Record>), SpoolError> {
        let entry = Arc::new(self.spool.peek(id, place)?);
        let records = if place == Place::New { Vec::new() } else { self.spool.peek_journal(&entry)? };
        let mut message = Message::fresh(entry, place);
        message.recall(&records);
        Ok((message, records))
    }

    fn find(&self, id: Id) -> Result<(Message, Vec<Record>), SpoolError> {
        let places = [Place::Cur, Place::Hold, Place::New];
        let mut last = SpoolError::Gone { id };
        for place in places {
            match self.look(id, place) {
                Err(SpoolError::Gone { .. }) => {}
                Err(error) => last = error,
                found => return found,
            }
        }
        Err(last)
    }

    fn show(&self, packets: &Packets, id: Id) -> io::Result<()> {
        let (sender, answer) = channel();
        self.events.send(Event::Find(id, sender)).map_err(io::Error::other)?;
        let known = answer.recv().map_err(io::Error::other)?;
        let (message, records) = match self.find(id) {
            Ok(found) => found,
            Err(SpoolError::Gone { .. }) => return self.show_history(packets, id),
            Err(error) => return say(packets, &Answer::Failed(failure(&error), error.to_string())),
        };
        let unknown = Listed { id, place: message.place, state: State::Active, due: 0 };
        let listed = known.as_ref().map_or(unknown, |known| known.listed);
        let row = known.and_then(|known| known.row).map_or_else(|| make_row(&message, &listed), |row| *row);
        say(packets, &Answer::Row(row))?;
        // What a history that can't be read would add is not worth an error.
        let told = history::find(&self.history, id).unwrap_or_default();
        for record in &records {
            if let Some(text) = in_words(&message, record, &told) {
                say(packets, &Answer::Text(text))?;
            }
        }
        say(packets, &Answer::End)
    }

    /// A message that is not in the queue (any more).
    fn show_history(&self, packets: &Packets, id: Id) -> io::Result<()> {
        let failed = |kind, why: String| say(packets, &Answer::Failed(kind, why));
        match history::find(&self.history, id) {
            Ok(lines) if lines.is_empty() => {
                failed(Failure::Wrong, format!("{id}: no such message, nor is it in the history"))
            }
            Ok(lines) => {
                for (at, text) in lines {
                    say(packets, &Answer::Text(format!("{}: {text}", date(at))))?;
                }
                say(packets, &Answer::End)
            }
            Err(error) => failed(Failure::Later, format!("{}: {error}", self.history.display())),
        }
    }

    fn cat(&self, packets: &Packets, id: Id) -> io::Result<()> {
        use std::os::fd::AsFd;
        match self.find(id) {
            Ok((message, _)) => {
                let size = Answer::Text(message.entry.size.to_string());
                let packet = size.encode().map_err(io::Error::other)?;
                packets.send(&packet, Some(message.entry.file.as_fd()))?;
                say(packets, &Answer::End)
            }
            Err(error) => say(packets, &Answer::Failed(failure(&error), error.to_string())),
        }
    }
}

/// Whether somebody may change the queue: root, and the queue's own user.
fn is_master(peer: Peer) -> bool {
    peer.uid == 0 || peer.uid == posta::unix::users::current().1
}

fn say(packets: &Packets, answer: &Answer) -> io::Result<()> {
    let packet = answer.encode().map_err(io::Error::other)?;
    packets.send(&packet, None)
}

/// The row of a message.
pub fn make_row(message: &Message, listed: &Listed) -> Row {
    let envelope = &message.entry.envelope;
    let mut recipients = message.outstanding();
    if recipients.is_empty() && message.targets.is_empty() {
        recipients = envelope.recipients.iter().map(|r| r.address.to_string()).collect();
    }
    Row {
        id: listed.id,
        state: listed.state.word().to_string(),
        sender: envelope.sender.to_string(),
        recipients,
        size: message.entry.size,
        arrived: envelope.arrived,
        next: listed.next().map(|due| due / crate::schedule::SECOND),
        reason: message.reason(),
    }
}

/// A line of a journal as a person reads it; `None` for those that say nothing to one.
fn in_words(message: &Message, record: &Record, told: &[(u64, String)]) -> Option<String> {
    let to =
        |n: &u32| message.targets.get(*n as usize).map(|t| t.leaf.address.to_string()).unwrap_or_default();
    let host = |relay: &str| if relay.is_empty() { String::new() } else { format!(" by {relay}") };
    let aside = |at: &u64, n: &u32| aside(told, *at, &to(n));
    Some(match record {
        Record::Head { .. } | Record::Expanded => return None,
        Record::Target { recipient, leaf, .. } => {
            let first = message.entry.envelope.recipients.get(*recipient as usize)?;
            format!("route: <{}> goes to {} as <{}>", first.address, of_target(&leaf.target).1, leaf.address)
        }
        Record::Done { n, at, relay, text, .. } => {
            format!("{}: <{}> delivered{}: {text}{}", date(*at), to(n), host(relay), aside(at, n))
        }
        Record::Later { n, at, relay, text, .. } => {
            format!("{}: <{}> not yet{}: {text}{}", date(*at), to(n), host(relay), aside(at, n))
        }
        Record::Never { n, at, relay, text, .. } => {
            format!("{}: <{}> failed{}: {text}{}", date(*at), to(n), host(relay), aside(at, n))
        }
        Record::Reported { n, at } => format!("{}: <{}> is settled with the sender", date(*at), to(n)),
        Record::Warned { at } => format!("{}: the sender was told of the delay", date(*at)),
        Record::Strike { at } => {
            format!("{}: a delivery program died while it held the message", date(*at))
        }
        Record::Held { at, why } => format!("{}: put on hold: {why}", date(*at)),
        Record::Released { at } => format!("{}: released", date(*at)),
        Record::Attempt { at, count } => format!("{}: end of attempt {count}", date(*at)),
    })
}

/// What the history has of an attempt and the journal has not: how the way was protected, and the
/// session that was kept. Both name the same microsecond.
fn aside(told: &[(u64, String)], at: u64, to: &str) -> String {
    let start = format!("to=<{to}>,");
    let line = told.iter().find(|(when, line)| *when == at && line.starts_with(&start));
    let more = line.and_then(|(_, line)| line.rsplit_once(", tls="));
    more.map_or(String::new(), |(_, more)| format!(", tls={more}"))
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use crate::stage::{Stage, router};

    use super::*;

    fn desk(stage: &Stage, events: Sender<Event>) -> Desk {
        let router = Arc::new(RwLock::new(Arc::new(router())));
        let (busy, history) = (Arc::new(AtomicUsize::new(0)), PathBuf::from("/no/such"));
        Desk { spool: stage.spool.clone(), router, events, busy, history }
    }

    #[test]
    fn whoever_asked_and_has_gone_is_not_waited_for() {
        let stage = Stage::new();
        let (events, heard) = channel();
        let desk = desk(&stage, events);
        let (ours, theirs) = Packets::pair().unwrap();
        theirs.send(&Order::Pass.encode().unwrap(), None).unwrap();
        drop(theirs);
        desk.answer(&ours).unwrap();
        assert!(matches!(heard.try_recv(), Ok(Event::Order(Order::Pass, _))));
    }

    #[test]
    fn a_domain_with_users_is_no_destination() {
        let stage = Stage::new();
        let desk = desk(&stage, channel().0);
        assert_eq!(desk.destination("Elsewhere.Example").ok().as_deref(), Some("elsewhere.example"));
        assert_eq!(desk.destination("smtp:relay.example:25").ok().as_deref(), Some("smtp:relay.example:25"));
        assert!(matches!(desk.destination("localhost"), Err((Failure::Wrong, _))));
    }
}
