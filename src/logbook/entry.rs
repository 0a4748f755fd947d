//! The words of the log.
//!
//! Each entry is a value that is shown as the line's text, for `log::info!("{}", Delivery { … })`.
//! What comes from a peer is shown so that it can forge neither a line nor a field: within a field
//! the characters that end one are escaped, and texts are cut at [`MAX_TEXT`].

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

use crate::mail::id::Id;
use crate::mail::status::{Fate, Status};

/// Most bytes of a peer's text in a line.
pub const MAX_TEXT: usize = 512;

/// A writer that escapes control characters: what goes through it stays on one line.
pub(super) struct Line<'a>(pub(super) &'a mut dyn Write);

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            let (plain, found) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut found = found.chars();
            match found.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(c) => write!(self.0, "\\x{:02x}", u32::from(c))?,
                None => (),
            }
            rest = found.as_str();
        }
        self.0.write_str(rest)
    }
}

/// A text as a terminal may show it: control characters are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Line(f).write_str(self.0)
    }
}

/// An address or a name from a peer, within `<…>` or `[…]`: what would end the field is escaped.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a>(pub &'a str);

impl Display for Field<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        escape(f, self.0, &['<', '>', '[', ']', ',', ';', ' ', '"'])
    }
}

/// A reply or another sentence of a peer, which ends a line or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a>(pub &'a str);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        escape(f, self.0, &[';'])
    }
}

fn escape(f: &mut Formatter<'_>, text: &str, ends: &[char]) -> fmt::Result {
    let cut = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut rest = cut;
    while let Some(at) = rest.find(ends) {
        let (plain, found) = rest.split_at(at);
        Line(f).write_str(plain)?;
        let mut found = found.chars();
        if let Some(end) = found.next() {
            write!(f, "\\x{:02x}", u32::from(end))?;
        }
        rest = found.as_str();
    }
    Line(f).write_str(rest)?;
    if cut.len() < text.len() { f.write_str("...") } else { Ok(()) }
}

/// Who a session is with: `name[address]`, `unknown` if the name is not known.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The name that the DNS gave, if any.
    pub name: Option<&'a str>,
    /// The address, or another word for where it comes from.
    pub address: &'a str,
}

impl Display for Peer<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", Field(self.name.unwrap_or("unknown")), Field(self.address))
    }
}

/// A message begins: `ID: client=name[address]`.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Queue id.
    pub id: Id,
    /// Who sends it.
    pub peer: Peer<'a>,
    /// The mechanism, and the user who has logged in by it.
    pub login: Option<(&'a str, &'a str)>,
    /// What the client calls the message, and from whom it has it, if it has told.
    pub original: Option<(&'a str, Peer<'a>)>,
}

impl Display for Client<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: client={}", self.id, self.peer)?;
        if let Some((method, login)) = self.login {
            write!(f, ", sasl_method={}, sasl_username={}", Field(method), Field(login))?;
        }
        if let Some((id, peer)) = self.original {
            if !id.is_empty() {
                write!(f, ", orig_queue_id={}", Field(id))?;
            }
            write!(f, ", orig_client={peer}")?;
        }
        Ok(())
    }
}

/// A message's own name: `ID: message-id=<…>`.
#[derive(Debug, Clone, Copy)]
pub struct MessageId<'a> {
    /// Queue id.
    pub id: Id,
    /// The content of its Message-ID field, with or without its angle brackets; may be empty.
    pub message_id: &'a str,
}

impl Display for MessageId<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bare = self.message_id.trim().trim_start_matches('<').trim_end_matches('>');
        write!(f, "{}: message-id=<{}>", self.id, Field(bare))
    }
}

/// A message is in the queue: `ID: from=<a@b>, size=123, nrcpt=1 (queue active)`.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    /// Queue id.
    pub id: Id,
    /// Envelope sender; empty for the null sender.
    pub from: &'a str,
    /// Bytes.
    pub size: u64,
    /// Its recipients.
    pub recipients: usize,
}

impl Display for Queued<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Queued { id, from, size, recipients } = self;
        write!(f, "{id}: from=<{}>, size={size}, nrcpt={recipients} (queue active)", Field(from))
    }
}

