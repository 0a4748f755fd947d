//! What a program has left in a folder of its own for the administrator to read.
//!
//! Who reads it may be root, and who wrote it may have been taken over: nothing but a plain file of
//! bounded length is read, and no link leads to another's.

use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::unix::durable::Folder;

/// Longest text, in bytes; more than any program of ours leaves.
const MOST: u64 = 4 * 1024 * 1024;

/// The text of a file in `folder`; octets that are no UTF-8 are replaced. `InvalidData`: it is no plain
/// file, has other names, or is too long.
pub fn read(folder: &Path, name: &str) -> io::Result<String> {
    let file = Folder::open(folder)?.read(name)?;
    let found = file.metadata()?;
    let odd =
        |what: &str| Err(io::Error::new(ErrorKind::InvalidData, format!("{name} is {what}; remove it")));
    if !found.is_file() || found.nlink() != 1 {
        return odd("no plain file");
    }
    let mut text = Vec::new();
    if file.take(MOST + 1).read_to_end(&mut text)? as u64 > MOST {
        return odd("too long");
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use crate::unix::fifo;

    use super::*;

    #[test]
    fn only_a_plain_file_of_bounded_length_is_read() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("folder"), root.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(&secret, "secret").unwrap();
        fs::write(folder.join("plain"), b"a \xff").unwrap();
        assert_eq!(read(&folder, "plain").unwrap(), "a \u{fffd}");
        symlink(&secret, folder.join("link")).unwrap();
        fs::hard_link(&secret, folder.join("name")).unwrap();
        fifo::make(&folder.join("fifo"), 0o600).unwrap();
        fs::create_dir(folder.join("inner")).unwrap();
        fs::File::create(folder.join("long")).unwrap().set_len(MOST + 1).unwrap();
        for odd in ["link", "name", "fifo", "inner", "long"] {
            assert_eq!(read(&folder, odd).unwrap_err().kind(), ErrorKind::InvalidData, "{odd}");
        }
        assert_eq!(read(&folder, "missing").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
