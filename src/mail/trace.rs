//! Trace fields (RFC 5321 4.4): what every server on its way puts on top of a message.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::address::{Mailbox, ReversePath};
use super::header;
use super::id::Id;

/// How a message came in, as the Received field names it (RFC 3848, RFC 6531 3.7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// The client said EHLO or LHLO.
    pub extended: bool,
    /// It was LMTP (RFC 2033).
    pub lmtp: bool,
    /// Over TLS.
    pub secure: bool,
    /// The client logged in.
    pub login: bool,
    /// The message needs SMTPUTF8.
    pub utf8: bool,
}

impl Protocol {
    /// The word after `with`. There is none for HELO over TLS: it counts as `SMTP`.
    pub fn word(self) -> &'static str {
        if self.lmtp {
            return match (self.utf8, self.secure, self.login) {
                (false, false, false) => "LMTP",
                (false, false, true) => "LMTPA",
                (false, true, false) => "LMTPS",
                (false, true, true) => "LMTPSA",
                (true, false, false) => "UTF8LMTP",
                (true, false, true) => "UTF8LMTPA",
                (true, true, false) => "UTF8LMTPS",
                (true, true, true) => "UTF8LMTPSA",
            };
        }
        match (self.extended, self.utf8, self.secure, self.login) {
            (false, ..) => "SMTP",
            (true, false, false, false) => "ESMTP",
            (true, false, false, true) => "ESMTPA",
            (true, false, true, false) => "ESMTPS",
            (true, false, true, true) => "ESMTPSA",
            (true, true, false, false) => "UTF8SMTP",
            (true, true, false, true) => "UTF8SMTPA",
            (true, true, true, false) => "UTF8SMTPS",
            (true, true, true, true) => "UTF8SMTPSA",
        }
    }
}

/// What TLS has agreed on.
#[derive(Debug, Clone, Copy)]
pub struct Encryption<'a> {
    /// As `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite.
    pub cipher: &'a str,
    /// The length of its key.
    pub bits: u32,
}

impl fmt::Display for Encryption<'_> {
    /// As Postfix writes it, in header and log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Encryption { version, cipher, bits } = self;
        write!(f, "{} with cipher {} ({bits}/{bits} bits)", word(version), word(cipher))
    }
}

/// What a Received field says of a message that came over SMTP.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// What the client called itself.
    pub helo: &'a str,
    /// The name that the DNS has for its address, checked both ways.
    pub reverse: Option<&'a str>,
    /// Its address; none where stdin was no socket.
    pub address: Option<IpAddr>,
    /// The client is not to be shown: neither its name nor its address.
    pub hidden: bool,
    /// How the session was encrypted, if it was.
    pub tls: Option<Encryption<'a>>,
    /// This host.
    pub by: &'a str,
    /// See [`Protocol::word`].
    pub protocol: &'a str,
    /// The queue id.
    pub id: Id,
    /// Everybody the message is for.
    pub recipients: &'a [super::envelope::Recipient],
    /// See [`date`].
    pub date: &'a str,
}

impl Received<'_> {
    /// The field, folded, with CR LF at its end. What the client and the DNS say is put in so that
    /// it can end no word, comment or line.
    pub fn field(&self) -> String {
        let mut field = self.from();
        // Writing to a String does not fail.
        if let Some(tls) = self.tls {
            let _ = write!(field, "\r\n\t(using {tls})");
        }
        let _ =
            write!(field, "\r\n\tby {} (posta) with {} id {}", word(self.by), word(self.protocol), self.id);
        // RFC 5321 7.2: with more than one, those named would be shown to each other.
        if let [only] = self.recipients {
            let _ = write!(field, "\r\n\tfor <{}>", only.address);
        }
        let _ = write!(field, ";\r\n\t{}\r\n", self.date);
        field
    }

    fn from(&self) -> String {
        if self.hidden {
            return "Received: from hidden".to_string();
        }
        let (helo, reverse) = (word(self.helo), word(self.reverse.unwrap_or("unknown")));
        match self.address {
            Some(IpAddr::V4(address)) => format!("Received: from {helo} ({reverse} [{address}])"),
            Some(IpAddr::V6(address)) => format!("Received: from {helo} ({reverse} [IPv6:{address}])"),
            None => format!("Received: from {helo} ({reverse})"),
        }
    }
}

/// The Received field of a message that user `uid` gave to the `sendmail` command of the host `by`.
pub fn submitted(by: &str, uid: u32, id: Id, date: &str) -> String {
    format!("Received: by {} (posta, from userid {uid})\r\n\tid {id}; {date}\r\n", word(by))
}

/// The Received field of a message that posta made itself, a delivery status notification.
pub fn made_here(by: &str, id: Id, date: &str) -> String {
    format!("Received: by {} (posta)\r\n\tid {id}; {date}\r\n", word(by))
}

/// The Return-Path field, which is put on at final delivery (RFC 5321 4.4).
pub fn return_path(sender: &ReversePath) -> String {
    format!("Return-Path: <{sender}>\r\n")
}

/// The Delivered-To field: whom this copy was delivered to, so that a loop is seen.
pub fn delivered_to(mailbox: &Mailbox) -> String {
    format!("Delivered-To: {mailbox}\r\n")
}

/// How many servers have put a Received field on (RFC 5321 6.3).
pub fn hops(message: &[u8]) -> usize {
    header::fields(message).filter(|field| field.is("Received")).count()
}

