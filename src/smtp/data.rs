//! Message data: what a client sends between `354` and the final dot (RFC 5321 4.1.1.4).
//!
//! The end of data is CR LF . CR LF and nothing else. Whoever also takes LF . LF, or LF . CR LF, for
//! the end can be made to read a second message out of the text of a first (SMTP smuggling,
//! CVE-2023-51764 and its kin); whoever passes a bare LF on makes that possible for the next server.
//! So bare CRs and LFs never end anything, and a message with one is refused as a whole.
//!
//! Data comes in blocks, and what is stored are slices of them: nothing is copied, and no memory
//! grows with the message.

use memchr::memmem;

use super::content::Content;
use super::event::DataFault;

/// What one block came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// So much of it was data. Less than all only when `done`: commands follow.
    pub consumed: usize,
    /// The end of data has been seen.
    pub done: bool,
}

/// Reads the data of one message: takes the doubled dots away, finds the end, and looks for reasons
/// to refuse it.
#[derive(Debug)]
pub struct DataReader {
    /// Where a line that begins with a dot follows, which needs a closer look.
    dot_line: memmem::Finder<'static>,
    place: Place,
    content: Content,
}

/// Where in its line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After CR LF, or at the very beginning.
    LineStart,
    /// After the line's first octet, a dot, which is none of the message's.
    Dot,
    /// After that dot and a CR, which has not been given on yet.
    DotCr,
    /// After a CR within the text.
    Cr,
    /// Elsewhere.
    Text,
}

impl DataReader {
    /// A reader for a message of at most `max_size` octets (dots undone) that went through at most
    /// `max_hops` servers (RFC 5321 6.3).
    pub fn new(max_size: u64, max_hops: usize) -> DataReader {
        DataReader {
            dot_line: memmem::Finder::new(b"\r\n."),
            place: Place::LineStart,
            content: Content::new(max_size, max_hops),
        }
    }

    /// Reads a block. The message's octets go to `sink`, in order; once there is a
    /// [`fault`](DataReader::fault) no more do, but the data is read to its end all the same, so that
    /// the session stays in step (RFC 5321 4.2.5). After `done` it must not be called again.
    pub fn feed(&mut self, block: &[u8], sink: &mut impl FnMut(&[u8])) -> Progress {
        let mut at = 0;
        while let Some(&octet) = block.get(at) {
            match (self.place, octet) {
                // RFC 5321 4.5.2: a dot that begins a line is removed, whatever follows.
                (Place::LineStart, b'.') => self.place = Place::Dot,
                (Place::Dot, b'\r') => self.place = Place::DotCr,
                (Place::DotCr, b'\n') => {
                    self.content.note_line_ends(&block[..at + 1]);
                    return Progress { consumed: at + 1, done: true };
                }
                (Place::DotCr, _) => {
                    self.content.give(b"\r", sink);
                    self.place = Place::Text;
                    continue;
                }
                (Place::Cr, b'\n') => {
                    self.content.give(b"\n", sink);
                    self.place = Place::LineStart;
                }
                (Place::Text, _) => {
                    at = self.text(block, at, sink);
                    continue;
                }
                (Place::LineStart | Place::Dot | Place::Cr, _) => {
                    self.place = Place::Text;
                    continue;
                }
            }
            at += 1;
        }
        self.content.note_line_ends(block);
        Progress { consumed: block.len(), done: false }
    }

    /// What has been seen of the message.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Why this message can't be taken, if that is known by now: the first reason found.
    pub fn fault(&self) -> Option<&DataFault> {
        self.content.fault()
    }

    /// Passes on the text from `at` up to the next line that begins with a dot, or to the end of
    /// the block. Gives the place where to go on.
    fn text(&mut self, block: &[u8], at: usize, sink: &mut impl FnMut(&[u8])) -> usize {
        let text = &block[at..];
        if let Some(found) = self.dot_line.find(text) {
            self.content.give(&text[..found + 2], sink);
            self.place = Place::Dot;
            return at + found + 3;
        }
        self.content.give(text, sink);
        self.place = match text {
            [.., b'\r', b'\n'] => Place::LineStart,
            [.., b'\r'] => Place::Cr,
            _ => Place::Text,
        };
        block.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        message: Vec<u8>,
        left: Vec<u8>,
        done: bool,
        fault: Option<DataFault>,
    }

    /// Feeds `input` in blocks that end at `cuts`.
    fn read(input: &[u8], cuts: &[usize]) -> (Outcome, DataReader) {
        let mut reader = DataReader::new(1 << 20, 3);
        let mut out = Outcome { message: vec![], left: vec![], done: false, fault: None };
        let mut at = 0;
        let ends = cuts.iter().copied().filter(|c| *c <= input.len()).chain([input.len()]);
        for end in ends {
            if end < at || out.done {
                continue;
            }
            let progress = reader.feed(&input[at..end], &mut |piece| out.message.extend_from_slice(piece));
            out.done = progress.done;
            at += progress.consumed;
        }
        out.left = input[at..].to_vec();
        out.fault = reader.fault().cloned();
        (out, reader)
    }

