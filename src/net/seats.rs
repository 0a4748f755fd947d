//! How many sessions there are, in all and of each client.
//!
//! A client is an IPv4 address, or the /64 that one subscriber has of IPv6. A [`Seat`] counts for
//! as long as it lives, so a session that ends in whatever way gives its place back. A session that
//! has to go for another gives it back before ([`Seat::vacate`]), and of those there are never many.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

/// So many sessions may be on their way out beside those that have seats.
const MOST_LEAVING: usize = 64;

/// How many sessions are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub sessions: usize,
    /// From one client.
    pub per_client: usize,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// The house is full.
    #[error("too many sessions")]
    House,
    /// This client has as many as one client may have.
    #[error("too many sessions of this client")]
    Client,
}

/// What counts as one client: an IPv4 address (also where it came mapped into IPv6), or the first
/// 64 bits of an IPv6 address, since a subscriber has all of those that begin so.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let subscriber = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(subscriber))
        }
    }
}

/// The seats of one program.
#[derive(Debug)]
pub struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    limits: Limits,
    all: usize,
    by_client: HashMap<IpAddr, usize>,
    /// Seats that are given back, though their sessions are still there.
    leaving: usize,
}

impl Seats {
    /// All free.
    pub fn new(limits: Limits) -> Arc<Seats> {
        Arc::new(Seats { taken: Mutex::new(Taken { limits, all: 0, by_client: HashMap::new(), leaving: 0 }) })
    }

    /// Takes a seat for a client; one without an address counts only in all.
    pub fn take(self: &Arc<Seats>, address: Option<IpAddr>) -> Result<Seat, Full> {
        let client = address.map(client_of);
        let mut taken = self.lock();
        if taken.is_full_for(client) {
            return Err(Full::Client);
        }
        if taken.all >= taken.limits.sessions {
            return Err(Full::House);
        }
        taken.add(client);
        drop(taken);
        Ok(Seat { seats: Arc::clone(self), client, vacated: AtomicBool::new(false) })
    }

    /// Whether one more session may leave for another.
    pub fn may_shed(&self) -> bool {
        self.lock().leaving < MOST_LEAVING
    }

    /// From now on these limits hold. Who sits stays.
    pub fn limit(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// How many seats are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// The counts; whole also after a panic elsewhere, since nothing in here can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn is_full_for(&self, client: Option<IpAddr>) -> bool {
        let count = client.and_then(|client| self.by_client.get(&client).copied()).unwrap_or_default();
        client.is_some() && count >= self.limits.per_client
    }

    fn add(&mut self, client: Option<IpAddr>) {
        self.all += 1;
        if let Some(client) = client {
            *self.by_client.entry(client).or_default() += 1;
        }
    }

    fn remove(&mut self, client: Option<IpAddr>) {
        self.all -= 1;
        if let Some(client) = client
            && let Some(count) = self.by_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

/// A place for one session; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    client: Option<IpAddr>,
    vacated: AtomicBool,
}

impl Seat {
    /// Gives the place back now, though the session still has its last word to say.
    pub fn vacate(&self) {
        let mut taken = self.seats.lock();
        if !self.vacated.swap(true, Ordering::SeqCst) {
            taken.remove(self.client);
            taken.leaving += 1;
        }
    }

    /// From now on the seat counts for another client: a proxy has said for whom it connects. An
    /// error: that client has as many as one client may have; the seat is as it was.
    pub fn move_to(&mut self, address: Option<IpAddr>) -> Result<(), Full> {
        let client = address.map(client_of);
        let mut taken = self.seats.lock();
        if client != self.client && taken.is_full_for(client) {
            return Err(Full::Client);
        }
        if !self.vacated.load(Ordering::SeqCst) {
            taken.remove(self.client);
            taken.add(client);
        }
        self.client = client;
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if self.vacated.load(Ordering::SeqCst) {
            taken.leaving -= 1;
        } else {
            taken.remove(self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_an_address_or_a_subscriber_s_network() {
        assert_eq!(client_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(client_of("2001:db8:0:1:2:3:4:5".parse().unwrap()), ip("2001:db8:0:1::").unwrap());
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let seats = Seats::new(Limits { sessions: 3, per_client: 2 });
        let one = seats.take(ip("192.0.2.1")).unwrap();
        let two = seats.take(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(seats.take(ip("192.0.2.1")).unwrap_err(), Full::Client);
        let nobody = seats.take(None).unwrap();
        assert_eq!(seats.take(ip("192.0.2.2")).unwrap_err(), Full::House);
        drop(two);
        let other = seats.take(ip("192.0.2.1")).unwrap();
        drop((one, other, nobody));
        assert_eq!(seats.taken(), 0);
        assert!(seats.lock().by_client.is_empty());
    }

    #[test]
    fn who_has_to_go_leaves_the_seat_to_another_at_once() {
        let seats = Seats::new(Limits { sessions: 1, per_client: 1 });
        let one = seats.take(ip("192.0.2.1")).unwrap();
        assert_eq!(seats.take(ip("192.0.2.1")).unwrap_err(), Full::Client, "who has his share sheds nobody");
        one.vacate();
        one.vacate();
        let other = seats.take(ip("192.0.2.1")).unwrap();
        assert_eq!((seats.taken(), seats.lock().leaving), (1, 1));
        drop(one);
        assert_eq!((seats.taken(), seats.lock().leaving), (1, 0));
        drop(other);
        assert_eq!(seats.taken(), 0);
        let leaving: Vec<Seat> = (0..MOST_LEAVING)
            .map(|_| {
                let seat = seats.take(None).unwrap();
                assert!(seats.may_shed());
                seat.vacate();
                seat
            })
            .collect();
        assert!(!seats.may_shed(), "they are bounded");
        drop(leaving);
        assert!(seats.may_shed());
    }

    #[test]
    fn a_seat_moves_to_the_client_behind_a_proxy() {
        let seats = Seats::new(Limits { sessions: 3, per_client: 1 });
        let mut seat = seats.take(None).unwrap();
        let _other = seats.take(ip("192.0.2.1")).unwrap();
        assert_eq!(seat.move_to(ip("192.0.2.1")), Err(Full::Client));
        assert_eq!(seat.move_to(ip("192.0.2.2")), Ok(()));
        assert_eq!(seat.move_to(ip("192.0.2.2")), Ok(()));
        assert_eq!(seats.take(ip("192.0.2.2")).unwrap_err(), Full::Client);
        drop(seat);
        assert_eq!((seats.taken(), seats.lock().by_client.len()), (1, 1));
    }

    #[test]
    fn new_limits_hold_for_who_comes() {
        let seats = Seats::new(Limits { sessions: 3, per_client: 3 });
        let _one = seats.take(ip("2001:db8::1")).unwrap();
        seats.limit(Limits { sessions: 3, per_client: 0 });
        assert_eq!(seats.take(ip("2001:db8::2")).unwrap_err(), Full::Client);
        assert_eq!(seats.take(ip("2001:db9::2")).unwrap_err(), Full::Client);
        assert_eq!(seats.lock().by_client.len(), 1);
    }
}
