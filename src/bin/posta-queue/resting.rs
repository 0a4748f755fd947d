//! Destinations that are left alone: those that could not be reached and rest, and those that the
//! administrator has paused.
//!
//! Deferred mail for such a destination is put off without being opened, so that ten thousand
//! messages for a dead host cost nothing. When the rest is over, one message goes first, as a probe;
//! the others follow when it has reached the destination. No message is put off for longer than
//! `patience`: then it is opened, so that its sender hears in time, and it is given up in time.

use std::collections::{BTreeMap, HashMap};

use posta::mail::id::Id;

use crate::destination::hash;
use crate::schedule::SECOND;

/// What is said of mail for a paused destination.
pub const PAUSED: &str = "paused by the administrator";
/// The others look again after this whether the probe has come through.
const BEHIND_PROBE: u64 = 10 * SECOND;
/// A probe that is not heard of for so long is lost: another one goes.
const PROBE_AT_MOST: u64 = 600 * SECOND;

/// So many are remembered before old ones are looked for.
const REMEMBERED: usize = 10_000;

/// One that can't be reached.
#[derive(Debug)]
struct Rest {
    until: u64,
    /// When its probe was sent.
    probed: Option<u64>,
}

/// All of them, by the hash of their name, which is all that is known of a message that waits.
#[derive(Debug)]
pub struct Resting {
    rests: HashMap<u32, Rest>,
    paused: BTreeMap<u32, String>,
    /// Messages that were due and have not been tried yet, and when they were due first.
    due: HashMap<Id, u64>,
    patience: u64,
}

impl Resting {
    /// None. `patience`: the longest that a message is put off for, in microseconds.
    pub fn new(patience: u64) -> Resting {
        Resting { rests: HashMap::new(), paused: BTreeMap::new(), due: HashMap::new(), patience }
    }

    /// From now on no message is put off for longer than that.
    pub fn be_patient(&mut self, patience: u64) {
        self.patience = patience;
    }

    /// Messages that were due and have not been tried yet.
    #[cfg(test)]
    pub fn due_count(&self) -> usize {
        self.due.len()
    }

    /// A destination rests.
    pub fn begin(&mut self, name: &str, until: u64) {
        if self.rests.len() >= REMEMBERED {
            // Of those whose rest is long over nothing is waited for any more.
            self.rests.retain(|_, rest| rest.until + PROBE_AT_MOST > until);
        }
        self.rests.insert(hash(name), Rest { until, probed: None });
    }

    /// A destination was reached.
    pub fn end(&mut self, name: &str) {
        if !self.rests.is_empty() {
            self.rests.remove(&hash(name));
        }
    }

    /// Every rest is over: the administrator says so. What is paused stays so.
    pub fn wake_all(&mut self) {
        self.rests.clear();
    }

    /// Leaves a destination alone until it is resumed; `false` if it is so already.
    pub fn pause(&mut self, name: &str) -> bool {
        self.paused.insert(hash(name), name.to_string()).is_none()
    }

    /// The end of a pause; `false` if there was none.
    pub fn resume(&mut self, name: &str) -> bool {
        self.paused.remove(&hash(name)).is_some()
    }

    /// Whether a destination is paused.
    pub fn is_paused(&self, name: &str) -> bool {
        !self.paused.is_empty() && self.paused.contains_key(&hash(name))
    }

    /// The names of those that are paused.
    pub fn paused(&self) -> impl Iterator<Item = &str> {
        self.paused.values().map(String::as_str)
    }

    /// A message is due. However often it is put off, or has to wait for room, its time counts from the
    /// first time.
    pub fn remember(&mut self, id: Id, due: u64) {
        self.due.entry(id).or_insert(due);
    }

    /// A message is due, for the destination of that hash: when it is to be looked at again, if it is
    /// not to be opened now.
    pub fn put_off(&mut self, id: Id, destination: u32, now: u64) -> Option<u64> {
        let again = if self.paused.contains_key(&destination) {
            now + self.patience
        } else {
            let rest = self.rests.get_mut(&destination)?;
            match rest.probed {
                _ if now < rest.until => rest.until,
                Some(since) if now < since + PROBE_AT_MOST => now + BEHIND_PROBE,
                _ => {
                    rest.probed = Some(now);
                    return None;
                }
            }
        };
        let since = self.due.get(&id).copied().unwrap_or(now);
        let latest = since.saturating_add(self.patience);
        (now < latest).then_some(again.min(latest))
    }

    /// A message was tried, or is gone.
    pub fn forget(&mut self, id: Id) {
        if !self.due.is_empty() {
            self.due.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_550_000 * SECOND;
    const HOUR: u64 = 3600 * SECOND;

    fn id(n: usize) -> Id {
        Id::parse(&format!("{n:015}")).unwrap()
    }

    fn put_off(resting: &mut Resting, id: Id, destination: u32, due: u64, now: u64) -> Option<u64> {
        resting.remember(id, due);
        resting.put_off(id, destination, now)
    }

    #[test]
    fn after_a_rest_one_goes_first_and_the_others_follow_when_it_has_come_through() {
        let mut resting = Resting::new(HOUR);
        resting.begin("dead", NOW + 60 * SECOND);
        let dead = hash("dead");
        assert_eq!(put_off(&mut resting, id(1), dead, NOW, NOW), Some(NOW + 60 * SECOND));
        assert_eq!(put_off(&mut resting, id(9), hash("alive"), NOW, NOW), None);
        let later = NOW + 60 * SECOND;
        assert_eq!(put_off(&mut resting, id(1), dead, later, later), None, "the probe");
        assert_eq!(put_off(&mut resting, id(2), dead, later, later), Some(later + BEHIND_PROBE));
        resting.begin("dead", later + 60 * SECOND);
        assert_eq!(put_off(&mut resting, id(2), dead, later, later), Some(later + 60 * SECOND));
        resting.end("dead");
        assert_eq!(put_off(&mut resting, id(2), dead, later, later), None);
    }

    #[test]
    fn a_probe_that_is_lost_has_a_successor() {
        let mut resting = Resting::new(HOUR);
        resting.begin("dead", NOW);
        assert_eq!(put_off(&mut resting, id(1), hash("dead"), NOW, NOW), None);
        let later = NOW + PROBE_AT_MOST;
        assert_eq!(put_off(&mut resting, id(2), hash("dead"), later, later), None);
    }

    #[test]
    fn nothing_is_put_off_for_ever() {
        let mut resting = Resting::new(HOUR);
        assert!(resting.pause("slow") && !resting.pause("slow"));
        let slow = hash("slow");
        assert_eq!(put_off(&mut resting, id(1), slow, NOW, NOW + SECOND), Some(NOW + HOUR));
        assert_eq!(put_off(&mut resting, id(1), slow, NOW + HOUR, NOW + HOUR), None);
        resting.forget(id(1));
        let (again, latest) = (NOW + 2 * HOUR, NOW + 3 * HOUR);
        assert_eq!(put_off(&mut resting, id(1), slow, again, again), Some(latest));
        assert!(resting.resume("slow") && !resting.resume("slow"));
        assert_eq!(put_off(&mut resting, id(1), slow, again, again), None);
    }
}
