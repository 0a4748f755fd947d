//! How often somebody comes: token buckets. Pure: the clock is an argument.
//!
//! Each client, sender or login has a bucket that holds a whole period's worth and fills steadily. Memory is bounded: when
//! there are too many buckets the fullest are forgotten, whose owners lose nothing by it or little.
//! So a flood of strangers can't make us forget who has just used his share up.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Buckets that are remembered.
const CAPACITY: usize = 16 * 1024;

/// The buckets for one kind of event, by whose they are.
#[derive(Debug)]
pub struct Rate<K> {
    most: f64,
    period: Duration,
    capacity: usize,
    buckets: HashMap<K, Bucket>,
}

/// What is left to one.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl<K: Hash + Eq> Rate<K> {
    /// So many events in a period; 0 is no limit.
    pub fn new(most: u32, period: Duration) -> Rate<K> {
        Rate { most: f64::from(most), period, capacity: CAPACITY, buckets: HashMap::new() }
    }

    /// Whether this one (a client as [`client_of`](crate::net::seats::client_of) has it) may do it once
    /// more. What is not allowed costs nothing, so who waits gets on.
    pub fn allow(&mut self, who: K, now: Instant) -> bool {
        if self.most == 0.0 {
            return true;
        }
        if !self.buckets.contains_key(&who) && self.buckets.len() >= self.capacity {
            self.forget_the_fullest(now);
        }
        let (most, period) = (self.most, self.period);
        let bucket = self.buckets.entry(who).or_insert(Bucket { level: most, at: now });
        *bucket = Bucket { level: bucket.level_at(now, most, period), at: now };
        let allowed = bucket.level >= 1.0;
        if allowed {
            bucket.level -= 1.0;
        }
        allowed
    }

    /// Forgets the fullest eighth of all buckets, so that this is seldom done.
    fn forget_the_fullest(&mut self, now: Instant) {
        let level = |bucket: &Bucket| bucket.level_at(now, self.most, self.period);
        let mut levels: Vec<f64> = self.buckets.values().map(level).collect();
        let stay = levels.len() - (levels.len() / 8).max(1);
        let (_, limit, _) = levels.select_nth_unstable_by(stay, f64::total_cmp);
        let limit = *limit;
        // Of many equally full ones, as many as there is room for beside all that are emptier.
        let mut left = stay - levels.iter().filter(|level| **level < limit).count();
        let (most, period) = (self.most, self.period);
        self.buckets.retain(|_, bucket| {
            let level = bucket.level_at(now, most, period);
            let equal_one_stays = level == limit && left > 0;
            left -= usize::from(equal_one_stays);
            level < limit || equal_one_stays
        });
    }
}

impl Bucket {
    fn level_at(&self, now: Instant, most: f64, period: Duration) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / period.as_secs_f64();
        (self.level + passed * most).min(most)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_minute_s_worth_at_once_and_then_by_and_by() {
        let (mut rate, start) = (Rate::new(6, MINUTE), Instant::now());
        assert_eq!((0..10).filter(|_| rate.allow(client(1), start)).count(), 6);
        assert!(rate.allow(client(2), start));
        let later = start + Duration::from_secs(21);
        assert_eq!((0..10).filter(|_| rate.allow(client(1), later)).count(), 2);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| rate.allow(client(1), much_later)).count(), 6);
    }

    #[test]
    fn nought_is_no_limit_and_no_memory() {
        let mut rate = Rate::new(0, MINUTE);
        assert!((0..100).all(|n| rate.allow(client(n), Instant::now())));
        assert!(rate.buckets.is_empty());
    }

    #[test]
    fn a_flood_of_strangers_does_not_wash_the_busy_ones_away() {
        let (mut rate, start) = (Rate::new(3, MINUTE), Instant::now());
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
        let (mut rate, start) = (Rate::new(1, MINUTE), Instant::now() + Duration::from_secs(5));
        assert!(rate.allow(client(1), start));
        assert!(!rate.allow(client(1), start - Duration::from_secs(5)));
        assert!(!rate.allow(client(1), start));
    }
}
