//! A queue file: the message, the envelope, the trailer.
//!
//! ```text
//! Subject: hello\r\n … the message, byte for byte …
//! sender alice@example.org
//! arrived 1795550000000000
//! …
//! to bob@example.net
//! posta-1 ID______________ OFFSET__________ CRC_____
//! ```
//!
//! The envelope is text, one field a line (`line.rs` keeps it so); the trailer has a
//! fixed length: version, id (so that nothing can pass for another message), where the envelope
//! begins, and the CRC-32C of every byte before the CRC itself.

use std::borrow::Cow;
use std::io::Write;
use std::str::FromStr;

use thiserror::Error;

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::{BodyKind, Envelope, Notify, Origin, Recipient, Ret};
use crate::mail::id::Id;

use super::line;

/// The trailer's first word. Another version of the format gets another number.
const VERSION: &[u8] = b"posta-1 ";
/// Length of the trailer without its CRC and end of line.
const HEAD: usize = VERSION.len() + 16 + 1 + 16 + 1;
/// Length of the trailer.
pub const TRAILER: usize = HEAD + 8 + 1;
/// Most bytes of an envelope: about 20,000 recipients of the greatest length.
pub const MAX_ENVELOPE: usize = 16 << 20;

/// Why a queue file is unsound, or could not be written so that it would be sound.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// There is no trailer where it should be.
    #[error("no trailer at the end")]
    NoTrailer,
    /// The trailer is of another message.
    #[error("the trailer is that of {0}")]
    Id(String),
    /// The trailer's offset leads nowhere.
    #[error("no envelope at byte {0}")]
    Offset(u64),
    /// The bytes are not those that were written.
    #[error("its checksum is {found:08x}, not {wanted:08x}")]
    Crc {
        /// Of the bytes that are there.
        found: u32,
        /// Of the trailer.
        wanted: u32,
    },
    /// A field that must be there is not, or another stands in its place.
    #[error("envelope field \"{0}\" is missing")]
    Missing(&'static str),
    /// A field's value can't be what it should be.
    #[error("envelope field \"{0}\" has a bad value")]
    Value(&'static str),
    /// More than any envelope needs.
    #[error("envelope of {0} bytes is too long")]
    TooLong(u64),
}

/// What a trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the envelope begins, and so the length of the message.
    pub offset: u64,
    /// CRC-32C of all before its last word.
    pub crc: u32,
}

/// Adds the trailer. `crc` is that of all that is in the file before it.
pub fn put_trailer(out: &mut Vec<u8>, id: Id, offset: u64, crc: u32) {
    let start = out.len();
    out.extend_from_slice(VERSION);
    // Writing to a Vec can't fail.
    drop(write!(out, "{id:<16} {offset:016x} "));
    let crc = crc32c::crc32c_append(crc, &out[start..]);
    drop(writeln!(out, "{crc:08x}"));
}

/// Reads the last bytes of a file, [`TRAILER`] of them. `crc` is that of all before them; `None`: it is
/// not to be compared.
pub fn read_trailer(bytes: &[u8], id: Id, crc: Option<u32>) -> Result<Trailer, FormatError> {
    let (head, end) = bytes.split_at_checked(HEAD).ok_or(FormatError::NoTrailer)?;
    let head_text = head.strip_prefix(VERSION).and_then(|h| std::str::from_utf8(h).ok());
    let named = head_text.ok_or(FormatError::NoTrailer)?.split_at_checked(16);
    let (owner, offset) = named.ok_or(FormatError::NoTrailer)?;
    let wanted = end.strip_suffix(b"\n").and_then(hex).ok_or(FormatError::NoTrailer)? as u32;
    let offset = offset.strip_prefix(' ').and_then(|o| o.strip_suffix(' ')).map(str::as_bytes);
    let offset = offset.and_then(hex).ok_or(FormatError::NoTrailer)?;
    let found = crc.map(|crc| crc32c::crc32c_append(crc, head));
    if let Some(found) = found.filter(|found| *found != wanted) {
        return Err(FormatError::Crc { found, wanted });
    }
    if owner.trim_end() != id.as_str() {
        return Err(FormatError::Id(owner.trim_end().to_string()));
    }
    Ok(Trailer { offset, crc: wanted })
}

