//! A terminal that doesn't show what is typed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A terminal without echo, for as long as this lives. Signal keys count as characters in that time, so
/// that no ^C leaves a shell behind that shows nothing.
#[derive(Debug)]
pub struct Hushed<'t> {
    terminal: BorrowedFd<'t>,
    before: libc::termios,
}

impl<'t> Hushed<'t> {
    /// Hushes it; what is no terminal is an error.
    pub fn new(terminal: BorrowedFd<'t>) -> io::Result<Hushed<'t>> {
        let mut before = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: an open descriptor, and room for what is written.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr has just filled it in.
        let before = unsafe { before.assume_init() };
        let mut hushed = before;
        hushed.c_lflag &= !(libc::ECHO | libc::ISIG);
        set(terminal, &hushed)?;
        Ok(Hushed { terminal, before })
    }
}

impl Drop for Hushed<'_> {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing any more.
        let _ = set(self.terminal, &self.before);
    }
}

fn set(terminal: BorrowedFd<'_>, to: &libc::termios) -> io::Result<()> {
    // SAFETY: an open descriptor, and a whole structure that outlives the call.
    let done = unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, to) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    use super::*;

    fn echoes(terminal: &OwnedFd) -> bool {
        let mut state = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: an open descriptor, and room for what is written.
        assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), state.as_mut_ptr()) }, 0);
        // SAFETY: tcgetattr has just filled it in.
        unsafe { state.assume_init() }.c_lflag & libc::ECHO != 0
    }

    #[test]
    fn a_terminal_is_hushed_and_a_file_is_none() {
        // SAFETY: opens a new pseudo-terminal.
        let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        if fd < 0 {
            return; // no /dev/ptmx here
        }
        // SAFETY: just opened; nobody else has it.
        let terminal = unsafe { OwnedFd::from_raw_fd(fd) };
        assert!(echoes(&terminal));
        let hushed = Hushed::new(terminal.as_fd()).unwrap();
        assert!(!echoes(&terminal));
        drop(hushed);
        assert!(echoes(&terminal));
        assert!(Hushed::new(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
