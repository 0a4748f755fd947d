//! The sessions that wait for their client, and until when. Pure: the clock is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Sessions, each with a number that is never used again and an end of its stay.
#[derive(Debug)]
pub struct Parking<S> {
    sessions: HashMap<usize, Parked<S>>,
    ends: BTreeSet<(Instant, usize)>,
    next: usize,
}

/// How a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// For its client to say something.
    Listening,
    /// For the end of its time, whatever its client says.
    Resting,
}

#[derive(Debug)]
struct Parked<S> {
    session: S,
    until: Instant,
    stay: Stay,
}

impl<S> Parking<S> {
    /// Empty; the first number will be `first`.
    pub fn new(first: usize) -> Parking<S> {
        Parking { sessions: HashMap::new(), ends: BTreeSet::new(), next: first }
    }

    /// The number that the next session will have.
    pub fn next_number(&self) -> usize {
        self.next
    }

    /// Parks a session until `until`; gives its number.
    pub fn put(&mut self, session: S, until: Instant, stay: Stay) -> usize {
        let number = self.next;
        self.next += 1;
        self.sessions.insert(number, Parked { session, until, stay });
        self.ends.insert((until, number));
        number
    }

    /// How the session of that number waits; none if there is none.
    pub fn stay(&self, number: usize) -> Option<Stay> {
        self.sessions.get(&number).map(|parked| parked.stay)
    }

    /// Takes the session of that number out.
    pub fn take(&mut self, number: usize) -> Option<S> {
        self.remove(number).map(|parked| parked.session)
    }

    fn remove(&mut self, number: usize) -> Option<Parked<S>> {
        let parked = self.sessions.remove(&number)?;
        self.ends.remove(&(parked.until, number));
        if self.sessions.capacity() > 64 && self.sessions.len() * 8 < self.sessions.capacity() {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
        Some(parked)
    }

    /// When the first stay ends.
    pub fn first_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Takes out a session whose stay has ended.
    pub fn take_overdue(&mut self, now: Instant) -> Option<(S, Stay)> {
        let (until, number) = *self.ends.first()?;
        let parked = if until <= now { self.remove(number)? } else { return None };
        Some((parked.session, parked.stay))
    }

    /// Takes any session out.
    pub fn take_any(&mut self) -> Option<S> {
        let (_, number) = *self.ends.first()?;
        self.take(number)
    }

    /// How many sessions wait.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sessions_come_out_by_number_or_by_the_end_of_their_stay() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut parking = Parking::new(10);
        let late = parking.put("late", at(9), Stay::Listening);
        let early = parking.put("early", at(3), Stay::Listening);
        let same = parking.put("same", at(3), Stay::Resting);
        assert_eq!((late, early, same), (10, 11, 12));
        assert_eq!(parking.first_end(), Some(at(3)));
        assert_eq!(parking.take_overdue(at(2)), None);
        assert_eq!((parking.stay(early), parking.stay(same)), (Some(Stay::Listening), Some(Stay::Resting)));
        assert_eq!(parking.take(early), Some("early"));
        assert_eq!((parking.take(early), parking.stay(early)), (None, None));
        assert_eq!(parking.take_overdue(at(3)), Some(("same", Stay::Resting)));
        assert_eq!(parking.take_overdue(at(3)), None);
        assert_eq!((parking.len(), parking.take_any()), (1, Some("late")));
        assert!(parking.is_empty() && parking.first_end().is_none());
    }
}
