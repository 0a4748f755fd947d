//! The data of a message: from the client into the spool.
//!
//! Octets are read into one buffer and written from there; what is on the heap does not grow with
//! the message. Whatever is wrong with a message, it is read to its end, so that client and server
//! stay in step (RFC 5321 4.2.5).

use std::io::Read;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use posta::logbook::entry::Client;
use posta::mail::envelope::{Envelope, Origin};
use posta::mail::id::Id;
use posta::mail::trace;
use posta::smtp::data::DataReader;
use posta::smtp::reply::Reply;
use posta::smtp::server::{DataFault, Transaction};
use posta::spool::{Committed, Draft, SpoolError};

use crate::house::House;
use crate::session::{Loss, Session};

/// At least so much room there is for a read.
const BLOCK: usize = 32 * 1024;

/// Receives a message and stores it: [`Committed`] once it is safe. The client is told to go ahead
/// only when there is a place to write to.
pub fn receive(
    session: &mut Session,
    house: &House,
    out: &mut Vec<u8>,
    go_ahead: &Reply,
) -> Result<Result<Committed, DataFault>, Loss> {
    let draft = match Draft::begin(&house.spool) {
        Ok(draft) => draft,
        Err(error) => return Ok(Err(fault(None, &error))),
    };
    let id = draft.id();
    session.receiving = Some(id);
    log::info!("{}", Client { id, peer: session.peer(), login: None });
    go_ahead.write_to(out);
    session.flush(out)?;
    let draft = match read_data(session, draft)? {
        Ok(draft) => draft,
        Err(fault) => return Ok(Err(fault)),
    };
    let Some(transaction) = session.server.transaction() else {
        log::error!("{id}: data came without a transaction");
        return Ok(Err(DataFault::Disk));
    };
    let envelope = envelope(session, transaction, id);
    Ok(house.committer.commit(draft, &envelope).map_err(|error| fault(Some(id), &error)))
}

/// Reads the data to its end, and writes it while nothing is wrong with it.
fn read_data(session: &mut Session, draft: Draft) -> Result<Result<Draft, DataFault>, Loss> {
    let id = draft.id();
    let mut reader = DataReader::new(session.terms.smtp.max_message_size, session.terms.max_hops);
    let latest = Instant::now() + session.terms.message_timeout;
    let mut stored = Ok(draft);
    loop {
        if !session.lines.is_empty() {
            let progress = reader.feed(session.lines.unread(), &mut |octets| {
                let failed = stored.as_mut().ok().and_then(|draft| draft.push(octets).err());
                if let Some(error) = failed {
                    stored = Err(fault(Some(id), &error));
                }
            });
            session.lines.consume(progress.consumed);
            if let Some(fault) = reader.fault()
                && stored.is_ok()
            {
                // What was written goes now, and not when the client is done.
                stored = Err(fault.clone());
            }
            if progress.done {
                return Ok(stored);
            }
        }
        session.stream.set_deadline(Some(latest.min(Instant::now() + session.terms.data_timeout)));
        let count = session.stream.read(session.lines.space(BLOCK))?;
        if count == 0 {
            return Err(Loss::Gone);
        }
        session.lines.filled(count);
    }
}

/// Everything that is said about the message beside itself.
fn envelope(session: &Session, transaction: &Transaction, id: Id) -> Envelope {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (helo, extended) = session.server.greeted_as().unwrap_or_default();
    let protocol = trace::Protocol { extended, utf8: transaction.utf8, ..trace::Protocol::default() }.word();
    let received = trace::Received {
        helo,
        reverse: None,
        address: session.client.address,
        by: &session.terms.smtp.hostname,
        protocol,
        id,
        recipients: &transaction.recipients,
        date: &trace::date(i64::try_from(now.as_secs()).unwrap_or_default()),
    };
    Envelope {
        sender: transaction.sender.clone(),
        ret: transaction.ret,
        envid: transaction.envid.clone(),
        recipients: transaction.recipients.clone(),
        origin: Origin::Client {
            address: session.client.address,
            helo: helo.to_string(),
            protocol: protocol.to_string(),
            login: None,
        },
        arrived: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        body: transaction.body,
        utf8: transaction.utf8,
        require_tls: false,
        trace: received.field().into_bytes(),
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
