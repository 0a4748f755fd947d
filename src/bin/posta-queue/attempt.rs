//! One attempt of one message: from its opening, through the answers of the hands, to the filing of
//! what came of it. The runner's other half.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};

use posta::courier::report::{Outcome, Report};

use posta::logbook::entry::{Delivery, MessageId, Queued, Removed};

use posta::route::NoRoute;
use posta::spool::{Entry, Place, Record};

use crate::bounce::Notice;
use crate::clerk::{End, Filed, Task};
use crate::destination::{Hand, of_target};
use crate::message::{Message, News};
use crate::runner::{FILE_AGAIN, NOTE_AFTER, Runner, now};
use crate::schedule::{Admission, Part, SECOND};
use crate::turns::Ending;

impl Runner {
    pub(crate) fn opened(&mut self, mut message: Message) {
        let id = message.entry.id;
        let now = now();
        if let Some(wish) = self.wishes.remove(&id) {
            // An order that comes before the first attempt: the message has been taken all the same.
            if message.place == Place::New {
                self.log_queued(&message, now);
            }
            self.messages.insert(id, message);
            return self.grant(id, wish);
        }
        let parts = message.parts();
        let count = parts.len();
        let Admission::Admitted(resting) = self.schedule.admit(id, parts, message.strikes > 0, now) else {
            return;
        };
        if message.place == Place::New {
            self.log_queued(&message, now);
        }
        message.jobs = count - resting.len();
        // Recipients that ended before anything was tried have their line in the log like all others.
        let ended: Vec<u32> = (0..message.targets.len() as u32)
            .filter(|n| message.place == Place::New && message.targets[*n as usize].is_final())
            .collect();
        ended.into_iter().for_each(|n| self.log_target(&message, n, now));
        let astray = |n: &u32| message.targets[*n as usize].astray;
        let astray: Vec<u32> = (0..message.targets.len() as u32).filter(astray).collect();
        astray.into_iter().for_each(|n| self.log_target(&message, n, now));
        self.rest(&mut message, resting, now);
        for (n, why) in message.unresolved.clone() {
            self.log_unresolved(&message, n, &why, now);
        }
        let idle = message.jobs == 0;
        self.messages.insert(id, message);
        if idle {
            self.settle(id);
        }
    }

    /// Admits parts that came to an open message, which has its slot already.
    pub(crate) fn admit_parts(&mut self, id: Id, parts: Vec<Part>, alone: bool, now: u64) {
        let count = parts.len();
        let Admission::Admitted(resting) = self.schedule.admit(id, parts, alone, now) else { return };
        let Some(mut message) = self.messages.remove(&id) else { return };
        message.jobs += count - resting.len();
        self.rest(&mut message, resting, now);
        self.messages.insert(id, message);
    }

    /// Notes for parts that their destination rests.
    fn rest(&mut self, message: &mut Message, resting: Vec<(Part, String)>, now: u64) {
        for (part, why) in resting {
            let news = suspended(&why);
            for n in part.targets {
                message.hear(n, news.clone(), now);
                self.log_target(message, n, now);
            }
        }
    }

    pub(crate) fn heard(&mut self, hand: Hand, connection: u64, report: Report) {
        if self.lines[hand as usize].as_ref().is_none_or(|line| line.connection != connection) {
            return;
        }
        self.send_again = None;
        let now = now();
        let why = report.outcomes.first().map(|o| o.text.clone()).unwrap_or_default();
        let ending = if report.unreachable { Ending::Unreachable } else { Ending::Reached };
        let Some(job) = self.schedule.job_ended(report.job, hand, ending, &why, now) else {
            log::error!(
                "{} answered job {}, which it does not have",
                crate::dispatch::program(hand),
                report.job
            );
            return;
        };
        let mut said: HashMap<u32, Outcome> = report.outcomes.into_iter().map(|o| (o.n, o)).collect();
        let Some(mut message) = self.messages.remove(&job.id) else { return };
        for n in &job.targets {
            let silent =
                || News::ours(Status::new(4, 3, 0), "the delivery program said nothing of this recipient");
            let mut outcome = said.remove(n);
            let forward = outcome.as_mut().and_then(|outcome| outcome.forward.take());
            let news = outcome.map_or_else(silent, News::from);
            let news = match forward {
                Some(forward) => message.redirect(*n, forward, news),
                None => Some(news),
            };
            if let Some(news) = news {
                message.hear(*n, news, now);
                self.log_target(&message, *n, now);
            }
        }
        self.messages.insert(job.id, message);
        let destination = &self.schedule.destinations[job.destination];
        if let Some(why) = destination.rests(now).map(str::to_string) {
            let name = destination.name.clone();
            self.suspend(&name, &why, now);
        }
        self.job_done(job.id, now);
    }

