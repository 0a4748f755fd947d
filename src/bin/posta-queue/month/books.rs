//! The books: what must be true at every moment, and at the end.

use std::collections::BTreeSet;

use posta::mail::id::Id;

use posta::spool::Place;

use crate::schedule::SECOND;
use crate::settings::patience;

use super::house::{Happening, House, LOOK, Ledger, SLOTS, TURN, Wish};
use super::weather::{HOUR, Weather};

impl House {
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
