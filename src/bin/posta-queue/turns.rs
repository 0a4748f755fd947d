//! Jobs, in turn: what the hands are doing and what they do next. The schedule's other half.

use std::collections::{BTreeSet, HashMap, VecDeque};

use posta::mail::id::Id;

use crate::destination::Hand;
use crate::schedule::{Part, SECOND, Schedule};

/// A destination that could not be reached this often in a row rests.
const TIRES_AFTER: u32 = 2;
/// A message that is tried alone keeps the others of its hand waiting no longer than this.
pub(crate) const ALONE_AT_MOST: u64 = 10 * SECOND;

/// What one hand is to do for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Names the job.
    pub number: u64,
    /// The message.
    pub id: Id,
    /// Which hand.
    pub hand: Hand,
    /// Index of the destination.
    pub destination: usize,
    /// The numbers of the message's targets that it serves.
    pub targets: Vec<u32>,
    /// The least time from its begin to that of the destination's next job, if it has one of its own.
    pub spacing: Option<u64>,
    /// A hand died while it held this message: it is tried with nothing beside it.
    pub alone: bool,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The destination was there, whatever it said.
    Reached,
    /// No host of it could be reached.
    Unreachable,
    /// The hand died.
    Lost,
}

/// What a hand has been granted and has taken.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    pub(crate) credits: usize,
    pub(crate) under_way: HashMap<u64, Job>,
    /// Destinations that have a job to give, in turn.
    ring: VecDeque<usize>,
    /// Those whose next job has to wait for its time, and until when.
    spaced: BTreeSet<(u64, usize)>,
    /// Jobs to be tried alone.
    pub(crate) suspects: VecDeque<Job>,
    /// The job that is tried alone just now, and since when.
    pub(crate) alone: Option<(u64, u64)>,
}

impl Crew {
    /// When the first of the destinations that wait for their time may go on.
    pub(crate) fn next_spaced(&self) -> Option<u64> {
        self.spaced.first().map(|(at, _)| *at)
    }

    /// Lines those up whose time has come.
    fn end_waits(&mut self, now: u64) {
        while let Some(&(at, index)) = self.spaced.first()
            && at <= now
        {
            self.spaced.pop_first();
            self.ring.push_back(index);
        }
    }
}