    fn whole(input: &[u8]) -> Outcome {
        read(input, &[]).0
    }

    /// What RFC 5321 4.5.2 says, line by line. The message is given only where it would be stored.
    fn reference(input: &[u8]) -> Outcome {
        let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|w| w == what);
        let (mut message, mut rest, mut done) = (vec![], input, false);
        while let Some(end) = find(rest, b"\r\n") {
            let line = &rest[..end + 2];
            rest = &rest[end + 2..];
            if line == b".\r\n" {
                done = true;
                break;
            }
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        let used = &input[..input.len() - rest.len()];
        let mut text = used.to_vec();
        while let Some(at) = find(&text, b"\r\n") {
            text.splice(at..at + 2, *b"  ");
        }
        let bare = text.contains(&b'\r') || text.contains(&b'\n');
        Outcome { message, left: rest.to_vec(), done, fault: bare.then_some(DataFault::BareLineEnd) }
    }

    #[test]
    fn dots_are_undone_and_the_rest_is_left() {
        let out = whole(b".\r\nQUIT\r\n");
        assert!(out.done && out.message.is_empty() && out.left == b"QUIT\r\n");
        let out = whole(b"..\r\n...\r\n.a\r\n. \r\na.\r\n\r\n.\r\nNOOP\r\n");
        assert_eq!(out.message, b".\r\n..\r\na\r\n \r\na.\r\n\r\n");
        assert!(out.done && out.left == b"NOOP\r\n" && out.fault.is_none());
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends_the_data() {
        for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\n.\r", "\r.\r", "\n.\r"] {
            let input = format!("text{end}MAIL FROM:<>\r\nmore\r\n.\r\nQUIT\r\n");
            let out = whole(input.as_bytes());
            assert!(out.done && out.left == b"QUIT\r\n", "{end:?}");
            assert_eq!(out.fault, Some(DataFault::BareLineEnd), "{end:?}");
        }
    }

    #[test]
    fn nul_and_octets_above_127_are_carried() {
        let out = whole(b"a\0b\xff\r\n.\r\n");
        assert_eq!(out.message, b"a\0b\xff\r\n");
        assert_eq!(out.fault, None);
    }

    #[test]
    fn hops_are_counted_in_the_header_only() {
        let input = b"Received: a\r\nRECEIVED\t: b\r\n received: c\r\nReceivedx: d\r\nReceive: e\r\n\r\nReceived: f\r\n";
        let (out, reader) = read(input, &[]);
        assert_eq!((reader.content().hops(), out.fault), (2, None));
        assert_eq!(reader.content().header_size(), Some(input.len() as u64 - 13));
        let (out, _) = read(&b"Received: x\r\n".repeat(4), &[]);
        assert_eq!(out.fault, Some(DataFault::Loop));
    }

    #[test]
    fn too_much_is_read_to_its_end_but_not_given_on() {
        let mut reader = DataReader::new(8, 100);
        let mut given = 0;
        let progress = reader.feed(b"12\r\n56\r\n9\r\n.\r\nQUIT\r\n", &mut |piece| given += piece.len());
        assert_eq!(progress, Progress { consumed: 14, done: true });
        assert_eq!((reader.content().size(), reader.fault()), (11, Some(&DataFault::TooBig)));
        assert!(given <= 8);
        let mut reader = DataReader::new(8, 100);
        reader.feed(b"12\r\n5\x20\r\n.\r\n", &mut |_| ());
        assert_eq!(reader.fault(), None);
    }

    proptest! {
        #[test]
        fn any_split_reads_as_the_reference(
            input in "(\\r\\n|\\r|\\n|\\.|a|\\r\\n\\.|Received:){0,24}(\\r\\n\\.\\r\\n)?[.ab]{0,3}",
            cuts in proptest::collection::vec(0usize..60, 0..8),
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let input = input.as_bytes();
            let expected = reference(input);
            let (mut out, reader) = read(input, &cuts);
            prop_assume!(reader.content().hops() <= 3);
            prop_assert_eq!(out.done, expected.done);
            if expected.done {
                prop_assert_eq!(&out.left, &expected.left);
                prop_assert_eq!(&out.fault, &expected.fault);
                if out.fault.is_none() {
                    prop_assert_eq!(out.message, expected.message);
                }
            } else {
                // The reference sees only whole lines.
                out.message.truncate(expected.message.len());
                prop_assert!(out.fault.is_some() || out.message == expected.message);
            }
        }
    }
}
