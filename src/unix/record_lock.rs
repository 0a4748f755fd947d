//! The lock that mail readers put on an mbox file (fcntl(2), "advisory record locking").

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// Tries to lock the whole file for writing, without waiting; `false` if another process holds a
/// lock. The lock goes when this process closes *any* descriptor of the file.
pub fn try_lock(file: &File) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_nobody_is_locked_and_one_opened_for_reading_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(try_lock(file.as_file()).unwrap());
        assert!(try_lock(&File::open(file.path()).unwrap()).is_err());
    }
}
