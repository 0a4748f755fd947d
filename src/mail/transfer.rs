//! Writing content in seven bits: quoted-printable and base64 (RFC 2045 6.7, 6.8), as it streams by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Most characters of an encoded line (RFC 2045 6.7 rule 5, 6.8).
const LINE: usize = 76;
/// So many octets make a full line of base64.
const GROUP: usize = LINE / 4 * 3;

/// Quoted-printable. CR LF in the content is a line's end, and stays one.
#[derive(Debug, Default)]
pub struct QuotedPrintable {
    column: usize,
    /// A blank that is to be encoded if a line end follows.
    blank: Option<u8>,
    /// The content is quoted-printable already, but has octets that don't belong there: only these are
    /// encoded.
    is_repair: bool,
}

impl QuotedPrintable {
    /// An encoder for content that is said to be quoted-printable, and is not quite.
    pub fn repairing() -> QuotedPrintable {
        QuotedPrintable { is_repair: true, ..QuotedPrintable::default() }
    }

    /// Encodes a piece that does not begin or end between CR and LF.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while let Some((&octet, after)) = rest.split_first() {
            if rest.starts_with(b"\r\n") {
                self.end_line(out);
                rest = &rest[2..];
                continue;
            }
            rest = after;
            if let Some(blank) = self.blank.take() {
                self.plain(blank, out);
            }
            match octet {
                b' ' | b'\t' if !self.is_repair => self.blank = Some(octet),
                b'=' if !self.is_repair => self.coded(octet, out),
                b'-' => self.hyphen(out),
                b'!'..=b'~' | b' ' | b'\t' => self.plain(octet, out),
                _ => self.coded(octet, out),
            }
        }
    }

    /// The content is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(blank) = self.blank.take() {
            self.coded(blank, out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        // RFC 2045 6.7 rule 3: no blank at the end of a line.
        self.finish(out);
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }

    fn plain(&mut self, octet: u8, out: &mut Vec<u8>) {
        if !self.is_repair {
            self.make_room(1, out);
        }
        out.push(octet);
        self.column += 1;
    }

    /// A line must not become a delimiter (RFC 2046 5.1.1) by what is written here, so none begins with
    /// `--`.
    fn hyphen(&mut self, out: &mut Vec<u8>) {
        let would_begin = self.column == 0 || (!self.is_repair && self.column + 1 > LINE - 1);
        if would_begin { self.coded(b'-', out) } else { self.plain(b'-', out) }
    }

    fn coded(&mut self, octet: u8, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        self.make_room(3, out);
        out.extend_from_slice(&[b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
        self.column += 3;
    }

    /// Rule 5: a soft line break where the line would grow too long.
    fn make_room(&mut self, width: usize, out: &mut Vec<u8>) {
        if self.column + width > LINE - 1 {
            out.extend_from_slice(b"=\r\n");
            self.column = 0;
        }
    }
}

/// Base64, in full lines.
#[derive(Debug, Default)]
pub struct Base64 {
    /// Less than a line's.
    rest: Vec<u8>,
}

impl Base64 {
    /// Encodes a piece.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut piece = piece;
        if !self.rest.is_empty() {
            let (fits, after) = piece.split_at(piece.len().min(GROUP - self.rest.len()));
            self.rest.extend_from_slice(fits);
            piece = after;
            if self.rest.len() < GROUP {
                return;
            }
            put_line(&self.rest, out);
            self.rest.clear();
        }
        let groups = piece.chunks_exact(GROUP);
        self.rest.extend_from_slice(groups.remainder());
        groups.for_each(|group| put_line(group, out));
    }

    /// The content is over: what is left makes a last line.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            put_line(&self.rest, out);
            self.rest.clear();
        }
    }
}

fn put_line(group: &[u8], out: &mut Vec<u8>) {
    let mut line = [0; LINE];
    // A group's line fits.
    let length = STANDARD.encode_slice(group, &mut line).unwrap_or_default();
    out.extend_from_slice(&line[..length]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(pieces: &[&[u8]], mut coder: QuotedPrintable) -> String {
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| coder.push(piece, &mut out));
        coder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn decoded(text: &str) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find('=') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let code = &rest[at + 1..at + 3];
            out.extend((code != "\r\n").then(|| u8::from_str_radix(code, 16).unwrap()));
            rest = &rest[at + 3..];
        }
        [&out[..], rest.as_bytes()].concat()
    }

    #[test]
    fn quoted_printable_is_as_the_rfc_has_it() {
        let coded = |text: &str| quoted(&[text.as_bytes()], QuotedPrintable::default());
        assert_eq!(coded("ä=b \r\nc\td\r\n"), "=C3=A4=3Db=20\r\nc\td\r\n");
        assert_eq!(coded("a\rb\nc\0"), "a=0Db=0Ac=00");
        assert_eq!(coded("end "), "end=20");
        assert_eq!(coded("--b\r\n-"), "=2D-b\r\n=2D");
        assert_eq!(coded(&format!("{}--b", "x".repeat(75))), format!("{}=\r\n=2D-b", "x".repeat(75)));
        assert_eq!(coded(&"x".repeat(100)), format!("{}=\r\n{}", "x".repeat(75), "x".repeat(25)));
        assert_eq!(quoted(&[b"a ", b"\r\n", b" ", b"b"], QuotedPrintable::default()), "a=20\r\n b");
    }

    #[test]
    fn what_is_quoted_already_is_only_repaired() {
        let text = "=C3=A4 = soft=\r\n\u{e4}  \r\n";
        let repaired = quoted(&[text.as_bytes()], QuotedPrintable::repairing());
        assert_eq!(repaired, "=C3=A4 = soft=\r\n=C3=A4  \r\n");
        let long = format!("{}\u{e4}", "x".repeat(80));
        assert_eq!(
            quoted(&[long.as_bytes()], QuotedPrintable::repairing()),
            format!("{}=\r\n=C3=A4", "x".repeat(80))
        );
    }

    proptest! {
        #[test]
        fn both_give_back_what_they_were_given(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..6),
        ) {
            let whole = pieces.concat();
            let mut coder = Base64::default();
            let mut coded = Vec::new();
            pieces.iter().for_each(|piece| coder.push(piece, &mut coded));
            coder.finish(&mut coded);
            let lines: Vec<&[u8]> = coded.split(|b| *b == b'\n').collect();
            prop_assert!(lines.iter().all(|line| line.len() <= LINE + 1));
            coded.retain(|b| !b"\r\n".contains(b));
            prop_assert_eq!(STANDARD.decode(&coded).unwrap(), whole.clone());

            let text = quoted(&[&whole], QuotedPrintable::default());
            prop_assert!(text.is_ascii() && text.split("\r\n").all(|line| line.len() <= LINE && !line.ends_with(' ')));
            prop_assert_eq!(decoded(&text), whole);
        }
    }
}
