//! What users of this host hand in (through posta-drop): validated, copied, and removed; never
//! renamed, since its owner may still have it open.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, PoisonError};

use crate::mail::envelope::Origin;
use crate::mail::id::Id;

use super::read::{BLOCK, Refused, sound};
use super::scan::is_stale;
use super::{Draft, Entry, Place, Spool, SpoolError};

/// For posta-queue only.
impl Spool {
    /// Opens a file of `drop/` for import: content, envelope and the uid that owns it (whatever its
    /// envelope says of its origin). The caller copies it into the [`Draft`] that
    /// [`import`](Spool::import) gives, commits, and then [`undrop`](Spool::undrop)s, before the
    /// message is worked on: so it comes once, wherever a crash falls between.
    ///
    /// One that is unsound is [`Unsound`](SpoolError::Unsound) and left alone, as it may still be
    /// being written; after a day it is swept, with a line in the log. One that has other names is left
    /// alone too, as it may be a stranger's; after a day it goes to `corrupt/`.
    pub fn open_drop(&self, id: Id) -> Result<(Entry, u32), SpoolError> {
        if self.rooms()?.undead.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            self.undrop(id)?;
            return Err(SpoolError::Gone { id });
        }
        let folder = &self.rooms()?.drop;
        let checked = sound(folder, id.as_str(), id).and_then(|(entry, metadata)| {
            let refuse = |why: &str| Err(Refused::Unsound(why.to_string()));
            match &entry.envelope.origin {
                _ if metadata.nlink() != 1 => Err(Refused::Astray("it has other names".to_string())),
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
                if self.is_old(id)? {
                    log::warn!("{id}: in drop/, unsound ({why}) and older than a day: swept");
                    self.remove(folder, id.as_str())?;
                }
                Err(SpoolError::Unsound { id, why })
            }
            Err(Refused::Astray(why)) => {
                if self.is_old(id)? {
                    self.keep_apart(id, &why)?;
                }
                Err(SpoolError::Unsound { id, why })
            }
        }
    }

    /// A draft for a file of `drop/`, under the id that it was given there. `None`: it is in the
    /// queue already (a runner has stopped before it came to remove it), and durable; it is only to
    /// be [`undrop`](Spool::undrop)ped. An id that names another message gets a new one instead.
    pub fn import(self: &Arc<Spool>, dropped: &Entry) -> Result<Option<Draft>, SpoolError> {
        let id = dropped.id;
        let place = match self.find(id)? {
            None => return Draft::begin_as(self, id).map(Some),
            // Only its journal is left: it has come to its end.
            Some(None) => return Ok(None),
            Some(Some(place)) => place,
        };
        match self.open(id, place) {
            Ok(known) if is_same(&known, dropped).map_err(|e| SpoolError::io(id.as_str(), e))? => {
                // Its sync may not have come: what a crash of the process left whole, a power cut may not.
                self.sync_journals()?;
                Ok(None)
            }
            Ok(_) => {
                log::warn!("{id}: in drop/, but the id names another message: it gets a new one");
                Draft::begin(self).map(Some)
            }
            // Unsound, and so never promised: it is in corrupt/ now.
            Err(SpoolError::Unsound { .. }) => Draft::begin_as(self, id).map(Some),
            Err(error) => Err(error),
        }
    }

    /// Whether anything is known of a message, be it only a journal.
    pub fn knows(&self, id: Id) -> Result<bool, SpoolError> {
        self.find(id).map(|found| found.is_some())
    }

    /// Where a message lies; the inner `None`: there is but a journal. Nothing moves meanwhile.
    fn find(&self, id: Id) -> Result<Option<Option<Place>>, SpoolError> {
        let rooms = self.rooms()?;
        let _still = rooms.moving.write().unwrap_or_else(PoisonError::into_inner);
        for place in [Place::New, Place::Cur, Place::Hold] {
            if self.is_in(id, place)? {
                return Ok(Some(Some(place)));
            }
        }
        Ok(self.has_journal(id)?.then_some(None))
    }

    /// Removes a file of `drop/` that was imported. One that can't be removed is not imported again as
    /// long as this spool is open.
    pub fn undrop(&self, id: Id) -> Result<(), SpoolError> {
        let rooms = self.rooms()?;
        let removed = self.remove(&rooms.drop, id.as_str());
        let mut undead = rooms.undead.lock().unwrap_or_else(PoisonError::into_inner);
        match removed {
            Ok(()) => undead.remove(&id),
            Err(_) => undead.insert(id),
        };
        removed
    }

    /// Whether a file of `drop/` has been there for a day.
    fn is_old(&self, id: Id) -> Result<bool, SpoolError> {
        let folder = &self.rooms()?.drop;
        let modified = folder.modified(id.as_str());
        let modified = modified.map_err(|e| SpoolError::io(folder.path().join(id.as_str()), e))?;
        Ok(modified.is_some_and(|(seconds, _)| is_stale(seconds)))
    }

