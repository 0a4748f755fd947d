//! A message being received (S1).

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mail::envelope::Envelope;
use crate::mail::id::Id;

use super::layout::{FILE_MODE, TEMPORARY};
use super::{Spool, SpoolError, format};

/// So much is gathered before it is written: a message shorter than this costs one write, its
/// envelope and trailer with it.
const BLOCK: usize = 64 << 10;

/// A message being received: an unnamed file (state S1).
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    id: Id,
    file: File,
    /// Its name until it is whole, where there is no O_TMPFILE.
    temporary: Option<Temporary>,
    block: Block,
    /// Bytes in the file, and their CRC.
    written: u64,
    crc: u32,
    /// A write has failed: who knows what is in the file.
    is_broken: bool,
    failed_syncs: u64,
}

/// A message whole and named, but not synced (S2a).
#[derive(Debug)]
pub(super) struct Named {
    pub id: Id,
    pub file: File,
    /// How many syncs had failed when it was begun.
    pub failed_syncs: u64,
}

impl Draft {
    /// Opens an unnamed file.
    pub fn begin(spool: &Arc<Spool>) -> Result<Draft, SpoolError> {
        Draft::begin_as(spool, Spool::mint(now()))
    }

    /// The same, under an id that is given out already and names no other message.
    pub(super) fn begin_as(spool: &Arc<Spool>, id: Id) -> Result<Draft, SpoolError> {
        let failed_syncs = spool.failed_syncs.load(Ordering::SeqCst);
        let (file, temporary) =
            open(spool, id, now()).map_err(|e| SpoolError::io(spool.entrance.path(), e))?;
        let (written, crc, is_broken) = (0, 0, false);
        let spool = Arc::clone(spool);
        let block = Block::lend();
        Ok(Draft { spool, id, file, temporary, block, written, crc, is_broken, failed_syncs })
    }

    /// The message's id.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Adds message bytes (CRLF, dots undone). They are written in blocks. After an error the draft
    /// is good for nothing but to be dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let mut rest = bytes;
        while self.block.0.len() + rest.len() > BLOCK {
            let (fits, more) = rest.split_at(BLOCK - self.block.0.len());
            self.block.0.extend_from_slice(fits);
            self.flush()?;
            rest = more;
        }
        self.block.0.extend_from_slice(rest);
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.written + self.block.0.len() as u64
    }

    fn flush(&mut self) -> Result<(), SpoolError> {
        if self.is_broken {
            return Err(SpoolError::io(self.path(), io::Error::other("an earlier write has failed")));
        }
        self.is_broken = true;
        self.spool.disk.write(&self.file, &self.block.0).map_err(|e| SpoolError::io(self.path(), e))?;
        self.is_broken = false;
        self.written += self.block.0.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &self.block.0);
        self.block.0.clear();
        Ok(())
    }

    /// Appends envelope and trailer, and gives the file its name (S2a).
    pub(super) fn seal(mut self, envelope: &Envelope) -> Result<Named, SpoolError> {
        let size = self.size();
        let unwritable = |source| SpoolError::Unwritable { id: self.id, source };
        format::put_envelope(&mut self.block.0, envelope).map_err(unwritable)?;
        let crc = crc32c::crc32c_append(self.crc, &self.block.0);
        format::put_trailer(&mut self.block.0, self.id, size, crc);
        self.flush()?;
        let (disk, folder, name) = (&self.spool.disk, &self.spool.entrance, self.id.as_str());
        let named = match &mut self.temporary {
            None => disk.link(&self.file, folder, name),
            Some(temporary) => {
                let done = disk.rename(folder, &temporary.name, folder, name);
                temporary.is_gone = done.is_ok();
                done
            }
        };
        named.map_err(|e| SpoolError::io(self.path(), e))?;
        Ok(Named { id: self.id, file: self.file, failed_syncs: self.failed_syncs })
    }

    fn path(&self) -> PathBuf {
        self.spool.entrance.path().join(self.id.as_str())
    }
}

fn open(spool: &Arc<Spool>, id: Id, now: u64) -> io::Result<(File, Option<Temporary>)> {
    let (file, temporary) = match spool.lacks_unnamed.load(Ordering::Relaxed) {
        false => match unnamed(spool, now) {
            Err(error) if has_no_unnamed(&error) => {
                let path = spool.entrance.path().display();
                log::info!(
                    "{path}: no unnamed files here ({error}): names beginning with {TEMPORARY} instead"
                );
                spool.lacks_unnamed.store(true, Ordering::Relaxed);
                Temporary::create(spool, id)?
            }
            done => (done?, None),
        },
        true => Temporary::create(spool, id)?,
    };
    if spool.is_drop {
        // A user's umask must not hide the message from posta-queue.
        file.set_permissions(PermissionsExt::from_mode(FILE_MODE))?;
    }
    Ok((file, temporary))
}

/// An unnamed file, in the folder whose turn it is. Should that one have been removed or closed to
/// us since, `new/` does as well.
fn unnamed(spool: &Spool, now: u64) -> io::Result<File> {
    let here = || spool.disk.unnamed(&spool.entrance, ".", FILE_MODE);
    let Some((folder, name)) = spool.cradle.turn(now) else { return here() };
    match spool.disk.unnamed(folder, &name, FILE_MODE) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            here()
        }
        done => done,
    }
}

/// open(2): what a kernel or a file system says that does not know O_TMPFILE.
fn has_no_unnamed(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, Unsupported};
    matches!(error.kind(), Unsupported | IsADirectory | InvalidInput)
}

/// A name that goes with the draft, unless it was replaced by the true one.
#[derive(Debug)]
struct Temporary {
    spool: Arc<Spool>,
    name: String,
    is_gone: bool,
}

impl Temporary {
    fn create(spool: &Arc<Spool>, id: Id) -> io::Result<(File, Option<Temporary>)> {
        let name = format!("{TEMPORARY}{id}");
        let file = spool.disk.create(&spool.entrance, &name, FILE_MODE)?;
        Ok((file, Some(Temporary { spool: Arc::clone(spool), name, is_gone: false })))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        if let Err(error) = self.spool.disk.unlink(&self.spool.entrance, &self.name) {
            let folder = self.spool.entrance.path().display();
            log::warn!("{folder}/{}: {error}; it will be swept after a day", self.name);
        }
    }
}

thread_local! {
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is not written yet, in memory that each thread uses again for its next message.
#[derive(Debug)]
struct Block(Vec<u8>);

impl Block {
    fn lend() -> Block {
        Block(SPARE.take())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.0.clear();
        // An envelope of a thousand recipients may have made it larger than it need be.
        self.0.shrink_to(BLOCK);
        let block = std::mem::take(&mut self.0);
        // While a thread ends there is nobody to keep it for.
        let _ = SPARE.try_with(|spare| spare.replace(block));
    }
}

/// Microseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
