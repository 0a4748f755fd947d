//! What is put into a mailbox: fields on top, then the message with LF line ends.
//!
//! The message is read from the queue file in blocks; a small one is read once, for all its
//! recipients here. The bytes stay as they came, but for two things: CRLF becomes LF, and an old
//! Return-Path, which is the final delivery's to say, is left out of the header.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;

use memchr::memchr;

use crate::mail::address::{Mailbox, ReversePath};

/// Bytes held at once. What stands beyond the first block of a message is not taken for its header.
pub const BLOCK: usize = 256 * 1024;

/// A message to be copied: bytes 0 to `size` of a queue file.
#[derive(Debug)]
pub struct Message {
    file: File,
    size: u64,
    first: Vec<u8>,
    /// Length of the header section within the first block, without the empty line.
    header: usize,
}

impl Message {
    /// Reads the first block. A file that is shorter than `size` is `UnexpectedEof`.
    pub fn open(file: File, size: u64) -> io::Result<Message> {
        let mut first = vec![0; length_at(0, size)];
        file.read_exact_at(&mut first, 0)?;
        let header = header_length(&first);
        Ok(Message { file, size, first, header })
    }

    /// Whether the message was put into this mailbox before: its header has a Delivered-To field
    /// with the same address, so that it goes in a circle.
    pub fn was_delivered_to(&self, address: &Mailbox) -> bool {
        let address = address.to_string();
        let names_it = |field: &[u8]| {
            let value = value_of(field, b"delivered-to").unwrap_or_default().trim_ascii();
            let value = value.strip_prefix(b"<").and_then(|v| v.strip_suffix(b">")).unwrap_or(value);
            value.eq_ignore_ascii_case(address.as_bytes())
        };
        Fields(&self.first[..self.header]).any(names_it)
    }

    /// The bytes of the file from `at` on, at most a block.
    fn block(&self, at: u64, block: &mut Vec<u8>) -> io::Result<()> {
        block.resize(length_at(at, self.size), 0);
        self.file.read_exact_at(block, at)
    }
}

/// The fields that a mailbox copy starts with (RFC 5321 4.4: the final delivery puts Return-Path
/// before everything else), with LF line ends. `trace` is fields ended by CRLF.
pub fn top(sender: &ReversePath, address: &Mailbox, trace: &[u8]) -> Vec<u8> {
    let mut top = format!("Return-Path: <{sender}>\nDelivered-To: {address}\n").into_bytes();
    let mut held_cr = false;
    append_lf(&mut top, trace, &mut held_cr);
    top
}

/// A copy being made. `M` is a reference to the message, or a share in it.
#[derive(Debug)]
pub struct Copy<M> {
    message: M,
    top: Option<Vec<u8>>,
    at: u64,
    /// The last byte was a CR that may be half of a line's end.
    held_cr: bool,
}

impl<M: Deref<Target = Message>> Copy<M> {
    /// A copy of `message` with `top` (LF line ends) before it.
    pub fn new(message: M, top: Vec<u8>) -> Copy<M> {
        Copy { message, top: Some(top), at: 0, held_cr: false }
    }

    /// Puts the next piece into `piece` (what was there is dropped); `false` at the end. A small
    /// message is one piece.
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<bool> {
        piece.clear();
        let message = &*self.message;
        if let Some(top) = self.top.take() {
            piece.extend_from_slice(&top);
            let (header, rest) = message.first.split_at(message.header);
            for field in Fields(header).filter(|f| value_of(f, b"return-path").is_none()) {
                append_lf(piece, field, &mut self.held_cr);
            }
            append_lf(piece, rest, &mut self.held_cr);
            self.at = message.first.len() as u64;
        } else if self.at < message.size {
            let mut block = Vec::new();
            message.block(self.at, &mut block)?;
            append_lf(piece, &block, &mut self.held_cr);
            self.at += block.len() as u64;
        } else {
            return Ok(false);
        }
        if self.at == message.size && std::mem::take(&mut self.held_cr) {
            piece.push(b'\r');
        }
        Ok(true)
    }
}

/// How many bytes the block at `at` has.
fn length_at(at: u64, size: u64) -> usize {
    usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK)
}

/// Appends `text` with every CRLF turned into LF. A CR at its end is held back: the next text may
/// begin with its LF.
fn append_lf(out: &mut Vec<u8>, text: &[u8], held_cr: &mut bool) {
    let mut rest = text;
    if rest.is_empty() {
        return;
    }
    if std::mem::take(held_cr) && rest[0] != b'\n' {
        out.push(b'\r');
    }
    while let Some(cr) = memchr(b'\r', rest) {
        out.extend_from_slice(&rest[..cr]);
        match rest.get(cr + 1) {
            Some(b'\n') => {}
            Some(_) => out.push(b'\r'),
            None => *held_cr = true,
        }
        rest = &rest[cr + 1..];
    }
    out.extend_from_slice(rest);
}