    /// What is queued for a destination that rests, or is paused, is not tried: it waits for its time.
    pub(crate) fn suspend(&mut self, name: &str, why: &str, now: u64) {
        for job in self.schedule.withdraw_from(name, now) {
            let Some(message) = self.messages.get_mut(&job.id) else { continue };
            let news = suspended(why);
            job.targets.iter().for_each(|n| message.hear(*n, news.clone(), now));
            self.log_targets(job.id, &job.targets, now);
            self.job_done(job.id, now);
        }
    }

    /// One job less of a message: when it was the last one the message is settled, else its results
    /// must be on the disk soon.
    pub(crate) fn job_done(&mut self, id: Id, now: u64) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.jobs = message.jobs.saturating_sub(1);
        if message.jobs == 0 {
            return self.settle(id);
        }
        if !message.unsaved.is_empty() || !message.onward.is_empty() {
            self.unnoted.push_back((now + NOTE_AFTER, id));
        }
        // An order of the administrator ends the message in another way: nothing more is begun.
        if !self.terminating && !self.wishes.contains_key(&id) {
            self.admit_what_came(id, now);
        }
    }

    /// Notes the results so far of a message that is still being worked on.
    pub(crate) fn note(&mut self, id: Id) -> bool {
        let Some(message) = self.messages.get_mut(&id) else { return false };
        let is_noted = message.unsaved.is_empty() && message.onward.is_empty();
        if message.jobs == 0 || message.filing || is_noted {
            return false;
        }
        let records = message.take_unsaved();
        self.file(id, Vec::new(), records, End::Stay);
        true
    }

    pub(crate) fn file(&mut self, id: Id, notices: Vec<Notice>, records: Vec<Record>, end: End) {
        let goes_on = end == End::Stay && !self.wishes.contains_key(&id);
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.filing = true;
        // Nor is anything sent on then.
        let onward = if goes_on { message.onward.clone() } else { Vec::new() };
        let task = Task { entry: message.entry.clone(), place: message.place, onward, notices, records, end };
        if !self.clerks.file(task) {
            log::error!(
                "{id}: the thread that files results has died; it stays in the queue until the next start"
            );
        }
    }

    /// Every job of this attempt has ended: the message goes, or waits for its next attempt.
    pub(crate) fn settle(&mut self, id: Id) {
        let now = now();
        let Some(message) = self.messages.get_mut(&id) else { return };
        if message.filing {
            message.settle = true;
            return;
        }
        if message.jobs > 0 {
            // It could not be noted, and is tried again; some recipients are still being served.
            self.note(id);
            return;
        }
        if let Some(wish) = self.wishes.remove(&id) {
            return self.grant(id, wish);
        }
        if self.goes_on(id) {
            return;
        }
        let Some(mut message) = self.messages.remove(&id) else { return };
        let expired = self.rules.expire(&mut message, now);
        expired.iter().for_each(|n| self.log_target(&message, *n, now));
        let notices = self.rules.notices(&mut message, now);
        let end = if message.is_done() { End::Gone } else { self.rules.next_attempt(&mut message, now) };
        let records = message.take_unsaved();
        self.messages.insert(id, message);
        self.file(id, notices, records, end);
    }

    pub(crate) fn filed(&mut self, filed: Filed) {
        let Filed { id, end, told, untold, sent_on, mut records, place } = filed;
        self.sent_on(id, &sent_on);
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.filing = false;
        let mut told_of = Vec::new();
        for (notice, targets) in told {
            self.counters.notices += 1;
            let about = targets.len();
            let whom =
                if message.entry.envelope.sender == ReversePath::Null { "postmaster" } else { "sender" };
            let line = format!("{id}: {whom} notified: {notice} (about {about} recipients)");
            told_of.push(line);
            for n in targets {
                if let Some(target) = message.targets.get_mut(n as usize) {
                    target.reported |= target.is_final();
                }
            }
        }
        match place {
            Ok(place) => {
                message.place = place;
                self.sync_soon(now());
                told_of.iter().for_each(|line| self.tell(id, now(), line));
                self.answer_granted(id, None);
                self.filed_well(id, &end);
            }
            Err(error) => {
                log::error!(
                    "{id}: results could not be filed: {error}; tried again in {} s",
                    FILE_AGAIN / SECOND
                );
                message.keep_true(&mut records, untold);
                let since = std::mem::replace(&mut message.unsaved, records);
                message.unsaved.extend(since);
                let place = message.place;
                told_of.iter().for_each(|line| self.tell(id, now(), line));
                if self.answer_granted(id, Some(&error)) && place == Place::Hold {
                    // As it was before the order.
                    self.schedule.hold(id);
                    return self.leaves(id);
                }
                self.troubled.push_back((now() + FILE_AGAIN, id));
            }
        }
    }

    fn filed_well(&mut self, id: Id, end: &End) {
        match *end {
            End::Gone => {
                self.tell(id, now(), &Removed(id));
                self.counters.messages[1] += 1;
                self.schedule.forget(id);
            }
            End::Wait(due, destination) => self.schedule.defer(id, due, destination),
            End::Hold => self.schedule.hold(id),
            End::Stay => {
                let settle = self.messages.get_mut(&id).is_some_and(|m| std::mem::take(&mut m.settle));
                if settle {
                    self.settle(id)
                } else {
                    self.note_soon(id)
                }
                return;
            }
        }
        self.leaves(id);
    }

    /// An open message leaves the working set.
    fn leaves(&mut self, id: Id) {
        if let Some(message) = self.messages.remove(&id) {
            self.clerks.close(message.entry);
        }
        self.left(id);
        if let Some(wish) = self.wishes.remove(&id) {
            // Asked for while it was being filed.
            self.wish(id, wish);
        }
    }

    /// Copies were sent on while other recipients are still served: a stop must not forget that.
    fn note_soon(&mut self, id: Id) {
        let is_open = |message: &Message| message.jobs > 0 && !message.unsaved.is_empty();
        if !self.messages.get(&id).is_some_and(is_open) {
            return;
        }
        if self.terminating {
            self.note(id);
        } else {
            self.unnoted.push_back((now() + NOTE_AFTER, id));
        }
    }

    /// Says it in the log, and keeps it. The line begins with the id.
    pub(crate) fn tell(&self, id: Id, now: u64, line: &impl Display) {
        self.tell_more(id, now, line, "");
    }

    /// The same, with more that is kept but not said.
    fn tell_more(&self, id: Id, now: u64, line: &impl Display, more: &str) {
        log::info!("{line}");
        self.history.note(now, id, || {
            let line = format!("{line}{more}");
            line.strip_prefix(&format!("{id}: ")).map(str::to_string).unwrap_or(line)
        });
    }

    /// What a new message is called, by its sender and by us.
    fn log_queued(&mut self, message: &Message, now: u64) {
        self.counters.messages[0] += 1;
        let Entry { id, envelope, size, message_id, .. } = &*message.entry;
        let (from, recipients) = (envelope.sender.to_string(), envelope.recipients.len());
        self.tell(*id, now, &MessageId { id: *id, message_id });
        self.tell(*id, now, &Queued { id: *id, from: &from, size: *size, recipients });
    }

    /// The log lines of several targets of an open message.
    pub(crate) fn log_targets(&mut self, id: Id, targets: &[u32], now: u64) {
        if let Some(message) = self.messages.remove(&id) {
            targets.iter().for_each(|n| self.log_target(&message, *n, now));
            self.messages.insert(id, message);
        }
    }

    /// The log line of what was said of a target last.
    pub(crate) fn log_target(&mut self, message: &Message, n: u32, now: u64) {
        let Some(target) = message.targets.get(n as usize) else { return };
        let Some(news) = &target.news else { return };
        let envelope = &message.entry.envelope;
        let original = envelope.recipients.get(target.recipient as usize).map(|r| r.address.to_string());
        let at = match news.status.fate() {
            Fate::Done => 0,
            Fate::Later => 1,
            Fate::Never => 2,
        };
        self.counters.recipients[at] += 1;
        self.counters.by_hand[of_target(&target.leaf.target).0 as usize][at] += 1;
        if at == 0 {
            self.counters.delay += now.saturating_sub(envelope.arrived);
        }
        self.log_delivery(message, &target.leaf.address, original.as_deref().unwrap_or_default(), news, now);
    }

    pub(crate) fn log_unresolved(&mut self, message: &Message, n: u32, why: &NoRoute, now: u64) {
        let envelope = &message.entry.envelope;
        let Some(recipient) = envelope.recipients.get(n as usize) else { return };
        self.counters.recipients[1] += 1;
        self.log_delivery(message, &recipient.address, "", &News::ours(why.status, &why.text), now);
    }

    fn log_delivery(&self, message: &Message, to: &Mailbox, orig_to: &str, news: &News, now: u64) {
        let delivery = Delivery {
            id: message.entry.id,
            to: &to.to_string(),
            orig_to,
            relay: &news.relay,
            delay: Duration::from_micros(now.saturating_sub(message.entry.envelope.arrived)),
            delays: None,
            status: news.status,
            text: &news.text,
        };
        self.tell_more(message.entry.id, now, &delivery, &news.aside);
    }
}

