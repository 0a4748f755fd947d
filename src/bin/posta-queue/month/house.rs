//! The house: a spool in memory, and who works on it. What `runner`, `attempt`, `wishes` and `strike` do
//! with files and sockets is done here with maps and an agenda.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use posta::mail::address::Mailbox;
use posta::mail::envelope::{Envelope, Recipient};
use posta::mail::id::Id;

use posta::spool::{Entry, Place, Record};

use crate::destination::Hand;
use crate::message::Message;
use crate::message::tests::sample;
use crate::pace::{Pace, Rules, Special};
use crate::schedule::{SECOND, Schedule, Settings};
use crate::settings::{patience, rest};

use super::DAYS;
use super::weather::{DOMAINS, HOUR, LOCAL, MINUTE, Weather, domain};

pub(super) const BEGIN: u64 = 1_795_550_000 * SECOND;
pub(super) const SLOTS: usize = 60;
pub(super) const CREDITS: [usize; 2] = [8, 24];
/// Whatever waits for its turn has it after this.
pub(super) const TURN: u64 = 30 * MINUTE;
/// All books are looked at after so many steps; some after each.
pub(super) const LOOK: u64 = 500;

/// What is on the disk of a message.
pub(super) struct Stored {
    pub(super) entry: Arc<Entry>,
    pub(super) place: Place,
    pub(super) records: Vec<Record>,
    pub(super) due: u64,
    pub(super) hash: u32,
    /// The administrator wants it tried before its time.
    pub(super) hurried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Hold,
    Release,
    Delete,
    Bounce,
}

#[derive(Debug)]
pub(super) enum Happening {
    Arrive,
    Burst,
    Opened(Id, Place),
    Ended(u64, Hand),
    Outage,
    Order,
    LateHint,
    HandDies,
    HandUp(Hand),
    Restart,
    Reload,
    Scan(Vec<(Id, u64, u32, bool)>),
}

/// Recipients, by what became of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) accepted: usize,
    pub(super) delivered: usize,
    pub(super) bounced: usize,
    pub(super) discarded: usize,
}

pub struct House {
    pub(super) luck: fastrand::Rng,
    pub(super) now: u64,
    pub(super) steps: u64,
    pub(super) schedule: Schedule,
    pub(super) rules: Rules,
    pub(super) weather: Weather,
    pub(super) spool: BTreeMap<Id, Stored>,
    pub(super) open: HashMap<Id, Message>,
    pub(super) wishes: HashMap<Id, Wish>,
    pub(super) paused: BTreeSet<String>,
    pub(super) agenda: BTreeMap<(u64, u64), Happening>,
    pub(super) planned: u64,
    pub(super) born: usize,
    pub(super) scanned: bool,
    pub(super) ledger: Ledger,
    /// An entry to make others of.
    pub(super) pattern: Arc<Entry>,
}

fn rules(luck: &mut fastrand::Rng) -> Rules {
    let pace = |give_up, first_retry, longest_retry| Pace { give_up, first_retry, longest_retry };
    let full = Special {
        domain: "*".into(),
        status: "4.2.2".into(),
        pace: pace(72 * HOUR, luck.u64(1..30) * MINUTE, 4 * HOUR),
    };
    let usual = pace(luck.u64(24..120) * HOUR, luck.u64(1..10) * MINUTE, luck.u64(1..5) * HOUR);
    Rules { usual, special: vec![full].into(), warn_after: 4 * HOUR, double_bounces_to: None }
}

fn settings(rules: &Rules) -> Settings {
    let (rest, patience) = (rest(rules), patience(rules));
    Settings { slots: SLOTS, windows: [8, 6], rest, patience, spacings: Default::default() }
}

