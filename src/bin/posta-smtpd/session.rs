//! The worker's side of a session: whose turn it is, and until when.
//!
//! Replies are gathered while complete lines are waiting, and sent in one write (RFC 2920 3.2). A
//! session that has nothing to read is given back, to be parked. All waits end with the deadline of
//! the phase: a command line has to be whole in time, however its octets trickle.
//!
//! What the state machine says is done in `act`; how a session begins, and how it turns to TLS, is
//! in `enter`, how it ends in `leave`; how long is waited for a client, in `wait`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use posta::logbook::flight::Flight;
use posta::mail::id::Id;
use posta::net::pool::Crowd;
use posta::net::seats::Seat;
use posta::net::stream::Stream;
use posta::policy::chain::Client;
use posta::smtp::line::{Line, LineReader};
use posta::smtp::reply::Reply;
use posta::smtp::server::{Action, Event, Server, Service};
use posta::spool::Committed;

use crate::act::Next;
use crate::count;
use crate::discard::Discards;
use crate::exchange::Exchange;
use crate::guest::Guest;
use crate::house::{Entrance, House, Terms};
use crate::receive::Chunks;
use crate::tally::{Named, Tally, Verb};

/// Longest command line that is taken, in octets with its CR LF. RFC 5321 4.5.3.1.4 asks for 512;
/// the parameters of MAIL and RCPT (RFC 3461 4 above all) make that longer.
pub(crate) const MAX_COMMAND_LINE: usize = 2048;
/// A worker's input buffer.
const BUFFER: usize = 64 * 1024;
/// Gathered replies are sent when they have become so long, though more lines are waiting.
const GATHERED: usize = 16 * 1024;
/// A session, with a worker or parked.
#[derive(Debug)]
pub struct Session {
    pub stream: Stream,
    pub server: Server<Committed>,
    pub lines: LineReader,
    pub guest: Guest,
    /// Where the client is, by its connection, or by the word of a proxy or of a trusted host.
    pub(crate) connected: Option<IpAddr>,
    /// A trusted host has named somebody else: what that host itself shows of TLS is not the client's.
    pub(crate) spoken_for: bool,
    pub entrance: Entrance,
    pub terms: Arc<Terms>,
    pub(crate) stage: Stage,
    /// The next command line has to be whole by then, or the handshake done.
    pub(crate) deadline: Instant,
    /// When its last whole command was answered.
    pub(crate) heard: Instant,
    /// When it came, or when its last message was accepted.
    pub(crate) bore_fruit: Instant,
    /// How long we have waited since then for it to take our replies.
    pub(crate) waited_to_speak: Duration,
    pub(crate) tally: Tally,
    pub(crate) named: Named,
    /// What was said last.
    pub(crate) flight: Flight,
    /// The message whose data has come, until it is answered.
    pub receiving: Option<Id>,
    /// A message of which some chunks have come.
    pub chunks: Option<Box<Chunks>>,
    /// What of the transaction is to be thrown away.
    pub(crate) discards: Discards,
    /// A login that waits for the client's next word.
    pub(crate) exchange: Option<Exchange>,
    /// The next answer is kept back for so long.
    pub(crate) penalty: Option<Duration>,
    /// An answer that is kept back.
    pub(crate) owed: Vec<u8>,
    /// The last word, and to what, if it is kept back.
    pub(crate) parting: Option<Box<(Option<Verb>, Action)>>,
    /// Most workers are busy: the house's, which may change within a turn.
    pub(crate) hurry: Arc<AtomicBool>,
    /// Given back with the session.
    pub seat: Option<Seat>,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before anything is known of it.
    Entering,
    /// In the handshake before the greeting, where TLS is from the first octet.
    Opening,
    /// Before the handshake that STARTTLS has asked for.
    Securing,
    /// Commands and answers.
    Talking,
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
    /// There is something to read, or it has rested long enough.
    Readable,
    /// The deadline of [`Session::deadline`] has passed.
    Overdue,
    /// The client has gone while it was to wait for its answer, or will say nothing more.
    Gone,
    /// The house is full, and the seat is wanted for somebody else.
    Shed,
    /// The house is closing.
    Closing,
}

