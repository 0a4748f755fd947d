//! Attempts: what `attempt` and `strike` do with what hands say.

use std::collections::HashSet;

use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};

use posta::courier::request::{Leaf, Owner, Target as Where};

use posta::spool::{Place, Record};

use crate::clerk::End;
use crate::destination::Hand;
use crate::message::{Message, News, Target};
use crate::schedule::{Admission, SECOND};
use crate::turns::Ending;

use super::house::{Happening, House, TURN};
use super::weather::{self, HOUR, LOCAL, domain};

impl House {
    pub(super) fn opened(&mut self, id: Id, place: Place) {
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

    pub(super) fn ended(&mut self, number: u64, hand: Hand) {
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

    pub(super) fn suspend(&mut self, name: &str) {
        for job in self.schedule.withdraw_from(name, self.now) {
            let message = self.open.get_mut(&job.id).unwrap();
            job.targets.iter().for_each(|n| message.hear(*n, weather::silence(), self.now));
            self.job_done(job.id);
        }
    }

    pub(super) fn hand_dies(&mut self, hand: Hand) {
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

    pub(super) fn job_done(&mut self, id: Id) {
        let message = self.open.get_mut(&id).unwrap();
        message.jobs -= 1;
        if message.jobs == 0 {
            self.settle(id);
        } else if self.luck.bool() {
            self.note(id);
        }
    }

    /// Results so far go to the disk.
    pub(super) fn note(&mut self, id: Id) {
        let message = self.open.get_mut(&id).unwrap();
        if message.unsaved.is_empty() {
            return;
        }
        let stored = self.spool.get_mut(&id).unwrap();
        stored.records.append(&mut message.take_unsaved());
        (stored.place, message.place) = (Place::Cur, Place::Cur);
        (stored.due, stored.hash) = (self.now, 0);
    }

    pub(super) fn settle(&mut self, id: Id) {
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

    pub(super) fn gone(&mut self, message: &Message) {
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
}
