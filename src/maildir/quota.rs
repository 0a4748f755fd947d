//! How much a Maildir may hold, by the books that Maildir++ keeps in it.
//!
//! `maildirsize` (<https://www.courier-mta.org/imap/README.maildirquota.html>) begins with a line of the
//! limits, `1000000S,1000C`: bytes and messages. Each further line, `size count`, adds to the sum or
//! takes from it; whoever puts a message into the Maildir or removes one appends such a line. The
//! file is made anew from what is there when it is missing, has other limits, or has grown too long;
//! and when it says that the Maildir is full, since a message that was removed by hand is not in it.
//! It is a hint and needs no sync.
//!
//! A copy that is under way is in the books but not yet in `new/`; so what was written to a `tmp/` a
//! short while ago is counted as well, or a burst would pass the limit by the copies that a count
//! doesn't see.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

pub use crate::mail::limit::Limit;

use crate::unix::durable::{Durable, Folder};

use super::folder;

/// The file's name.
const BOOKS: &str = "maildirsize";
/// A file that is longer is made anew.
const LONGEST: u64 = 5120;
/// A file that is older is not believed when it says that the Maildir is full.
const OLD: Duration = Duration::from_secs(15 * 60);
/// A file in `tmp/` that was last written to before that is not under way any more.
const UNDER_WAY: Duration = Duration::from_secs(15 * 60);
/// What lies here is about to be removed, and does not count.
const TRASH: &str = ".Trash";

/// Bytes and messages; below zero where more was taken away than had been put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    bytes: i128,
    messages: i128,
}

impl Sum {
    /// Whether a mailbox with that limit may hold so much.
    fn fits(self, limit: Limit) -> bool {
        (limit.bytes == 0 || self.bytes <= i128::from(limit.bytes))
            && (limit.messages == 0 || self.messages <= i128::from(limit.messages))
    }

    fn and(self, bytes: i128, messages: i128) -> Sum {
        Sum { bytes: self.bytes + bytes, messages: self.messages + messages }
    }
}

/// What the file says.
#[derive(Debug)]
struct Books {
    sum: Sum,
    /// It is the count itself, made not long ago: there is nothing to be gained by counting.
    is_count: bool,
}

/// The limit of one Maildir.
#[derive(Debug)]
pub struct Quota {
    top: Folder,
    limit: Limit,
}

impl Quota {
    /// That of the Maildir in `top`.
    pub fn new(top: &Folder, limit: Limit) -> io::Result<Quota> {
        Ok(Quota { top: top.try_clone()?, limit })
    }

    /// The Maildir that it is of.
    pub fn top(&self) -> &Folder {
        &self.top
    }

    /// Enters a message of `size` bytes that lies in `tmp/` under the name `own`. `QuotaExceeded`: there
    /// is no room for it, and it is not entered.
    pub fn charge(&self, disk: &dyn Durable, own: &str, size: u64, now: SystemTime) -> io::Result<()> {
        let with = |sum: Sum| sum.and(size.into(), 1);
        match self.read(now)? {
            Some(books) if with(books.sum).fits(self.limit) => return self.enter(disk, &entry(size, '+')),
            Some(books) if books.is_count => return Err(self.full(books.sum)),
            _ => {}
        }
        let sum = self.count(own, now)?;
        let fits = with(sum).fits(self.limit);
        let mut text = format!("{}\n{} {}\n", self.limit, sum.bytes, sum.messages);
        if fits {
            text.push_str(&entry(size, '+'));
        }
        self.replace(disk, &text)?;
        if fits { Ok(()) } else { Err(self.full(sum)) }
    }

    /// Takes a message out that was entered and then not delivered.
    pub fn give_back(&self, disk: &dyn Durable, size: u64) -> io::Result<()> {
        self.enter(disk, &entry(size, '-'))
    }

    fn full(&self, sum: Sum) -> io::Error {
        let text = format!(
            "the mailbox is full: {} bytes in {} messages, of {}",
            sum.bytes, sum.messages, self.limit
        );
        io::Error::new(ErrorKind::QuotaExceeded, text)
    }

