//! Delivery into an mbox file: appended under locks, between a `From ` line and an empty one.
//!
//! The file is locked the two ways that readers know: `PATH.lock` beside it (where the folder can
//! be written), and fcntl(2) on the file itself. A lock that is taken is no error but a wait.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use posta::mail::address::ReversePath;
use posta::unix::durable::{Durable, Folder};
use posta::unix::record_lock;

use posta::maildir::copy::{Copy, Message};

use crate::refusal::Refusal;

/// A `PATH.lock` that is older was left by a program that died.
const STALE: Duration = Duration::from_secs(600);

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The message is in the file, and on the disk.
    Done,
    /// Somebody else has the file locked.
    Locked,
}

/// An mbox file: its folder and its name there.
#[derive(Debug)]
pub struct Mbox<'a> {
    /// The folder.
    pub folder: &'a Folder,
    /// The file.
    pub name: &'a str,
    /// Who must own it.
    pub uid: u32,
}

impl Mbox<'_> {
    /// Appends one copy. On an error the file is as long as it was before.
    pub fn append<M: Deref<Target = Message>>(
        &self,
        disk: &dyn Durable,
        now: SystemTime,
        sender: &ReversePath,
        copy: &mut Copy<M>,
    ) -> Result<Attempt, Refusal> {
        let path = self.folder.path().join(self.name);
        let failed = |error: io::Error| Refusal::of(path.display(), &error);
        let lock_name = format!("{}.lock", self.name);
        let dot_lock = DotLock::take(disk, self.folder, &lock_name, now).map_err(failed)?;
        if matches!(dot_lock, DotLock::Busy) {
            return Ok(Attempt::Locked);
        }
        let file = disk.append(self.folder, self.name, true, 0o600).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        // A hard link to somebody else's file is not followed (CVE-2008-2936).
        if !found.is_file() || found.nlink() != 1 || found.uid() != self.uid {
            let text = format!("{}: not a file with one name that its owner has", path.display());
            return Err(Refusal::new((4, 2, 1), text));
        }
        if !record_lock::try_lock(&file).map_err(failed)? {
            return Ok(Attempt::Locked);
        }
        let length = file.metadata().map_err(failed)?.len();
        let lead = lead(self.folder, self.name, length).map_err(failed)?.to_string();
        let written = write(disk, &file, lead + &from_line(sender, now), copy)
            .and_then(|()| disk.sync_file(&file))
            .and_then(|()| if length == 0 { disk.sync_folder(self.folder) } else { Ok(()) });
        if let Err(error) = written {
            disk.truncate(&file, length).map_err(failed)?;
            return Err(failed(error));
        }
        Ok(Attempt::Done)
    }
}

/// What must stand before a `From ` line in a file of that length: whoever wrote last may have been cut
/// off in the midst of a line, and a reader must not take the next message for a part of that one.
fn lead(folder: &Folder, name: &str, length: u64) -> io::Result<&'static str> {
    let Some(at) = length.checked_sub(2) else { return Ok(if length == 0 { "" } else { "\n\n" }) };
    let mut last = [0; 2];
    folder.read(name)?.read_exact_at(&mut last, at)?;
    Ok(match &last {
        b"\n\n" => "",
        [_, b'\n'] => "\n",
        _ => "\n\n",
    })
}

/// The line that begins a message; blanks in the sender would make it unreadable.
fn from_line(sender: &ReversePath, now: SystemTime) -> String {
    let sender = match sender {
        ReversePath::Null => "MAILER-DAEMON".to_string(),
        ReversePath::Mailbox(mailbox) => mailbox.to_string().replace(' ', "_"),
    };
    let time = jiff::Timestamp::try_from(now).unwrap_or_default();
    format!("From {sender} {}\n", time.strftime("%a %b %e %H:%M:%S %Y"))
}

fn write<M: Deref<Target = Message>>(
    disk: &dyn Durable,
    file: &File,
    begin: String,
    copy: &mut Copy<M>,
) -> io::Result<()> {
    let mut quoted = begin.into_bytes();
    let (mut quoter, mut piece) = (Quoter::default(), Vec::new());
    while copy.next_piece(&mut piece)? {
        quoter.quote(&piece, &mut quoted);
        disk.write(file, &quoted)?;
        quoted.clear();
    }
    quoter.end(&mut quoted);
    disk.write(file, &quoted)
}

