//! The worker's side of a session: it does what the state machine says, blocking.
//!
//! Replies are gathered while complete lines are waiting, and sent in one write (RFC 2920 3.2). A
//! session that has nothing to read is given back, to be parked. All waits end with the deadline of
//! the phase: a command line has to be whole in time, however its octets trickle.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::logbook::entry::{Peer, Reject};
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::id::Id;
use posta::net::pool::Crowd;
use posta::net::seats::Seat;
use posta::net::stream::Stream;
use posta::policy::chain::Client;
use posta::policy::verdict::Verdict;
use posta::smtp::line::{Line, LineReader};
use posta::smtp::reply::Reply;
use posta::smtp::rule;
use posta::smtp::server::{Action, Event, Server, Service};
use posta::spool::Committed;

use crate::house::{House, Terms};
use crate::judge::judge;
use crate::receive::{Chunks, receive, receive_chunk, swallow};
use crate::tally::{Named, Tally, Verb, brief, text_of};

/// Longest command line that is taken, in octets with its CR LF. RFC 5321 4.5.3.1.4 asks for 512;
/// the parameters of MAIL and RCPT (RFC 3461 4 above all) make that longer.
const MAX_COMMAND_LINE: usize = 2048;
/// At least so much room there is for reading commands.
const COMMAND_BLOCK: usize = 2 * MAX_COMMAND_LINE;
/// A worker's input buffer.
const BUFFER: usize = 64 * 1024;
/// Gathered replies are sent when they have become so long, though more lines are waiting.
const GATHERED: usize = 16 * 1024;
/// A client that says nothing for so long is parked.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same, while others wait for a worker.
const HASTE: Duration = Duration::from_millis(20);
/// After our last word a client that is still talking is listened to for so long, and so much.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 1024 * 1024);

/// A session, with a worker or parked.
#[derive(Debug)]
pub struct Session {
    pub stream: Stream,
    pub server: Server<Committed>,
    pub lines: LineReader,
    pub client: Client,
    pub terms: Arc<Terms>,
    /// The next command line has to be whole by then.
    deadline: Instant,
    /// The client's address as the log has it.
    address: String,
    tally: Tally,
    named: Named,
    /// The message whose data has come, until it is answered.
    pub receiving: Option<Id>,
    /// A message of which some chunks have come.
    pub chunks: Option<Box<Chunks>>,
    /// Given back with the session.
    pub seat: Option<Seat>,
}

/// What a worker keeps from session to session.
#[derive(Debug)]
pub struct Bench {
    /// Lent to the session for as long as it is with the worker.
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Bench {
    fn default() -> Bench {
        Bench { input: vec![0; BUFFER], out: Vec::new() }
    }
}

/// Why a session comes to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It begins.
    Opened,
    /// There is something to read.
    Readable,
    /// The deadline of [`Session::deadline`] has passed.
    Overdue,
    /// The house is full, and the seat is wanted for somebody else.
    Shed,
    /// The house is closing.
    Closing,
}

/// How a session was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The client has gone without a word.
    Gone,
    /// It has sent nothing more, in the middle of something.
    Late,
    /// It doesn't take our replies.
    Deaf,
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Loss {
        if error.kind() == io::ErrorKind::TimedOut { Loss::Late } else { Loss::Gone }
    }
}

/// What a worker's time with a session came to.
enum Turn {
    /// The client has nothing to say for now.
    Waits,
    /// The last word is said.
    Over(Reply),
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Session {
    /// A session that is about to begin.
    pub fn new(stream: Stream, client: Client, terms: Arc<Terms>, seat: Option<Seat>) -> Session {
        Session {
            stream,
            server: Server::new(Arc::clone(&terms.smtp), Service::default()),
            lines: LineReader::new(MAX_COMMAND_LINE),
            deadline: Instant::now() + terms.command_timeout,
            terms,
            address: text_of(client.address),
            client,
            tally: Tally::default(),
            named: Named::default(),
            receiving: None,
            chunks: None,
            seat,
        }
    }

    /// When the session is to be taken up again, though nothing has come.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The client, for the log. Nobody has asked the DNS for its name.
    pub fn peer(&self) -> Peer<'_> {
        Peer { name: None, address: &self.address }
    }

    /// Talks to the client until the session is over, or until it has said nothing for a while and is
    /// to be parked, which is `true`. Without a crowd there is nobody to park for: it waits on.
    pub fn attend(
        &mut self,
        cause: Cause,
        house: &House,
        bench: &mut Bench,
        crowd: Option<&dyn Crowd>,
    ) -> bool {
        self.lines.move_into(&mut bench.input);
        let turn = self.take_turn(cause, house, &mut bench.out, crowd);
        self.lines.move_out(&mut bench.input);
        bench.out.clear();
        match turn {
            Ok(Turn::Waits) => return true,
            Ok(Turn::Over(reply)) => self.part(&reply),
            Err(loss) => self.lose(loss),
        }
        log::info!("disconnect from {}{}", self.peer(), self.tally);
        false
    }

