//! What `postactl` (and `sendmail -bp`, `sendmail -q`) asks of posta-queue over `run/queue`, and its
//! answers. One order a connection; the answers are packets, the last one is [`Answer::End`].

use crate::mail::id::Id;

use super::fields::{FieldError, Reader, Writer};
use super::wait::Wait;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Every message: rows.
    List,
    /// One message: its row, then its journal in words.
    Show(Id),
    /// One message: its queue file, attached to a text with the message's length.
    Cat(Id),
    /// Try again now: one message.
    RetryId(Id),
    /// Try again now: what waits for this domain.
    RetryDomain(String),
    /// Try again now: everything.
    RetryAll,
    /// Remove without a word to anybody.
    Delete(Id),
    /// Leave alone until released.
    Hold(Id),
    /// End of a hold.
    Release(Id),
    /// Give up: tell the sender.
    Bounce(Id),
    /// One pass: answered with `End` when everything due has been tried once.
    Pass,
    /// Counters, as text.
    Metrics,
    /// Leave mail for this domain's destination alone until it is resumed.
    Pause(String),
    /// The end of a pause.
    Resume(String),
    /// What waits for what, and until when: a line for each destination.
    When,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A message.
    Row(Row),
    /// A destination that something waits for.
    Wait(Wait),
    /// A line for people.
    Text(String),
    /// The order was not carried out: what kind of reason that has, and the reason for people.
    Failed(Failure, String),
    /// The order is carried out and nothing more comes.
    End,
}

/// What kind of reason there is for an order that was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It makes no sense as things are: there is no such message, or it is not on hold.
    Wrong,
    /// Whoever gave it may not.
    Denied,
    /// Something is lacking now: a file that can't be read, a free place.
    Later,
}

impl Failure {
    const WORDS: [(Failure, &'static str); 3] =
        [(Failure::Wrong, "wrong"), (Failure::Denied, "denied"), (Failure::Later, "later")];

    fn word(self) -> &'static str {
        Failure::WORDS[self as usize].1
    }

    fn parse(word: &str) -> Option<Failure> {
        Failure::WORDS.into_iter().find(|(_, known)| *known == word).map(|(failure, _)| failure)
    }
}

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Queue id.
    pub id: Id,
    /// `new`, `active`, `deferred`, `held`.
    pub state: String,
    /// Envelope sender; empty for the null sender.
    pub sender: String,
    /// Outstanding recipients.
    pub recipients: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// Microseconds since 1970.
    pub arrived: u64,
    /// When it is tried next: seconds since 1970.
    pub next: Option<u64>,
    /// Why it is still here.
    pub reason: String,
}

impl Order {
    fn words(&self) -> (&'static str, Option<String>) {
        match self {
            Order::List => ("list", None),
            Order::Show(id) => ("show", Some(id.to_string())),
            Order::Cat(id) => ("cat", Some(id.to_string())),
            Order::RetryId(id) => ("retry-id", Some(id.to_string())),
            Order::RetryDomain(domain) => ("retry-domain", Some(domain.clone())),
            Order::RetryAll => ("retry-all", None),
            Order::Delete(id) => ("delete", Some(id.to_string())),
            Order::Hold(id) => ("hold", Some(id.to_string())),
            Order::Release(id) => ("release", Some(id.to_string())),
            Order::Bounce(id) => ("bounce", Some(id.to_string())),
            Order::Pass => ("pass", None),
            Order::Metrics => ("metrics", None),
            Order::Pause(domain) => ("pause", Some(domain.clone())),
            Order::Resume(domain) => ("resume", Some(domain.clone())),
            Order::When => ("when", None),
        }
    }

    /// Whether any user of this host may give it; all others are for root and posta-queue's user.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Order::List | Order::Pass | Order::Metrics | Order::When)
    }

    /// The packet.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let (word, of) = self.words();
        let mut w = Writer::default();
        w.put("order", word);
        w.put_some("of", of);
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Order, FieldError> {
        let mut r = Reader::new(packet);
        let word = r.text("order")?;
        let of = r.optional_text("of")?;
        let id = || of.and_then(Id::parse).ok_or(FieldError::Value("of"));
        let domain = || of.map(str::to_string).ok_or(FieldError::Missing("of"));
        Ok(match word {
            "list" => Order::List,
            "show" => Order::Show(id()?),
            "cat" => Order::Cat(id()?),
            "retry-id" => Order::RetryId(id()?),
            "retry-domain" => Order::RetryDomain(domain()?),
            "retry-all" => Order::RetryAll,
            "delete" => Order::Delete(id()?),
            "hold" => Order::Hold(id()?),
            "release" => Order::Release(id()?),
            "bounce" => Order::Bounce(id()?),
            "pass" => Order::Pass,
            "metrics" => Order::Metrics,
            "pause" => Order::Pause(domain()?),
            "resume" => Order::Resume(domain()?),
            "when" => Order::When,
            _ => return Err(FieldError::Value("order")),
        })
    }
}