/// Lower case only: there is one way to write a number.
fn hex(digits: &[u8]) -> Option<u64> {
    let digit = |d: &u8| matches!(d, b'0'..=b'9' | b'a'..=b'f');
    let digits = Some(digits).filter(|d| (1..=16).contains(&d.len()) && d.iter().all(digit))?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Adds the envelope. An error if it could not be read back.
pub fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) -> Result<(), FormatError> {
    let start = out.len();
    if let Some(sender) = envelope.sender.mailbox() {
        put_mailbox(out, "sender", sender)?;
    } else {
        put(out, "sender", b"");
    }
    put_text(out, "arrived", envelope.arrived);
    put_origin(out, &envelope.origin);
    put(out, "body", body_word(envelope.body));
    if envelope.utf8 {
        put(out, "utf8", b"yes");
    }
    if envelope.require_tls {
        put(out, "require-tls", b"yes");
    }
    if let Some(ret) = envelope.ret {
        put(out, "ret", if ret == Ret::Full { b"FULL" } else { b"HDRS" });
    }
    put_some(out, "envid", envelope.envid.as_ref());
    for field in envelope.trace.split_inclusive(|b| *b == b'\n') {
        put(out, "trace", field);
    }
    for recipient in &envelope.recipients {
        put_mailbox(out, "to", &recipient.address)?;
        put_some(out, "notify", recipient.notify.keyword());
        put_some(out, "orcpt", recipient.original.as_ref());
    }
    let length = out.len() - start;
    if length > MAX_ENVELOPE { Err(FormatError::TooLong(length as u64)) } else { Ok(()) }
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    match origin {
        Origin::Client { address, helo, protocol, login } => {
            put(out, "origin", b"client");
            put_some(out, "address", address.map(|a| a.to_string()));
            put(out, "helo", helo.as_bytes());
            put(out, "protocol", protocol.as_bytes());
            put_some(out, "login", login.as_ref());
        }
        Origin::User { uid, name } => {
            put(out, "origin", b"user");
            put_text(out, "uid", uid);
            put(out, "name", name.as_bytes());
        }
        Origin::Posta => put(out, "origin", b"posta"),
        Origin::DoubleBounce => put(out, "origin", b"double-bounce"),
    }
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    line::put_rest(out, value);
    out.push(b'\n');
}

/// Of values that need no escapes.
fn put_text(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    // Writing to a Vec can't fail.
    drop(writeln!(out, "{name} {value}"));
}

fn put_some(out: &mut Vec<u8>, name: &str, value: Option<impl AsRef<str>>) {
    if let Some(value) = value {
        put(out, name, value.as_ref().as_bytes());
    }
}

fn put_mailbox(out: &mut Vec<u8>, name: &'static str, mailbox: &Mailbox) -> Result<(), FormatError> {
    let text = mailbox.to_string();
    // Not every UTF-8 address is its own canonical form (a domain can grow when it is lowered), and
    // what can't be read back must not be acknowledged.
    if !text.is_ascii() && Mailbox::parse(&text, true).as_ref() != Ok(mailbox) {
        return Err(FormatError::Value(name));
    }
    put(out, name, text.as_bytes());
    Ok(())
}

/// Reads an envelope.
pub fn read_envelope(text: &[u8]) -> Result<Envelope, FormatError> {
    let mut lines = Lines { rest: text };
    let sender =
        ReversePath::parse(&lines.text("sender")?, true).map_err(|_| FormatError::Value("sender"))?;
    let arrived = lines.number("arrived")?;
    let origin = read_origin(&mut lines)?;
    let body = body_kind(&lines.bytes("body")?).ok_or(FormatError::Value("body"))?;
    let utf8 = lines.optional("utf8")?.is_some();
    let require_tls = lines.optional("require-tls")?.is_some();
    let ret = match lines.optional("ret")?.as_deref() {
        None => None,
        Some(b"FULL") => Some(Ret::Full),
        Some(b"HDRS") => Some(Ret::Headers),
        Some(_) => return Err(FormatError::Value("ret")),
    };
    let envid = lines.optional_text("envid")?;
    let mut trace = Vec::new();
    while let Some(field) = lines.optional("trace")? {
        trace.extend_from_slice(&field);
    }
    let mut recipients = Vec::new();
    while !lines.rest.is_empty() {
        recipients.push(read_recipient(&mut lines)?);
    }
    Ok(Envelope { sender, ret, envid, recipients, origin, arrived, body, utf8, require_tls, trace })
}

fn read_recipient(lines: &mut Lines<'_>) -> Result<Recipient, FormatError> {
    let address = Mailbox::parse(&lines.text("to")?, true).map_err(|_| FormatError::Value("to"))?;
    let notify = match lines.optional_text("notify")? {
        Some(text) => Notify::parse(&text).ok_or(FormatError::Value("notify"))?,
        None => Notify::default(),
    };
    Ok(Recipient { address, notify, original: lines.optional_text("orcpt")? })
}

