//! Who is next, and when again. Pure: no file, no socket, and the clock is an argument.
//!
//! What the schedule knows of a message is little. Outside the working set it is an id, a due time
//! and a hash of its destination. Inside it has one of a bounded number of slots, and jobs: those
//! of its recipients that one hand can serve together.
//!
//! Fairness comes from four rules. No destination has more than a quarter of the slots, no hand
//! more than three quarters, deferred mail no more than half: so a dead destination, a slow hand or
//! a great heap of old mail never keeps new mail for others out. Destinations take turns, a job at
//! a time. Each has a window of jobs under way that grows with success and shrinks when it can't be
//! reached. And a destination that could not be reached twice in a row rests for a while: its mail
//! waits without being tried.
//!
//! Times are microseconds since 1970.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use posta::mail::id::Id;
use posta::spool::Place;

use crate::destination::{Destination, Destinations, Hand};
use crate::rate::Spacings;
use crate::resting::{PAUSED, Resting};
use crate::turns::{ALONE_AT_MOST, Crew};

/// So many messages are put off before anything else is done.
const PUT_OFF_AT_ONCE: usize = 10_000;

/// A second.
pub const SECOND: u64 = 1_000_000;

/// What the schedule is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Messages in the working set.
    pub slots: usize,
    /// Jobs under way for one destination: of posta-local, of posta-remote.
    pub windows: [usize; 2],
    /// How long a destination that can't be reached rests.
    pub rest: u64,
    /// The longest that a deferred message is put off for since its destination rests or is paused.
    pub patience: u64,
    /// Of jobs for destinations that take only so many messages a minute.
    pub spacings: Spacings,
}

/// A message of the working set.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    /// The destination that the slot is charged to, once the message is open.
    charged: Option<usize>,
    /// Jobs that are queued.
    pub(crate) queued: usize,
}

/// A part of a message: the targets that go to one destination together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which hand.
    pub hand: Hand,
    /// The destination's name.
    pub destination: String,
    /// The numbers of the targets.
    pub targets: Vec<u32>,
    /// The least time to the next job of its destination, where a row of a table says one.
    pub spacing: Option<u64>,
}

/// What becomes of a message that was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has its slot. These parts are not tried: their destination rests, and why.
    Admitted(Vec<(Part, String)>),
    /// Its destination has too many slots: close it, it will be asked for again.
    Benched,
}

/// The schedule.
#[derive(Debug)]
pub struct Schedule {
    pub(crate) settings: Settings,
    /// In `new/`, not opened yet.
    pub(crate) fresh: VecDeque<Id>,
    fresh_ids: HashSet<Id>,
    /// Deferred: when due, which, and a hash of where to.
    pub(crate) waiting: BTreeSet<(u64, Id, u32)>,
    pub(crate) held: HashSet<Id>,
    /// Until the first scan is through: what has had a slot. The scan may still tell of it as it was.
    met: Option<HashSet<Id>>,
    pub(crate) slots: HashMap<Id, Slot>,
    /// Slots by hand they are charged to.
    charged: [usize; 2],
    /// Slots that deferred mail has.
    deferred: usize,
    /// Opened once, and closed again for want of room; by destination.
    pub(crate) bench: HashMap<usize, VecDeque<(Id, Place)>>,
    pub(crate) benched: HashSet<Id>,
    /// Destinations whose bench may have room now.
    pub(crate) roomy: VecDeque<usize>,
    /// Deferred messages that were due and have been put off since; whoever waits for them takes them.
    put_off: Vec<Id>,
    pub(crate) destinations: Destinations,
    pub(crate) resting: Resting,
    pub(crate) crews: [Crew; 2],
    pub(crate) last_job: u64,
}

impl Schedule {
    /// An empty schedule.
    pub fn new(settings: Settings) -> Schedule {
        Schedule {
            destinations: Destinations::default(),
            resting: Resting::new(settings.patience),
            settings,
            fresh: VecDeque::new(),
            fresh_ids: HashSet::new(),
            waiting: BTreeSet::new(),
            held: HashSet::new(),
            met: Some(HashSet::new()),
            slots: HashMap::new(),
            charged: [0; 2],
            deferred: 0,
            bench: HashMap::new(),
            benched: HashSet::new(),
            roomy: VecDeque::new(),
            put_off: Vec::new(),
            crews: Default::default(),
            last_job: 0,
        }
    }

