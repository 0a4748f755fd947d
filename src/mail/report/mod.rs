//! Delivery status notifications (RFC 3461, 3464, 6522, and 6533 where UTF-8 is in them).
//!
//! Pure: the caller says what happened; out come the bytes before and after the part of the original
//! that is given back, so that a large original is never held in memory.

mod typed;

use std::fmt::Write;

use super::address::Mailbox;
use super::envelope::from_xtext;
use super::status::Status;
use typed::{final_recipient, original_recipient, plain};

/// What is reported of a recipient (RFC 3464 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It will not be delivered.
    Failed,
    /// It is not delivered yet; nothing is to be done.
    Delayed,
    /// It was put into its mailbox.
    Delivered,
    /// It was handed to a host that makes no such reports.
    Relayed,
    /// It was sent on to several addresses; what becomes of it there is not told (RFC 3464 2.3.3).
    Expanded,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
            Action::Expanded => "expanded",
        }
    }
}

/// One recipient of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// What became of it.
    pub action: Action,
    /// The final address.
    pub address: Mailbox,
    /// ORCPT as it came, `type;xtext`.
    pub original: Option<String>,
    /// Enhanced status code.
    pub status: Status,
    /// The remote's reply or our own words.
    pub text: String,
    /// The host that said so, `host[address]:port`; empty if there was none.
    pub relay: String,
    /// `text` is a remote SMTP server's reply, word for word.
    pub said: bool,
}

/// How much of the original comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// The header only (`text/rfc822-headers`).
    Header,
    /// All of it (`message/rfc822`).
    Whole,
}

/// What a report says.
#[derive(Debug)]
pub struct Report<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// The original's queue id.
    pub id: &'a str,
    /// The report's own queue id, for its Message-ID and boundary.
    pub own_id: &'a str,
    /// The original's sender, to whom the report goes.
    pub to: &'a Mailbox,
    /// ENVID as it came, in xtext.
    pub envid: Option<&'a str>,
    /// When the original arrived, in the form of RFC 5322.
    pub arrived: &'a str,
    /// Now, in the form of RFC 5322.
    pub date: &'a str,
    /// For delays: until when it is tried, in the form of RFC 5322.
    pub until: Option<&'a str>,
    /// At least one; all with the same kind of news for the subject's sake is best.
    pub recipients: &'a [Reported],
    /// How much of the original comes back.
    pub given_back: GivenBack,
    /// What comes back has octets above 127.
    pub eight_bit: bool,
    /// What comes back needs SMTPUTF8, or so do addresses that are named and came by SMTPUTF8: then the
    /// report may need it too. Addresses are written in ASCII else.
    pub utf8: bool,
    /// The original has no sender, as reports have none: a postmaster is told in his place.
    pub of_bounce: bool,
}

/// A report around the part of the original that is given back.
#[derive(Debug)]
pub struct Composed {
    /// As far as the original's first octet.
    pub before: Vec<u8>,
    /// From after the original's last octet.
    pub after: Vec<u8>,
    /// It has octets above 127.
    pub eight_bit: bool,
    /// It needs SMTPUTF8.
    pub utf8: bool,
}