/// Puts `>` before a line that begins with `From `, also where pieces meet in its midst.
#[derive(Debug, Default)]
struct Quoter {
    /// The line has begun, and is no candidate any more.
    within: bool,
    /// The beginning of a line that may become `From `.
    held: usize,
}

const FROM: &[u8] = b"From ";

impl Quoter {
    fn quote(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while !rest.is_empty() {
            if !self.within {
                let fits = rest.iter().zip(&FROM[self.held..]).take_while(|(a, b)| a == b).count();
                self.held += fits;
                rest = &rest[fits..];
                if self.held < FROM.len() && rest.is_empty() {
                    return;
                }
                self.release(out);
                self.within = true;
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            out.extend_from_slice(&rest[..end]);
            self.within = !rest[..end].ends_with(b"\n");
            rest = &rest[end..];
        }
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        if self.held == FROM.len() {
            out.push(b'>');
        }
        out.extend_from_slice(&FROM[..self.held]);
        self.held = 0;
    }

    /// Ends the last line, and the message.
    fn end(&mut self, out: &mut Vec<u8>) {
        let unended = self.within || self.held > 0;
        self.release(out);
        out.extend_from_slice(if unended { b"\n\n" } else { b"\n" });
    }
}

/// The lock file beside the mbox; removed when dropped.
enum DotLock<'a> {
    Taken(&'a dyn Durable, &'a Folder, &'a str),
    Busy,
    /// The folder is not ours to write, as a system's spool may be: fcntl must do.
    Impossible,
}

impl<'a> DotLock<'a> {
    fn take(
        disk: &'a dyn Durable,
        folder: &'a Folder,
        name: &'a str,
        now: SystemTime,
    ) -> io::Result<DotLock<'a>> {
        match disk.create(folder, name, 0o600) {
            Ok(_) => return Ok(DotLock::Taken(disk, folder, name)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(DotLock::Impossible),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let modified = std::fs::symlink_metadata(folder.path().join(name)).and_then(|found| found.modified());
        if modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > STALE)) {
            disk.unlink(folder, name)?;
        }
        Ok(DotLock::Busy)
    }
}

