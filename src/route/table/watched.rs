//! A text file held in memory, and read again when it changes.
//!
//! Asking costs a look at the clock; at most once in [`PAUSE`] it costs a `stat` too. A file that
//! can't be read is never an empty table: who asks hears of a failure, and mail waits instead of
//! being refused. A new state with more faults than the one in force is reported and not taken: what
//! an editor left half done changes nothing.

use std::fmt;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::TableError;

/// How long a table is trusted without a look at its file.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What a file's absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::route) enum Absent {
    /// An empty table.
    Empty,
    /// Nobody can say what is in the table.
    Failure,
}

/// Makes a table of a file's text; an error says what is wrong with the whole.
pub(in crate::route) type Parse<T> = fn(path: &Path, text: &str) -> Result<T, TableError>;

/// What a file's text becomes.
pub(in crate::route) trait Content {
    /// Lines that could not be understood.
    fn faults(&self) -> &[TableError];
}

/// A file and what was in it.
pub(in crate::route) struct Watched<T> {
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
    content: Result<Arc<T>, TableError>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Content> Watched<T> {
    /// A file that is read when it is first asked for.
    pub(in crate::route) fn new(path: PathBuf, absent: Absent, parse: Parse<T>) -> Watched<T> {
        Watched { path, absent, parse, pause: PAUSE, held: Mutex::new(None) }
    }

    /// The same, with a look at the file at every question.
    #[cfg(test)]
    pub(in crate::route) fn always_looking(mut self) -> Watched<T> {
        self.pause = Duration::ZERO;
        self
    }

    /// The file.
    pub(in crate::route) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the file now, or why nobody can say.
    pub(in crate::route) fn get(&self) -> Result<Arc<T>, TableError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let content = match held.take() {
            Some(fresh) if fresh.looked.elapsed() < self.pause => fresh,
            before => self.look(before),
        };
        held.insert(content).content.clone()
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
                let old = before.and_then(|before| before.content.ok());
                let content = self.better_of(old, self.read());
                // A file written to a moment ago may change again without a new time on it, and a
                // failure may pass: both are read again at the next look.
                let stamp = stamp.filter(|_| settled && content.is_ok());
                Held { looked, stamp, content }
            }
        }
    }

    /// The new content, unless it is worse than the old. What is wrong with it goes into the log.
    fn better_of(&self, old: Option<Arc<T>>, new: Result<Arc<T>, TableError>) -> Result<Arc<T>, TableError> {
        match (&new, old) {
            (Ok(new), old) => {
                new.faults().iter().for_each(|fault| log::warn!("{fault}"));
                match old {
                    Some(old) if old.faults().len() < new.faults().len() => self.keep(old),
                    _ => Ok(new.clone()),
                }
            }
            (Err(why @ TableError::Unreadable { .. }), _) | (Err(why), None) => {
                log::warn!("{why}");
                new
            }
            (Err(why), Some(old)) => {
                log::warn!("{why}");
                self.keep(old)
            }
        }
    }

    fn keep(&self, old: Arc<T>) -> Result<Arc<T>, TableError> {
        log::error!("{}: what was read before stays in force until this is mended", self.path.display());
        Ok(old)
    }

    fn read(&self) -> Result<Arc<T>, TableError> {
        let text = match std::fs::read(&self.path) {
            // A stray byte of another character set spoils its line, not the table.
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(why) if why.kind() == ErrorKind::NotFound && self.absent == Absent::Empty => String::new(),
            Err(why) => return Err(TableError::unreadable(&self.path, &why)),
        };
        (self.parse)(&self.path, &text).map(Arc::new)
    }
}

impl Stamp {
    /// The state that a `stat` shows.
    pub(super) fn of(metadata: &Metadata) -> Stamp {
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

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text, and its lines that begin with "bad".
    #[derive(Debug)]
    struct Page(String, Vec<TableError>);

    impl Content for Page {
        fn faults(&self) -> &[TableError] {
            &self.1
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Page, TableError> {
        let fault = |n, why: &str| TableError::Line { path: path.into(), line: n, why: why.into() };
        if text == "broken" {
            return Err(fault(1, "all of it"));
        }
        let bad = text.lines().enumerate().filter(|(_, line)| line.starts_with("bad"));
        Ok(Page(text.to_string(), bad.map(|(n, line)| fault(n + 1, line)).collect()))
    }

    fn text(table: &Watched<Page>) -> String {
        table.get().unwrap().0.clone()
    }

    #[test]
    fn a_change_is_seen_and_a_failure_is_no_empty_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let table = Watched::new(path.clone(), Absent::Failure, parse).always_looking();
        assert!(table.get().unwrap_err().to_string().contains("No such file"));
        std::fs::write(&path, "broken").unwrap();
        assert!(table.get().unwrap_err().to_string().ends_with("table:1: all of it"));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(text(&table), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(text(&table), "two");
        std::fs::remove_file(&path).unwrap();
        assert!(table.get().is_err());
        let lenient = Watched::new(path, Absent::Empty, parse);
        assert_eq!(text(&lenient), "");
    }

    #[test]
    fn a_worse_state_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let table = Watched::new(path.clone(), Absent::Failure, parse).always_looking();
        for (new, in_force) in [
            ("bad at the start", "bad at the start"),
            ("good", "good"),
            ("bad", "good"),
            ("broken", "good"),
            ("better", "better"),
        ] {
            std::fs::write(&path, new).unwrap();
            assert_eq!(text(&table), in_force);
        }
    }

    #[test]
    fn an_old_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, "one").unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let table = Watched::new(path, Absent::Failure, parse).always_looking();
        assert!(Arc::ptr_eq(&table.get().unwrap(), &table.get().unwrap()));
    }
}
