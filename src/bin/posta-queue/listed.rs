//! What the schedule knows of messages, for those who ask.

use posta::mail::id::Id;

use posta::spool::Place;

use crate::schedule::Schedule;

/// A message in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Queue id.
    pub id: Id,
    /// Where its file lies, as far as the schedule knows.
    pub place: Place,
    /// What becomes of it just now.
    pub state: State,
    /// When it is due, if it is deferred; else 0.
    pub due: u64,
}

/// What becomes of a message just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not been opened yet.
    New,
    /// It is worked on, or about to be.
    Active,
    /// It waits for its time.
    Deferred,
    /// It waits for the administrator.
    Held,
}

impl State {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            State::New => "new",
            State::Active => "active",
            State::Deferred => "deferred",
            State::Held => "held",
        }
    }
}

impl Listed {
    fn new(id: Id, place: Place, state: State) -> Listed {
        Listed { id, place, state, due: 0 }
    }

    /// When it is due, if it is deferred.
    pub fn next(&self) -> Option<u64> {
        (self.state == State::Deferred).then_some(self.due)
    }
}

impl Schedule {
    /// Everything known, for a list, in no order. A small value for each: there may be a million.
    pub fn list(&self) -> Vec<Listed> {
        let [fresh, active, deferred, held] = self.counts();
        let mut all = Vec::with_capacity(fresh + active + deferred + held);
        all.extend(self.fresh.iter().map(|id| Listed::new(*id, Place::New, State::New)));
        let bench = self.bench.values().flatten();
        all.extend(bench.map(|(id, place)| Listed::new(*id, *place, State::Active)));
        all.extend(self.slots.iter().map(|(id, slot)| Listed::new(*id, slot.place, State::Active)));
        let deferred =
            |w: &(u64, Id, u32)| Listed { due: w.0, ..Listed::new(w.1, Place::Cur, State::Deferred) };
        all.extend(self.waiting.iter().map(deferred));
        all.extend(self.held.iter().map(|id| Listed::new(*id, Place::Hold, State::Held)));
        all
    }

    /// What is known of one message.
    pub fn find(&self, id: Id) -> Option<Listed> {
        if let Some(slot) = self.slots.get(&id) {
            return Some(Listed::new(id, slot.place, State::Active));
        }
        if self.held.contains(&id) {
            return Some(Listed::new(id, Place::Hold, State::Held));
        }
        self.list().into_iter().find(|listed| listed.id == id)
    }

    /// How many messages are fresh, in the working set, deferred, held.
    pub fn counts(&self) -> [usize; 4] {
        [self.fresh.len(), self.slots.len() + self.benched.len(), self.waiting.len(), self.held.len()]
    }
}
