//! The session's questions, and who answers them.

use std::time::Instant;

use posta::mail::address::ReversePath;
use posta::policy;
use posta::policy::chain::Client;
use posta::smtp::server::{Question, Verdict};

use crate::house::Terms;
use crate::recipient;

/// Decides about a sender or a recipient.
pub fn judge(terms: &Terms, client: &Client, question: &Question) -> Verdict {
    match question {
        Question::Sender(sender) => judge_sender(terms, client, sender),
        Question::Recipient(recipient) => recipient::judge(terms, client, recipient.as_ref()),
    }
}

/// Whether the client may begin a message. Any sender will do: without the DNS nothing is known of
/// it, and a null sender is as good as another (RFC 5321 4.5.5).
fn judge_sender(terms: &Terms, client: &Client, _sender: &ReversePath) -> Verdict {
    verdict(terms.policy.sender(client, Instant::now()))
}

/// What policy says, as the session wants to hear it.
pub fn verdict(said: policy::verdict::Verdict) -> Verdict {
    match said {
        policy::verdict::Verdict::Accept => Verdict::Accept(None),
        policy::verdict::Verdict::Refuse(reply) => Verdict::Refuse(reply),
        policy::verdict::Verdict::HangUp(reply) => Verdict::HangUp(reply),
    }
}
