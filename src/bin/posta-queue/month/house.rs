//! The house: a spool in memory, and who works on it. What `runner`, `attempt`, `wishes` and `strike` do
//! with files and sockets is done here with maps and an agenda.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use posta::mail::address::Mailbox;
use posta::mail::envelope::{Envelope, Recipient};
use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};

use posta::courier::request::{Leaf, Owner, Target as Where};

use posta::spool::{Entry, Place, Record};

use crate::clerk::End;
use crate::destination::{Hand, hash};
use crate::message::tests::sample;
use crate::message::{Message, News, Target};
use crate::pace::{Pace, Rules, Special};
use crate::schedule::{Admission, SECOND, Schedule, Settings};
use crate::settings::{patience, rest};
use crate::turns::Ending;

use super::DAYS;
use super::weather::{self, DOMAINS, HOUR, LOCAL, MINUTE, Weather, domain};

const BEGIN: u64 = 1_795_550_000 * SECOND;
const SLOTS: usize = 60;
const CREDITS: [usize; 2] = [8, 24];
/// Whatever waits for its turn has it after this.
const TURN: u64 = 30 * MINUTE;
/// All books are looked at after so many steps; some after each.
const LOOK: u64 = 500;

/// What is on the disk of a message.
struct Stored {
    entry: Arc<Entry>,
    place: Place,
    records: Vec<Record>,
    due: u64,
    hash: u32,
    /// The administrator wants it tried before its time.
    hurried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Hold,
    Release,
    Delete,
    Bounce,
}

#[derive(Debug)]
enum Happening {
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
struct Ledger {
    accepted: usize,
    delivered: usize,
    bounced: usize,
    discarded: usize,
}

pub struct House {
    luck: fastrand::Rng,
    now: u64,
    steps: u64,
    schedule: Schedule,
    rules: Rules,
    weather: Weather,
    spool: BTreeMap<Id, Stored>,
    open: HashMap<Id, Message>,
    wishes: HashMap<Id, Wish>,
    paused: BTreeSet<String>,
    agenda: BTreeMap<(u64, u64), Happening>,
    planned: u64,
    born: usize,
    scanned: bool,
    ledger: Ledger,
    /// An entry to make others of.
    pattern: Arc<Entry>,
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

