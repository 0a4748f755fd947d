//! Giving rights up.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::users::Account;

/// Whether this process may become another user.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes `account` for good, in all threads: its groups, its user id in all three places. Reads
/// nothing after that which root could read; there is no way back.
pub fn become_account(account: &Account) -> io::Result<()> {
    become_ids(account.uid, account.gid, &super::users::groups(account)?)
}

/// Becomes the user with these ids for good.
pub fn become_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if !uid.is_root() && setresuid(uid, Uid::from_raw(0), uid).is_ok() {
        return Err(io::Error::other("root's rights could be taken back"));
    }
    Ok(())
}

/// No program that this thread, or what it starts, runs from now on gets more rights than they have
/// (PR_SET_NO_NEW_PRIVS).
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain numbers, no pointers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this program has rights that its caller lacks (set-user-id, set-group-id, or file
/// capabilities): then neither the environment nor the command line may be trusted.
pub fn has_more_than_its_caller() -> bool {
    // SAFETY: reads a number that the kernel gave at the start (getauxval(3)).
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    secure || Uid::current() != Uid::effective() || Gid::current() != Gid::effective()
}

/// Raises the number of files this process may hold open as far as it may, and gives it.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Sets the umask, so that a mode given at creation is the mode that the file has.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}
