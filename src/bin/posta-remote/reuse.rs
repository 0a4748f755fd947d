//! Connections that are kept for a moment, for the next message to the same destination, or to
//! another one that the same host serves.

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
    /// Names the host's place and the way to it.
    host: String,
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

    /// A connection to one of these hosts, whatever destination it was made for; and which of them.
    /// All are looked through: that is nothing beside making a connection.
    pub fn take_from(&self, hosts: &[String]) -> Option<(usize, Connection)> {
        let mut all = self.lock();
        let find = |(name, list): (&String, &Vec<Kept>)| {
            let fits = |(at, kept): (usize, &Kept)| Some((hosts.iter().position(|h| *h == kept.host)?, at));
            let (host, at) = list.iter().enumerate().find_map(fits)?;
            Some((host, name.clone(), at))
        };
        let (host, destination, at) = all.iter().find_map(find)?;
        let list = all.get_mut(&destination)?;
        let connection = list.remove(at).connection;
        if list.is_empty() {
            all.remove(&destination);
        }
        Some((host, connection))
    }

    /// Keeps a connection to `host`.
    pub fn keep(&self, destination: &str, host: String, connection: Connection, now: Instant) {
        let mut all = self.lock();
        let kept = Kept { connection, host, since: now };
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
        let keep = |to: &str, name: &str, when| idle.keep(to, "host".into(), connection(name), when);
        keep("mx a", "a1", now);
        keep("mx b", "b1", later(1));
        keep("mx a", "a2", later(2));
        assert!(idle.take("mx c").is_none());
        assert_eq!(idle.take("mx a").unwrap().peer(), "a2");
        keep("mx a", "a2", later(3));
        assert_eq!(idle.oldest().unwrap().peer(), "a1");
        assert_eq!(names(idle.expired(later(7))), ["b1"]);
        assert_eq!(names(idle.all()), ["a2"]);
        assert!(idle.oldest().is_none());
    }

    #[test]
    fn a_host_that_serves_another_destination_is_found() {
        let idle = Idle::default();
        let now = Instant::now();
        idle.keep("mx a", "mx1".into(), connection("one"), now);
        idle.keep("mx a", "mx2".into(), connection("two"), now);
        let hosts = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert!(idle.take_from(&hosts(&["mx3"])).is_none());
        let (place, found) = idle.take_from(&hosts(&["mx3", "mx2"])).unwrap();
        assert_eq!((place, found.peer()), (1, "two"));
        assert!(idle.take_from(&hosts(&["mx2"])).is_none());
        assert_eq!(idle.take("mx a").unwrap().peer(), "one");
    }
}
