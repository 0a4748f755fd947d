//! Where a job can be taken to: the hosts of its target in their order, and the addresses of each.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use posta::mail::status::Status;

use posta::courier::request::{Hop, Target};
use posta::smtp::client::session::Language;
use posta::smtp::client::verdict::Finding;

use posta::dns::address::addresses;
use posta::dns::answer::{LookupError, Names};
use posta::dns::mx::{self, Exchanger};

/// A host whose addresses have yet to be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    at: At,
    /// What it means if it has no address at all.
    absent: Status,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Name(String, u16),
    Address(IpAddr, u16),
    Unix(String),
}

/// One place to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    name: String,
    /// The place.
    pub place: Place,
}

impl Candidate {
    /// The host's name, or its address where it was named by that.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[cfg(test)]
    pub fn for_test(name: &str, place: Place) -> Candidate {
        Candidate { name: name.into(), place }
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Over TCP.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Candidate {
    /// As logs and reports name a host: `mx.example[192.0.2.1]:25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(at) => write!(f, "{}[{}]:{}", self.name, at.ip(), at.port()),
            Place::Unix(path) => write!(f, "{}[{}]", self.name, path.display()),
        }
    }
}

impl Candidate {
    /// Whether this host's own server listens at the place: at that address, or at all of this host's,
    /// which are those that the kernel lets us bind to.
    pub fn is_ours(&self, listening: &[SocketAddr]) -> bool {
        let Place::Tcp(at) = &self.place else { return false };
        let is_local = || UdpSocket::bind((at.ip(), 0)).is_ok();
        let meets = |own: &SocketAddr| own.ip() == at.ip() || own.ip().is_unspecified();
        listening.iter().filter(|own| own.port() == at.port()).any(meets) && is_local()
    }
}

/// What is spoken at a target; nothing if it is none of ours.
pub fn language(target: &Target) -> Option<Language> {
    match target {
        Target::Mx(_) | Target::Smtp(_) => Some(Language::Smtp),
        Target::Lmtp(_) => Some(Language::Lmtp),
        Target::Local(_) => None,
    }
}

/// Names a target, so that a connection to it can be found again.
pub fn destination(target: &Target) -> String {
    match target {
        Target::Mx(domain) => format!("mx {domain}"),
        Target::Smtp(hop) => format!("smtp {hop}"),
        Target::Lmtp(hop) => format!("lmtp {hop}"),
        Target::Local(_) => String::new(),
    }
}

