//! The families of addresses, IPv4 and IPv6, as they fare from here: one that leads nowhere for a
//! while is tried last (RFC 8305 4: what is known of earlier attempts counts).

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::candidate::{Candidate, Place};

/// So many attempts in a row must have come to nothing. Fewer may be the hosts' own trouble.
const DEAD_AFTER: u32 = 3;
/// How long a family that leads nowhere is tried last.
const MEMORY: Duration = Duration::from_secs(300);

/// What is remembered of both families.
#[derive(Debug, Default)]
pub struct Families {
    four: Mutex<Fared>,
    six: Mutex<Fared>,
}

/// How one family fared.
#[derive(Debug, Default)]
struct Fared {
    /// Attempts that came to nothing since a host was last reached.
    failures: u32,
    last: Option<Instant>,
}

impl Families {
    /// A host of the family was reached.
    pub fn reached(&self, ip: IpAddr) {
        *self.of(ip) = Fared::default();
    }

    /// An attempt came to nothing: it led nowhere, or one of the other family overtook it.
    pub fn led_nowhere(&self, ip: IpAddr, now: Instant) {
        let mut fared = self.of(ip);
        fared.failures = fared.failures.saturating_add(1);
        fared.last = Some(now);
    }

    /// An attempt failed, for this reason: a host that refuses was reached all the same.
    pub fn failed(&self, ip: IpAddr, why: &io::Error, now: Instant) {
        match why.kind() {
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::TimedOut => self.led_nowhere(ip, now),
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => self.reached(ip),
            _ => {}
        }
    }

    /// Puts the addresses of a family that leads nowhere behind the others.
    pub fn order(&self, candidates: &mut [Candidate], now: Instant) {
        candidates.sort_by_key(|candidate| match candidate.place {
            Place::Tcp(at) => self.is_dead(at.ip(), now),
            Place::Unix(_) => false,
        });
    }

    fn is_dead(&self, ip: IpAddr, now: Instant) -> bool {
        let fared = self.of(ip);
        let is_recent = |last| now.saturating_duration_since(last) < MEMORY;
        fared.failures >= DEAD_AFTER && fared.last.is_some_and(is_recent)
    }

    fn of(&self, ip: IpAddr) -> MutexGuard<'_, Fared> {
        let family = if ip.is_ipv4() { &self.four } else { &self.six };
        family.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_leads_nowhere_is_tried_last_for_a_while() {
        let families = Families::default();
        let now = Instant::now();
        let [four, six]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let order = |now| {
            let at = |ip| Candidate::for_test("a", Place::Tcp((ip, 25).into()));
            let mut all = vec![at(six), at(four), at(six)];
            families.order(&mut all, now);
            all.iter().map(|c| matches!(c.place, Place::Tcp(at) if at.is_ipv6())).collect::<Vec<_>>()
        };
        let no_route = io::Error::from(ErrorKind::NetworkUnreachable);
        families.failed(six, &no_route, now);
        families.failed(six, &no_route, now);
        assert_eq!(order(now), [true, false, true]);
        families.failed(six, &io::Error::from(ErrorKind::TimedOut), now);
        assert_eq!(order(now), [false, true, true]);
        assert_eq!(order(now + MEMORY), [true, false, true]);
        families.led_nowhere(six, now + MEMORY);
        assert_eq!(order(now + MEMORY), [false, true, true], "once more is enough");
        families.failed(six, &io::Error::from(ErrorKind::ConnectionRefused), now + MEMORY);
        assert_eq!(order(now + MEMORY), [true, false, true], "who refuses is there");
    }
}