/// Of a target whose destination is left alone for a while.
fn suspended(why: &str) -> News {
    News::ours(Status::new(4, 4, 1), format!("delivery temporarily suspended: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use posta::courier::order::{Answer, Failure, Order};
    use posta::spool::SpoolError;

    use crate::forward::Onward;
    use crate::runner::Event;
    use crate::stage::{Stage, router};

    use super::*;

    /// A message for `alice@example.net` that is open, with one job under way.
    fn open(stage: &Stage, runner: &mut Runner) -> Id {
        let id = stage.commit("alice@example.net");
        runner.schedule.add_fresh(id);
        runner.schedule.next_open(now());
        let message = crate::ingest::open(&stage.spool, &router(), id, Place::New).unwrap();
        runner.messages.insert(id, Message { jobs: 1, ..message });
        id
    }

    fn filed(id: Id, end: End) -> Filed {
        let (told, sent_on, records) = (Vec::new(), Vec::new(), Vec::new());
        Filed { id, end, told, untold: 0, sent_on, records, place: Ok(Place::New) }
    }

    fn broken(id: Id, end: End, untold: usize, records: Vec<Record>) -> Filed {
        let source = std::io::Error::other("no space");
        Filed { untold, records, place: Err(SpoolError::Io { path: "x".into(), source }), ..filed(id, end) }
    }

    /// What the clerk did next.
    fn next_filed(heard: &Receiver<Event>) -> Filed {
        match heard.recv_timeout(Duration::from_secs(60)) {
            Ok(Event::Filed(filed)) => filed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_notice_that_was_not_committed_is_not_noted() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        let id = open(&stage, &mut runner);
        let message = runner.messages.get_mut(&id).unwrap();
        message.hear(0, News::ours(Status::new(5, 1, 1), "no"), now());
        message.warned = true;
        let mut records = message.take_unsaved();
        records.extend([Record::Reported { n: 0, at: 5 }, Record::Warned { at: 5 }]);
        runner.filed(broken(id, End::Gone, 1, records));
        let message = &runner.messages[&id];
        let is_told = |r: &Record| matches!(r, Record::Reported { .. } | Record::Warned { .. });
        assert!(!message.warned && !message.unsaved.iter().any(is_told), "{:?}", message.unsaved);
        assert!(message.unsaved.iter().any(|r| matches!(r, Record::Never { n: 0, .. })));
    }

    /// However the last of its recipients ended: what the first one got must not come again after a power
    /// cut, nor a message that is gone.
    #[test]
    fn what_was_filed_is_synced_soon() {
        for (end, status) in [(End::Gone, Status::new(2, 0, 0)), (End::Wait(1, 1), Status::new(4, 0, 0))] {
            let (stage, disk) = Stage::staged();
            let (events, heard) = channel();
            let mut runner = stage.runner(&events);
            let id = open(&stage, &mut runner);
            runner.messages.get_mut(&id).unwrap().hear(0, News::ours(status, "x"), now());
            runner.job_done(id, now());
            let filed = next_filed(&heard);
            assert_eq!(std::mem::discriminant(&filed.end), std::mem::discriminant(&end));
            assert!(disk.unsynced_names() > 0);
            runner.hear(Event::Filed(filed));
            runner.look_at_clock(now() + SECOND / 2);
            let begun = std::time::Instant::now();
            while disk.unsynced_names() > 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "{end:?} is not synced");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_copy_that_was_sent_on_is_noted_while_others_are_served() {
        for terminating in [false, true] {
            let stage = Stage::new();
            let (events, _heard) = channel();
            let mut runner = stage.runner(&events);
            let id = open(&stage, &mut runner);
            runner.terminating = terminating;
            runner.filed(Filed { sent_on: vec![(0, id)], ..filed(id, End::Stay) });
            let is_busy = runner.messages[&id].filing;
            assert_eq!((is_busy, runner.unnoted.is_empty()), (terminating, terminating));
        }
    }

    #[test]
    fn a_copy_does_not_wait_for_the_slowest_recipient() {
        let stage = Stage::new();
        let (events, heard) = channel();
        let mut runner = stage.runner(&events);
        let id = open(&stage, &mut runner);
        let message = runner.messages.get_mut(&id).unwrap();
        message.jobs = 2;
        let leaf = message.targets[0].leaf.clone();
        message.came.push(1);
        message.add(crate::message::Target::new(0, leaf.clone()));
        let (from, to) = (leaf.address.clone(), message.entry.envelope.recipients.clone());
        let sender = message.sender_of(0);
        message.onward.push(Onward { n: 0, from, sender, to, of_list: false, is_expanded: false });
        runner.job_done(id, now());
        assert_eq!(runner.messages[&id].jobs, 2, "one ended, and one came");
        assert!(runner.note(id));
        assert_eq!(next_filed(&heard).sent_on.len(), 1);
    }

    #[test]
    fn what_an_order_meets_before_its_first_attempt_has_been_taken_too() {
        let stage = Stage::new();
        let (events, heard) = channel();
        let mut runner = stage.runner(&events);
        let id = stage.commit("alice@example.net");
        runner.schedule.add_fresh(id);
        runner.schedule.next_open(now());
        runner.order(Order::Hold(id), channel().0);
        runner.opened(crate::ingest::open(&stage.spool, &router(), id, Place::New).unwrap());
        assert_eq!(next_filed(&heard).end, End::Hold);
        assert_eq!(runner.counters.messages[0], 1);
    }

    #[test]
    fn nothing_more_is_begun_of_what_the_administrator_wants() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        let id = open(&stage, &mut runner);
        let message = runner.messages.get_mut(&id).unwrap();
        message.jobs = 2;
        message.came.push(1);
        message.add(crate::message::Target::new(0, message.targets[0].leaf.clone()));
        runner.order(Order::Delete(id), channel().0);
        runner.job_done(id, now());
        assert_eq!(runner.messages[&id].jobs, 1);
    }

    #[test]
    fn an_order_is_answered_when_it_is_carried_out() {
        let stage = Stage::new();
        let (events, heard) = channel();
        let mut runner = stage.runner(&events);
        let id = open(&stage, &mut runner);
        // It comes while the last results are noted; and another one in its place.
        let message = runner.messages.get_mut(&id).unwrap();
        (message.jobs, message.filing) = (0, true);
        let [(first, earlier), (second, answer)] = [channel(), channel()];
        runner.order(Order::Hold(id), first);
        runner.order(Order::Delete(id), second);
        assert!(matches!(earlier.try_recv(), Ok(Answer::Failed(Failure::Later, _))));
        runner.filed(filed(id, End::Stay));
        assert!(answer.try_recv().is_err());
        let done = next_filed(&heard);
        assert_eq!(done.end, End::Gone);
        runner.filed(done);
        assert_eq!(answer.try_iter().last(), Some(Answer::End));
        assert!(runner.messages.is_empty());
    }

    #[test]
    fn an_order_that_could_not_be_carried_out_is_not_called_done() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        let id = open(&stage, &mut runner);
        let message = runner.messages.get_mut(&id).unwrap();
        (message.jobs, message.place) = (0, Place::Hold);
        let (answers, answer) = channel();
        runner.order(Order::Delete(id), answers);
        runner.filed(broken(id, End::Gone, 0, Vec::new()));
        assert!(matches!(answer.try_recv(), Ok(Answer::Failed(Failure::Later, _))));
        assert_eq!(runner.schedule.counts(), [0, 0, 0, 1]);
    }
}
