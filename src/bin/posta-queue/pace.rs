//! How often mail is tried, and for how long: the administrator's wishes (`[queue]`, `[[retry]]`).
//!
//! Times are microseconds.

use std::sync::Arc;

use posta::mail::address::Mailbox;
use posta::mail::status::Status;

use crate::message::Target;

/// The wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// For all that nothing else is said of.
    pub usual: Pace,
    /// For some domains and errors; the first that fits is in force.
    pub special: Arc<[Special]>,
    /// After this the sender is told that it takes longer; 0: never.
    pub warn_after: u64,
    /// Who is told of bounces that can't be delivered; nobody: they are dropped.
    pub double_bounces_to: Option<Mailbox>,
}

/// How often, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After this the sender gets a bounce.
    pub give_up: u64,
    /// The first retry comes after this.
    pub first_retry: u64,
    /// Retries are never further apart.
    pub longest_retry: u64,
}

/// A pace for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    /// Of the recipient, in lower case: a domain, `.domain` for all below it, or `*`.
    pub domain: String,
    /// What the status of the last attempt begins with, in whole numbers; empty: any, or none yet.
    pub status: String,
    /// Theirs.
    pub pace: Pace,
}

impl Pace {
    /// How long to wait after the `attempts`th attempt: twice as long each time, a tenth more or less
    /// by chance (`random` between 0 and 1), so that what failed together does not come back together.
    pub fn pause(&self, attempts: u32, random: f64) -> u64 {
        let doubled = self.first_retry.saturating_mul(1 << attempts.saturating_sub(1).min(40));
        let pause = doubled.min(self.longest_retry.max(self.first_retry));
        (pause as f64 * (0.9 + 0.2 * random)) as u64
    }
}

impl Rules {
    /// The pace for one final destination of a message.
    pub fn of(&self, target: &Target) -> Pace {
        self.of_address(&target.leaf.address, target.news.as_ref().map(|news| news.status))
    }

    /// The pace for an address, with the status of its last attempt, if there was one.
    pub fn of_address(&self, address: &Mailbox, last: Option<Status>) -> Pace {
        if self.special.is_empty() {
            return self.usual;
        }
        let domain = address.domain().to_lowercase();
        let status = last.map(|status| status.to_string()).unwrap_or_default();
        let special = self.special.iter().find(|special| special.fits(&domain, &status));
        special.map_or(self.usual, |special| special.pace)
    }
}

impl Special {
    fn fits(&self, domain: &str, status: &str) -> bool {
        let is_of_domain = match self.domain.as_str() {
            "*" => true,
            below if below.starts_with('.') => domain.ends_with(below),
            exact => domain == exact,
        };
        let begins = || status.strip_prefix(&self.status).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        is_of_domain && (self.status.is_empty() || begins())
    }
}

#[cfg(test)]
pub mod tests {
    use crate::message::News;
    use crate::message::tests::sample;
    use crate::schedule::SECOND;

    use super::*;

    pub const MINUTE: u64 = 60 * SECOND;

    pub fn rules(special: Vec<Special>) -> Rules {
        let usual = Pace { give_up: 100 * MINUTE, first_retry: 5 * MINUTE, longest_retry: 240 * MINUTE };
        Rules { usual, special: special.into(), warn_after: 50 * MINUTE, double_bounces_to: None }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pace = rules(Vec::new()).usual;
        let minutes: Vec<u64> = (1..=8).map(|n| pace.pause(n, 0.5) / MINUTE).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 240, 240]);
        assert!(pace.pause(1, 0.0) < 5 * MINUTE && pace.pause(1, 1.0) > 5 * MINUTE);
        assert_eq!(pace.pause(u32::MAX, 0.5) / MINUTE, 240);
    }

    #[test]
    fn the_first_rule_that_fits_domain_and_error_is_in_force() {
        let special = |domain: &str, status: &str, give_up| Special {
            domain: domain.into(),
            status: status.into(),
            pace: Pace { give_up, first_retry: 1, longest_retry: 1 },
        };
        let rules = rules(vec![
            special("one.example", "4.2", 1),
            special(".one.example", "", 2),
            special("*", "4.2.2", 3),
        ]);
        let mut message =
            sample("s@x", &[("a@one.example", ""), ("b@below.one.example", ""), ("c@two.example", "")]);
        let give_up = |message: &crate::message::Message| {
            message.targets.iter().map(|target| rules.of(target).give_up).collect::<Vec<_>>()
        };
        let usual = rules.usual.give_up;
        assert_eq!(give_up(&message), [usual, 2, usual]);
        (0..3).for_each(|n| message.hear(n, News::ours(Status::new(4, 2, 2), "full"), 5));
        assert_eq!(give_up(&message), [1, 2, 3]);
        // 4.2 is not the beginning of 4.20.
        (0..3).for_each(|n| message.hear(n, News::ours(Status::new(4, 20, 2), "x"), 5));
        assert_eq!(give_up(&message), [usual, 2, usual]);
    }
}
