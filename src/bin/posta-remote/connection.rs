//! A live connection: the session decides, this does it, each wait with its deadline. How it comes
//! about is in `opening`.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};

use posta::smtp::client::offer::Offer;
use posta::smtp::client::reply::{Reply, ReplyReader};
use posta::smtp::client::session::{Action, BLOCK_LIMIT, Client, Event, Mail, Phase, QUIT};
use posta::smtp::client::verdict::{Finding, Verdict};

use posta::net::stream::{Security, Stream};
use posta::net::tls_client::Assurance;

use crate::count;
use crate::flight::Line;
use crate::message::Message;
use crate::recorder::Recorder;

mod load;
mod opening;

use load::Load;
pub use opening::{Manner, Refusal, host_key, unreachable};

/// How long the last words of a server that stopped listening are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long saying QUIT may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The buffers of a thread, used for one message after the other.
#[derive(Debug, Default)]
pub struct Bench {
    /// What was read from the message.
    pub block: Vec<u8>,
    /// The form in which it goes out.
    octets: Vec<u8>,
    /// What is written.
    wire: Vec<u8>,
}

/// A connection on which greetings are exchanged.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    client: Client,
    peer: String,
    input: Vec<u8>,
    reader: ReplyReader,
    transactions: usize,
    /// How sure we are of the host, under TLS.
    assurance: Option<Assurance>,
    /// See [`host_key`].
    host: String,
    recorder: Recorder,
    /// Its name, if something went wrong in the last transaction.
    odd: Option<Id>,
    /// The server has stopped listening; until then it may say why.
    last_words: Option<Instant>,
    _line: Line,
}

impl Connection {
    /// For the log, as Postfix has it; nothing on a plain connection.
    pub fn security(&self) -> Option<String> {
        let (security, assurance) = (self.stream.security()?, self.assurance?);
        Some(format!(
            "{} TLS connection established to {}: {} with cipher {} ({} bits)",
            assurance.word(),
            self.peer,
            security.version,
            security.cipher,
            security.bits
        ))
    }

    /// The host's name, as logs and reports have it.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Names the host's place and the way to it, as [`host_key`] does.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the host offered.
    pub fn offer(&self) -> &Offer {
        self.client.offer()
    }

    /// How many transactions were begun.
    pub fn transactions(&self) -> usize {
        self.transactions
    }

    /// The session's name, if something went wrong in the last transaction.
    pub fn odd(&self) -> Option<Id> {
        self.odd
    }

    /// How it is protected, for the history: `Verified TLSv1.3 TLS_AES_256_GCM_SHA384 (256 bits)`, or
    /// `none`.
    pub fn cover(&self) -> String {
        let Some((security, assurance)) = self.stream.security().zip(self.assurance) else {
            return "none".to_string();
        };
        let Security { version, cipher, bits, .. } = security;
        format!("{} {version} {cipher} ({bits} bits)", assurance.word())
    }

    /// Whether another transaction may follow: the session allows it, and the host has said nothing
    /// that was not asked for.
    pub fn is_ready(&self) -> bool {
        self.client.is_open() && self.input.is_empty() && !self.is_spent()
    }

    /// Whether the host has had as many transactions as it takes in one session (RFC 9422, MAILMAX).
    pub fn is_spent(&self) -> bool {
        self.offer().limits.mail.is_some_and(|most| self.transactions >= most)
    }

    /// Whether the host has answered anything in the last transaction.
    pub fn was_heard(&self) -> bool {
        self.client.was_heard()
    }

    /// Sends one message: a verdict for each recipient of `mail`.
    pub fn deliver(&mut self, mail: Mail, message: &Message<'_>, bench: &mut Bench) -> Vec<Verdict> {
        count::TRANSACTIONS.add(1);
        count::REUSED.add(u64::from(self.transactions > 0));
        self.transactions += 1;
        let count = mail.recipients.len();
        let mut load = Load::new(message, mail.body, self.offer().chunking, bench);
        let verdicts = match self.talk(Event::Deliver(mail), Some(&mut load)) {
            Action::Finished(verdicts) => verdicts,
            Action::Failed(finding) => vec![Verdict::Open(finding); count],
            _ => vec![Verdict::Open(Finding::ours(Status::new(4, 3, 0), "session out of order")); count],
        };
        let is_good = |verdict: &Verdict| match verdict {
            Verdict::Final(finding) => finding.status.fate() == Fate::Done,
            Verdict::Surplus => true,
            Verdict::Open(_) => false,
        };
        // A kept connection that was dead is nobody's fault.
        self.odd = None;
        if !verdicts.iter().all(is_good) && (self.transactions == 1 || self.was_heard()) {
            self.odd = Some(self.recorder.is_odd());
        }
        verdicts
    }

