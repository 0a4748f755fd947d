//! What the acceptor tells of.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::seats::{Full, Seat};
use crate::net::stream::Stream;
use crate::unix::signals::Told;

/// How long a last word may take. A new connection's buffer is empty, so it takes no time at all.
const LAST_WORD: Duration = Duration::from_millis(10);

/// What has happened.
#[derive(Debug)]
pub enum Happening<S> {
    /// A client has come and has been given a seat.
    Arrived(Arrival),
    /// A new client has waited in silence, as [`Acceptor::pause`](super::Acceptor::pause) wanted.
    Patient(Arrival),
    /// A client has to go before it was greeted.
    TurnedAway(TurnedAway),
    /// A client has gone before it was greeted; its address.
    Left(Option<SocketAddr>),
    /// A parked session is to be taken up again.
    Awake(S, Why),
    /// A signal.
    Told(Told),
    /// After [`Acceptor::close`](super::Acceptor::close): everybody has gone, or the time is over.
    Over,
}

/// Why a parked session is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The client has sent something, or has gone.
    Readable,
    /// Its deadline has passed.
    Overdue,
    /// It has rested long enough; see [`Porch::rest`](super::Porch::rest).
    Rested,
    /// The client has gone while the session rested, or has said that it will say nothing more.
    Gone,
    /// Its seat is wanted for another client; it has only its last word to say.
    Shed,
    /// The house is closing.
    Closing,
}

/// Why a client has to go before it was greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is no seat for it.
    Full(Full),
    /// It talked before it was greeted.
    TalkedFirst,
}

/// A new client.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub stream: Stream,
    /// The client's address; none for a Unix socket.
    pub address: Option<SocketAddr>,
    /// By which listener it came: an index into those that were given.
    pub listener: usize,
    /// To be kept as long as the session.
    pub seat: Seat,
}

/// A client that has to go before it was greeted.
#[derive(Debug)]
pub struct TurnedAway {
    /// The client's address; none for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Which of the listeners it came by, in the order in which they were given.
    pub listener: usize,
    /// Why.
    pub why: Turned,
    pub(super) stream: Stream,
}

impl TurnedAway {
    /// Says a last word, without waiting, and closes.
    pub fn dismiss(mut self, word: &[u8]) {
        self.stream.set_deadline(Some(Instant::now() + LAST_WORD));
        // A client that can't be told is told by the closing itself.
        let _ = self.stream.write_all(word).and_then(|()| self.stream.finish_writing());
        // What it has said already is taken: closing on it would be a reset, which can overtake the
        // last word (RFC 9293 3.6.1).
        if self.stream.readable_within(Duration::ZERO).unwrap_or_default() {
            let _ = self.stream.read(&mut [0; 4096]);
        }
    }
}
