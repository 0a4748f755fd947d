//! Everything that is said about a message beside itself: its envelope, and its Received field.

use std::time::{SystemTime, UNIX_EPOCH};

use posta::mail::envelope::{Envelope, Origin};
use posta::mail::id::Id;
use posta::mail::trace;
use posta::smtp::server::Transaction;

use crate::session::Session;

/// The envelope of the message that the session has just received.
pub fn envelope(session: &Session, transaction: &Transaction, id: Id) -> Envelope {
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
        require_tls: transaction.require_tls,
        trace: received.field().into_bytes(),
    }
}
