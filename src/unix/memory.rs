//! Files that live in memory only, and memory that is given back.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes moved at once.
const PIECE: usize = 256 * 1024;

/// Gives the system the memory back that the allocator keeps for later. It costs some milliseconds, and
/// others who want memory meanwhile may wait for it: to be done when a crowd has gone.
pub fn give_back() {
    // glibc has an arena for every few threads, and by itself gives back only what lies at its end.
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only what is free, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A copy of the bytes 0 to `size` of `file`, which nobody can change any more. Fewer bytes there
/// are `UnexpectedEof`.
pub fn sealed_copy(file: &File, size: u64) -> io::Result<File> {
    let mut copy = unsealed(c"message")?;
    let mut piece = vec![0; usize::try_from(size).unwrap_or(PIECE).min(PIECE)];
    let mut at = 0;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        file.read_exact_at(&mut piece[..length], at)?;
        copy.write_all(&piece[..length])?;
        at += length as u64;
    }
    seal(copy)
}

/// A file with these bytes, which nobody can change any more; whoever gets its descriptor can read
/// it, whatever his rights.
pub fn sealed(bytes: &[u8]) -> io::Result<File> {
    let mut file = unsealed(c"handed over")?;
    file.write_all(bytes)?;
    seal(file)
}

fn unsealed(name: &CStr) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?))
}

fn seal(file: File) -> io::Result<File> {
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_bytes_are_copied_and_they_stay() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"message; envelope").unwrap();
        let copy = sealed_copy(&file, 7).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 7);
        let mut bytes = [0; 7];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"message");
        assert!(copy.write_at(b"x", 0).is_err());
        assert!(copy.set_len(0).is_err());
        assert_eq!(sealed(b"key").unwrap().metadata().unwrap().len(), 3);
        assert_eq!(sealed_copy(&file, 100).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