    /// Reads the books; `None`: they are to be made anew.
    fn read(&self, now: SystemTime) -> io::Result<Option<Books>> {
        let file = match self.top.read(BOOKS) {
            Ok(file) => file,
            // A link or a fifo in its place is replaced.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        if !is_ours(&found) || found.len() > LONGEST {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines();
        if lines.next() != Some(self.limit.to_string().as_str()) {
            return Ok(None);
        }
        let (mut sum, mut entries) = (Sum::default(), 0);
        for line in lines {
            let Some((bytes, messages)) = read_entry(line) else { return Ok(None) };
            sum = sum.and(bytes, messages);
            entries += 1;
        }
        let is_old = now.duration_since(found.modified()?).is_ok_and(|age| age > OLD);
        Ok(Some(Books { sum, is_count: entries == 1 && !is_old }))
    }

    fn enter(&self, disk: &dyn Durable, entry: &str) -> io::Result<()> {
        let file = disk.append(&self.top, BOOKS, false, 0o600)?;
        if !is_ours(&file.metadata()?) {
            return Err(io::Error::new(ErrorKind::InvalidData, "maildirsize is not a file with one name"));
        }
        disk.write(&file, entry.as_bytes())
    }

    /// Puts new books in the place of the old ones.
    fn replace(&self, disk: &dyn Durable, text: &str) -> io::Result<()> {
        let name = format!("{BOOKS}.{}", std::process::id());
        let file = match disk.create(&self.top, &name, 0o600) {
            // Left by a process of that number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                disk.unlink(&self.top, &name)?;
                disk.create(&self.top, &name, 0o600)?
            }
            done => done?,
        };
        disk.write(&file, text.as_bytes())?;
        disk.rename(&self.top, &name, &self.top, BOOKS)
    }

