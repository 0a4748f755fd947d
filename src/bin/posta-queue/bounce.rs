//! Telling senders: delivery status notifications are composed and committed as new mail with a null
//! sender (RFC 3464, RFC 5321 6.1).

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient, Ret};
use posta::mail::header;
use posta::mail::id::Id;
use posta::mail::report::{Action, GivenBack, Report, Reported};
use posta::mail::trace;

use posta::spool::{Committer, Draft, Entry, Spool, SpoolError};

use crate::runner::date;

/// Of a header longer than this the first lines come back.
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
    /// It tells a list's owner of the list's copies, which the poster's ENVID and RET are not for.
    pub of_list: bool,
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
    /// Composes a notice about `entry` and commits it; gives its queue id. Of a message of the null
    /// sender it tells the postmaster, and that notice makes no other.
    pub fn tell(&self, entry: &Entry, notice: &Notice, now: u64) -> Result<Id, SpoolError> {
        let to = &notice.to;
        let mut draft = Draft::begin(&self.spool)?;
        let envelope = &entry.envelope;
        let given_back = given_back(entry, notice);
        let head = original_head(entry)?;
        let is_plain = head.is_ascii() && envelope.trace.is_ascii();
        let is_named_in_utf8 = || notice.recipients.iter().any(|r| r.address.needs_utf8());
        let own_id = draft.id();
        let until = notice.until.map(date);
        // Of what nobody has sent the postmaster is told, and he only once.
        let is_double = envelope.sender == ReversePath::Null;
        let report = Report {
            hostname: &self.hostname,
            id: entry.id.as_str(),
            own_id: own_id.as_str(),
            to,
            envid: envelope.envid.as_deref().filter(|_| !notice.of_list),
            arrived: &date(envelope.arrived),
            date: &date(now),
            until: until.as_deref(),
            recipients: &notice.recipients,
            given_back,
            eight_bit: match given_back {
                GivenBack::Header => !is_plain,
                GivenBack::Whole => !is_plain || has_eight_bit(entry)?,
            },
            utf8: envelope.utf8 && (!is_plain || is_named_in_utf8()),
            of_bounce: is_double,
        }
        .compose();
        draft.push(&report.before)?;
        draft.push(&envelope.trace)?;
        match given_back {
            GivenBack::Header => draft.push(&head)?,
            GivenBack::Whole => each_block(entry, |block| draft.push(block))?,
        }
        draft.push(&report.after)?;
        let own = Envelope {
            sender: ReversePath::Null,
            // RFC 8689 5: what needed TLS to come here needs it on its way back, and no more of it than its
            // header, wherever it may fail again.
            require_tls: envelope.require_tls,
            ret: envelope.require_tls.then_some(Ret::Headers),
            envid: None,
            recipients: vec![Recipient::plain(to.clone())],
            origin: if is_double { Origin::DoubleBounce } else { Origin::Posta },
            arrived: now,
            body: if report.eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit },
            utf8: report.utf8,
            trace: trace::made_here(&self.hostname, own_id, &date(now)).into_bytes(),
        };
        Ok(self.committer.commit(draft, &own)?.id())
    }
}

/// How much of the original comes back: all of it only with a failure, where the sender asked for that
/// (RFC 3461 4.3), and where it is not too long, not confidential (RFC 8689 5), and no BINARYMIME, whose
/// line ends mean nothing.
fn given_back(entry: &Entry, notice: &Notice) -> GivenBack {
    let envelope = &entry.envelope;
    let is_whole = envelope.ret == Some(Ret::Full)
        && !notice.of_list
        && notice.recipients.iter().any(|r| r.action == Action::Failed)
        && entry.size <= MOST_WHOLE
        && envelope.body != BodyKind::BinaryMime
        && !envelope.require_tls;
    if is_whole { GivenBack::Whole } else { GivenBack::Header }
}

/// The header section of the original, without the empty line; of a long one the first lines.
fn original_head(entry: &Entry) -> Result<Vec<u8>, SpoolError> {
    let mut head = vec![0; entry.size.min(MOST_HEADER) as usize];
    read_at(entry, &mut head, 0)?;
    let mut end = header::split(&head).0.len();
    if end as u64 == MOST_HEADER {
        end = memchr::memmem::rfind(&head, b"\r\n").map_or(end, |at| at + 2);
    }
    head.truncate(end);
    Ok(head)
}

fn has_eight_bit(entry: &Entry) -> Result<bool, SpoolError> {
    let mut found = false;
    each_block(entry, |block| {
        found |= !block.is_ascii();
        Ok(())
    })?;
    Ok(found)
}

/// Gives the original to `each`, block by block.
fn each_block(
    entry: &Entry,
    mut each: impl FnMut(&[u8]) -> Result<(), SpoolError>,
) -> Result<(), SpoolError> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < entry.size {
        let length = (entry.size - at).min(BLOCK as u64) as usize;
        read_at(entry, &mut block[..length], at)?;
        each(&block[..length])?;
        at += length as u64;
    }
    Ok(())
}

fn read_at(entry: &Entry, buffer: &mut [u8], at: u64) -> Result<(), SpoolError> {
    let named = |source| SpoolError::Io { path: entry.id.to_string(), source };
    entry.file.read_exact_at(buffer, at).map_err(named)
}

#[cfg(test)]
mod tests {
    use posta::unix::durable::Disk;

