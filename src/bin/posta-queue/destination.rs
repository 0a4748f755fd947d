//! Where mail goes, as the schedule sees it: a name, a hand, a queue of jobs, and how it fared.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{Index, IndexMut};

use posta::courier::request::{Owner, Target};

pub use posta::spool::hash_of as hash;

use crate::schedule::Settings;
use crate::turns::Job;

/// A window starts at this many jobs.
const FIRST_WINDOW: usize = 10;
/// Past this many known destinations, those with nothing to do are forgotten.
const REMEMBERED: usize = 10_000;

/// Who delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hand {
    /// posta-local
    Local = 0,
    /// posta-remote
    Remote = 1,
}

/// The hand that serves a target, and the name of its destination.
pub fn of_target(target: &Target) -> (Hand, String) {
    match target {
        Target::Local(Owner::Account(name)) => (Hand::Local, format!("local:{name}")),
        Target::Local(Owner::Ids(uid, _, home)) => (Hand::Local, format!("local:{uid}:{home}")),
        Target::Mx(domain) => (Hand::Remote, domain.clone()),
        Target::Smtp(hop) => (Hand::Remote, format!("smtp:{hop}")),
        Target::Lmtp(hop) => (Hand::Remote, format!("lmtp:{hop}")),
    }
}

/// A destination.
#[derive(Debug)]
pub struct Destination {
    /// `local:alice`, `example.net`, `smtp:127.0.0.1:2526`
    pub name: String,
    /// Who serves it.
    pub hand: Hand,
    /// Jobs that wait.
    pub queue: VecDeque<Job>,
    /// Jobs under way.
    pub running: usize,
    /// Most jobs under way at once, just now.
    pub window: usize,
    /// Slots of the working set that are charged to it.
    pub slots: usize,
    /// It stands in its hand's ring.
    pub in_ring: bool,
    /// Before that no job begins: it takes only so many messages a minute.
    pub next_at: u64,
    failures: u32,
    rests_until: u64,
    why: String,
}

impl Destination {
    fn new(name: &str, hand: Hand, most: usize) -> Destination {
        Destination {
            name: name.to_string(),
            hand,
            queue: VecDeque::new(),
            running: 0,
            window: FIRST_WINDOW.min(most),
            slots: 0,
            in_ring: false,
            next_at: 0,
            failures: 0,
            rests_until: 0,
            why: String::new(),
        }
    }

    /// It answered: the window grows by one.
    pub fn reached(&mut self, most: usize) {
        self.failures = 0;
        self.window = (self.window + 1).min(most);
    }

    /// It could not be reached: the window is halved; the `tires_after`th time in a row it rests.
    /// Gives whether it does.
    pub fn unreachable(&mut self, tires_after: u32, rests_until: u64, why: &str) -> bool {
        self.failures += 1;
        self.window = (self.window / 2).max(1);
        let rests = self.failures >= tires_after;
        if rests {
            self.rests_until = rests_until;
            self.why = why.to_string();
        }
        rests
    }

    /// Until when it rests, or rested last, and why.
    pub fn last_rest(&self) -> Option<(u64, &str)> {
        (self.rests_until > 0).then_some((self.rests_until, self.why.as_str()))
    }

    /// Why it rests, if it does.
    pub fn rests(&self, now: u64) -> Option<&str> {
        (now < self.rests_until).then_some(self.why.as_str())
    }

    /// The end of a rest: the administrator says so.
    pub fn wake(&mut self) {
        self.rests_until = 0;
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running == 0 && self.slots == 0
    }
}

/// All destinations that are known. An index stays good while the destination has something to do.
#[derive(Debug, Default)]
pub struct Destinations {
    all: Vec<Option<Destination>>,
    free: Vec<usize>,
    indexes: HashMap<String, usize>,
    /// The same by the hash of the name; of two with one hash the later.
    hashes: HashMap<u32, usize>,
    /// So many were left by the last sweep.
    left: usize,
}

impl Destinations {
    /// The index of a destination; one that is new is made.
    pub fn index(&mut self, hand: Hand, name: &str, settings: &Settings) -> usize {
        if let Some(&index) = self.indexes.get(name) {
            return index;
        }
        let made = Some(Destination::new(name, hand, settings.windows[hand as usize]));
        let index = match self.free.pop() {
            Some(index) => {
                self.all[index] = made;
                index
            }
            None => {
                self.all.push(made);
                self.all.len() - 1
            }
        };
        self.indexes.insert(name.to_string(), index);
        self.hashes.insert(hash(name), index);
        index
    }

    /// The index of a destination that is known.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.indexes.get(name).copied()
    }

    /// The same by the hash of its name.
    pub fn find_hash(&self, hash: u32) -> Option<usize> {
        self.hashes.get(&hash).copied()
    }

    /// Every destination.
    pub fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.all.iter().flatten()
    }

    /// Every destination.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Destination> {
        self.all.iter_mut().flatten()
    }

    /// Forgets destinations with nothing to do, when they have become many. `wanted` are those that
    /// something still points to: a bench, a job that is to be tried alone.
    pub fn sweep(&mut self, wanted: impl FnOnce() -> HashSet<usize>) {
        // Twice as many as were left last time, so that a sweep in vain is rare.
        if self.indexes.len() <= REMEMBERED.max(2 * self.left) {
            return;
        }
        let wanted = wanted();
        for index in 0..self.all.len() {
            let idle = |d: &mut Destination| d.is_idle() && !d.in_ring && !wanted.contains(&index);
            if let Some(gone) = self.all[index].take_if(idle) {
                self.indexes.remove(&gone.name);
                self.free.push(index);
            }
        }
        self.left = self.indexes.len();
        self.hashes = self.indexes.iter().map(|(name, index)| (hash(name), *index)).collect();
    }
}

impl Index<usize> for Destinations {
    type Output = Destination;

    fn index(&self, index: usize) -> &Destination {
        self.all[index].as_ref().expect("an index is given out only while its destination is kept")
    }
}

impl IndexMut<usize> for Destinations {
    fn index_mut(&mut self, index: usize) -> &mut Destination {
        self.all[index].as_mut().expect("an index is given out only while its destination is kept")
    }
}
