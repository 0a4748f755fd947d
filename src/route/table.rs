//! A text table held in memory, and read again when its file changes.
//!
//! Asking costs a look at the clock; at most once in [`PAUSE`] it costs a `stat` too. A file that
//! can't be read is never an empty table: who asks hears of a failure, and mail waits instead of
//! being refused.

use std::fmt;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a table is trusted without a look at its file.
const PAUSE: Duration = Duration::from_secs(1);

/// What a file's absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// An empty table.
    Empty,
    /// Nobody can say what is in the table.
    Failure,
}

/// Makes a table of a file's text; an error says what is wrong with the whole.
pub(super) type Parse<T> = fn(path: &Path, text: &str) -> Result<T, String>;

/// A file and what was in it.
pub(super) struct Table<T> {
    path: PathBuf,
    absent: Absent,
    parse: Parse<T>,
    pause: Duration,
    held: Mutex<Option<Held<T>>>,
}

/// What is known of the file.
struct Held<T> {
    looked: Instant,
    stamp: Option<Stamp>,
    content: Result<Arc<T>, String>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Table<T> {
    /// A table that is read when it is first asked for.
    pub(super) fn new(path: PathBuf, absent: Absent, parse: Parse<T>) -> Table<T> {
        Table { path, absent, parse, pause: PAUSE, held: Mutex::new(None) }
    }

    /// The same, with a look at the file at every question.
    #[cfg(test)]
    pub(super) fn always_looking(mut self) -> Table<T> {
        self.pause = Duration::ZERO;
        self
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the file now, or why nobody can say.
    pub(super) fn get(&self) -> Result<Arc<T>, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = held.as_ref().is_some_and(|held| held.looked.elapsed() < self.pause);
        if !fresh {
            let before = held.take();
            *held = Some(self.look(before));
        }
        match &*held {
            Some(held) => held.content.clone(),
            None => Err("not read yet".to_string()),
        }
    }

    /// Looks at the file, and reads it if it isn't as it was.
    fn look(&self, before: Option<Held<T>>) -> Held<T> {
        let looked = Instant::now();
        let metadata = std::fs::metadata(&self.path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        match before {
            Some(before) if stamp.is_some() && before.stamp == stamp => Held { looked, ..before },
            _ => {
                let settled = metadata.as_ref().is_ok_and(is_settled);
                let content = self.read().map_err(|why| format!("{}: {why}", self.path.display()));
                if let Err(why) = &content {
                    log::warn!("{why}");
                }
                // A file written to a moment ago may change again without a new time on it, and a
                // failure may pass: both are read again at the next look.
                let stamp = stamp.filter(|_| settled && content.is_ok());
                Held { looked, stamp, content }
            }
        }
    }

    fn read(&self) -> Result<Arc<T>, String> {
        let text = match std::fs::read(&self.path) {
            // A stray byte of another character set spoils its line, not the table.
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(why) if why.kind() == ErrorKind::NotFound && self.absent == Absent::Empty => String::new(),
            Err(why) => return Err(why.to_string()),
        };
        (self.parse)(&self.path, &text).map(Arc::new)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether the file's time is so old that the next change will show.
fn is_settled(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age > Duration::from_secs(1))
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(_: &Path, text: &str) -> Result<String, String> {
        if text == "bad" { Err("bad content".into()) } else { Ok(text.to_string()) }
    }

    #[test]
    fn a_change_is_seen_and_a_failure_is_no_empty_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let table = Table::new(path.clone(), Absent::Failure, parse).always_looking();
        assert!(table.get().unwrap_err().contains("No such file"));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(*table.get().unwrap(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(*table.get().unwrap(), "two");
        std::fs::write(&path, "bad").unwrap();
        assert!(table.get().unwrap_err().ends_with("bad content"));
        std::fs::remove_file(&path).unwrap();
        assert!(table.get().is_err());
        let lenient = Table::new(path, Absent::Empty, parse);
        assert_eq!(*lenient.get().unwrap(), "");
    }

    #[test]
    fn an_old_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, "one").unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let table = Table::new(path, Absent::Failure, parse).always_looking();
        assert!(Arc::ptr_eq(&table.get().unwrap(), &table.get().unwrap()));
    }
}
