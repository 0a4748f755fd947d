//! The sessions that wait for their client, and until when. Pure: the clock is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Sessions, each with a number that is never used again and a deadline.
#[derive(Debug)]
pub struct Parking<S> {
    sessions: HashMap<usize, (S, Instant)>,
    deadlines: BTreeSet<(Instant, usize)>,
    next: usize,
}

impl<S> Parking<S> {
    /// Empty; the first number will be `first`.
    pub fn new(first: usize) -> Parking<S> {
        Parking { sessions: HashMap::new(), deadlines: BTreeSet::new(), next: first }
    }

    /// The number that the next session will have.
    pub fn next_number(&self) -> usize {
        self.next
    }

    /// Parks a session until `deadline`; gives its number.
    pub fn put(&mut self, session: S, deadline: Instant) -> usize {
        let number = self.next;
        self.next += 1;
        self.sessions.insert(number, (session, deadline));
        self.deadlines.insert((deadline, number));
        number
    }

    /// Takes the session of that number out.
    pub fn take(&mut self, number: usize) -> Option<S> {
        let (session, deadline) = self.sessions.remove(&number)?;
        self.deadlines.remove(&(deadline, number));
        if self.sessions.capacity() > 64 && self.sessions.len() * 8 < self.sessions.capacity() {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
        Some(session)
    }

    /// When the first deadline is.
    pub fn first_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a session whose deadline has come.
    pub fn take_overdue(&mut self, now: Instant) -> Option<S> {
        let (deadline, number) = *self.deadlines.first()?;
        if deadline <= now { self.take(number) } else { None }
    }

    /// Takes any session out.
    pub fn take_any(&mut self) -> Option<S> {
        let (_, number) = *self.deadlines.first()?;
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
    fn sessions_come_out_by_number_or_by_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut parking = Parking::new(10);
        let (late, early) = (parking.put("late", at(9)), parking.put("early", at(3)));
        let same = parking.put("same", at(3));
        assert_eq!((late, early, same), (10, 11, 12));
        assert_eq!(parking.first_deadline(), Some(at(3)));
        assert_eq!(parking.take_overdue(at(2)), None);
        assert_eq!(parking.take(early), Some("early"));
        assert_eq!(parking.take(early), None);
        assert_eq!(parking.take_overdue(at(3)), Some("same"));
        assert_eq!(parking.take_overdue(at(3)), None);
        assert_eq!((parking.len(), parking.take_any()), (1, Some("late")));
        assert!(parking.is_empty() && parking.first_deadline().is_none());
    }
}
