//! Signals as something to read, not as something that interrupts.
//!
//! The signals of interest are blocked in every thread (so [`Signals::take_over`] comes first in
//! `main`, before any thread), and read from a descriptor that a poll can watch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the administrator, the keeper or the kernel tells a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM or SIGINT: finish what is begun and go.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGCHLD: some child has ended.
    Child,
    /// SIGUSR1: more to say in the log.
    Louder,
    /// SIGUSR2: less to say in the log.
    Quieter,
    /// SIGUSR1 with a number, see [`tell_level`]: so much to say in the log.
    Level(i32),
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals of [`Told`] in this thread and all it will start, and opens the
    /// descriptor. SIGPIPE is ignored: a peer that has gone is an error of the write.
    pub fn take_over() -> io::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        // SAFETY: ignoring a signal installs no handler.
        unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn)? };
        Ok(Signals { fd: SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)? })
    }

    /// The next signal that has come, without waiting.
    pub fn next(&self) -> io::Result<Option<Told>> {
        while let Some(info) = self.fd.read_signal()? {
            let told = match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => Told::Terminate,
                Ok(Signal::SIGHUP) => Told::Reload,
                Ok(Signal::SIGCHLD) => Told::Child,
                Ok(Signal::SIGUSR1) if info.ssi_code == libc::SI_QUEUE => Told::Level(info.ssi_int),
                Ok(Signal::SIGUSR1) => Told::Louder,
                Ok(Signal::SIGUSR2) => Told::Quieter,
                _ => continue,
            };
            return Ok(Some(told));
        }
        Ok(None)
    }

    /// Waits for the next signal, at most `limit`.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Option<Told>> {
        wait_readable(&[self.fd.as_fd()], limit)?;
        self.next()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends SIGUSR1 with a number to a process, as sigqueue(3) does. To be sent only to who takes it over
/// ([`super::processes`] knows): it would end anybody else.
pub fn tell_level(pid: u32, level: i32) -> io::Result<()> {
    let value = libc::sigval { sival_ptr: level as usize as *mut libc::c_void };
    // SAFETY: the value is a number for the receiver; nobody follows it as a pointer.
    match unsafe { libc::sigqueue(pid as libc::pid_t, libc::SIGUSR1, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until one of the descriptors has something to read (or has ended), at most `limit`; says
/// of each whether it has.
pub fn wait_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let limit = limit.map_or(PollTimeout::NONE, |l| {
        // A part of a millisecond counts whole: a poll of 0 would spin until the time has come.
        let millis = l.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, limit) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
    Ok(polled.iter().map(ready).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_once() {
        // A thread's own mask and a signal sent to that thread: other tests see nothing of it.
        std::thread::spawn(|| {
            let signals = Signals::take_over().unwrap();
            assert_eq!(signals.wait(Some(Duration::from_millis(1))).unwrap(), None);
            // SAFETY: raises a blocked signal in this very thread.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            assert_eq!(signals.wait(Some(Duration::from_secs(5))).unwrap(), Some(Told::Louder));
            assert_eq!(signals.next().unwrap(), None);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_number_comes_with_the_signal() {
        std::thread::spawn(|| {
            let signals = Signals::take_over().unwrap();
            let value = libc::sigval { sival_ptr: 4 as *mut libc::c_void };
            // SAFETY: queues a blocked signal for this very thread.
            unsafe { libc::pthread_sigqueue(libc::pthread_self(), libc::SIGUSR1, value) };
            assert_eq!(signals.wait(Some(Duration::from_secs(5))).unwrap(), Some(Told::Level(4)));
        })
        .join()
        .unwrap();
    }
}
