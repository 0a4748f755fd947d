//! What follows from the results of an attempt: when to try again, when to give up, whom to tell.
//!
//! Times are microseconds since 1970.

use std::collections::{HashMap, HashSet};

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::Origin;
use posta::mail::report::Action;
use posta::mail::status::{Fate, Status};

use posta::courier::request::Target as Where;

use posta::route::NoRoute;
use posta::spool::Record;

use crate::bounce::Notice;
use crate::clerk::End;
use crate::message::{Message, News, Target};
use crate::pace::{Pace, Rules};

/// What took too long (RFC 3463 3.5).
const TOO_OLD: Status = Status::new(5, 4, 7);
const TOO_LONG: &str = "given up after too long a time";

/// So many hands may die while they hold a message before it is put on hold.
const STRIKES: u32 = 3;

impl Rules {
    /// Gives up what is too old; gives the numbers of those targets.
    pub fn expire(&self, message: &mut Message, now: u64) -> Vec<u32> {
        let age = now.saturating_sub(message.entry.envelope.arrived);
        let paces = self.of_unresolved(message);
        let is_old = |at: usize| age >= paces[at].give_up;
        self.give_up_unresolved(message, TOO_OLD, TOO_LONG, now, is_old);
        self.give_up(message, TOO_OLD, TOO_LONG, now, |target| age >= self.of(target).give_up)
    }

    /// Every target that is not final fails for good, with this reason before the last one.
    pub fn give_up_all(&self, message: &mut Message, status: Status, why: &str, now: u64) -> Vec<u32> {
        self.give_up_unresolved(message, status, why, now, |_| true);
        self.give_up(message, status, why, now, |_| true)
    }

    /// The paces of those who lead nowhere yet, in their order.
    fn of_unresolved(&self, message: &Message) -> Vec<Pace> {
        let recipients = &message.entry.envelope.recipients;
        let pace = |(n, why): &(u32, NoRoute)| {
            let named = recipients.get(*n as usize);
            named.map_or(self.usual, |named| self.of_address(&named.address, Some(why.status)))
        };
        message.unresolved.iter().map(pace).collect()
    }

    /// Of those who lead nowhere yet, by their place, these are given up.
    fn give_up_unresolved(
        &self,
        message: &mut Message,
        status: Status,
        why: &str,
        now: u64,
        which: impl Fn(usize) -> bool,
    ) {
        let (given_up, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut message.unresolved).into_iter().enumerate().partition(|(at, _)| which(*at));
        message.unresolved = kept.into_iter().map(|(_, kept)| kept).collect();
        for (_, (n, no_route)) in given_up {
            let text = format!("{why}; last: {no_route}");
            crate::ingest::settle(message, n, News::ours(status, text), now);
        }
    }

    fn give_up(
        &self,
        message: &mut Message,
        status: Status,
        why: &str,
        now: u64,
        which: impl Fn(&Target) -> bool,
    ) -> Vec<u32> {
        let open = (0..).zip(&message.targets).filter(|(_, t)| !t.is_final() && which(t)).map(|(n, _)| n);
        let open: Vec<u32> = open.collect();
        for n in &open {
            let last = message.targets[*n as usize].news.clone();
            let mut news = last.unwrap_or_else(|| News::ours(status, "never tried"));
            news.text = format!("{why}; last: {}", news.text);
            (news.status, news.said) = (status, false);
            message.hear(*n, news, now);
        }
        open
    }

    /// What the sender is to be told now. Ends that nobody is to be told of are noted as reported.
    pub fn notices(&self, message: &mut Message, now: u64) -> Vec<Notice> {
        let ended: Vec<u32> = (0..message.targets.len() as u32)
            .filter(|n| message.targets[*n as usize].is_final() && !message.targets[*n as usize].reported)
            .collect();
        let mut failed = Vec::new();
        let mut succeeded = Vec::new();
        let expanded = message.expanded();
        for n in ended {
            match self.wish(message, &message.targets[n as usize], &expanded) {
                Wish::Failure => failed.push(n),
                Wish::Success => succeeded.push(n),
                Wish::Nothing => message.targets[n as usize].reported = true,
            }
            message.unsaved.push(Record::Reported { n, at: now });
        }
        let delayed = self.delayed(message, now);
        let ends =
            [failed, succeeded].into_iter().flat_map(|targets| self.notices_of(message, targets, None));
        ends.chain(delayed).collect()
    }

