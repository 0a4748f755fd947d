//! Telling senders: delivery status notifications are composed and committed as new mail with a null
//! sender (RFC 3464, RFC 5321 6.1).

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient, Ret};
use posta::mail::header;
use posta::mail::id::Id;
use posta::mail::report::{GivenBack, Report, Reported};
use posta::mail::trace;

use posta::spool::{Committer, Draft, Entry, Spool, SpoolError};

use crate::runner::date;

/// A header longer than this comes back cut at a field.
const MOST_HEADER: u64 = 64 * 1024;
/// A message longer than this comes back as its header only, also where RET=FULL was asked for.
const MOST_WHOLE: u64 = 1024 * 1024;
const BLOCK: usize = 64 * 1024;

/// What the sender of one message is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Who is told.
    pub to: Mailbox,
    /// The targets that it tells of; they count as reported once it is committed.
    pub targets: Vec<u32>,
    /// What became of them.
    pub recipients: Vec<Reported>,
    /// It tells of a delay, not of an end: until when we try, in microseconds since 1970.
    pub until: Option<u64>,
}

/// Writes notices.
#[derive(Debug)]
pub struct Bouncer {
    /// Where they are put.
    pub spool: Arc<Spool>,
    /// Makes them durable.
    pub committer: Arc<Committer>,
    /// Our host name.
    pub hostname: String,
}

impl Bouncer {
    /// Composes a notice about `entry` and commits it; gives its queue id. Nothing is ever sent to a
    /// null sender: the caller does not ask.
    pub fn tell(&self, entry: &Entry, notice: &Notice, now: u64) -> Result<Id, SpoolError> {
        let to = &notice.to;
        let mut draft = Draft::begin(&self.spool)?;
        let envelope = &entry.envelope;
        let whole = envelope.ret == Some(Ret::Full) && entry.size <= MOST_WHOLE && notice.until.is_none();
        let head = original_head(entry)?;
        let eight_bit =
            envelope.utf8 || envelope.body != BodyKind::SevenBit || head.iter().any(|b| *b >= 0x80);
        let own_id = draft.id();
        let until = notice.until.map(date);
        let (before, after) = Report {
            hostname: &self.hostname,
            id: entry.id.as_str(),
            own_id: own_id.as_str(),
            to,
            envid: envelope.envid.as_deref(),
            arrived: &date(envelope.arrived),
            date: &date(now),
            until: until.as_deref(),
            recipients: &notice.recipients,
            given_back: if whole { GivenBack::Whole } else { GivenBack::Header },
            eight_bit,
        }
        .compose();
        draft.push(&before)?;
        draft.push(&envelope.trace)?;
        if whole {
            copy_all(entry, &mut draft)?
        } else {
            draft.push(&head)?
        }
        draft.push(&after)?;
        let own = Envelope {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            recipients: vec![Recipient::plain(to.clone())],
            origin: Origin::Posta,
            arrived: now,
            body: if eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit },
            utf8: to.needs_utf8() || notice.recipients.iter().any(|r| r.address.needs_utf8()),
            require_tls: envelope.require_tls,
            trace: trace::made_here(&self.hostname, own_id, &date(now)).into_bytes(),
        };
        Ok(self.committer.commit(draft, &own)?.id())
    }
}

/// The header section of the original, without the empty line.
fn original_head(entry: &Entry) -> Result<Vec<u8>, SpoolError> {
    let mut head = vec![0; entry.size.min(MOST_HEADER) as usize];
    read_at(entry, &mut head, 0)?;
    let end = header::split(&head).0.len();
    head.truncate(end);
    Ok(head)
}

fn copy_all(entry: &Entry, draft: &mut Draft) -> Result<(), SpoolError> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < entry.size {
        let length = (entry.size - at).min(BLOCK as u64) as usize;
        read_at(entry, &mut block[..length], at)?;
        draft.push(&block[..length])?;
        at += length as u64;
    }
    Ok(())
}

fn read_at(entry: &Entry, buffer: &mut [u8], at: u64) -> Result<(), SpoolError> {
    let named = |source| SpoolError::Io { path: entry.id.to_string(), source };
    entry.file.read_exact_at(buffer, at).map_err(named)
}
