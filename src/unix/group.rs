//! A command and what it starts: watched for its end, and killed together.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::Child;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A descriptor that becomes readable when the process ends (pidfd_open(2)).
pub fn watch(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Kills the process group that `child` leads (it was started with `process_group(0)`); a group
/// that has gone is no error. To be called before the child is waited for, while its number is
/// still its own.
pub fn kill(child: &Child) -> io::Result<()> {
    match killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;
    use std::time::Duration;

    use crate::unix::wait::{Watch, wait_ready};

    use super::*;

    #[test]
    fn the_end_is_seen_and_the_group_dies_as_one() {
        let mut child =
            Command::new("/bin/sh").args(["-c", "sleep 600 & sleep 600"]).process_group(0).spawn().unwrap();
        let watched = watch(&child).unwrap();
        let ended = |limit| wait_ready(&[Watch::Read(watched.as_fd())], Some(limit)).unwrap()[0];
        assert!(!ended(Duration::ZERO));
        kill(&child).unwrap();
        assert!(ended(Duration::from_secs(10)));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
