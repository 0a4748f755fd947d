//! What a hand answers.

use crate::mail::id::Id;
use crate::mail::status::{Fate, Status};

use super::fields::{FieldError, Reader, Writer};
use super::forward::Forward;

/// Most bytes of a remote's words that an answer carries.
pub const MAX_TEXT: usize = 512;

/// Most bytes of what an answer says of TLS.
const MAX_TLS: usize = 128;

/// A packet from a hand to posta-queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHand {
    /// The greeting: so many jobs may be under way at once.
    Credits(u32),
    /// What became of a job.
    Report(Report),
}

/// What became of each recipient of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The request's number.
    pub job: u64,
    /// One for each recipient of the request.
    pub outcomes: Vec<Outcome>,
    /// No host of this destination could be reached at all: others for it may wait too.
    pub unreachable: bool,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The recipient's number within the message.
    pub n: u32,
    /// Enhanced status code; its class is the fate.
    pub status: Status,
    /// For the log and the sender: the remote's words, or ours.
    pub text: String,
    /// The host that said so, as `host[address]:port`, or `local`; empty if no host was reached.
    pub relay: String,
    /// The text is a remote server's reply, word for word: it goes into Diagnostic-Code as `smtp`.
    pub said: bool,
    /// DSN parameters went along: the next hop answers for the sender's wishes (RFC 3461 5.2.1).
    pub passed_on: bool,
    /// How the way there was protected, and what was wanted of it, for the history; empty if there was
    /// no way, or none to protect.
    pub tls: String,
    /// The session that was kept, since something went wrong in it.
    pub session: Option<Id>,
    /// It is not delivered but to be forwarded, by the owner's wish: the queue does that, and only
    /// then the recipient is done.
    pub forward: Option<Forward>,
}

impl Outcome {
    /// Delivered, not delivered yet, or never to be.
    pub fn fate(&self) -> Fate {
        self.status.fate()
    }
}

impl FromHand {
    /// The packet. Texts are cut at [`MAX_TEXT`], so that 100 outcomes always fit.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        match self {
            FromHand::Credits(credits) => w.put_text("credits", credits),
            FromHand::Report(report) => {
                w.put_text("job", report.job);
                w.put("unreachable", if report.unreachable { "y" } else { "n" });
                let mut before = ("", None);
                for outcome in &report.outcomes {
                    outcome.encode(&mut w, before);
                    before = (&outcome.tls, outcome.session);
                }
            }
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<FromHand, FieldError> {
        let mut r = Reader::new(packet);
        if r.optional("credits")?.is_some() {
            return Reader::new(packet).value("credits").map(FromHand::Credits);
        }
        let job = r.value("job")?;
        let unreachable = r.bytes("unreachable")? == b"y";
        let mut outcomes = Vec::new();
        while !r.is_done() {
            let outcome = Outcome::decode(&mut r, outcomes.last())?;
            outcomes.push(outcome);
        }
        Ok(FromHand::Report(Report { job, outcomes, unreachable }))
    }
}

impl Outcome {
    /// What is the same as in the outcome before is left out: all may have gone the same way.
    fn encode(&self, w: &mut Writer, (tls, session): (&str, Option<Id>)) {
        w.put_some("tls", (self.tls != tls).then(|| cut(&self.tls, MAX_TLS)));
        let named = self.session.as_ref().map_or("", Id::as_str);
        w.put_some("session", (self.session != session).then_some(named));
        w.put_text("n", self.n);
        w.put_text("status", self.status);
        w.put("text", cut(&self.text, MAX_TEXT));
        w.put("relay", cut(&self.relay, MAX_TEXT / 4));
        w.put_text(
            "flags",
            format_args!("{}{}", if self.said { "s" } else { "" }, if self.passed_on { "p" } else { "" }),
        );
        if let Some(forward) = &self.forward {
            forward.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>, before: Option<&Outcome>) -> Result<Outcome, FieldError> {
        let tls = match r.optional_text("tls")? {
            Some(tls) => tls.to_string(),
            None => before.map(|before| before.tls.clone()).unwrap_or_default(),
        };
        let session = match r.optional_text("session")? {
            Some("") => None,
            Some(id) => Some(Id::parse(id).ok_or(FieldError::Value("session"))?),
            None => before.and_then(|before| before.session),
        };
        let n = r.value("n")?;
        let status = Status::parse(r.text("status")?).ok_or(FieldError::Value("status"))?;
        let text = r.text("text")?.to_string();
        let relay = r.text("relay")?.to_string();
        let flags = r.text("flags")?;
        let (said, passed_on) = (flags.contains('s'), flags.contains('p'));
        let forward = Forward::decode(r)?;
        Ok(Outcome { n, status, text, relay, said, passed_on, tls, session, forward })
    }
}

/// The first `most` bytes of a text, less what would split a character.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(n: u32, text: &str) -> Outcome {
        let status = Status::new(4, 2, 2);
        Outcome {
            n,
            status,
            text: text.into(),
            relay: "mx[192.0.2.1]:25".into(),
            said: true,
            passed_on: false,
            tls: String::new(),
            session: None,
            forward: None,
        }
    }

    #[test]
    fn answers_read_back() {
        let session = Id::parse("0123456789ABCDE");
        let by_tls = |n| Outcome { tls: "Verified TLSv1.3".into(), session, ..outcome(n, "250 ok") };
        let outcomes = vec![outcome(1, "452 full"), by_tls(2), by_tls(3), outcome(4, "")];
        let report = Report { job: 9, outcomes, unreachable: true };
        for answer in [FromHand::Credits(200), FromHand::Report(report)] {
            assert_eq!(FromHand::decode(&answer.encode().unwrap()), Ok(answer));
        }
    }

    #[test]
    fn what_a_forward_says_reads_back() {
        use crate::mail::address::Mailbox;

        use super::super::request::Place;

        let forward = Forward {
            addresses: vec![Mailbox::parse("\"a b\"@example.net", false).unwrap()],
            places: vec![Place::Command("cat -n, x".into()), Place::Maildir("~/Maildir/".into())],
        };
        let outcomes = [Some(forward), Some(Forward::default()), None];
        let outcomes = (0..).zip(outcomes).map(|(n, forward)| Outcome { forward, ..outcome(n, "x") });
        let report = FromHand::Report(Report { job: 9, outcomes: outcomes.collect(), unreachable: false });
        assert_eq!(FromHand::decode(&report.encode().unwrap()), Ok(report));
    }

    #[test]
    fn a_hundred_long_texts_fit() {
        let text = "ä".repeat(4000);
        let outcomes = (0..100).map(|n| outcome(n, &text)).collect();
        let packet = FromHand::Report(Report { job: 1, outcomes, unreachable: false }).encode().unwrap();
        assert!(matches!(FromHand::decode(&packet), Ok(FromHand::Report(r)) if r.outcomes.len() == 100));
    }
}
