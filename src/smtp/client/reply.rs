//! Answers of a server, as they come (RFC 5321 4.2).

use thiserror::Error;

use crate::mail::status::Status;

/// Octets of a line that are kept. RFC 5321 4.5.3.1.5 says 512; some say more.
const MAX_LINE: usize = 4096;
/// Octets of a reply's text that are kept, all its lines together.
const MAX_REPLY: usize = 64 * 1024;
/// Octets of a reply that are heard before it is given up.
const MAX_HEARD: usize = 1024 * 1024;

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// A line does not begin with three digits that make a code.
    #[error("the answer is no SMTP reply")]
    NoReply,
    /// RFC 5321 4.2.1: the code is the same on every line.
    #[error("the reply's code changes from line to line")]
    CodeChanges,
    /// More than we are willing to hear.
    #[error("the reply is too long")]
    TooLong,
}

/// A whole reply, its words kept as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// What followed the code on each line, at least one: of a line that is too long its beginning, and
    /// of a reply that is its first lines.
    pub lines: Vec<String>,
}

impl Reply {
    /// The first digit: 2 yes, 3 go on, 4 not now, 5 no.
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced status code that begins its text (RFC 2034), if it has the reply's own class.
    pub fn enhanced(&self) -> Option<Status> {
        let status = Status::split(self.lines.first()?)?.0;
        (u16::from(status.class) == self.class()).then_some(status)
    }

    /// What the reply means: its enhanced status code, else its class alone. An answer that is
    /// neither yes nor no is taken for "not now".
    pub fn status(&self) -> Status {
        let class = match self.class() {
            2 => 2,
            5 => 5,
            _ => 4,
        };
        self.enhanced().unwrap_or(Status::new(class, 0, 0))
    }

    /// The reply on one line, as it goes into Diagnostic-Code: the code once, then the text of all
    /// lines; an enhanced status code that later lines repeat is said once.
    pub fn text(&self) -> String {
        let mut text = self.code.to_string();
        let enhanced = self.enhanced();
        for (number, line) in self.lines.iter().enumerate() {
            let words = match Status::split(line) {
                Some((status, rest)) if number > 0 && Some(status) == enhanced => rest,
                _ => line,
            };
            if !words.trim().is_empty() {
                text.push(' ');
                text.push_str(words.trim());
            }
        }
        text
    }
}

/// Gathers a reply line by line.
///
/// A server that talks too much is cut short, not disbelieved: its code says what it did, and who didn't
/// believe a 250 to the final dot would send the message again, and again.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: Option<u16>,
    lines: Vec<String>,
    /// Octets of the lines so far that are kept or dropped whole.
    kept: usize,
    /// Octets that came, line ends apart.
    heard: usize,
    /// The beginning of a line that is too long; the rest of it is dropped as it comes.
    beginning: Option<Vec<u8>>,
}

impl ReplyReader {
    /// Takes lines off the front of `bytes` until a reply is whole: how many bytes were used, and
    /// the reply. Without one, more bytes are wanted after those that are left.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[used..]) {
            let line = &bytes[used..used + end];
            used += end + 1;
            self.hear(line.len())?;
            let reply = match self.beginning.take() {
                Some(beginning) => self.line(&beginning)?,
                None => self.line(start(line.strip_suffix(b"\r").unwrap_or(line)))?,
            };
            if reply.is_some() {
                return Ok((used, reply));
            }
        }
        let rest = &bytes[used..];
        if self.beginning.is_some() || rest.len() > MAX_LINE {
            self.hear(rest.len())?;
            self.beginning.get_or_insert_with(|| start(rest).to_vec());
            used = bytes.len();
        }
        Ok((used, None))
    }

    fn hear(&mut self, octets: usize) -> Result<(), ReplyError> {
        self.heard += octets;
        if self.heard > MAX_HEARD { Err(ReplyError::TooLong) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, last, text) = parse(line).ok_or(ReplyError::NoReply)?;
        if self.code.replace(code).is_some_and(|before| before != code) {
            return Err(ReplyError::CodeChanges);
        }
        self.kept += line.len();
        if self.kept <= MAX_REPLY {
            self.lines.push(String::from_utf8_lossy(text).into_owned());
        }
        if !last {
            return Ok(None);
        }
        let lines = std::mem::take(self).lines;
        Ok(Some(Reply { code, lines }))
    }
}

/// As much of a line as is kept.
fn start(line: &[u8]) -> &[u8] {
    &line[..line.len().min(MAX_LINE)]
}