/// Whether a copy of this message was delivered to `mailbox` before.
pub fn was_delivered_to(message: &[u8], mailbox: &Mailbox) -> bool {
    let mut marks = header::fields(message).filter(|field| field.is("Delivered-To"));
    marks.any(|field| Mailbox::parse(&field.text(), true).is_ok_and(|other| other == *mailbox))
}

/// A date and time as RFC 5322 3.3 has them, from seconds since 1970, in this host's time zone.
pub fn date(seconds: i64) -> String {
    date_in(seconds, jiff::tz::TimeZone::system())
}

fn date_in(seconds: i64, zone: jiff::tz::TimeZone) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let time = time.to_zoned_datetime(zone);
    time.strftime("%a, %-d %b %Y %H:%M:%S %z").to_string()
}

/// A host's name as a word that needs no quoting and ends nothing.
fn word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_graphic() && !"()<>,;@\\\"".contains(c);
    text.chars().map(|c| if harmless(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::mail::envelope::Recipient;

    use super::*;

    fn received<'a>(helo: &'a str, recipients: &'a [Recipient]) -> Received<'a> {
        Received {
            helo,
            reverse: None,
            address: Some("192.0.2.1".parse().unwrap()),
            hidden: false,
            tls: None,
            by: "mx.example.org",
            protocol: "ESMTP",
            id: Id::parse("0123456789ABCDE").unwrap(),
            recipients,
            date: "Tue, 24 Nov 2026 20:00:00 +0100",
        }
    }

    fn recipient(text: &str) -> Recipient {
        Recipient::plain(Mailbox::parse(text, false).unwrap())
    }

    #[test]
    fn a_received_field_has_all_clauses() {
        let one = [recipient("alice@example.org")];
        let field = received("client.example", &one).field();
        assert_eq!(
            field,
            "Received: from client.example (unknown [192.0.2.1])\r\n\
             \tby mx.example.org (posta) with ESMTP id 0123456789ABCDE\r\n\
             \tfor <alice@example.org>;\r\n\
             \tTue, 24 Nov 2026 20:00:00 +0100\r\n"
        );
        let v6 = Received {
            address: Some("2001:db8::1".parse().unwrap()),
            reverse: Some("h.example"),
            ..received("c", &[])
        };
        assert!(v6.field().starts_with("Received: from c (h.example [IPv6:2001:db8::1])\r\n"));
    }

    #[test]
    fn encryption_is_shown_and_who_hides_is_not() {
        let tls = Some(Encryption { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384", bits: 256 });
        let field = Received { tls, hidden: true, ..received("client.example", &[]) }.field();
        assert!(
            field.starts_with(
                "Received: from hidden\r\n\
                 \t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n\
                 \tby mx.example.org (posta) with "
            ),
            "{field}"
        );
    }

    #[test]
    fn several_recipients_are_not_shown_to_each_other() {
        let two = [recipient("a@x"), recipient("b@x")];
        assert!(!received("c", &two).field().contains("for"));
    }

    #[test]
    fn protocols_have_their_words() {
        let protocol = Protocol { extended: true, secure: true, ..Protocol::default() };
        assert_eq!(protocol.word(), "ESMTPS");
        assert_eq!(Protocol { login: true, ..protocol }.word(), "ESMTPSA");
        assert_eq!(Protocol { extended: false, ..protocol }.word(), "SMTP");
        assert_eq!(Protocol { lmtp: true, login: true, utf8: true, ..protocol }.word(), "UTF8LMTPSA");
    }

    #[test]
    fn other_fields_are_one_line_each() {
        let id = Id::parse("0123456789ABCDE").unwrap();
        assert_eq!(
            submitted("mx.example.org", 1000, id, "D"),
            "Received: by mx.example.org (posta, from userid 1000)\r\n\tid 0123456789ABCDE; D\r\n"
        );
        assert_eq!(return_path(&ReversePath::Null), "Return-Path: <>\r\n");
        let mark = delivered_to(&recipient("\"a b\"@x").address);
        assert_eq!(mark, "Delivered-To: \"a b\"@x\r\n");
        assert!(was_delivered_to(mark.as_bytes(), &recipient("\"a b\"@X").address));
        assert!(!was_delivered_to(mark.as_bytes(), &recipient("a@x").address));
    }

    #[test]
    fn hops_are_counted() {
        assert_eq!(hops(b"received: a\r\n b\r\nReceived: c\r\nX: d\r\n\r\nReceived: e\r\n"), 2);
    }

    #[test]
    fn dates_carry_the_zone() {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(date_in(1_795_550_000, zone.clone()), "Tue, 24 Nov 2026 16:53:20 -0300");
        assert_eq!(date_in(i64::MAX, zone), "Wed, 31 Dec 1969 21:00:00 -0300");
        assert!(date(0).contains("19"));
    }

    proptest! {
        #[test]
        fn no_name_breaks_out(helo in "[\\x00-\\x7f]{0,30}|\\PC{0,30}") {
            let field = received(&helo, &[]).field();
            prop_assert_eq!(header::fields(field.as_bytes()).count(), 1);
            prop_assert_eq!(field.matches("\r\n").count(), 3);
            prop_assert_eq!(field.matches('(').count(), 2);
            prop_assert!(field.bytes().all(|b| (b' '..=b'~').contains(&b) || b"\r\n\t".contains(&b)));
        }
    }
}
