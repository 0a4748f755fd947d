//! Very many clients who come, say nothing, and stay.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::target::{PER_CLIENT, Target, connect, stranger};

/// The band of addresses that the crowd comes from.
const BAND: usize = 50;
/// Threads that open connections.
const HANDS: usize = 4;

/// The connections; who lets go of it lets them go.
pub struct Crowd {
    held: Vec<TcpStream>,
}

impl Crowd {
    /// Comes, with as many connections from each address as one client may have.
    pub fn gather(target: &Target, size: usize) -> Crowd {
        let next = AtomicUsize::new(0);
        let held = Mutex::new(Vec::with_capacity(size));
        std::thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= size {
                            return;
                        }
                        // Who does not come in is not there: the siege goes on all the same.
                        if let Ok(stream) = connect(stranger(BAND, number / PER_CLIENT), target.smtp) {
                            held.lock().unwrap().push(stream);
                        }
                    }
                });
            }
        });
        Crowd { held: held.into_inner().unwrap() }
    }

    /// How many connections it has.
    pub fn size(&self) -> usize {
        self.held.len()
    }
}
