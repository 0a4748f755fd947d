//! Starting another of our programs, as another user and with sockets handed over.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::listeners::FIRST_INHERITED;

/// Whose rights a child gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Makes a command that hands `sockets` over as LISTEN_FDS (sd_listen_fds(3), without LISTEN_PID),
/// has no other descriptor of ours but the first three, takes `rights` before it runs the program,
/// blocks no signal (what `Signals::take_over` blocks here would stay blocked there), and is sent
/// SIGTERM when its parent dies.
///
/// Only for a parent that starts children from a thread that lives as long as itself: the kernel
/// sends that SIGTERM when the thread that forked is gone.
pub fn command(
    program: &Path,
    sockets: &[(String, BorrowedFd<'_>)],
    rights: Option<Rights>,
) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
    for variable in super::notify::VARIABLES {
        command.env_remove(variable);
    }
    if !sockets.is_empty() {
        let names: Vec<&str> = sockets.iter().map(|s| s.0.as_str()).collect();
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    }
    // Copies above the last place, so that none lies in another's way.
    let above = FIRST_INHERITED + sockets.len() as RawFd;
    let fds = sockets.iter().map(|s| lift(s.1, above)).collect::<io::Result<Vec<OwnedFd>>>()?;
    let parent = std::process::id();
    // SAFETY: between fork and exec only plain system calls are made: nothing is allocated that the
    // lock of another thread could guard, since the lists are made before the fork.
    unsafe {
        command.pre_exec(move || {
            place(&fds)?;
            keep_from(above);
            SigSet::empty().thread_set_mask()?;
            if let Some(rights) = &rights {
                take(rights)?;
            }
            // After the change of user, which would clear it.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    };
    Ok(command)
}

fn lift(fd: BorrowedFd<'_>, above: RawFd) -> io::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
    // SAFETY: fcntl has just made this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts the descriptors at 3, 4, …
fn place(fds: &[OwnedFd]) -> io::Result<()> {
    for (n, fd) in fds.iter().enumerate() {
        // SAFETY: plain numbers; the copies lie above all places, so none is overwritten.
        if unsafe { libc::dup2(fd.as_raw_fd(), FIRST_INHERITED + n as RawFd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whatever is open from this descriptor on is closed when the program runs, also what our own caller
/// left open. Older kernels than Linux 5.11 can't; our own descriptors are closed there too.
fn keep_from(first: RawFd) {
    // SAFETY: plain numbers; nothing is closed yet, so nobody loses what he uses.
    unsafe { libc::close_range(first as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
}

fn take(rights: &Rights) -> io::Result<()> {
    // SAFETY: a pointer to a list of the given length that outlives the call.
    let done = unsafe {
        libc::setgroups(rights.groups.len(), rights.groups.as_ptr()) == 0
            && libc::setresgid(rights.gid, rights.gid, rights.gid) == 0
            && libc::setresuid(rights.uid, rights.uid, rights.uid) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends SIGTERM; a process that has gone is no error.
pub fn terminate(child: &Child) -> io::Result<()> {
    signal(child.id(), Signal::SIGTERM)
}

/// Sends SIGHUP; a process that has gone is no error.
pub fn reload(child: &Child) -> io::Result<()> {
    signal(child.id(), Signal::SIGHUP)
}

fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    match kill(Pid::from_raw(pid as i32), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Where another of our programs is: in the folder that this one was started from, else in
/// `libexec`.
pub fn program(name: &str, libexec: &Path) -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(OsString::from(name));
    Ok(if beside.is_file() { beside } else { libexec.join(name) })
}
