//! Destinations that take so many messages a minute and no more: their jobs begin evenly spaced.

use std::collections::HashMap;

use posta::config::{DomainFate, DomainRule};
use posta::courier::request::Target;

use crate::destination::of_target;
use crate::schedule::SECOND;

/// The time from one job to the next where there are so many a minute, in microseconds; 0: none.
pub fn spacing(messages_per_minute: u32) -> Option<u64> {
    (60 * SECOND).checked_div(u64::from(messages_per_minute))
}

/// The least time between the begins of two jobs for one destination, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spacings {
    /// By the destination's name, or `.example.org` for the domains below `example.org`.
    named: HashMap<String, u64>,
    /// Of each other domain that is served by its mail exchangers.
    others: Option<u64>,
}

impl Spacings {
    /// From the entries of `[domains]`.
    pub fn new(rules: &[DomainRule]) -> Spacings {
        let mut spacings = Spacings::default();
        for rule in rules {
            let Some(spacing) = spacing(rule.messages_per_minute) else { continue };
            let name = match &rule.fate {
                DomainFate::RelayMx if rule.domain == "*" => {
                    spacings.others = Some(spacing);
                    continue;
                }
                DomainFate::RelayMx => rule.domain.clone(),
                DomainFate::RelayTo(hop) => of_target(&Target::Smtp(hop.clone())).1,
                DomainFate::Lmtp(hop) => of_target(&Target::Lmtp(hop.clone())).1,
                DomainFate::Users { .. } => continue,
            };
            spacings.named.insert(name, spacing);
        }
        spacings
    }

    /// That of a destination, by its name; `None`: it takes what comes.
    pub fn of(&self, destination: &str) -> Option<u64> {
        if self.named.is_empty() && self.others.is_none() {
            return None;
        }
        let is_hop = ["smtp:", "lmtp:", "local:"].iter().any(|kind| destination.starts_with(kind));
        if is_hop {
            return self.named.get(destination).copied();
        }
        let above = destination.match_indices('.').map(|(at, _)| &destination[at..]);
        let named = std::iter::once(destination).chain(above).find_map(|name| self.named.get(name));
        named.copied().or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use posta::courier::request::Hop;

    use super::*;

    #[test]
    fn each_destination_has_the_rate_of_its_entry() {
        let rule =
            |domain, fate, rate| DomainRule { messages_per_minute: rate, ..DomainRule::new(domain, fate) };
        let hop = Hop::parse("relay.example:25", 25).unwrap();
        let rules = [
            rule("a.example", DomainFate::RelayMx, 60),
            rule(".slow.example", DomainFate::RelayMx, 1),
            rule("b.example", DomainFate::RelayTo(hop), 6),
        ];
        let spacings = Spacings::new(&rules);
        assert_eq!(spacings.of("a.example"), Some(SECOND));
        assert_eq!(spacings.of("x.y.slow.example"), Some(60 * SECOND));
        assert_eq!(spacings.of("smtp:relay.example:25"), Some(10 * SECOND));
        assert_eq!([spacings.of("slow.example"), spacings.of("local:a")], [None; 2]);
        let spacings = Spacings::new(&[rule("*", DomainFate::RelayMx, 120)]);
        assert_eq!(spacings.of("any.example"), Some(SECOND / 2));
        assert_eq!([spacings.of("smtp:relay.example:25"), spacings.of("local:a")], [None; 2]);
    }
}
