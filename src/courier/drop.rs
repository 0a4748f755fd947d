//! What `posta-drop` says to posta-queue over `run/drop` where it can't write into `spool/drop`
//! itself (no set-group-id), and the answer.
//!
//! One submission a connection: a packet of fields with a file attached, which holds the bare
//! message (CRLF line ends, dots undone) and has no name. Who submits is known by SO_PEERCRED, not
//! by what the packet says.

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::{Notify, Recipient, Ret};
use crate::mail::id::Id;

use super::fields::{FieldError, Reader, Writer};

/// A message's envelope, as a user of this host gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Who gets the errors.
    pub sender: ReversePath,
    /// ENVID, in xtext.
    pub envid: Option<String>,
    /// RET
    pub ret: Option<Ret>,
    /// At least one.
    pub recipients: Vec<Recipient>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropped {
    /// Stored durably, under this id.
    Taken(Id),
    /// Not taken, and why.
    Failed(String),
}

impl Submission {
    /// The packet: `sender`, `envid`, `ret`, then for each recipient `to`, `notify`, `orcpt`. An
    /// error if it grows beyond one packet.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        w.put_text("sender", &self.sender);
        w.put_some("envid", self.envid.as_ref());
        w.put_some("ret", self.ret.map(|r| if r == Ret::Full { "FULL" } else { "HDRS" }));
        for recipient in &self.recipients {
            w.put_text("to", &recipient.address);
            w.put_some("notify", recipient.notify.keyword());
            w.put_some("orcpt", recipient.original.as_ref());
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Submission, FieldError> {
        let mut r = Reader::new(packet);
        let sender = r.text("sender")?;
        let sender = ReversePath::parse(sender, true).map_err(|_| FieldError::Value("sender"))?;
        let envid = r.optional_text("envid")?.map(str::to_string);
        let ret = match r.optional_text("ret")? {
            None => None,
            Some("FULL") => Some(Ret::Full),
            Some("HDRS") => Some(Ret::Headers),
            Some(_) => return Err(FieldError::Value("ret")),
        };
        let mut recipients = Vec::new();
        while !r.is_done() {
            let address = Mailbox::parse(r.text("to")?, true).map_err(|_| FieldError::Value("to"))?;
            let notify = match r.optional_text("notify")? {
                None => Notify::default(),
                Some(word) => Notify::parse(word).ok_or(FieldError::Value("notify"))?,
            };
            let original = r.optional_text("orcpt")?.map(str::to_string);
            recipients.push(Recipient { address, notify, original });
        }
        if recipients.is_empty() {
            return Err(FieldError::Missing("to"));
        }
        Ok(Submission { sender, envid, ret, recipients })
    }
}

impl Dropped {
    /// The packet.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        match self {
            Dropped::Taken(id) => w.put("id", id.as_str()),
            Dropped::Failed(why) => w.put("failed", why),
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Dropped, FieldError> {
        let mut r = Reader::new(packet);
        if let Some(why) = r.optional_text("failed")? {
            return Ok(Dropped::Failed(why.to_string()));
        }
        Id::parse(r.text("id")?).map(Dropped::Taken).ok_or(FieldError::Value("id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(recipients: usize) -> Submission {
        let to = |n: usize| Recipient {
            notify: Notify::parse("DELAY").unwrap(),
            original: (n == 0).then(|| "rfc822;x@y".to_string()),
            ..Recipient::plain(Mailbox::parse(&format!("user{n}@example.net"), false).unwrap())
        };
        Submission {
            sender: ReversePath::Null,
            envid: Some("QQ314159".into()),
            ret: Some(Ret::Headers),
            recipients: (0..recipients).map(to).collect(),
        }
    }

    #[test]
    fn submissions_and_answers_read_back() {
        let packet = submission(2).encode().unwrap();
        assert_eq!(Submission::decode(&packet), Ok(submission(2)));
        for answer in
            [Dropped::Taken(Id::parse("0123456789ABCDE").unwrap()), Dropped::Failed("disk full".into())]
        {
            assert_eq!(Dropped::decode(&answer.encode().unwrap()), Ok(answer));
        }
    }

    #[test]
    fn one_without_recipients_or_too_long_for_a_packet_is_none() {
        assert_eq!(Submission::decode(&submission(0).encode().unwrap()), Err(FieldError::Missing("to")));
        assert!(matches!(submission(10_000).encode(), Err(FieldError::TooLong(_))));
        assert!(Submission::decode(b"sender 7:a@b\r\nx\nto 3:a@b\n").is_err());
    }
}
