//! Reading the message: its header into memory, its body straight on.

use std::io::{self, BufRead, Read, Write};

use posta::mail::complete::MAX_HEADER;
use posta::mail::header::is_field;

/// A line is read in pieces of this size, so that an endless one needs no memory.
const PIECE: u64 = 64 * 1024;

/// Reads header lines up to the empty line (which is taken) or the first line that can't belong to a
/// header (which is given back as the body's beginning).
pub struct HeaderLines {
    /// Whole fields' lines, with their ends as they came.
    pub lines: Vec<Vec<u8>>,
    /// What was read already and belongs to the body.
    pub body_begins: Vec<u8>,
    /// The message has ended: at the end of stdin, or at a dot.
    pub ended: bool,
}

impl HeaderLines {
    /// Reads them. `None`: the header is longer than [`MAX_HEADER`].
    pub fn read(input: &mut impl BufRead, ignore_dots: bool) -> io::Result<Option<HeaderLines>> {
        let mut header = HeaderLines { lines: Vec::new(), body_begins: Vec::new(), ended: false };
        let mut left = MAX_HEADER as u64;
        loop {
            let mut line = Vec::new();
            let length = input.by_ref().take(left + 1).read_until(b'\n', &mut line)? as u64;
            if length > left {
                // A first line that is no field is body, however long.
                if header.lines.is_empty() && !is_field(&line) {
                    header.body_begins = line;
                    return Ok(Some(header));
                }
                return Ok(None);
            }
            left -= length;
            if length == 0 || (!ignore_dots && is_lone_dot(&line)) {
                header.ended = true;
                return Ok(Some(header));
            }
            if is_empty(&line) {
                return Ok(Some(header));
            }
            let continues = matches!(line[0], b' ' | b'\t') && !header.lines.is_empty();
            // A line of an mbox file's kind before the header is nobody's field.
            let is_from_line = header.lines.is_empty() && line.starts_with(b"From ") && !is_field(&line);
            if is_from_line {
                continue;
            }
            if !continues && !is_field(&line) {
                header.body_begins = line;
                return Ok(Some(header));
            }
            match header.lines.last_mut() {
                Some(field) if continues => field.extend_from_slice(&line),
                _ => header.lines.push(line),
            }
        }
    }
}

fn is_empty(line: &[u8]) -> bool {
    line.iter().all(|b| matches!(b, b'\r' | b'\n'))
}

fn is_lone_dot(line: &[u8]) -> bool {
    line.first() == Some(&b'.') && is_empty(&line[1..])
}

/// Copies the rest of stdin as posta-drop wants it: a dot more before a line that begins with one, and at
/// last a line with a dot alone. Unless `ignore_dots`, such a line ends the input too.
pub fn copy_body(
    begins: &[u8],
    input: &mut impl BufRead,
    ignore_dots: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut input = begins.chain(input);
    let mut at_start = true;
    let mut piece = Vec::new();
    loop {
        piece.clear();
        if input.by_ref().take(PIECE).read_until(b'\n', &mut piece)? == 0 {
            break;
        }
        if at_start && piece[0] == b'.' {
            if !ignore_dots && is_lone_dot(&piece) {
                break;
            }
            out.write_all(b".")?;
        }
        out.write_all(&piece)?;
        at_start = piece.ends_with(b"\n");
    }
    out.write_all(if at_start { b".\n" } else { b"\n.\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> (Vec<String>, String, bool, String) {
        let mut input = text.as_bytes();
        let read = HeaderLines::read(&mut input, false).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (read.lines.iter().map(|l| text(l)).collect(), text(&read.body_begins), read.ended, text(input))
    }

    #[test]
    fn header_and_body_are_told_apart() {
        let (lines, body, ended, rest) = header("A: 1\n\t2\r\nB : 3\r\n\r\nbody\n");
        assert_eq!((lines, body.as_str()), (vec!["A: 1\n\t2\r\n".to_string(), "B : 3\r\n".into()], ""));
        assert_eq!((ended, rest.as_str()), (false, "body\n"));
        let (lines, body, _, rest) = header("From x Mon\nA: 1\nno field\nB: 2\n");
        assert_eq!((lines.len(), body.as_str(), rest.as_str()), (1, "no field\n", "B: 2\n"));
        assert_eq!(header("From : x\nA: 1\n").0.len(), 2);
        assert!(header("A: 1\n").2);
        assert!(header("A: 1\n.\nrest").2);
        assert_eq!(header(" x\n").1, " x\n");
    }

    #[test]
    fn an_endless_header_is_refused_and_an_endless_first_line_is_body() {
        let long = format!("A: {}", "x".repeat(MAX_HEADER));
        assert!(HeaderLines::read(&mut long.as_bytes(), false).unwrap().is_none());
        let many = "A: x\n".repeat(MAX_HEADER / 4);
        assert!(HeaderLines::read(&mut many.as_bytes(), false).unwrap().is_none());
        let body = "x".repeat(MAX_HEADER * 2);
        let mut input = body.as_bytes();
        let read = HeaderLines::read(&mut input, false).unwrap().unwrap();
        assert_eq!(read.body_begins.len() + input.len(), body.len());
    }

    fn body(begins: &str, rest: &str, ignore_dots: bool) -> String {
        let mut out = Vec::new();
        copy_body(begins.as_bytes(), &mut rest.as_bytes(), ignore_dots, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dots_are_doubled_and_a_lone_one_ends() {
        assert_eq!(body("", "a\n.b\n..\nc", false), "a\n..b\n...\nc\n.\n");
        assert_eq!(body("a\n", "b\n.\nrest\n", false), "a\nb\n.\n");
        assert_eq!(body("", "b\r\n.\r\nrest\r\n", false), "b\r\n.\n");
        assert_eq!(body("", "b\n.\nrest\n", true), "b\n..\nrest\n.\n");
        assert_eq!(body("", "b\n.", false), "b\n.\n");
        assert_eq!(body("", "", false), ".\n");
        let long = ".".repeat(200_000);
        assert_eq!(body("", &long, false), format!(".{long}\n.\n"));
    }
}