impl Answer {
    /// The packet. A row too long for one names as many recipients as fit.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        match self {
            Answer::Row(row) => row.encode(&mut w),
            Answer::Wait(wait) => wait.encode(&mut w),
            Answer::Text(text) => w.put("text", text),
            Answer::Failed(failure, why) => {
                w.put("failed", failure.word());
                w.put("why", why);
            }
            Answer::End => w.put("end", ""),
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Answer, FieldError> {
        let mut r = Reader::new(packet);
        if let Some(text) = r.optional_text("text")? {
            return Ok(Answer::Text(text.to_string()));
        }
        if let Some(destination) = r.optional_text("wait")? {
            return Wait::decode(destination, &mut r).map(Answer::Wait);
        }
        if let Some(word) = r.optional_text("failed")? {
            let failure = Failure::parse(word).ok_or(FieldError::Value("failed"))?;
            return Ok(Answer::Failed(failure, r.text("why")?.to_string()));
        }
        if r.optional("end")?.is_some() {
            return Ok(Answer::End);
        }
        Row::decode(&mut r).map(Answer::Row)
    }
}

impl Row {
    fn encode(&self, w: &mut Writer) {
        w.put("id", self.id.as_str());
        w.put("state", &self.state);
        w.put("sender", &self.sender);
        w.put_text("size", self.size);
        w.put_text("arrived", self.arrived);
        w.put_some("next", self.next.map(|n| n.to_string()));
        w.put("reason", &self.reason);
        for recipient in &self.recipients {
            if w.len() + recipient.len() + 64 > crate::unix::pass::MAX_PACKET {
                break;
            }
            w.put("to", recipient);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Row, FieldError> {
        let id = Id::parse(r.text("id")?).ok_or(FieldError::Value("id"))?;
        let state = r.text("state")?.to_string();
        let sender = r.text("sender")?.to_string();
        let size = r.value("size")?;
        let arrived = r.value("arrived")?;
        let next =
            r.optional_text("next")?.map(str::parse).transpose().map_err(|_| FieldError::Value("next"))?;
        let reason = r.text("reason")?.to_string();
        let mut recipients = Vec::new();
        while !r.is_done() {
            recipients.push(r.text("to")?.to_string());
        }
        Ok(Row { id, state, sender, recipients, size, arrived, next, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::parse("0123456789ABCDE").unwrap()
    }

    #[test]
    fn orders_read_back() {
        let orders = [
            Order::List,
            Order::Show(id()),
            Order::Cat(id()),
            Order::RetryId(id()),
            Order::RetryAll,
            Order::RetryDomain("example.net".into()),
            Order::Delete(id()),
            Order::Hold(id()),
            Order::Release(id()),
            Order::Bounce(id()),
            Order::Pass,
            Order::Metrics,
            Order::Pause("example.net".into()),
            Order::Resume("example.net".into()),
            Order::When,
        ];
        for order in orders {
            assert_eq!(Order::decode(&order.encode().unwrap()), Ok(order));
        }
        assert!(Order::decode(b"order 4:show\n").is_err());
    }

    #[test]
    fn answers_read_back_and_a_long_list_is_cut() {
        let row = |n: usize| Row {
            id: id(),
            state: "deferred".into(),
            sender: String::new(),
            recipients: (0..n).map(|n| format!("user{n}@example.net")).collect(),
            size: 7,
            arrived: 1,
            next: Some(2),
            reason: "connection refused".into(),
        };
        let wait = |rests| Wait {
            destination: "example.net".into(),
            deferred: 3,
            next: Some(7),
            queued: 2,
            running: 1,
            paused: true,
            rests,
        };
        for wait in [wait(None), wait(Some((9, "connection refused".into())))] {
            let answer = Answer::Wait(wait);
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }
        let failed = Failure::WORDS.map(|(failure, _)| Answer::Failed(failure, "y".into()));
        for answer in [Answer::Row(row(2)), Answer::Text("x".into()), Answer::End].into_iter().chain(failed) {
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }
        assert!(Answer::Row(row(10_000)).encode().is_ok());
    }
}
