//! Octets into command lines.
//!
//! Only CR LF ends a line (RFC 5321 2.3.8). A bare LF or CR never does: whoever takes one for a line
//! end can be made to see commands where another server saw text. The line that holds one is read
//! up to its CR LF and reported as such; so is a line that is too long, which is swallowed, however
//! long it is, in the memory of one line.

use memchr::{memchr_iter, memchr2};

/// Octets of a command line with its CR LF that every server must take (RFC 5321 4.5.3.1.4).
/// Extensions lengthen MAIL and RCPT, so a session is usually given more.
pub const SHORTEST_LIMIT: usize = 512;

/// The same of AUTH, and of what a client says in the exchange that it begins (RFC 4954 4).
pub const AUTH_LIMIT: usize = 12_288;

/// How a TLS client begins to talk: a handshake record of version 3.x (RFC 8446 5.1).
pub(super) const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// What has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its CR LF.
    Whole(&'a [u8]),
    /// A line that was too long, all of it.
    Long,
    /// A line with a bare CR or LF in it.
    BareLineEnd,
}

/// Cuts what a peer sends into lines. It owns the session's input buffer: octets are read straight
/// into [`space`](LineReader::space), and lines are handed out where they lie.
#[derive(Debug)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// What is unread lies between these two.
    start: usize,
    end: usize,
    max: usize,
    /// The next line is no command but a word in an exchange of AUTH.
    in_exchange: bool,
    /// The beginning of a line that is too long has been dropped already.
    swallowing: bool,
}

impl LineReader {
    /// A reader of lines of at most `max` octets, CR LF included; of AUTH they may have
    /// [`AUTH_LIMIT`].
    pub fn new(max: usize) -> LineReader {
        let (buffer, max) = (Vec::new(), max.max(2));
        LineReader { buffer, start: 0, end: 0, max, in_exchange: false, swallowing: false }
    }

    /// Whether the next lines are words in an exchange of AUTH, which may be as long as AUTH itself.
    pub fn expect_exchange(&mut self, in_exchange: bool) {
        self.in_exchange = in_exchange;
    }

