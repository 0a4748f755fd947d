//! The message of a job: our trace fields, then the first octets of its queue file, as they are or in
//! seven bits.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use posta::mail::convert::{Converter, Plan, Survey, Unfit};

/// Most octets that are read at once.
pub const BLOCK: usize = 32 * 1024;

/// A message. The file is shared with others, so it is only ever read at a given place.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Header fields to put on top.
    pub trace: &'a [u8],
    /// The queue file.
    pub file: &'a File,
    /// Octets of the message in the file, from its start.
    pub size: u64,
    /// How it goes out in seven bits; none if it goes as it is.
    pub converted: Option<Converted>,
}

/// What a message becomes for a server that takes seven bits only.
#[derive(Debug, Clone)]
pub struct Converted {
    /// What is done with each part.
    pub plan: Plan,
    /// Octets of the result.
    length: u64,
}

impl Message<'_> {
    /// Octets of the whole, as it goes out.
    pub fn length(&self) -> u64 {
        self.trace.len() as u64 + self.converted.as_ref().map_or(self.size, |converted| converted.length)
    }

    /// What goes out after the trace fields.
    pub fn content(&self) -> Content<'_> {
        let converter = self.converted.as_ref().map(|converted| Converter::new(&converted.plan));
        Content { message: self, at: 0, converter, out: Vec::new() }
    }

    /// The same message in seven bits. It is read twice: for what is to be done, and for its length.
    pub fn in_seven_bits(&self, block: &mut Vec<u8>) -> io::Result<Result<Self, Unfit>> {
        if !self.trace.is_ascii() {
            return Ok(Err(Unfit::Header));
        }
        let mut survey = Survey::new();
        let mut at = 0;
        while at < self.size {
            let read = self.read(at, block)?;
            survey.feed(read);
            at += read.len() as u64;
        }
        let plan = match survey.finish() {
            Ok(plan) => plan,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let mut message = Message { converted: Some(Converted { plan, length: 0 }), ..self.clone() };
        let (mut length, mut content) = (0, message.content());
        loop {
            let (octets, is_last) = content.next(block)?;
            length += octets.len() as u64;
            if is_last {
                break;
            }
        }
        if let Some(converted) = &mut message.converted {
            converted.length = length;
        }
        Ok(Ok(message))
    }

    /// Reads the block at `at` into `block`; an empty one is the end. A file shorter than it should
    /// be is an error.
    pub fn read<'b>(&self, at: u64, block: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        let length = usize::try_from(self.size.saturating_sub(at)).unwrap_or(BLOCK).min(BLOCK);
        if block.len() < length {
            block.resize(length, 0);
        }
        self.file.read_exact_at(&mut block[..length], at)?;
        Ok(&block[..length])
    }

    /// Whether any octet is above 127.
    pub fn is_eight_bit(&self, block: &mut Vec<u8>) -> io::Result<bool> {
        let mut at = 0;
        loop {
            let read = self.read(at, block)?;
            if read.is_empty() {
                return Ok(!self.trace.is_ascii());
            }
            if !read.is_ascii() {
                return Ok(true);
            }
            at += read.len() as u64;
        }
    }
}

/// The content of a message on its way out.
#[derive(Debug)]
pub struct Content<'m> {
    message: &'m Message<'m>,
    at: u64,
    converter: Option<Converter<'m>>,
    out: Vec<u8>,
}

impl Content<'_> {
    /// The next octets, and whether they are the last. `block` is for what is read.
    pub fn next<'b>(&'b mut self, block: &'b mut Vec<u8>) -> io::Result<(&'b [u8], bool)> {
        let read = self.message.read(self.at, block)?;
        self.at += read.len() as u64;
        let is_last = self.at >= self.message.size;
        let Some(converter) = &mut self.converter else { return Ok((read, is_last)) };
        self.out.clear();
        converter.feed(read, &mut self.out);
        if is_last && let Some(converter) = self.converter.take() {
            converter.finish(&mut self.out);
        }
        Ok((&self.out, is_last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_is_read_and_all_of_it() {
        let file = tempfile::tempfile().unwrap();
        let text = vec![b'x'; BLOCK + 10];
        file.write_all_at(&text, 0).unwrap();
        file.write_all_at("žluť".as_bytes(), text.len() as u64).unwrap();
        let message = |size| Message { trace: b"", file: &file, size, converted: None };
        let whole = message(text.len() as u64);
        let mut block = Vec::new();
        assert_eq!(whole.read(0, &mut block).unwrap().len(), BLOCK);
        assert_eq!(whole.read(BLOCK as u64, &mut block).unwrap().len(), 10);
        assert!(whole.read(whole.size, &mut block).unwrap().is_empty());
        assert!(!whole.is_eight_bit(&mut block).unwrap());
        assert!(message(whole.size + 2).is_eight_bit(&mut block).unwrap());
        assert!(message(whole.size + 20).read(BLOCK as u64, &mut block).is_err(), "the file is shorter");
    }

    #[test]
    fn a_large_message_is_converted_block_by_block() {
        let file = tempfile::tempfile().unwrap();
        let text = format!("Subject: s\r\n\r\n{}", "žluť\r\n".repeat(BLOCK));
        file.write_all_at(text.as_bytes(), 0).unwrap();
        let mut block = Vec::new();
        let message = Message { trace: b"X: y\r\n", file: &file, size: text.len() as u64, converted: None };
        let converted = message.in_seven_bits(&mut block).unwrap().unwrap();
        let (mut all, mut content) = (Vec::new(), converted.content());
        loop {
            let (octets, is_last) = content.next(&mut block).unwrap();
            assert!(octets.len() < 4 * BLOCK);
            all.extend_from_slice(octets);
            if is_last {
                break;
            }
        }
        assert!(all.is_ascii() && all.ends_with(b"=C5=BElu=C5=A5\r\n"));
        assert_eq!(converted.length(), all.len() as u64 + 6);
        assert_eq!(message.length(), text.len() as u64 + 6);
        let trace = Message { trace: "X: ž\r\n".as_bytes(), ..message };
        assert!(matches!(trace.in_seven_bits(&mut block), Ok(Err(Unfit::Header))));
    }
}
