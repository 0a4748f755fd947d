//! From the configuration to the plain values of each part.

use std::time::Duration;

use posta::mail::address::Mailbox;

use posta::config::{self, Config};
use posta::logbook::history::Keep;

use crate::pace::{Pace, Rules, Special};
use crate::rate::Spacings;
use crate::schedule;

/// Jobs under way for one local destination.
const LOCAL_WINDOW: usize = 250;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whoever is told of bounces that can't be delivered; the configuration was found good, so it is an
/// address if it is anything.
fn double_bounces_to(config: &Config) -> Option<Mailbox> {
    config::address(config.queue.double_bounces_to.as_deref()?, &config.hostname)
}

/// `[queue]` and `[[retry]]`: when to retry, warn and give up.
pub fn rules(config: &Config) -> Rules {
    let queue = &config.queue;
    let pace = |give_up, first_retry, longest_retry| Pace {
        give_up: micros(give_up),
        first_retry: micros(first_retry),
        longest_retry: micros(longest_retry),
    };
    let special = config.retry.iter().map(|retry| Special {
        domain: retry.domain.to_lowercase(),
        status: retry.status.clone(),
        pace: pace(
            retry.give_up.unwrap_or(queue.give_up),
            retry.first_retry.unwrap_or(queue.first_retry),
            retry.longest_retry.unwrap_or(queue.longest_retry),
        ),
    });
    Rules {
        usual: pace(queue.give_up, queue.first_retry, queue.longest_retry),
        special: special.collect(),
        warn_after: micros(queue.warn_after),
        double_bounces_to: double_bounces_to(config),
    }
}

/// `queue.history`: what became of messages, beside the folders of the queue.
pub fn history(config: &Config) -> Keep {
    let folder = config.spool.join("history");
    Keep { folder, age: config.queue.history, size: config.queue.history_size }
}

/// What the schedule is told.
pub fn schedule(config: &Config) -> schedule::Settings {
    let windows = [LOCAL_WINDOW, config.remote.max_connections_per_destination];
    let rules = rules(config);
    schedule::Settings {
        slots: config.queue.slots,
        windows,
        rest: rest(&rules),
        patience: patience(&rules),
        spacings: Spacings::new(&config.domains),
    }
}

/// How long a destination that can't be reached rests.
pub fn rest(rules: &Rules) -> u64 {
    rules.usual.first_retry.min(60 * schedule::SECOND)
}

/// How long mail is put off for a destination that is left alone: no longer than the most impatient
/// rule allows.
pub fn patience(rules: &Rules) -> u64 {
    let paces = rules.special.iter().map(|special| special.pace).chain([rules.usual]);
    let patience = paces.map(|pace| pace.longest_retry.max(pace.first_retry).min(pace.give_up)).min();
    patience.unwrap_or(rules.usual.give_up)
}