/// A message has left the queue: `ID: removed`.
#[derive(Debug, Clone, Copy)]
pub struct Removed(pub Id);

impl Display for Removed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: removed", self.0)
    }
}

/// An attempt for one recipient:
/// `ID: to=<a@b>, relay=host[ip]:25, delay=1.2, dsn=2.0.0, status=sent (250 ok)`.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Queue id.
    pub id: Id,
    /// The final address.
    pub to: &'a str,
    /// The address that was accepted; shown where it is another one.
    pub orig_to: &'a str,
    /// `host[address]:port`, `local`, or empty if no host was reached.
    pub relay: &'a str,
    /// Since the message was accepted.
    pub delay: Duration,
    /// Of it: before the queue, in the queue, for the connection, for the transmission.
    pub delays: Option<[Duration; 4]>,
    /// Its class says what became of it.
    pub status: Status,
    /// The remote's words or ours.
    pub text: &'a str,
}

impl Display for Delivery<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: to=<{}>, ", self.id, Field(self.to))?;
        if self.orig_to != self.to && !self.orig_to.is_empty() {
            write!(f, "orig_to=<{}>, ", Field(self.orig_to))?;
        }
        f.write_str("relay=")?;
        escape(f, if self.relay.is_empty() { "none" } else { self.relay }, &['<', '>', ',', ';', ' '])?;
        write!(f, ", delay={}", Seconds(self.delay))?;
        if let Some([before, queue, connection, transmission]) = self.delays.map(|delays| delays.map(Seconds))
        {
            write!(f, ", delays={before}/{queue}/{connection}/{transmission}")?;
        }
        let word = match self.status.fate() {
            Fate::Done => "sent",
            Fate::Later => "deferred",
            Fate::Never => "bounced",
        };
        write!(f, ", dsn={}, status={word} (", self.status)?;
        escape(f, self.text, &[])?;
        f.write_str(")")
    }
}

/// Seconds in the few digits that matter: `0.05`, `1.2`, `340`.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let digits = match seconds {
            s if s >= 100.0 => 0,
            s if s >= 1.0 => 1,
            _ => 2,
        };
        let text = format!("{seconds:.digits$}");
        let short = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        f.write_str(short)
    }
}

/// A command refused:
/// `NOQUEUE: reject: RCPT from unknown[192.0.2.4]: 550 5.1.1 <x@y>: …; from=<a@b> to=<x@y> proto=ESMTP helo=<h>`.
#[derive(Debug, Clone, Copy)]
pub struct Reject<'a> {
    /// Queue id, if the message has one.
    pub id: Option<Id>,
    /// `CONNECT`, `MAIL`, `RCPT`, `DATA`, `END-OF-MESSAGE`, …
    pub at: &'a str,
    /// Who is refused.
    pub peer: Peer<'a>,
    /// The reply, with its codes, in one line.
    pub reply: &'a str,
    /// Envelope sender, if there is one yet.
    pub from: Option<&'a str>,
    /// The recipient, if it is about one.
    pub to: Option<&'a str>,
    /// `SMTP`, `ESMTP`, …
    pub proto: &'a str,
    /// What the client calls itself; empty if it said nothing.
    pub helo: &'a str,
    /// The session, for `postactl session`.
    pub session: Option<Id>,
}

