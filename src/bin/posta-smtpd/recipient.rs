//! May mail be taken for this recipient?
//!
//! It is decided here, before the message comes: an unknown user is refused, never accepted and
//! bounced, and a look-up that fails is a "later".

use std::time::Instant;

use posta::mail::address::Mailbox;
use posta::policy::verdict::Verdict;

use crate::house::Terms;
use crate::judge::Asker;

/// Decides about a recipient.
pub fn judge(terms: &Terms, asker: Asker<'_>, recipient: &Mailbox, now: Instant) -> Verdict {
    let judged = || terms.router.judge_from(asker.sender, recipient);
    terms.policy.recipient(asker.client, asker.sender, recipient, judged, now)
}
