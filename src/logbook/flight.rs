//! The flight recorder: what was said last in a session, kept in memory and thrown away where all
//! went well.
//!
//! One line for each line of the wire: seconds since the session began, `<` for the peer's words, `>`
//! for ours, `=` for what happened beside, and the text. Secrets are blotted out before they get here:
//! the memory of a session is no place to look for passwords. [`super::sessions`] keeps what is worth
//! it.

use std::fmt::{self, Arguments, Display, Formatter, Write as _};
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::mail::id::{Id, Mint};
use crate::unix::random;

/// So many bytes are kept; the last half of them at least.
pub const MOST: usize = 4096;
/// A line of the wire is cut there, in bytes.
const LONGEST: usize = 256;
/// What is taken from the allocator at first: enough for an ordinary session's first lines.
const FIRST: usize = 512;
/// Stands for what nobody is to read.
const BLOT: &str = "***";

/// Names sessions, so that none is named twice.
static MINT: LazyLock<Mint> = LazyLock::new(|| {
    let drawn = random::octets().map_or(u64::from(std::process::id()), u64::from_ne_bytes);
    Mint::new(drawn)
});

/// The last lines of a session.
#[derive(Debug)]
pub struct Flight {
    begun: Instant,
    text: String,
    name: Option<Id>,
}

impl Default for Flight {
    fn default() -> Flight {
        Flight { begun: Instant::now(), text: String::new(), name: None }
    }
}

impl Flight {
    /// The peer has said this line, which is no secret, but for what follows AUTH and its mechanism, and
    /// for a challenge (RFC 4954 4).
    pub fn heard(&mut self, line: &[u8]) {
        self.wire('<', line);
    }

    /// The peer has said a line that nobody is to read.
    pub fn heard_secret(&mut self) {
        self.line('<', format_args!("{BLOT}"));
    }

    /// We have said these lines, of which the same is blotted out.
    pub fn said(&mut self, lines: &[u8]) {
        for line in lines.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
            self.wire('>', line);
        }
    }

    /// We have said a line that nobody is to read.
    pub fn said_secret(&mut self) {
        self.line('>', format_args!("{BLOT}"));
    }

    fn wire(&mut self, direction: char, line: &[u8]) {
        match open_part(line) {
            Some(open) => self.line(direction, format_args!("{} {BLOT}", Wire(open))),
            None => self.line(direction, format_args!("{}", Wire(line))),
        }
    }

    /// Something has happened beside what was said.
    pub fn note(&mut self, what: Arguments<'_>) {
        self.line('=', what);
    }

    /// Something has gone wrong: the session is worth keeping, under this name.
    pub fn is_odd(&mut self) -> Id {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        *self.name.get_or_insert_with(|| MINT.next(now))
    }

    /// The session's name, if it is worth keeping.
    pub fn name(&self) -> Option<Id> {
        self.name
    }

    /// The lines, oldest first.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, direction: char, what: Arguments<'_>) {
        if self.text.capacity() == 0 {
            self.text.reserve(FIRST);
        }
        let start = self.text.len();
        let time = self.begun.elapsed().as_secs_f32();
        // Writing to a String doesn't fail.
        let _ = write!(self.text, "{time:.3} {direction} {what}");
        if self.text.len() > start + LONGEST {
            let end = self.text.floor_char_boundary(start + LONGEST);
            self.text.truncate(end);
            self.text.push_str("...");
        }
        self.text.push('\n');
        if self.text.len() > MOST {
            let half = self.text.as_bytes()[MOST / 2..].iter().position(|octet| *octet == b'\n');
            self.text.drain(..half.map_or(0, |at| MOST / 2 + at + 1));
        }
    }
}

/// A line of the wire, shown without its end and in one line of text.
struct Wire<'a>(&'a [u8]);

impl Display for Wire<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.trim_ascii_end().utf8_chunks() {
            let mut plain = chunk.valid().split(char::is_control);
            f.write_str(plain.next().unwrap_or_default())?;
            for rest in plain {
                write!(f, "?{rest}")?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('?')?;
            }
        }
        Ok(())
    }
}

/// Of a challenge, and of a line that begins with AUTH and gives more than its mechanism: what may be
/// read. Also of one that is misspelt: who gets the command wrong gives his password all the same.
fn open_part(line: &[u8]) -> Option<&[u8]> {
    if line.starts_with(b"334 ") {
        return Some(&line[..3]);
    }
    let line = line.trim_ascii();
    let is_auth = line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"AUTH"));
    let mut ends = line.iter().enumerate().filter(|(_, octet)| octet.is_ascii_whitespace()).map(|(at, _)| at);
    let first = ends.next().filter(|_| is_auth)?;
    let open = if first == 4 { ends.next()? } else { first };
    Some(&line[..open])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(flight: &Flight) -> Vec<&str> {
        flight.text().lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest).collect()
    }

    #[test]
    fn the_wire_is_written_down_without_its_secrets() {
        let mut flight = Flight::default();
        flight.said(b"220 mx.test ESMTP\r\n");
        flight.heard(b"EHLO c\x1b\r\n");
        flight.said(b"250-mx.test\r\n250 AUTH PLAIN\r\n");
        flight.heard(b"auth PLAIN AGFsaWNlAHNlY3JldA==");
        flight.heard(b"AUTH\tPLAIN AGFsaWNlAHNlY3JldA==");
        flight.heard(b"AUTHPLAIN AGFsaWNlAHNlY3JldA==");
        flight.heard(b"AUTH LOGIN");
        flight.said(b"334 UGFzc3dvcmQ6\r\n");
        flight.heard_secret();
        flight.note(format_args!("gone"));
        let wanted = [
            "> 220 mx.test ESMTP",
            "< EHLO c?",
            "> 250-mx.test",
            "> 250 AUTH PLAIN",
            "< auth PLAIN ***",
            "< AUTH?PLAIN ***",
            "< AUTHPLAIN ***",
            "< AUTH LOGIN",
            "> 334 ***",
            "< ***",
            "= gone",
        ];
        assert_eq!(lines(&flight), wanted);
    }

    #[test]
    fn a_client_s_secrets_are_blotted_out_too() {
        let mut flight = Flight::default();
        flight.said(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
        flight.heard(b"334 UGFzc3dvcmQ6");
        flight.said_secret();
        flight.said(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        let wanted = ["> AUTH PLAIN ***", "< 334 ***", "> ***", "> MAIL FROM:<a@b>", "> RCPT TO:<c@d>"];
        assert_eq!(lines(&flight), wanted);
    }

    #[test]
    fn a_session_has_a_name_once_it_is_odd_and_keeps_it() {
        let mut flight = Flight::default();
        assert_eq!(flight.name(), None);
        let name = flight.is_odd();
        assert_eq!((flight.is_odd(), flight.name()), (name, Some(name)));
        assert_ne!(Flight::default().is_odd(), name);
    }

    proptest! {
        #[test]
        fn it_is_bounded_whatever_comes_and_has_the_last_line(
            wire in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..80),
        ) {
            let mut flight = Flight::default();
            for line in &wire {
                flight.heard(line);
                prop_assert!(flight.text().len() <= MOST && flight.text().ends_with('\n'));
            }
            flight.heard(b"last");
            prop_assert!(flight.text().ends_with(" < last\n"));
            prop_assert!(flight.text().lines().all(|line| line.contains(" < ")));
        }
    }
}
