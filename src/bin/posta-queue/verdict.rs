//! What follows from the results of an attempt: when to try again, when to give up, whom to tell.
//!
//! Times are microseconds since 1970.

use posta::mail::address::ReversePath;
use posta::mail::report::Action;
use posta::mail::status::{Fate, Status};

use posta::courier::request::Target as Where;

use posta::spool::Record;

use crate::bounce::Notice;
use crate::clerk::End;
use crate::message::{Message, News, Target};

/// So many hands may die while they hold a message before it is put on hold.
const STRIKES: u32 = 3;

/// The administrator's wishes (`[queue]`), in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After this the sender gets a bounce.
    pub give_up: u64,
    /// After this the sender is told that it takes longer; 0: never.
    pub warn_after: u64,
    /// The first retry comes after this.
    pub first_retry: u64,
    /// Retries are never further apart.
    pub longest_retry: u64,
}

impl Rules {
    /// How long to wait after the `attempts`th attempt: twice as long each time, a tenth more or less
    /// by chance (`random` between 0 and 1), so that what failed together does not come back together.
    pub fn pause(&self, attempts: u32, random: f64) -> u64 {
        let doubled = self.first_retry.saturating_mul(1 << attempts.saturating_sub(1).min(40));
        let pause = doubled.min(self.longest_retry.max(self.first_retry));
        (pause as f64 * (0.9 + 0.2 * random)) as u64
    }

    /// Gives up what is too old; gives the numbers of those targets.
    pub fn expire(&self, message: &mut Message, now: u64) -> Vec<u32> {
        if now < message.entry.envelope.arrived.saturating_add(self.give_up) {
            return Vec::new();
        }
        self.give_up_all(message, Status::new(5, 4, 7), "given up after too long a time", now)
    }

    /// Every target that is not final fails for good, with this reason before the last one.
    pub fn give_up_all(&self, message: &mut Message, status: Status, why: &str, now: u64) -> Vec<u32> {
        for (n, no_route) in std::mem::take(&mut message.unresolved) {
            let text = format!("{why}; last: {no_route}");
            crate::ingest::settle(message, n, News::ours(status, text), now);
        }
        let open: Vec<u32> =
            (0..message.targets.len() as u32).filter(|n| !message.targets[*n as usize].is_final()).collect();
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
        for n in ended {
            match wish(message, &message.targets[n as usize]) {
                Wish::Failure => failed.push(n),
                Wish::Success => succeeded.push(n),
                Wish::Nothing => message.targets[n as usize].reported = true,
            }
            message.unsaved.push(Record::Reported { n, at: now });
        }
        let delayed = self.delayed(message, now);
        let ends = [failed, succeeded].into_iter().filter_map(|targets| notice(message, targets, None));
        ends.chain(delayed).collect()
    }

    /// The notice of a delay, once for each message.
    fn delayed(&self, message: &mut Message, now: u64) -> Option<Notice> {
        let envelope = &message.entry.envelope;
        let late = now >= envelope.arrived.saturating_add(self.warn_after);
        if self.warn_after == 0 || !late || message.warned || envelope.sender == ReversePath::Null {
            return None;
        }
        let wants = |recipient: u32| {
            envelope.recipients.get(recipient as usize).is_some_and(|r| r.notify.wants_delay())
        };
        let is_late = |t: &Target| !t.is_final() && t.news.is_some() && wants(t.recipient);
        let late: Vec<u32> =
            (0..).zip(&message.targets).filter(|(_, t)| is_late(t)).map(|(n, _)| n).collect();
        let astray = message.unresolved.iter().filter(|(n, _)| wants(*n));
        let astray: Vec<_> = astray.filter_map(|(n, why)| message.reported_astray(*n, why)).collect();
        let until = Some(envelope.arrived.saturating_add(self.give_up));
        message.warned = true;
        message.unsaved.push(Record::Warned { at: now });
        if astray.is_empty() {
            return notice(message, late, until);
        }
        let mut told = notice(message, late, until).unwrap_or(Notice {
            targets: Vec::new(),
            recipients: Vec::new(),
            until,
        });
        told.recipients.extend(astray);
        Some(told)
    }

    /// When a message that is not done is tried again, or that it is put on hold.
    pub fn next_attempt(&self, message: &mut Message, now: u64) -> End {
        let struck = message.unsaved.iter().any(|r| matches!(r, Record::Strike { .. }));
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
        if struck {
            return End::Wait(now, message.waits_for());
        }
        let expires = message.entry.envelope.arrived.saturating_add(self.give_up);
        let due = now.saturating_add(self.pause(message.attempts, fastrand::f64()));
        End::Wait(due.min(expires.max(now)), message.waits_for())
    }
}

enum Wish {
    Failure,
    Success,
    Nothing,
}

/// What the sender wants to hear of a target that has ended (RFC 3461 5.2), with a log line where the
/// answer is a failure that nobody hears of.
fn wish(message: &Message, target: &Target) -> Wish {
    let envelope = &message.entry.envelope;
    let (id, address) = (message.entry.id, &target.leaf.address);
    let Some(recipient) = envelope.recipients.get(target.recipient as usize) else { return Wish::Nothing };
    let nobody = envelope.sender == ReversePath::Null;
    if target.fate() == Some(Fate::Never) {
        // RFC 5321 6.1: a bounce is never bounced.
        if nobody {
            log::warn!("{id}: to=<{address}>: undeliverable, and the null sender is not told: dropped");
            return Wish::Nothing;
        }
        if !recipient.notify.wants_failure() {
            log::info!("{id}: to=<{address}>: undeliverable; the sender asked not to be told (NOTIFY)");
            return Wish::Nothing;
        }
        return Wish::Failure;
    }
    let passed_on = target.news.as_ref().is_some_and(|n| n.passed_on);
    if recipient.notify.success && !passed_on && !nobody { Wish::Success } else { Wish::Nothing }
}