impl Schedule {
    pub(crate) fn enqueue(&mut self, id: Id, part: Part, destination: usize, alone: bool) {
        self.last_job += 1;
        let Part { hand, targets, spacing, .. } = part;
        let job = Job { number: self.last_job, id, hand, destination, targets, spacing, alone };
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.queued += 1;
        }
        if alone {
            self.crews[hand as usize].suspects.push_back(job);
            return;
        }
        self.destinations[destination].queue.push_back(job);
        self.line_up(destination);
    }

    /// Puts a destination into its hand's ring if it has a job to give and may give it.
    fn line_up(&mut self, index: usize) {
        let destination = &mut self.destinations[index];
        if !destination.in_ring && !destination.queue.is_empty() && destination.running < destination.window {
            destination.in_ring = true;
            self.crews[destination.hand as usize].ring.push_back(index);
        }
    }

    /// The next job that a hand can take now.
    pub fn next_job(&mut self, now: u64) -> Option<Job> {
        [Hand::Local, Hand::Remote].into_iter().find_map(|hand| self.next_job_of(hand, now))
    }

    fn next_job_of(&mut self, hand: Hand, now: u64) -> Option<Job> {
        let crew = &mut self.crews[hand as usize];
        crew.end_waits(now);
        if crew.under_way.len() >= crew.credits {
            return None;
        }
        if crew.alone.is_some_and(|(_, since)| now < since + ALONE_AT_MOST) {
            return None;
        }
        let job = if !crew.suspects.is_empty() && crew.alone.is_none() {
            if !crew.under_way.is_empty() {
                return None;
            }
            let job = crew.suspects.pop_front()?;
            crew.alone = Some((job.number, now));
            job
        } else {
            self.next_in_ring(hand, now)?
        };
        let destination = &mut self.destinations[job.destination];
        destination.running += 1;
        if let Some(spacing) = job.spacing.or_else(|| self.settings.spacings.of(&destination.name)) {
            destination.next_at = now + spacing;
        }
        self.line_up(job.destination);
        if let Some(slot) = self.slots.get_mut(&job.id) {
            slot.queued -= 1;
        }
        self.crews[hand as usize].under_way.insert(job.number, job.clone());
        Some(job)
    }

    /// The next job of the ring. A destination that may not be given one yet waits for its time; one whose
    /// jobs were withdrawn meanwhile loses its turn.
    fn next_in_ring(&mut self, hand: Hand, now: u64) -> Option<Job> {
        let crew = &mut self.crews[hand as usize];
        while let Some(index) = crew.ring.pop_front() {
            let destination = &mut self.destinations[index];
            if destination.next_at > now {
                crew.spaced.insert((destination.next_at, index));
                continue;
            }
            destination.in_ring = false;
            if let Some(job) = destination.queue.pop_front() {
                return Some(job);
            }
        }
        None
    }

    /// A job could not be sent after all (the hand's socket is full, or gone): it is queued again.
    pub fn take_back(&mut self, number: u64, hand: Hand) {
        let Some(job) = self.leave(number, hand) else { return };
        self.destinations[job.destination].next_at = 0;
        if let Some(slot) = self.slots.get_mut(&job.id) {
            slot.queued += 1;
        }
        if job.alone {
            self.crews[hand as usize].suspects.push_front(job);
        } else {
            let index = job.destination;
            self.destinations[index].queue.push_front(job);
            self.line_up(index);
        }
    }

    /// Divides a job that was to be sent into two, which are queued again; `false` if it has only one
    /// recipient.
    pub fn divide(&mut self, number: u64, hand: Hand) -> bool {
        let running = self.crews[hand as usize].under_way.get_mut(&number);
        let Some(job) = running.filter(|job| job.targets.len() > 1) else { return false };
        let targets = job.targets.split_off(job.targets.len() / 2);
        let (id, destination, spacing, alone) = (job.id, job.destination, job.spacing, job.alone);
        self.take_back(number, hand);
        let name = self.destinations[destination].name.clone();
        self.enqueue(id, Part { hand, destination: name, targets, spacing }, destination, alone);
        true
    }

    /// A job has ended; gives it, unless it is not known.
    pub fn job_ended(&mut self, number: u64, hand: Hand, ending: Ending, why: &str, now: u64) -> Option<Job> {
        let job = self.leave(number, hand)?;
        let most = self.settings.windows[hand as usize];
        let rest = self.settings.rest;
        let destination = &mut self.destinations[job.destination];
        match ending {
            Ending::Reached => {
                destination.reached(most);
                self.resting.end(&destination.name);
            }
            Ending::Unreachable => {
                if destination.unreachable(TIRES_AFTER, now + rest, why) {
                    self.resting.begin(&destination.name, now + rest);
                }
            }
            Ending::Lost => {}
        }
        self.line_up(job.destination);
        Some(job)
    }

    fn leave(&mut self, number: u64, hand: Hand) -> Option<Job> {
        let crew = &mut self.crews[hand as usize];
        let job = crew.under_way.remove(&number)?;
        if crew.alone.is_some_and(|(alone, _)| alone == number) {
            crew.alone = None;
        }
        self.destinations[job.destination].running -= 1;
        Some(job)
    }

    /// A hand is there and takes so many jobs at once.
    pub fn hand_up(&mut self, hand: Hand, credits: usize) {
        self.crews[hand as usize].credits = credits;
    }

    /// A hand has gone; gives the numbers of the jobs that it held.
    pub fn hand_down(&mut self, hand: Hand) -> Vec<u64> {
        let crew = &mut self.crews[hand as usize];
        crew.credits = 0;
        let mut held: Vec<u64> = crew.under_way.keys().copied().collect();
        held.sort_unstable();
        held
    }

    /// Takes back what is queued for a destination: it is not to be tried now. What is to be tried alone
    /// keeps its turn.
    pub fn withdraw_from(&mut self, name: &str, now: u64) -> Vec<Job> {
        let Some(index) = self.destinations.find(name) else { return Vec::new() };
        self.clear_bench(index, now);
        let withdrawn = std::mem::take(&mut self.destinations[index].queue);
        for job in &withdrawn {
            if let Some(slot) = self.slots.get_mut(&job.id) {
                slot.queued -= 1;
            }
        }
        withdrawn.into()
    }

    /// Takes the queued jobs of a message back: the administrator wants it, or it has gone.
    pub fn withdraw(&mut self, id: Id) -> Vec<Job> {
        let mut withdrawn = Vec::new();
        if self.slots.get(&id).is_none_or(|slot| slot.queued == 0) {
            return withdrawn;
        }
        let queues = self.destinations.iter_mut().map(|d| &mut d.queue);
        for queue in queues.chain(self.crews.iter_mut().map(|c| &mut c.suspects)) {
            let (mine, others) = std::mem::take(queue).into_iter().partition(|job| job.id == id);
            *queue = others;
            withdrawn.extend::<VecDeque<Job>>(mine);
        }
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.queued = 0;
        }
        withdrawn
    }
}
