//! The administrator's orders, as `wishes` carries them out.

use posta::mail::id::Id;
use posta::mail::status::Status;

use posta::spool::{Place, Record};

use crate::destination::hash;
use crate::schedule::SECOND;

use super::house::{Happening, House, Stored, Wish};
use super::weather::{DOMAINS, LOCAL, domain};

impl House {
    /// The administrator wants something.
    pub(super) fn order(&mut self) {
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

    pub(super) fn hurry(&mut self, to: Option<&str>) {
        let wanted = |destination: u32| to.is_none_or(|to| destination == hash(to) || destination == 0);
        self.schedule.hurry(self.now, |_, destination| wanted(destination));
        for stored in self.spool.values_mut().filter(|stored| wanted(stored.hash)) {
            stored.hurried = true;
        }
    }

    pub(super) fn resume(&mut self) {
        if let Some(name) = self.paused.pop_first() {
            self.schedule.resting.resume(&name);
            self.hurry(Some(&name));
        }
    }

    pub(super) fn wish(&mut self, id: Id, wish: Wish) {
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

    pub(super) fn grant(&mut self, id: Id, wish: Wish) {
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
}