    /// What the sender wants to hear of a target that has ended (RFC 3461 5.2), with a log line where the
    /// answer is a failure that nobody hears of.
    fn wish(&self, message: &Message, target: &Target, expanded: &HashSet<u32>) -> Wish {
        let (id, address) = (message.entry.id, &target.leaf.address);
        let notify = message.wishes(target, expanded).notify;
        let nobody = message.entry.envelope.sender == ReversePath::Null;
        if target.fate() == Some(Fate::Never) {
            if !notify.wants_failure() {
                log::info!("{id}: to=<{address}>: undeliverable; the sender asked not to be told (NOTIFY)");
                return Wish::Nothing;
            }
            // RFC 5321 6.1: a bounce is never bounced. The postmaster may want to know of it, once.
            if nobody && self.reader_of_double(message).is_none() {
                log::warn!("{id}: to=<{address}>: undeliverable, and the null sender is not told: dropped");
                return Wish::Nothing;
            }
            return Wish::Failure;
        }
        let passed_on = target.news.as_ref().is_some_and(|n| n.passed_on);
        if notify.success && !passed_on && !nobody { Wish::Success } else { Wish::Nothing }
    }

    /// Who is told that a message of the null sender can't be delivered. Nobody, if it tells of such a
    /// message itself.
    fn reader_of_double(&self, message: &Message) -> Option<&Mailbox> {
        let is_double = message.entry.envelope.origin == Origin::DoubleBounce;
        self.double_bounces_to.as_ref().filter(|_| !is_double)
    }

    /// The notices about targets, one for each who is told.
    fn notices_of(&self, message: &Message, targets: Vec<u32>, until: Option<u64>) -> Vec<Notice> {
        let groups = match (&message.entry.envelope.sender, self.reader_of_double(message)) {
            (ReversePath::Null, Some(reader)) => vec![(reader.clone(), targets)],
            _ => by_sender(message, targets),
        };
        groups.into_iter().filter_map(|(to, targets)| notice(message, to, targets, until)).collect()
    }

    /// The notice of a delay, once for each message.
    fn delayed(&self, message: &mut Message, now: u64) -> Vec<Notice> {
        let envelope = &message.entry.envelope;
        let late = now >= envelope.arrived.saturating_add(self.warn_after);
        if self.warn_after == 0 || !late || message.warned || envelope.sender == ReversePath::Null {
            return Vec::new();
        }
        let wants = |recipient: u32| {
            envelope.recipients.get(recipient as usize).is_some_and(|r| r.notify.wants_delay())
        };
        let is_late =
            |t: &Target| !t.is_final() && t.news.is_some() && (t.leaf.of_list || wants(t.recipient));
        let late: Vec<u32> =
            (0..).zip(&message.targets).filter(|(_, t)| is_late(t)).map(|(n, _)| n).collect();
        let astray = message.unresolved.iter().filter(|(n, _)| wants(*n));
        let astray: Vec<_> = astray.filter_map(|(n, why)| message.reported_astray(*n, why)).collect();
        let give_up = message.targets.iter().filter(|t| is_late(t)).map(|t| self.of(t).give_up);
        let give_up = give_up.chain(self.of_unresolved(message).iter().map(|pace| pace.give_up)).min();
        let until = Some(envelope.arrived.saturating_add(give_up.unwrap_or(self.usual.give_up)));
        message.warned = true;
        message.unsaved.push(Record::Warned { at: now });
        let mut told = self.notices_of(message, late, until);
        // Who leads nowhere yet is told of to the sender alone: no list has sent his copy on.
        if let (ReversePath::Mailbox(to), false) = (&message.entry.envelope.sender, astray.is_empty()) {
            match told.iter_mut().find(|notice| notice.to == *to && !notice.of_list) {
                Some(notice) => notice.recipients.extend(astray),
                None => {
                    let (to, targets) = (to.clone(), Vec::new());
                    told.push(Notice { to, targets, recipients: astray, until, of_list: false });
                }
            }
        }
        told
    }