    /// New settings, after a reload: of rests, of patience and of spacings. The working set and the windows
    /// stay as they are.
    pub fn follow(&mut self, settings: Settings) {
        self.resting.be_patient(settings.patience);
        let (slots, windows) = (self.settings.slots, self.settings.windows);
        self.settings = Settings { slots, windows, ..settings };
    }

    /// A message in `new/`; one that is known already is not taken twice.
    pub fn add_fresh(&mut self, id: Id) {
        let known = self.slots.contains_key(&id) || self.benched.contains(&id);
        if !known && self.fresh_ids.insert(id) {
            self.fresh.push_back(id);
        }
    }

    /// The scan has found a message that waits until `due`, with the hash of its destination.
    pub fn found_waiting(&mut self, id: Id, due: u64, destination: u32) {
        if !self.has_met(id) {
            self.waiting.insert((due, id, destination));
        }
    }

    /// The scan has found a message that is not to be tried.
    pub fn found_held(&mut self, id: Id) {
        if !self.has_met(id) {
            self.held.insert(id);
        }
    }

    /// What happened to a message while the scan went on is newer than what the scan says of it.
    fn has_met(&self, id: Id) -> bool {
        self.slots.contains_key(&id) || self.met.as_ref().is_some_and(|met| met.contains(&id))
    }

    /// The scan is through.
    pub fn scanned(&mut self) {
        self.met = None;
    }

    /// The next message to open, if there is one and a slot for it. It has the slot from now on.
    pub fn next_open(&mut self, now: u64) -> Option<(Id, Place)> {
        if self.slots.len() >= self.settings.slots {
            return None;
        }
        if let Some((destination, (id, place))) = self.next_of_bench() {
            self.take_slot(id, place);
            self.charge(id, destination);
            return Some((id, place));
        }
        if let Some(id) = self.next_fresh() {
            self.take_slot(id, Place::New);
            return Some((id, Place::New));
        }
        let (id, destination) = self.next_waiting(now)?;
        self.take_slot(id, Place::Cur);
        // Charged already before it is open, so that no more are opened than there is room for.
        if let Some(index) = self.destinations.find_hash(destination) {
            self.charge(id, index);
        }
        Some((id, Place::Cur))
    }

    fn take_slot(&mut self, id: Id, place: Place) {
        if let Some(met) = &mut self.met {
            met.insert(id);
        }
        self.deferred += usize::from(place != Place::New);
        self.slots.insert(id, Slot { place, charged: None, queued: 0 });
    }

