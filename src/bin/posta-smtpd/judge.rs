//! The session's questions, and who answers them.

use std::time::Instant;

use posta::mail::address::ReversePath;
use posta::policy;
use posta::policy::access::Row;
use posta::policy::chain::Client;
use posta::smtp::server::{Question, Verdict};

use crate::house::Terms;
use crate::recipient;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub client: &'a Client,
    /// What it calls itself.
    pub helo: &'a str,
    /// The transaction's sender.
    pub sender: &'a ReversePath,
}

/// Decides about a sender or a recipient. The answer may be that it is to be accepted and thrown away:
/// then the row of the table that says so comes along.
pub fn judge(terms: &Terms, asker: Asker<'_>, question: &Question) -> (Verdict, Option<Row>) {
    let now = Instant::now();
    let said = match question {
        Question::Sender(sender) => terms.policy.sender(asker.client, asker.helo, sender, now),
        Question::Recipient(Some(recipient)) => recipient::judge(terms, asker, recipient, now),
        // RFC 5321 4.5.1: always somebody, whoever asks and however often.
        Question::Recipient(None) => return (Verdict::Accept(terms.router.qualify("postmaster")), None),
    };
    match said {
        policy::verdict::Verdict::Discard(row) => (Verdict::Accept(None), Some(row)),
        said => (verdict(said), None),
    }
}

/// What policy says, as the session wants to hear it.
pub fn verdict(said: policy::verdict::Verdict) -> Verdict {
    match said {
        policy::verdict::Verdict::Accept | policy::verdict::Verdict::Discard(_) => Verdict::Accept(None),
        policy::verdict::Verdict::Refuse(reply) => Verdict::Refuse(reply),
        policy::verdict::Verdict::HangUp(reply) => Verdict::HangUp(reply),
    }
}
