//! The runner's answers to orders.

use std::collections::HashSet;
use std::sync::mpsc::Sender;
use std::time::Duration;

use posta::mail::id::Id;
use posta::mail::status::Status;

use posta::courier::order::{Answer, Failure, Order};

use posta::spool::{Place, Record, SpoolError};

use crate::clerk::End;
use crate::desk::{Listing, make_row};
use crate::destination::hash;
use crate::listed::{Listed, State};
use crate::resting::PAUSED;
use crate::runner::{Runner, now};

/// What the administrator wants with one message, once nothing of it is under way.
#[derive(Debug)]
pub struct Wish {
    /// Delete, Hold, Release or Bounce.
    pub order: Order,
    /// Whoever asked.
    pub answers: Sender<Answer>,
}

impl Wish {
    fn answer(&self, answer: Answer) {
        // Whoever asked may have gone meanwhile; the order is carried out all the same.
        let _ = self.answers.send(answer);
    }

    /// It can't be granted.
    pub fn fail(&self, failure: Failure, why: String) {
        self.answer(Answer::Failed(failure, why));
    }

    fn done(&self, text: String) {
        done(&self.answers, text);
    }
}

/// It is granted. Whoever asked may have gone meanwhile.
pub fn done(answers: &Sender<Answer>, text: String) {
    let _ = answers.send(Answer::Text(text));
    let _ = answers.send(Answer::End);
}

/// A wish that a clerk carries out, and what is said when it is done.
#[derive(Debug)]
pub struct Granted {
    wish: Wish,
    text: String,
}

/// Somebody waits until everything that was due has been tried once.
#[derive(Debug)]
pub struct Pass {
    /// What has not been tried yet; none before the first scan is through.
    pub pending: Option<HashSet<Id>>,
    /// Whoever waits.
    pub answers: Sender<Answer>,
}

impl Runner {
    /// Carries an order out, now or as soon as nothing of the message is under way.
    pub(crate) fn order(&mut self, order: Order, answers: Sender<Answer>) {
        let now = now();
        let reply = Wish { order, answers };
        match &reply.order {
            Order::RetryAll => {
                let count = self.schedule.hurry(now, |_, _| true);
                reply.done(format!("{count} deferred messages will be tried now"));
            }
            Order::RetryId(id) => {
                let id = *id;
                match self.schedule.hurry(now, |waiting, _| waiting == id) {
                    0 => reply.fail(Failure::Wrong, format!("{id}: {}", self.why_not_retried(id))),
                    _ => reply.done(format!("{id} will be tried now")),
                }
            }
            Order::Pass => self.passes.push(Pass { pending: None, answers: reply.answers }),
            Order::Metrics => {
                reply.answer(Answer::Text(self.metrics()));
                reply.answer(Answer::End);
            }
            Order::Pause(name) => self.pause(name, &reply, now),
            Order::Resume(name) => self.resume(name, &reply, now),
            Order::When => {
                self.schedule.when().iter().for_each(|wait| reply.answer(Answer::Wait(wait.told(now))));
                reply.answer(Answer::End);
            }
            Order::Release(id) if self.scanned && !self.schedule.may_be_held(*id) => {
                reply.fail(Failure::Wrong, format!("{id}: no such message on hold"));
            }
            Order::Delete(id) | Order::Hold(id) | Order::Release(id) | Order::Bounce(id) => {
                let id = *id;
                self.wish(id, reply);
            }
            // The desk serves these itself.
            Order::List | Order::Show(_) | Order::Cat(_) | Order::RetryDomain(_) => {
                reply.fail(Failure::Wrong, "not an order for the runner".into());
            }
        }
    }

    fn pause(&mut self, name: &str, reply: &Wish, now: u64) {
        if !self.schedule.resting.pause(name) {
            return reply.fail(Failure::Wrong, format!("{name} is paused already"));
        }
        self.suspend(name, PAUSED, now);
        reply.done(format!("{name} is paused; what is under way comes to its end"));
    }

