//! What a process can never do again.

use std::io;

/// No program that this process or its children start gets more rights than they have
/// (PR_SET_NO_NEW_PRIVS).
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain numbers, no pointers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
