//! SQLite databases: one query for each table.
//!
//! The database is opened for reading only. Connections are kept for the next who ask, so that
//! threads don't wait for each other; a database that was replaced is opened anew.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Lookup, Row, TableError};

/// How long a writer may keep us waiting.
const BUSY: Duration = Duration::from_secs(5);
/// Most connections that are kept while nobody asks.
const KEPT: usize = 8;
/// Longest answer: many rows are one list.
const MAX_VALUE: usize = 64 << 20;

/// A query of a database.
#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    name: Arc<str>,
    query: String,
    idle: Mutex<Vec<(Identity, Connection)>>,
}

/// Device and inode: which file a connection has open.
type Identity = (u64, u64);

impl Sqlite {
    /// A query of the database at a path; `?1` in it stands for the key.
    pub(super) fn new(path: &Path, query: &str) -> Sqlite {
        Sqlite {
            path: path.to_path_buf(),
            name: path.display().to_string().into(),
            query: query.to_string(),
            idle: Mutex::new(Vec::new()),
        }
    }

    fn failed(&self, why: &rusqlite::Error) -> TableError {
        TableError::Database { path: self.path.clone(), why: why.to_string() }
    }

    /// A connection to the file that is in the path now.
    fn connection(&self) -> Result<(Identity, Connection), TableError> {
        let metadata =
            std::fs::metadata(&self.path).map_err(|why| TableError::unreadable(&self.path, &why))?;
        let now = (metadata.dev(), metadata.ino());
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|(identity, _)| *identity == now);
            if let Some(kept) = idle.pop() {
                return Ok(kept);
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&self.path, flags);
        let connection = opened.map_err(|why| self.failed(&why))?;
        connection.busy_timeout(BUSY).map_err(|why| self.failed(&why))?;
        Ok((now, connection))
    }

    /// The first column of all rows, as one list. `None`: there is no row.
    fn ask(&self, connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
        let mut query = connection.prepare_cached(&self.query)?;
        let mut rows = query.query([key])?;
        let mut list: Option<String> = None;
        while let Some(row) = rows.next()? {
            let value = match row.get_ref(0)? {
                // A row that says nothing is none.
                ValueRef::Null => continue,
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            };
            match &mut list {
                None => list = Some(value),
                Some(list) => {
                    list.push_str(", ");
                    list.push_str(&value);
                }
            }
            if list.as_ref().is_some_and(|list| list.len() > MAX_VALUE) {
                return Err(rusqlite::Error::InvalidQuery);
            }
        }
        Ok(list)
    }
}

impl Lookup for Sqlite {
    fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        let (identity, connection) = self.connection()?;
        // A connection that has failed is not asked again.
        let found = self.ask(&connection, key).map_err(|why| self.failed(&why))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push((identity, connection));
        }
        Ok(found.map(|value| Row { value: value.into(), table: self.name.clone(), line: None }))
    }

    fn faults(&self) -> Vec<TableError> {
        // Any key: a query that can't be prepared fails for every one.
        self.find("postmaster").err().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "SELECT target FROM alias WHERE name = ?1 ORDER BY target";

    fn made(path: &Path, rows: &str) {
        let connection = Connection::open(path).unwrap();
        let batch = format!("CREATE TABLE alias (name TEXT, target TEXT); {rows}");
        connection.execute_batch(&batch).unwrap();
    }

    #[test]
    fn rows_are_one_list_and_a_new_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let rows = "INSERT INTO alias VALUES ('a@x', 'c@y'), ('a@x', 'b@y'), ('n@x', NULL), ('o@x', 5);";
        made(&path, rows);
        let table = Sqlite::new(&path, QUERY);
        let value = |key: &str| table.find(key).unwrap().map(|row| row.value.to_string());
        assert_eq!(value("a@x").as_deref(), Some("b@y, c@y"));
        assert_eq!((value("n@x"), value("x@x"), value("' OR 1=1 --")), (None, None, None));
        assert_eq!(value("o@x").as_deref(), Some("5"));
        let next = folder.path().join("next");
        made(&next, "INSERT INTO alias VALUES ('a@x', 'new@y');");
        std::fs::rename(&next, &path).unwrap();
        assert_eq!(value("a@x").as_deref(), Some("new@y"));
        assert_eq!(table.faults(), []);
    }

    #[test]
    fn a_dead_database_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        assert!(matches!(Sqlite::new(&path, QUERY).find("a"), Err(TableError::Unreadable { .. })));
        assert!(!path.exists(), "it is not made");
        std::fs::write(&path, "no database at all, but of some length".repeat(100)).unwrap();
        assert!(matches!(Sqlite::new(&path, QUERY).find("a"), Err(TableError::Database { .. })));
        std::fs::remove_file(&path).unwrap();
        made(&path, "");
        for query in [
            "SELECT nothing FROM alias WHERE name = ?1",
            "SELEC",
            "SELECT 1",
            "DELETE FROM alias WHERE name = ?1",
        ] {
            let table = Sqlite::new(&path, query);
            assert!(table.find("a").is_err() && !table.faults().is_empty(), "{query}");
        }
    }

    #[test]
    fn threads_ask_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        made(&path, "INSERT INTO alias VALUES ('a@x', 'b@y');");
        let table = Sqlite::new(&path, QUERY);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(&*table.find("a@x").unwrap().unwrap().value, "b@y");
                    }
                });
            }
        });
        assert!(table.idle.lock().unwrap().len() <= KEPT);
    }
}