/// How a worker leaves a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is over.
    Over,
    /// The client has nothing to say: to be parked.
    Waiting,
    /// The client is to wait for its answer until then, whatever it says.
    Resting(Instant),
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
    /// It can't be talked to: there is no TLS where there has to be.
    Unsecured,
}

impl Loss {
    /// For the flight recorder.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Loss::Gone => "the client is gone",
            Loss::Late => "nothing more came in time",
            Loss::Deaf => "our replies were not taken",
            Loss::Unsecured => "no TLS",
        }
    }
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
    /// The client is to wait.
    Rests(Instant),
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
    pub fn new(
        stream: Stream,
        client: Client,
        entrance: Entrance,
        terms: Arc<Terms>,
        seat: Option<Seat>,
    ) -> Session {
        count::SESSIONS.add(1);
        Session {
            stream,
            server: Server::new(Arc::clone(&terms.smtp), Service::default()),
            lines: LineReader::new(MAX_COMMAND_LINE),
            connected: client.address,
            spoken_for: false,
            guest: Guest::new(client),
            entrance,
            stage: Stage::Entering,
            deadline: Instant::now() + terms.command_timeout,
            heard: Instant::now(),
            bore_fruit: Instant::now(),
            waited_to_speak: Duration::ZERO,
            terms,
            tally: Tally::default(),
            named: Named::default(),
            flight: Flight::default(),
            receiving: None,
            chunks: None,
            discards: Discards::default(),
            exchange: None,
            penalty: None,
            owed: Vec::new(),
            parting: None,
            hurry: Arc::default(),
            seat,
        }
    }

    /// When the session is to be taken up again, though nothing has come.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Talks to the client until the session is over, or until it has said nothing for a while, or is
    /// to wait for its answer. Without a crowd there is nobody to make room for: it goes on to the end.
    pub fn attend(
        &mut self,
        cause: Cause,
        house: &House,
        bench: &mut Bench,
        crowd: Option<&dyn Crowd>,
    ) -> Left {
        self.lines.move_into(&mut bench.input);
        let turn = self.take_turn(cause, house, &mut bench.out, crowd);
        self.lines.move_out(&mut bench.input);
        bench.out.clear();
        match turn {
            Ok(Turn::Waits) => return Left::Waiting,
            Ok(Turn::Rests(until)) => return Left::Resting(until),
            Ok(Turn::Over(reply)) => self.part(&reply),
            Err(loss) => self.lose(loss),
        }
        self.log_end(&house.sessions);
        Left::Over
    }

    fn take_turn(
        &mut self,
        cause: Cause,
        house: &House,
        out: &mut Vec<u8>,
        crowd: Option<&dyn Crowd>,
    ) -> Result<Turn, Loss> {
        house.hurry.store(crowd.is_some_and(|crowd| crowd.is_busy()), Ordering::Relaxed);
        self.hurry = Arc::clone(&house.hurry);
        out.append(&mut self.owed);
        let mut next = match (self.stage, cause) {
            // Who was to wait does not get round it by closing his side behind all that he has sent.
            (_, Cause::Gone) => return Err(Loss::Gone),
            _ if self.parting.is_some() => None,
            (Stage::Talking, Cause::Overdue) => Some((None, self.overdue())),
            (Stage::Talking, Cause::Shed) => Some((None, self.shed())),
            (Stage::Talking, Cause::Closing) => Some((None, self.server.on(Event::Closing))),
            (Stage::Talking, _) => None,
            // That it has come to nothing is said there.
            (Stage::Opening | Stage::Securing, Cause::Overdue) => {
                self.secure(house, crowd)?;
                return Err(Loss::Unsecured);
            }
            (_, Cause::Overdue | Cause::Closing | Cause::Shed) => return Err(Loss::Unsecured),
            _ => match self.go_in(house, crowd)? {
                Some(action) => Some((None, action)),
                None => return Ok(Turn::Waits),
            },
        };
        loop {
            let parting = self.parting.take().map(|parting| *parting);
            if let Some((verb, action)) = parting.or_else(|| next.take()).or_else(|| self.next_line()) {
                match self.carry_out(verb, action, house, out)? {
                    Next::Line if out.len() > GATHERED => self.flush(out)?,
                    Next::Line => {}
                    Next::Handshake => match self.go_in(house, crowd)? {
                        Some(action) => next = Some((None, action)),
                        None => return Ok(Turn::Waits),
                    },
                    Next::Rest(wait) => {
                        self.flush(out)?;
                        if crowd.is_some() {
                            return Ok(Turn::Rests(Instant::now() + wait));
                        }
                        // The only session of this process: there is nobody else to make wait.
                        std::thread::sleep(wait);
                        out.append(&mut self.owed);
                    }
                    Next::Over(reply) => {
                        self.flush(out)?;
                        return Ok(Turn::Over(reply));
                    }
                }
                continue;
            }
            self.flush(out)?;
            if house.is_closing() && self.server.transaction().is_none() {
                next = Some((None, self.server.on(Event::Closing)));
            } else if !self.read_more(crowd)? {
                if Instant::now() >= self.deadline {
                    next = Some((None, self.overdue()));
                } else if !self.stream.has_buffered() {
                    return Ok(Turn::Waits);
                }
            }
        }
    }

    /// The next line's verb, and what is to be done about it.
    fn next_line(&mut self) -> Option<(Option<Verb>, Action)> {
        // What is said in an exchange is nobody's verb.
        let in_exchange = self.server.is_logging_in().then_some(Verb::Auth);
        self.lines.expect_exchange(in_exchange.is_some());
        let (verb, event) = match self.lines.next()? {
            Line::Whole(line) => {
                let verb = in_exchange.unwrap_or_else(|| Verb::of(line));
                self.tally.remember(verb, line, &mut self.flight);
                (verb, Event::Line(line))
            }
            Line::Long => {
                self.flight.note(format_args!("a line that is too long"));
                (Verb::Unknown, Event::LongLine)
            }
            Line::BareLineEnd => {
                self.flight.note(format_args!("a line with a bare CR or LF"));
                (Verb::Unknown, Event::BareLineEnd)
            }
        };
        self.tally.begin(verb);
        Some((Some(verb), self.server.on(event)))
    }

    /// Whether the client can be told something: not while a handshake is due.
    pub(crate) fn is_listening(&self) -> bool {
        self.stage == Stage::Talking || (self.stage == Stage::Entering && !self.entrance.implicit)
    }

    /// Sends what was gathered. All waits for a client to take our replies have one limit, until it hands
    /// in a message: one that asks for ever, and takes a little of the answers just in time, would hold a
    /// worker for ever.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Loss> {
        if !out.is_empty() {
            self.flight.said(out);
            let (begun, limit) = (Instant::now(), self.patience(self.terms.command_timeout));
            self.stream.set_deadline(Some(begun + limit.saturating_sub(self.waited_to_speak)));
            self.stream.write_all(out).map_err(|error| match Loss::from(error) {
                Loss::Late => Loss::Deaf,
                loss => loss,
            })?;
            self.waited_to_speak += begun.elapsed();
            out.clear();
        }
        Ok(())
    }

    /// Somebody from the net who has shown no right to anything. Our own clients, and whoever is at
    /// the other end of a pipe, may be simple-minded programs.
    pub(crate) fn is_stranger(&self) -> bool {
        self.guest.client.address.is_some() && !self.terms.policy.may_relay(&self.guest.client)
    }
}