    fn take_turn(
        &mut self,
        cause: Cause,
        house: &House,
        out: &mut Vec<u8>,
        crowd: Option<&dyn Crowd>,
    ) -> Result<Turn, Loss> {
        let mut next = match cause {
            Cause::Opened => Some((None, self.open()?)),
            Cause::Overdue => Some((None, self.overdue())),
            Cause::Shed => Some((None, self.shed())),
            Cause::Closing => Some((None, self.server.on(Event::Closing))),
            Cause::Readable => None,
        };
        loop {
            if let Some((verb, action)) = next.take().or_else(|| self.next_line()) {
                let last_word = self.carry_out(verb, action, house, out)?;
                if last_word.is_some() || out.len() > GATHERED {
                    self.flush(out)?;
                }
                if let Some(reply) = last_word {
                    return Ok(Turn::Over(reply));
                }
                continue;
            }
            self.flush(out)?;
            if house.is_closing() && self.server.transaction().is_none() {
                next = Some((None, self.server.on(Event::Closing)));
            } else if !self.read_more(crowd)? {
                if Instant::now() < self.deadline {
                    return Ok(Turn::Waits);
                }
                next = Some((None, self.overdue()));
            }
        }
    }

    /// The first action. Somebody who is not let in has a line in the log.
    fn open(&mut self) -> io::Result<Action> {
        log::info!("connect from {}", self.peer());
        let action = match self.obstacle() {
            Some(reply) => Action::HangUp(reply),
            // RFC 5321 3.1: the client waits for the greeting. Who doesn't is not listening to us.
            None if self.is_stranger() && self.stream.readable_within(Duration::ZERO)? => {
                self.server.on(Event::TooSoon)
            }
            None => self.server.on(Event::Opened),
        };
        if let Action::HangUp(reply) = &action {
            self.log_reject(reply);
        }
        Ok(action)
    }

    /// Why the client can't come in.
    fn obstacle(&self) -> Option<Reply> {
        if let Some(missing) = self.terms.missing() {
            log::warn!("{} is not there; is posta-auth running?", missing.display());
            let text = format!("{} is not ready yet; try again later", self.terms.smtp.hostname);
            return Some(rule::NOT_READY.reply(text));
        }
        match self.terms.policy.connection(&self.client, Instant::now()) {
            Verdict::Accept => None,
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => Some(reply),
        }
    }

    /// The next line's verb, and what is to be done about it.
    fn next_line(&mut self) -> Option<(Option<Verb>, Action)> {
        let (verb, event) = match self.lines.next()? {
            Line::Whole(line) => (Verb::of(line), Event::Line(line)),
            Line::Long => (Verb::Unknown, Event::LongLine),
            Line::BareLineEnd => (Verb::Unknown, Event::BareLineEnd),
        };
        self.tally.begin(verb);
        Some((Some(verb), self.server.on(event)))
    }

    /// The deadline has passed.
    fn overdue(&mut self) -> Action {
        log::info!("timeout after {} from {}", self.tally.stage(), self.peer());
        self.server.on(Event::TimedOut)
    }

    /// The session has to go for another.
    fn shed(&mut self) -> Action {
        let text = format!("{} is full; try again later", self.terms.smtp.hostname);
        let reply = rule::SHED.reply(text);
        self.log_reject(&reply);
        Action::HangUp(reply)
    }

    /// The last line but one of a session that was lost.
    fn lose(&mut self, loss: Loss) {
        let (stage, peer) = (self.tally.stage(), self.peer());
        match loss {
            Loss::Gone => log::info!("lost connection after {stage} from {peer}"),
            Loss::Deaf => log::info!("replies not taken after {stage} by {peer}"),
            // In the middle of a message, where only the end of data has an answer. RFC 5321 3.8: the
            // client may be told all the same, and is as well off if it can't be.
            Loss::Late => {
                if let Action::HangUp(reply) = self.overdue() {
                    let mut word = Vec::new();
                    reply.write_to(&mut word);
                    self.stream.set_deadline(Some(Instant::now() + LINGER.0));
                    let _ = self.stream.write_all(&word);
                }
            }
        }
    }

