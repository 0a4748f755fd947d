//! From the configuration to the plain values of each part.

use std::time::Duration;

use posta::config::Config;

use crate::schedule;
use crate::verdict::Rules;

/// Jobs under way for one local destination.
const LOCAL_WINDOW: usize = 250;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `[queue]`: when to retry, warn and give up.
pub fn rules(config: &Config) -> Rules {
    Rules {
        give_up: micros(config.queue.give_up),
        warn_after: micros(config.queue.warn_after),
        first_retry: micros(config.queue.first_retry),
        longest_retry: micros(config.queue.longest_retry),
    }
}

/// What the schedule is told.
pub fn schedule(config: &Config) -> schedule::Settings {
    let rest = micros(config.queue.first_retry).min(60 * schedule::SECOND);
    let windows = [LOCAL_WINDOW, config.remote.max_connections_per_destination];
    let patience = micros(config.queue.longest_retry.max(config.queue.first_retry));
    schedule::Settings { slots: config.queue.slots, windows, rest, patience }
}