fn notice(message: &Message, targets: Vec<u32>, until: Option<u64>) -> Option<Notice> {
    let action = |n: u32| {
        let target = &message.targets[n as usize];
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
    (!recipients.is_empty()).then_some(Notice { targets, recipients, until })
}

#[cfg(test)]
mod tests {
    use posta::courier::request::Hop;

    use posta::route::NoRoute;

    use crate::message::tests::sample;

    use super::*;

    const MINUTE: u64 = 60 * crate::schedule::SECOND;

    const RULES: Rules = Rules {
        give_up: 100 * MINUTE,
        warn_after: 50 * MINUTE,
        first_retry: 5 * MINUTE,
        longest_retry: 240 * MINUTE,
    };
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
        let told = RULES.notices(&mut message, ARRIVED);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].targets.as_slice(), told[0].recipients[0].action), (&[1][..], Action::Failed));
        // The clerk has committed it.
        message.targets[1].reported = true;
        assert!(RULES.notices(&mut message, ARRIVED).is_empty());
    }

    #[test]
    fn the_null_sender_is_told_nothing() {
        let mut message = sample("", &[("a@one", "SUCCESS"), ("b@two", "")]);
        message.hear(0, ok("local"), ARRIVED);
        message.hear(1, no(), ARRIVED);
        assert!(RULES.notices(&mut message, ARRIVED).is_empty());
        let mut late = sample("", &[("a@one", "")]);
        late.hear(0, News::ours(Status::new(4, 4, 1), "refused"), ARRIVED);
        assert!(RULES.notices(&mut late, ARRIVED + 60 * MINUTE).is_empty());
    }

    #[test]
    fn success_is_told_where_it_was_asked_for_and_nobody_else_will() {
        let mut message =
            sample("s@x", &[("a@local", "SUCCESS"), ("b@two", "SUCCESS"), ("c@two", "SUCCESS")]);
        message.hear(0, ok("local"), ARRIVED);
        message.hear(1, ok("mx[192.0.2.1]:25"), ARRIVED);
        message.hear(2, News { passed_on: true, ..ok("mx[192.0.2.1]:25") }, ARRIVED);
        let told = RULES.notices(&mut message, ARRIVED);
        let actions: Vec<Action> = told[0].recipients.iter().map(|r| r.action).collect();
        assert_eq!((told.len(), actions), (1, vec![Action::Delivered, Action::Relayed]));
        message.targets[1].leaf.target = Where::Lmtp(Hop::Unix("/run/lmtp".into()));
        message.targets[1].reported = false;
        assert_eq!(RULES.notices(&mut message, ARRIVED)[0].recipients[1].action, Action::Delivered);
    }

    #[test]
    fn a_delay_is_told_once() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "FAILURE")]);
        let refused = || News::ours(Status::new(4, 4, 1), "refused");
        message.hear(0, refused(), ARRIVED);
        message.hear(1, refused(), ARRIVED);
        assert!(RULES.notices(&mut message, ARRIVED + 49 * MINUTE).is_empty());
        let told = RULES.notices(&mut message, ARRIVED + 51 * MINUTE);
        assert_eq!((told[0].targets.as_slice(), told[0].until), (&[0][..], Some(ARRIVED + 100 * MINUTE)));
        assert!(RULES.notices(&mut message, ARRIVED + 52 * MINUTE).is_empty());
    }

    #[test]
    fn a_delay_is_told_of_who_leads_nowhere_yet() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "NEVER")]);
        message.targets.clear();
        let no_route = NoRoute { status: Status::new(4, 3, 0), text: "a table is dead".into() };
        message.unresolved = vec![(0, no_route.clone()), (1, no_route)];
        let told = RULES.notices(&mut message, ARRIVED + 51 * MINUTE);
        let recipients: Vec<_> =
            told[0].recipients.iter().map(|r| (r.address.to_string(), r.action)).collect();
        assert_eq!((told.len(), recipients), (1, vec![("a@one".to_string(), Action::Delayed)]));
    }

    #[test]
    fn what_is_too_old_fails_with_its_last_reason() {
        let mut message = sample("s@x", &[("a@one", "")]);
        message.hear(0, News::ours(Status::new(4, 4, 1), "refused"), ARRIVED);
        assert!(RULES.expire(&mut message, ARRIVED + 99 * MINUTE).is_empty());
        assert_eq!(
            RULES.next_attempt(&mut message, ARRIVED + 99 * MINUTE),
            End::Wait(ARRIVED + 100 * MINUTE, message.waits_for())
        );
        assert_eq!(RULES.expire(&mut message, ARRIVED + 100 * MINUTE), [0]);
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
            message.unsaved = vec![Record::Strike { at: ARRIVED }];
            let end = RULES.next_attempt(&mut message, ARRIVED + MINUTE);
            let wanted =
                if strike < 3 { End::Wait(ARRIVED + MINUTE, message.waits_for()) } else { End::Hold };
            assert_eq!(end, wanted);
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let rules = Rules { give_up: 0, warn_after: 0, first_retry: 5 * MINUTE, longest_retry: 240 * MINUTE };
        let minutes: Vec<u64> = (1..=8).map(|n| rules.pause(n, 0.5) / MINUTE).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 240, 240]);
        assert!(rules.pause(1, 0.0) < 5 * MINUTE && rules.pause(1, 1.0) > 5 * MINUTE);
        assert_eq!(rules.pause(u32::MAX, 0.5) / MINUTE, 240);
    }
}
