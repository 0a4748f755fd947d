//! Who has guessed how often: growing waits, and a time in which nothing is checked any more. Pure: the
//! clock is an argument.
//!
//! Wrong passwords are counted by client (as `net::seats` has it: an IPv4 address, an IPv6 /64) and by
//! user, whether there is such a user or not. From where a user has logged in before, strangers' guesses at
//! the user's name count for nothing: so nobody is locked out by others. Memory is bounded; what is
//! forgotten first are the smallest counts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Clients, users and pairs of both that are remembered, each.
const CAPACITY: usize = 16 * 1024;
/// The longest wait before a client hears of its wrong password. Far shorter than what clients wait for a
/// reply (RFC 5321 4.5.3.2: five minutes).
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// How long it is remembered that a user has logged in from somewhere.
const AT_HOME: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is counted, for whom.
#[derive(Debug)]
pub struct Guard {
    /// Wrong passwords, then nothing is checked any more; 0: never so.
    lock_out_after: u32,
    /// For how long; and how long a wrong password is remembered.
    lock_out: Duration,
    clients: HashMap<IpAddr, Count>,
    users: HashMap<String, Count>,
    /// From where users have logged in, and when.
    homes: HashMap<(IpAddr, String), Instant>,
    capacity: usize,
}

/// Wrong passwords in a row.
#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    last: Instant,
}

impl Guard {
    /// A guard who has seen nobody yet.
    pub fn new(lock_out_after: u32, lock_out: Duration) -> Guard {
        Guard {
            lock_out_after,
            lock_out,
            clients: HashMap::new(),
            users: HashMap::new(),
            homes: HashMap::new(),
            capacity: CAPACITY,
        }
    }

    /// From now on by these rules; what was counted stays.
    pub fn change(&mut self, lock_out_after: u32, lock_out: Duration) {
        (self.lock_out_after, self.lock_out) = (lock_out_after, lock_out);
    }

    /// Whether nothing is to be checked, and how long the client waits for hearing that.
    pub fn is_locked_out(&self, client: Option<IpAddr>, user: &str, now: Instant) -> Option<Duration> {
        let wrong = self.wrong_so_far(client, user, now);
        let locked = self.lock_out_after > 0 && wrong >= self.lock_out_after;
        locked.then(|| wait_after(wrong))
    }

    /// Counts a wrong password, or with an empty name another trick of the client's; how long the client waits for hearing of it.
    pub fn wrong(&mut self, client: Option<IpAddr>, user: &str, now: Instant) -> Duration {
        let memory = self.lock_out;
        if let Some(client) = client {
            count(&mut self.clients, client, self.capacity, memory, now);
        }
        if !user.is_empty() && !self.is_at_home(client, user, now) {
            count(&mut self.users, user.to_string(), self.capacity, memory, now);
        }
        wait_after(self.wrong_so_far(client, user, now))
    }

    /// A client has logged in.
    pub fn right(&mut self, client: Option<IpAddr>, user: &str, now: Instant) {
        if let Some(client) = client {
            self.clients.remove(&client);
            forget_some(&mut self.homes, self.capacity, |since| u64::MAX - age(*since, now));
            self.homes.insert((client, user.to_string()), now);
        }
        self.users.remove(user);
    }

    /// Whether somebody has logged in from there before, as anybody: then it goes before strangers.
    pub fn is_at_home(&self, client: Option<IpAddr>, user: &str, now: Instant) -> bool {
        let since = client.and_then(|client| self.homes.get(&(client, user.to_string())));
        since.is_some_and(|since| now.saturating_duration_since(*since) < AT_HOME)
    }

    fn wrong_so_far(&self, client: Option<IpAddr>, user: &str, now: Instant) -> u32 {
        let still =
            |count: Option<&Count>| count.filter(|c| !c.is_over(self.lock_out, now)).map_or(0, |c| c.wrong);
        let by_client = still(client.and_then(|client| self.clients.get(&client)));
        let by_user = if self.is_at_home(client, user, now) { 0 } else { still(self.users.get(user)) };
        by_client.max(by_user)
    }
}

impl Count {
    fn is_over(&self, memory: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= memory
    }
}