impl Display for Reject<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{id}: ")?,
            None => f.write_str("NOQUEUE: ")?,
        }
        write!(f, "reject: {} from {}: {};", self.at, self.peer, Said(self.reply))?;
        if let Some(from) = self.from {
            write!(f, " from=<{}>", Field(from))?;
        }
        if let Some(to) = self.to {
            write!(f, " to=<{}>", Field(to))?;
        }
        write!(f, " proto={}", self.proto)?;
        if !self.helo.is_empty() {
            write!(f, " helo=<{}>", Field(self.helo))?;
        }
        if let Some(session) = self.session {
            write!(f, " session={session}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> Id {
        Id::parse("0123456789ABCDE").unwrap()
    }

    fn delivery<'a>(to: &'a str, text: &'a str) -> Delivery<'a> {
        Delivery {
            id: id(),
            to,
            orig_to: "list@x.example",
            relay: "mx.x.example[192.0.2.1]:25",
            delay: Duration::from_millis(1234),
            delays: Some([10, 0, 304, 920].map(Duration::from_millis)),
            status: Status::new(2, 0, 0),
            text,
        }
    }

    #[test]
    fn the_lines_are_postfix_s() {
        assert_eq!(
            delivery("a@b", "250 ok").to_string(),
            "0123456789ABCDE: to=<a@b>, orig_to=<list@x.example>, relay=mx.x.example[192.0.2.1]:25, delay=1.2, \
             delays=0.01/0/0.3/0.92, dsn=2.0.0, status=sent (250 ok)"
        );
        let late = Delivery {
            orig_to: "a@b",
            relay: "",
            delays: None,
            delay: Duration::from_secs(340),
            status: Status::new(4, 4, 1),
            ..delivery("a@b", "connection refused")
        };
        assert_eq!(
            late.to_string(),
            "0123456789ABCDE: to=<a@b>, relay=none, delay=340, dsn=4.4.1, status=deferred (connection refused)"
        );
        let peer = Peer { name: None, address: "192.0.2.4" };
        let reject = Reject {
            id: None,
            at: "RCPT",
            peer,
            reply: "550 5.1.1 <x@y>: User unknown",
            from: Some("a@b"),
            to: Some("x@y"),
            proto: "ESMTP",
            helo: "h",
            session: Some(id()),
        };
        assert_eq!(
            reject.to_string(),
            "NOQUEUE: reject: RCPT from unknown[192.0.2.4]: 550 5.1.1 <x@y>: User unknown; from=<a@b> to=<x@y> \
             proto=ESMTP helo=<h> session=0123456789ABCDE"
        );
        let client = Client { id: id(), peer, login: Some(("PLAIN", "alice")), original: None };
        let line = "0123456789ABCDE: client=unknown[192.0.2.4], sasl_method=PLAIN, sasl_username=alice";
        assert_eq!(client.to_string(), line);
        let client = Client { original: Some(("3Y", peer)), login: None, ..client };
        let line =
            "0123456789ABCDE: client=unknown[192.0.2.4], orig_queue_id=3Y, orig_client=unknown[192.0.2.4]";
        assert_eq!(client.to_string(), line);
        let message_id = MessageId { id: id(), message_id: " <1@x>" };
        assert_eq!(message_id.to_string(), "0123456789ABCDE: message-id=<1@x>");
        let queued = Queued { id: id(), from: "", size: 123, recipients: 1 };
        assert_eq!(queued.to_string(), "0123456789ABCDE: from=<>, size=123, nrcpt=1 (queue active)");
        assert_eq!(Removed(id()).to_string(), "0123456789ABCDE: removed");
    }

    #[test]
    fn a_peer_can_t_forge_a_field() {
        let forged = delivery("\"a>, relay=x, dsn=5.0.0, status=bounced (x\"@b", "ok").to_string();
        assert_eq!(forged.matches("status=").count(), 2);
        assert!(forged.contains("to=<\\x22a\\x3e\\x2c\\x20relay=x"), "{forged}");
        assert!(!delivery("a@b", "250 ok\nX: to=<y>").to_string().contains('\n'));
        let reject = Reject {
            id: None,
            at: "RCPT",
            peer: Peer { name: Some("a[1.2.3.4]"), address: "192.0.2.4" },
            reply: "550 x; from=<forged>",
            from: Some(""),
            to: None,
            proto: "SMTP",
            helo: "x> y",
            session: None,
        };
        assert_eq!(
            reject.to_string(),
            "NOQUEUE: reject: RCPT from a\\x5b1.2.3.4\\x5d[192.0.2.4]: 550 x\\x3b from=<forged>; from=<> \
             proto=SMTP helo=<x\\x3e\\x20y>"
        );
    }

    proptest! {
        #[test]
        fn a_field_has_no_end_within_and_a_line_no_break(text in "\\PC*|[\\x00-\\x7f]{0,40}") {
            let field = Field(&text).to_string();
            prop_assert!(!field.contains(['>', ',', ' ', ']', '\n', '\r', '\0']));
            prop_assert!(!Said(&text).to_string().contains(['\n', '\r', ';', '\x1b']));
        }
    }
}
