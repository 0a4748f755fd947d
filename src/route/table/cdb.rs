//! Reading constant databases, for tables of millions of rows (<https://cr.yp.to/cdb/cdb.txt>).
//!
//! ```text
//! 256 times  position, slots      the hash tables: two u32, the table of a key's hash & 255
//! records    length of key, length of value, key, value
//! tables     slots: hash, position of a record (0: the slot is empty)
//! ```
//!
//! All numbers are little-endian. A key costs two or three reads, whatever the size; nothing is kept
//! in memory but an open file. A file is never changed, only replaced; a new one is seen within a
//! second.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::watched::{PAUSE, Stamp};
use super::{Lookup, Row, TableError};

/// Bytes of the 256 pointers at the start.
pub(super) const POINTERS: u64 = 2048;
/// Longest value that is read: no list of addresses is longer, but a broken file may say so.
const MAX_VALUE: u32 = 64 << 20;

/// A cdb file.
#[derive(Debug)]
pub(super) struct Cdb {
    path: PathBuf,
    name: Arc<str>,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    looked: Instant,
    stamp: Stamp,
    file: Arc<Database>,
}

/// An open file and its length.
#[derive(Debug)]
struct Database {
    file: File,
    length: u64,
}

/// What is wrong: with the file's content, or with reading it.
#[derive(Debug)]
enum Fault {
    Content(&'static str),
    Read(std::io::Error),
}

impl Cdb {
    /// The file at a path; it is opened when it is first asked.
    pub(super) fn new(path: &Path) -> Cdb {
        Cdb { path: path.to_path_buf(), name: path.display().to_string().into(), held: Mutex::new(None) }
    }

    fn failed(&self, fault: Fault) -> TableError {
        match fault {
            Fault::Content(why) => TableError::Cdb { path: self.path.clone(), why },
            Fault::Read(why) => TableError::unreadable(&self.path, &why),
        }
    }

    /// The file that is in the path now.
    fn database(&self) -> Result<Arc<Database>, TableError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref().filter(|held| held.looked.elapsed() < PAUSE) {
            return Ok(held.file.clone());
        }
        let failed = |why: std::io::Error| TableError::unreadable(&self.path, &why);
        let stamp = Stamp::of(&std::fs::metadata(&self.path).map_err(failed)?);
        if let Some(same) = held.as_mut().filter(|held| held.stamp == stamp) {
            same.looked = Instant::now();
            return Ok(same.file.clone());
        }
        let file = File::open(&self.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let database = Arc::new(Database { file, length: metadata.len() });
        let stamp = Stamp::of(&metadata);
        *held = Some(Held { looked: Instant::now(), stamp, file: database.clone() });
        Ok(database)
    }
}

impl Lookup for Cdb {
    fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        let found = self.database()?.find(key.as_bytes()).map_err(|fault| self.failed(fault))?;
        let Some(value) = found else { return Ok(None) };
        let value =
            String::from_utf8(value).map_err(|_| self.failed(Fault::Content("a value is no UTF-8")))?;
        Ok(Some(Row { value: value.into(), table: self.name.clone(), line: None }))
    }

    fn each(&self, show: &mut dyn FnMut(&str, &Row)) -> Result<(), TableError> {
        let shown = self.database()?.each(&mut |key, value| {
            let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
            show(&key, &Row { value: value.into(), table: self.name.clone(), line: None });
        });
        shown.map_err(|fault| self.failed(fault))
    }

    fn faults(&self) -> Vec<TableError> {
        self.each(&mut |_, _| ()).err().into_iter().collect()
    }
}

