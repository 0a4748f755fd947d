//! The few calls that make a message durable, behind one trait: the true disk, and one for tests
//! that fails, stops or loses its power at call *n* ([`staged`]).
//!
//! All names are relative to an opened [`Folder`], so that no path is resolved twice and no link
//! put in its way is followed. A name may lead through one folder more (`7f/ID`); a link is then
//! refused in its last part only, so such folders must be our own alone.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

mod disk;
pub mod staged;

pub use disk::Disk;

/// FS_TOPDIR_FL of linux/fs.h.
const TOP_OF_HIERARCHY: libc::c_long = 0x0002_0000;

/// ioctl_iflags(2): FS_IOC_GETFLAGS and FS_IOC_SETFLAGS.
mod flags {
    nix::ioctl_read!(get, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(set, b'f', 2, libc::c_long);
}

/// An opened folder, and the path that it was opened by (for messages).
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    readable: bool,
}

impl Folder {
    /// Opens a folder that is there.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
        Ok(Folder { fd, path: path.to_path_buf(), readable: true })
    }

    /// Opens a folder that we may perhaps write to and search but not list (mode 1730). Such a one
    /// can't be synced by itself ([`Folder::is_readable`]).
    pub fn reach(path: &Path) -> io::Result<Folder> {
        match Folder::open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => return done,
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
        Ok(Folder { fd, path: path.to_path_buf(), readable: false })
    }

    /// Opens a folder inside this one; a link in its place is not followed.
    pub fn inner(&self, name: &str) -> io::Result<Folder> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Folder { fd, path: self.path.join(name), readable: true })
    }

    /// Another descriptor of the same folder.
    pub fn try_clone(&self) -> io::Result<Folder> {
        Ok(Folder { fd: self.fd.try_clone()?, path: self.path.clone(), readable: self.readable })
    }

    /// Makes a folder inside this one; `AlreadyExists` if the name is taken.
    pub fn make_inner(&self, name: &str, mode: u32) -> io::Result<()> {
        Ok(nix::sys::stat::mkdirat(&self.fd, name, Mode::from_bits_truncate(mode))?)
    }

    /// Removes an empty folder inside this one.
    pub fn remove_inner(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir)?)
    }

    /// The names in it, at most so many; names that are not UTF-8 are left out.
    pub fn names(&self, most: usize) -> io::Result<Vec<String>> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let mut names = Vec::new();
        for entry in Dir::openat(&self.fd, ".", flags, Mode::empty())?.iter() {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_string()),
            }
            if names.len() == most {
                break;
            }
        }
        Ok(names)
    }

    /// Opens a file in this folder for reading; a link in its place is not followed, a fifo or a
    /// device in its place is not waited for. `InvalidData`: a link, or a socket.
    pub fn read(&self, name: &str) -> io::Result<File> {
        self.open_unwaited(name, OFlag::O_RDONLY, 0)
    }

    /// Opens a file with the given flags. What can't be a file is told by name: `InvalidData`.
    fn open_unwaited(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<File> {
        let opened = self.open_file(name, flags | OFlag::O_NONBLOCK, mode);
        opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidData, "a link"),
            Some(libc::ENXIO) => io::Error::new(io::ErrorKind::InvalidData, "a fifo or a socket"),
            _ => error,
        })
    }

    /// Opens a file with the given flags (and O_CLOEXEC, O_NOFOLLOW).
    pub fn open_file(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(File::from(openat(&self.fd, name, flags, Mode::from_bits_truncate(mode))?))
    }

    /// Whether something of that name is there.
    pub fn holds(&self, name: &str) -> io::Result<bool> {
        Ok(self.status(name)?.is_some())
    }

    /// When a file was modified: seconds since 1970 (one before that counts as 1970), and
    /// nanoseconds. `None`: it is not there.
    pub fn modified(&self, name: &str) -> io::Result<Option<(u64, u32)>> {
        let modified = |s: FileStat| (u64::try_from(s.st_mtime).unwrap_or(0), s.st_mtime_nsec as u32);
        Ok(self.status(name)?.map(modified))
    }

    fn status(&self, name: &str) -> io::Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(nix::Error::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the file system to put the folders that are made in this one far from each other (ext4's
    /// "top of a hierarchy", `chattr +T`), as it does with home folders. An error: it knows no such wish.
    pub fn spread(&self) -> io::Result<()> {
        self.set_wishes(self.wishes()? | TOP_OF_HIERARCHY)
    }

    /// Asks for the same only for what `make` makes in it. An error: there is no such wish, and
    /// `make` was not called; or `make` failed.
    pub fn spread_while<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let before = self.wishes()?;
        self.set_wishes(before | TOP_OF_HIERARCHY)?;
        let made = make();
        self.set_wishes(before)?;
        made
    }

    fn wishes(&self) -> io::Result<libc::c_long> {
        let mut wishes = 0;
        // SAFETY: a pointer to a number that lives longer than the call (the kernel touches its lower
        // 32 bits only), and a descriptor that is open as long as the folder.
        unsafe { flags::get(self.fd.as_raw_fd(), &mut wishes)? };
        Ok(wishes)
    }

    fn set_wishes(&self, wishes: libc::c_long) -> io::Result<()> {
        // SAFETY: as above; the kernel only reads the number.
        unsafe { flags::set(self.fd.as_raw_fd(), &wishes)? };
        Ok(())
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Whether it may be listed, and so be synced.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// The device that it lies on.
    pub fn device(&self) -> io::Result<u64> {
        Ok(nix::sys::stat::fstat(&self.fd)?.st_dev)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The calls. What they change is on the disk only after a sync that covers it.
pub trait Durable: Send + Sync + fmt::Debug {
    /// A file without a name (O_TMPFILE), open for reading and writing, near the folder `name` in `folder`;
    /// `.` is `folder` itself.
    fn unnamed(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File>;
    /// A new file; `AlreadyExists` if the name is taken.
    fn create(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File>;
    /// Opens a file to append to; makes it if `create`. A fifo in its place is not waited for.
    /// `InvalidData`: a link, a socket, or a fifo that nobody reads.
    fn append(&self, folder: &Folder, name: &str, create: bool, mode: u32) -> io::Result<File>;
    /// A new folder; `AlreadyExists` if the name is taken.
    fn make_folder(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<()>;
    /// Writes all of `bytes` at the file's position.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to its first `length` bytes.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Sets the time of modification: seconds since 1970, and nanoseconds.
    fn set_modified(&self, file: &File, seconds: u64, nanoseconds: u32) -> io::Result<()>;
    /// Gives an unnamed file its name; `AlreadyExists` if it is taken.
    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()>;
    /// Renames; an older file of the new name is replaced.
    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()>;
    /// Whether a file that was renamed into another folder has its old name or its new one after a power
    /// cut. On a file system without a journal it may have neither: the folders reach the disk in any
    /// order. Where it can't be told: yes.
    fn keeps_renamed(&self, folder: &Folder) -> bool;
    /// Removes a name.
    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()>;
    /// Waits until a file's bytes are on the disk.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Waits until a folder's names are on the disk.
    fn sync_folder(&self, folder: &Folder) -> io::Result<()>;
    /// Whether the file system of a file that is open for reading still works. A sync that ran while it was
    /// shut down, after an error of its log, may have succeeded although what it waited for was thrown
    /// away. By then it is marked as shut down, and tells whoever reads.
    fn still_works(&self, file: &File) -> io::Result<()>;
    /// Waits until everything on the file system of `folder` (or of a file) is on the disk.
    fn sync_file_system(&self, folder: BorrowedFd<'_>) -> io::Result<()>;
}
