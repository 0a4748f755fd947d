//! What stands in for the crates that a model checker can't look into: crossbeam's bounded channel and
//! mio's waker.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

use crate::unix::threads::{Arc, Condvar, Mutex};

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    room: usize,
    is_closed: bool,
    /// How often somebody may still have waited for long enough. Without a bound, a job that nobody was
    /// woken for would always be found by the next who looks.
    time_outs: usize,
}

#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

pub enum TrySendError<T> {
    Full(T),
    Disconnected(T),
}

pub enum RecvTimeoutError {
    Timeout,
    Disconnected,
}

pub fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), room, is_closed: false, time_outs: 4 };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.state.lock().unwrap();
        if state.waiting.len() == state.room {
            return Err(TrySendError::Full(value));
        }
        state.waiting.push_back(value);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<T> {
    /// Some who wait have waited for long enough, whenever there is nothing for them.
    pub fn recv_timeout(&self, _limit: Duration) -> Result<T, RecvTimeoutError> {
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(value) = state.waiting.pop_front() {
                return Ok(value);
            }
            if state.is_closed {
                return Err(RecvTimeoutError::Disconnected);
            }
            if state.time_outs > 0 && thread_rng().gen_bool(0.3) {
                state.time_outs -= 1;
                return Err(RecvTimeoutError::Timeout);
            }
            state = self.0.changed.wait(state).unwrap();
        }
    }

    pub fn len(&self) -> usize {
        self.0.state.lock().unwrap().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Wakes who polls: any number of calls is one event.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<(Mutex<bool>, Condvar)>);

impl Waker {
    pub fn wake(&self) -> io::Result<()> {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
        Ok(())
    }

    /// Waits for the event.
    pub fn poll(&self) {
        let mut woken = self.0.0.lock().unwrap();
        while !*woken {
            woken = self.0.1.wait(woken).unwrap();
        }
        *woken = false;
    }
}
