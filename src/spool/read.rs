//! Opening a message for work, and what becomes of one that is not sound.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, PoisonError};

use crate::mail::envelope::Envelope;
use crate::mail::header;
use crate::mail::id::Id;
use crate::unix::durable::Folder;

use super::format::{self, FormatError, MAX_ENVELOPE, TRAILER};
use super::layout::split;
use super::{Place, Spool, SpoolError};

/// So much is read at once. A message shorter than this costs one read.
pub(super) const BLOCK: u64 = 64 << 10;

/// A queue file, opened and found sound.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: Id,
    /// Opened for reading; its position is nobody's (use `read_at`).
    pub file: Arc<File>,
    /// What is said of the message.
    pub envelope: Envelope,
    /// Length of the message: bytes 0 to `size` of the file.
    pub size: u64,
    /// The file's inode, by which its journal knows it.
    pub inode: u64,
    /// The CRC-32C of its trailer, by which its journal knows it too.
    pub crc: u32,
    /// The value of its Message-ID field, for the log; empty if there is none. Found on the way: a
    /// message is read through anyway.
    pub message_id: String,
}

/// Why a file is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It could not be read: that says nothing of what is in it.
    Io(io::Error),
    /// It is not what it should be.
    Unsound(String),
    /// It is another message's, whole, and there under that one's name too, or was. A file system without
    /// a journal may keep a name that was removed, while what it leads to becomes another file.
    Astray(String),
}

impl Refused {
    fn unsound(why: FormatError) -> Refused {
        Refused::Unsound(why.to_string())
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        match error.kind() {
            io::ErrorKind::InvalidData => Refused::Unsound(error.to_string()),
            _ => Refused::Io(error),
        }
    }
}

impl Spool {
    /// Opens a message and checks trailer and CRC. An unsound one is moved to `corrupt/`, with its
    /// journal, and is [`Unsound`](SpoolError::Unsound); one that is not there is
    /// [`Gone`](SpoolError::Gone). One that can't be read is left where it is.
    pub fn open(&self, id: Id, place: Place) -> Result<Entry, SpoolError> {
        let (folder, name) = self.lies(id, place)?;
        if self.stays_in_new && place == Place::New && self.has_journal(id)? {
            // It has been put aside.
            return Err(SpoolError::Gone { id });
        }
        match sound(folder, &name, id) {
            Ok((entry, _)) => Ok(entry),
            Err(Refused::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolError::Gone { id })
            }
            Err(Refused::Io(error)) => Err(SpoolError::io(folder.path().join(name), error)),
            Err(Refused::Unsound(why)) => {
                self.set_apart(id, place, &why)?;
                Err(SpoolError::Unsound { id, why })
            }
            Err(Refused::Astray(why)) => {
                self.take_down(id, place, &why)?;
                Err(SpoolError::Unsound { id, why })
            }
        }
    }

    /// What is said of a message, for a list: its content is not read, so its checksum is not checked,
    /// and nothing is moved.
    pub fn peek(&self, id: Id, place: Place) -> Result<Entry, SpoolError> {
        let (folder, name) = self.lies(id, place)?;
        match opened(folder, &name, id, Check::Envelope) {
            Ok((entry, _)) => Ok(entry),
            Err(Refused::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolError::Gone { id })
            }
            Err(Refused::Io(error)) => Err(SpoolError::io(folder.path().join(name), error)),
            Err(Refused::Unsound(why) | Refused::Astray(why)) => Err(SpoolError::Unsound { id, why }),
        }
    }

    /// Moves an unsound message to `corrupt/`. What has no journal may never have been
    /// acknowledged (S2a); what has one was.
    fn set_apart(&self, id: Id, place: Place, why: &str) -> Result<(), SpoolError> {
        let Ok(rooms) = self.rooms() else {
            return Ok(());
        };
        let _moving = rooms.moving.read().unwrap_or_else(PoisonError::into_inner);
        let has_journal = self.set_journal_apart(id)?;
        let (folder, name) = self.lies(id, place)?;
        let moved = self.disk.rename(folder, &name, &rooms.corrupt, id.as_str());
        moved.map_err(|e| SpoolError::io(folder.path().join(&name), e))?;
        let kept = rooms.corrupt.path().join(id.as_str());
        if has_journal || place != Place::New {
            log::error!(
                "{id}: unsound ({why}): moved to {}; what is left of it needs a person",
                kept.display()
            );
        } else {
            log::info!("{id}: unsound ({why}), most likely never acknowledged: moved to {}", kept.display());
        }
        Ok(())
    }

    /// Removes a name that leads to another message's file: that one is to have its own name only, or it
    /// would be refused in `drop/`.
    fn take_down(&self, id: Id, place: Place, why: &str) -> Result<(), SpoolError> {
        let Ok(rooms) = self.rooms() else {
            return Ok(());
        };
        let _moving = rooms.moving.read().unwrap_or_else(PoisonError::into_inner);
        let (folder, name) = self.lies(id, place)?;
        self.remove(folder, &name)?;
        // Only what was finished or never promised can lose its file to another message: either its removal
        // was on its way to the disk, or it was not synced. Its journal says which.
        match self.set_journal_apart(id)? {
            true => {
                log::error!("{id}: its file is gone ({why}); its journal is in corrupt/ and needs a person")
            }
            false => log::info!("{id}: a name that was left behind ({why}): removed"),
        }
        Ok(())
    }

    /// Moves a journal that is of no use to `corrupt/`; `false` if there is none.
    pub(super) fn set_journal_apart(&self, id: Id) -> Result<bool, SpoolError> {
        let rooms = self.rooms()?;
        let (name, kept) = (split(id), format!("{id}.journal"));
        match self.disk.rename(&rooms.journal, &name, &rooms.corrupt, &kept) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(SpoolError::io(rooms.journal.path().join(name), error)),
        }
    }
}