    fn charge(&mut self, id: Id, index: usize) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.charged = Some(index);
        let destination = &mut self.destinations[index];
        destination.slots += 1;
        self.charged[destination.hand as usize] += 1;
    }

    /// The messages that were due and have been put off since this was asked last.
    pub fn take_put_off(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.put_off)
    }

    pub(crate) fn has_room_for_deferred(&self) -> bool {
        self.deferred < self.settings.slots.div_ceil(2)
    }

    fn next_fresh(&mut self) -> Option<Id> {
        while let Some(id) = self.fresh.pop_front() {
            self.fresh_ids.remove(&id);
            if !self.slots.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// The next that is due and may be tried, with the hash of its destination.
    fn next_waiting(&mut self, now: u64) -> Option<(Id, u32)> {
        if !self.has_room_for_deferred() {
            return None;
        }
        for _ in 0..PUT_OFF_AT_ONCE {
            let (due, id, destination) = *self.waiting.first()?;
            if due > now {
                return None;
            }
            self.waiting.remove(&(due, id, destination));
            self.resting.remember(id, due);
            let again = if self.slots.contains_key(&id) {
                // A hint that came late has it looked for in new/, where it will not be found.
                Some(now + SECOND)
            } else {
                self.resting.put_off(id, destination, now)
            };
            match again {
                None if self.is_benched_unopened(id, destination) => {}
                None => return Some((id, destination)),
                Some(again) => {
                    self.waiting.insert((again, id, destination));
                    if !self.slots.contains_key(&id) {
                        self.put_off.push(id);
                    }
                }
            }
        }
        None
    }

    /// Whether another slot may be charged to this destination.
    pub(crate) fn has_room(&self, destination: usize) -> bool {
        let slots = self.settings.slots;
        let target = &self.destinations[destination];
        target.slots < slots.div_ceil(4) && self.charged[target.hand as usize] < (slots * 3).div_ceil(4)
    }

    /// A message was opened and has these parts to be tried. `alone`: it has a strike.
    pub fn admit(&mut self, id: Id, parts: Vec<Part>, alone: bool, now: u64) -> Admission {
        let Some(slot) = self.slots.get(&id) else {
            return Admission::Benched;
        };
        let (place, charged) = (slot.place, slot.charged);
        let indexes: Vec<usize> =
            parts.iter().map(|p| self.destinations.index(p.hand, &p.destination, &self.settings)).collect();
        if let (None, Some(&first)) = (charged, indexes.first()) {
            if !self.has_room(first) {
                // The bench first: what stands on it keeps its destination from being forgotten.
                self.sit(first, id, place);
                self.free_slot(id);
                return Admission::Benched;
            }
            self.charge(id, first);
        }
        let mut resting = Vec::new();
        for (part, index) in parts.into_iter().zip(indexes) {
            let why = if self.resting.is_paused(&part.destination) {
                Some(PAUSED)
            } else {
                self.destinations[index].rests(now)
            };
            match why {
                Some(why) => resting.push((part, why.to_string())),
                None => self.enqueue(id, part, index, alone),
            }
        }
        Admission::Admitted(resting)
    }

    /// Whether a message is on hold, or may be about to be.
    pub fn may_be_held(&self, id: Id) -> bool {
        self.held.contains(&id) || self.slots.contains_key(&id)
    }

    /// Whether a message is in the working set, be it open yet or not.
    pub fn has_slot(&self, id: Id) -> bool {
        self.slots.contains_key(&id)
    }

    /// A message leaves the working set for good.
    pub fn forget(&mut self, id: Id) {
        self.free_slot(id);
        self.resting.forget(id);
        self.held.remove(&id);
    }

    /// A message was not where it was looked for: a hint that came late. Wherever it is known to be it stays.
    pub fn not_there(&mut self, id: Id) {
        self.free_slot(id);
    }

    /// A message leaves the working set and waits until `due`.
    pub fn defer(&mut self, id: Id, due: u64, destination: u32) {
        self.free_slot(id);
        self.resting.forget(id);
        self.waiting.insert((due, id, destination));
    }

    /// A message leaves the working set and is not to be tried until released.
    pub fn hold(&mut self, id: Id) {
        self.free_slot(id);
        self.resting.forget(id);
        self.held.insert(id);
    }

    fn free_slot(&mut self, id: Id) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.deferred -= usize::from(slot.place != Place::New);
        if let Some(index) = slot.charged {
            let destination = &mut self.destinations[index];
            destination.slots -= 1;
            let hand = destination.hand as usize;
            self.charged[hand] -= 1;
            self.wake_bench(index);
            if self.charged[hand] + 1 == (self.settings.slots * 3).div_ceil(4) {
                // The whole hand was out of room: any bench of it may go on.
                self.wake_other_benches(index);
            }
        }
        let suspects = self.crews.iter().flat_map(|crew| &crew.suspects);
        self.destinations
            .sweep(|| self.bench.keys().copied().chain(suspects.map(|s| s.destination)).collect());
    }

    /// Takes a message out of those that wait or are held, and gives it a slot even if there is none
    /// free: the administrator has asked for it. `None`: it is not among them.
    pub fn fetch(&mut self, id: Id) -> Option<Place> {
        let place = if self.held.remove(&id) {
            Place::Hold
        } else if let Some(entry) = self.waiting.iter().find(|w| w.1 == id).copied() {
            self.waiting.remove(&entry);
            Place::Cur
        } else if self.fresh_ids.remove(&id) {
            self.fresh.retain(|f| *f != id);
            Place::New
        } else {
            let (_, queue) = self.bench.iter_mut().find(|(_, queue)| queue.iter().any(|b| b.0 == id))?;
            let at = queue.iter().position(|b| b.0 == id)?;
            self.benched.remove(&id);
            queue.remove(at)?.1
        };
        self.take_slot(id, place);
        Some(place)
    }

    /// Makes messages due now: those that `which` says of (id, hash of the destination). Gives how
    /// many. Destinations that rest are woken; paused ones are not.
    pub fn hurry(&mut self, now: u64, which: impl Fn(Id, u32) -> bool) -> usize {
        let chosen: Vec<_> = self.waiting.iter().filter(|w| w.0 > now && which(w.1, w.2)).copied().collect();
        for entry in &chosen {
            self.waiting.remove(entry);
            self.waiting.insert((now, entry.1, entry.2));
        }
        self.destinations.iter_mut().for_each(Destination::wake);
        self.resting.wake_all();
        chosen.len()
    }

    /// Deferred messages that are filed for one destination, and not for that of the hash `at`.
    pub fn waiting_elsewhere(&self, at: u32) -> Vec<Id> {
        self.waiting.iter().filter(|w| w.2 != at && w.2 != 0).map(|w| w.1).collect()
    }

    /// When something will be due that is not now; `None`: nothing waits for the clock.
    pub fn wake_at(&self) -> Option<u64> {
        let due = self.waiting.first().map(|w| w.0).filter(|_| self.slots.len() < self.settings.slots);
        let alone = self.crews.iter().filter_map(|c| c.alone).map(|(_, since)| since + ALONE_AT_MOST);
        let spaced = self.crews.iter().filter_map(Crew::next_spaced);
        alone.chain(due).chain(spaced).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use posta::config::{DomainFate, DomainRule};

    use crate::turns::{Ending, Job};

    use super::*;

    const NOW: u64 = 1_795_550_000 * SECOND;

    fn id(n: usize) -> Id {
        Id::parse(&format!("{n:015}")).unwrap()
    }

    fn schedule(slots: usize, credits: usize) -> Schedule {
        let mut s = Schedule::new(Settings {
            slots,
            windows: [250, 20],
            rest: 60 * SECOND,
            patience: 3600 * SECOND,
            spacings: Spacings::default(),
        });
        s.hand_up(Hand::Local, credits);
        s.hand_up(Hand::Remote, credits);
        s
    }

    fn part(hand: Hand, destination: &str) -> Vec<Part> {
        vec![Part { hand, destination: destination.into(), targets: vec![0], spacing: None }]
    }

    /// Opens everything that may be opened; `to` says where each message goes.
    fn open_all(s: &mut Schedule, now: u64, to: impl Fn(Id) -> (Hand, String)) -> usize {
        let mut admitted = 0;
        for _ in 0..100_000 {
            let Some((id, _)) = s.next_open(now) else { return admitted };
            let (hand, destination) = to(id);
            if s.admit(id, part(hand, &destination), false, now) != Admission::Benched {
                admitted += 1;
            }
        }
        panic!("opens for ever");
    }

    fn jobs(s: &mut Schedule, now: u64) -> Vec<Job> {
        std::iter::from_fn(|| s.next_job(now)).collect()
    }

    #[test]
    fn one_destination_never_has_more_than_a_quarter_of_the_slots() {
        let mut s = schedule(40, 1000);
        (0..100).for_each(|n| s.add_fresh(id(n)));
        s.add_fresh(id(100));
        let to = |i: Id| (Hand::Remote, if i == id(100) { "good" } else { "dead" }.to_string());
        assert_eq!(open_all(&mut s, NOW, to), 11);
        let given = jobs(&mut s, NOW);
        assert!(given.iter().any(|j| j.id == id(100)), "the hundredth waits behind a dead destination");
        assert_eq!(s.counts(), [0, 101, 0, 0]);
        // A slot that comes free goes to the next of the bench, in order.
        s.forget(given[0].id);
        s.job_ended(given[0].number, Hand::Remote, Ending::Reached, "", NOW);
        assert_eq!(s.next_open(NOW), Some((id(10), Place::New)));
    }

    #[test]
    fn a_clock_that_jumps_backwards_holds_up_no_new_mail_and_forgets_none() {
        let mut s = schedule(40, 1000);
        s.found_waiting(id(1), NOW + SECOND, 0);
        let hours_ago = NOW - 5 * 3600 * SECOND;
        assert_eq!(s.next_open(hours_ago), None);
        s.add_fresh(id(2));
        assert_eq!(s.next_open(hours_ago), Some((id(2), Place::New)));
        assert_eq!(s.admit(id(2), part(Hand::Local, ""), false, hours_ago), Admission::Admitted(Vec::new()));
        assert_eq!(jobs(&mut s, hours_ago).len(), 1);
        assert_eq!(s.next_open(NOW), None);
        assert_eq!(s.next_open(NOW + SECOND), Some((id(1), Place::Cur)));
    }

    /// So many destinations are known, with nothing to do, that one more has them swept out.
    fn schedule_that_knows_many(slots: usize) -> Schedule {
        let mut s = schedule(slots, 1000);
        for n in 0..9_997 {
            s.add_fresh(id(n));
            open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string()));
            let job = s.next_job(NOW).unwrap();
            s.job_ended(job.number, Hand::Remote, Ending::Reached, "", NOW);
            s.forget(job.id);
        }
        s
    }

    #[test]
    fn a_destination_with_a_bench_is_kept_however_many_are_known() {
        let mut s = schedule_that_knows_many(4);
        (10_000..10_004).for_each(|n| s.add_fresh(id(n)));
        assert_eq!(open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string())), 3);
        s.forget(id(10_000));
        assert_eq!(s.next_open(NOW), Some((id(10_003), Place::New)));
    }

    #[test]
    fn a_destination_with_a_job_to_be_tried_alone_is_kept_however_many_are_known() {
        let mut s = schedule_that_knows_many(40);
        (10_000..10_003).for_each(|n| s.add_fresh(id(n)));
        let (suspect, _) = s.next_open(NOW).unwrap();
        let parts = ["one", "two"].into_iter().flat_map(|to| part(Hand::Remote, to)).collect();
        assert_eq!(s.admit(suspect, parts, true, NOW), Admission::Admitted(Vec::new()));
        open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string()));
        s.forget(id(10_001));
        for _ in 0..2 {
            let job = s.next_job(NOW).unwrap();
            assert_eq!((job.id, job.alone), (suspect, true));
            s.job_ended(job.number, Hand::Remote, Ending::Reached, "", NOW);
        }
    }

    #[test]
    fn a_destination_that_has_lost_its_jobs_holds_up_no_other() {
        let mut s = schedule(40, 1000);
        (0..2).for_each(|n| s.add_fresh(id(n)));
        open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string()));
        assert_eq!(s.withdraw(id(0)).len(), 1);
        assert_eq!(s.next_job(NOW).map(|job| job.id), Some(id(1)));
    }

    #[test]
    fn a_destination_that_takes_so_many_a_minute_gets_them_evenly() {
        let mut s = schedule(40, 1000);
        let slow = DomainRule { messages_per_minute: 6, ..DomainRule::new("slow", DomainFate::RelayMx) };
        s.settings.spacings = Spacings::new(&[slow]);
        (0..6).for_each(|n| s.add_fresh(id(n)));
        let to = |i: Id| (Hand::Remote, if i < id(3) { "slow" } else { "fast" }.to_string());
        assert_eq!(open_all(&mut s, NOW, to), 6);
        let given: Vec<Id> = jobs(&mut s, NOW).iter().map(|job| job.id).collect();
        assert_eq!(given.iter().filter(|i| **i < id(3)).count(), 1, "others wait for nobody");
        assert_eq!(given.len(), 4);
        assert_eq!(s.wake_at(), Some(NOW + 10 * SECOND));
        assert!(s.next_job(NOW + 10 * SECOND - 1).is_none());
        let job = s.next_job(NOW + 10 * SECOND).unwrap();
        assert_eq!(job.id, id(1));
        // What could not be sent has used nothing up.
        s.take_back(job.number, Hand::Remote);
        assert_eq!(jobs(&mut s, NOW + 10 * SECOND).len(), 1);
        assert_eq!(jobs(&mut s, NOW + 60 * SECOND)[0].id, id(2));
    }

    #[test]
    fn the_rate_of_a_row_holds_for_what_comes_after_its_mail() {
        let mut s = schedule(40, 1000);
        (0..3).for_each(|n| s.add_fresh(id(n)));
        for n in 0..3 {
            let (i, _) = s.next_open(NOW).unwrap();
            let spacing = (n == 1).then_some(10 * SECOND);
            let part = Part { spacing, ..part(Hand::Remote, "relay").remove(0) };
            assert_eq!(s.admit(i, vec![part], false, NOW), Admission::Admitted(vec![]));
        }
        assert_eq!(jobs(&mut s, NOW).iter().map(|job| job.id).collect::<Vec<_>>(), [id(0), id(1)]);
        assert!(s.next_job(NOW + 10 * SECOND - 1).is_none());
        assert_eq!(s.next_job(NOW + 10 * SECOND).map(|job| job.id), Some(id(2)));
    }

    #[test]
    fn a_local_delivery_never_waits_for_remote_ones() {
        let mut s = schedule(40, 1000);
        (0..1000).for_each(|n| s.add_fresh(id(n)));
        s.add_fresh(id(1000));
        let to = |i: Id| {
            if i == id(1000) { (Hand::Local, "alice".into()) } else { (Hand::Remote, format!("dead{i}")) }
        };
        open_all(&mut s, NOW, to);
        assert!(jobs(&mut s, NOW).iter().any(|j| j.hand == Hand::Local));
    }

    #[test]
    fn deferred_mail_has_at_most_half_of_the_slots() {
        let mut s = schedule(40, 1000);
        (0..100).for_each(|n| s.found_waiting(id(n), NOW, 0));
        open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string()));
        assert_eq!(s.counts(), [0, 20, 80, 0]);
        assert_eq!(s.wake_at(), Some(NOW));
    }

    #[test]
    fn what_happens_while_the_scan_goes_on_is_newer_than_the_scan() {
        let mut s = schedule(40, 10);
        (1..=3).for_each(|n| s.add_fresh(id(n)));
        open_all(&mut s, NOW, |i| (Hand::Remote, i.to_string()));
        s.defer(id(1), NOW + 9 * SECOND, 0);
        s.hold(id(2));
        s.forget(id(3));
        (1..=4).for_each(|n| s.found_waiting(id(n), NOW + 5 * SECOND, 0));
        assert_eq!(s.counts(), [0, 0, 2, 1]);
        assert_eq!(s.wake_at(), Some(NOW + 5 * SECOND));
        s.scanned();
    }

    #[test]
    fn destinations_take_turns() {
        let mut s = schedule(400, 6);
        (0..60).for_each(|n| s.add_fresh(id(n)));
        // Fifty for one destination came before ten for another.
        let to = |i: Id| (Hand::Remote, if i < id(50) { "many" } else { "few" }.to_string());
        open_all(&mut s, NOW, to);
        let few = jobs(&mut s, NOW).iter().filter(|j| s.destinations[j.destination].name == "few").count();
        assert_eq!(few, 3);
    }

    #[test]
    fn the_window_grows_with_success_and_a_dead_destination_rests() {
        let mut s = schedule(4000, 1000);
        (0..500).for_each(|n| s.add_fresh(id(n)));
        open_all(&mut s, NOW, |_| (Hand::Remote, "x".into()));
        let first = jobs(&mut s, NOW);
        assert_eq!(first.len(), 10);
        for job in &first {
            s.job_ended(job.number, Hand::Remote, Ending::Reached, "", NOW);
        }
        let second = jobs(&mut s, NOW);
        assert_eq!(second.len(), 20);
        for job in &second {
            s.job_ended(job.number, Hand::Remote, Ending::Unreachable, "connection refused", NOW);
        }
        assert_eq!(jobs(&mut s, NOW).len(), 1);
        s.add_fresh(id(900));
        s.next_open(NOW);
        let resting = s.admit(id(900), part(Hand::Remote, "x"), false, NOW);
        assert!(matches!(&resting, Admission::Admitted(r) if r[0].1 == "connection refused"), "{resting:?}");
        s.add_fresh(id(901));
        s.next_open(NOW);
        let later = s.admit(id(901), part(Hand::Remote, "x"), false, NOW + 61 * SECOND);
        assert_eq!(later, Admission::Admitted(vec![]));
    }

    #[test]
    fn deferred_mail_for_a_dead_destination_is_not_opened() {
        let mut s = schedule(400, 1000);
        let dead = crate::destination::hash("dead");
        (0..100).for_each(|n| s.found_waiting(id(n), NOW, dead));
        assert_eq!(open_all(&mut s, NOW, |_| (Hand::Remote, "dead".into())), 100);
        let first = jobs(&mut s, NOW);
        for job in &first {
            s.job_ended(job.number, Hand::Remote, Ending::Unreachable, "connection refused", NOW);
        }
        // What waits for its turn waits no longer: none of it is tried before the rest is over.
        let withdrawn = s.withdraw_from("dead", NOW);
        assert_eq!(withdrawn.len(), 90);
        (0..100).for_each(|n| s.defer(id(n), NOW + SECOND, dead));
        s.found_waiting(id(500), NOW, 7);
        assert_eq!(s.next_open(NOW + SECOND), Some((id(500), Place::Cur)));
        assert_eq!((s.next_open(NOW + SECOND), s.wake_at()), (None, Some(NOW + 60 * SECOND)));
        // The probe.
        assert!(s.next_open(NOW + 60 * SECOND).is_some());
        assert_eq!(s.next_open(NOW + 60 * SECOND), None);
    }

    #[test]
    fn a_heap_for_one_relay_is_opened_once() {
        let mut s = schedule(400, 1000);
        let relay = crate::destination::hash("relay");
        // The destination is known, by a message that was tried.
        s.add_fresh(id(9_999));
        open_all(&mut s, NOW, |_| (Hand::Remote, "relay".into()));
        (0..1000).for_each(|n| s.found_waiting(id(n), NOW, relay));
        let mut opened = 0;
        for _ in 0..2000 {
            // All that may be opened are, before the first of them is.
            let asked: Vec<_> = std::iter::from_fn(|| s.next_open(NOW)).collect();
            opened += asked.iter().filter(|(_, place)| *place == Place::Cur).count();
            for (i, _) in asked {
                assert_ne!(s.admit(i, part(Hand::Remote, "relay"), false, NOW), Admission::Benched);
            }
            let Some(job) = s.next_job(NOW) else { break };
            s.job_ended(job.number, Hand::Remote, Ending::Reached, "", NOW);
            s.forget(job.id);
        }
        assert_eq!(s.counts(), [0; 4]);
        assert_eq!(opened, 1000);
    }

    #[test]
    fn a_heap_for_a_relay_that_is_dead_again_waits_unopened() {
        let mut s = schedule(400, 1000);
        let relay = crate::destination::hash("relay");
        (0..1000).for_each(|n| s.found_waiting(id(n), NOW, relay));
        open_all(&mut s, NOW, |_| (Hand::Remote, "relay".into()));
        let tried = jobs(&mut s, NOW);
        for job in &tried {
            s.job_ended(job.number, Hand::Remote, Ending::Unreachable, "refused", NOW);
            s.defer(job.id, NOW + 300 * SECOND, relay);
        }
        for job in s.withdraw_from("relay", NOW) {
            s.defer(job.id, NOW + 300 * SECOND, relay);
        }
        assert_eq!(s.next_open(NOW), None);
        assert_eq!(s.counts(), [0, 0, 1000, 0]);
        assert_eq!(s.next_open(NOW + 60 * SECOND).map(|(_, place)| place), Some(Place::Cur));
    }

    #[test]
    fn a_paused_destination_is_left_alone_until_it_is_resumed() {
        let mut s = schedule(40, 10);
        s.resting.pause("slow");
        s.found_waiting(id(1), NOW, crate::destination::hash("slow"));
        assert_eq!(s.next_open(NOW), None);
        s.add_fresh(id(2));
        s.next_open(NOW);
        let admitted = s.admit(id(2), part(Hand::Remote, "slow"), false, NOW);
        assert!(matches!(&admitted, Admission::Admitted(r) if r[0].1 == PAUSED), "{admitted:?}");
        s.hurry(NOW, |_, _| true);
        assert_eq!(s.next_open(NOW), None);
        s.resting.resume("slow");
        s.hurry(NOW + SECOND, |_, _| true);
        assert_eq!(s.next_open(NOW + SECOND), Some((id(1), Place::Cur)));
    }

    #[test]
    fn what_a_dead_hand_held_is_tried_alone() {
        let mut s = schedule(40, 10);
        (0..3).for_each(|n| s.add_fresh(id(n)));
        open_all(&mut s, NOW, |i| (Hand::Local, i.to_string()));
        assert_eq!(jobs(&mut s, NOW).len(), 3);
        let held = s.hand_down(Hand::Local);
        assert_eq!(held.len(), 3);
        for number in held {
            s.job_ended(number, Hand::Local, Ending::Lost, "", NOW);
        }
        (0..3).for_each(|n| s.defer(id(n), NOW, 0));
        s.hand_up(Hand::Local, 10);
        s.add_fresh(id(3));
        while let Some((i, _)) = s.next_open(NOW) {
            s.admit(i, part(Hand::Local, i.as_str()), i != id(3), NOW);
        }
        let alone = jobs(&mut s, NOW);
        assert_eq!(alone.len(), 1, "{alone:?}");
        assert_eq!(jobs(&mut s, NOW + ALONE_AT_MOST).len(), 1, "others wait no longer than that");
        s.job_ended(alone[0].number, Hand::Local, Ending::Reached, "", NOW);
    }

    #[test]
    fn a_job_that_was_not_sent_is_the_next_again() {
        let mut s = schedule(40, 10);
        s.add_fresh(id(1));
        open_all(&mut s, NOW, |_| (Hand::Local, "alice".into()));
        let job = s.next_job(NOW).unwrap();
        s.take_back(job.number, Hand::Local);
        assert_eq!(s.next_job(NOW), Some(job));
    }

    #[test]
    fn a_long_job_is_divided() {
        let mut s = schedule(40, 10);
        s.add_fresh(id(1));
        s.next_open(NOW);
        let targets = vec![0, 1, 2];
        s.admit(
            id(1),
            vec![Part { hand: Hand::Local, destination: "a".into(), targets, spacing: None }],
            false,
            NOW,
        );
        let job = s.next_job(NOW).unwrap();
        assert!(s.divide(job.number, Hand::Local));
        let mut served: Vec<u32> = jobs(&mut s, NOW).into_iter().flat_map(|j| j.targets).collect();
        served.sort_unstable();
        assert_eq!(served, [0, 1, 2]);
    }

    #[test]
    fn the_administrator_hurries_one_destination_only() {
        let mut s = schedule(40, 10);
        s.found_waiting(id(1), NOW + 100 * SECOND, 7);
        s.found_waiting(id(2), NOW + 100 * SECOND, 8);
        assert_eq!(s.hurry(NOW, |_, destination| destination == 7), 1);
        assert_eq!(s.next_open(NOW), Some((id(1), Place::Cur)));
        assert_eq!(s.next_open(NOW), None);
        assert_eq!(s.fetch(id(2)), Some(Place::Cur));
        assert_eq!(s.fetch(id(2)), None);
    }

    /// What can happen to a schedule, at random.
    #[derive(Debug, Clone)]
    enum Happening {
        Fresh(usize),
        Open,
        Job,
        End(usize, bool),
        HandDies(bool),
        Defer(usize),
        Withdraw(usize),
        Later(u64),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0..50_usize).prop_map(Happening::Fresh),
            Just(Happening::Open),
            Just(Happening::Job),
            (0..8_usize, any::<bool>()).prop_map(|(n, good)| Happening::End(n, good)),
            any::<bool>().prop_map(Happening::HandDies),
            (0..50_usize).prop_map(Happening::Defer),
            (0..50_usize).prop_map(Happening::Withdraw),
            (0..120_u64).prop_map(Happening::Later),
        ]
    }

    proptest! {
        /// The books always balance: slots and credits are never exceeded, nothing is counted twice,
        /// and when all is over nothing is left charged.
        #[test]
        fn the_books_balance(story in prop::collection::vec(happening(), 1..300)) {
            let mut s = schedule(12, 4);
            let mut now = NOW;
            let mut running: Vec<Job> = Vec::new();
            for step in story {
                match step {
                    Happening::Fresh(n) => s.add_fresh(id(n)),
                    Happening::Open => {
                        if let Some((i, _)) = s.next_open(now) {
                            let hand = if i.as_str().ends_with('1') { Hand::Local } else { Hand::Remote };
                            s.admit(i, part(hand, &format!("{hand:?}{}", &i.as_str()[13..14])), false, now);
                        }
                    }
                    Happening::Job => running.extend(s.next_job(now)),
                    Happening::End(n, good) if n < running.len() => {
                        let job = running.swap_remove(n);
                        let ending = if good { Ending::Reached } else { Ending::Unreachable };
                        prop_assert!(s.job_ended(job.number, job.hand, ending, "", now).is_some());
                        s.forget(job.id);
                    }
                    Happening::HandDies(local) => {
                        let hand = if local { Hand::Local } else { Hand::Remote };
                        for number in s.hand_down(hand) {
                            s.job_ended(number, hand, Ending::Lost, "", now);
                        }
                        for job in running.extract_if(.., |j| j.hand == hand) {
                            s.defer(job.id, now, 0);
                        }
                        s.hand_up(hand, 4);
                    }
                    Happening::Defer(n) => {
                        if s.slots.contains_key(&id(n)) && !running.iter().any(|j| j.id == id(n)) {
                            s.withdraw(id(n));
                            s.defer(id(n), now + SECOND, 0);
                        }
                    }
                    Happening::Withdraw(n) => {
                        if !s.withdraw(id(n)).is_empty() {
                            s.forget(id(n));
                        }
                    }
                    Happening::Later(seconds) => now += seconds * SECOND,
                    Happening::End(..) => {}
                }
                prop_assert!(s.slots.len() <= 12);
                prop_assert!(s.deferred <= 6);
                for crew in &s.crews {
                    prop_assert!(crew.under_way.len() <= 4);
                }
                let charged: usize = s.destinations.iter_mut().map(|d| d.slots).sum();
                prop_assert_eq!(charged, s.charged[0] + s.charged[1]);
                prop_assert!(s.destinations.iter_mut().all(|d| d.slots <= 3));
            }
        }
    }
}