    fn plan(&mut self, after: u64, what: Happening) {
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), what);
    }

    fn plan_within(&mut self, most: u64, what: Happening) {
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

    fn happens(&mut self, what: Happening) {
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
    fn arrive(&mut self, to: Option<usize>) {
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

    fn hand_out(&mut self) {
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

    fn opened(&mut self, id: Id, place: Place) {
        let Some(stored) = self.spool.get(&id).filter(|stored| stored.place == place) else {
            // A hint that came late: there is nothing there.
            self.wishes.remove(&id);
            return self.schedule.not_there(id);
        };
        let mut message = Message::fresh(stored.entry.clone(), place);
        message.recall(&stored.records);
        for n in message.unexpanded() {
            let address = stored.entry.envelope.recipients[n as usize].address.clone();
            let target = match address.domain() {
                "local" => Where::Local(Owner::Account(address.local().to_string())),
                away => Where::Mx(away.to_string()),
            };
            message.add(Target::new(n, Leaf { address, target, place: None, sender: None, of_list: false }));
        }
        if let Some(wish) = self.wishes.remove(&id) {
            self.open.insert(id, message);
            return self.grant(id, wish);
        }
        let parts = message.parts();
        let count = parts.len();
        let admitted = self.schedule.admit(id, parts, message.strikes > 0, self.now);
        let Admission::Admitted(resting) = admitted else { return };
        message.jobs = count - resting.len();
        for (part, _) in resting {
            part.targets.iter().for_each(|n| message.hear(*n, weather::silence(), self.now));
        }
        let idle = message.jobs == 0;
        self.open.insert(id, message);
        if idle {
            self.settle(id);
        }
    }

    fn ended(&mut self, number: u64, hand: Hand) {
        // What a hand held that has died since has ended already.
        let Some(to) = self.schedule.crews[hand as usize].under_way.get(&number).map(|job| job.destination)
        else {
            return;
        };
        let name = self.schedule.destinations[to].name.clone();
        let down = self.weather.is_down(&name, self.now);
        let ending = if down { Ending::Unreachable } else { Ending::Reached };
        let job = self.schedule.job_ended(number, hand, ending, "refused", self.now).unwrap();
        let message = self.open.get_mut(&job.id).unwrap();
        for n in &job.targets {
            let news = if down { weather::silence() } else { weather::answer(&mut self.luck) };
            message.hear(*n, news, self.now);
        }
        if self.schedule.destinations[to].rests(self.now).is_some() {
            self.suspend(&name);
        }
        self.job_done(job.id);
    }

    fn suspend(&mut self, name: &str) {
        for job in self.schedule.withdraw_from(name, self.now) {
            let message = self.open.get_mut(&job.id).unwrap();
            job.targets.iter().for_each(|n| message.hear(*n, weather::silence(), self.now));
            self.job_done(job.id);
        }
    }

    fn hand_dies(&mut self, hand: Hand) {
        let mut struck = HashSet::new();
        for number in self.schedule.hand_down(hand) {
            let job = self.schedule.job_ended(number, hand, Ending::Lost, "", self.now).unwrap();
            let message = self.open.get_mut(&job.id).unwrap();
            if struck.insert(job.id) {
                (message.strikes, message.struck) = (message.strikes + 1, true);
                message.unsaved.push(Record::Strike { at: self.now });
            }
            let lost = News::ours(Status::new(4, 3, 0), "it died");
            job.targets.iter().for_each(|n| message.hear(*n, lost.clone(), self.now));
            self.job_done(job.id);
        }
        self.plan_within(30 * SECOND, Happening::HandUp(hand));
    }

    fn job_done(&mut self, id: Id) {
        let message = self.open.get_mut(&id).unwrap();
        message.jobs -= 1;
        if message.jobs == 0 {
            self.settle(id);
        } else if self.luck.bool() {
            self.note(id);
        }
    }

    /// Results so far go to the disk.
    fn note(&mut self, id: Id) {
        let message = self.open.get_mut(&id).unwrap();
        if message.unsaved.is_empty() {
            return;
        }
        let stored = self.spool.get_mut(&id).unwrap();
        stored.records.append(&mut message.take_unsaved());
        (stored.place, message.place) = (Place::Cur, Place::Cur);
        (stored.due, stored.hash) = (self.now, 0);
    }

    fn settle(&mut self, id: Id) {
        if let Some(wish) = self.wishes.remove(&id) {
            return self.grant(id, wish);
        }
        let mut message = self.open.remove(&id).unwrap();
        self.rules.expire(&mut message, self.now);
        self.rules.notices(&mut message, self.now);
        if message.is_done() {
            return self.gone(&message);
        }
        let end = self.rules.next_attempt(&mut message, self.now);
        let stored = self.spool.get_mut(&id).unwrap();
        stored.records.append(&mut message.take_unsaved());
        match end {
            End::Wait(due, hash) => {
                let longest = self.rules.usual.longest_retry.max(4 * HOUR) * 11 / 10;
                assert!(due <= self.now + longest, "{id} waits for {} s", (due - self.now) / SECOND);
                (stored.place, stored.due, stored.hash, stored.hurried) = (Place::Cur, due, hash, false);
                self.schedule.defer(id, due, hash);
            }
            End::Hold => {
                stored.place = Place::Hold;
                self.schedule.hold(id);
            }
            end => panic!("{end:?}"),
        }
    }

    fn gone(&mut self, message: &Message) {
        let id = message.entry.id;
        for target in &message.targets {
            match target.fate() {
                Some(Fate::Done) => self.ledger.delivered += 1,
                Some(Fate::Never) => self.ledger.bounced += 1,
                Some(Fate::Later) | None => self.ledger.discarded += 1,
            }
        }
        // Mail for a host that is never down has its turn, whatever becomes of the others.
        let age = self.now - message.entry.envelope.arrived;
        let is_easy = message.targets.iter().all(|t| t.leaf.address.domain() == domain(LOCAL));
        let is_plain = is_easy && message.attempts == 0 && message.strikes == 0;
        assert!(!is_plain || age < TURN, "{id} was kept back for {} s", age / SECOND);
        let most = 120 * HOUR + 3 * 4 * HOUR + TURN;
        let was_held = self.spool[&id].records.iter().any(|r| matches!(r, Record::Held { .. }));
        assert!(was_held || age < most, "{id} was given up after {} h", age / HOUR);
        self.spool.remove(&id);
        self.schedule.forget(id);
    }

    /// Any message of the spool that is as it is to be.
    fn any(&mut self, wanted: impl Fn(&Stored) -> bool) -> Option<Id> {
        let from = Id::parse(&format!("{:015}", self.luck.usize(..=self.born))).unwrap();
        let found = self.spool.range(from..).chain(&self.spool).find(|(_, stored)| wanted(stored));
        found.map(|(id, _)| *id)
    }

    /// The administrator wants something.
    fn order(&mut self) {
        let to = domain(self.luck.usize(LOCAL + 1..DOMAINS));
        match self.luck.u32(..9) {
            0 => self.hurry(None),
            1 => self.hurry(Some(&to)),
            2 if self.paused.insert(to.clone()) => {
                self.schedule.resting.pause(&to);
                self.suspend(&to);
            }
            3 | 4 => self.resume(),
            kind => {
                let wish = [Wish::Hold, Wish::Release, Wish::Release, Wish::Delete, Wish::Bounce];
                let wish = wish[kind as usize % wish.len()];
                let is_held = |stored: &Stored| (stored.place == Place::Hold) == (wish == Wish::Release);
                if let Some(id) = self.any(is_held).filter(|_| self.scanned) {
                    self.wish(id, wish);
                }
            }
        }
    }

    fn hurry(&mut self, to: Option<&str>) {
        let wanted = |destination: u32| to.is_none_or(|to| destination == hash(to) || destination == 0);
        self.schedule.hurry(self.now, |_, destination| wanted(destination));
        for stored in self.spool.values_mut().filter(|stored| wanted(stored.hash)) {
            stored.hurried = true;
        }
    }

    fn resume(&mut self) {
        if let Some(name) = self.paused.pop_first() {
            self.schedule.resting.resume(&name);
            self.hurry(Some(&name));
        }
    }

    fn wish(&mut self, id: Id, wish: Wish) {
        let withdrawn = self.schedule.withdraw(id).len();
        if let Some(message) = self.open.get_mut(&id) {
            message.jobs -= withdrawn;
            match message.jobs {
                0 => self.grant(id, wish),
                _ => drop(self.wishes.insert(id, wish)),
            }
        } else if self.schedule.has_slot(id) {
            self.wishes.insert(id, wish);
        } else {
            let place = self.schedule.fetch(id).unwrap_or_else(|| panic!("{id} is not known any more"));
            self.wishes.insert(id, wish);
            self.plan_within(SECOND / 20, Happening::Opened(id, place));
        }
    }

    fn grant(&mut self, id: Id, wish: Wish) {
        let message = self.open.get_mut(&id).unwrap();
        let stored = self.spool.get_mut(&id).unwrap();
        match wish {
            Wish::Bounce => {
                self.rules.give_up_all(message, Status::new(5, 0, 0), "given up", self.now);
                return self.settle(id);
            }
            Wish::Delete => {
                let message = self.open.remove(&id).unwrap();
                return self.gone(&message);
            }
            Wish::Hold => {
                message.unsaved.push(Record::Held { at: self.now, why: "wanted".into() });
                stored.place = Place::Hold;
                self.schedule.hold(id);
            }
            Wish::Release => {
                message.unsaved.push(Record::Released { at: self.now });
                (stored.place, stored.due, stored.hash) = (Place::Cur, self.now, message.waits_for());
                self.schedule.defer(id, self.now, stored.hash);
            }
        }
        stored.records.append(&mut message.take_unsaved());
        self.open.remove(&id);
    }

    /// The runner ends: told to, so that what is known is noted, or without a word.
    fn stop(&mut self) {
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
    fn start(&mut self) {
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

    fn scan(&mut self, mut found: Vec<(Id, u64, u32, bool)>) {
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

    /// What must be true after every step.
    pub fn check(&mut self) {
        let [_, _, deferred, held] = self.schedule.counts();
        assert!(deferred + held <= self.spool.len(), "some are counted twice");
        assert!(self.schedule.resting.due_count() <= self.spool.len());
        // An order of the administrator is the only one that finds a seat in a full house.
        let slots = self.schedule.slots.len();
        assert!(slots <= SLOTS + self.wishes.len(), "{slots} slots");
        let most = SLOTS.div_ceil(4) + self.wishes.len();
        assert!(self.schedule.destinations.iter().all(|d| d.slots <= most && d.running <= 8));
        if self.steps.is_multiple_of(LOOK) && self.scanned {
            self.check_all();
        }
    }

    /// Accepted is delivered, bounced, discarded and queued; and what is queued has its time.
    pub fn check_all(&mut self) {
        let queued: usize = self.spool.values().map(|s| s.entry.envelope.recipients.len()).sum();
        let Ledger { accepted, delivered, bounced, discarded } = self.ledger;
        assert_eq!(accepted, delivered + bounced + discarded + queued);
        if !self.scanned {
            return;
        }
        let known: BTreeSet<Id> = self.schedule.list().iter().map(|listed| listed.id).collect();
        let stored: BTreeSet<Id> = self.spool.keys().copied().collect();
        let lost: Vec<&Id> = stored.difference(&known).collect();
        assert!(lost.is_empty(), "{lost:?} are in the spool and not known");
        let late = patience(&self.rules).max(4 * HOUR) + TURN;
        for (id, stored) in self.spool.iter().filter(|(_, stored)| stored.place != Place::Hold) {
            let age = self.now.saturating_sub(stored.due);
            assert!(age < late, "{id} is forgotten since {} s", age / SECOND);
        }
    }

    /// After the month: what was down is up, what was held is released, and all comes to its end.
    pub fn rest_in_peace(mut self) {
        self.agenda.retain(|_, what| {
            use Happening::{Ended, HandUp, Opened, Scan};
            matches!(what, Opened(..) | Ended(..) | HandUp(_) | Scan(_))
        });
        self.weather = Weather::default();
        while !self.paused.is_empty() {
            self.resume();
        }
        let end = self.now + 5 * 24 * HOUR;
        while !self.spool.is_empty() && self.now < end {
            if let Some(id) = self.any(|stored| stored.place == Place::Hold).filter(|_| self.scanned) {
                self.wish(id, Wish::Release);
            }
            self.step();
            self.check();
        }
        let Ledger { accepted, delivered, bounced, discarded } = self.ledger;
        assert_eq!((self.spool.len(), accepted), (0, delivered + bounced + discarded));
        eprintln!(
            "{} steps: {accepted} accepted, {delivered} delivered, {bounced} bounced, {discarded} discarded",
            self.steps
        );
    }
}
