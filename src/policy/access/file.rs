//! A table's file, read again when it has changed.

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Fault;

use super::pattern::Kind;
use super::table::{Found, Table};
use super::{Finding, Row, fault};

/// How often we look whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);
/// The longest file that is read, in octets.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A table that follows its file.
#[derive(Debug)]
pub struct File {
    kind: Kind,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Arc<Table>,
    /// Of the file that was read last, whether it was good or not.
    stamp: Option<Stamp>,
    looked: Instant,
}

/// What tells one state of a file from another.
type Stamp = (u64, u64, i64, i64);

impl File {
    /// Reads the table; an error is every fault in it.
    pub fn load(kind: Kind, path: &Path) -> Result<File, Vec<Fault>> {
        let (table, stamp) = read(kind, path)?;
        let state = State { table: Arc::new(table), stamp: Some(stamp), looked: Instant::now() };
        Ok(File { kind, path: path.to_path_buf(), state: Mutex::new(state) })
    }

    /// The table as it is now. A file that has become bad is told of in the log, once, and the table
    /// stays as it was.
    pub fn table(&self, now: Instant) -> Arc<Table> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked) >= LOOK {
            state.looked = now;
            let stamp = std::fs::metadata(&self.path).ok().map(|about| stamp(&about));
            if stamp != state.stamp {
                state.stamp = stamp;
                self.renew(&mut state);
            }
        }
        Arc::clone(&state.table)
    }

    fn renew(&self, state: &mut State) {
        match read(self.kind, &self.path) {
            Ok((table, stamp)) => {
                state.table = Arc::new(table);
                state.stamp = Some(stamp);
                log::info!("{} table {} read again", self.kind, self.path.display());
            }
            Err(faults) => {
                faults.iter().for_each(|fault| log::error!("{fault}"));
                log::error!("the {} table stays as it was until its file is mended", self.kind);
            }
        }
    }

    /// What was found, with its place.
    pub fn finding(&self, found: Found<'_>) -> Finding {
        let row = Row { kind: self.kind, file: self.path.clone(), line: found.line };
        Finding { action: found.action, text: found.text.to_string(), row }
    }
}

fn read(kind: Kind, path: &Path) -> Result<(Table, Stamp), Vec<Fault>> {
    let (text, stamp) =
        read_text(path).map_err(|why| vec![fault(path, 0, 0, format!("can't be read: {why}"))])?;
    let table = Table::parse(kind, &text).map_err(|faults| {
        faults.into_iter().map(|(line, column, what)| fault(path, line, column, what)).collect::<Vec<_>>()
    })?;
    Ok((table, stamp))
}

fn read_text(path: &Path) -> io::Result<(String, Stamp)> {
    let file = std::fs::File::open(path)?;
    let stamp = stamp(&file.metadata()?);
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} octets")));
    }
    Ok((text, stamp))
}

fn stamp(about: &Metadata) -> Stamp {
    (about.ino(), about.size(), about.mtime(), about.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Subject;
    use super::super::table::Action;
    use super::*;

    #[test]
    fn a_change_is_seen_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("helo");
        // Another file in its place, as an editor writes it: a change that no clock can hide.
        let write = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        write("a.example refuse");
        let file = File::load(Kind::Helo, &path).unwrap();
        let mut now = Instant::now();
        let mut action = || {
            now += LOOK;
            file.table(now).find(&Subject::Name("a.example")).map(|found| found.action)
        };
        assert_eq!(action(), Some(Action::Refuse));
        write("a.example later");
        assert_eq!(action(), Some(Action::Later));
        write("a.example perhaps");
        assert_eq!((action(), action()), (Some(Action::Later), Some(Action::Later)));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(action(), Some(Action::Later));
        write("# nobody");
        assert_eq!(action(), None);
    }

    #[test]
    fn faults_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        let missing = File::load(Kind::Clients, &path).unwrap_err();
        assert!(missing[0].to_string().starts_with(&format!("{}: can't be read", path.display())));
        std::fs::write(&path, "\n10.0.0.0/8 mayby").unwrap();
        let faults = File::load(Kind::Clients, &path).unwrap_err();
        assert!(faults[0].to_string().starts_with(&format!("{}:2:12: ", path.display())), "{}", faults[0]);
    }
}
