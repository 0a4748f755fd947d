//! Everything that is said about a message beside itself: its envelope, and its Received field.

use std::time::{SystemTime, UNIX_EPOCH};

use posta::mail::envelope::{Envelope, Origin};
use posta::mail::id::Id;
use posta::mail::trace;
use posta::net::stream::Security;
use posta::smtp::server::Transaction;

use crate::session::Session;

/// The envelope of the message that the session has just received.
pub fn envelope(session: &Session, transaction: &Transaction, id: Id) -> Envelope {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (helo, extended) = session.server.greeted_as().unwrap_or_default();
    let client = &session.guest.client;
    let protocol = trace::Protocol {
        extended,
        lmtp: session.entrance.lmtp,
        secure: session.server.is_secure(),
        login: client.login.is_some(),
        utf8: transaction.utf8,
    };
    let protocol = protocol.word();
    let tls = session.stream.security().map(encryption);
    let received = trace::Received {
        helo,
        reverse: session.guest.name(),
        address: client.address,
        hidden: session.terms.hide_client && client.login.is_some(),
        tls,
        by: &session.terms.smtp.hostname,
        protocol,
        id,
        recipients: &transaction.recipients,
        date: &date(now.as_secs()),
    };
    Envelope {
        sender: transaction.sender.clone(),
        ret: transaction.ret,
        envid: transaction.envid.clone(),
        recipients: transaction.recipients.clone(),
        origin: Origin::Client {
            address: client.address,
            helo: helo.to_string(),
            protocol: protocol.to_string(),
            login: client.login.clone(),
        },
        arrived: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        body: transaction.body,
        utf8: transaction.utf8,
        require_tls: transaction.require_tls,
        trace: received.field().into_bytes(),
    }
}

/// What TLS has agreed on, in the words of field and log.
pub fn encryption(tls: &Security) -> trace::Encryption<'_> {
    trace::Encryption { version: &tls.version, cipher: &tls.cipher, bits: tls.bits }
}

/// A time, in seconds since 1970, as header fields have it.
pub fn date(seconds: u64) -> String {
    trace::date(i64::try_from(seconds).unwrap_or_default())
}
