//! How often a client comes: token buckets. Pure: the clock is an argument.
//!
//! Each client has a bucket that holds a minute's worth and fills steadily. Memory is bounded: when
//! there are too many buckets the fullest are forgotten, whose owners lose nothing by it or little.
//! So a flood of strangers can't make us forget who has just used his share up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Buckets that are remembered.
const CAPACITY: usize = 16 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// The buckets for one kind of event.
#[derive(Debug)]
pub struct Rate {
    per_minute: f64,
    capacity: usize,
    buckets: HashMap<IpAddr, Bucket>,
}

/// What is left to one client.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Rate {
    /// So many events a minute; 0 is no limit.
    pub fn new(per_minute: u32) -> Rate {
        Rate { per_minute: f64::from(per_minute), capacity: CAPACITY, buckets: HashMap::new() }
    }

    /// Whether `client` (as [`client_of`](crate::net::seats::client_of) has it) may do it once more.
    /// What is not allowed costs nothing, so who waits gets on.
    pub fn allow(&mut self, client: IpAddr, now: Instant) -> bool {
        if self.per_minute == 0.0 {
            return true;
        }
        if !self.buckets.contains_key(&client) && self.buckets.len() >= self.capacity {
            self.forget_the_fullest(now);
        }
        let per_minute = self.per_minute;
        let bucket = self.buckets.entry(client).or_insert(Bucket { level: per_minute, at: now });
        *bucket = Bucket { level: bucket.level_at(now, per_minute), at: now };
        let allowed = bucket.level >= 1.0;
        if allowed {
            bucket.level -= 1.0;
        }
        allowed
    }

    /// Forgets the fullest eighth of all buckets, so that this is seldom done.
    fn forget_the_fullest(&mut self, now: Instant) {
        let level = |bucket: &Bucket| bucket.level_at(now, self.per_minute);
        let mut levels: Vec<f64> = self.buckets.values().map(level).collect();
        let stay = levels.len() - (levels.len() / 8).max(1);
        let (_, limit, _) = levels.select_nth_unstable_by(stay, f64::total_cmp);
        let limit = *limit;
        // Of many equally full ones, as many as there is room for beside all that are emptier.
        let mut left = stay - levels.iter().filter(|level| **level < limit).count();
        let per_minute = self.per_minute;
        self.buckets.retain(|_, bucket| {
            let level = bucket.level_at(now, per_minute);
            let equal_one_stays = level == limit && left > 0;
            left -= usize::from(equal_one_stays);
            level < limit || equal_one_stays
        });
    }
}

impl Bucket {
    fn level_at(&self, now: Instant, per_minute: f64) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / MINUTE.as_secs_f64();
        (self.level + passed * per_minute).min(per_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_minute_s_worth_at_once_and_then_by_and_by() {
        let (mut rate, start) = (Rate::new(6), Instant::now());
        assert_eq!((0..10).filter(|_| rate.allow(client(1), start)).count(), 6);
        assert!(rate.allow(client(2), start));
        let later = start + Duration::from_secs(21);
        assert_eq!((0..10).filter(|_| rate.allow(client(1), later)).count(), 2);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| rate.allow(client(1), much_later)).count(), 6);
    }

    #[test]
    fn nought_is_no_limit_and_no_memory() {
        let mut rate = Rate::new(0);
        assert!((0..100).all(|n| rate.allow(client(n), Instant::now())));
        assert!(rate.buckets.is_empty());
    }

    #[test]
    fn a_flood_of_strangers_does_not_wash_the_busy_ones_away() {
        let (mut rate, start) = (Rate::new(3), Instant::now());
        rate.capacity = 64;
        while rate.allow(client(0), start) {}
        for stranger in 1..10_000 {
            assert!(rate.allow(client(stranger), start));
            assert!(rate.buckets.len() <= 64);
        }
        assert!(!rate.allow(client(0), start));
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_is_harmless() {
        let (mut rate, start) = (Rate::new(1), Instant::now() + Duration::from_secs(5));
        assert!(rate.allow(client(1), start));
        assert!(!rate.allow(client(1), start - Duration::from_secs(5)));
        assert!(!rate.allow(client(1), start));
    }
}
