//! How long a client is waited for, and by whom.
//!
//! A silent client has a worker to himself for a moment; then his session is parked. The moment is the
//! shorter the more is going on.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use posta::net::pool::Crowd;

use crate::session::{Loss, MAX_COMMAND_LINE, Session};

/// At least so much room there is for reading commands.
const COMMAND_BLOCK: usize = 2 * MAX_COMMAND_LINE;
/// A client that says nothing for so long is parked.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same, while more than [`FEW`] workers are at work: a thread's stack is dearer than parking.
const BRISK: Duration = Duration::from_millis(100);
const FEW: usize = 64;
/// The same, while others wait for a worker.
const HASTE: Duration = Duration::from_millis(20);
/// A client that has handed in no message for so long is idle, whatever it says.
const FRUITLESS: Duration = Duration::from_secs(30);
/// No phase of a client's has more time while most workers are busy.
const HURRY: Duration = Duration::from_secs(20);

/// How long a silent client has a worker to himself.
pub(crate) fn stay(crowd: &dyn Crowd) -> Duration {
    match crowd.at_work() {
        _ if crowd.is_waiting() => HASTE,
        at_work if at_work > FEW => BRISK,
        _ => PATIENCE,
    }
}

impl Session {
    /// Whether most workers are busy.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// The time that a phase may take.
    pub(crate) fn patience(&self, whole: Duration) -> Duration {
        if self.is_hurried() { whole.min(HURRY) } else { whole }
    }

    /// The client has the whole time for its next command line.
    pub(crate) fn wind_up(&mut self) {
        self.heard = Instant::now();
        self.deadline = self.heard + self.patience(self.terms.command_timeout);
    }

    /// Since when the client has been idle: since its last whole command, and in the long run, since it came
    /// or handed in a message. Otherwise one that says NOOP often enough would keep its seat for ever.
    pub(crate) fn idle_since(&self) -> Instant {
        if self.bore_fruit.elapsed() < FRUITLESS { self.heard } else { self.bore_fruit }
    }

    /// Reads once. `false`: nothing came for a while, or before the deadline.
    pub(crate) fn read_more(&mut self, crowd: Option<&dyn Crowd>) -> Result<bool, Loss> {
        let short = crowd.map(stay).filter(|stay| *stay < PATIENCE);
        if let Some(short) = short
            && !self.stream.readable_within(short)?
        {
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

    /// Whether the client has begun to talk; one that has not is waited for by the acceptor, and not
    /// by a worker.
    pub(crate) fn has_word(&self, crowd: Option<&dyn Crowd>) -> io::Result<bool> {
        match crowd {
            None => Ok(true),
            Some(crowd) => self.stream.readable_within(stay(crowd)),
        }
    }
}
