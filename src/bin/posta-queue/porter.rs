//! Mail of this host's users: files that posta-drop left in `drop/`, or handed over on `run/drop`.
//!
//! They are copied in after they were checked, never renamed: what a user wrote stays the user's,
//! who might still have it open. Who sent it is told by the file's owner, or by the peer's
//! credentials, and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posta::mail::envelope::{BodyKind, Envelope, Origin};
use posta::mail::id::Id;
use posta::mail::trace;
use posta::unix::pass::{MAX_PACKET, Packets};
use posta::unix::users;

use posta::courier::drop::{Dropped, Submission};
use posta::courier::fields::FieldError;

use posta::spool::{Committed, Committer, Draft, Entry, Spool, SpoolError};

use crate::lines::Serve;
use crate::runner::{date, now};
use crate::schedule::SECOND;

const BLOCK: usize = 64 * 1024;
/// A peer on `run/drop` has this long to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries mail in.
#[derive(Debug, Clone)]
pub struct Porter {
    /// The queue's spool.
    pub spool: Arc<Spool>,
    /// Makes it durable.
    pub committer: Arc<Committer>,
    /// Our host name.
    pub hostname: String,
    /// `smtpd.max_message_size`
    pub most: u64,
    /// One file of `drop/` at a time: a hint and a scan may name the same.
    pub busy: Arc<Mutex<()>>,
}

/// Why a packet on `run/drop` was not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Malformed(#[from] FieldError),
    #[error("no message came along")]
    NoFile,
    #[error("the message has {0} bytes; the limit is {1} (smtpd.max_message_size)")]
    TooBig(u64, u64),
    #[error("{0}")]
    Spool(#[from] SpoolError),
    #[error("the message can't be read: {0}")]
    Unreadable(io::Error),
}

impl Porter {
    /// Copies one file of `drop/` in and removes it. One that is not finished yet is left alone.
    pub fn fetch(&self, id: Id) {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (entry, uid) = match self.spool.open_drop(id) {
            Ok(opened) => opened,
            Err(SpoolError::Gone { .. }) => return,
            Err(error) => {
                log::warn!("{id}: in drop/: {error}");
                return;
            }
        };
        match self.import(&entry, uid) {
            Ok(()) => {
                if let Err(error) = self.spool.undrop(id) {
                    log::error!(
                        "{id}: taken in, but not removed from drop/: {error}; remove it by hand before posta-queue \
                         is started anew, or it will be taken again"
                    );
                }
            }
            Err(error) => log::error!("{id}: in drop/: not taken in: {error}; it will be tried again"),
        }
    }

    /// Finishes what was being taken in when the last runner stopped. Done before anything of the queue
    /// is delivered: a message that was delivered and is gone could not be known again.
    pub fn finish(&self, id: Id) {
        match self.spool.knows(id) {
            Ok(true) => self.fetch(id),
            Ok(false) => {}
            Err(error) => log::error!("{id}: in drop/: {error}"),
        }
    }

    fn import(&self, entry: &Entry, uid: u32) -> Result<(), SpoolError> {
        let id = entry.id;
        let Some(draft) = self.spool.import(entry)? else {
            log::info!("{id}: was taken in from drop/ already");
            return Ok(());
        };
        let unreadable = |source| SpoolError::Io { path: id.to_string(), source };
        let arrived = handed_in(&entry.file, now()).map_err(unreadable)?;
        let envelope = Envelope { arrived, ..entry.envelope.clone() };
        let sender = envelope.sender.clone();
        let committed = self.take(draft, &entry.file, entry.size, envelope, uid)?;
        log::info!("{}: uid={uid} from=<{sender}>", committed.id());
        Ok(())
    }

    /// Copies a message in.
    fn take(
        &self,
        mut draft: Draft,
        file: &File,
        size: u64,
        envelope: Envelope,
        uid: u32,
    ) -> Result<Committed, SpoolError> {
        let mut block = vec![0; BLOCK.min(size as usize)];
        let (mut at, mut eight_bit) = (0, false);
        while at < size {
            let length = (size - at).min(BLOCK as u64) as usize;
            let named = |source| SpoolError::Io { path: "a message of drop/".into(), source };
            file.read_exact_at(&mut block[..length], at).map_err(named)?;
            draft.push(&block[..length])?;
            eight_bit |= !block[..length].is_ascii();
            at += length as u64;
        }
        // Found out, not believed: a next hop without 8BITMIME must still get what has seven bits.
        let body = if eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let name = match users::by_uid(uid) {
            Ok(Some(account)) => account.name,
            Ok(None) | Err(_) => uid.to_string(),
        };
        let trace = trace::submitted(&self.hostname, uid, draft.id(), &date(envelope.arrived)).into_bytes();
        let envelope = Envelope { origin: Origin::User { uid, name }, body, trace, ..envelope };
        self.committer.commit(draft, &envelope)
    }

