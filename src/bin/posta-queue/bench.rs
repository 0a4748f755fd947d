//! Benches: messages whose destination has all the slots that it may have. They wait for one of these,
//! in order, and their files are closed.

use std::collections::VecDeque;

use posta::mail::id::Id;
use posta::spool::Place;

use crate::destination::hash;
use crate::schedule::Schedule;

impl Schedule {
    /// Puts a message on the bench of a destination.
    pub(crate) fn sit(&mut self, destination: usize, id: Id, place: Place) {
        self.bench.entry(destination).or_default().push_back((id, place));
        self.benched.insert(id);
    }

    /// The next that stands on a bench whose destination has room.
    pub(crate) fn next_of_bench(&mut self) -> Option<(usize, (Id, Place))> {
        for _ in 0..self.roomy.len() {
            let destination = self.roomy.pop_front()?;
            if !self.has_room(destination) {
                continue;
            }
            let Some(&next) = self.bench.get(&destination).and_then(VecDeque::front) else {
                self.bench.remove(&destination);
                continue;
            };
            self.roomy.push_back(destination);
            if next.1 == Place::New || self.has_room_for_deferred() {
                self.bench.get_mut(&destination).and_then(VecDeque::pop_front)?;
                self.benched.remove(&next.0);
                return Some((destination, next));
            }
        }
        None
    }

    /// Puts a deferred message that is due on the bench of its destination, if that has no room now: of
    /// ten thousand for one relay each is opened once, when its turn has come.
    pub(crate) fn is_benched_unopened(&mut self, id: Id, destination: u32) -> bool {
        let known = self.destinations.find_hash(destination);
        let Some(full) = known.filter(|index| !self.has_room(*index)) else { return false };
        self.sit(full, id, Place::Cur);
        true
    }

    /// What stands on the bench of a destination that is left alone for a while: deferred mail waits
    /// again, without being opened. New mail keeps its turn: it has no journal yet that says so.
    pub(crate) fn clear_bench(&mut self, index: usize, now: u64) {
        let Some(bench) = self.bench.remove(&index) else { return };
        let hash = hash(&self.destinations[index].name);
        let (deferred, fresh): (VecDeque<_>, VecDeque<_>) =
            bench.into_iter().partition(|(_, place)| *place == Place::Cur);
        if !fresh.is_empty() {
            self.bench.insert(index, fresh);
        }
        for (id, _) in deferred {
            self.benched.remove(&id);
            self.waiting.insert((now, id, hash));
        }
    }

    /// A destination may have room now for what stands on its bench.
    pub(crate) fn wake_bench(&mut self, destination: usize) {
        if self.bench.contains_key(&destination) && !self.roomy.contains(&destination) {
            self.roomy.push_back(destination);
        }
    }

    /// All of a hand may have room now.
    pub(crate) fn wake_other_benches(&mut self, than: usize) {
        let others: Vec<usize> = self.bench.keys().copied().filter(|index| *index != than).collect();
        others.into_iter().for_each(|index| self.wake_bench(index));
    }
}
