//! A mail transaction, from MAIL to the end of data (RFC 5321 3.3).

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::mail::address::ReversePath;
use crate::mail::envelope::{BodyKind, Recipient, Ret};

use super::extension::MailParams;

/// A transaction: one value, dropped whole (RFC 5321 4.1.1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Who gets the errors.
    pub sender: ReversePath,
    /// RET (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 4.4), in xtext.
    pub envid: Option<String>,
    /// BODY (RFC 6152, RFC 3030 3).
    pub body: BodyKind,
    /// SMTPUTF8 was said (RFC 6531).
    pub utf8: bool,
    /// REQUIRETLS was said (RFC 8689).
    pub require_tls: bool,
    /// SIZE as declared (RFC 1870), in octets.
    pub size: Option<u64>,
    /// Accepted so far, each mailbox once.
    pub recipients: Vec<Recipient>,
    /// RCPT commands that were answered 250, duplicates included.
    pub accepted: usize,
    /// RCPT commands that were refused.
    pub refused: usize,
    /// BDAT has begun: octets of the chunks so far (RFC 3030 2).
    pub chunked: Option<u64>,
    /// Where a recipient stands in `recipients`, by its hash.
    known: HashMap<u64, usize, BuildHasherDefault<DefaultHasher>>,
}

impl Transaction {
    /// A transaction without recipients.
    pub fn begin(sender: ReversePath, params: MailParams) -> Transaction {
        Transaction {
            sender,
            ret: params.ret,
            envid: params.envid,
            body: params.body,
            utf8: params.utf8,
            require_tls: params.require_tls,
            size: params.size,
            recipients: Vec::new(),
            accepted: 0,
            refused: 0,
            chunked: None,
            known: HashMap::default(),
        }
    }

    /// Adds a recipient. One that is there already is counted and keeps its first wishes: it gets
    /// one copy (RFC 5321 3.3).
    pub fn add(&mut self, recipient: Recipient) {
        self.accepted += 1;
        let hash = self.known.hasher().hash_one(&recipient.address);
        let at = *self.known.entry(hash).or_insert(self.recipients.len());
        if self.recipients.get(at).is_none_or(|known| known.address != recipient.address) {
            self.recipients.push(recipient);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mail::address::Mailbox;
    use crate::mail::envelope::Notify;

    use super::*;

    #[test]
    fn a_mailbox_is_taken_once() {
        let mut transaction = Transaction::begin(ReversePath::Null, MailParams::default());
        let recipient = |text| Recipient::plain(Mailbox::parse(text, false).unwrap());
        transaction.add(Recipient { notify: Notify::parse("NEVER").unwrap(), ..recipient("a@x") });
        for text in ["\"a\"@X.", "b@x", "a@x", "A@x"] {
            transaction.add(recipient(text));
        }
        let taken: Vec<String> = transaction.recipients.iter().map(|r| r.address.to_string()).collect();
        assert_eq!(taken, ["a@x", "b@x", "A@x"]);
        assert_eq!(transaction.accepted, 5);
        assert!(transaction.recipients[0].notify.given);
    }
}