    /// When a message that is not done is tried again, or that it is put on hold.
    pub fn next_attempt(&self, message: &mut Message, now: u64) -> End {
        let struck = std::mem::take(&mut message.struck);
        message.attempts += 1;
        message.unsaved.push(Record::Attempt { at: now, count: message.attempts });
        if struck && message.strikes >= STRIKES {
            let why = format!("{STRIKES} delivery programs died while they held it");
            log::error!(
                "{}: put on hold: {why}; see it with \"postactl show\", then release or delete it",
                message.entry.id
            );
            message.unsaved.push(Record::Held { at: now, why });
            return End::Hold;
        }
        // What came to the message too late to be tried before a stop is tried first.
        if struck || message.has_untried() {
            return End::Wait(now, message.waits_for());
        }
        let (arrived, random) = (message.entry.envelope.arrived, fastrand::f64());
        let due = |pace: Pace| {
            let expires = arrived.saturating_add(pace.give_up);
            now.saturating_add(pace.pause(message.attempts, random)).min(expires.max(now))
        };
        let open = message.targets.iter().filter(|t| !t.is_final()).map(|t| due(self.of(t)));
        let unresolved = self.of_unresolved(message).into_iter().map(due);
        let first = open.chain(unresolved).min().unwrap_or(now);
        End::Wait(first, message.waits_for())
    }
}

enum Wish {
    Failure,
    Success,
    Nothing,
}

/// Targets by who is told of them: copies of a list are reported to the list's owner, and apart from
/// what he may have sent himself.
fn by_sender(message: &Message, targets: Vec<u32>) -> Vec<(Mailbox, Vec<u32>)> {
    let mut groups: Vec<(Mailbox, Vec<u32>)> = Vec::new();
    let mut places: HashMap<(Mailbox, bool), usize> = HashMap::new();
    for n in targets {
        let ReversePath::Mailbox(to) = message.sender_of(n) else { continue };
        let of_list = message.targets[n as usize].leaf.of_list;
        let at = *places.entry((to.clone(), of_list)).or_insert(groups.len());
        if at == groups.len() {
            groups.push((to, Vec::new()));
        }
        groups[at].1.push(n);
    }
    groups
}

