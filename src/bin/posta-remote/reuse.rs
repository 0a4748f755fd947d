//! Connections that are kept for a moment, for the next message to the same destination.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::connection::Connection;

/// How long a connection waits for its next message.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connections that wait.
#[derive(Debug, Default)]
pub struct Idle {
    kept: Mutex<HashMap<String, Vec<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Kept>>> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A connection to the destination: the one that was used last.
    pub fn take(&self, destination: &str) -> Option<Connection> {
        let mut all = self.lock();
        let kept = all.get_mut(destination)?;
        let connection = kept.pop().map(|kept| kept.connection);
        if kept.is_empty() {
            all.remove(destination);
        }
        connection
    }

    /// Keeps a connection.
    pub fn keep(&self, destination: &str, connection: Connection, now: Instant) {
        let mut all = self.lock();
        let kept = Kept { connection, since: now };
        match all.get_mut(destination) {
            Some(list) => list.push(kept),
            None => {
                all.insert(destination.to_string(), vec![kept]);
            }
        }
    }

    /// Takes out those that have waited long enough.
    pub fn expired(&self, now: Instant) -> Vec<Connection> {
        let over = |kept: &mut Kept| now.saturating_duration_since(kept.since) >= PATIENCE;
        let mut all = self.lock();
        let gone: Vec<Kept> = all.values_mut().flat_map(|list| list.extract_if(.., over)).collect();
        all.retain(|_, list| !list.is_empty());
        gone.into_iter().map(|kept| kept.connection).collect()
    }

    /// Takes out the one that has waited longest, to make room for another.
    pub fn oldest(&self) -> Option<Connection> {
        let mut all = self.lock();
        let first = |list: &Vec<Kept>| list.iter().map(|kept| kept.since).min();
        let destination = all.iter().min_by_key(|(_, list)| first(list)).map(|(name, _)| name.clone())?;
        let list = all.get_mut(&destination)?;
        let at = (0..list.len()).min_by_key(|at| list[*at].since)?;
        let connection = list.remove(at).connection;
        if list.is_empty() {
            all.remove(&destination);
        }
        Some(connection)
    }

    /// Takes all out.
    pub fn all(&self) -> Vec<Connection> {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().flatten().map(|kept| kept.connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(name: &str) -> Connection {
        Connection::for_test(name)
    }

    fn names(connections: Vec<Connection>) -> Vec<String> {
        connections.iter().map(|c| c.peer().to_string()).collect()
    }

    #[test]
    fn the_last_used_comes_first_and_the_oldest_goes_first() {
        let idle = Idle::default();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        idle.keep("mx a", connection("a1"), now);
        idle.keep("mx b", connection("b1"), later(1));
        idle.keep("mx a", connection("a2"), later(2));
        assert!(idle.take("mx c").is_none());
        assert_eq!(idle.take("mx a").unwrap().peer(), "a2");
        idle.keep("mx a", connection("a2"), later(3));
        assert_eq!(idle.oldest().unwrap().peer(), "a1");
        assert_eq!(names(idle.expired(later(7))), ["b1"]);
        assert_eq!(names(idle.all()), ["a2"]);
        assert!(idle.oldest().is_none());
    }
}
