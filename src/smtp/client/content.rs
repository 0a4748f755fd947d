//! A message in the form in which it goes over the wire.
//!
//! Every line ends in CRLF and nothing else (RFC 5321 2.3.8), a leading dot is doubled, and a dot
//! alone comes last (RFC 5321 4.5.2). What is spooled has CRLF already; should a bare CR or LF be
//! in it all the same, it becomes a CRLF, so that it can't be read as an end of data further on. In
//! chunks (RFC 3030 2) nothing is said about dots, and there is no last one.

use memchr::memchr2_iter;

/// Puts a message into wire form, block by block.
#[derive(Debug)]
pub struct Stuffer {
    /// What has gone out ends in CRLF, or nothing has.
    at_line_start: bool,
    /// The last block ended in CR; what it means depends on the next octet.
    held_cr: bool,
    /// Dots are doubled, and one ends the message.
    dots: bool,
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer { at_line_start: true, held_cr: false, dots: true }
    }
}

impl Stuffer {
    /// For chunks.
    pub fn without_dots() -> Stuffer {
        Stuffer { dots: false, ..Stuffer::default() }
    }

    /// Appends the wire form of the next block to `out`.
    pub fn push(&mut self, mut block: &[u8], out: &mut Vec<u8>) {
        if self.held_cr && !block.is_empty() {
            self.held_cr = false;
            block = block.strip_prefix(b"\n").unwrap_or(block);
            self.end_line(out);
        }
        let mut from = 0;
        let mut ends = memchr2_iter(b'\r', b'\n', block);
        while let Some(at) = ends.next() {
            self.text(&block[from..at], out);
            from = at + 1;
            if block[at] == b'\r' {
                match block.get(from) {
                    None => {
                        self.held_cr = true;
                        return;
                    }
                    Some(b'\n') => {
                        ends.next();
                        from += 1;
                    }
                    Some(_) => {}
                }
            }
            self.end_line(out);
        }
        self.text(&block[from..], out);
    }

    /// Appends what ends the message: the end of an unfinished line, and the dot, if there is one.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.held_cr || !self.at_line_start {
            self.end_line(out);
        }
        if self.dots {
            out.extend_from_slice(b".\r\n");
        }
    }

    /// Part of a line.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.at_line_start && self.dots && text[0] == b'.' {
            out.push(b'.');
        }
        self.at_line_start = false;
        out.extend_from_slice(text);
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.at_line_start = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuffed(blocks: &[&[u8]]) -> String {
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for block in blocks {
            stuffer.push(block, &mut out);
        }
        stuffer.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn leading_dots_are_doubled_and_the_end_is_a_dot() {
        assert_eq!(stuffed(&[b""]), ".\r\n");
        assert_eq!(stuffed(&[b"."]), "..\r\n.\r\n");
        assert_eq!(stuffed(&[b".\r\n..\r\n.x\r\na.\r\n"]), "..\r\n...\r\n..x\r\na.\r\n.\r\n");
        assert_eq!(stuffed(&[b"no end"]), "no end\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r\n", b".b\r", b"\n.", b".c"]), "a\r\n..b\r\n...c\r\n.\r\n");
    }

    #[test]
    fn no_bare_line_end_goes_out() {
        assert_eq!(stuffed(&[b"a\n.\nb\r.\rc"]), "a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r\r\nb\r"]), "a\r\n\r\nb\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r", b"b\n", b"\n"]), "a\r\nb\r\n\r\n.\r\n");
    }

    #[test]
    fn in_chunks_a_dot_is_a_dot() {
        let mut stuffer = Stuffer::without_dots();
        let mut out = Vec::new();
        stuffer.push(b".\r\n..x\ny", &mut out);
        stuffer.finish(&mut out);
        assert_eq!(out, b".\r\n..x\r\ny\r\n");
    }

    /// What a receiver makes of it (RFC 5321 4.5.2).
    fn undone(wire: &str) -> String {
        let body = wire.strip_suffix(".\r\n").unwrap();
        let lines = body.split_inclusive("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line));
        lines.collect()
    }

    proptest! {
        #[test]
        fn a_receiver_gets_back_what_was_sent(text in "([.ab]{0,3}\r\n){0,6}", cuts in prop::collection::vec(0usize..40, 0..4)) {
            let mut blocks = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (block, after) = rest.split_at(cut.min(rest.len()));
                blocks.push(block);
                rest = after;
            }
            blocks.push(rest);
            let wire = stuffed(&blocks);
            prop_assert_eq!(wire.find("\r\n.\r\n").map_or(3, |at| at + 5), wire.len(), "one end of data");
            prop_assert_eq!(undone(&wire), text);
        }

        #[test]
        fn whatever_comes_in_only_crlf_goes_out(bytes in prop::collection::vec(prop::sample::select(b"\r\n.a".to_vec()), 0..30)) {
            let wire = stuffed(&[&bytes]);
            let without = wire.replace("\r\n", "");
            prop_assert!(!without.contains(['\r', '\n']));
            prop_assert_eq!(wire.find("\r\n.\r\n").map_or(3, |at| at + 5), wire.len());
        }
    }
}
