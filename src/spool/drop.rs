//! What users of this host hand in (through posta-drop): validated, copied, and removed; never
//! renamed, since its owner may still have it open.

use std::io;
use std::os::unix::fs::MetadataExt;

use crate::mail::envelope::Origin;
use crate::mail::id::Id;

use super::read::{Refused, sound};
use super::scan::is_stale;
use super::{Entry, Spool, SpoolError};

/// For posta-queue only.
impl Spool {
    /// Opens a file of `drop/` for import: content, envelope and the uid that owns it (whatever its
    /// envelope says of its origin). The caller copies it into a [`Draft`](super::Draft) of his own,
    /// checks its size against his limits, commits, and then [`undrop`](Spool::undrop)s.
    ///
    /// One that is unsound is [`Unsound`](SpoolError::Unsound) and left alone, as it may still be
    /// being written; after a day it is swept, with a line in the log.
    pub fn open_drop(&self, id: Id) -> Result<(Entry, u32), SpoolError> {
        let folder = &self.rooms()?.drop;
        let checked = sound(folder, id.as_str(), id).and_then(|(entry, metadata)| {
            let refuse = |why: &str| Err(Refused::Unsound(why.to_string()));
            match &entry.envelope.origin {
                _ if metadata.nlink() != 1 => refuse("it has other names"),
                _ if entry.envelope.recipients.is_empty() => refuse("no recipients"),
                Origin::User { .. } => Ok((entry, metadata.uid())),
                _ => refuse("not handed in by posta-drop"),
            }
        });
        match checked {
            Ok(found) => Ok(found),
            Err(Refused::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolError::Gone { id })
            }
            Err(Refused::Io(error)) => Err(SpoolError::io(folder.path().join(id.as_str()), error)),
            Err(Refused::Unsound(why)) => {
                self.sweep_drop(id, &why)?;
                Err(SpoolError::Unsound { id, why })
            }
        }
    }

    /// Removes a file of `drop/` that was imported.
    pub fn undrop(&self, id: Id) -> Result<(), SpoolError> {
        self.remove(&self.rooms()?.drop, id.as_str())
    }

    /// Removes an unsound one if it is old.
    fn sweep_drop(&self, id: Id, why: &str) -> Result<(), SpoolError> {
        let folder = &self.rooms()?.drop;
        let modified = folder.modified(id.as_str());
        let modified = modified.map_err(|e| SpoolError::io(folder.path().join(id.as_str()), e))?;
        if !modified.is_some_and(|(seconds, _)| is_stale(seconds)) {
            return Ok(());
        }
        log::warn!("{id}: in drop/, unsound ({why}) and older than a day: swept");
        self.remove(folder, id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::envelope::{BodyKind, Envelope, Recipient};
    use crate::unix::durable::Disk;

    use super::super::journal::tests::spool;
    use super::super::{Committer, Draft};
    use super::*;

    fn envelope(origin: Origin, recipients: &[&str]) -> Envelope {
        let recipient = |a: &&str| Recipient::plain(Mailbox::parse(a, false).unwrap());
        Envelope {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            recipients: recipients.iter().map(recipient).collect(),
            origin,
            arrived: 7,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: Vec::new(),
        }
    }

    fn user() -> Origin {
        Origin::User { uid: 4_000_000, name: "liar".into() }
    }

    fn hand_in(spool: &Spool, envelope: &Envelope) -> Id {
        let drop = Arc::new(Spool::for_dropping(spool.path(), Arc::new(Disk)).unwrap());
        let mut draft = Draft::begin(&drop).unwrap();
        draft.push(b"Subject: x\r\n\r\n").unwrap();
        Committer::new(drop).commit(draft, envelope).unwrap().id()
    }

    fn path(spool: &Spool, id: Id) -> PathBuf {
        spool.path().join("drop").join(id.as_str())
    }

    #[test]
    fn what_is_handed_in_is_known_by_its_owner() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        let mut found = Vec::new();
        spool.scan_drop(&mut |id| found.push(id)).unwrap();
        assert_eq!(found, [id]);
        let (entry, uid) = spool.open_drop(id).unwrap();
        assert_eq!((entry.size, uid), (14, crate::unix::users::current().1));
        assert_eq!(path(&spool, id).metadata().unwrap().permissions().mode() & 0o777, 0o640);
        spool.undrop(id).unwrap();
        spool.undrop(id).unwrap();
        assert!(matches!(spool.open_drop(id), Err(SpoolError::Gone { .. })));
    }

    #[test]
    fn what_is_not_as_posta_drop_makes_it_is_refused() {
        let (_root, spool) = spool(Arc::new(Disk));
        let nobody = hand_in(&spool, &envelope(user(), &[]));
        let stranger = hand_in(&spool, &envelope(Origin::Posta, &["bob@example.net"]));
        let linked = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        std::fs::hard_link(path(&spool, linked), spool.path().join("other")).unwrap();
        let link = Id::parse("000000000001AAA").unwrap();
        std::os::unix::fs::symlink(path(&spool, linked), path(&spool, link)).unwrap();
        for id in [nobody, stranger, linked, link] {
            assert!(matches!(spool.open_drop(id), Err(SpoolError::Unsound { .. })), "{id}");
            assert!(path(&spool, id).symlink_metadata().is_ok());
        }
    }

    #[test]
    fn an_unsound_one_is_swept_only_when_it_is_old() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        let file = File::options().write(true).open(path(&spool, id)).unwrap();
        file.set_len(20).unwrap();
        assert!(spool.open_drop(id).is_err());
        assert!(path(&spool, id).exists());
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1))).unwrap();
        assert!(matches!(spool.open_drop(id), Err(SpoolError::Unsound { .. })));
        assert!(!path(&spool, id).exists());
    }
}
