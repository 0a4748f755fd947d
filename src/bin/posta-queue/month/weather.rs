//! What comes from outside: who is down and when, what servers answer, and how long that takes.

use posta::mail::status::Status;

use crate::destination::Hand;
use crate::message::News;
use crate::schedule::SECOND;

pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;

/// Domains that mail goes to. The first is never down, never slow, and never paused.
pub const DOMAINS: usize = 12;
/// A domain with that number has its users here.
pub const LOCAL: usize = 3;

/// The name of a domain; those of this host are `local`, as `message::tests::sample` has them.
pub fn domain(n: usize) -> String {
    if n < LOCAL { "local".into() } else { format!("d{n}.example") }
}

/// Who is down.
#[derive(Debug, Default)]
pub struct Weather {
    /// Until when, by domain.
    down: [u64; DOMAINS],
}

impl Weather {
    /// An outage begins somewhere: of minutes, hours, or days.
    pub fn turn(&mut self, now: u64, luck: &mut fastrand::Rng) {
        let n = luck.usize(LOCAL + 1..DOMAINS);
        let length = [10 * MINUTE, 3 * HOUR, 30 * HOUR, 200 * HOUR][luck.usize(..4)];
        self.down[n] = now + luck.u64(..length);
    }

    /// Whether a destination can't be reached.
    pub fn is_down(&self, destination: &str, now: u64) -> bool {
        let number = destination.strip_prefix('d').and_then(|rest| rest.split('.').next()?.parse().ok());
        number.is_some_and(|n: usize| self.down[n] > now)
    }

    /// How long a job takes.
    pub fn duration(&self, hand: Hand, destination: &str, now: u64, luck: &mut fastrand::Rng) -> u64 {
        match hand {
            Hand::Local => luck.u64(..SECOND),
            Hand::Remote if self.is_down(destination, now) => luck.u64(..30 * SECOND),
            Hand::Remote => luck.u64(SECOND / 20..3 * SECOND),
        }
    }
}

/// What is said of a recipient.
pub fn answer(luck: &mut fastrand::Rng) -> News {
    match luck.u32(..100) {
        0..3 => News::ours(Status::new(4, 2, 2), "the mailbox is full"),
        3 => News::ours(Status::new(5, 1, 1), "no such user"),
        _ => News::ours(Status::new(2, 0, 0), "ok"),
    }
}

/// Of one that can't be reached.
pub fn silence() -> News {
    News::ours(Status::new(4, 4, 1), "connection refused")
}