impl Drop for DotLock<'_> {
    fn drop(&mut self) {
        if let DotLock::Taken(disk, folder, name) = self
            && let Err(error) = disk.unlink(folder, name)
        {
            log::warn!("{}: {error}", folder.path().join(name).display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use posta::unix::durable::Disk;
    use posta::unix::durable::staged::{Fault, Lost, Staged};
    use posta::unix::users;

    use super::*;

    fn append(folder: &Folder, text: &str) -> Result<Attempt, Refusal> {
        append_on(&Disk, folder, text)
    }

    fn append_on(disk: &dyn Durable, folder: &Folder, text: &str) -> Result<Attempt, Refusal> {
        let file = tempfile::tempfile().unwrap();
        Disk.write(&file, text.as_bytes()).unwrap();
        let message = Message::open(file, text.len() as u64).unwrap();
        let mbox = Mbox { folder, name: "box", uid: users::current().1 };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_550_000);
        mbox.append(disk, now, &ReversePath::Null, &mut Copy::new(&message, Vec::new()))
    }

    #[test]
    fn messages_stand_between_their_lines() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::open(top.path()).unwrap();
        append(&folder, "A: b\r\n\r\nFrom here\r\nFrom\r\n From x\r\n").unwrap();
        append(&folder, "no end").unwrap();
        let from = "From MAILER-DAEMON Tue Nov 24 19:53:20 2026\n";
        let expected = format!("{from}A: b\n\n>From here\nFrom\n From x\n\n{from}no end\n\n");
        assert_eq!(fs::read_to_string(top.path().join("box")).unwrap(), expected);
        assert!(!top.path().join("box.lock").exists());
    }

    #[test]
    fn a_lock_is_waited_for_and_a_stale_one_removed() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::open(top.path()).unwrap();
        let lock = top.path().join("box.lock");
        let file = fs::File::create(&lock).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_550_000);
        file.set_modified(now - Duration::from_secs(5)).unwrap();
        assert_eq!(append(&folder, "x"), Ok(Attempt::Locked));
        assert!(lock.exists());
        file.set_modified(now - STALE * 2).unwrap();
        assert_eq!(append(&folder, "x"), Ok(Attempt::Locked));
        assert_eq!(append(&folder, "x"), Ok(Attempt::Done));
    }

    #[test]
    fn what_could_not_be_written_whole_leaves_nothing() {
        let from = "From MAILER-DAEMON Tue Nov 24 19:53:20 2026\n";
        let mut failures = 0;
        for fault in [Fault::Fail(5), Fault::Short(28)] {
            for calls in 0..12 {
                let top = tempfile::tempdir().unwrap();
                let folder = Folder::open(top.path()).unwrap();
                fs::create_dir(top.path().join("attic")).unwrap();
                append(&folder, "first").unwrap();
                let disk = Staged::new(&top.path().join("attic"));
                disk.plan(calls, fault);
                let done = append_on(&disk, &folder, "second").is_ok();
                failures += usize::from(!done);
                let found = fs::read_to_string(top.path().join("box")).unwrap();
                let second = if done { format!("{from}second\n\n") } else { String::new() };
                assert_eq!(found, format!("{from}first\n\n{second}"), "{fault:?} at {calls}");
                if disk.calls() <= calls {
                    break;
                }
            }
        }
        assert!(failures > 4, "{failures}");
    }

    /// At every call the process dies, or the power goes and takes of the bytes what it likes. What was
    /// acknowledged is whole, and the next message begins with a line of its own.
    #[test]
    fn what_was_cut_off_takes_no_other_message_with_it() {
        let from = "From MAILER-DAEMON Tue Nov 24 19:53:20 2026\n";
        // In memory where possible: its power is only cut by the model.
        let memory = std::path::Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let mut cut = 0;
        for calls in 0..12 {
            for lost in [None, Some(Lost::All), Some(Lost::End), Some(Lost::Start)] {
                let top = tempfile::tempdir_in(&place).unwrap();
                let folder = Folder::open(top.path()).unwrap();
                fs::create_dir(top.path().join("attic")).unwrap();
                append(&folder, "first").unwrap();
                let disk = Staged::new(&top.path().join("attic"));
                disk.plan(calls, Fault::Stop);
                let second = format!("{}\n", "a".repeat(999)).repeat(100);
                let done = append_on(&disk, &folder, &second).is_ok_and(|attempt| attempt == Attempt::Done);
                if let Some(lost) = lost {
                    disk.power_cut(0, lost).unwrap();
                }
                cut += usize::from(!done);
                // Nobody holds the lock any more; in life it is stale after a while.
                let _ = fs::remove_file(top.path().join("box.lock"));
                append(&folder, "third").unwrap();
                let found = fs::read_to_string(top.path().join("box")).unwrap();
                let when = format!("call {calls}, {lost:?} lost");
                assert!(found.starts_with(&format!("{from}first\n\n")), "{when}");
                assert!(found.ends_with(&format!("\n\n{from}third\n\n")), "{when}");
                assert!(!done || found.contains(&format!("\n\n{from}{second}\n{from}")), "{when}");
            }
        }
        assert!(cut > 12, "{cut}");
    }

    #[test]
    fn links_are_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::open(top.path()).unwrap();
        fs::write(top.path().join("other"), "").unwrap();
        std::os::unix::fs::symlink("other", top.path().join("box")).unwrap();
        assert!(append(&folder, "x").is_err());
        fs::remove_file(top.path().join("box")).unwrap();
        fs::hard_link(top.path().join("other"), top.path().join("box")).unwrap();
        assert_eq!(append(&folder, "x").unwrap_err().status.class, 4);
        assert_eq!(fs::read(top.path().join("other")).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn quoting_does_not_depend_on_the_pieces(text in "(From |F|\n|>|x){0,12}", cut in 0usize..30) {
            let cut = cut.min(text.len());
            let quoted = |pieces: &[&str]| {
                let (mut quoter, mut out) = (Quoter::default(), Vec::new());
                pieces.iter().for_each(|piece| quoter.quote(piece.as_bytes(), &mut out));
                quoter.end(&mut out);
                String::from_utf8(out).unwrap()
            };
            let whole = quoted(&[&text]);
            prop_assert_eq!(&quoted(&[&text[..cut], &text[cut..]]), &whole);
            prop_assert!(whole.lines().all(|line| !line.starts_with("From ")));
        }
    }
}
