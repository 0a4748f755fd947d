//! Sessions worth keeping: a folder with a file for each, named by the session's id. The oldest go
//! when there are too many of them, or too much.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::mail::id::Id;

use super::left;

/// The folder below `run` of sessions with clients, which posta-smtpd keeps.
pub const RECEIVING: &str = "sessions";
/// The folder below `run` of sessions with servers, which posta-remote keeps.
pub const SENDING: &str = "remote-sessions";

/// Most files.
const FILES: usize = 500;
/// Most bytes of all of them.
const BYTES: u64 = 2 * 1024 * 1024;

/// The folder of sessions; one for the process.
#[derive(Debug)]
pub struct Sessions {
    folder: PathBuf,
    /// What there is, oldest first: name and length.
    kept: Mutex<VecDeque<(Id, u64)>>,
    complained: AtomicBool,
}

impl Sessions {
    /// The sessions in a folder. One that can't be read is said in the log, and nothing is kept.
    pub fn open(folder: PathBuf) -> Sessions {
        let kept = list(&folder).unwrap_or_default();
        Sessions { folder, kept: Mutex::new(kept), complained: AtomicBool::new(false) }
    }

    /// Keeps a session. What can't be written is said once in the log: a session that can't be kept is
    /// no reason to trouble anybody's mail.
    pub fn keep(&self, id: Id, text: &str) {
        match self.write(id, text) {
            Ok(()) => self.complained.store(false, Ordering::Relaxed),
            Err(error) if self.complained.swap(true, Ordering::Relaxed) => {
                log::debug!("{}: {error}", self.folder.display());
            }
            Err(error) => log::warn!("{}: {error}; sessions are not kept", self.folder.display()),
        }
    }

    fn write(&self, id: Id, text: &str) -> io::Result<()> {
        let mut file =
            File::options().write(true).create_new(true).mode(0o640).open(self.folder.join(id.as_str()))?;
        let written = file.write_all(text.as_bytes());
        for old in self.enter(id, text.len() as u64) {
            // Somebody else may have tidied up.
            let _gone = fs::remove_file(self.folder.join(old.as_str()));
        }
        written
    }

    /// Notes a session that is kept; gives those that have to go for it.
    fn enter(&self, id: Id, length: u64) -> Vec<Id> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((id, length));
        let mut sum: u64 = kept.iter().map(|(_, length)| length).sum();
        let mut gone = Vec::new();
        while kept.len() > FILES || sum > BYTES {
            let Some((old, length)) = kept.pop_front() else { break };
            sum -= length;
            gone.push(old);
        }
        gone
    }
}

/// Makes the folder, if it is not there, for this user and group id, or for the caller.
pub fn make(folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match owner {
        Some((user, group)) => std::os::unix::fs::lchown(folder, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// A session that is kept; none if there is no such.
pub fn read(folder: &Path, id: Id) -> io::Result<Option<String>> {
    match left::read(folder, id.as_str()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

fn list(folder: &Path) -> io::Result<VecDeque<(Id, u64)>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(Id::parse) {
            kept.push((id, entry.metadata()?.len()));
        }
    }
    // Ids are in the order of time.
    kept.sort_unstable();
    Ok(kept.into())
}

#[cfg(test)]
mod tests {
    use crate::mail::id::Mint;

    use super::*;

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_is_kept_is_read_and_the_oldest_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sessions");
        make(&folder, None).unwrap();
        make(&folder, None).unwrap();
        let mint = Mint::new(7);
        let first = mint.next(1);
        let sessions = Sessions::open(folder.clone());
        sessions.keep(first, "0.000 > 220 hello\n");
        assert_eq!(read(&folder, first).unwrap().as_deref(), Some("0.000 > 220 hello\n"));
        assert_eq!(read(&folder, mint.next(1)).unwrap(), None);
        // Another process goes on with what the first has left.
        let sessions = Sessions::open(folder.clone());
        (0..FILES).for_each(|_| sessions.keep(mint.next(1), "x"));
        assert_eq!((count(&folder), read(&folder, first).unwrap()), (FILES, None));
        let long = "x".repeat(BYTES as usize / 4);
        (0..8).for_each(|_| sessions.keep(mint.next(1), &long));
        assert!(count(&folder) <= 4, "{}", count(&folder));
    }

    #[test]
    fn a_folder_that_is_missing_troubles_nobody() {
        let root = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(root.path().join("none"));
        sessions.keep(Mint::new(7).next(1), "x");
        assert_eq!(count(root.path()), 0);
    }
}
