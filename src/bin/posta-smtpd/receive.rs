//! The data of a message: from the client into the spool, by DATA or in the chunks of BDAT.
//!
//! Octets are read into one buffer and written from there; what is on the heap does not grow with
//! the message. Whatever is wrong with a message, it is read to its end, so that client and server
//! stay in step (RFC 5321 4.2.5, RFC 3030 2).

use std::io::Read;
use std::time::Instant;

use posta::logbook::entry::Client;
use posta::mail::envelope::BodyKind;
use posta::mail::id::Id;
use posta::smtp::chunk::ChunkReader;
use posta::smtp::data::DataReader;
use posta::smtp::reply::Reply;
use posta::smtp::server::{DataFault, Event};
use posta::spool::{Committed, Draft, SpoolError};

use crate::house::House;
use crate::session::{Loss, Session};
use crate::trace::envelope;

/// At least so much room there is for a read.
const BLOCK: usize = 32 * 1024;

/// A message on its way into the spool.
#[derive(Debug)]
pub struct Intake {
    id: Id,
    /// Why it can't be stored, if that is known.
    stored: Result<Draft, DataFault>,
    /// Its data has to be whole by then.
    latest: Instant,
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
        read_more(session, intake.latest)?;
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
    let latest = intake.latest;
    let each = |octets: &[u8]| {
        reader.feed(octets, &mut |octets| intake.push(octets));
        intake.note(reader.fault());
    };
    read_exactly(session, out, size, latest, each)?;
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
    let latest = Instant::now() + session.terms.message_timeout;
    read_exactly(session, out, size, latest, |_| ())
}

/// Gives the next `size` octets to `each`. What was to be said before is said first, if they are not
/// there yet.
fn read_exactly(
    session: &mut Session,
    out: &mut Vec<u8>,
    size: u64,
    latest: Instant,
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
        read_more(session, latest)?;
    }
}

/// Reads once, before `latest` and before the end of what a piece may take.
fn read_more(session: &mut Session, latest: Instant) -> Result<(), Loss> {
    session.stream.set_deadline(Some(latest.min(Instant::now() + session.terms.data_timeout)));
    let count = session.stream.read(session.lines.space(BLOCK))?;
    if count == 0 {
        return Err(Loss::Gone);
    }
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
        log::info!("{}", Client { id, peer: session.peer(), login: None });
        Ok(Intake { id, stored: Ok(draft), latest: Instant::now() + session.terms.message_timeout })
    }

    /// Takes octets of the message in.
    fn push(&mut self, octets: &[u8]) {
        let failed = self.stored.as_mut().ok().and_then(|draft| draft.push(octets).err());
        if let Some(error) = failed {
            self.stored = Err(fault(Some(self.id), &error));
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
    fn finish(self, session: &mut Session, house: &House) -> Result<Committed, DataFault> {
        session.receiving = Some(self.id);
        let draft = self.stored?;
        let Some(transaction) = session.server.transaction() else {
            log::error!("{}: data came without a transaction", self.id);
            return Err(DataFault::Disk);
        };
        let envelope = envelope(session, transaction, self.id);
        house.committer.commit(draft, &envelope).map_err(|error| fault(Some(self.id), &error))
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
