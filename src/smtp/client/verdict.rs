//! What an attempt at one host came to.

use crate::mail::status::{Fate, Status};

use super::reply::Reply;

/// What a host said, or what happened to us there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The enhanced status code; its class is the fate.
    pub status: Status,
    /// The host's reply on one line, or our words.
    pub text: String,
    /// The text is the host's.
    pub said: bool,
}

impl Finding {
    /// Something that happened to us.
    pub fn ours(status: Status, text: impl Into<String>) -> Finding {
        Finding { status, text: text.into(), said: false }
    }

    /// What the host said.
    pub fn said(reply: &Reply) -> Finding {
        Finding { status: reply.status(), text: reply.text(), said: true }
    }

    /// The same, but not for good: what looks permanent becomes temporary.
    pub fn for_now(mut self) -> Finding {
        if self.status.fate() == Fate::Never {
            self.status.class = 4;
        }
        self
    }

    /// A greeting that is none. RFC 7504 3: 521 says that this host never takes mail; any other refusal
    /// may be about us or about now, so it does not bounce mail by itself.
    pub(super) fn unwelcome(reply: &Reply) -> Finding {
        let finding = Finding::said(reply);
        if reply.code == 521 { finding } else { finding.for_now() }
    }

    /// The peer did not keep to the protocol.
    pub(super) fn protocol(reply: &Reply) -> Finding {
        Finding::ours(Status::new(4, 5, 0), format!("unexpected reply: {}", reply.text()))
    }
}

/// What becomes of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, refused, or not now: no other host is to be asked in this attempt.
    Final(Finding),
    /// This host did not come to a decision about the recipient; another one may be asked.
    Open(Finding),
    /// One too many for this transaction: to be sent in the next one (RFC 5321 4.5.3.1.10).
    Surplus,
}