    fn resume(&mut self, name: &str, reply: &Wish, now: u64) {
        if !self.schedule.resting.resume(name) {
            return reply.fail(Failure::Wrong, format!("{name} is not paused"));
        }
        let wanted = hash(name);
        let count = self.schedule.hurry(now, |_, destination| destination == wanted);
        reply.done(format!("{name} is resumed; {count} deferred messages will be tried now"));
    }

    fn why_not_retried(&self, id: Id) -> &'static str {
        match self.schedule.find(id).map(|listed| listed.state) {
            Some(State::Held) => "is on hold; release it first",
            Some(_) => "is being tried already",
            None => "no such message in the queue",
        }
    }

    /// Grants a wish for one message, now or as soon as nothing of it is under way.
    pub(crate) fn wish(&mut self, id: Id, wish: Wish) {
        let withdrawn = self.schedule.withdraw(id).len();
        if let Some(message) = self.messages.get_mut(&id) {
            message.jobs = message.jobs.saturating_sub(withdrawn);
            if message.jobs == 0 && !message.filing {
                return self.grant(id, wish);
            }
            // What is noted just now may have been the last thing that was to be done.
            message.settle |= message.jobs == 0;
            self.keep_wish(id, wish);
        } else if self.schedule.has_slot(id) {
            self.keep_wish(id, wish);
        } else if let Some(place) = self.schedule.fetch(id) {
            self.keep_wish(id, wish);
            self.ingest.open(id, place);
        } else if self.scanned {
            wish.fail(Failure::Wrong, format!("{id}: no such message in the queue"));
        } else {
            wish.fail(Failure::Later, format!("{id}: not known yet: the spool is still being scanned"));
        }
    }

    /// Of several wishes for one message the last one counts.
    fn keep_wish(&mut self, id: Id, wish: Wish) {
        if let Some(earlier) = self.wishes.insert(id, wish) {
            earlier.fail(Failure::Later, format!("{id}: another order came before this could be done"));
        }
    }

    /// Nothing of the message is under way: what was wished for is done, and answered when it is filed.
    pub(crate) fn grant(&mut self, id: Id, wish: Wish) {
        let now = now();
        let Some(message) = self.messages.get_mut(&id) else { return };
        let mut granted = |wish, text: String| message.granted = Some(Granted { wish, text });
        match wish.order {
            Order::Delete(_) => {
                granted(wish, format!("{id} deleted"));
                self.file(id, Vec::new(), Vec::new(), End::Gone);
            }
            Order::Hold(_) => {
                granted(wish, format!("{id} is on hold"));
                message.unsaved.push(Record::Held { at: now, why: "by the administrator".into() });
                let records = message.take_unsaved();
                self.file(id, Vec::new(), records, End::Hold);
            }
            Order::Bounce(_) => {
                let why = "given up by the administrator";
                let rules = self.rules.clone();
                let given_up = rules.give_up_all(message, Status::new(5, 0, 0), why, now);
                message.granted = Some(Granted { wish, text: format!("{id} is given up") });
                self.log_targets(id, &given_up, now);
                self.settle(id);
            }
            _ => {
                if message.place == Place::Hold {
                    granted(wish, format!("{id} is released"));
                    message.strikes = 0;
                    message.unsaved.push(Record::Released { at: now });
                } else {
                    wish.fail(Failure::Wrong, format!("{id} is not on hold"));
                }
                let (records, waits_for) = (message.take_unsaved(), message.waits_for());
                self.file(id, Vec::new(), records, End::Wait(now, waits_for));
            }
        }
    }

    /// A clerk has filed what was ordered, or could not: whoever gave the order hears of it. `false`:
    /// there was none.
    pub(crate) fn answer_granted(&mut self, id: Id, error: Option<&SpoolError>) -> bool {
        let granted = self.messages.get_mut(&id).and_then(|message| message.granted.take());
        let Some(Granted { wish, text }) = granted else { return false };
        if let Some(error) = error {
            wish.fail(Failure::Later, format!("{id}: {error}"));
            return true;
        }
        if matches!(wish.order, Order::Delete(_)) {
            self.tell(id, now(), &format!("{id}: deleted by the administrator"));
        }
        wish.done(text);
        true
    }

    /// What is known of every message.
    pub(crate) fn list(&self, answers: &Sender<Vec<Listing>>) {
        let listings = self.schedule.list().into_iter().map(|listed| self.listing(listed)).collect();
        // The desk may have given up; it says so itself.
        let _ = answers.send(listings);
    }

    /// What is known of one message.
    pub(crate) fn find(&self, id: Id, answers: &Sender<Option<Listing>>) {
        let _ = answers.send(self.schedule.find(id).map(|listed| self.listing(listed)));
    }

    fn listing(&self, listed: Listed) -> Listing {
        let row = self.messages.get(&listed.id).map(|message| Box::new(make_row(message, &listed)));
        Listing { listed, row }
    }

    /// Answers those who wait for a pass that has come to its end.
    pub(crate) fn end_passes(&mut self, now: u64) {
        if !self.scanned || self.passes.is_empty() {
            return;
        }
        let list =
            if self.passes.iter().any(|p| p.pending.is_none()) { self.schedule.list() } else { Vec::new() };
        for pass in self.passes.iter_mut().filter(|p| p.pending.is_none()) {
            let due = list.iter().filter(|l| l.state != State::Held && l.due <= now);
            pass.pending = Some(due.map(|l| l.id).collect());
        }
        self.passes.retain(|pass| {
            let over = pass.pending.as_ref().is_some_and(HashSet::is_empty);
            if over {
                // Whoever waited may have gone.
                let _ = pass.answers.send(Answer::End);
            }
            !over
        });
    }

    /// Counters in the text form of Prometheus.
    fn metrics(&self) -> String {
        let [fresh, active, deferred, held] = self.schedule.counts();
        let c = &self.counters;
        let mut text = String::from("# TYPE posta_queue_messages gauge\n");
        for (state, count) in [("new", fresh), ("active", active), ("deferred", deferred), ("held", held)] {
            text.push_str(&format!("posta_queue_messages{{state=\"{state}\"}} {count}\n"));
        }
        text.push_str("# TYPE posta_queue_scanned gauge\n");
        text.push_str(&format!("posta_queue_scanned {}\n", u8::from(self.scanned)));
        let totals = [
            ("posta_queue_taken_total", c.messages[0]),
            ("posta_queue_removed_total", c.messages[1]),
            ("posta_queue_delivered_total", c.recipients[0]),
            ("posta_queue_deferred_total", c.recipients[1]),
            ("posta_queue_bounced_total", c.recipients[2]),
            ("posta_queue_notices_total", c.notices),
        ];
        for (name, count) in totals {
            text.push_str(&format!("# TYPE {name} counter\n{name} {count}\n"));
        }
        text.push_str("# TYPE posta_deliveries_total counter\n");
        for (by, counts) in ["local", "remote"].iter().zip(c.by_hand) {
            for (status, count) in ["sent", "deferred", "bounced"].iter().zip(counts) {
                let labels = format!("by=\"{by}\",status=\"{status}\"");
                text.push_str(&format!("posta_deliveries_total{{{labels}}} {count}\n"));
            }
        }
        let delay = Duration::from_micros(c.delay).as_secs_f64();
        text.push_str("# TYPE posta_delivery_delay_seconds summary\n");
        text.push_str(&format!("posta_delivery_delay_seconds_sum {delay}\n"));
        text.push_str(&format!("posta_delivery_delay_seconds_count {}\n", c.recipients[0]));
        text
    }
}
