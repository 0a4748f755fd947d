//! Tables: rows of a key and a value, wherever they are kept.
//!
//! A [`Lookup`] answers one question: what does this key lead to? Behind it are text files (`text`,
//! held in memory by [`watched`]), cdb files ([`cdb`], [`make`]), SQLite databases (`sqlite`) and
//! lists of regular expressions (`pattern`); a database on another host can join as one more. A table
//! that can't be read says so, and the mail waits: it never seems to be empty.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::Source;

mod cdb;
pub(super) mod make;
mod pattern;
mod sqlite;
pub(super) mod text;
pub(super) mod watched;

use text::{Form, Rows};
use watched::{Absent, Watched};

/// A table.
pub(super) trait Lookup: fmt::Debug + Send + Sync {
    /// The row of a key, which is in lower case; `None` if there is none. May block on a disk. An
    /// error: nobody can say now.
    fn find(&self, key: &str) -> Result<Option<Row>, TableError>;

    /// Shows each good row with its key, for `postactl check`. What can't be read through, a database or
    /// a list of expressions, shows none.
    fn each(&self, _show: &mut dyn FnMut(&str, &Row)) -> Result<(), TableError> {
        Ok(())
    }

    /// What the administrator should mend; for `postactl check`.
    fn faults(&self) -> Vec<TableError> {
        Vec::new()
    }

    /// Whether it is asked for whole addresses only: an expression says itself which parts it wants.
    fn wants_whole_keys(&self) -> bool {
        false
    }
}

/// What a key leads to, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The value.
    pub(super) value: Arc<str>,
    /// The file.
    pub(super) table: Arc<str>,
    /// The line in it; none where a file has no lines.
    pub(super) line: Option<usize>,
}

impl fmt::Display for Row {
    /// Where it is written: `FILE:LINE`, or `FILE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// Why a table can't say.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    /// The file can't be opened or read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A line can't be understood.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A file that is no whole cdb.
    #[error("{}: no whole cdb file ({why}); build it again with postactl cdb", path.display())]
    Cdb {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The database can't answer.
    #[error("{}: {why}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The database's words.
        why: String,
    },
}

impl TableError {
    /// A row whose value is no good.
    pub(super) fn of_row(row: &Row, key: &str, why: String) -> TableError {
        let path = PathBuf::from(&*row.table);
        match row.line {
            Some(line) => TableError::Line { path, line, why },
            None => TableError::Database { path, why: format!("{key}: {why}") },
        }
    }

    /// A file that the system doesn't give.
    pub(super) fn unreadable(path: &Path, why: &std::io::Error) -> TableError {
        TableError::Unreadable { path: path.to_path_buf(), why: why.to_string() }
    }
}

/// Opens a table whose rows have that form. Nothing is read before it is asked.
pub(super) fn open(source: &Source, form: Form) -> Box<dyn Lookup> {
    match source {
        Source::Text(path) => Box::new(Watched::new(path.clone(), form.absent(), form.parser())),
        Source::Cdb(path) => Box::new(cdb::Cdb::new(path)),
        Source::Patterns(path) => {
            Box::new(Watched::new(path.clone(), Absent::Failure, pattern::Patterns::parse))
        }
        Source::Sqlite { file, query } => Box::new(sqlite::Sqlite::new(file, query)),
        Source::Named(name) => Box::new(Unknown(name.clone())),
    }
}

/// Opens several tables that are asked in turn.
pub(super) fn open_all(sources: &[Source], form: Form) -> Vec<Box<dyn Lookup>> {
    sources.iter().map(|source| open(source, form)).collect()
}

impl Lookup for Watched<Rows> {
    fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        self.get()?.find(key)
    }

    fn each(&self, show: &mut dyn FnMut(&str, &Row)) -> Result<(), TableError> {
        // That it can't be read is a fault of `faults`.
        if let Ok(rows) = self.get() {
            rows.each(show);
        }
        Ok(())
    }

    fn faults(&self) -> Vec<TableError> {
        self.get().map_or_else(|why| vec![why], |rows| watched::Content::faults(&*rows).to_vec())
    }
}

impl Lookup for Watched<pattern::Patterns> {
    fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        self.get()?.find(key)
    }

    fn faults(&self) -> Vec<TableError> {
        self.get().map_or_else(|why| vec![why], |list| watched::Content::faults(&*list).to_vec())
    }

    fn wants_whole_keys(&self) -> bool {
        true
    }
}

/// A name that `[tables]` doesn't have. Reading a configuration refuses it; who makes settings in
/// another way finds out when the table is asked.
#[derive(Debug)]
struct Unknown(String);

impl Lookup for Unknown {
    fn find(&self, _key: &str) -> Result<Option<Row>, TableError> {
        let why = format!("there is no [tables.{}]", self.0);
        Err(TableError::Unreadable { path: self.0.clone().into(), why })
    }
}
