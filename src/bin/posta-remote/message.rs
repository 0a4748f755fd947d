//! The message of a job: our trace fields, then the first octets of its queue file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most octets that are read at once.
pub const BLOCK: usize = 32 * 1024;

/// A message. The file is shared with others, so it is only ever read at a given place.
#[derive(Debug)]
pub struct Message<'a> {
    /// Header fields to put on top.
    pub trace: &'a [u8],
    /// The queue file.
    pub file: &'a File,
    /// Octets of the message in the file, from its start.
    pub size: u64,
}

impl Message<'_> {
    /// Octets of the whole.
    pub fn length(&self) -> u64 {
        self.trace.len() as u64 + self.size
    }

    /// Reads the block at `at` into `block`; an empty one is the end. A file shorter than it should
    /// be is an error.
    pub fn read<'b>(&self, at: u64, block: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        let length = usize::try_from(self.size.saturating_sub(at)).unwrap_or(BLOCK).min(BLOCK);
        if block.len() < length {
            block.resize(length, 0);
        }
        self.file.read_exact_at(&mut block[..length], at)?;
        Ok(&block[..length])
    }

    /// Whether any octet is above 127.
    pub fn is_eight_bit(&self, block: &mut Vec<u8>) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let read = self.read(at, block)?;
            if read.is_empty() {
                return Ok(!self.trace.is_ascii());
            }
            if !read.is_ascii() {
                return Ok(true);
            }
            at += read.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_is_read_and_all_of_it() {
        let file = tempfile::tempfile().unwrap();
        let text = vec![b'x'; BLOCK + 10];
        file.write_all_at(&text, 0).unwrap();
        file.write_all_at("žluť".as_bytes(), text.len() as u64).unwrap();
        let message = |size| Message { trace: b"", file: &file, size };
        let whole = message(text.len() as u64);
        let mut block = Vec::new();
        assert_eq!(whole.read(0, &mut block).unwrap().len(), BLOCK);
        assert_eq!(whole.read(BLOCK as u64, &mut block).unwrap().len(), 10);
        assert!(whole.read(whole.size, &mut block).unwrap().is_empty());
        assert!(!whole.is_eight_bit(&mut block).unwrap());
        assert!(message(whole.size + 2).is_eight_bit(&mut block).unwrap());
        assert!(message(whole.size + 20).read(BLOCK as u64, &mut block).is_err(), "the file is shorter");
    }
}