    /// Room for at least `want` octets more. What was read into it is made known by
    /// [`filled`](LineReader::filled).
    ///
    /// The buffer grows to `want` and what was unread, and no further: after [`next`](LineReader::next)
    /// has said `None` less than a line is unread, and [`DataReader`](super::data::DataReader) leaves
    /// nothing before the end of data.
    pub fn space(&mut self, want: usize) -> &mut [u8] {
        if self.buffer.len() - self.end < want {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() - self.end < want {
                self.buffer.resize(self.end + want, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// The first `count` octets of the last [`space`](LineReader::space) have been read.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Adds octets from elsewhere.
    pub fn push(&mut self, octets: &[u8]) {
        self.space(octets.len())[..octets.len()].copy_from_slice(octets);
        self.filled(octets.len());
    }

    /// The next line, if all of it is here.
    #[allow(clippy::should_implement_trait)] // an iterator can't lend from itself
    pub fn next(&mut self) -> Option<Line<'_>> {
        if self.swallowing {
            return self.swallow();
        }
        if self.unread().starts_with(&TLS_HANDSHAKE) {
            // Such a client sends no CR LF and waits for our answer: this is all there will be.
            let (start, length) = (self.start, self.unread().len());
            self.consume(length);
            return Some(Line::Whole(&self.buffer[start..start + length.min(self.limit())]));
        }
        match self.line_end() {
            Some(length) if length > self.limit() => {
                self.consume(length);
                Some(Line::Long)
            }
            Some(length) => {
                let start = self.start;
                self.consume(length);
                let line = &self.buffer[start..start + length - 2];
                Some(if memchr2(b'\r', b'\n', line).is_some() {
                    Line::BareLineEnd
                } else {
                    Line::Whole(line)
                })
            }
            // RFC 5321 4.5.3.1.4: its rest must not be read as the next command.
            None if self.unread().len() >= self.limit() => {
                self.swallowing = true;
                self.swallow()
            }
            None => None,
        }
    }

    /// What is unread: for the reader of message data, which says by [`consume`](LineReader::consume)
    /// how much of it was its own.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// `count` octets of what was unread have been read.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Whether nothing is unread. While something is, the client does not wait for us.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Works in `room` from now on, for a session that a worker lends its buffer. What was unread
    /// comes along.
    pub fn move_into(&mut self, room: &mut Vec<u8>) {
        let unread = self.unread().len();
        if room.len() < unread {
            room.resize(unread, 0);
        }
        room[..unread].copy_from_slice(self.unread());
        std::mem::swap(&mut self.buffer, room);
        (self.start, self.end) = (0, unread);
    }

    /// Gives the buffer back into `room`. What was unread stays, in as much memory as it needs.
    pub fn move_out(&mut self, room: &mut Vec<u8>) {
        let unread = self.unread().to_vec();
        (self.start, self.end) = (0, unread.len());
        *room = std::mem::replace(&mut self.buffer, unread);
    }

    /// Drops the rest of a line that is too long, up to its CR LF or as far as it has come.
    fn swallow(&mut self) -> Option<Line<'_>> {
        if let Some(length) = self.line_end() {
            self.consume(length);
            self.swallowing = false;
            return Some(Line::Long);
        }
        let last_is_cr = self.unread().last() == Some(&b'\r');
        self.consume(self.unread().len() - usize::from(last_is_cr));
        None
    }

    /// Most octets of the line that is unread.
    fn limit(&self) -> usize {
        let verb = self.unread().get(..5);
        let long = self.in_exchange || verb.is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        if long { self.max.max(AUTH_LIMIT) } else { self.max }
    }

    /// The length of what is unread up to and with its first CR LF.
    fn line_end(&self) -> Option<usize> {
        let unread = self.unread();
        memchr_iter(b'\n', unread).find(|&at| at > 0 && unread[at - 1] == b'\r').map(|at| at + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that a reader says about `input`, given in pieces of `step` octets.
    fn read(input: &[u8], max: usize, step: usize) -> Vec<String> {
        let mut reader = LineReader::new(max);
        let mut said = Vec::new();
        for piece in input.chunks(step.max(1)) {
            reader.push(piece);
            while let Some(line) = reader.next() {
                said.push(format!("{line:?}"));
            }
            assert!(reader.unread().len() < max);
        }
        said
    }

    /// The same, by the plainest means.
    fn reference(input: &[u8], max: usize) -> Vec<String> {
        let text: String = input.iter().map(|b| char::from(*b)).collect();
        let mut lines: Vec<&str> = text.split("\r\n").collect();
        lines.pop();
        let line = |line: &str| {
            let octets: Vec<u8> = line.chars().map(|c| c as u8).collect();
            match () {
                () if octets.len() + 2 > max => format!("{:?}", Line::Long),
                () if line.contains(['\r', '\n']) => format!("{:?}", Line::BareLineEnd),
                () => format!("{:?}", Line::Whole(&octets)),
            }
        };
        lines.into_iter().map(line).collect()
    }

    #[test]
    fn a_line_of_the_limit_is_taken_and_one_octet_more_is_not() {
        let line = |length: usize| [&vec![b'x'; length - 2][..], b"\r\nNOOP\r\n"].concat();
        let mut reader = LineReader::new(SHORTEST_LIMIT);
        reader.push(&line(512));
        assert!(matches!(reader.next(), Some(Line::Whole(l)) if l.len() == 510));
        assert_eq!(reader.next(), Some(Line::Whole(b"NOOP")));
        reader.push(&line(513));
        assert_eq!(reader.next(), Some(Line::Long));
        assert_eq!(reader.next(), Some(Line::Whole(b"NOOP")));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn lines_of_auth_may_be_longer() {
        let mut reader = LineReader::new(512);
        let word = "A".repeat(AUTH_LIMIT - 2);
        reader.push(format!("auth {}\r\n{word}\r\n", &word[5..]).as_bytes());
        assert!(matches!(reader.next(), Some(Line::Whole(line)) if line.len() == AUTH_LIMIT - 2));
        reader.expect_exchange(true);
        assert!(matches!(reader.next(), Some(Line::Whole(line)) if line.len() == AUTH_LIMIT - 2));
        reader.push(format!("{word}A\r\n").as_bytes());
        assert_eq!(reader.next(), Some(Line::Long));
        reader.expect_exchange(false);
        reader.push(format!("{word}\r\nNOOP\r\n").as_bytes());
        assert_eq!(reader.next(), Some(Line::Long));
        assert_eq!(reader.next(), Some(Line::Whole(b"NOOP")));
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_gives_one_report() {
        let mut reader = LineReader::new(2048);
        for _ in 0..1000 {
            let space = reader.space(4096);
            space.fill(b'z');
            let count = space.len();
            reader.filled(count);
            assert_eq!(reader.next(), None);
            assert!(reader.buffer.len() <= 8192);
        }
        reader.push(b"RSET\r");
        assert_eq!(reader.next(), None);
        reader.push(b"\nRSET\r\n");
        assert_eq!(reader.next(), Some(Line::Long));
        assert_eq!(reader.next(), Some(Line::Whole(b"RSET")));
    }

    #[test]
    fn only_cr_lf_ends_a_line() {
        assert_eq!(read(b"NOOP\nRSET\n\r\nQUIT\r\n", 99, 99)[0], "BareLineEnd");
        assert_eq!(read(b"NOOP\rRSET\r\n", 99, 1), ["BareLineEnd"]);
        assert_eq!(read(b"NOOP\n", 99, 1), [""; 0]);
        assert_eq!(read(b"\r\r\n", 99, 1), ["BareLineEnd"]);
    }

    #[test]
    fn a_tls_client_is_not_waited_for() {
        let mut reader = LineReader::new(512);
        reader.push(b"\x16");
        assert_eq!(reader.next(), None);
        reader.push(b"\x03\x01\0\xa5");
        assert_eq!(reader.next(), Some(Line::Whole(b"\x16\x03\x01\0\xa5")));
        assert!(reader.is_empty());
    }

    #[test]
    fn what_follows_a_line_can_be_read_as_data() {
        let mut reader = LineReader::new(512);
        reader.push(b"DATA\r\nx\r\n.\r\nQUIT\r\n");
        assert_eq!(reader.next(), Some(Line::Whole(b"DATA")));
        assert_eq!(reader.unread(), b"x\r\n.\r\nQUIT\r\n");
        reader.consume(6);
        assert_eq!(reader.next(), Some(Line::Whole(b"QUIT")));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_lent_buffer_goes_back_and_the_line_goes_on() {
        let (mut reader, mut room) = (LineReader::new(512), vec![b'?'; 4096]);
        reader.move_into(&mut room);
        assert_eq!(reader.space(1).len(), 4096);
        reader.push(b"NOOP\r\nRS");
        assert_eq!(reader.next(), Some(Line::Whole(b"NOOP")));
        reader.move_out(&mut room);
        assert_eq!((reader.unread(), reader.buffer.capacity(), room.len()), (&b"RS"[..], 2, 4096));
        let mut small = Vec::new();
        reader.move_into(&mut small);
        reader.push(b"ET\r\n");
        assert_eq!(reader.next(), Some(Line::Whole(b"RSET")));
        reader.move_out(&mut small);
        assert!(reader.is_empty() && reader.buffer.capacity() == 0);
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(
            input in "([a-c]{0,9}|\r\n|\n|\r){0,20}",
            max in 2usize..16,
            step in 1usize..9,
        ) {
            prop_assert_eq!(read(input.as_bytes(), max, step), reference(input.as_bytes(), max));
        }
    }
}
