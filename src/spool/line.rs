//! A value on a line: whatever its bytes are, it ends neither the line nor, as a word, itself.
//!
//! A backslash stands before `\`, `n` (LF), `r` (CR) and `xHH` (another control character); in a
//! word also before `s` (space), and `\e` is the empty word. All else, UTF-8 too, stands for itself.

use std::borrow::Cow;
use std::io::Write;

/// Adds a value that goes to the end of its line.
pub(super) fn put_rest(out: &mut Vec<u8>, value: &[u8]) {
    put(out, value, false);
}

/// Adds a value that others follow on the same line.
pub(super) fn put_word(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        out.extend_from_slice(b"\\e");
    }
    put(out, value, true);
}

fn put(out: &mut Vec<u8>, value: &[u8], is_word: bool) {
    let plain = |b: u8| b > b' ' && b != 0x7f && b != b'\\' || b == b' ' && !is_word;
    let mut rest = value;
    while let Some(at) = rest.iter().position(|b| !plain(*b)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b' ' => out.extend_from_slice(b"\\s"),
            // Writing to a Vec can't fail.
            other => drop(write!(out, "\\x{other:02x}")),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Reads a value of either kind back; `None` if nothing above has written it.
pub(super) fn read(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(first) = memchr::memchr(b'\\', text) else {
        return Some(Cow::Borrowed(text));
    };
    let mut value = text[..first].to_vec();
    let mut bytes = text[first..].iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next()? {
            b'\\' => value.push(b'\\'),
            b'n' => value.push(b'\n'),
            b'r' => value.push(b'\r'),
            b's' => value.push(b' '),
            b'e' if text.len() == 2 => {}
            b'x' => value.push((digit(bytes.next()?)? << 4) | digit(bytes.next()?)?),
            _ => return None,
        }
    }
    Some(Cow::Owned(value))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_are_those_of_the_manual() {
        let mut out = Vec::new();
        put_word(&mut out, b"a b\\");
        out.push(b' ');
        put_word(&mut out, b"");
        out.push(b' ');
        put_rest(&mut out, "ä b\r\n\0\x7f".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "a\\sb\\\\ \\e ä b\\r\\n\\x00\\x7f");
        for bad in [&b"\\"[..], b"\\q", b"\\x0", b"\\x0G", b"a\\e"] {
            assert_eq!(read(bad), None);
        }
    }

    proptest! {
        #[test]
        fn values_read_back_and_never_break_a_line(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let (mut rest, mut word) = (Vec::new(), Vec::new());
            put_rest(&mut rest, &value);
            put_word(&mut word, &value);
            prop_assert!(!rest.contains(&b'\n') && !word.contains(&b'\n') && !word.contains(&b' '));
            prop_assert!(!word.is_empty());
            prop_assert_eq!(&read(&rest).unwrap()[..], &value[..]);
            prop_assert_eq!(&read(&word).unwrap()[..], &value[..]);
        }

        #[test]
        fn nothing_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&text);
        }
    }
}