impl House {
    pub fn new(seed: u64) -> House {
        let mut luck = fastrand::Rng::with_seed(seed);
        let rules = rules(&mut luck);
        let mut house = House {
            luck,
            now: BEGIN,
            steps: 0,
            schedule: Schedule::new(settings(&rules)),
            rules,
            weather: Weather::default(),
            spool: BTreeMap::new(),
            open: HashMap::new(),
            wishes: HashMap::new(),
            paused: BTreeSet::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            born: 0,
            scanned: false,
            ledger: Ledger::default(),
            pattern: sample("s@x", &[("a@b", "")]).entry,
        };
        house.start();
        let first = [
            Happening::Arrive,
            Happening::Burst,
            Happening::Outage,
            Happening::Order,
            Happening::LateHint,
            Happening::HandDies,
            Happening::Restart,
            Happening::Reload,
        ];
        first.into_iter().for_each(|what| house.plan_within(HOUR, what));
        house
    }

    pub(super) fn plan(&mut self, after: u64, what: Happening) {
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), what);
    }

    pub(super) fn plan_within(&mut self, most: u64, what: Happening) {
        let after = self.luck.u64(..most);
        self.plan(after, what);
    }

    /// Goes on to when something happens next, and lets it happen. `false`: the month is over.
    pub fn step(&mut self) -> bool {
        let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let next = self.schedule.wake_at().filter(|at| *at > self.now).into_iter().chain(planned).min();
        self.now = next.unwrap_or(self.now + MINUTE).max(self.now);
        self.steps += 1;
        while let Some(first) = self.agenda.first_entry().filter(|first| first.key().0 <= self.now) {
            let what = first.remove();
            self.happens(what);
        }
        self.hand_out();
        self.now < BEGIN + DAYS * 24 * HOUR
    }

    pub(super) fn happens(&mut self, what: Happening) {
        match what {
            Happening::Arrive => {
                self.arrive(None);
                self.plan_within(30 * MINUTE, Happening::Arrive);
            }
            Happening::Burst => {
                let to = self.luck.usize(..DOMAINS);
                (0..self.luck.usize(..200)).for_each(|_| self.arrive(Some(to)));
                self.plan_within(72 * HOUR, Happening::Burst);
            }
            Happening::Opened(id, place) => self.opened(id, place),
            Happening::Ended(number, hand) => self.ended(number, hand),
            Happening::Outage => {
                self.weather.turn(self.now, &mut self.luck);
                self.plan_within(16 * HOUR, Happening::Outage);
            }
            Happening::Order => {
                self.order();
                self.plan_within(2 * HOUR, Happening::Order);
            }
            Happening::LateHint => {
                if let Some(id) = self.any(|_| true) {
                    self.schedule.add_fresh(id);
                }
                self.plan_within(6 * HOUR, Happening::LateHint);
            }
            Happening::HandDies => {
                let hand = if self.luck.bool() { Hand::Local } else { Hand::Remote };
                self.hand_dies(hand);
                self.plan_within(48 * HOUR, Happening::HandDies);
            }
            Happening::HandUp(hand) => self.schedule.hand_up(hand, CREDITS[hand as usize]),
            Happening::Restart => {
                self.stop();
                self.start();
                self.plan_within(48 * HOUR, Happening::Restart);
            }
            Happening::Reload => {
                self.rules = rules(&mut self.luck);
                self.schedule.follow(settings(&self.rules));
                self.plan_within(72 * HOUR, Happening::Reload);
            }
            Happening::Scan(found) => self.scan(found),
        }
    }

    /// A message comes in, for one to three recipients.
    pub(super) fn arrive(&mut self, to: Option<usize>) {
        self.born += 1;
        let id = Id::parse(&format!("{:015}", self.born)).unwrap();
        let count = if to.is_some() { 1 } else { self.luck.usize(1..4) };
        let recipients = (0..count).map(|_| {
            let to = to.unwrap_or_else(|| self.luck.usize(..DOMAINS));
            let local = if to < LOCAL { format!("u{to}") } else { "x".into() };
            Recipient::plain(Mailbox::from_parts(&local, &domain(to)).unwrap())
        });
        let recipients: Vec<Recipient> = recipients.collect();
        self.ledger.accepted += recipients.len();
        let envelope = Envelope { recipients, arrived: self.now, ..self.pattern.envelope.clone() };
        let file = self.pattern.file.clone();
        let entry = Entry { id, file, envelope, size: 10, inode: 1, crc: 2, message_id: String::new() };
        let (entry, records) = (Arc::new(entry), Vec::new());
        let stored = Stored { entry, place: Place::New, records, due: self.now, hash: 0, hurried: false };
        self.spool.insert(id, stored);
        self.schedule.add_fresh(id);
    }

    pub(super) fn hand_out(&mut self) {
        while let Some((id, place)) = self.schedule.next_open(self.now) {
            let stored = &self.spool[&id];
            let early = place == Place::Cur && stored.due > self.now && !stored.hurried;
            assert!(!early, "{id} is opened {} s before its time", (stored.due - self.now) / SECOND);
            self.plan_within(SECOND / 20, Happening::Opened(id, place));
        }
        self.schedule.take_put_off();
        while let Some(job) = self.schedule.next_job(self.now) {
            let message = &self.open[&job.id];
            assert!(job.targets.iter().all(|n| !message.targets[*n as usize].is_final()), "{job:?} is done");
            assert!(!self.wishes.contains_key(&job.id), "{job:?} is begun though there are other plans");
            let to = self.schedule.destinations[job.destination].name.clone();
            assert!(!self.paused.contains(&to), "{job:?} for {to}, which is paused");
            let time = self.weather.duration(job.hand, &to, self.now, &mut self.luck);
            self.plan(time, Happening::Ended(job.number, job.hand));
        }
    }

    /// Any message of the spool that is as it is to be.
    pub(super) fn any(&mut self, wanted: impl Fn(&Stored) -> bool) -> Option<Id> {
        let from = Id::parse(&format!("{:015}", self.luck.usize(..=self.born))).unwrap();
        let found = self.spool.range(from..).chain(&self.spool).find(|(_, stored)| wanted(stored));
        found.map(|(id, _)| *id)
    }

    /// The runner ends: told to, so that what is known is noted, or without a word.
    pub(super) fn stop(&mut self) {
        if self.luck.bool() {
            let open: Vec<Id> = self.open.keys().copied().collect();
            open.into_iter().for_each(|id| self.note(id));
        }
        self.open.clear();
        self.wishes.clear();
        let is_ours = |what: &Happening| {
            use Happening::{Ended, HandUp, Opened, Scan};
            matches!(what, Opened(..) | Ended(..) | HandUp(_) | Scan(_))
        };
        self.agenda.retain(|_, what| !is_ours(what));
    }

    /// It starts: all that it knows comes from the scan, while mail is delivered already.
    pub(super) fn start(&mut self) {
        self.schedule = Schedule::new(settings(&self.rules));
        self.scanned = false;
        for name in &self.paused {
            self.schedule.resting.pause(name);
        }
        let (new, aside): (Vec<_>, Vec<_>) = self.spool.iter().partition(|(_, s)| s.place == Place::New);
        new.into_iter().for_each(|(id, _)| self.schedule.add_fresh(*id));
        let told = |(id, s): (&Id, &Stored)| (*id, s.due, s.hash, s.place == Place::Hold);
        let mut found: Vec<_> = aside.into_iter().map(told).collect();
        self.luck.shuffle(&mut found);
        self.plan(SECOND / 10, Happening::Scan(found));
        for hand in [Hand::Local, Hand::Remote] {
            self.plan_within(10 * SECOND, Happening::HandUp(hand));
        }
    }

    pub(super) fn scan(&mut self, mut found: Vec<(Id, u64, u32, bool)>) {
        let rest = found.split_off(found.len().min(100));
        for (id, due, hash, held) in found {
            match held {
                true => self.schedule.found_held(id),
                false => self.schedule.found_waiting(id, due, hash),
            }
        }
        if rest.is_empty() {
            self.scanned = true;
            self.schedule.scanned();
        } else {
            self.plan(SECOND / 10, Happening::Scan(rest));
        }
    }
}