    /// Moves one that has other names to `corrupt/`.
    fn keep_apart(&self, id: Id, why: &str) -> Result<(), SpoolError> {
        let rooms = self.rooms()?;
        let moved = self.disk.rename(&rooms.drop, id.as_str(), &rooms.corrupt, id.as_str());
        moved.map_err(|e| SpoolError::io(rooms.drop.path().join(id.as_str()), e))?;
        let kept = rooms.corrupt.path().join(id.as_str());
        log::error!("{id}: in drop/ for a day ({why}): moved to {}; it needs a person", kept.display());
        Ok(())
    }
}

/// Whether a message of the queue was copied from that file of `drop/`: the runner changes its origin,
/// time and trace, and nothing else.
fn is_same(known: &Entry, dropped: &Entry) -> io::Result<bool> {
    let (a, b) = (&known.envelope, &dropped.envelope);
    if known.size != dropped.size || a.sender != b.sender || a.recipients != b.recipients {
        return Ok(false);
    }
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < known.size {
        let length = (known.size - at).min(BLOCK) as usize;
        mine.resize(length, 0);
        theirs.resize(length, 0);
        known.file.read_exact_at(&mut mine, at)?;
        dropped.file.read_exact_at(&mut theirs, at)?;
        if mine != theirs {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::envelope::{BodyKind, Envelope, Recipient};
    use crate::unix::durable::Disk;
    use crate::unix::durable::staged::{Fault, Staged};

    use super::super::Committer;
    use super::super::journal::tests::spool;
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

    fn import(spool: &Arc<Spool>, id: Id) -> Option<Id> {
        let (entry, _) = spool.open_drop(id).unwrap();
        let mut draft = spool.import(&entry).unwrap()?;
        draft.push(b"Subject: x\r\n\r\n").unwrap();
        let envelope = Envelope { origin: Origin::Posta, ..entry.envelope };
        Some(Committer::new(spool.clone()).commit(draft, &envelope).unwrap().id())
    }

    #[test]
    fn what_was_taken_in_keeps_its_id_and_is_not_taken_in_again() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        assert_eq!(import(&spool, id), Some(id));
        assert!(spool.knows(id).unwrap());
        assert_eq!(import(&spool, id), None);
        let entry = spool.open(id, Place::New).unwrap();
        drop(spool.set_aside(&entry, &[]).unwrap());
        assert_eq!(import(&spool, id), None);
        spool.move_to(id, Place::Cur, Place::Hold).unwrap();
        assert_eq!(import(&spool, id), None);
        // Finished but for its journal.
        std::fs::remove_file(spool.path().join("hold").join(id.as_str())).unwrap();
        assert_eq!(import(&spool, id), None);
    }

    #[test]
    fn an_id_that_names_another_message_is_not_believed() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        let mut stranger = Draft::begin_as(&spool, id).unwrap();
        stranger.push(b"Subject: y\r\n\r\n").unwrap();
        let other = envelope(Origin::Posta, &["bob@example.net"]);
        Committer::new(spool.clone()).commit(stranger, &other).unwrap();
        let given = import(&spool, id).unwrap();
        assert_ne!(given, id);
        assert!(spool.knows(given).unwrap() && spool.knows(id).unwrap());
    }

    #[test]
    fn half_a_copy_is_put_apart_and_made_again() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        std::fs::write(spool.path().join("new").join(id.as_str()), b"Subj").unwrap();
        assert_eq!(import(&spool, id), Some(id));
        assert!(spool.path().join("corrupt").join(id.as_str()).exists());
    }

    #[test]
    fn what_can_t_be_removed_is_not_taken_in_again() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(Staged::new(root.path()));
        let (_root, spool) = spool(disk.clone());
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        disk.plan(0, Fault::Fail(5));
        assert!(spool.undrop(id).is_err());
        assert!(path(&spool, id).exists());
        assert!(matches!(spool.open_drop(id), Err(SpoolError::Gone { .. })));
        assert!(!path(&spool, id).exists());
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
    fn a_name_that_was_left_behind_keeps_nothing_out() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        let left = Id::parse("000000000001AAA").unwrap();
        std::fs::hard_link(path(&spool, id), spool.path().join("new").join(left.as_str())).unwrap();
        assert!(matches!(spool.open_drop(id), Err(SpoolError::Unsound { .. })));
        assert!(matches!(spool.open(left, Place::New), Err(SpoolError::Unsound { .. })));
        assert!(spool.open_drop(id).is_ok());
    }

    #[test]
    fn one_with_other_names_is_kept_in_the_end() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = hand_in(&spool, &envelope(user(), &["bob@example.net"]));
        std::fs::hard_link(path(&spool, id), spool.path().join("other")).unwrap();
        let file = File::options().write(true).open(path(&spool, id)).unwrap();
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1))).unwrap();
        assert!(matches!(spool.open_drop(id), Err(SpoolError::Unsound { .. })));
        assert!(!path(&spool, id).exists() && spool.path().join("corrupt").join(id.as_str()).exists());
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