/// Length of the header section: up to the empty line (RFC 5322 2.1), or all of it.
fn header_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = memchr(b'\n', &text[at..]) {
        if matches!(&text[at..at + end], b"" | b"\r") {
            return at;
        }
        at += end + 1;
    }
    text.len()
}

/// The fields of a header section, each with the lines that continue it (RFC 5322 2.2.3).
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut end = 0;
        while let Some(line) = memchr(b'\n', &self.0[end..]) {
            end += line + 1;
            if !matches!(self.0.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        if end == 0 || (end < self.0.len() && matches!(self.0[end], b' ' | b'\t')) {
            end = self.0.len();
        }
        let (field, rest) = self.0.split_at(end);
        self.0 = rest;
        if field.is_empty() { None } else { Some(field) }
    }
}

/// The value of a field, if it has this name (given in lower case).
fn value_of<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = field.split_at_checked(name.len())?;
    if !found.eq_ignore_ascii_case(name) {
        return None;
    }
    // RFC 5322 4.5: blanks before the colon, as old software wrote them.
    rest.trim_ascii_start().strip_prefix(b":")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn message(text: &[u8]) -> Message {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.write_all(b"envelope, not the message's").unwrap();
        Message::open(file, text.len() as u64).unwrap()
    }

    fn copied(text: &[u8], top: &[u8]) -> Vec<u8> {
        let message = message(text);
        let mut copy = Copy::new(&message, top.to_vec());
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while copy.next_piece(&mut piece).unwrap() {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn fields_come_on_top_and_line_ends_are_lf() {
        let address = Mailbox::parse("alice@example.org", false).unwrap();
        let top = top(&ReversePath::Null, &address, b"Received: from x\r\n\tby y\r\n");
        let expected =
            "Return-Path: <>\nDelivered-To: alice@example.org\nReceived: from x\n\tby y\nA: b\n\nc\rd\n\r";
        assert_eq!(copied(b"A: b\r\n\r\nc\rd\r\n\r", &top), expected.as_bytes());
    }

    #[test]
    fn an_old_return_path_goes_from_the_header_only() {
        let text = b"Return-Path: <x@y>\r\nA: b\r\nRETURN-PATH : <x\r\n @y>\r\nReturn-Path2: z\r\n\r\nReturn-Path: <b>\r\n";
        assert_eq!(copied(text, b""), b"A: b\nReturn-Path2: z\n\nReturn-Path: <b>\n");
    }

    #[test]
    fn odd_messages_stay_what_they_are() {
        for text in
            [&b""[..], b"\n", b"no header", b" begins with a blank\nx", b"a\n b", b"\n\nReturn-Path: x"]
        {
            assert_eq!(copied(text, b""), text);
        }
        assert_eq!(copied(b"\r\n", b""), b"\n");
    }

    #[test]
    fn a_circle_is_seen() {
        let to = |text: &str| Mailbox::parse(text, false).unwrap();
        let text = b"Delivered-To: Bob@Example.org\r\nA: b\r\nDelivered-To:\r\n <carol@x>\r\n\r\nDelivered-To: dan@x\r\n";
        let message = message(text);
        assert!(message.was_delivered_to(&to("bob@example.org")));
        assert!(message.was_delivered_to(&to("carol@x")));
        assert!(!message.was_delivered_to(&to("dan@x")));
    }

    #[test]
    fn a_long_message_comes_in_blocks() {
        let mut text = b"Return-Path: x\r\nA: b\r\n\r\n".to_vec();
        while text.len() < 3 * BLOCK {
            text.extend_from_slice(b"a line of some length\r\n");
        }
        // The block's border falls between CR and LF.
        text.insert(24, b'x');
        while text[BLOCK - 1] != b'\r' {
            text.insert(24, b'x');
        }
        let expected = String::from_utf8(text.clone()).unwrap().replace("\r\n", "\n");
        assert_eq!(copied(&text, b"").len(), expected.len() - "Return-Path: x\n".len());
        assert!(expected.as_bytes().ends_with(&copied(&text, b"")));
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        assert_eq!(
            Message::open(tempfile::tempfile().unwrap(), 1).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost(parts in prop::collection::vec("[a\r\n :]{0,8}", 0..8)) {
            let text = parts.concat();
            prop_assert_eq!(copied(text.as_bytes(), b""), text.replace("\r\n", "\n").into_bytes());
        }

        #[test]
        fn pieces_join_as_if_they_were_one(text in "[a\r\n]{0,20}", cut in 0usize..20) {
            let cut = cut.min(text.len());
            let (mut joined, mut held_cr) = (Vec::new(), false);
            append_lf(&mut joined, &text.as_bytes()[..cut], &mut held_cr);
            append_lf(&mut joined, &text.as_bytes()[cut..], &mut held_cr);
            if held_cr {
                joined.push(b'\r');
            }
            prop_assert_eq!(joined, text.replace("\r\n", "\n").into_bytes());
        }
    }
}