    fn answer(&self, packets: &Packets, uid: u32) -> io::Result<()> {
        packets.set_receive_timeout(PATIENCE)?;
        let mut buffer = vec![0; MAX_PACKET];
        let (length, file) = packets.receive(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let answer = match self.take_packet(&buffer[..length], file.map(File::from), uid) {
            Ok(committed) => {
                log::info!("{}: uid={uid} by run/drop", committed.id());
                Dropped::Taken(committed.id())
            }
            Err(refusal) => {
                log::warn!("run/drop: uid={uid}: not taken: {refusal}");
                Dropped::Failed(refusal.to_string())
            }
        };
        packets.try_send(&answer.encode().map_err(io::Error::other)?, None)
    }

    fn take_packet(&self, packet: &[u8], file: Option<File>, uid: u32) -> Result<Committed, Refusal> {
        let envelope = envelope(Submission::decode(packet)?);
        let file = file.ok_or(Refusal::NoFile)?;
        let found = file.metadata().map_err(Refusal::Unreadable)?;
        if !found.is_file() {
            return Err(Refusal::NoFile);
        }
        if found.size() > self.most {
            return Err(Refusal::TooBig(found.size(), self.most));
        }
        Ok(self.take(Draft::begin(&self.spool)?, &file, found.size(), envelope, uid)?)
    }
}

/// When posta-drop named the file, in microseconds since 1970: the time of its last change, which its
/// owner can't choose. Should a power cut undo the removal of what was taken in, it is the same again,
/// and so is the name of each copy in a Maildir.
fn handed_in(file: &File, now: u64) -> io::Result<u64> {
    let found = file.metadata()?;
    let seconds = u64::try_from(found.ctime()).unwrap_or_default();
    let micros = seconds * SECOND + u64::try_from(found.ctime_nsec()).unwrap_or_default() / 1000;
    Ok(micros.min(now))
}

impl Serve for Porter {
    fn serve(&self, peer: &Packets, uid: u32) {
        if let Err(error) = self.answer(peer, uid) {
            log::warn!("run/drop: uid={uid}: {error}");
        }
    }
}

/// The envelope of a submission; what is not known yet is filled in when it is copied.
fn envelope(submission: Submission) -> Envelope {
    let Submission { sender, envid, ret, recipients } = submission;
    let utf8 = recipients.iter().any(|r| r.address.needs_utf8());
    Envelope {
        sender,
        ret,
        envid,
        recipients,
        origin: Origin::Posta,
        arrived: now(),
        body: BodyKind::SevenBit,
        utf8,
        require_tls: false,
        trace: Vec::new(),
    }
}

#[cfg(test)]
pub mod tests {
    use posta::mail::address::{Mailbox, ReversePath};
    use posta::mail::envelope::Recipient;
    use posta::unix::durable::Disk;

    use posta::spool::Place;

    use crate::stage::Stage;

    use super::*;

    /// A porter of the stage's spool.
    pub fn porter(stage: &Stage) -> Porter {
        let (spool, busy) = (stage.spool.clone(), Arc::default());
        let committer = Arc::new(Committer::new(spool.clone()));
        Porter { spool, committer, hostname: "mail.example.org".into(), most: 1000, busy }
    }

    /// Puts a message into `drop/`, as posta-drop does.
    fn hand_in(stage: &Stage) -> Id {
        let spool = Arc::new(Spool::for_dropping(stage.spool.path(), Arc::new(Disk)).unwrap());
        let submission = Submission {
            sender: ReversePath::Null,
            envid: None,
            ret: None,
            recipients: vec![Recipient::plain(Mailbox::parse("bob@example.net", false).unwrap())],
        };
        let envelope =
            Envelope { origin: Origin::User { uid: 1, name: "alice".into() }, ..envelope(submission) };
        let draft = Draft::begin(&spool).unwrap();
        Committer::new(spool).commit(draft, &envelope).unwrap().id()
    }

    /// A Maildir's copy is named by id and time of arrival: what is taken in again must replace it.
    #[test]
    fn what_is_taken_in_again_has_arrived_when_it_first_did() {
        let stage = Stage::new();
        let porter = porter(&stage);
        let id = hand_in(&stage);
        let (dropped, uid) = stage.spool.open_drop(id).unwrap();
        let arrivals = [(), ()].map(|()| {
            porter.import(&dropped, uid).unwrap();
            let arrived = stage.spool.open(id, Place::New).unwrap().envelope.arrived;
            // It was delivered, and a power cut has brought back what lay in drop/.
            stage.spool.finish(id, Place::New).unwrap();
            arrived
        });
        assert_eq!(arrivals[0], arrivals[1]);
        assert!(arrivals[0] <= now());
        stage.spool.undrop(id).unwrap();
    }
}
