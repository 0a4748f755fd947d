//! What is accepted and thrown away, because a table of the administrator's says so.
//!
//! It never reaches the queue, and does not vanish in silence: each recipient has a line in the log that
//! names the table and its row.

use posta::mail::address::Mailbox;
use posta::mail::envelope::Envelope;
use posta::mail::id::Id;
use posta::policy::access::Row;
use posta::smtp::server::Question;

/// What of a transaction is to be thrown away.
#[derive(Debug, Default)]
pub struct Discards {
    /// All of it.
    whole: Option<Row>,
    /// For these recipients. There are no more than the transaction may have.
    recipients: Vec<(Mailbox, Row)>,
}

impl Discards {
    /// A question was answered, with that row if what was asked about is to be thrown away. A sender
    /// begins a new transaction.
    pub fn note(&mut self, question: &Question, row: Option<Row>) {
        match (question, row) {
            (Question::Sender(_), row) => *self = Discards { whole: row, recipients: Vec::new() },
            (Question::Recipient(Some(recipient)), Some(row)) => {
                if !self.recipients.iter().any(|(known, _)| known == recipient) {
                    self.recipients.push((recipient.clone(), row));
                }
            }
            (Question::Recipient(_), _) => {}
        }
    }

    /// Takes the recipients out who are to get nothing; each has its line in the log.
    pub fn take_out(&self, envelope: &mut Envelope, id: Id) {
        envelope.recipients.retain(|recipient| {
            let Some(row) = self.row_for(&recipient.address) else { return true };
            let to = &recipient.address;
            log::info!("{id}: to=<{to}>, relay=none, dsn=2.0.0, status=discarded (by {row})");
            false
        });
    }

    fn row_for(&self, address: &Mailbox) -> Option<&Row> {
        let own = self.recipients.iter().find(|(recipient, _)| recipient == address);
        self.whole.as_ref().or(own.map(|(_, row)| row))
    }
}
