//! What is under way: how many jobs, and over which connections, so that it can be waited for and,
//! if it takes too long, ended.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use posta::net::stream::Breaker;

/// The jobs and connections under way.
#[derive(Debug, Default)]
pub struct Flight {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: usize,
    stopping: bool,
    /// Connections are ended as soon as they are there.
    cut: bool,
    lines: HashMap<u64, Breaker>,
    next_line: u64,
}

/// A job under way, until it is dropped.
#[derive(Debug)]
pub struct Job(Arc<Flight>);

/// A connection that can be ended, until it is dropped.
#[derive(Debug)]
pub struct Line(Arc<Flight>, u64);

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts a job.
    pub fn take_off(self: &Arc<Flight>) -> Job {
        self.lock().jobs += 1;
        Job(self.clone())
    }

    /// Makes a connection known.
    pub fn line(self: &Arc<Flight>, breaker: Breaker) -> Line {
        let mut state = self.lock();
        if state.cut {
            breaker.cut();
        }
        let number = state.next_line;
        state.next_line += 1;
        state.lines.insert(number, breaker);
        Line(self.clone(), number)
    }

    /// How many connections there are, those that are kept for later among them.
    pub fn lines(&self) -> usize {
        self.lock().lines.len()
    }

    /// From now on no job begins anything new: no connection, no transaction.
    pub fn stop(&self) {
        self.lock().stopping = true;
    }

    /// Whether nothing new may be begun.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Takes [`stop`](Flight::stop) and [`cut`](Flight::cut) back.
    pub fn resume(&self) {
        let mut state = self.lock();
        (state.stopping, state.cut) = (false, false);
    }

    /// Ends all connections, also those that are only being made.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.cut = true;
        state.lines.values().for_each(Breaker::cut);
    }

    /// Waits until no job is under way, at most `limit`; says whether that is so.
    pub fn wait_until_empty(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while state.jobs > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.landed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.jobs -= 1;
        if state.jobs == 0 {
            self.0.landed.notify_all();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.lock().lines.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use posta::net::stream::Stream;

    use super::*;

    #[test]
    fn jobs_are_waited_for() {
        let flight = Arc::new(Flight::default());
        assert!(flight.wait_until_empty(Duration::ZERO));
        let job = flight.take_off();
        assert!(!flight.wait_until_empty(Duration::from_millis(1)));
        let waiting = flight.clone();
        let waiter = std::thread::spawn(move || waiting.wait_until_empty(Duration::from_secs(10)));
        drop(job);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_cut_ends_connections_that_are_there_and_that_come_later() {
        let flight = Arc::new(Flight::default());
        let connect = || {
            let (one, other) = UnixStream::pair().unwrap();
            let stream = Stream::unix(one).unwrap();
            let line = flight.line(stream.breaker().unwrap());
            (stream, line, other)
        };
        let (mut before, _line, _peer) = connect();
        flight.cut();
        let (mut after, line, _peer) = connect();
        assert_eq!((before.read(&mut [0]).unwrap(), after.read(&mut [0]).unwrap()), (0, 0));
        assert_eq!(flight.lines(), 2);
        drop(line);
        assert_eq!(flight.lines(), 1);
    }
}
