//! The true disk.

use std::fs::{File, FileTimes};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::{Durable, Folder};

/// The true disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// Whether the file system of `folder` has a journal. Of all that we know only the ext family may have
/// none; the kernel has a folder for each of its journals, `vda1-8`.
fn has_journal(folder: &Folder) -> io::Result<bool> {
    if nix::sys::statfs::fstatfs(folder)?.filesystem_type() != nix::sys::statfs::EXT4_SUPER_MAGIC {
        return Ok(true);
    }
    let device = folder.device()?;
    let numbers = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let link = std::fs::read_link(format!("/sys/dev/block/{numbers}"))?;
    let name = link.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidData)?;
    let journals = match std::fs::read_dir("/proc/fs/jbd2") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        journals => journals?,
    };
    let is_its = |entry: &std::fs::DirEntry| {
        let journal = entry.file_name();
        let number = journal.to_str().and_then(|j| j.strip_prefix(name)).and_then(|j| j.strip_prefix('-'));
        number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
    };
    Ok(journals.filter_map(Result::ok).any(|entry| is_its(&entry)))
}

/// Whether this kernel has refused to link a bare descriptor.
static NEEDS_PROC: AtomicBool = AtomicBool::new(false);

impl Durable for Disk {
    fn unnamed(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(File::from(openat(folder, name, flags, Mode::from_bits_truncate(mode))?))
    }

    fn create(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        folder.open_file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, mode)
    }

    fn append(&self, folder: &Folder, name: &str, create: bool, mode: u32) -> io::Result<File> {
        let mut flags = OFlag::O_WRONLY | OFlag::O_APPEND;
        flags.set(OFlag::O_CREAT, create);
        folder.open_unwaited(name, flags, mode)
    }

    fn make_folder(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<()> {
        Ok(mkdirat(folder, name, Mode::from_bits_truncate(mode))?)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let mut file = file;
        file.write_all(bytes)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn set_modified(&self, file: &File, seconds: u64, nanoseconds: u32) -> io::Result<()> {
        let since = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds.into());
        let time = UNIX_EPOCH.checked_add(since).ok_or(io::ErrorKind::InvalidInput)?;
        file.set_times(FileTimes::new().set_modified(time))
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        // Linux 6.10 lets whoever opened a file link it by its descriptor; before, that took
        // CAP_DAC_READ_SEARCH (and said ENOENT), and the way led through /proc (open(2), O_TMPFILE).
        if !NEEDS_PROC.load(Ordering::Relaxed) {
            match linkat(file, "", folder, name, AtFlags::AT_EMPTY_PATH) {
                Err(Errno::ENOENT) => NEEDS_PROC.store(true, Ordering::Relaxed),
                done => return Ok(done?),
            }
        }
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(AT_FDCWD, own.as_str(), folder, name, AtFlags::AT_SYMLINK_FOLLOW)?)
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        Ok(renameat(from, name, to, new_name)?)
    }

    fn keeps_renamed(&self, folder: &Folder) -> bool {
        has_journal(folder).unwrap_or(true)
    }

    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()> {
        Ok(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        Ok(nix::unistd::fsync(folder)?)
    }

    fn still_works(&self, file: &File) -> io::Result<()> {
        file.read_at(&mut [0], 0).map(drop)
    }

    fn sync_file_system(&self, folder: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: a plain number, open as long as the borrow. nix has no syncfs.
        match unsafe { libc::syncfs(folder.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(Errno::last().into()),
        }
    }
}
