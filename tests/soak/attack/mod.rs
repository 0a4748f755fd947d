//! The attacks. Each has a band of addresses of its own, goes on until its time is over, and tells how
//! often it has done what it does. That the server hangs up on it is no failure: it comes again.

mod bomb;
mod cut;
mod flood;
mod slow;
mod tls;

pub use tls::shake;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use fastrand::Rng;

use crate::target::{Target, connect, stranger};

/// An attacker at work.
pub struct Attacker<'a> {
    pub target: &'a Target,
    /// Which addresses it comes from.
    band: usize,
    pub until: Instant,
    pub chance: Rng,
}

/// What an attacker does until its time is over; gives how often it has done it.
pub type Attack = fn(&mut Attacker<'_>) -> u64;

/// All attacks.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("slow commands", slow::commands),
    ("slow data", slow::data),
    ("slow chunks", slow::chunks),
    ("slow proxies", slow::proxies),
    ("recipient floods", flood::recipients),
    ("pipelining floods", flood::pipelining),
    ("deaf clients", flood::deaf),
    ("connect and reset", flood::resets),
    ("wrong passwords", flood::passwords),
    ("garbage for a proxy", flood::proxy_garbage),
    ("endless lines", bomb::lines),
    ("endless headers", bomb::headers),
    ("MIME bombs", bomb::mime),
    ("relayed MIME bombs", bomb::relayed),
    ("half handshakes", tls::half_handshakes),
    ("garbage for TLS", tls::garbage),
    ("renegotiation", tls::renegotiation),
    ("cut sessions", cut::sessions),
    ("cut sessions", cut::sessions),
    ("cut sessions", cut::sessions),
];

impl<'a> Attacker<'a> {
    pub fn new(target: &'a Target, band: usize, until: Instant, seed: u64) -> Attacker<'a> {
        Attacker { target, band, until, chance: Rng::with_seed(seed ^ band as u64) }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// One of its addresses.
    fn address(&mut self) -> IpAddr {
        stranger(self.band, self.chance.usize(..250))
    }

    /// A connection from one of its addresses.
    fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        let from = self.address();
        connect(from, to)
    }

    /// Does something again and again until the time is over; counts how often it came to its end.
    fn repeat(&mut self, mut each: impl FnMut(&mut Self) -> io::Result<()>) -> u64 {
        let mut count = 0;
        while !self.is_over() {
            match each(self) {
                Ok(()) => count += 1,
                // Turned away, or cut off. Not at once again: this one thread is not to be the whole load.
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        count
    }
}