fn read_origin(lines: &mut Lines<'_>) -> Result<Origin, FormatError> {
    Ok(match &*lines.bytes("origin")? {
        b"client" => {
            let address = lines.optional_text("address")?;
            let address =
                address.map(|a| a.parse().map_err(|_| FormatError::Value("address"))).transpose()?;
            let (helo, protocol) = (lines.text("helo")?, lines.text("protocol")?);
            Origin::Client { address, helo, protocol, login: lines.optional_text("login")? }
        }
        b"user" => Origin::User { uid: lines.number("uid")?, name: lines.text("name")? },
        b"posta" => Origin::Posta,
        b"double-bounce" => Origin::DoubleBounce,
        _ => return Err(FormatError::Value("origin")),
    })
}

/// Fields in the order they were written.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The next field's value, if it is called `name`.
    fn optional(&mut self, name: &'static str) -> Result<Option<Cow<'a, [u8]>>, FormatError> {
        let Some(value) = self.rest.strip_prefix(name.as_bytes()).and_then(|r| r.strip_prefix(b" ")) else {
            return Ok(None);
        };
        let end = memchr::memchr(b'\n', value).ok_or(FormatError::Value(name))?;
        self.rest = &value[end + 1..];
        line::read(&value[..end]).ok_or(FormatError::Value(name)).map(Some)
    }

    fn bytes(&mut self, name: &'static str) -> Result<Cow<'a, [u8]>, FormatError> {
        self.optional(name)?.ok_or(FormatError::Missing(name))
    }

    fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, FormatError> {
        let value = self.optional(name)?.map(Cow::into_owned);
        value.map(|v| String::from_utf8(v).map_err(|_| FormatError::Value(name))).transpose()
    }

    fn text(&mut self, name: &'static str) -> Result<String, FormatError> {
        self.optional_text(name)?.ok_or(FormatError::Missing(name))
    }

    fn number<T: FromStr>(&mut self, name: &'static str) -> Result<T, FormatError> {
        self.text(name)?.parse().map_err(|_| FormatError::Value(name))
    }
}

fn body_word(body: BodyKind) -> &'static [u8] {
    match body {
        BodyKind::SevenBit => b"7BIT",
        BodyKind::EightBitMime => b"8BITMIME",
        BodyKind::BinaryMime => b"BINARYMIME",
    }
}

