//! The lines of a journal.
//!
//! A letter, a time (microseconds since 1970), and what the letter wants, a space between each; the
//! last may hold spaces ([`super::line`] keeps the rest apart). A letter means the same for
//! ever; what is no longer needed is no longer written, but its letter is not used again.
//!
//! | line | meaning |
//! |---|---|
//! | `Q time inode crc` | the queue file that this journal belongs to; the first line |
//! | `T time n recipient leaf` | final destination *n*, of the envelope's recipient of that number |
//! | `E time` | these were all: they are not made anew at a retry. More may come later (a `.forward`, a look-up that failed), with an `E` of their own |
//! | `D time n how relay text` | *n* is delivered; how: `p` if its DSN wishes were passed on, else `-` |
//! | `L time n status how relay text` | not now; how: `s` if the text is the relay's own reply, else `-` |
//! | `N time n status how relay text` | never |
//! | `R time n` | the sender has been told of the end of *n*, or is not to be |
//! | `W time` | the sender has been told of the delay |
//! | `S time` | a hand died while it held the message |
//! | `H time why` | put on hold |
//! | `U time` | released |
//! | `A time count` | an attempt has ended; so many there were |

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use crate::courier::request::Leaf;
use crate::mail::status::Status;

use super::line;

/// One line of a journal. Times are microseconds since 1970; targets are numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `Q`: first line: the queue file's inode and CRC. The spool itself writes it.
    Head {
        /// Inode of the queue file.
        inode: u64,
        /// CRC of its trailer.
        crc: u32,
    },
    /// `T`: a final destination: of which of the envelope's recipients, and where it goes.
    Target {
        /// Its number.
        n: u32,
        /// The recipient's place in the envelope, from 0.
        recipient: u32,
        /// Where it goes.
        leaf: Arc<Leaf>,
    },
    /// `E`: the expansion is complete.
    Expanded,
    /// `D`: delivered: what the next hop said, and which it was.
    Done {
        /// Which target.
        n: u32,
        /// When.
        at: u64,
        /// The next hop.
        relay: String,
        /// What it said.
        text: String,
        /// DSN wishes went along.
        passed_on: bool,
    },
    /// `L`: not now.
    Later {
        /// Which target.
        n: u32,
        /// When.
        at: u64,
        /// The enhanced status code.
        status: Status,
        /// The next hop; empty if none was reached.
        relay: String,
        /// Why.
        text: String,
        /// The text is the relay's own reply.
        said: bool,
    },
    /// `N`: never; the sender is to be told.
    Never {
        /// Which target.
        n: u32,
        /// When.
        at: u64,
        /// The enhanced status code.
        status: Status,
        /// The next hop; empty if none was reached.
        relay: String,
        /// Why.
        text: String,
        /// The text is the relay's own reply.
        said: bool,
    },
    /// `R`: the sender has been told (or is not to be) of the end of these.
    Reported {
        /// Which target.
        n: u32,
        /// When.
        at: u64,
    },
    /// `W`: the sender has been told of the delay.
    Warned {
        /// When.
        at: u64,
    },
    /// `S`: a hand died while it held the message.
    Strike {
        /// When.
        at: u64,
    },
    /// `H`: put on hold, and why.
    Held {
        /// When.
        at: u64,
        /// Why.
        why: String,
    },
    /// `U`: released.
    Released {
        /// When.
        at: u64,
    },
    /// `A`: an attempt has ended; so many there were.
    Attempt {
        /// When.
        at: u64,
        /// How many, this one among them.
        count: u32,
    },
}