/// How much of a queue file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// All of it, and its checksum made.
    Whole,
    /// What stands at its end.
    Envelope,
}

/// Reads a queue file through; gives also what the file system says of it.
pub(super) fn sound(folder: &Folder, name: &str, id: Id) -> Result<(Entry, Metadata), Refused> {
    opened(folder, name, id, Check::Whole)
}

fn opened(folder: &Folder, name: &str, id: Id, check: Check) -> Result<(Entry, Metadata), Refused> {
    let file = folder.read(name)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refused::Unsound("no regular file".to_string()));
    }
    let length = metadata.len();
    let tail_start = length.saturating_sub(BLOCK);
    let tail = read_range(&file, tail_start, length)?;
    let end = tail.len().checked_sub(TRAILER).ok_or_else(|| Refused::unsound(FormatError::NoTrailer))?;
    let crc = match check {
        Check::Whole => Some(crc32c::crc32c_append(checksum(&file, tail_start)?, &tail[..end])),
        Check::Envelope => None,
    };
    let trailer = format::read_trailer(&tail[end..], id, crc).map_err(|why| match why {
        FormatError::Id(_) if metadata.nlink() > 1 => Refused::Astray(why.to_string()),
        _ => Refused::unsound(why),
    })?;
    let text_length = (length - TRAILER as u64)
        .checked_sub(trailer.offset)
        .ok_or_else(|| Refused::unsound(FormatError::Offset(trailer.offset)))?;
    if text_length > MAX_ENVELOPE as u64 {
        return Err(Refused::unsound(FormatError::TooLong(text_length)));
    }
    let envelope = match trailer.offset.checked_sub(tail_start) {
        Some(start) => format::read_envelope(&tail[start as usize..end]),
        None => format::read_envelope(&read_range(&file, trailer.offset, length - TRAILER as u64)?),
    };
    // A short message is in the tail, whole; of a long one the header is in the first bytes.
    let message_id = match tail_start {
        0 => message_id(&tail[..trailer.offset as usize]),
        _ => message_id(&read_range(&file, 0, trailer.offset.min(BLOCK))?),
    };
    let entry = Entry {
        id,
        file: Arc::new(file),
        envelope: envelope.map_err(Refused::unsound)?,
        size: trailer.offset,
        inode: metadata.ino(),
        crc: trailer.crc,
        message_id,
    };
    Ok((entry, metadata))
}

/// The Message-ID of a message whose first bytes these are.
fn message_id(head: &[u8]) -> String {
    let mut found = header::find(head, "Message-ID").map(|field| field.text()).unwrap_or_default();
    // RFC 5322 2.1.1: no line is longer. It is kept as long as the message is open.
    found.truncate(found.floor_char_boundary(998));
    found
}