fn body_kind(word: &[u8]) -> Option<BodyKind> {
    let kinds = [BodyKind::SevenBit, BodyKind::EightBitMime, BodyKind::BinaryMime];
    kinds.into_iter().find(|kind| body_word(*kind) == word)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any envelope that a session can make.
    pub(in crate::spool) fn envelopes() -> impl Strategy<Value = Envelope> {
        let sender = prop_oneof![Just(ReversePath::Null), mailboxes().prop_map(ReversePath::Mailbox),];
        let flags = (any::<bool>(), any::<bool>(), 0..3usize, 0..3usize);
        let texts = (prop::option::of("\\PC{0,20}"), prop::collection::vec(any::<u8>(), 0..60));
        let recipients = prop::collection::vec(recipients(), 0..4);
        (sender, flags, texts, recipients, origins(), any::<u64>()).prop_map(
            |(sender, (utf8, require_tls, ret, body), (envid, trace), recipients, origin, arrived)| {
                Envelope {
                    sender,
                    ret: [None, Some(Ret::Full), Some(Ret::Headers)][ret],
                    envid,
                    recipients,
                    origin,
                    arrived,
                    body: [BodyKind::SevenBit, BodyKind::EightBitMime, BodyKind::BinaryMime][body],
                    utf8,
                    require_tls,
                    trace,
                }
            },
        )
    }

    fn mailboxes() -> impl Strategy<Value = Mailbox> {
        ("[ -~]{1,20}|ä[a-z]{1,5}", "[a-zA-Z0-9]{1,10}(\\.[a-z]{2,5}){0,2}|\\[192\\.0\\.2\\.1\\]|ö\\.example")
            .prop_map(|(local, domain)| Mailbox::from_parts(&local, &domain).unwrap())
    }

    fn recipients() -> impl Strategy<Value = Recipient> {
        let notify = "NEVER|SUCCESS|SUCCESS,DELAY|FAILURE".prop_map(|t| Notify::parse(&t).unwrap());
        let notify = prop_oneof![Just(Notify::default()), notify];
        (mailboxes(), notify, prop::option::of("\\PC{0,20}"))
            .prop_map(|(address, notify, original)| Recipient { address, notify, original })
    }

    fn origins() -> impl Strategy<Value = Origin> {
        let client = (prop::option::of(any::<std::net::IpAddr>()), ".{0,20}", prop::option::of(".{0,9}"));
        prop_oneof![
            Just(Origin::Posta),
            Just(Origin::DoubleBounce),
            (any::<u32>(), "(?s).{0,20}").prop_map(|(uid, name)| Origin::User { uid, name }),
            client.prop_map(|(address, helo, login)| Origin::Client {
                address,
                helo,
                protocol: "ESMTPSA".into(),
                login
            }),
        ]
    }

    fn id() -> Id {
        Id::parse("0123456789ABCDE").unwrap()
    }

    fn whole(message: &[u8], envelope: &Envelope) -> Vec<u8> {
        let mut file = message.to_vec();
        put_envelope(&mut file, envelope).unwrap();
        let crc = crc32c::crc32c(&file);
        put_trailer(&mut file, id(), message.len() as u64, crc);
        file
    }

    fn check(file: &[u8]) -> Result<Trailer, FormatError> {
        let (front, trailer) = file.split_at(file.len().saturating_sub(TRAILER));
        read_trailer(trailer, id(), Some(crc32c::crc32c(front)))
    }

    #[test]
    fn a_file_looks_as_the_manual_says() {
        let envelope = Envelope {
            sender: ReversePath::parse("alice@example.org", false).unwrap(),
            ret: None,
            envid: None,
            recipients: vec![Recipient::plain(Mailbox::parse("bob@example.net", false).unwrap())],
            origin: Origin::User { uid: 1000, name: "alice".into() },
            arrived: 1_795_550_000_000_000,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: b"Received: from x\r\n\tby y\r\n".to_vec(),
        };
        let file = String::from_utf8(whole(b"Subject: a\r\n\r\nb\r\n", &envelope)).unwrap();
        let expected = "Subject: a\r\n\r\nb\r\nsender alice@example.org\narrived 1795550000000000\norigin user\n\
            uid 1000\nname alice\nbody 7BIT\ntrace Received: from x\\r\\n\ntrace \tby y\\r\\n\n\
            to bob@example.net\nposta-1 0123456789ABCDE  0000000000000011 ";
        let expected = expected.replace('\t', "\\x09");
        assert_eq!(file.strip_prefix(&expected).unwrap().len(), 9);
    }

    #[test]
    fn another_messages_file_is_not_taken() {
        let mut file = b"x".to_vec();
        put_trailer(&mut file, Id::parse("0123456789ABCDF").unwrap(), 1, crc32c::crc32c(b"x"));
        assert_eq!(check(&file), Err(FormatError::Id("0123456789ABCDF".into())));
    }

    #[test]
    fn an_address_that_would_not_read_back_is_not_written() {
        // 62 octets, but one more for each letter in lower case: no label any more.
        let mailbox = Mailbox::from_parts("a", &"İ".repeat(31)).unwrap();
        assert_eq!(put_mailbox(&mut Vec::new(), "to", &mailbox), Err(FormatError::Value("to")));
    }

    proptest! {
        #[test]
        fn envelopes_read_back(envelope in envelopes()) {
            let mut text = Vec::new();
            put_envelope(&mut text, &envelope).unwrap();
            prop_assert_eq!(read_envelope(&text), Ok(envelope));
        }

        #[test]
        fn every_damage_is_noticed(
            message in prop::collection::vec(any::<u8>(), 0..50),
            envelope in envelopes(),
            at in any::<prop::sample::Index>(),
            flip in 1..=255u8,
        ) {
            let file = whole(&message, &envelope);
            let trailer = check(&file).unwrap();
            prop_assert_eq!(trailer.offset, message.len() as u64);
            prop_assert!(check(&file[..at.index(file.len())]).is_err());
            let mut damaged = file;
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            prop_assert!(check(&damaged).is_err(), "byte {at} of {}", damaged.len());
        }

        #[test]
        fn nothing_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            text in "(sender|to|origin|body|arrived|helo|a|1| |\\\\|\n){0,12}",
        ) {
            let _ = check(&bytes);
            let _ = read_envelope(&bytes);
            let _ = read_envelope(text.as_bytes());
        }
    }
}
