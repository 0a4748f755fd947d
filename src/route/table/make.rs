//! Building a constant database of a text file; [`super::cdb`] has the format.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::TableError;
use super::cdb::{POINTERS, hash};
use super::text::{Form, Rows};
use super::watched::Content;

/// Why no database was built. The old one, if there is one, is as it was.
#[derive(Debug, Error)]
pub enum MakeError {
    /// The text file has faults: here is each.
    #[error("{} faults; nothing was built", .0.len())]
    Text(Vec<TableError>),
    /// Reading or writing failed.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
}

/// Builds `FILE.cdb` of the text file `FILE`: whole and on the disk, or not at all. Gives its path
/// and the number of its rows.
pub fn build(text: &Path, form: Form) -> Result<(PathBuf, usize), MakeError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |why| MakeError::File(path, why)
    };
    let bytes = std::fs::read(text).map_err(failed(text))?;
    let rows = Rows::parse(text, &String::from_utf8_lossy(&bytes), form);
    if !rows.faults().is_empty() {
        return Err(MakeError::Text(rows.faults().to_vec()));
    }
    let named = |end: &str| PathBuf::from(format!("{}{end}", text.display()));
    let (path, draft) = (named(".cdb"), named(".cdb.tmp"));
    let written = write_durably(&draft, &rows, text).and_then(|()| std::fs::rename(&draft, &path));
    if let Err(why) = written {
        // What is half written is of no use to anybody; that it can't be removed changes nothing.
        let _ = std::fs::remove_file(&draft);
        return Err(MakeError::File(draft, why));
    }
    sync_folder(&path).map_err(failed(&path))?;
    Ok((path, rows.all().count()))
}

/// Writes the database to a file, which gets the rights of the text file.
fn write_durably(draft: &Path, rows: &Rows, text: &Path) -> io::Result<()> {
    let mut file = File::create(draft)?;
    file.set_permissions(std::fs::metadata(text)?.permissions())?;
    write(&mut file, rows.all())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a database of rows. Positions are of 32 bits: beyond 4 GiB it fails.
pub(super) fn write<'r>(file: &mut File, rows: impl Iterator<Item = (&'r str, &'r str)>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    out.seek(SeekFrom::Start(POINTERS))?;
    let mut at = POINTERS;
    let mut tables: Vec<Vec<(u32, u32)>> = vec![Vec::new(); 256];
    for (key, value) in rows {
        let hash = hash(key.as_bytes());
        tables[(hash & 255) as usize].push((hash, position(at)?));
        write_pair(&mut out, position(key.len() as u64)?, position(value.len() as u64)?)?;
        out.write_all(key.as_bytes())?;
        out.write_all(value.as_bytes())?;
        at += 8 + key.len() as u64 + value.len() as u64;
    }
    let mut pointers = Vec::with_capacity(POINTERS as usize);
    for table in &tables {
        let slots = slots(table);
        write_pair(&mut pointers, position(at)?, position(slots.len() as u64)?)?;
        for (hash, position) in &slots {
            write_pair(&mut out, *hash, *position)?;
        }
        at += 8 * slots.len() as u64;
        position(at)?;
    }
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&pointers)?;
    out.flush()
}

/// The slots of one hash table, half of them empty.
fn slots(table: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let count = 2 * table.len();
    let mut slots = vec![(0, 0); count];
    for &(hash, position) in table {
        let mut slot = (hash >> 8) as usize % count;
        while slots[slot].1 != 0 {
            slot = (slot + 1) % count;
        }
        slots[slot] = (hash, position);
    }
    slots
}

fn position(at: u64) -> io::Result<u32> {
    u32::try_from(at).map_err(|_| io::Error::other("a cdb file can't be longer than 4 GiB"))
}

fn write_pair(out: &mut impl Write, first: u32, second: u32) -> io::Result<()> {
    out.write_all(&first.to_le_bytes())?;
    out.write_all(&second.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Lookup, cdb::Cdb};
    use super::*;

    #[test]
    fn a_text_becomes_a_database_or_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("virtual");
        std::fs::write(&text, "a@x b@y, c@y\n@x d@y\n").unwrap();
        std::fs::set_permissions(&text, PermissionsExt::from_mode(0o640)).unwrap();
        let (path, count) = build(&text, Form::Addresses).unwrap();
        assert_eq!((path.file_name().unwrap().to_str(), count), (Some("virtual.cdb"), 2));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let value = |key: &str| Cdb::new(&path).find(key).unwrap().map(|row| row.value.to_string());
        assert_eq!(value("a@x").as_deref(), Some("b@y, c@y"));
        std::fs::write(&text, "a@x b@y\nb@x\nc@x |d\n").unwrap();
        match build(&text, Form::Addresses) {
            Err(MakeError::Text(faults)) => assert_eq!(faults.len(), 2),
            other => panic!("{other:?}"),
        }
        assert_eq!(value("@x").as_deref(), Some("d@y"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half done is left");
    }
}