    /// Does what an action says, and what comes of that; gives the last word if it is said.
    fn carry_out(
        &mut self,
        verb: Option<Verb>,
        mut action: Action,
        house: &House,
        out: &mut Vec<u8>,
    ) -> Result<Option<Reply>, Loss> {
        loop {
            // RFC 2920 3.1: EHLO and DATA end a group. Who sends on all the same has not seen our
            // answer, and may be somebody who makes another server send what is not SMTP.
            if self.server.client_must_wait() && !self.lines.is_empty() && self.is_stranger() {
                action = self.server.on(Event::TooSoon);
            }
            action = match action {
                Action::Say(reply) => {
                    self.note(verb, &reply);
                    reply.write_to(out);
                    self.deadline = Instant::now() + self.terms.command_timeout;
                    return Ok(None);
                }
                Action::HangUp(reply) => {
                    self.note(verb, &reply);
                    reply.write_to(out);
                    return Ok(Some(reply));
                }
                Action::Judge(question) => {
                    let verdict = judge(&self.terms, &self.client, &question);
                    self.named.remember(question);
                    self.server.on(Event::Judged(verdict))
                }
                Action::TakeData { go_ahead } => {
                    let taken = receive(self, house, out, &go_ahead)?;
                    self.server.on(taken)
                }
                Action::TakeChunk { size, last } => {
                    let taken = receive_chunk(self, house, out, size, last)?;
                    self.server.on(taken)
                }
                Action::Swallow { size, reply } => {
                    swallow(self, out, size)?;
                    Action::Say(reply)
                }
                // No listener offers what leads to these.
                Action::SayEach(_)
                | Action::Listen
                | Action::Introduce(_)
                | Action::Secure { .. }
                | Action::LogIn { .. }
                | Action::Respond(_) => self.server.on(Event::Closing),
            };
            if self.server.transaction().is_none() {
                self.chunks = None;
            }
        }
    }

    /// Counts a command with its answer; a no has its line in the log.
    fn note(&mut self, verb: Option<Verb>, reply: &Reply) {
        if let Some(verb) = verb {
            self.tally.count(verb, reply.code < 400);
            if reply.code >= 400 {
                self.log_reject(reply);
            }
        }
        self.receiving = None;
    }

    fn log_reject(&self, reply: &Reply) {
        let (helo, extended) = self.server.greeted_as().unwrap_or_default();
        let sender = self.named.sender.as_ref().map(ReversePath::to_string);
        let recipient = self.named.recipient.as_ref().map(Mailbox::to_string);
        let stage = match self.receiving {
            Some(_) => "END-OF-MESSAGE".to_string(),
            None => self.tally.stage().to_string(),
        };
        let reject = Reject {
            id: self.receiving,
            at: &stage,
            peer: self.peer(),
            reply: &brief(reply),
            from: sender.as_deref(),
            to: recipient.as_deref(),
            proto: if extended { "ESMTP" } else { "SMTP" },
            helo,
        };
        log::info!("{reject}");
    }

    /// Sends what was gathered.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Loss> {
        if !out.is_empty() {
            self.stream.set_deadline(Some(Instant::now() + self.terms.command_timeout));
            self.stream.write_all(out).map_err(|error| match Loss::from(error) {
                Loss::Late => Loss::Deaf,
                loss => loss,
            })?;
            out.clear();
        }
        Ok(())
    }

    /// Reads once. `false`: nothing came for a while, or before the deadline.
    fn read_more(&mut self, crowd: Option<&dyn Crowd>) -> Result<bool, Loss> {
        if crowd.is_some_and(|crowd| crowd.is_waiting()) && !self.stream.readable_within(HASTE)? {
            return Ok(false);
        }
        let until = crowd.map_or(self.deadline, |_| self.deadline.min(Instant::now() + PATIENCE));
        self.stream.set_deadline(Some(until));
        match self.stream.read(self.lines.space(COMMAND_BLOCK)) {
            Ok(0) => Err(Loss::Gone),
            Ok(count) => {
                self.lines.filled(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody from the net who has shown no right to anything. Our own clients, and whoever is at
    /// the other end of a pipe, may be simple-minded programs.
    pub fn is_stranger(&self) -> bool {
        self.client.address.is_some() && !self.terms.policy.may_relay(&self.client)
    }

    /// Ends the connection after our last word. A client that is talking still is listened to for a
    /// moment: closing at once would make the last word get lost.
    fn part(&mut self, last_word: &Reply) {
        let talks_on = last_word.code >= 400
            && (!self.lines.is_empty() || self.stream.readable_within(Duration::ZERO).unwrap_or_default());
        if !talks_on || self.stream.finish_writing().is_err() {
            return;
        }
        let (time, mut most) = LINGER;
        self.stream.set_deadline(Some(Instant::now() + time));
        let mut sink = [0; 4096];
        while most > 0 {
            match self.stream.read(&mut sink) {
                Ok(0) | Err(_) => return,
                Ok(count) => most = most.saturating_sub(count),
            }
        }
    }
}