impl Report<'_> {
    /// Writes it.
    pub fn compose(&self) -> Composed {
        let boundary = format!("{}/{}", self.own_id, self.hostname);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.for_people(&mut text, &boundary);
        let _ = self.for_machines(&mut text, &boundary);
        let _ = self.original(&mut text, &boundary);
        let eight_bit = self.eight_bit || !text.is_ascii() || self.is_global();
        let mut before = String::new();
        let _ = self.header(&mut before, &boundary, eight_bit);
        before.push_str(&text);
        Composed {
            before: before.into_bytes(),
            after: format!("\r\n--{boundary}--\r\n").into_bytes(),
            eight_bit,
            utf8: self.is_global(),
        }
    }

    /// It is written as RFC 6533 wants it, with UTF-8 in fields.
    fn is_global(&self) -> bool {
        self.utf8 || self.to.needs_utf8()
    }

    fn worst(&self) -> Action {
        let order = [Action::Failed, Action::Delayed, Action::Relayed];
        let named = |action| self.recipients.iter().any(|r| r.action == action);
        order.into_iter().find(|action| named(*action)).unwrap_or(Action::Delivered)
    }

    fn header(&self, out: &mut String, boundary: &str, eight_bit: bool) -> std::fmt::Result {
        let subject = match self.worst() {
            Action::Failed if self.of_bounce => "Undeliverable report (double bounce)",
            Action::Failed => "Undelivered mail returned to sender",
            Action::Delayed => "Delayed mail (still being tried)",
            Action::Relayed | Action::Expanded | Action::Delivered => "Successful mail delivery report",
        };
        write!(out, "Date: {}\r\n", self.date)?;
        write!(out, "From: Mail Delivery System <MAILER-DAEMON@{}>\r\n", self.hostname)?;
        write!(out, "To: <{}>\r\n", self.to)?;
        write!(out, "Subject: {subject}\r\n")?;
        write!(out, "Message-ID: <{}@{}>\r\n", self.own_id, self.hostname)?;
        // RFC 3834 5: no machine is to answer this.
        out.push_str("Auto-Submitted: auto-replied\r\n");
        out.push_str("MIME-Version: 1.0\r\n");
        out.push_str("Content-Type: multipart/report; report-type=delivery-status;\r\n");
        write!(out, "\tboundary=\"{boundary}\"\r\n")?;
        if eight_bit {
            out.push_str("Content-Transfer-Encoding: 8bit\r\n");
        }
        out.push_str("\r\nThis is a MIME-encapsulated message.\r\n\r\n");
        Ok(())
    }

    fn for_people(&self, out: &mut String, boundary: &str) -> std::fmt::Result {
        write!(out, "--{boundary}\r\n")?;
        out.push_str("Content-Description: Notification\r\nContent-Type: text/plain; charset=utf-8\r\n");
        if self.recipients.iter().any(|r| !r.text.is_ascii() || r.address.needs_utf8()) {
            out.push_str("Content-Transfer-Encoding: 8bit\r\n");
        }
        write!(out, "\r\nThis is the mail system at host {}.\r\n\r\n", self.hostname)?;
        out.push_str(match self.worst() {
            Action::Failed if self.of_bounce => {
                "A message without a sender, most often a report about an undelivered one, could not\r\n\
                 be delivered to the recipients below. Nobody but you, the postmaster, is told.\r\n"
            }
            Action::Failed => {
                "Your message could not be delivered to the recipients below. It will not be\r\n\
                 tried again. The reason is given with each of them.\r\n"
            }
            Action::Delayed => {
                "Your message has not been delivered to the recipients below yet. You need to do\r\n\
                 nothing: it is still being tried.\r\n"
            }
            Action::Relayed | Action::Expanded | Action::Delivered => {
                "Your message was delivered to the recipients below, as you asked to be told.\r\n"
            }
        });
        if let Some(until) = self.until {
            write!(out, "It will be tried until {until}.\r\n")?;
        }
        for recipient in self.recipients {
            write!(out, "\r\n<{}>:", recipient.address)?;
            if !recipient.relay.is_empty() {
                let verb = if recipient.said { " said" } else { "" };
                write!(out, " host {}{verb}:", plain(&recipient.relay, true))?;
            }
            fold(out, &plain(&recipient.text, true));
            out.push_str("\r\n");
        }
        out.push_str("\r\n");
        Ok(())
    }

    fn for_machines(&self, out: &mut String, boundary: &str) -> std::fmt::Result {
        write!(out, "--{boundary}\r\nContent-Description: Delivery report\r\n")?;
        out.push_str(match self.is_global() {
            false => "Content-Type: message/delivery-status\r\n\r\n",
            true => "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        });
        // RFC 3464 2.2: fields for the message, then a block for each recipient.
        write!(out, "Reporting-MTA: dns; {}\r\n", self.hostname)?;
        if let Some(envid) = self.envid {
            let envid = from_xtext(envid).unwrap_or_else(|| envid.to_string());
            write!(out, "Original-Envelope-Id: {}\r\n", plain(&envid, self.is_global()))?;
        }
        write!(out, "X-Posta-Queue-Id: {}\r\nArrival-Date: {}\r\n", self.id, self.arrived)?;
        for recipient in self.recipients {
            out.push_str("\r\n");
            recipient.block(out, self.until, self.is_global())?;
        }
        out.push_str("\r\n");
        Ok(())
    }

    fn original(&self, out: &mut String, boundary: &str) -> std::fmt::Result {
        write!(out, "--{boundary}\r\n")?;
        let (description, kind) = match (self.given_back, self.is_global()) {
            (GivenBack::Header, false) => ("Message header", "text/rfc822-headers"),
            (GivenBack::Header, true) => ("Message header", "message/global-headers"),
            (GivenBack::Whole, false) => ("Undelivered message", "message/rfc822"),
            (GivenBack::Whole, true) => ("Undelivered message", "message/global"),
        };
        write!(out, "Content-Description: {description}\r\nContent-Type: {kind}\r\n")?;
        if self.eight_bit {
            out.push_str("Content-Transfer-Encoding: 8bit\r\n");
        }
        out.push_str("\r\n");
        Ok(())
    }
}

impl Reported {
    /// The fields of RFC 3464 2.3.
    fn block(&self, out: &mut String, until: Option<&str>, utf8: bool) -> std::fmt::Result {
        if let Some(original) = self.original.as_deref().and_then(|orcpt| original_recipient(orcpt, utf8)) {
            write!(out, "Original-Recipient: {original}\r\n")?;
        }
        write!(out, "Final-Recipient: {}\r\n", final_recipient(&self.address, utf8))?;
        write!(out, "Action: {}\r\nStatus: {}\r\n", self.action.word(), self.status)?;
        let host = self.relay.split('[').next().unwrap_or_default();
        if self.said && !host.is_empty() {
            write!(out, "Remote-MTA: dns; {}\r\n", plain(host, utf8))?;
        }
        let kind = if self.said { "smtp" } else { "x-posta" };
        write!(out, "Diagnostic-Code: {kind};")?;
        fold(out, &plain(&self.text, utf8));
        out.push_str("\r\n");
        if let Some(until) = until.filter(|_| self.action == Action::Delayed) {
            write!(out, "Will-Retry-Until: {until}\r\n")?;
        }
        Ok(())
    }
}

/// Appends words, each after a blank, and folds before a line grows beyond 76 octets; a word longer
/// than that is cut to pieces, so that no line breaks RFC 5322 2.1.1.
fn fold(out: &mut String, text: &str) {
    let mut column = out.len() - out.rfind('\n').map_or(0, |at| at + 1);
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let mut rest = word;
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(rest.floor_char_boundary(200.min(rest.len())));
            if column > 1 && column + 1 + piece.len() > 76 {
                out.push_str("\r\n   ");
                column = 3;
            }
            out.push(' ');
            out.push_str(piece);
            column += 1 + piece.len();
            rest = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(action: Action, status: Status, text: &str) -> Reported {
        Reported {
            action,
            address: Mailbox::parse("bob@elsewhere.example", false).unwrap(),
            original: Some("rfc822;Bob+2B1@elsewhere.example".into()),
            status,
            text: text.into(),
            relay: "mx.elsewhere.example[192.0.2.1]:25".into(),
            said: true,
        }
    }

    fn report<'a>(to: &'a Mailbox, recipients: &'a [Reported]) -> Report<'a> {
        Report {
            hostname: "mail.example.org",
            id: "0123456789ABCDE",
            own_id: "0123456789ABCDF",
            to,
            envid: Some("QQ314159"),
            arrived: "Tue, 24 Nov 2026 20:00:00 +0000",
            date: "Tue, 24 Nov 2026 20:00:01 +0000",
            until: None,
            recipients,
            given_back: GivenBack::Header,
            eight_bit: false,
            utf8: false,
            of_bounce: false,
        }
    }

    fn compose(recipients: &[Reported]) -> String {
        let to = Mailbox::parse("alice@example.org", false).unwrap();
        let composed = report(&to, recipients).compose();
        assert!(!composed.eight_bit && !composed.utf8);
        String::from_utf8(composed.before).unwrap()
            + "Subject: x\r\n"
            + std::str::from_utf8(&composed.after).unwrap()
    }

    #[test]
    fn a_failure_is_a_multipart_report() {
        let text = compose(&[reported(Action::Failed, Status::new(5, 1, 1), "550 5.1.1 no such user")]);
        for line in [
            "Content-Type: multipart/report; report-type=delivery-status;",
            "Reporting-MTA: dns; mail.example.org",
            "Original-Envelope-Id: QQ314159",
            "Original-Recipient: rfc822; Bob+1@elsewhere.example",
            "Final-Recipient: rfc822; bob@elsewhere.example",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.elsewhere.example",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user",
            "Content-Type: text/rfc822-headers",
            "--0123456789ABCDF/mail.example.org--",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        }
        assert!(text.split("\r\n").all(|l| !l.contains('\n') && l.len() < 200), "{text}");
    }

    #[test]
    fn what_a_remote_says_starts_no_field() {
        let text =
            compose(&[reported(Action::Failed, Status::new(5, 0, 0), "550 x\r\nStatus: 2.0.0\r\n\r\nBody")]);
        assert!(!text.contains("\r\nStatus: 2.0.0"), "{text}");
        let long = compose(&[reported(Action::Failed, Status::new(5, 0, 0), &"y".repeat(5000))]);
        assert!(long.split("\r\n").all(|l| l.len() < 998), "{long}");
    }

    #[test]
    fn a_report_has_utf8_only_where_the_original_had() {
        let to = Mailbox::parse("alice@example.org", false).unwrap();
        let address = Mailbox::parse("jörg@elsewhere.example", true).unwrap();
        let recipients = [Reported { address, ..reported(Action::Failed, Status::new(5, 1, 1), "550 nö") }];
        let plain = report(&to, &recipients).compose();
        let text = String::from_utf8(plain.before).unwrap();
        assert!(plain.eight_bit && !plain.utf8);
        for line in [
            "Content-Transfer-Encoding: 8bit",
            "Content-Type: message/delivery-status",
            r"Final-Recipient: utf-8; j\x{F6}rg@elsewhere.example",
            "Diagnostic-Code: smtp; 550 n?",
            "<jörg@elsewhere.example>: host mx.elsewhere.example[192.0.2.1]:25 said: 550 nö",
            "Content-Type: text/rfc822-headers",
        ] {
            assert!(text.replace("\r\n   ", "").lines().any(|l| l == line), "{line:?} in\n{text}");
        }
        let global =
            Report { utf8: true, given_back: GivenBack::Whole, ..report(&to, &recipients) }.compose();
        let text = String::from_utf8(global.before).unwrap();
        assert!(global.eight_bit && global.utf8);
        for line in [
            "Content-Type: message/global-delivery-status",
            "Final-Recipient: utf-8; jörg@elsewhere.example",
            "Diagnostic-Code: smtp; 550 nö",
            "Content-Type: message/global",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        }
    }
}
