//! The envelope at the head of stdin: one line for each word, in this order, then an empty line.
//!
//! ```text
//! sender alice@example.org      (or nothing after the word: the null sender)
//! envid QQ314159                (RFC 3461 4.4, in xtext)
//! ret HDRS                      (or FULL; RFC 3461 4.3)
//! to bob@example.net            (for each recipient)
//! notify SUCCESS,DELAY          (wishes of the recipient above; RFC 3461 4.1)
//! ```
//!
//! On stdin and not on the command line, since every user of a host can read the latter, and blind
//! copies are nobody's business.

use std::io::{self, BufRead, Read};

use thiserror::Error;

use posta::mail::address::{AddressError, Mailbox, ReversePath};
use posta::mail::envelope::{Notify, Recipient, Ret};

use posta::courier::drop::Submission;

/// Most bytes of a line: an address has at most 256, an ENVID 100.
const MAX_LINE: u64 = 1024;
/// Most bytes of all lines together.
const MAX_HEAD: usize = 4 * 1024 * 1024;

/// What is wrong with the envelope.
#[derive(Debug, Error)]
pub enum HeadError {
    #[error("can't read stdin: {0}")]
    Io(#[from] io::Error),
    #[error("the envelope ends before its empty line; nothing is submitted")]
    Cut,
    #[error("the envelope is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("line {0} of the envelope: unknown word, or not in its place")]
    Word(usize),
    #[error("line {0} of the envelope: {1}")]
    Address(usize, AddressError),
    #[error("line {0} of the envelope: bad value")]
    Value(usize),
    #[error("the envelope names no recipient")]
    NoRecipient,
}

/// Reads the lines up to the empty one.
pub fn read(input: &mut impl BufRead) -> Result<Submission, HeadError> {
    let mut head = Submission { sender: ReversePath::Null, envid: None, ret: None, recipients: Vec::new() };
    let mut has_sender = false;
    let mut total = 0;
    for number in 1.. {
        let line = read_line(input, number)?;
        total += line.len();
        if total > MAX_HEAD {
            return Err(HeadError::TooLong);
        }
        let (word, value) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "" if !has_sender => return Err(HeadError::Word(number)),
            "" => break,
            "sender" if !has_sender => {
                head.sender = ReversePath::parse(value, true).map_err(|e| HeadError::Address(number, e))?;
                has_sender = true;
            }
            _ if !has_sender => return Err(HeadError::Word(number)),
            _ => take(&mut head, word, value, number)?,
        }
    }
    if head.recipients.is_empty() { Err(HeadError::NoRecipient) } else { Ok(head) }
}

/// Takes one line after that of the sender.
fn take(head: &mut Submission, word: &str, value: &str, number: usize) -> Result<(), HeadError> {
    match word {
        "to" => {
            let address = Mailbox::parse(value, true).map_err(|e| HeadError::Address(number, e))?;
            head.recipients.push(Recipient::plain(address));
        }
        "notify" => {
            let recipient = head.recipients.last_mut().ok_or(HeadError::Word(number))?;
            recipient.notify = Notify::parse(value).ok_or(HeadError::Value(number))?;
        }
        "envid" if head.recipients.is_empty() && is_xtext(value) => head.envid = Some(value.to_string()),
        "ret" if head.recipients.is_empty() => {
            head.ret = match value {
                "FULL" => Some(Ret::Full),
                "HDRS" => Some(Ret::Headers),
                _ => return Err(HeadError::Value(number)),
            }
        }
        "envid" => return Err(HeadError::Value(number)),
        _ => return Err(HeadError::Word(number)),
    }
    Ok(())
}

/// RFC 3461 4 and 4.4: printable, without blanks, `+` only before two digits; at most 100 characters.
fn is_xtext(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
    let fits = |(at, &b): (usize, &u8)| match b {
        b'+' => is_hex(at + 1) && is_hex(at + 2),
        b'=' => false,
        _ => b.is_ascii_graphic(),
    };
    (1..=100).contains(&bytes.len()) && bytes.iter().enumerate().all(fits)
}

/// One line without its end.
fn read_line(input: &mut impl BufRead, number: usize) -> Result<String, HeadError> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(if line.len() as u64 >= MAX_LINE - 1 {
            HeadError::Value(number)
        } else {
            HeadError::Cut
        });
    }
    String::from_utf8(line).map_err(|_| HeadError::Value(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Submission, HeadError> {
        read(&mut text.as_bytes())
    }

    #[test]
    fn an_envelope_is_read_and_the_message_left() {
        let text = "sender a@x\nenvid Q+2BQ\nret HDRS\nto b@y\nnotify NEVER\nto c@z\n\nrest";
        let mut input = text.as_bytes();
        let head = read(&mut input).unwrap();
        assert_eq!(input, b"rest");
        assert_eq!((head.sender.to_string().as_str(), head.ret), ("a@x", Some(Ret::Headers)));
        assert_eq!(head.envid.as_deref(), Some("Q+2BQ"));
        assert_eq!(head.recipients.len(), 2);
        assert!(!head.recipients[0].notify.wants_failure() && head.recipients[1].notify.wants_failure());
        assert_eq!(read_text("sender\nto b@y\n\n").unwrap().sender, ReversePath::Null);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let said = |text: &str| read_text(text).unwrap_err().to_string();
        assert_eq!(said("to b@y\n\n"), "line 1 of the envelope: unknown word, or not in its place");
        assert_eq!(said("sender\n\n"), "the envelope names no recipient");
        assert_eq!(said("sender\nto bob\n\n"), "line 2 of the envelope: no domain");
        assert_eq!(said("sender\nto b@y\r\n\n"), "line 2 of the envelope: malformed domain");
        assert_eq!(
            said("sender\nto b@y\nret HDRS\n\n"),
            "line 3 of the envelope: unknown word, or not in its place"
        );
        assert_eq!(said("sender\nenvid a b\n\n"), "line 2 of the envelope: bad value");
        assert_eq!(
            said(&format!("sender\nto {}@y\n\n", "a".repeat(2000))),
            "line 2 of the envelope: bad value"
        );
        assert!(matches!(read_text("sender\nto b@y\n"), Err(HeadError::Cut)));
        assert!(matches!(read_text("sender\nto b@y"), Err(HeadError::Cut)));
    }
}
