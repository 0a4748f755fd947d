//! The envelope: what is said about a message before its first byte (RFC 5321 2.3.1).

use std::net::IpAddr;

use super::address::{Mailbox, ReversePath};

/// Everything that the spool keeps beside the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who gets the errors.
    pub sender: ReversePath,
    /// RET of RFC 3461 4.3: how much of the message a failure report gives back.
    pub ret: Option<Ret>,
    /// ENVID of RFC 3461 4.4, still in xtext as it came.
    pub envid: Option<String>,
    /// As they were accepted, before any alias.
    pub recipients: Vec<Recipient>,
    /// Where the message came from.
    pub origin: Origin,
    /// When it was accepted: microseconds since 1970.
    pub arrived: u64,
    /// What the sender said of its body.
    pub body: BodyKind,
    /// The message needs SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// The message must never go over an unencrypted hop (RFC 8689).
    pub require_tls: bool,
    /// Header fields to put on top (Received), each ended by CRLF.
    pub trace: Vec<u8>,
}

/// One recipient and its wishes about delivery status notifications (RFC 3461).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The address that RCPT named.
    pub address: Mailbox,
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT, still `type;xtext` as it came.
    pub original: Option<String>,
}

impl Recipient {
    /// A recipient without wishes.
    pub fn plain(address: Mailbox) -> Recipient {
        Recipient { address, notify: Notify::default(), original: None }
    }
}

/// NOTIFY of RFC 3461 4.1. Nothing said means failures, and delays if we like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// NOTIFY was given; if all three wishes are off, it was NEVER.
    pub given: bool,
    /// SUCCESS
    pub success: bool,
    /// FAILURE
    pub failure: bool,
    /// DELAY
    pub delay: bool,
}

impl Notify {
    /// Whether a failure is to be reported.
    pub fn wants_failure(self) -> bool {
        !self.given || self.failure
    }

    /// Whether a delay is to be reported.
    pub fn wants_delay(self) -> bool {
        !self.given || self.delay
    }

    /// The parameter's value as it goes on the wire; nothing if it was not given.
    pub fn keyword(self) -> Option<String> {
        if !self.given {
            return None;
        }
        let wishes = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let named: Vec<&str> = wishes.iter().filter(|w| w.0).map(|w| w.1).collect();
        Some(if named.is_empty() { "NEVER".to_string() } else { named.join(",") })
    }

    /// Reads a value of NOTIFY; `None` if it breaks RFC 3461 4.1.
    pub fn parse(text: &str) -> Option<Notify> {
        let mut notify = Notify { given: true, ..Notify::default() };
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(notify);
        }
        for word in text.split(',') {
            let wish = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            if std::mem::replace(wish, true) {
                return None;
            }
        }
        Some(notify)
    }
}

/// RET of RFC 3461 4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// BODY of RFC 6152 and RFC 3030.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyKind {
    /// Seven bits, or nothing said.
    #[default]
    SevenBit,
    /// 8BITMIME
    EightBitMime,
    /// BINARYMIME
    BinaryMime,
}

/// Where a message came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A client over SMTP.
    Client {
        /// Its address; none where stdin was no socket.
        address: Option<IpAddr>,
        /// What it called itself.
        helo: String,
        /// `ESMTP`, `ESMTPS`, … (RFC 3848).
        protocol: String,
        /// The name it logged in with.
        login: Option<String>,
    },
    /// A user of this host, by the `sendmail` command.
    User {
        /// The user's id.
        uid: u32,
        /// The user's name, as far as it was known.
        name: String,
    },
    /// posta itself: a delivery status notification, or a copy that a user's `.forward` sends on.
    Posta,
    /// posta itself: it tells the postmaster of a bounce that could not be delivered. If that can't be
    /// delivered either, nobody is told.
    DoubleBounce,
}

/// Undoes xtext (RFC 3461 4), in which ENVID and ORCPT come: `+` and two hexadecimal digits in
/// capitals stand for an octet. `None` if it is none, or what it stands for is no UTF-8.
pub fn from_xtext(text: &str) -> Option<String> {
    let hex = |b: Option<u8>| match b? {
        b @ b'0'..=b'9' => Some(b - b'0'),
        b @ b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        match b {
            b'+' => octets.push(hex(rest.next())? << 4 | hex(rest.next())?),
            b'!'..=b'~' if b != b'=' => octets.push(b),
            _ => return None,
        }
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_undone() {
        assert_eq!(from_xtext("a+2Bb+20c@x").as_deref(), Some("a+b c@x"));
        assert_eq!(from_xtext("").as_deref(), Some(""));
        for text in ["a b", "a=b", "+", "+2", "+2g", "+2b", "+FF", "\u{e4}"] {
            assert_eq!(from_xtext(text), None, "{text}");
        }
    }

    #[test]
    fn notify_reads_back() {
        for text in ["NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY", "DELAY"] {
            assert_eq!(Notify::parse(text).unwrap().keyword().unwrap(), text);
        }
        for text in ["", "NEVER,FAILURE", "SUCCESS,SUCCESS", "SOME"] {
            assert_eq!(Notify::parse(text), None, "{text}");
        }
        assert_eq!(Notify::default().keyword(), None);
        assert!(Notify::default().wants_failure());
        assert!(!Notify::parse("never").unwrap().wants_failure());
    }
}