fn count<K: Hash + Eq + Clone>(
    counts: &mut HashMap<K, Count>,
    who: K,
    capacity: usize,
    memory: Duration,
    now: Instant,
) {
    if !counts.contains_key(&who) {
        if counts.len() >= capacity {
            counts.retain(|_, count| !count.is_over(memory, now));
        }
        forget_some(counts, capacity, |count| u64::from(count.wrong));
    }
    let count = counts.entry(who).or_insert(Count { wrong: 0, last: now });
    if count.is_over(memory, now) {
        count.wrong = 0;
    }
    *count = Count { wrong: count.wrong.saturating_add(1), last: now };
}

/// Where there are too many, forgets the eighth of least weight, so that this is seldom done.
fn forget_some<K: Hash + Eq + Clone, V>(
    all: &mut HashMap<K, V>,
    capacity: usize,
    weight: impl Fn(&V) -> u64,
) {
    if all.len() < capacity {
        return;
    }
    let mut weighed: Vec<(u64, K)> = all.iter().map(|(key, value)| (weight(value), key.clone())).collect();
    weighed.sort_unstable_by_key(|(weight, _)| *weight);
    for (_, key) in weighed.iter().take((all.len() / 8).max(1)) {
        all.remove(key);
    }
}

fn age(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_secs()
}

/// 1 s after the first wrong password, then doubled each time.
fn wait_after(wrong: u32) -> Duration {
    let doubled = 1_u64.checked_shl(wrong.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(doubled).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    #[test]
    fn waits_double_up_to_a_bound_and_a_right_password_ends_them() {
        let (mut guard, now) = (Guard::new(0, TEN_MINUTES), Instant::now());
        let waits: Vec<u64> = (0..8).map(|_| guard.wrong(client(1), "alice", now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(guard.is_locked_out(client(1), "alice", now), None);
        guard.right(client(1), "alice", now);
        assert_eq!(guard.wrong(client(1), "alice", now).as_secs(), 1);
    }

    #[test]
    fn a_client_is_locked_out_whomever_it_guesses_at_and_a_user_whoever_guesses() {
        let (mut guard, now) = (Guard::new(3, TEN_MINUTES), Instant::now());
        for user in ["a", "b", "c"] {
            assert_eq!(guard.is_locked_out(client(1), "d", now), None);
            guard.wrong(client(1), user, now);
        }
        assert!(guard.is_locked_out(client(1), "d", now).is_some());
        assert_eq!(guard.is_locked_out(client(2), "d", now), None);
        for number in 2..5 {
            guard.wrong(client(number), "e", now);
        }
        assert!(guard.is_locked_out(client(9), "e", now).is_some());
        assert!(guard.is_locked_out(None, "e", now).is_some());
        assert_eq!(guard.is_locked_out(client(9), "e", now + TEN_MINUTES), None);
        assert_eq!(guard.wrong(client(9), "e", now + TEN_MINUTES).as_secs(), 1);
    }

    #[test]
    fn strangers_can_t_lock_a_user_out_at_home() {
        let (mut guard, now) = (Guard::new(3, TEN_MINUTES), Instant::now());
        guard.right(client(1), "alice", now);
        for number in 10..20 {
            guard.wrong(client(number), "alice", now);
        }
        assert!(guard.is_locked_out(client(2), "alice", now).is_some());
        assert_eq!(guard.is_locked_out(client(1), "alice", now), None);
        for _ in 0..3 {
            guard.wrong(client(1), "alice", now);
        }
        assert!(guard.is_locked_out(client(1), "alice", now).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_are_not_forgotten() {
        let (mut guard, now) = (Guard::new(3, TEN_MINUTES), Instant::now());
        guard.capacity = 64;
        for _ in 0..3 {
            guard.wrong(client(0), "mallory", now);
        }
        for number in 1..1000 {
            guard.wrong(client(number), &number.to_string(), now);
            guard.right(client(number), &number.to_string(), now);
            guard.wrong(client(number), &number.to_string(), now);
        }
        assert!(guard.clients.len() <= 64 && guard.users.len() <= 64 && guard.homes.len() <= 64);
        assert!(guard.is_locked_out(client(0), "mallory", now).is_some());
    }
}