impl Record {
    /// Adds the line. `now` is the time of a record without one. `None`: it could not be read back,
    /// and nothing is added.
    pub fn put(&self, out: &mut Vec<u8>, now: u64) -> Option<()> {
        let mut l = Line { out };
        match self {
            Record::Head { inode, crc } => l.begin('Q', now).number(inode).number(format_args!("{crc:08x}")),
            Record::Target { n, recipient, leaf } => {
                let fields = leaf.encode().ok()?;
                // An address need not be its own canonical form.
                Leaf::decode(&fields).ok().filter(|back| *back == **leaf)?;
                l.begin('T', now).number(n).number(recipient).rest(&fields)
            }
            Record::Expanded => l.begin('E', now),
            Record::Done { n, at, relay, text, passed_on } => {
                l.begin('D', *at).number(n).flag('p', *passed_on).word(relay).rest(text.as_bytes())
            }
            Record::Later { n, at, status, relay, text, said } => {
                let l = l.begin('L', *at).number(n).number(status);
                l.flag('s', *said).word(relay).rest(text.as_bytes())
            }
            Record::Never { n, at, status, relay, text, said } => {
                let l = l.begin('N', *at).number(n).number(status);
                l.flag('s', *said).word(relay).rest(text.as_bytes())
            }
            Record::Reported { n, at } => l.begin('R', *at).number(n),
            Record::Warned { at } => l.begin('W', *at),
            Record::Strike { at } => l.begin('S', *at),
            Record::Held { at, why } => l.begin('H', *at).rest(why.as_bytes()),
            Record::Released { at } => l.begin('U', *at),
            Record::Attempt { at, count } => l.begin('A', *at).number(count),
        }
        .end();
        Some(())
    }

    /// Reads a line without its end; `None` if it is none that [`put`](Record::put) writes.
    pub fn read(text: &[u8]) -> Option<Record> {
        let mut w = Words { rest: Some(text) };
        let letter = w.word()?;
        let at = w.value()?;
        let record = match &letter[..] {
            "Q" => Record::Head { inode: w.value()?, crc: u32::from_str_radix(&w.word()?, 16).ok()? },
            "T" => {
                let (n, recipient) = (w.value()?, w.value()?);
                Record::Target { n, recipient, leaf: Leaf::decode(&w.last()?).ok()?.into() }
            }
            "E" => Record::Expanded,
            "D" => {
                let (n, passed_on) = (w.value()?, w.flag("p")?);
                Record::Done { n, at, passed_on, relay: w.word()?, text: w.last_text()? }
            }
            "L" => {
                let (n, status, said) = (w.value()?, Status::parse(&w.word()?)?, w.flag("s")?);
                Record::Later { n, at, status, said, relay: w.word()?, text: w.last_text()? }
            }
            "N" => {
                let (n, status, said) = (w.value()?, Status::parse(&w.word()?)?, w.flag("s")?);
                Record::Never { n, at, status, said, relay: w.word()?, text: w.last_text()? }
            }
            "R" => Record::Reported { n: w.value()?, at },
            "W" => Record::Warned { at },
            "S" => Record::Strike { at },
            "H" => Record::Held { at, why: w.last_text()? },
            "U" => Record::Released { at },
            "A" => Record::Attempt { at, count: w.value()? },
            _ => return None,
        };
        w.rest.is_none().then_some(record)
    }
}

/// A line being written.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn begin(&mut self, letter: char, at: u64) -> &mut Self {
        // Writing to a Vec can't fail.
        drop(write!(self.out, "{letter} {at}"));
        self
    }

    /// Of values that need no escapes.
    fn number(&mut self, value: impl std::fmt::Display) -> &mut Self {
        drop(write!(self.out, " {value}"));
        self
    }

    fn flag(&mut self, letter: char, is_on: bool) -> &mut Self {
        self.number(if is_on { letter } else { '-' })
    }

    fn word(&mut self, value: &str) -> &mut Self {
        self.out.push(b' ');
        line::put_word(self.out, value.as_bytes());
        self
    }

    fn rest(&mut self, value: &[u8]) -> &mut Self {
        self.out.push(b' ');
        line::put_rest(self.out, value);
        self
    }

    fn end(&mut self) {
        self.out.push(b'\n');
    }
}

/// A line being read.
struct Words<'a> {
    /// `None`: the line is at its end.
    rest: Option<&'a [u8]>,
}

