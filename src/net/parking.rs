//! The sessions that wait for their client, and until when. Pure: the clock is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Sessions, each with a number that is never used again and an end of its stay.
#[derive(Debug)]
pub struct Parking<S> {
    sessions: HashMap<usize, Parked<S>>,
    ends: BTreeSet<(Instant, usize)>,
    /// Those of strangers, the one that has been idle for longest first.
    strangers: BTreeSet<(Instant, usize)>,
    next: usize,
}

/// A session and its stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked<S> {
    /// The session.
    pub session: S,
    /// How it waits.
    pub stay: Stay,
    /// Since when it has been idle: before it was parked, if what it said then was nothing whole.
    pub since: Instant,
    /// When its stay ends.
    pub until: Instant,
    /// Whether it has to go when its seat is wanted.
    pub stranger: bool,
}

/// How a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// For its client to say something.
    Listening,
    /// For the end of its time, whatever its client says.
    Resting,
}

impl<S> Parking<S> {
    /// Empty; the first number will be `first`.
    pub fn new(first: usize) -> Parking<S> {
        Parking { sessions: HashMap::new(), ends: BTreeSet::new(), strangers: BTreeSet::new(), next: first }
    }

    /// The number that the next session will have.
    pub fn next_number(&self) -> usize {
        self.next
    }

    /// Parks a session; gives its number.
    pub fn put(&mut self, parked: Parked<S>) -> usize {
        let number = self.next;
        self.next += 1;
        self.ends.insert((parked.until, number));
        if parked.stranger {
            self.strangers.insert((parked.since, number));
        }
        self.sessions.insert(number, parked);
        number
    }

    /// The session of that number.
    pub fn get(&self, number: usize) -> Option<&Parked<S>> {
        self.sessions.get(&number)
    }

    /// Takes the session of that number out.
    pub fn take(&mut self, number: usize) -> Option<Parked<S>> {
        let parked = self.sessions.remove(&number)?;
        self.ends.remove(&(parked.until, number));
        self.strangers.remove(&(parked.since, number));
        if self.sessions.capacity() > 64 && self.sessions.len() * 8 < self.sessions.capacity() {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
        Some(parked)
    }

    /// Takes out the stranger who has been idle for longest, if that is since `since` or longer.
    pub fn take_longest_idle(&mut self, since: Instant) -> Option<Parked<S>> {
        let (idle, number) = *self.strangers.first()?;
        if idle <= since { self.take(number) } else { None }
    }

    /// When the first stay ends.
    pub fn first_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Takes out a session whose stay has ended.
    pub fn take_overdue(&mut self, now: Instant) -> Option<Parked<S>> {
        let (until, number) = *self.ends.first()?;
        if until <= now { self.take(number) } else { None }
    }

    /// Takes any session out.
    pub fn take_any(&mut self) -> Option<Parked<S>> {
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

    fn parked(session: &'static str, since: Instant, seconds: u64) -> Parked<&'static str> {
        let until = since + Duration::from_secs(seconds);
        Parked { session, stay: Stay::Listening, since, until, stranger: true }
    }

    fn name(parked: Option<Parked<&'static str>>) -> Option<&'static str> {
        parked.map(|parked| parked.session)
    }

    #[test]
    fn sessions_come_out_by_number_or_by_the_end_of_their_stay() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut parking = Parking::new(10);
        let late = parking.put(parked("late", start, 9));
        let early = parking.put(parked("early", start, 3));
        let same = parking.put(Parked { stay: Stay::Resting, ..parked("same", start, 3) });
        assert_eq!((late, early, same), (10, 11, 12));
        assert_eq!(parking.first_end(), Some(at(3)));
        assert_eq!(parking.take_overdue(at(2)), None);
        assert_eq!(parking.get(same).unwrap().stay, Stay::Resting);
        assert_eq!(name(parking.take(early)), Some("early"));
        assert_eq!((parking.take(early), parking.get(early)), (None, None));
        assert_eq!(name(parking.take_overdue(at(3))), Some("same"));
        assert_eq!(parking.take_overdue(at(3)), None);
        assert_eq!((parking.len(), name(parking.take_any())), (1, Some("late")));
        assert!(parking.is_empty() && parking.first_end().is_none() && parking.strangers.is_empty());
    }

    #[test]
    fn strangers_go_in_the_order_in_which_they_fell_idle() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut parking = Parking::new(0);
        parking.put(Parked { stranger: false, ..parked("ours", at(0), 90) });
        // When they were parked says nothing.
        parking.put(parked("second", at(2), 10));
        parking.put(parked("first", at(1), 90));
        assert_eq!(parking.take_longest_idle(at(0)), None);
        assert_eq!(name(parking.take_longest_idle(at(5))), Some("first"));
        assert_eq!(name(parking.take_longest_idle(at(5))), Some("second"));
        assert_eq!((parking.take_longest_idle(at(5)), parking.len()), (None, 1));
    }
}
