//! The data of a message: from the client into the spool, by DATA or in the chunks of BDAT.
//!
//! Octets are read into one buffer and written from there; what is on the heap does not grow with
//! the message. Whatever is wrong with a message, it is read to its end, so that client and server
//! stay in step (RFC 5321 4.2.5, RFC 3030 2).

use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use posta::mail::address::ReversePath;
use posta::mail::complete::{Completion, Facts};
use posta::mail::envelope::BodyKind;
use posta::mail::id::Id;
use posta::smtp::chunk::ChunkReader;
use posta::smtp::data::DataReader;
use posta::smtp::reply::Reply;
use posta::smtp::server::{DataFault, Event};
use posta::spool::{Committed, Draft, SpoolError};

use crate::house::House;
use crate::session::{Loss, Session};
use crate::trace::{date, envelope};

/// At least so much room there is for a read.
const BLOCK: usize = 32 * 1024;

/// Between two looks at how busy the house is, while a client's data is waited for.
const LOOK: Duration = Duration::from_secs(5);

/// A message on its way into the spool.
#[derive(Debug)]
pub struct Intake {
    id: Id,
    /// Why it can't be stored, if that is known.
    stored: Result<Draft, DataFault>,
    /// Puts in what a submitted message lacks (RFC 6409 8).
    completion: Option<Completion>,
    pace: Pace,
}

/// How fast data has to come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    begun: Instant,
    /// Octets that have come.
    received: u64,
}

impl Pace {
    fn begin() -> Pace {
        Pace { begun: Instant::now(), received: 0 }
    }

    /// When the octets that are waited for since `asked` have to be there: within the time of a piece;
    /// within that of the whole; and so that no client makes a little last for ever.
    fn deadline(&self, asked: Instant, session: &Session) -> Instant {
        let terms = &session.terms;
        let piece = session.patience(terms.data_timeout);
        let whole = self.begun + terms.message_timeout;
        let steady = match terms.min_data_rate {
            0 => whole,
            rate => self.begun + piece + Duration::from_secs(self.received / rate),
        };
        (asked + piece).min(whole).min(steady)
    }
}

/// A message that comes in chunks.
#[derive(Debug)]
pub struct Chunks {
    intake: Intake,
    reader: ChunkReader,
}

/// Receives a message by DATA and stores it: with [`Committed`] once it is safe. The client is told
/// to go ahead only when there is a place to write to.
pub fn receive(
    session: &mut Session,
    house: &House,
    out: &mut Vec<u8>,
    go_ahead: &Reply,
) -> Result<Event<'static, Committed>, Loss> {
    let mut intake = match Intake::begin(session, house) {
        Ok(intake) => intake,
        Err(fault) => return Ok(Event::NoPlace(fault)),
    };
    go_ahead.write_to(out);
    session.flush(out)?;
    let mut reader = DataReader::new(session.terms.smtp.max_message_size, session.terms.max_hops);
    loop {
        if !session.lines.is_empty() {
            let progress = reader.feed(session.lines.unread(), &mut |octets| intake.push(octets));
            session.lines.consume(progress.consumed);
            intake.note(reader.fault());
            if progress.done {
                return Ok(Event::Data(intake.finish(session, house)));
            }
        }
        read_more(session, &mut intake.pace)?;
    }
}

/// Receives a chunk, and with the last one stores the message. Where there is no place for it the
/// chunk is read all the same.
pub fn receive_chunk(
    session: &mut Session,
    house: &House,
    out: &mut Vec<u8>,
    size: u64,
    last: bool,
) -> Result<Event<'static, Committed>, Loss> {
    let mut chunks = match session.chunks.take() {
        Some(chunks) => chunks,
        None => match Chunks::begin(session, house) {
            Ok(chunks) => Box::new(chunks),
            Err(fault) => {
                swallow(session, out, size)?;
                return Ok(Event::NoPlace(fault));
            }
        },
    };
    let Chunks { intake, reader } = &mut *chunks;
    let mut pace = intake.pace;
    let each = |octets: &[u8]| {
        reader.feed(octets, &mut |octets| intake.push(octets));
        intake.note(reader.fault());
    };
    read_exactly(session, out, size, &mut pace, each)?;
    intake.pace = pace;
    if last {
        reader.finish(&mut |octets| intake.push(octets));
        intake.note(reader.fault());
        return Ok(Event::Data(chunks.intake.finish(session, house)));
    }
    let outcome = intake.stored.as_ref().map(|_| ()).map_err(DataFault::clone);
    session.chunks = outcome.is_ok().then_some(chunks);
    Ok(Event::Chunk(outcome))
}

/// Reads a chunk that nobody wants.
pub fn swallow(session: &mut Session, out: &mut Vec<u8>, size: u64) -> Result<(), Loss> {
    read_exactly(session, out, size, &mut Pace::begin(), |_| ())
}