    use posta::mail::envelope::Notify;
    use posta::mail::status::Status;

    use posta::spool::Place;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    fn original() -> Envelope {
        Envelope {
            sender: ReversePath::Mailbox(mailbox("alice@example.org")),
            ret: Some(Ret::Full),
            envid: Some("QQ+2B1".into()),
            recipients: vec![Recipient {
                notify: Notify::default(),
                ..Recipient::plain(mailbox("bob@x.example"))
            }],
            origin: Origin::Posta,
            arrived: 1_795_550_000_000_000,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: b"Received: by x\r\n".to_vec(),
        }
    }

    /// The notice about a message: its envelope, and its text.
    fn told(envelope: &Envelope, message: &[u8], action: Action) -> (Envelope, String) {
        let folder = tempfile::tempdir().unwrap();
        Spool::make(folder.path(), None).unwrap();
        let spool = Arc::new(Spool::for_running(folder.path(), Arc::new(Disk)).unwrap());
        let committer = Arc::new(Committer::new(spool.clone()));
        let bouncer = Bouncer { spool: spool.clone(), committer, hostname: "mail.example.org".into() };
        let mut draft = Draft::begin(&spool).unwrap();
        draft.push(message).unwrap();
        let id = bouncer.committer.commit(draft, envelope).unwrap().id();
        let entry = spool.open(id, Place::New).unwrap();
        let recipient = Reported {
            action,
            address: envelope.recipients[0].address.clone(),
            original: envelope.recipients[0].original.clone(),
            status: Status::new(5, 1, 1),
            text: "550 no".into(),
            relay: String::new(),
            said: true,
        };
        let until = (action == Action::Delayed).then_some(1_795_560_000_000_000);
        let to = mailbox("alice@example.org");
        let notice = Notice { to, targets: vec![0], recipients: vec![recipient], until, of_list: false };
        let own = bouncer.tell(&entry, &notice, 1_795_550_000_000_001).unwrap();
        let entry = spool.open(own, Place::New).unwrap();
        let mut text = vec![0; entry.size as usize];
        entry.file.read_exact_at(&mut text, 0).unwrap();
        (entry.envelope, String::from_utf8(text).unwrap())
    }

    const MESSAGE: &[u8] = b"Subject: s\r\n\r\nbody\r\n";

    #[test]
    fn all_of_it_comes_back_only_with_a_failure_and_if_asked_for() {
        let (own, text) = told(&original(), MESSAGE, Action::Failed);
        assert!(
            text.contains("message/rfc822\r\n\r\nReceived: by x\r\nSubject: s\r\n\r\nbody\r\n\r\n--"),
            "{text}"
        );
        assert!(text.contains("Original-Envelope-Id: QQ+1\r\n"), "{text}");
        assert_eq!((own.sender, own.body, own.ret), (ReversePath::Null, BodyKind::SevenBit, None));
        for action in [Action::Delayed, Action::Delivered, Action::Relayed] {
            assert!(!told(&original(), MESSAGE, action).1.contains("body"));
        }
        let headers = [
            Envelope { ret: None, ..original() },
            Envelope { ret: Some(Ret::Headers), ..original() },
            Envelope { body: BodyKind::BinaryMime, ..original() },
        ];
        for envelope in headers {
            assert!(!told(&envelope, MESSAGE, Action::Failed).1.contains("body"), "{envelope:?}");
        }
        let long = [MESSAGE, &vec![b'x'; MOST_WHOLE as usize]].concat();
        assert!(told(&original(), &long, Action::Failed).1.len() < 10_000);
        let long = [b"A: 1\r\n", &b"B: 2\r\n".repeat(MOST_HEADER as usize)[..]].concat();
        let text = told(&Envelope { ret: None, ..original() }, &long, Action::Failed).1;
        assert!(text.contains("\r\nB: 2\r\n\r\n--") && (text.len() as u64) < MOST_HEADER + 10_000);
    }

    #[test]
    fn what_needed_tls_comes_back_by_tls_and_without_its_body() {
        let envelope = Envelope { require_tls: true, ..original() };
        let (own, text) = told(&envelope, MESSAGE, Action::Failed);
        assert!(own.require_tls && own.ret == Some(Ret::Headers));
        assert!(text.contains("Subject: s") && !text.contains("body"), "{text}");
    }

    #[test]
    fn octets_above_127_are_declared() {
        let eight = "Subject: s\r\n\r\nb\u{f6}dy\r\n".as_bytes();
        let (own, text) = told(&original(), eight, Action::Failed);
        assert_eq!((own.body, own.utf8), (BodyKind::EightBitMime, false));
        assert_eq!(text.matches("Content-Transfer-Encoding: 8bit").count(), 2, "{text}");
        let header_only = Envelope { ret: None, body: BodyKind::EightBitMime, ..original() };
        assert_eq!(told(&header_only, eight, Action::Failed).0.body, BodyKind::SevenBit);
        let utf8 = Envelope { utf8: true, ret: None, ..original() };
        assert!(!told(&utf8, eight, Action::Failed).0.utf8, "nothing in it needs it");
        let (own, text) = told(&utf8, "Subject: \u{f6}\r\n\r\n".as_bytes(), Action::Failed);
        assert!(own.utf8 && text.contains("message/global-headers"), "{text}");
    }
}
