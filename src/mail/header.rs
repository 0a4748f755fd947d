//! The header section of a message (RFC 5322 2.2): its fields, where they lie, and how one is
//! written.
//!
//! Nothing is judged here and nothing is decoded: a field is found by its name and shown as it
//! stands. Lines may end in CR LF, as they do in the spool, or in LF, as `sendmail` gets them. A line
//! that is no field is passed over. All is done in one pass over what is given.

use memchr::memchr;

/// Octets that a line should not exceed (RFC 5322 2.1.1), without its line end.
const LINE_WANTED: usize = 78;

/// A field, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name as written.
    pub name: &'a [u8],
    /// What follows the colon, folded as it was, without the last line end.
    pub value: &'a [u8],
    /// All of it, with its line ends.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether this is its name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value in one line, without blanks around it (RFC 5322 2.2.3). Octets that are no UTF-8
    /// become U+FFFD.
    pub fn text(&self) -> String {
        let unfolded: Vec<u8> = self.value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        String::from_utf8_lossy(unfolded.trim_ascii()).into_owned()
    }
}

/// The fields at the start of `message`, in order, up to the empty line.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// The first field of that name.
pub fn find<'a>(message: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(message).find(|field| field.is(name))
}

/// Splits a message into its header section and its body; the empty line between them belongs to
/// neither. Without one, all is header.
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < message.len() {
        let line = line_at(&message[at..]);
        if is_empty_line(line) {
            return (&message[..at], &message[at + line.len()..]);
        }
        at += line.len();
    }
    (message, b"")
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let first = line_at(self.rest);
            if first.is_empty() || is_empty_line(first) {
                return None;
            }
            let mut length = first.len();
            // RFC 5322 2.2.3: a line that begins with a blank belongs to the one before.
            while let [b' ' | b'\t', ..] = self.rest[length..] {
                length += line_at(&self.rest[length..]).len();
            }
            let (raw, rest) = self.rest.split_at(length);
            self.rest = rest;
            if let Some(field) = field(raw) {
                return Some(field);
            }
        }
    }
}

/// Whether a line begins a field: a name of printable characters and a colon.
pub fn is_field(line: &[u8]) -> bool {
    field(line).is_some()
}

fn field(raw: &[u8]) -> Option<Field<'_>> {
    let colon = memchr(b':', raw)?;
    // RFC 5322 4.5.3: blanks before the colon are obsolete, and there.
    let name = raw[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let value = raw[colon + 1..].strip_suffix(b"\n").unwrap_or(&raw[colon + 1..]);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    Some(Field { name, value, raw })
}

/// The line at the start of `text`, with its end.
fn line_at(text: &[u8]) -> &[u8] {
    memchr(b'\n', text).map_or(text, |end| &text[..=end])
}

fn is_empty_line(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

/// Appends a field, folded at its blanks where it is long (several in a row become one), with CR LF
/// at the end. The value can't
/// break out of it: control characters, line ends among them, become blanks.
pub fn write(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut column = name.len() + 1;
    let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut first = true;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        // A fold right after the colon would make a line of nothing but blanks of some fields.
        if !first && column + 1 + word.len() > LINE_WANTED {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
        column += 1 + word.len();
        first = false;
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &[u8] =
        b"From x@y Mon\r\nReceived: from a\r\n\tby b\r\nsubject : one\r\n two\r\nMESSAGE-ID:<1@x>\r\n\
        no field\r\nEmpty:\r\n\r\nSubject: body\r\n";

    #[test]
    fn fields_are_found_where_they_lie() {
        let names: Vec<&[u8]> = fields(MESSAGE).map(|f| f.name).collect();
        assert_eq!(names, [&b"Received"[..], b"subject", b"MESSAGE-ID", b"Empty"]);
        let subject = find(MESSAGE, "Subject").unwrap();
        assert_eq!(subject.raw, b"subject : one\r\n two\r\n");
        assert_eq!(subject.value, b" one\r\n two");
        assert_eq!(subject.text(), "one two");
        assert_eq!(find(MESSAGE, "Message-Id").unwrap().text(), "<1@x>");
        assert_eq!(find(MESSAGE, "To"), None);
    }

    #[test]
    fn line_ends_of_unix_will_do() {
        let message = b"A: 1\nB: 2\n 3\n\nbody\n";
        let texts: Vec<String> = fields(message).map(|f| f.text()).collect();
        assert_eq!(texts, ["1", "2 3"]);
        assert_eq!(split(message), (&b"A: 1\nB: 2\n 3\n"[..], &b"body\n"[..]));
    }

    #[test]
    fn a_message_may_be_all_header_or_all_body() {
        assert_eq!(split(b"A: 1\r\n"), (&b"A: 1\r\n"[..], &b""[..]));
        assert_eq!(split(b"\r\nx"), (&b""[..], &b"x"[..]));
        assert_eq!(fields(b"").count() + fields(b"\r\nA: 1\r\n").count(), 0);
        assert_eq!(fields(b"A: 1").count(), 1);
    }

    #[test]
    fn long_values_are_folded_and_bad_ones_tamed() {
        let mut out = Vec::new();
        write(&mut out, "Subject", &"word ".repeat(40));
        write(&mut out, "X-Bad", "a\r\nBcc: b@c\0");
        assert_eq!(fields(&out).count(), 2);
        assert!(out.split(|b| *b == b'\n').all(|line| line.len() <= LINE_WANTED + 1));
        assert_eq!(find(&out, "subject").unwrap().text(), "word ".repeat(40).trim());
        assert_eq!(find(&out, "x-bad").unwrap().text(), "a Bcc: b@c");
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(value in "\\PC{0,300}", name in "[A-Za-z-]{1,20}") {
            let mut out = Vec::new();
            write(&mut out, &name, &value);
            let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).map(str::to_string).collect::<Vec<_>>();
            let found: Vec<Field> = fields(&out).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(words(&found[0].text()), words(&value));
        }

        #[test]
        fn fields_and_what_is_between_make_the_section(message in "([a-c: \\t]{0,5}(\\r\\n|\\n)){0,8}") {
            let (header, body) = split(message.as_bytes());
            let of_fields: usize = fields(message.as_bytes()).map(|f| f.raw.len()).sum();
            prop_assert!(of_fields <= header.len());
            prop_assert!(header.len() + body.len() <= message.len());
        }
    }
}