fn notice(message: &Message, to: Mailbox, targets: Vec<u32>, until: Option<u64>) -> Option<Notice> {
    let action = |n: u32| {
        let target = &message.targets[n as usize];
        if let Some(expansion) = target.expansion() {
            return expansion.action();
        }
        match target.fate() {
            Some(Fate::Never) => Action::Failed,
            // RFC 2033 1: by LMTP mail goes into a mailbox, not on its way.
            Some(Fate::Done) if matches!(target.leaf.target, Where::Local(_) | Where::Lmtp(_)) => {
                Action::Delivered
            }
            Some(Fate::Done) => Action::Relayed,
            Some(Fate::Later) | None => Action::Delayed,
        }
    };
    let recipients: Vec<_> = targets.iter().filter_map(|n| message.reported(*n, action(*n))).collect();
    let of_list = targets.iter().all(|n| message.targets[*n as usize].leaf.of_list);
    (!recipients.is_empty()).then_some(Notice { to, targets, recipients, until, of_list })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use posta::courier::request::Hop;

    use crate::message::tests::sample;
    use crate::pace::Special;
    use crate::pace::tests::{self, MINUTE};

    use super::*;

    fn rules() -> Rules {
        tests::rules(Vec::new())
    }

    const ARRIVED: u64 = 1_795_550_000_000_000;

    fn no() -> News {
        News { relay: "mx[192.0.2.1]:25".into(), said: true, ..News::ours(Status::new(5, 1, 1), "550 no") }
    }

    fn ok(relay: &str) -> News {
        News { relay: relay.into(), ..News::ours(Status::new(2, 0, 0), "ok") }
    }

    #[test]
    fn only_failures_are_told_and_only_once() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", ""), ("c@two", "NEVER")]);
        message.hear(0, ok("mx[192.0.2.1]:25"), ARRIVED);
        message.hear(1, no(), ARRIVED);
        message.hear(2, no(), ARRIVED);
        let told = rules().notices(&mut message, ARRIVED);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].targets.as_slice(), told[0].recipients[0].action), (&[1][..], Action::Failed));
        // The clerk has committed it.
        message.targets[1].reported = true;
        assert!(rules().notices(&mut message, ARRIVED).is_empty());
    }

    #[test]
    fn the_null_sender_is_told_nothing() {
        let mut message = sample("", &[("a@one", "SUCCESS"), ("b@two", "")]);
        message.hear(0, ok("local"), ARRIVED);
        message.hear(1, no(), ARRIVED);
        assert!(rules().notices(&mut message, ARRIVED).is_empty());
        let mut late = sample("", &[("a@one", "")]);
        late.hear(0, News::ours(Status::new(4, 4, 1), "refused"), ARRIVED);
        assert!(rules().notices(&mut late, ARRIVED + 60 * MINUTE).is_empty());
    }

    #[test]
    fn a_bounce_that_can_t_be_delivered_is_told_to_the_postmaster_once() {
        let postmaster = Mailbox::parse("postmaster@x", false).unwrap();
        let rules = Rules { double_bounces_to: Some(postmaster.clone()), ..rules() };
        let mut message = sample("", &[("a@one", "SUCCESS"), ("b@two", ""), ("c@two", "NEVER")]);
        message.hear(0, ok("local"), ARRIVED);
        (1..3).for_each(|n| message.hear(n, no(), ARRIVED));
        let told = rules.notices(&mut message, ARRIVED);
        assert_eq!((told.len(), &told[0].to, told[0].targets.as_slice()), (1, &postmaster, &[1][..]));
        let mut double = sample("", &[("postmaster@x", "")]);
        let entry = std::sync::Arc::get_mut(&mut double.entry).unwrap();
        entry.envelope.origin = Origin::DoubleBounce;
        double.hear(0, no(), ARRIVED);
        assert!(rules.notices(&mut double, ARRIVED).is_empty());
    }

    #[test]
    fn success_is_told_where_it_was_asked_for_and_nobody_else_will() {
        let mut message =
            sample("s@x", &[("a@local", "SUCCESS"), ("b@two", "SUCCESS"), ("c@two", "SUCCESS")]);
        message.hear(0, ok("local"), ARRIVED);
        message.hear(1, ok("mx[192.0.2.1]:25"), ARRIVED);
        message.hear(2, News { passed_on: true, ..ok("mx[192.0.2.1]:25") }, ARRIVED);
        let told = rules().notices(&mut message, ARRIVED);
        let actions: Vec<Action> = told[0].recipients.iter().map(|r| r.action).collect();
        assert_eq!((told.len(), actions), (1, vec![Action::Delivered, Action::Relayed]));
        Arc::make_mut(&mut message.targets[1].leaf).target = Where::Lmtp(Hop::Unix("/run/lmtp".into()));
        message.targets[1].reported = false;
        assert_eq!(rules().notices(&mut message, ARRIVED)[0].recipients[1].action, Action::Delivered);
    }

    #[test]
    fn a_delay_is_told_once() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "FAILURE")]);
        let refused = || News::ours(Status::new(4, 4, 1), "refused");
        message.hear(0, refused(), ARRIVED);
        message.hear(1, refused(), ARRIVED);
        assert!(rules().notices(&mut message, ARRIVED + 49 * MINUTE).is_empty());
        let told = rules().notices(&mut message, ARRIVED + 51 * MINUTE);
        assert_eq!((told[0].targets.as_slice(), told[0].until), (&[0][..], Some(ARRIVED + 100 * MINUTE)));
        assert!(rules().notices(&mut message, ARRIVED + 52 * MINUTE).is_empty());
    }

    #[test]
    fn a_delay_is_told_of_who_leads_nowhere_yet() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "NEVER")]);
        message.targets.clear();
        let no_route = NoRoute { status: Status::new(4, 3, 0), text: "a table is dead".into() };
        message.unresolved = vec![(0, no_route.clone()), (1, no_route)];
        let told = rules().notices(&mut message, ARRIVED + 51 * MINUTE);
        let recipients: Vec<_> =
            told[0].recipients.iter().map(|r| (r.address.to_string(), r.action)).collect();
        assert_eq!((told.len(), recipients), (1, vec![("a@one".to_string(), Action::Delayed)]));
    }

    #[test]
    fn who_leads_nowhere_yet_has_the_pace_of_his_domain_too() {
        let pace = Pace { give_up: 10 * MINUTE, first_retry: MINUTE, longest_retry: MINUTE };
        let special = Special { domain: "one".into(), status: "4.3".into(), pace };
        let rules = tests::rules(vec![special]);
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "")]);
        message.targets.clear();
        let no_route = NoRoute { status: Status::new(4, 3, 5), text: "a table is dead".into() };
        message.unresolved = vec![(0, no_route.clone()), (1, no_route)];
        let End::Wait(due, _) = rules.next_attempt(&mut message, ARRIVED) else { panic!() };
        assert!(due < ARRIVED + 2 * MINUTE, "{due}");
        assert!(rules.expire(&mut message, ARRIVED + 10 * MINUTE).is_empty());
        assert_eq!((message.unresolved.len(), message.unresolved[0].0), (1, 1));
        assert_eq!(message.targets[0].news.as_ref().map(|news| news.status), Some(TOO_OLD));
    }

    #[test]
    fn what_is_too_old_fails_with_its_last_reason() {
        let mut message = sample("s@x", &[("a@one", "")]);
        message.hear(0, News::ours(Status::new(4, 4, 1), "refused"), ARRIVED);
        assert!(rules().expire(&mut message, ARRIVED + 99 * MINUTE).is_empty());
        assert_eq!(
            rules().next_attempt(&mut message, ARRIVED + 99 * MINUTE),
            End::Wait(ARRIVED + 100 * MINUTE, message.waits_for())
        );
        assert_eq!(rules().expire(&mut message, ARRIVED + 100 * MINUTE), [0]);
        let news = message.targets[0].news.clone().unwrap();
        assert_eq!(news.status, Status::new(5, 4, 7));
        assert!(news.text.ends_with("refused"));
        assert!(message.is_done());
    }

    #[test]
    fn a_struck_message_comes_again_at_once_and_is_held_at_the_third_strike() {
        let mut message = sample("s@x", &[("a@one", "")]);
        for strike in 1..=3 {
            message.strikes = strike;
            // The strike itself may have been noted before.
            message.struck = true;
            let end = rules().next_attempt(&mut message, ARRIVED + MINUTE);
            let wanted =
                if strike < 3 { End::Wait(ARRIVED + MINUTE, message.waits_for()) } else { End::Hold };
            assert_eq!(end, wanted);
        }
    }

    #[test]
    fn each_target_is_given_up_at_its_own_time_and_the_first_is_waited_for() {
        let pace = Pace { give_up: 20 * MINUTE, first_retry: MINUTE, longest_retry: MINUTE };
        let special = Special { domain: "one".into(), status: "4.2.2".into(), pace };
        let rules = tests::rules(vec![special]);
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "")]);
        (0..2).for_each(|n| message.hear(n, News::ours(Status::new(4, 2, 2), "full"), ARRIVED));
        let End::Wait(due, _) = rules.next_attempt(&mut message, ARRIVED) else { panic!() };
        assert!(due < ARRIVED + 2 * MINUTE, "{}", due - ARRIVED);
        assert_eq!(rules.expire(&mut message, ARRIVED + 20 * MINUTE), [0]);
        let End::Wait(due, _) = rules.next_attempt(&mut message, ARRIVED + 20 * MINUTE) else { panic!() };
        assert!(due > ARRIVED + 24 * MINUTE, "{}", due - ARRIVED);
        assert_eq!(rules.expire(&mut message, ARRIVED + 100 * MINUTE), [1]);
    }
}
