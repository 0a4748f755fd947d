//! Whether a file is still the one that was read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that was changed so recently may change again without its times showing it.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells that a file is not the one it was: device, inode, size, and time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Mark {
    /// Of the file at this path; none if it can't be looked at.
    pub fn of(file: &Path) -> Option<Mark> {
        let found = std::fs::metadata(file).ok()?;
        Some(Mark {
            place: (found.dev(), found.ino()),
            size: found.size(),
            changed: (found.mtime(), found.mtime_nsec()),
        })
    }

    /// Whether a later change will show.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() as i64 - self.changed.0 >= SETTLED.as_secs() as i64
    }
}
