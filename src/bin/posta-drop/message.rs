//! The message on stdin, made what the spool keeps: CRLF line ends, dots undone.
//!
//! A line ends in LF, with any number of CR before it. A CR elsewhere becomes a blank: on the wire it
//! could be taken for a line's end by a server that is not strict (RFC 5321 2.3.8).

use std::io::{self, BufRead};

use thiserror::Error;

/// Why there is no whole message.
#[derive(Debug, Error)]
pub enum Cut {
    #[error("can't read stdin: {0}; nothing is submitted")]
    Io(#[from] io::Error),
    /// Who writes to us has gone in the middle.
    #[error("stdin ended before the line \".\"; nothing is submitted")]
    End,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Start,
    /// After a dot at the start, which is not part of the message.
    Dot,
    /// After such a dot and CR.
    DotCr,
    /// After CR.
    Cr,
    Middle,
}

/// Undoes dots and makes every line end CRLF.
#[derive(Debug, Default)]
pub struct Undone {
    at: At,
    eight_bit: bool,
}

impl Undone {
    /// Reads up to the line with a dot alone and gives the message to `push`, in blocks.
    pub fn read<E: From<Cut>>(
        &mut self,
        input: &mut impl BufRead,
        push: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Vec::new();
        loop {
            let block = match input.fill_buf() {
                Ok(block) => block,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Cut::Io(error).into()),
            };
            if block.is_empty() {
                return Err(Cut::End.into());
            }
            out.clear();
            let (used, done) = self.feed(block, &mut out);
            input.consume(used);
            push(&out)?;
            if done {
                return Ok(());
            }
        }
    }

    /// Whether the message has octets above 127 (RFC 6152).
    pub fn has_eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// Takes `block` up to the message's end: how much of it was used, and whether that was it.
    fn feed(&mut self, block: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut used = 0;
        while used < block.len() {
            if self.at == At::Middle {
                // The bulk of a message: everything up to the next CR or LF as it is.
                let rest = &block[used..];
                let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                self.eight_bit |= !rest[..length].is_ascii();
                out.extend_from_slice(&rest[..length]);
                used += length;
                if used == block.len() {
                    break;
                }
            }
            let b = block[used];
            used += 1;
            if self.step(b, out) {
                return (used, true);
            }
        }
        (used, false)
    }

    /// Takes one octet; whether the message has ended.
    fn step(&mut self, b: u8, out: &mut Vec<u8>) -> bool {
        self.at = match (self.at, b) {
            (At::Dot | At::DotCr, b'\n') => return true,
            (At::Dot | At::DotCr, b'\r') => At::DotCr,
            (_, b'\n') => {
                out.extend_from_slice(b"\r\n");
                At::Start
            }
            (At::Start, b'.') => At::Dot,
            (_, b'\r') => At::Cr,
            (before, _) => {
                if matches!(before, At::Cr | At::DotCr) {
                    out.push(b' ');
                }
                self.eight_bit |= !b.is_ascii();
                out.push(b);
                At::Middle
            }
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `text` in pieces of `piece` bytes.
    fn read(text: &[u8], piece: usize) -> Result<Vec<u8>, Cut> {
        let mut got = Vec::new();
        let mut input = io::BufReader::with_capacity(piece, text);
        Undone::default().read::<Cut>(&mut input, &mut |bytes| {
            got.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(got)
    }

    #[test]
    fn line_ends_become_one_kind_and_dots_are_undone() {
        for piece in 1..8 {
            let said = |text: &[u8]| String::from_utf8(read(text, piece).unwrap()).unwrap();
            assert_eq!(said(b"a\nb\r\nc\r\r\n.\n"), "a\r\nb\r\nc\r\n");
            assert_eq!(said(b"..\n..a\n.b\n.\n"), ".\r\n.a\r\nb\r\n");
            assert_eq!(said(b"a\rb\r\rc\n.\rd\n\r\n.\r\n"), "a b c\r\n d\r\n\r\n");
            assert_eq!(said(b".\nrest"), "");
        }
    }

    #[test]
    fn an_early_end_is_no_message() {
        for text in [&b""[..], b"a\n", b"a\n.", b"a", b"a\n.\r"] {
            assert!(matches!(read(text, 4), Err(Cut::End)), "{text:?}");
        }
    }

    #[test]
    fn eight_bits_are_noticed() {
        for (text, wanted) in
            [(&b"a\n.\n"[..], false), ("ä\n.\n".as_bytes(), true), ("xä\n.\n".as_bytes(), true)]
        {
            let mut undone = Undone::default();
            undone.read::<Cut>(&mut &text[..], &mut |_| Ok(())).unwrap();
            assert_eq!(undone.has_eight_bit(), wanted);
        }
    }

    proptest! {
        #[test]
        fn nothing_but_crlf_comes_out(mut text in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..9) {
            text.extend_from_slice(b"\n.\n");
            let out = read(&text, piece).unwrap();
            for (at, &b) in out.iter().enumerate() {
                if b == b'\n' { prop_assert!(at > 0 && out[at - 1] == b'\r'); }
                if b == b'\r' { prop_assert_eq!(out.get(at + 1), Some(&b'\n')); }
            }
            prop_assert!(out.is_empty() || out.ends_with(b"\r\n"));
        }
    }
}