impl Database {
    /// The value of the first record with that key.
    fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if self.length < POINTERS {
            return Err(Fault::Content("it is too short"));
        }
        let hash = hash(key);
        let (table, slots) = self.pair(u64::from(hash & 255) * 8)?;
        if slots == 0 {
            return Ok(None);
        }
        // No more looks than there are slots: a broken table without an empty one ends too.
        let start = (hash >> 8) % slots;
        for n in 0..slots {
            let slot = (start + n) % slots;
            let (stored, position) = self.pair(u64::from(table) + u64::from(slot) * 8)?;
            if position == 0 {
                return Ok(None);
            }
            if stored == hash
                && let Some(value) = self.record(u64::from(position), key)?
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Shows the key and the value of every record, as they lie in the file: up to the first hash table.
    fn each(&self, show: &mut dyn FnMut(Vec<u8>, Vec<u8>)) -> Result<(), Fault> {
        let mut end = self.length;
        for table in 0..256 {
            end = end.min(u64::from(self.pair(table * 8)?.0));
        }
        let mut at = POINTERS;
        while at < end {
            let (key_length, length) = self.pair(at)?;
            if key_length > MAX_VALUE || length > MAX_VALUE {
                return Err(Fault::Content("a key or a value is too long"));
            }
            let (key_length, length) = (u64::from(key_length), u64::from(length));
            let key = self.read(at + 8, key_length)?;
            show(key, self.read(at + 8 + key_length, length)?);
            at += 8 + key_length + length;
        }
        Ok(())
    }

    /// The value of the record at a position, if its key is that one.
    fn record(&self, position: u64, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let (key_length, length) = self.pair(position)?;
        if key_length as usize != key.len() {
            return Ok(None);
        }
        if self.read(position + 8, u64::from(key_length))? != key {
            return Ok(None);
        }
        if length > MAX_VALUE {
            return Err(Fault::Content("a value is too long"));
        }
        self.read(position + 8 + u64::from(key_length), u64::from(length)).map(Some)
    }

    fn pair(&self, at: u64) -> Result<(u32, u32), Fault> {
        let bytes = self.read(at, 8)?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok((number(0), number(4)))
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>, Fault> {
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Fault::Content("it points beyond its end"));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(Fault::Read)?;
        Ok(bytes)
    }
}

/// The hash of a key.
pub(super) fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, byte| hash.wrapping_shl(5).wrapping_add(hash) ^ u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::make::write;
    use super::*;

    fn built(rows: &[(String, String)]) -> (tempfile::TempDir, Cdb) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.cdb");
        let mut file = File::create(&path).unwrap();
        write(&mut file, rows.iter().map(|(key, value)| (key.as_str(), value.as_str()))).unwrap();
        (folder, Cdb::new(&path))
    }

    fn value(cdb: &Cdb, key: &str) -> Option<String> {
        cdb.find(key).unwrap().map(|row| row.value.to_string())
    }

    #[test]
    fn the_format_is_that_of_the_page() {
        // As cdbmake makes it of "+3,5:one->Hello\n\n".
        let (_folder, cdb) = built(&[("one".into(), "Hello".into())]);
        let bytes = std::fs::read(&cdb.path).unwrap();
        assert_eq!(hash(b"one"), 193_420_161);
        let record = [&3u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"oneHello"].concat();
        assert_eq!(bytes[2048..2064], record[..]);
        let pointer = 8 * (193_420_161 & 255);
        assert_eq!(
            bytes[pointer..pointer + 8],
            [&2064u32.to_le_bytes()[..], &2u32.to_le_bytes()].concat()[..]
        );
        assert_eq!(bytes.len(), 2064 + 16);
        assert_eq!(value(&cdb, "one").as_deref(), Some("Hello"));
        assert_eq!(value(&cdb, "two"), None);
    }

    #[test]
    fn a_broken_file_is_no_empty_table() {
        let (folder, cdb) = built(&[("one".into(), "Hello".into())]);
        let whole = std::fs::read(&cdb.path).unwrap();
        for length in [0, 2047, 2048, 2060, whole.len() - 1] {
            let path = folder.path().join(format!("cut-{length}"));
            std::fs::write(&path, &whole[..length]).unwrap();
            let why = Cdb::new(&path).find("one").unwrap_err().to_string();
            assert!(why.contains("postactl cdb"), "{length}: {why}");
        }
        assert!(matches!(Cdb::new(Path::new("/no/such")).find("one"), Err(TableError::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn what_is_built_is_found(rows in prop::collection::hash_map("[a-z@.]{0,9}", "\\PC{0,20}", 0..60), other in "[a-z]{0,4}") {
            let list: Vec<(String, String)> = rows.clone().into_iter().collect();
            let (_folder, cdb) = built(&list);
            for (key, wanted) in &rows {
                prop_assert_eq!(&value(&cdb, key).unwrap(), wanted);
            }
            prop_assert_eq!(value(&cdb, &other), rows.get(&other).cloned());
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0..2200usize, byte: u8) {
            let rows: Vec<(String, String)> = (0..6).map(|n| (format!("k{n}"), n.to_string())).collect();
            let (_folder, cdb) = built(&rows);
            let mut bytes = std::fs::read(&cdb.path).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            std::fs::write(&cdb.path, bytes).unwrap();
            for n in 0..8 {
                let _ = cdb.find(&format!("k{n}"));
            }
        }
    }
}