/// A line's code, whether it is the reply's last one, and its text. RFC 5321 4.2.1: the text, and
/// on the last line the space before it, may be missing.
fn parse(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
    if !(200..600).contains(&code) {
        return None;
    }
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Reply>, ReplyError> {
        ReplyReader::default().take(bytes).map(|(_, reply)| reply)
    }

    fn reply(text: &[u8]) -> Reply {
        read(text).unwrap().unwrap()
    }

    #[test]
    fn lines_make_a_reply_with_or_without_text() {
        assert_eq!(reply(b"250 ok\r\n").text(), "250 ok");
        assert_eq!(reply(b"250\r\n").text(), "250");
        assert_eq!(reply(b"250-\r\n250\r\n").lines, ["", ""]);
        assert_eq!(reply(b"220-a\r\n220-b\r\n220 c\r\nmore").lines, ["a", "b", "c"]);
        assert_eq!(reply(b"250 ok\n").code, 250, "a server without CR is understood");
        assert_eq!(reply(b"550 \xff\r\n").text(), "550 \u{fffd}");
        assert_eq!(read(b"250-a\r\n250 b"), Ok(None));
    }

    #[test]
    fn what_is_no_reply_is_told_apart() {
        for junk in
            [&b"what?\r\n"[..], b"25\r\n", b"250x\r\n", b"199 x\r\n", b"600 x\r\n", b"\r\n", b"+50 x\r\n"]
        {
            assert_eq!(read(junk), Err(ReplyError::NoReply), "{junk:?}");
        }
        assert_eq!(read(b"250-a\r\n550 b\r\n"), Err(ReplyError::CodeChanges));
        assert_eq!(read(&vec![b'2'; MAX_HEARD + 1]), Err(ReplyError::TooLong));
        assert_eq!(read(&b"250-xxxxxxxxxxxx\r\n".repeat(100_000)), Err(ReplyError::TooLong));
    }

    #[test]
    fn a_server_that_talks_too_much_is_cut_short() {
        let long = [b"250 2.0.0 ", &[b'x'; 100_000][..], b"\r\n250 next\r\n"].concat();
        let (mut reader, mut left, mut said) = (ReplyReader::default(), Vec::new(), Vec::new());
        for piece in long.chunks(1500) {
            left.extend_from_slice(piece);
            assert!(left.len() <= MAX_LINE + 1500, "the rest of a line is not gathered");
            while let (used, Some(reply)) = reader.take(&left).unwrap() {
                left.drain(..used);
                said.push(reply);
            }
            let used = reader.take(&left).unwrap().0;
            left.drain(..used);
        }
        assert_eq!(said[0].status(), Status::new(2, 0, 0));
        assert_eq!((said[0].code, said[0].text().len()), (250, MAX_LINE));
        assert_eq!((said.len(), said[1].text()), (2, "250 next".into()));
        let lines = [&b"250-xxxxxxxxxxxx\r\n".repeat(10_000)[..], b"250 x\r\n"].concat();
        assert_eq!((reply(&lines).code, reply(&lines).lines.len()), (250, MAX_REPLY / 16));
        assert_eq!(
            read(&[b"250-", &[b'x'; 9000][..], b"\r\n550 no\r\n"].concat()),
            Err(ReplyError::CodeChanges)
        );
    }

    #[test]
    fn the_meaning_is_in_the_enhanced_code_or_in_the_class() {
        assert_eq!(reply(b"550 5.1.1 no such user\r\n").status(), Status::new(5, 1, 1));
        assert_eq!(reply(b"550 no such user\r\n").status(), Status::new(5, 0, 0));
        assert_eq!(reply(b"450 5.1.1 liar\r\n").status(), Status::new(4, 0, 0));
        assert_eq!(reply(b"354 go\r\n").status(), Status::new(4, 0, 0));
    }

    #[test]
    fn a_repeated_enhanced_code_is_said_once() {
        let said = reply(b"550-5.1.1 first\r\n550-5.1.1 second\r\n550 5.7.1 last\r\n");
        assert_eq!(said.text(), "550 5.1.1 first second 5.7.1 last");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(text in "(2|5)50[- ][a-z]{0,3}\r\n(250|550)[- ]x\r\n", more in 0usize..9000, cut in any::<prop::sample::Index>()) {
            let text = text.replacen("50 ", &format!("50 {}\r", "y".repeat(more)), 1);
            let cut = cut.index(text.len());
            let whole = ReplyReader::default().take(text.as_bytes());
            let mut reader = ReplyReader::default();
            let first = reader.take(&text.as_bytes()[..cut]);
            let parts = match first {
                Ok((used, None)) => reader.take(&text.as_bytes()[used..]).map(|(more, reply)| (used + more, reply)),
                done => done,
            };
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReplyReader::default().take(&bytes);
        }
    }
}
