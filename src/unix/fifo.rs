//! The trigger: a fifo that carries hints from those who write mail to the one who runs the queue.
//!
//! A hint may get lost (nobody reads, the pipe is full): the reader scans the folder now and then.
//! A writer never waits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::stat::Mode;

/// Most bytes that one write puts into the pipe whole (POSIX: at least 512; Linux: 4096).
pub const MAX_HINT: usize = 4096;

/// Makes the fifo with the rights `mode`; one that is there already stays.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::from_bits_truncate(mode)) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes one hint of at most [`MAX_HINT`] bytes. `false`: nobody listens, or the pipe is full.
pub fn hint(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    match Hinter::open(path)? {
        Some(hinter) => hinter.hint(bytes),
        None => Ok(false),
    }
}

/// The writing end, kept open.
#[derive(Debug)]
pub struct Hinter {
    pipe: File,
}

impl Hinter {
    /// Opens the fifo for writing; `None` if nobody reads it or it is not there.
    pub fn open(path: &Path) -> io::Result<Option<Hinter>> {
        let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
        match opened {
            Ok(pipe) => Ok(Some(Hinter { pipe })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one hint of at most [`MAX_HINT`] bytes. `false`: the pipe is full.
    pub fn hint(&self, bytes: &[u8]) -> io::Result<bool> {
        match (&self.pipe).write(bytes) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Trigger {
    pipe: File,
}

impl Trigger {
    /// Opens the fifo for reading. It is opened for writing too, so that it never comes to an end
    /// when the last writer goes.
    pub fn open(path: &Path) -> io::Result<Trigger> {
        let mut options = File::options();
        let pipe =
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
        Ok(Trigger { pipe })
    }

    /// Reads what hints there are, without waiting; `None` if there are none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.pipe).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_arrive_and_a_missing_reader_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trigger");
        assert!(!hint(&path, b"A\n").unwrap());
        make(&path, 0o620).unwrap();
        make(&path, 0o620).unwrap();
        assert!(!hint(&path, b"A\n").unwrap());
        let trigger = Trigger::open(&path).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(trigger.read(&mut buffer).unwrap(), None);
        assert!(hint(&path, b"A\n").unwrap());
        assert!(hint(&path, b"B\n").unwrap());
        let length = trigger.read(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..length], b"A\nB\n");
    }

    #[test]
    fn a_full_pipe_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trigger");
        make(&path, 0o620).unwrap();
        let _trigger = Trigger::open(&path).unwrap();
        let hinter = Hinter::open(&path).unwrap().unwrap();
        assert!((0..1000).any(|_| !hinter.hint(&[b'x'; MAX_HINT]).unwrap()));
    }
}