/// Gives the next `size` octets to `each`. What was to be said before is said first, if they are not
/// there yet.
fn read_exactly(
    session: &mut Session,
    out: &mut Vec<u8>,
    size: u64,
    pace: &mut Pace,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Loss> {
    let mut left = size;
    loop {
        let unread = session.lines.unread();
        let count = usize::try_from(left).map_or(unread.len(), |left| unread.len().min(left));
        each(&unread[..count]);
        session.lines.consume(count);
        left -= count as u64;
        if left == 0 {
            return Ok(());
        }
        session.flush(out)?;
        read_more(session, pace)?;
    }
}

/// Reads once, at the pace that there has to be. A worker is held for so long: whether others want one
/// is looked at again and again.
fn read_more(session: &mut Session, pace: &mut Pace) -> Result<(), Loss> {
    let asked = Instant::now();
    let count = loop {
        let deadline = pace.deadline(asked, session);
        session.stream.set_deadline(Some(deadline.min(Instant::now() + LOOK)));
        match session.stream.read(session.lines.space(BLOCK)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && Instant::now() < deadline => {}
            read => break read?,
        }
    };
    if count == 0 {
        return Err(Loss::Gone);
    }
    pace.received += count as u64;
    session.lines.filled(count);
    Ok(())
}

impl Chunks {
    fn begin(session: &mut Session, house: &House) -> Result<Chunks, DataFault> {
        let intake = Intake::begin(session, house)?;
        let binary = session.server.transaction().is_some_and(|it| it.body == BodyKind::BinaryMime);
        let reader = ChunkReader::new(session.terms.smtp.max_message_size, session.terms.max_hops, binary);
        Ok(Chunks { intake, reader })
    }
}

impl Intake {
    /// Opens a draft, and says so in the log.
    fn begin(session: &mut Session, house: &House) -> Result<Intake, DataFault> {
        let draft = Draft::begin(&house.spool).map_err(|error| fault(None, &error))?;
        let id = draft.id();
        session.receiving = Some(id);
        session.log_client(id);
        let completion = session.entrance.submission.then(|| Completion::new(facts(session, id)));
        Ok(Intake { id, stored: Ok(draft), completion, pace: Pace::begin() })
    }

    /// Takes octets of the message in.
    fn push(&mut self, octets: &[u8]) {
        let Intake { id, stored, completion, .. } = self;
        let mut store = |octets: &[u8]| {
            let failed = stored.as_mut().ok().and_then(|draft| draft.push(octets).err());
            if let Some(error) = failed {
                *stored = Err(fault(Some(*id), &error));
            }
        };
        match completion {
            Some(completion) => completion.feed(octets, &mut store),
            None => store(octets),
        }
    }

    /// There are no more octets: what is missing in a header that never ended comes now.
    fn complete(&mut self) {
        let Some(mut completion) = self.completion.take() else { return };
        let mut rest = Vec::new();
        completion.end(&mut |octets| rest.extend_from_slice(octets));
        self.push(&rest);
        if completion.is_too_long() {
            self.note(Some(&DataFault::TooBig));
        }
    }

    /// What the reader has found. What was written goes now, and not when the client is done.
    fn note(&mut self, fault: Option<&DataFault>) {
        if let Some(fault) = fault
            && self.stored.is_ok()
        {
            self.stored = Err(fault.clone());
        }
    }

    /// The message is whole: stores it.
    fn finish(mut self, session: &mut Session, house: &House) -> Result<Committed, DataFault> {
        session.receiving = Some(self.id);
        self.complete();
        let draft = self.stored?;
        let Some(transaction) = session.server.transaction() else {
            log::error!("{}: data came without a transaction", self.id);
            return Err(DataFault::Disk);
        };
        let mut envelope = envelope(session, transaction, self.id);
        session.discards.take_out(&mut envelope, self.id);
        if envelope.recipients.is_empty() {
            return Err(DataFault::Discarded(self.id));
        }
        let committed =
            house.committer.commit(draft, &envelope).map_err(|error| fault(Some(self.id), &error))?;
        (session.bore_fruit, session.waited_to_speak) = (Instant::now(), Duration::ZERO);
        Ok(committed)
    }
}

/// What a submitted message is completed with.
fn facts(session: &Session, id: Id) -> Facts {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hostname = session.terms.smtp.hostname.clone();
    let domain = session.server.domain_of_users().map(str::to_string);
    let sender = session.server.transaction().map(|transaction| transaction.sender.clone());
    Facts {
        date: date(now.as_secs()),
        id: id.to_string(),
        domain: domain.unwrap_or_else(|| hostname.clone()),
        hostname,
        sender: sender.unwrap_or(ReversePath::Null),
        name: String::new(),
        login: session.guest.client.login.clone(),
    }
}

/// What the spool's error is to the client; what exactly it was is for the log alone.
fn fault(id: Option<Id>, error: &SpoolError) -> DataFault {
    match id {
        Some(id) => log::error!("{id}: cannot store this message: {error}"),
        None => log::error!("cannot store a message: {error}"),
    }
    match error {
        SpoolError::Full { .. } => DataFault::Full,
        _ => DataFault::Disk,
    }
}
