//! Which sync when: the rule by which deliveries share syncs on one device. Pure; the clock is an
//! argument.
//!
//! While one `syncfs` runs, the next ones to wait gather, and the next `syncfs` covers them all:
//! there is no timer. Where only a few wait and nothing runs, each syncs its own files, which is
//! quicker for them. `syncfs` waits for strangers' dirty data too: while the last one was slow, it
//! must cover so many that their own syncs would take as long. When it fails, nobody knows whose
//! file it was, and files are synced one by one for a minute.

use std::time::{Duration, Instant};

/// So few copies are always synced file by file.
const FEW: usize = 3;
/// A `syncfs` that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_millis(100);
/// So often at most.
const SAID: Duration = Duration::from_secs(60);
/// The last duration of a `syncfs` is believed so long; then another one is tried.
const BELIEVED: Duration = Duration::from_secs(10);
/// So long files are synced one by one after a `syncfs` has failed.
const DISTRUSTED: Duration = Duration::from_secs(60);
/// What syncing one copy by itself is thought to take, before any has been.
const FIRST_GUESS: Duration = Duration::from_millis(1);
/// A guess stays between these, so that no hiccup decides for long.
const GUESSES: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(10)];

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<W> {
    /// Nothing: it will be covered by the next round.
    Wait,
    /// These sync their files themselves.
    Yourself(Vec<W>),
    /// A `syncfs` that covers these.
    Round(Vec<W>),
}

/// The syncs of one device. `W` is who waits.
#[derive(Debug)]
pub struct Rounds<W> {
    running: bool,
    gathered: Vec<W>,
    copies: usize,
    /// Who was told to sync itself and has not said that it did: when more than a few are at it,
    /// the others share.
    alone: usize,
    /// How long the last `syncfs` took, and until when the next is thought to take as long.
    last: Option<(Duration, Instant)>,
    distrusted_until: Option<Instant>,
    said: Option<Instant>,
    /// What syncing one copy by itself takes.
    each: Duration,
}

impl<W> Default for Rounds<W> {
    fn default() -> Rounds<W> {
        Rounds {
            running: false,
            gathered: Vec::new(),
            copies: 0,
            alone: 0,
            last: None,
            distrusted_until: None,
            said: None,
            each: FIRST_GUESS,
        }
    }
}

impl<W> Rounds<W> {
    /// Somebody waits with so many copies.
    pub fn ask(&mut self, now: Instant, who: W, copies: usize) -> Step<W> {
        self.gathered.push(who);
        self.copies += copies;
        if self.running { Step::Wait } else { self.next(now) }
    }

    /// A `syncfs` has ended after `took`. Whether it was slow, and this is worth saying (again).
    pub fn ended(&mut self, now: Instant, took: Duration) -> bool {
        self.running = false;
        self.last = Some((took, now + BELIEVED));
        let said = self.said.is_some_and(|at| now < at + SAID);
        if took <= SLOW || said {
            return false;
        }
        self.said = Some(now);
        true
    }

    /// A `syncfs` has failed: so many that it was for are told to sync their files themselves.
    pub fn failed(&mut self, now: Instant, waiters: usize) {
        self.running = false;
        self.distrusted_until = Some(now + DISTRUSTED);
        self.alone += waiters;
    }

    /// What those that gathered do, now that nothing runs.
    pub fn next(&mut self, now: Instant) -> Step<W> {
        if self.gathered.is_empty() {
            return Step::Wait;
        }
        let copies = std::mem::take(&mut self.copies);
        let waiters = std::mem::take(&mut self.gathered);
        if self.is_quicker_alone(now, copies) {
            self.alone += waiters.len();
            return Step::Yourself(waiters);
        }
        self.running = true;
        Step::Round(waiters)
    }

    fn is_quicker_alone(&self, now: Instant, copies: usize) -> bool {
        let distrusted = self.distrusted_until.is_some_and(|until| now < until);
        let slow =
            |(took, until)| now < until && self.each * u32::try_from(copies).unwrap_or(u32::MAX) < took;
        distrusted || (self.alone <= FEW && (copies <= FEW || self.last.is_some_and(slow)))
    }

    /// Somebody has synced its files itself, each copy in such a time; or has died over it.
    pub fn synced_alone(&mut self, each: Option<Duration>) {
        self.alone = self.alone.saturating_sub(1);
        if let Some(each) = each {
            self.each = ((self.each * 7 + each) / 8).clamp(GUESSES[0], GUESSES[1]);
        }
    }

    /// Whether nobody waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        !self.running && self.alone == 0 && self.gathered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    #[test]
    fn a_few_sync_themselves_and_many_share() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.ask(now, 'a', 1), Step::Yourself(vec!['a']));
        assert_eq!(rounds.ask(now, 'b', 50), Step::Round(vec!['b']));
        assert_eq!(rounds.ask(now, 'c', 1), Step::Wait);
        assert_eq!(rounds.ask(now, 'd', 9), Step::Wait);
        assert!(!rounds.ended(now, QUICK));
        assert_eq!(rounds.next(now), Step::Round(vec!['c', 'd']));
        rounds.ended(now, QUICK);
        assert_eq!(rounds.next(now), Step::Wait);
        assert!(!rounds.is_idle());
        rounds.synced_alone(None);
        assert!(rounds.is_idle());
    }

    #[test]
    fn when_those_who_sync_themselves_hang_the_others_share() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        for n in 0..=FEW {
            assert_eq!(rounds.ask(now, n, 1), Step::Yourself(vec![n]));
        }
        assert_eq!(rounds.ask(now, 9, 1), Step::Round(vec![9]));
    }

    #[test]
    fn a_slow_one_must_be_worth_it() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.ask(now, 'a', 50), Step::Round(vec!['a']));
        assert!(rounds.ended(now, SLOW * 3));
        assert_eq!(rounds.ask(now, 'b', 50), Step::Yourself(vec!['b']));
        rounds.synced_alone(None);
        assert_eq!(rounds.ask(now, 'c', 500), Step::Round(vec!['c']));
        assert!(!rounds.ended(now, SLOW * 3), "said once");
        assert_eq!(rounds.ask(now + BELIEVED, 'd', 50), Step::Round(vec!['d']));
        assert!(rounds.ended(now + SAID, SLOW * 3));
    }

    #[test]
    fn what_it_takes_alone_is_learnt() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.ask(now, 'a', 50), Step::Round(vec!['a']));
        rounds.ended(now, SLOW);
        for _ in 0..50 {
            assert_eq!(rounds.ask(now, 'b', 1), Step::Yourself(vec!['b']));
            rounds.synced_alone(Some(Duration::from_millis(5)));
        }
        assert_eq!(rounds.ask(now, 'c', 15), Step::Yourself(vec!['c']));
        assert_eq!(rounds.ask(now, 'd', 25), Step::Round(vec!['d']));
    }

    #[test]
    fn one_that_failed_is_not_trusted_for_a_minute() {
        let now = Instant::now();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.ask(now, 'a', 50), Step::Round(vec!['a']));
        assert_eq!(rounds.ask(now, 'b', 50), Step::Wait);
        rounds.failed(now, 1);
        assert_eq!(rounds.next(now), Step::Yourself(vec!['b']));
        assert_eq!(rounds.ask(now + DISTRUSTED / 2, 'c', 500), Step::Yourself(vec!['c']));
        (0..3).for_each(|_| rounds.synced_alone(None));
        assert_eq!(rounds.ask(now + DISTRUSTED, 'd', 50), Step::Round(vec!['d']));
    }
}
