//! Message data in chunks: what a client sends behind BDAT (RFC 3030 2).
//!
//! How long a chunk is was said before it, so nothing in it ends anything, and no dot is doubled.
//! What was taken this way may go on by DATA though, or into a mailbox: so a text must have the same
//! line ends here as there. Only BINARYMIME (RFC 3030 3) may be any octets.

use super::content::Content;
use super::event::DataFault;

/// Reads the chunks of one message, and looks for reasons to refuse it.
#[derive(Debug)]
pub struct ChunkReader {
    content: Content,
    binary: bool,
}

impl ChunkReader {
    /// A reader for a message of at most `max_size` octets that went through at most `max_hops`
    /// servers (RFC 5321 6.3). `binary`: it was announced as BINARYMIME.
    pub fn new(max_size: u64, max_hops: usize, binary: bool) -> ChunkReader {
        ChunkReader { content: Content::new(max_size, max_hops), binary }
    }

    /// Reads a piece of a chunk. It goes to `sink`; once there is a [`fault`](ChunkReader::fault)
    /// nothing more does.
    pub fn feed(&mut self, block: &[u8], sink: &mut impl FnMut(&[u8])) {
        if !self.binary {
            self.content.note_line_ends(block);
        }
        self.content.give(block, sink);
    }

    /// The last chunk has ended. A text whose last line has no end gets one, as it would have by
    /// DATA (RFC 5321 4.1.1.4).
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        if !self.binary && self.content.last() != b'\n' {
            self.feed(b"\r\n", sink);
        }
    }

    /// Why this message can't be taken, if that is known by now: the first reason found.
    pub fn fault(&self) -> Option<&DataFault> {
        self.content.fault()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(input: &[u8], binary: bool, step: usize) -> Result<Vec<u8>, DataFault> {
        let (mut reader, mut taken) = (ChunkReader::new(100, 2, binary), Vec::new());
        for piece in input.chunks(step) {
            reader.feed(piece, &mut |octets| taken.extend_from_slice(octets));
        }
        reader.finish(&mut |octets| taken.extend_from_slice(octets));
        reader.fault().map_or(Ok(taken), |fault| Err(fault.clone()))
    }

    #[test]
    fn nothing_ends_a_chunk_but_its_length() {
        let text = b".\r\n..\r\n\r\n.\r\nQUIT\r\n";
        assert_eq!(read(text, false, 3), Ok(text.to_vec()));
        assert_eq!(read(b"", false, 1), Ok(vec![]));
    }

    #[test]
    fn a_text_has_lines_and_binary_has_none() {
        assert_eq!(read(b"a\r\nb", false, 2), Ok(b"a\r\nb\r\n".to_vec()));
        for bare in [&b"a\nb"[..], b"a\rb\r\n", b"a\r", b"\n"] {
            assert_eq!(read(bare, false, 1), Err(DataFault::BareLineEnd), "{bare:?}");
            assert_eq!(read(bare, true, 1), Ok(bare.to_vec()));
        }
    }

    #[test]
    fn the_same_limits_hold_as_for_data() {
        assert_eq!(read(&[b'x'; 101], true, 7), Err(DataFault::TooBig));
        assert_eq!(read(&b"Received: a\r\n".repeat(3), false, 7), Err(DataFault::Loop));
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(input in "(\\r\\n|\\r|\\n|[.a]){0,20}", binary: bool, step in 1usize..9) {
            prop_assert_eq!(read(input.as_bytes(), binary, step), read(input.as_bytes(), binary, 999));
        }
    }
}
