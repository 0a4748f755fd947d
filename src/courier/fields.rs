//! The form of a packet: fields, each `name length:bytes` and a newline.

use std::str::FromStr;

use thiserror::Error;

/// Why a packet could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldError {
    /// The packet's bytes are not fields.
    #[error("malformed packet at byte {0}")]
    Malformed(usize),
    /// A field that must be there is not, or another stands in its place.
    #[error("field \"{0}\" is missing")]
    Missing(&'static str),
    /// A field's value can't be what it should be.
    #[error("field \"{0}\" has a bad value")]
    Value(&'static str),
    /// A packet grew beyond what one send carries.
    #[error("packet of {0} bytes is too long")]
    TooLong(usize),
}

/// Writes fields.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Adds a field.
    pub fn put(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(format!(" {}:", value.len()).as_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    /// Adds a field with a number or another short text.
    pub fn put_text(&mut self, name: &str, value: impl ToString) {
        self.put(name, value.to_string());
    }

    /// Adds a field if there is a value.
    pub fn put_some(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// The packet; an error if it is longer than `most`.
    pub fn finish(self, most: usize) -> Result<Vec<u8>, FieldError> {
        if self.bytes.len() > most { Err(FieldError::TooLong(self.bytes.len())) } else { Ok(self.bytes) }
    }

    /// How long the packet has become.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was put yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A field that was looked at.
struct Peeked<'a> {
    name: &'a str,
    value: &'a [u8],
    /// Where the next one begins.
    next: usize,
}

/// Reads fields in the order they were written.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `packet` from its start.
    pub fn new(packet: &'a [u8]) -> Reader<'a> {
        Reader { bytes: packet, at: 0 }
    }

    /// The next field, without taking it.
    fn peek(&self) -> Result<Option<Peeked<'a>>, FieldError> {
        let malformed = || FieldError::Malformed(self.at);
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let colon = memchr::memchr(b':', rest).ok_or_else(malformed)?;
        let head = std::str::from_utf8(&rest[..colon]).map_err(|_| malformed())?;
        let (name, length) = head.split_once(' ').ok_or_else(malformed)?;
        let length: usize = length.parse().map_err(|_| malformed())?;
        let start = colon + 1;
        let end = start.checked_add(length).filter(|end| *end < rest.len()).ok_or_else(malformed)?;
        if rest[end] != b'\n' {
            return Err(malformed());
        }
        Ok(Some(Peeked { name, value: &rest[start..end], next: self.at + end + 1 }))
    }

    /// The next field, if it is called `name`.
    pub fn optional(&mut self, name: &'static str) -> Result<Option<&'a [u8]>, FieldError> {
        match self.peek()? {
            Some(Peeked { name: found, value, next }) if found == name => {
                self.at = next;
                Ok(Some(value))
            }
            _ => Ok(None),
        }
    }

    /// The next field, which must be called `name`.
    pub fn bytes(&mut self, name: &'static str) -> Result<&'a [u8], FieldError> {
        self.optional(name)?.ok_or(FieldError::Missing(name))
    }

    /// The next field as text.
    pub fn text(&mut self, name: &'static str) -> Result<&'a str, FieldError> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| FieldError::Value(name))
    }

    /// The next field as text, if it is called `name`.
    pub fn optional_text(&mut self, name: &'static str) -> Result<Option<&'a str>, FieldError> {
        let value = self.optional(name)?;
        value.map(|v| std::str::from_utf8(v).map_err(|_| FieldError::Value(name))).transpose()
    }

    /// The next field as a number or the like.
    pub fn value<T: FromStr>(&mut self, name: &'static str) -> Result<T, FieldError> {
        self.text(name)?.parse().map_err(|_| FieldError::Value(name))
    }

    /// Whether all fields are read.
    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_read_back_and_lies_are_errors() {
        let mut w = Writer::default();
        w.put("a", b"x\ny:z");
        w.put_text("n", 7);
        let packet = w.finish(100).unwrap();
        assert_eq!(packet, b"a 5:x\ny:z\nn 1:7\n");
        let mut r = Reader::new(&packet);
        assert_eq!(r.optional("n").unwrap(), None);
        assert_eq!(r.bytes("a").unwrap(), b"x\ny:z");
        assert_eq!(r.value::<u32>("n").unwrap(), 7);
        assert!(r.is_done());
        assert_eq!(r.bytes("n"), Err(FieldError::Missing("n")));
        assert_eq!(Reader::new(b"a 9:x\n").bytes("a"), Err(FieldError::Malformed(0)));
        assert_eq!(Reader::new(b"a 99999999999999999999:x\n").bytes("a"), Err(FieldError::Malformed(0)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut r = Reader::new(&bytes);
            let _ = r.bytes("a");
        }
    }
}
