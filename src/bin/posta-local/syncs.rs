//! The syncs that children wait for, device by device.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::seat::Seat;

use crate::rounds::{Rounds, Step};
use crate::syncer::{Ended, Results, Syncer};
use crate::talk::ToChild;

/// A device that nobody has asked about for so long is forgotten, and its thread ends.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// Whose child.
    pub seat: Seat,
    /// Which of his children.
    pub pid: u32,
    /// The number it asked under.
    pub number: u64,
    /// The device.
    pub device: u64,
    /// How many copies wait.
    pub copies: usize,
}

/// An answer to be passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// To whom.
    pub to: Asker,
    /// What.
    pub word: ToChild,
}

#[derive(Debug)]
struct Waiter {
    who: Asker,
    folder: File,
}

#[derive(Debug)]
struct Device {
    rounds: Rounds<Waiter>,
    syncer: Option<Syncer>,
    /// Whom the running `syncfs` is for.
    covered: Vec<Asker>,
    asked: Instant,
}

/// All devices.
#[derive(Debug)]
pub struct Syncs {
    devices: HashMap<u64, Device>,
    results: Results,
}

impl Syncs {
    /// None yet.
    pub fn new() -> io::Result<Syncs> {
        Ok(Syncs { devices: HashMap::new(), results: Results::new()? })
    }

    /// A child waits for a sync of the file system where `folder` lies.
    pub fn ask(&mut self, who: Asker, folder: File, now: Instant) -> Vec<Answer> {
        let (device, copies) = (who.device, who.copies);
        let fresh = || Device { rounds: Rounds::default(), syncer: None, covered: Vec::new(), asked: now };
        let known = self.devices.entry(device).or_insert_with(fresh);
        known.asked = now;
        let step = known.rounds.ask(now, Waiter { who, folder }, copies);
        self.take(device, step)
    }

    /// What is to be said since some `syncfs` has ended.
    pub fn collect(&mut self, now: Instant) -> Vec<Answer> {
        let ended = self.results.collect();
        ended.into_iter().flat_map(|ended| self.ended(ended, now)).collect()
    }

    fn ended(&mut self, ended: Ended, now: Instant) -> Vec<Answer> {
        let Ended { device, took, result } = ended;
        let Some(known) = self.devices.get_mut(&device) else { return Vec::new() };
        let covered = std::mem::take(&mut known.covered);
        let mut answers = match result {
            Ok(()) => {
                if known.rounds.ended(now, took) {
                    let millis = took.as_millis();
                    log::info!(
                        "device {}: syncfs took {millis} ms; few copies do without it",
                        numbers(device)
                    );
                }
                let synced = |asker: Asker| Answer { word: ToChild::Synced(asker.number), to: asker };
                covered.into_iter().map(synced).collect()
            }
            Err(error) => {
                log::error!("device {}: syncfs: {error}; files are synced one by one", numbers(device));
                // Nobody knows whose file it was: each finds out by its own sync.
                known.rounds.failed(now, covered.len());
                yourself(covered)
            }
        };
        let step = known.rounds.next(now);
        answers.extend(self.take(device, step));
        answers
    }

    /// Does what the rule says.
    fn take(&mut self, device: u64, step: Step<Waiter>) -> Vec<Answer> {
        match step {
            Step::Wait => Vec::new(),
            Step::Yourself(waiters) => yourself(waiters.into_iter().map(|waiter| waiter.who).collect()),
            Step::Round(waiters) => self.start(device, waiters),
        }
    }

    /// Has a thread sync the file system for all of `waiters`.
    fn start(&mut self, device: u64, waiters: Vec<Waiter>) -> Vec<Answer> {
        let (Some(known), results) = (self.devices.get_mut(&device), &self.results) else {
            return Vec::new();
        };
        let (askers, mut folders): (Vec<Asker>, Vec<File>) =
            waiters.into_iter().map(|w| (w.who, w.folder)).unzip();
        if known.syncer.is_none() {
            match Syncer::start(device, results) {
                Ok(syncer) => known.syncer = Some(syncer),
                Err(error) => log::error!("device {}: starting a thread: {error}", numbers(device)),
            }
        }
        let begun = folders.pop().zip(known.syncer.as_ref()).is_some_and(|(folder, s)| s.sync(folder));
        if begun {
            known.covered = askers;
            return Vec::new();
        }
        known.syncer = None;
        known.rounds.failed(Instant::now(), askers.len());
        yourself(askers)
    }

    /// A child has synced its files itself, each copy in such a time; or has died over it.
    pub fn synced_alone(&mut self, device: u64, each: Option<Duration>) {
        if let Some(known) = self.devices.get_mut(&device) {
            known.rounds.synced_alone(each);
        }
    }

    /// Forgets devices that nobody asks about.
    pub fn forget(&mut self, now: Instant) {
        self.devices.retain(|_, d| !d.rounds.is_idle() || now.duration_since(d.asked) < FORGOTTEN);
    }
}

impl AsFd for Syncs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.results.as_fd()
    }
}

fn yourself(askers: Vec<Asker>) -> Vec<Answer> {
    askers.into_iter().map(|asker| Answer { word: ToChild::Yourself(asker.number), to: asker }).collect()
}

/// A device as `/proc/self/mountinfo` names it, `major:minor`.
fn numbers(device: u64) -> String {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000);
    let minor = (device & 0xff) | ((device >> 12) & 0xffff_ff00);
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use posta::unix::wait::{Watch, wait_ready};

    use posta::courier::request::Owner;

    use super::*;

    fn asker(number: u64, copies: usize) -> Asker {
        Asker {
            seat: Seat { owner: Owner::Account("a".into()), confined: None },
            pid: 1,
            number,
            device: 7,
            copies,
        }
    }

    #[test]
    fn a_shared_sync_answers_all_that_it_covers() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::open(folder.path()).unwrap();
        let now = Instant::now();
        let mut syncs = Syncs::new().unwrap();
        let alone = syncs.ask(asker(1, 1), open(), now);
        assert_eq!(alone, [Answer { to: asker(1, 1), word: ToChild::Yourself(1) }]);
        assert_eq!(syncs.ask(asker(2, 50), open(), now), []);
        assert_eq!(syncs.ask(asker(3, 50), open(), now), []);
        let mut answered = Vec::new();
        while answered.len() < 2 {
            assert!(wait_ready(&[Watch::Read(syncs.as_fd())], Some(Duration::from_secs(60))).unwrap()[0]);
            for answer in syncs.collect(now) {
                // On a busy disk the first was slow, and the second is told to do without.
                if matches!(answer.word, ToChild::Yourself(_)) {
                    syncs.synced_alone(7, None);
                }
                answered.push(answer.to.number);
            }
        }
        assert_eq!(answered, [2, 3]);
        syncs.forget(now + FORGOTTEN);
        assert_eq!(syncs.devices.len(), 1);
        syncs.synced_alone(7, None);
        syncs.forget(now + FORGOTTEN);
        assert_eq!(syncs.devices.len(), 0);
    }

    #[test]
    fn a_device_is_named_as_the_system_names_it() {
        assert_eq!(numbers(0xfe01), "254:1");
        assert_eq!(numbers(0x1000_0010_0503), "4101:259");
    }
}
