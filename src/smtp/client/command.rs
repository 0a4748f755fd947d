//! What is said in a transaction, and its wire form.

use std::fmt::Write;

use crate::mail::envelope::{BodyKind, Recipient, Ret};

use super::offer::Offer;
use super::session::{Mail, Phase};

/// What can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// A chunk that is not the last.
    Chunk,
    /// The final dot, or the last chunk: for all accepted recipients, or (LMTP) for this one.
    End(Option<usize>),
    /// The final dot of a message for nobody.
    EndOfNothing,
}

impl Command {
    /// What its answer is waited for as.
    pub(super) fn phase(self) -> Phase {
        match self {
            Command::Reset => Phase::Reset,
            Command::Mail => Phase::Mail,
            Command::Recipient(_) => Phase::Recipient,
            Command::Data => Phase::Data,
            Command::Chunk => Phase::Chunk,
            Command::End(_) | Command::EndOfNothing => Phase::End,
        }
    }

    /// Appends the command's wire form. Writing to a string can't fail.
    pub(super) fn write(self, mail: &Mail, offer: &Offer, wire: &mut String) {
        match self {
            Command::Reset => wire.push_str("RSET"),
            Command::Mail => write_mail(mail, offer, wire),
            Command::Recipient(n) => write_recipient(&mail.recipients[n], offer, wire),
            Command::Data => wire.push_str("DATA"),
            Command::End(_) | Command::EndOfNothing => wire.push('.'),
            // Written by who has its octets.
            Command::Chunk => return,
        }
        wire.push_str("\r\n");
    }
}

fn write_mail(mail: &Mail, offer: &Offer, wire: &mut String) {
    let _ = write!(wire, "MAIL FROM:<{}>", mail.sender);
    if offer.size.is_some() {
        let _ = write!(wire, " SIZE={}", mail.size);
    }
    match mail.body {
        BodyKind::EightBitMime if offer.eight_bit_mime => wire.push_str(" BODY=8BITMIME"),
        BodyKind::BinaryMime if offer.binary_mime => wire.push_str(" BODY=BINARYMIME"),
        _ => {}
    }
    if mail.utf8 && offer.utf8 {
        wire.push_str(" SMTPUTF8");
    }
    if mail.require_tls && offer.require_tls {
        wire.push_str(" REQUIRETLS");
    }
    if offer.dsn {
        // RFC 3461 5.2.1: passed on as they came.
        match mail.ret {
            Some(Ret::Full) => wire.push_str(" RET=FULL"),
            Some(Ret::Headers) => wire.push_str(" RET=HDRS"),
            None => {}
        }
        write_value("ENVID", mail.envid.as_deref(), wire);
    }
}

fn write_recipient(recipient: &Recipient, offer: &Offer, wire: &mut String) {
    let _ = write!(wire, "RCPT TO:<{}>", recipient.address);
    if offer.dsn {
        write_value("NOTIFY", recipient.notify.keyword().as_deref(), wire);
        write_value("ORCPT", recipient.original.as_deref(), wire);
    }
}

/// A parameter with a value (RFC 5321 4.1.2: esmtp-value); what could not be one is left out.
fn write_value(keyword: &str, value: Option<&str>, wire: &mut String) {
    let fits = |value: &&str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    if let Some(value) = value.filter(fits) {
        let _ = write!(wire, " {keyword}={value}");
    }
}
