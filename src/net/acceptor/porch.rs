//! Where workers leave the sessions that have nothing to do.

use std::mem;
use std::time::Instant;

use mio::Waker;

use crate::net::parking::Stay;
use crate::unix::threads::{Arc, Mutex, PoisonError};

/// The workers' way back to the acceptor.
#[derive(Debug)]
pub struct Porch<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Porch<S> {
    fn clone(&self) -> Porch<S> {
        Porch { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<S> {
    /// Handed back, not yet watched.
    handed_back: Mutex<Vec<HandedBack<S>>>,
    waker: Waker,
}

/// A session that a worker has left.
#[derive(Debug)]
pub(super) struct HandedBack<S> {
    pub(super) session: S,
    pub(super) until: Instant,
    pub(super) stay: Stay,
}

impl<S> Porch<S> {
    pub(super) fn new(waker: Waker) -> Porch<S> {
        Porch { shared: Arc::new(Shared { handed_back: Mutex::new(Vec::new()), waker }) }
    }

    /// Parks a session until its client says something ([`Why::Readable`](super::Why::Readable)), at
    /// the latest until `deadline` ([`Why::Overdue`](super::Why::Overdue)).
    pub fn park(&self, session: S, deadline: Instant) {
        self.hand_back(HandedBack { session, until: deadline, stay: Stay::Listening });
    }

    /// Lets a session rest until `until` ([`Why::Rested`](super::Why::Rested)), whatever its client
    /// says meanwhile: that waits in the socket's buffer. So a slow answer costs no thread. A client
    /// that has gone, or that has closed its own direction, wakes it at once
    /// ([`Why::Gone`](super::Why::Gone)), so that its seat is free again.
    pub fn rest(&self, session: S, until: Instant) {
        self.hand_back(HandedBack { session, until, stay: Stay::Resting });
    }

    fn hand_back(&self, session: HandedBack<S>) {
        let mut handed_back = self.shared.handed_back.lock().unwrap_or_else(PoisonError::into_inner);
        handed_back.push(session);
        let first = handed_back.len() == 1;
        drop(handed_back);
        if first && let Err(error) = self.shared.waker.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }

    /// All that were handed back since the last time.
    pub(super) fn take(&self) -> Vec<HandedBack<S>> {
        mem::take(&mut *self.shared.handed_back.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