    /// Counts what is there, and what is about to be: all but the copy of the name `own`.
    fn count(&self, own: &str, now: SystemTime) -> io::Result<Sum> {
        let mut sum = Sum::default();
        for folder in folder::all(&self.top, TRASH)? {
            for name in ["tmp", "new", "cur"] {
                match folder.inner(name) {
                    Ok(folder) if name == "tmp" => sum = count_under_way(&folder, own, now, sum)?,
                    Ok(folder) => sum = count_messages(&folder, sum)?,
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(sum)
    }
}

/// Copies under way: files in `tmp/` that were written to not long ago. What is older was left by an
/// attempt that was cut off, and is swept later.
fn count_under_way(tmp: &Folder, own: &str, now: SystemTime, mut sum: Sum) -> io::Result<Sum> {
    for entry in fs::read_dir(tmp.path())? {
        let entry = entry?;
        if entry.file_name() == own {
            continue;
        }
        // Gone since it was listed: named in `new/` meanwhile, where it will be counted, or given up.
        let Ok(found) = entry.metadata() else { continue };
        let is_old = now.duration_since(found.modified()?).is_ok_and(|age| age > UNDER_WAY);
        if found.is_file() && !is_old {
            sum = sum.and(found.len().into(), 1);
        }
    }
    Ok(sum)
}

fn count_messages(folder: &Folder, mut sum: Sum) -> io::Result<Sum> {
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The flag T: a reader has deleted it.
        let is_deleted = name.rsplit_once(":2,").is_some_and(|(_, flags)| flags.contains('T'));
        if name.starts_with('.') || is_deleted {
            continue;
        }
        let size = match size_in(&name) {
            Some(size) => size,
            // Gone since it was listed: moved by its reader.
            None => entry.metadata().map_or(0, |found| found.len()),
        };
        sum = sum.and(size.into(), 1);
    }
    Ok(sum)
}

/// The size that a message's name tells: `…,S=1234:2,S`.
fn size_in(name: &str) -> Option<u64> {
    let (_, rest) = name.split_once(",S=")?;
    rest.split([',', ':']).next()?.parse().ok()
}

/// A line: `size count`.
fn entry(size: u64, sign: char) -> String {
    let sign = if sign == '-' { "-" } else { "" };
    format!("{sign}{size} {sign}1\n")
}

fn read_entry(line: &str) -> Option<(i128, i128)> {
    let mut words = line.split_ascii_whitespace();
    let number = |word: Option<&str>| word?.parse::<i64>().ok().map(i128::from);
    let entry = (number(words.next())?, number(words.next())?);
    words.next().is_none().then_some(entry)
}

/// A plain file with one name. Whose it is does not matter: it is in his Maildir.
fn is_ours(found: &fs::Metadata) -> bool {
    found.is_file() && found.nlink() == 1
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use proptest::prelude::*;

    use crate::unix::durable::Disk;

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Scene {
            let folder = tempfile::tempdir().unwrap();
            for name in ["new", "cur", ".books/cur", ".Trash/cur"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            Scene { folder }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn quota(&self, bytes: u64, messages: u64) -> Quota {
            Quota::new(&Folder::open(self.path()).unwrap(), Limit { bytes, messages }).unwrap()
        }

        fn put(&self, name: &str, size: usize) {
            fs::write(self.path().join(name), "x".repeat(size)).unwrap();
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path().join(BOOKS)).unwrap()
        }
    }

    fn charge(quota: &Quota, size: u64) -> Result<(), ErrorKind> {
        quota.charge(&Disk, "own", size, SystemTime::now()).map_err(|error| error.kind())
    }

    #[test]
    fn what_is_there_is_counted_and_what_comes_is_entered() {
        let maildir = Scene::new();
        maildir.put("new/1.a.host,S=10", 12);
        maildir.put("cur/2.b.host:2,S", 20);
        maildir.put("cur/3.c.host,S=400:2,ST", 400);
        maildir.put(".books/cur/4.d.host,S=30,W=31:2,", 30);
        maildir.put(".Trash/cur/5.e.host,S=500", 500);
        let quota = maildir.quota(100, 0);
        assert_eq!(charge(&quota, 30), Ok(()));
        assert_eq!(maildir.text(), "100S\n60 3\n30 1\n");
        assert_eq!(charge(&quota, 10), Ok(()));
        assert_eq!(maildir.text(), "100S\n60 3\n30 1\n10 1\n");
        quota.give_back(&Disk, 10).unwrap();
        assert!(maildir.text().ends_with("10 1\n-10 -1\n"));
        // Full by the books, but not by what is there.
        assert_eq!(charge(&quota, 40), Ok(()));
        assert_eq!(maildir.text(), "100S\n60 3\n40 1\n");
        assert_eq!(charge(&quota, 41), Err(ErrorKind::QuotaExceeded));
        assert_eq!(maildir.text(), "100S\n60 3\n");
    }

    #[test]
    fn copies_under_way_are_counted_too() {
        let maildir = Scene::new();
        for folder in ["tmp", ".books/tmp"] {
            fs::create_dir(maildir.path().join(folder)).unwrap();
        }
        maildir.put("tmp/own", 30);
        maildir.put("tmp/other", 30);
        maildir.put(".books/tmp/another", 30);
        maildir.put("tmp/abandoned", 500);
        let old = SystemTime::now() - UNDER_WAY - Duration::from_secs(60);
        let abandoned = fs::File::options().write(true).open(maildir.path().join("tmp/abandoned")).unwrap();
        abandoned.set_modified(old).unwrap();
        assert_eq!(charge(&maildir.quota(89, 0), 30), Err(ErrorKind::QuotaExceeded));
        assert_eq!(maildir.text(), "89S\n60 2\n");
        assert_eq!(charge(&maildir.quota(90, 0), 30), Ok(()));
        assert_eq!(maildir.text(), "90S\n60 2\n30 1\n");
    }

    #[test]
    fn a_count_is_believed_for_a_while() {
        let maildir = Scene::new();
        maildir.put("new/1.a.host,S=10", 10);
        let quota = maildir.quota(10, 0);
        assert_eq!(charge(&quota, 1), Err(ErrorKind::QuotaExceeded));
        fs::remove_file(maildir.path().join("new/1.a.host,S=10")).unwrap();
        assert_eq!(charge(&quota, 1), Err(ErrorKind::QuotaExceeded));
        let later = SystemTime::now() + OLD + Duration::from_secs(60);
        assert!(quota.charge(&Disk, "own", 1, later).is_ok());
    }

    #[test]
    fn messages_are_limited_too_and_other_limits_are_counted_anew() {
        let maildir = Scene::new();
        maildir.put("maildirsize", 0);
        let quota = maildir.quota(0, 2);
        assert_eq!([charge(&quota, 1), charge(&quota, 1)], [Ok(()), Ok(())]);
        maildir.put("new/a", 1);
        maildir.put("new/b", 1);
        assert_eq!(charge(&quota, 1), Err(ErrorKind::QuotaExceeded));
        assert_eq!(charge(&maildir.quota(1000, 3), 1), Ok(()));
        assert_eq!(maildir.text(), "1000S,3C\n2 2\n1 1\n");
        fs::write(maildir.path().join("maildirsize"), format!("1000S,3C\n{}", "0 0\n".repeat(1300))).unwrap();
        assert_eq!(charge(&maildir.quota(1000, 3), 1), Ok(()));
        assert_eq!(maildir.text(), "1000S,3C\n2 2\n1 1\n");
    }

    #[test]
    fn books_that_are_no_file_are_replaced_and_never_written_through() {
        let maildir = Scene::new();
        let outside = maildir.path().join("precious");
        fs::write(&outside, "100S\n0 0\n").unwrap();
        let quota = maildir.quota(100, 0);
        let books = maildir.path().join("maildirsize");
        symlink(&outside, &books).unwrap();
        assert_eq!(charge(&quota, 1), Ok(()));
        fs::remove_file(&books).unwrap();
        fs::hard_link(&outside, &books).unwrap();
        assert!(quota.give_back(&Disk, 1).is_err());
        assert_eq!(charge(&quota, 1), Ok(()));
        assert_eq!(
            (maildir.text().as_str(), fs::read(&outside).unwrap()),
            ("100S\n0 0\n1 1\n", b"100S\n0 0\n".to_vec())
        );
    }

    proptest! {
        #[test]
        fn any_books_are_read_or_made_anew(text in "(100S\n)?((-?[0-9]{1,20} [0-9]|x|\n| ){1,3}\n){0,4}") {
            let maildir = Scene::new();
            fs::write(maildir.path().join("maildirsize"), &text).unwrap();
            let _ = charge(&maildir.quota(100, 0), 1);
            prop_assert!(maildir.text().starts_with("100S\n"));
        }
    }
}