impl Words<'_> {
    fn word(&mut self) -> Option<String> {
        let rest = self.rest?;
        let end = memchr::memchr(b' ', rest);
        self.rest = end.map(|end| &rest[end + 1..]);
        let word = line::read(&rest[..end.unwrap_or(rest.len())])?;
        String::from_utf8(word.into_owned()).ok()
    }

    fn value<T: FromStr>(&mut self) -> Option<T> {
        self.word()?.parse().ok()
    }

    fn flag(&mut self, letter: &str) -> Option<bool> {
        let word = self.word()?;
        (word == letter || word == "-").then_some(word == letter)
    }

    fn last(&mut self) -> Option<Vec<u8>> {
        line::read(self.rest.take()?).map(|value| value.into_owned())
    }

    fn last_text(&mut self) -> Option<String> {
        String::from_utf8(self.last()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::courier::request::{Hop, Target};
    use crate::mail::address::Mailbox;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let status = (4..=5u8, 0..=9u16, 0..=99u16).prop_map(|(c, s, d)| Status::new(c, s, d));
        let numbers = (any::<u32>(), any::<u64>(), any::<u32>());
        let texts = ("(?s).{0,20}", "(?s).{0,20}");
        (0..11, numbers, status, texts, any::<bool>()).prop_map(
            |(kind, (n, at, count), status, (relay, text), flag)| match kind {
                0 => Record::Head { inode: at, crc: count },
                1 => Record::Expanded,
                2 => Record::Done { n, at, relay, text, passed_on: flag },
                3 => Record::Later { n, at, status, relay, text, said: flag },
                4 => Record::Never { n, at, status, relay, text, said: flag },
                5 => Record::Reported { n, at },
                6 => Record::Warned { at },
                7 => Record::Strike { at },
                8 => Record::Held { at, why: text },
                9 => Record::Released { at },
                _ => Record::Attempt { at, count },
            },
        )
    }

    fn line_of(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.put(&mut out, 7).unwrap();
        out
    }

    #[test]
    fn lines_look_as_the_manual_says() {
        let address = Mailbox::parse("bob@example.net", false).unwrap();
        let leaf = Leaf {
            address,
            target: Target::Smtp(Hop::Host("mx.example".into(), 25)),
            place: None,
            sender: None,
            of_list: false,
        };
        let target = Record::Target { n: 0, recipient: 3, leaf: leaf.into() };
        let line = line_of(&target);
        assert_eq!(line, b"T 7 0 3 to 15:bob@example.net\\nsmtp 13:mx.example:25\\n\n");
        assert_eq!(Record::read(&line[..line.len() - 1]), Some(target));
        let status = Status::new(4, 4, 1);
        let (relay, text) = (String::new(), "connection refused".to_string());
        let later = Record::Later { n: 0, at: 9, status, relay, text, said: false };
        assert_eq!(line_of(&later), b"L 9 0 4.4.1 - \\e connection refused\n");
        assert_eq!(line_of(&Record::Head { inode: 5, crc: 255 }), b"Q 7 5 000000ff\n");
    }

    #[test]
    fn what_would_not_read_back_is_not_written() {
        let address = Mailbox::from_parts("a", &"İ".repeat(31)).unwrap();
        let leaf =
            Leaf { address, target: Target::Mx("x".into()), place: None, sender: None, of_list: false };
        let mut out = Vec::new();
        assert_eq!(Record::Target { n: 0, recipient: 0, leaf: leaf.into() }.put(&mut out, 7), None);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn records_read_back(record in records()) {
            let line = line_of(&record);
            prop_assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1));
            prop_assert_eq!(Record::read(&line[..line.len() - 1]), Some(record));
        }

        #[test]
        fn nothing_makes_it_panic(
            text in "[A-Z] [0-9]{0,3}( ?[-ps0-9a-z\\\\.]{0,4}){0,6}",
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = Record::read(text.as_bytes());
            let _ = Record::read(&bytes);
        }
    }
}
