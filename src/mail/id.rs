//! Queue ids.
//!
//! One id names a message in the reply, the Received field, the log, the spool and `postactl`. Ids
//! are ordered by time, unique without asking anyone and never used again: ten characters of
//! microseconds since 1970 (base 36, good until 2085), which one process never gives out twice, and
//! five characters drawn when the process started, which keep two processes, or one before and one
//! after the clock stepped back, apart.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length of every id made here.
pub const LENGTH: usize = 15;
const SHORTEST: usize = 12;
const LONGEST: usize = 16;
const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A queue id: 12 to 16 characters of `[0-9A-Z]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Id {
    /// Reads an id; anything else (a temporary file's name, a path) is none.
    pub fn parse(text: &str) -> Option<Id> {
        let fits = (SHORTEST..=LONGEST).contains(&text.len());
        if !fits || !text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Id { bytes, length: text.len() as u8 })
    }

    /// When it was given out, in microseconds since 1970, if it was made by a [`Mint`].
    pub fn made(&self) -> Option<u64> {
        let time = self.as_str().get(..10).filter(|_| self.as_str().len() == LENGTH)?;
        u64::from_str_radix(time, 36).ok()
    }

    /// The id's characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Gives out ids; one for each process.
pub struct Mint {
    last: AtomicU64,
    suffix: u64,
}

impl Mint {
    /// `random` is what tells this process from every other: it should be drawn anew at each start.
    pub fn new(random: u64) -> Mint {
        Mint { last: AtomicU64::new(0), suffix: random % 36u64.pow(5) }
    }

    /// The next id. `now` is in microseconds since 1970; an earlier `now` than before (the clock
    /// stepped back) or the same one counts on from the last.
    pub fn next(&self, now: u64) -> Id {
        let step = |last: u64| Some(now.max(last + 1));
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        let micros = now.max(before.unwrap_or_default() + 1);
        let mut bytes = [0; LONGEST];
        digits(micros, &mut bytes[..10]);
        digits(self.suffix, &mut bytes[10..LENGTH]);
        Id { bytes, length: LENGTH as u8 }
    }
}

fn digits(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_550_000_000_000;

    #[test]
    fn ids_grow_with_time_and_when_the_clock_steps_back() {
        let mint = Mint::new(7);
        let ids = [NOW, NOW, NOW + 5, NOW - 3_600_000_000, NOW + 6].map(|now| mint.next(now));
        assert!(ids.windows(2).all(|w| w[0] < w[1]), "{ids:?}");
        assert!(ids.iter().all(|id| Id::parse(id.as_str()) == Some(*id)));
    }

    #[test]
    fn an_id_says_when_it_was_made() {
        assert_eq!(Mint::new(7).next(NOW).made(), Some(NOW));
        assert_eq!(Id::parse("0123456789AB").unwrap().made(), None);
    }

    #[test]
    fn two_processes_never_meet() {
        assert_ne!(Mint::new(1).next(NOW), Mint::new(2).next(NOW));
    }

    #[test]
    fn other_names_are_no_ids() {
        for name in ["", "..", ".tmp.0123456789ABCDE", "0123456789a", "0123456789abc", "0123456789ABCDEFG"] {
            assert_eq!(Id::parse(name), None, "{name}");
        }
    }
}
