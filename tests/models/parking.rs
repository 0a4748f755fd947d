//! The way of a session from the acceptor to a worker and back: the pool, the porch and the parking
//! are the real ones, mio is played.
//!
//! No session is lost on the way, and who sleeps is woken for each that comes back.

use std::time::Instant;

use crate::Waker;
use crate::net::parking::{Parked, Parking};
use crate::pool::{Count, Crowd, Pool, Work, size};
use crate::unix::threads::Arc;

#[path = "../../src/net/acceptor/porch.rs"]
#[allow(dead_code, unused_imports)] // of its own tests
mod porch;

use porch::{HandedBack, Porch};

const SESSIONS: usize = 3;
const TURNS: usize = 3;

/// Does nothing with a session but to count, and leaves it at the porch.
struct Desk {
    porch: Porch<usize>,
    count: Arc<Count>,
}

impl Work for Desk {
    type Job = usize;
    type Bench = ();

    fn work(&self, turns: usize, (): &mut (), _crowd: &dyn Crowd) {
        self.count.add();
        if turns > 1 {
            self.porch.park(turns - 1, Instant::now());
        }
    }
}

/// Each session comes back as often as it has something to say.
pub fn no_session_is_lost() {
    let (waker, count) = (Waker::default(), Arc::new(Count::default()));
    let porch = Porch::new(waker.clone());
    let pool = Pool::start(size(0, 2), Desk { porch: porch.clone(), count: Arc::clone(&count) });
    for _ in 0..SESSIONS {
        assert!(pool.offer(TURNS).is_ok());
    }
    let mut parking = Parking::new(0);
    let mut back = 0;
    while back < SESSIONS * (TURNS - 1) {
        waker.poll();
        for HandedBack { session, until, stay } in porch.take() {
            parking.put(Parked { session, stay, since: until, until, stranger: true });
            back += 1;
        }
        // All of them have something to say at once.
        while let Some(parked) = parking.take_any() {
            assert!(pool.offer(parked.session).is_ok());
        }
    }
    assert_eq!(count.wait_for(SESSIONS * TURNS), SESSIONS * TURNS);
}