fn read_range(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// The CRC of the first bytes, up to `end`.
fn checksum(file: &File, end: u64) -> io::Result<u32> {
    let mut block = vec![0; end.min(2 * BLOCK) as usize];
    let (mut at, mut crc) = (0, 0);
    while at < end {
        let part = (end - at).min(block.len() as u64) as usize;
        file.read_exact_at(&mut block[..part], at)?;
        crc = crc32c::crc32c_append(crc, &block[..part]);
        at += part as u64;
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::unix::durable::Disk;

    use super::super::journal::tests::{commit, spool};
    use super::*;

    fn path(spool: &Spool, folder: &str, id: Id) -> PathBuf {
        spool.path().join(folder).join(id.as_str())
    }

    #[test]
    fn a_message_of_any_length_is_read() {
        let (_root, spool) = spool(Arc::new(Disk));
        for size in [0, 1, 65_000, 65_536, 65_537, 70_000, 400_000] {
            let message: Vec<u8> = (0..size as u32).map(|n| (n >> 3) as u8).collect();
            for recipients in [1, 3_000] {
                let id = commit(&spool, &message, recipients);
                let entry = spool.open(id, Place::New).unwrap();
                assert_eq!((entry.size, entry.envelope.recipients.len()), (size, recipients));
                assert_eq!(read_range(&entry.file, 0, entry.size).unwrap(), message);
            }
        }
    }

    #[test]
    fn its_message_id_is_found_in_a_short_one_and_in_a_long_one() {
        let (_root, spool) = spool(Arc::new(Disk));
        for body in [0, 200_000] {
            let text = format!("Subject: x\r\nmessage-id:\r\n\t<1@x>\r\n\r\n{}", "y".repeat(body));
            let id = commit(&spool, text.as_bytes(), 1);
            assert_eq!(spool.open(id, Place::New).unwrap().message_id, "<1@x>");
        }
        let id = commit(&spool, b"Subject: x\r\n\r\nMessage-ID: <2@x>\r\n", 1);
        assert_eq!(spool.open(id, Place::New).unwrap().message_id, "");
        let id = commit(&spool, format!("Message-ID: {}\r\n", "\u{e4}".repeat(9_000)).as_bytes(), 1);
        assert_eq!(spool.open(id, Place::New).unwrap().message_id.len(), 998);
    }

    #[test]
    fn a_look_at_one_moves_nothing_and_reads_the_envelope_only() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, &[b'x'; 200_000], 2);
        let file = File::options().write(true).open(path(&spool, "new", id)).unwrap();
        file.write_all_at(b"y", 0).unwrap();
        let entry = spool.peek(id, Place::New).unwrap();
        assert_eq!((entry.size, entry.envelope.recipients.len()), (200_000, 2));
        file.set_len(9).unwrap();
        assert!(matches!(spool.peek(id, Place::New), Err(SpoolError::Unsound { .. })));
        assert!(path(&spool, "new", id).exists());
        assert!(matches!(spool.peek(id, Place::Hold), Err(SpoolError::Gone { .. })));
    }

    #[test]
    fn an_unsound_one_is_kept_for_a_person() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"cut short by hand\r\n", 1);
        let file = File::options().write(true).open(path(&spool, "new", id)).unwrap();
        file.set_len(9).unwrap();
        assert!(matches!(spool.open(id, Place::New), Err(SpoolError::Unsound { .. })));
        assert_eq!(std::fs::read(path(&spool, "corrupt", id)).unwrap(), b"cut short");
        assert!(matches!(spool.open(id, Place::New), Err(SpoolError::Gone { .. })));
    }

    #[test]
    fn a_name_that_leads_to_another_message_is_taken_down() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let left = Id::parse("000000000001AAA").unwrap();
        std::fs::hard_link(path(&spool, "new", id), path(&spool, "new", left)).unwrap();
        assert!(matches!(spool.open(left, Place::New), Err(SpoolError::Unsound { .. })));
        assert!(!path(&spool, "new", left).exists() && !path(&spool, "corrupt", left).exists());
        assert_eq!(spool.open(id, Place::New).unwrap().file.metadata().unwrap().nlink(), 1);
        // Nowhere else: then it is all that there is of that message.
        std::fs::rename(path(&spool, "new", id), path(&spool, "new", left)).unwrap();
        assert!(matches!(spool.open(left, Place::New), Err(SpoolError::Unsound { .. })));
        assert!(path(&spool, "corrupt", left).exists());
    }

    #[test]
    fn its_journal_goes_with_it() {
        let (_root, spool) = spool(Arc::new(Disk));
        let id = commit(&spool, b"x", 1);
        let entry = spool.open(id, Place::New).unwrap();
        drop(spool.set_aside(&entry, &[]).unwrap());
        let file = File::options().write(true).open(spool.path().join("cur").join(split(id))).unwrap();
        file.write_all_at(b"y", 0).unwrap();
        assert!(matches!(spool.open(id, Place::Cur), Err(SpoolError::Unsound { .. })));
        assert!(path(&spool, "corrupt", id).exists());
        assert!(spool.path().join("corrupt").join(format!("{id}.journal")).exists());
    }

    #[test]
    fn what_is_no_file_is_neither_followed_nor_waited_for() {
        let (_root, spool) = spool(Arc::new(Disk));
        let ids = ["000000000001AAA", "000000000002AAA", "000000000003AAA"].map(|n| Id::parse(n).unwrap());
        let [link, folder, fifo] = ids.map(|id| path(&spool, "new", id));
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        std::fs::create_dir(folder).unwrap();
        crate::unix::fifo::make(&fifo, 0o600).unwrap();
        for id in ids {
            assert!(matches!(spool.open(id, Place::New), Err(SpoolError::Unsound { .. })), "{id}");
            assert!(path(&spool, "corrupt", id).symlink_metadata().is_ok(), "{id}");
        }
    }
}