/// The hosts of a target, best first. `port` is that of mail exchangers, `own` are this host's
/// names; `random` gives a number below its argument.
pub fn hosts(
    target: &Target,
    names: &dyn Names,
    port: u16,
    own: &[String],
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Vec<Host>, Finding> {
    match target {
        Target::Mx(domain) => exchangers(domain, names, port, own, random),
        Target::Smtp(hop) | Target::Lmtp(hop) => Ok(vec![Host::from(hop)]),
        Target::Local(_) => Err(Finding::ours(Status::new(4, 3, 5), "posta-remote delivers to no mailbox")),
    }
}

fn exchangers(
    domain: &str,
    names: &dyn Names,
    port: u16,
    own: &[String],
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Vec<Host>, Finding> {
    let found = mx::exchangers(names, domain, own, random)
        .map_err(|error| Finding::ours(error.status(), error.to_string()))?;
    let host = |exchanger| match exchanger {
        Exchanger::Address(ip) => Host { at: At::Address(ip, port), absent: Status::new(5, 4, 4) },
        Exchanger::Host(name) => {
            // RFC 3463: 5.1.2, the domain takes no mail; 5.4.4, its MX records lead nowhere.
            let absent = if name == domain { Status::new(5, 1, 2) } else { Status::new(5, 4, 4) };
            Host { at: At::Name(name, port), absent }
        }
    };
    Ok(found.into_iter().map(host).collect())
}

impl From<&Hop> for Host {
    /// What the administrator named should be there: if it is not, that is for him to mend, and the
    /// mail waits.
    fn from(hop: &Hop) -> Host {
        let at = match hop {
            Hop::Host(name, port) => At::Name(name.clone(), *port),
            Hop::Address(ip, port) => At::Address(*ip, *port),
            Hop::Unix(path) => At::Unix(path.clone()),
        };
        Host { at, absent: Status::new(4, 4, 4) }
    }
}

impl Host {
    /// Its places, in the order in which they are tried.
    pub fn candidates(&self, names: &dyn Names) -> Result<Vec<Candidate>, Finding> {
        let tcp = |name: &str, ip, port| {
            let place = Place::Tcp(SocketAddr::new(ip, port));
            Candidate { name: name.to_string(), place }
        };
        match &self.at {
            At::Unix(path) => {
                Ok(vec![Candidate { name: "localhost".into(), place: Place::Unix(path.into()) }])
            }
            At::Address(ip, port) => Ok(vec![tcp(&ip.to_string(), *ip, *port)]),
            At::Name(name, port) => match addresses(names, name) {
                Ok(ips) => Ok(ips.into_iter().map(|ip| tcp(name, ip, *port)).collect()),
                Err(error) => Err(self.without_address(name, &error)),
            },
        }
    }

    fn without_address(&self, name: &str, error: &LookupError) -> Finding {
        let status = if error.is_temporary() { Status::new(4, 4, 3) } else { self.absent };
        Finding::ours(status, format!("no address of host {name}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use posta::dns::zone::Zone;

    use super::*;

    fn places(target: &Target, zone: &str) -> Vec<Result<String, String>> {
        let zone = Zone::parse(zone).unwrap();
        let hosts = match hosts(target, &zone, 2525, &["own.example".into()], &mut |_| 0) {
            Ok(hosts) => hosts,
            Err(finding) => return vec![Err(finding.status.to_string())],
        };
        let each = |host: &Host| match host.candidates(&zone) {
            Ok(found) => found.iter().map(|c| Ok(c.to_string())).collect(),
            Err(finding) => vec![Err(finding.status.to_string())],
        };
        hosts.iter().flat_map(each).collect()
    }

    fn ok(place: &str) -> Result<String, String> {
        Ok(place.to_string())
    }

    #[test]
    fn a_domain_is_served_by_its_exchangers() {
        let mx = Target::Mx("d".into());
        let zone = "d MX 10 a\nd MX 20 b\nd MX 30 c\na A 192.0.2.1\na AAAA 2001:db8::1\nb SERVFAIL";
        let found = places(&mx, zone);
        let expected =
            [ok("a[2001:db8::1]:2525"), ok("a[192.0.2.1]:2525"), Err("4.4.3".into()), Err("5.4.4".into())];
        assert_eq!(found, expected);
        assert_eq!(places(&mx, "d A 192.0.2.1"), [ok("d[192.0.2.1]:2525")]);
        assert_eq!(places(&mx, "d EMPTY"), [Err("5.1.2".to_string())]);
        assert_eq!(places(&mx, "d MX 10 own.example"), [Err("5.4.6".to_string())]);
        let literal = Target::Mx("[192.0.2.7]".into());
        assert_eq!(places(&literal, ""), [ok("192.0.2.7[192.0.2.7]:2525")]);
    }

    #[test]
    fn a_named_hop_is_taken_at_its_word() {
        let hop = |text: &str| Hop::parse(text, 25).unwrap();
        let smtp = |text: &str| Target::Smtp(hop(text));
        assert_eq!(places(&smtp("a:26"), "a A 192.0.2.1"), [ok("a[192.0.2.1]:26")]);
        assert_eq!(places(&smtp("[2001:db8::1]:26"), ""), [ok("2001:db8::1[2001:db8::1]:26")]);
        assert_eq!(places(&smtp("a:26"), ""), [Err("4.4.4".to_string())]);
        assert_eq!(places(&Target::Lmtp(hop("unix:/run/l")), ""), [ok("localhost[/run/l]")]);
    }
}
