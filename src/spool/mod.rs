//! Floor 4, services: the queue on disk.
//!
//! A message is a file with its envelope at its end, and, once there is something to remember, a
//! journal beside it. What states that makes and what a crash leaves of each is the table at the
//! head of [`layout`].
//!
//! - [`Spool`] is the folders, opened for one of three kinds of user: who writes new mail
//!   (posta-smtpd), who drops it (posta-drop), who runs the queue (posta-queue).
//! - [`Draft`] is a message being received, [`Committer`] makes it durable, and [`Committed`] is the
//!   only proof of that.
//! - [`Entry`] is a message found sound, [`Journal`] what is known of it, [`Aside`] what a scan says
//!   of it without opening anything.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::mail::id::Id;

mod commit;
mod cradle;
mod drop;
pub mod format;
mod gather;
mod journal;
pub mod layout;
mod line;
mod pace;
mod paused;
mod read;
mod record;
mod scan;
mod write;

pub use commit::{Committed, Committer, Habits};
pub use format::FormatError;
pub use journal::Journal;
pub use layout::{Owners, Place, Spool};
pub use read::Entry;
pub use record::Record;
pub use scan::{Aside, hash_of};
pub use write::Draft;

/// What can go wrong.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// A call failed.
    #[error("{path}: {source}")]
    Io {
        /// Of which file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The disk, or a quota on it, is full (452 4.3.1).
    #[error("{path}: no space left")]
    Full {
        /// What was being written.
        path: String,
    },
    /// A folder is not there; the text names it and says how to make it.
    #[error("{0}")]
    Missing(String),
    /// Another posta-queue runs on this spool.
    #[error("{path}: locked by another posta-queue ({holder}); stop it first")]
    Locked {
        /// The lock.
        path: String,
        /// Its process, as far as the lock says.
        holder: String,
    },
    /// A queue file that is not what its trailer says, or has none.
    #[error("{id}: {why}")]
    Unsound {
        /// Which.
        id: Id,
        /// Why.
        why: String,
    },
    /// There is no such message (any more).
    #[error("{id}: no such message")]
    Gone {
        /// Which.
        id: Id,
    },
    /// What was to be written could not be read back: nothing was kept.
    #[error("{id}: can't be kept: {source}")]
    Unwritable {
        /// Which message.
        id: Id,
        /// Why.
        source: FormatError,
    },
}

impl SpoolError {
    /// The error of a call on `path`.
    fn io(path: impl AsRef<Path>, source: io::Error) -> SpoolError {
        let path = path.as_ref().display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolError::Full { path },
            _ => SpoolError::Io { path, source },
        }
    }
}