    /// Ends the session. Like others we do not wait for the answer to QUIT.
    pub fn quit(mut self) {
        self.say_quit();
    }

    fn say_quit(&mut self) {
        self.stream.set_deadline(Some(Instant::now() + FAREWELL));
        // A peer that has gone needs no farewell.
        let _ = self.stream.write_all(QUIT);
        if self.stream.security().is_some() {
            // A session that has not ended in order is not taken up again.
            let _ = self.stream.finish_writing();
        }
    }

    /// Does what the session says until it has come to a result.
    fn talk(&mut self, begin: Event, mut load: Option<&mut Load<'_>>) -> Action {
        let mut action = self.client.on(begin);
        loop {
            let event = match action {
                Action::Await(phase) => self.receive(phase),
                Action::Send(bytes) => self.send(&bytes),
                Action::SendContent | Action::SendChunk(_) => match (&mut load, action) {
                    (Some(load), Action::SendChunk(commands)) => self.send_chunk(commands, load),
                    (Some(load), _) => self.send_content(load),
                    (None, _) => Event::Broken(Finding::ours(Status::new(4, 3, 0), "no content to send")),
                },
                result => return result,
            };
            action = self.client.on(event);
        }
    }

    fn receive(&mut self, phase: Phase) -> Event {
        self.stream.set_deadline(Some(self.last_words.unwrap_or_else(|| Instant::now() + phase.limit())));
        match self.read_reply() {
            Ok(reply) => {
                self.recorder.heard(&reply);
                Event::Reply(reply)
            }
            Err(error) => {
                let finding = self.broken(&error, &format!("waiting for {}", phase.words()));
                self.recorder.note(&finding.text);
                Event::Broken(finding)
            }
        }
    }

    /// Reads one reply within the deadline. What is no reply is `InvalidData`.
    fn read_reply(&mut self) -> io::Result<Reply> {
        loop {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let (used, reply) = self.reader.take(&self.input).map_err(invalid)?;
            self.input.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.input.extend_from_slice(&bytes[..length]),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Event {
        self.recorder.said(bytes);
        self.stream.set_deadline(Some(Instant::now() + BLOCK_LIMIT));
        match self.stream.write_all(bytes) {
            Ok(()) => Event::Sent,
            Err(error) => self.last_words(&error, "sending a command"),
        }
    }

    /// A server that stops listening may have said why before it went.
    fn last_words(&mut self, error: &io::Error, doing: &str) -> Event {
        self.stream.set_deadline(Some(Instant::now() + LAST_WORDS));
        match self.read_reply() {
            Ok(reply) => {
                self.recorder.heard(&reply);
                Event::Reply(reply)
            }
            Err(_) => Event::Broken(self.broken(error, doing)),
        }
    }

    /// What it means that the connection failed (RFC 3463 4.4.2, and 4.5.0 for what is no SMTP).
    fn broken(&self, error: &io::Error, doing: &str) -> Finding {
        let (peer, lost) = (&self.peer, Status::new(4, 4, 2));
        match error.kind() {
            io::ErrorKind::TimedOut => {
                Finding::ours(lost, format!("conversation with {peer} timed out while {doing}"))
            }
            io::ErrorKind::InvalidData => {
                Finding::ours(Status::new(4, 5, 0), format!("{peer} while {doing}: {error}"))
            }
            _ => Finding::ours(lost, format!("lost connection with {peer} while {doing}")),
        }
    }

    #[cfg(test)]
    pub fn for_test(peer: &str) -> Connection {
        use posta::logbook::sessions::Sessions;
        let (one, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::unix(one).unwrap();
        let line = std::sync::Arc::new(crate::flight::Flight::default()).line(stream.breaker().unwrap());
        use posta::smtp::client::session::{Cover, Language};
        let client = Client::new(Language::Smtp, "own.example".into(), Cover::Plain);
        let (input, reader) = (Vec::new(), ReplyReader::default());
        Connection {
            stream,
            client,
            peer: peer.into(),
            input,
            reader,
            transactions: 0,
            assurance: None,
            host: String::new(),
            odd: None,
            recorder: Recorder::new(peer, &std::sync::Arc::new(Sessions::open("/no/such".into()))),
            last_words: None,
            _line: line,
        }
    }
}

/// What it means that our own file can't be read.
pub fn unreadable(error: &io::Error) -> Finding {
    Finding::ours(Status::new(4, 3, 0), format!("can't read the message: {}", reason(error)))
}

/// The system's words without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
