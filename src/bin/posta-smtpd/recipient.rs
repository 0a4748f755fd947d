//! May mail be taken for this recipient?
//!
//! It is decided here, before the message comes: an unknown user is refused, never accepted and
//! bounced, and a look-up that fails is a "later".

use std::time::Instant;

use posta::mail::address::Mailbox;
use posta::policy::chain::Client;
use posta::smtp::server::Verdict;

use crate::house::Terms;
use crate::judge::verdict;

/// Decides about a recipient; none is `<postmaster>` without a domain.
pub fn judge(terms: &Terms, client: &Client, recipient: Option<&Mailbox>) -> Verdict {
    let Some(recipient) = recipient else {
        // RFC 5321 4.5.1: always somebody, whoever asks and however often.
        return Verdict::Accept(terms.router.qualify("postmaster"));
    };
    let judged = || terms.router.judge(recipient);
    verdict(terms.policy.recipient(client, recipient, judged, Instant::now()))
}
