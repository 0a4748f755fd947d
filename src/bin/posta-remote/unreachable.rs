//! Hosts that did not answer a moment ago, so that one dead host does not cost every message for
//! it the whole timeout.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a host is passed over.
const MEMORY: Duration = Duration::from_secs(60);
/// A failure that took less costs nothing to find out again: the host may be back at any moment.
const COSTLY: Duration = Duration::from_secs(1);
/// Most hosts that are remembered.
const MAX_HOSTS: usize = 4096;

/// The hosts that are passed over, and since when.
#[derive(Debug, Default)]
pub struct Unreachable {
    since: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Unreachable {
    /// How long ago the host last failed to answer, if that is recent.
    pub fn since(&self, host: SocketAddr, now: Instant) -> Option<Duration> {
        let since = self.lock();
        let age = now.saturating_duration_since(*since.get(&host)?);
        (age < MEMORY).then_some(age)
    }

    /// The host failed, and it took so long.
    pub fn note(&self, host: SocketAddr, took: Duration, now: Instant) {
        if took < COSTLY {
            return;
        }
        let mut since = self.lock();
        if since.len() >= MAX_HOSTS {
            since.retain(|_, then| now.saturating_duration_since(*then) < MEMORY);
        }
        if since.len() < MAX_HOSTS {
            since.insert(host, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.since.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_costly_failure_is_remembered_and_only_for_a_while() {
        let unreachable = Unreachable::default();
        let now = Instant::now();
        let [refused, silent] = ["192.0.2.1:25", "192.0.2.2:25"].map(|a| a.parse().unwrap());
        unreachable.note(refused, Duration::from_millis(3), now);
        unreachable.note(silent, Duration::from_secs(30), now);
        assert_eq!(unreachable.since(refused, now), None);
        assert_eq!(unreachable.since(silent, now + Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert_eq!(unreachable.since(silent, now + MEMORY), None);
    }

    #[test]
    fn their_number_is_bounded() {
        let unreachable = Unreachable::default();
        let now = Instant::now();
        let host = |n: usize| SocketAddr::new(std::net::Ipv4Addr::from(n as u32).into(), 25);
        (0..MAX_HOSTS + 10).for_each(|n| unreachable.note(host(n), COSTLY, now));
        assert_eq!(unreachable.lock().len(), MAX_HOSTS);
        unreachable.note(host(0), COSTLY, now + MEMORY);
        unreachable.note(host(MAX_HOSTS + 1), COSTLY, now + MEMORY);
        assert_eq!(unreachable.since(host(MAX_HOSTS + 1), now + MEMORY), Some(Duration::ZERO));
    }
}
