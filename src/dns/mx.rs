//! Which hosts take a domain's mail, and in which order they are tried (RFC 5321 5.1).

use std::net::IpAddr;

use thiserror::Error;

use crate::mail::address::parse_literal;
use crate::mail::status::Status;

use super::address::usable;
use super::answer::{Answer, Data, Kind, LookupError, Names, wire_name};

/// Most mail exchangers of one domain that are tried.
pub const MAX_EXCHANGERS: usize = 20;

/// A host that takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchanger {
    /// By name: its addresses have yet to be looked up.
    Host(String),
    /// By address: the domain was an address literal (RFC 5321 4.1.3).
    Address(IpAddr),
}

/// Why there is no host to try.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MxError {
    /// The domain says that it takes no mail (RFC 7505).
    #[error("domain {0} takes no mail (null MX)")]
    TakesNoMail(String),
    /// The domain does not exist, or has neither MX nor address.
    #[error("domain {0}: {1}")]
    Nowhere(String, LookupError),
    /// The best host for the domain is this one, which knows nothing of it.
    #[error("mail for {0} loops back to this host")]
    Loop(String),
    /// There are MX records, but none names a host; or it is an address that is no host's.
    #[error("domain {0} names no host that could take its mail")]
    Unusable(String),
    /// It could not be found out now.
    #[error("domain {0}: {1}")]
    Unknown(String, LookupError),
}

impl MxError {
    /// The enhanced status code of RFC 3463 for it.
    pub fn status(&self) -> Status {
        match self {
            MxError::TakesNoMail(_) => Status::new(5, 1, 10), // RFC 7505 4.2
            MxError::Nowhere(..) => Status::new(5, 1, 2),
            MxError::Loop(_) => Status::new(5, 4, 6),
            MxError::Unusable(_) => Status::new(5, 4, 4),
            MxError::Unknown(..) => Status::new(4, 4, 3),
        }
    }
}

/// Asks for a domain's exchangers and puts them in order; see [`order`]. The domain may be an
/// address literal.
pub fn exchangers(
    names: &dyn Names,
    domain: &str,
    own: &[String],
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Vec<Exchanger>, MxError> {
    if let Some(inner) = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) {
        let address = parse_literal(inner);
        return match address.map(usable) {
            Ok(Some(ip)) => Ok(vec![Exchanger::Address(ip)]),
            Ok(None) => Err(MxError::Unusable(domain.to_string())),
            Err(_) => Err(MxError::Nowhere(domain.to_string(), LookupError::BadName)),
        };
    }
    let answer = names.look_up(domain, Kind::Mx);
    let hosts = order(domain, answer, own, random)?;
    Ok(hosts.into_iter().map(Exchanger::Host).collect())
}

/// The hosts that an answer to the question for MX records names, best first.
///
/// `own` are the names of this host; it, and every host that is not better, is dropped. `random`
/// gives a number below its argument: hosts of one preference are shuffled with it.
pub fn order(
    domain: &str,
    answer: Result<Answer, LookupError>,
    own: &[String],
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Vec<String>, MxError> {
    let said = match answer {
        Ok(answer) => answer.data,
        // RFC 5321 5.1: without any MX record the domain itself is its only exchanger.
        Err(LookupError::NoData) => {
            let host = wire_name(domain).map_err(|e| MxError::Nowhere(domain.to_string(), e))?;
            vec![Data::Mx(0, host)]
        }
        Err(error) if error.is_temporary() => return Err(MxError::Unknown(domain.to_string(), error)),
        Err(error) => return Err(MxError::Nowhere(domain.to_string(), error)),
    };
    let mut hosts: Vec<(u16, String)> = said
        .into_iter()
        .filter_map(
            |data| if let Data::Mx(preference, host) = data { Some((preference, host)) } else { None },
        )
        .collect();
    // RFC 7505 3: a null MX stands alone. Beside others the root is merely no host.
    if hosts.len() == 1 && hosts[0].1.is_empty() {
        return Err(MxError::TakesNoMail(domain.to_string()));
    }
    hosts.retain(|(_, host)| !host.is_empty());
    if hosts.is_empty() {
        return Err(MxError::Unusable(domain.to_string()));
    }
    shuffle(&mut hosts, random);
    hosts.sort_by_key(|(preference, _)| *preference); // stable: equals stay shuffled
    // RFC 5321 5.1: ourselves, and all that are no better than we are, would send it back to us.
    if let Some(ours) = hosts.iter().find(|(_, host)| is_own(host, own)).map(|(preference, _)| *preference) {
        hosts.retain(|(preference, _)| *preference < ours);
        if hosts.is_empty() {
            return Err(MxError::Loop(domain.to_string()));
        }
    }
    hosts.truncate(MAX_EXCHANGERS);
    Ok(hosts.into_iter().map(|(_, host)| host).collect())
}

/// Whether a host is this one. `localhost` in the DNS is whoever asks.
fn is_own(host: &str, own: &[String]) -> bool {
    host == "localhost" || own.iter().any(|name| wire_name(name).is_ok_and(|name| name == host))
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut dyn FnMut(usize) -> usize) {
    for end in (1..items.len()).rev() {
        items.swap(end, random(end + 1) % (end + 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::zone::Zone;
    use super::*;

    fn ask(zone: &str, domain: &str) -> Result<Vec<Exchanger>, MxError> {
        let zone = Zone::parse(zone).unwrap();
        exchangers(&zone, domain, &["Own.Example".into()], &mut |_| 0)
    }

    fn hosts(names: &[&str]) -> Result<Vec<Exchanger>, MxError> {
        Ok(names.iter().map(|name| Exchanger::Host(name.to_string())).collect())
    }

    #[test]
    fn the_best_comes_first_and_equals_are_shuffled() {
        assert_eq!(ask("d MX 20 b\nd MX 10 a\nd MX 30 c", "d"), hosts(&["a", "b", "c"]));
        let zone = Zone::parse("d MX 10 a\nd MX 10 b\nd MX 5 first").unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..8 {
            let mut turn = seed;
            let mut random = |below: usize| {
                turn += 1;
                (turn >> 1) % below
            };
            let found = exchangers(&zone, "d", &[], &mut random).unwrap();
            assert_eq!(found[0], Exchanger::Host("first".into()));
            seen.insert(format!("{:?}", found[1]));
        }
        assert_eq!(seen.len(), 2, "both orders occur");
    }

    #[test]
    fn without_mx_the_domain_is_its_own_exchanger() {
        assert_eq!(ask("d A 192.0.2.1", "d"), hosts(&["d"]));
        assert_eq!(ask("", "[192.0.2.1]"), Ok(vec![Exchanger::Address("192.0.2.1".parse().unwrap())]));
        assert_eq!(ask("", "[IPv6:::1]"), Ok(vec![Exchanger::Address("::1".parse().unwrap())]));
    }

    #[test]
    fn a_null_mx_takes_no_mail() {
        assert_eq!(ask("d MX 0 .", "d").unwrap_err().status().to_string(), "5.1.10");
        assert_eq!(ask("d MX 0 .\nd MX 10 a", "d"), hosts(&["a"]));
        assert_eq!(ask("d MX 0 .\nd MX 10 .", "d").unwrap_err().status().to_string(), "5.4.4");
    }

    #[test]
    fn an_address_literal_that_is_no_host_s_is_not_connected_to() {
        let zone = Zone::parse("").unwrap();
        let literal = |domain: &str| {
            exchangers(&zone, domain, &[], &mut |_| 0).map_err(|error| error.status().to_string())
        };
        // The unspecified address, and an IPv4 address in the clothes of IPv6, would be ourselves.
        for nowhere in ["[0.0.0.0]", "[IPv6:::]", "[224.0.0.1]", "[IPv6:ff02::1]", "[255.255.255.255]"] {
            assert_eq!(literal(nowhere), Err("5.4.4".to_string()), "{nowhere}");
        }
        for same in ["[127.0.0.1]", "[IPv6:::ffff:127.0.0.1]"] {
            assert_eq!(literal(same), Ok(vec![Exchanger::Address("127.0.0.1".parse().unwrap())]), "{same}");
        }
    }

    #[test]
    fn mail_never_comes_back_to_us() {
        assert_eq!(ask("d MX 10 a\nd MX 20 own.example\nd MX 20 b\nd MX 30 c", "d"), hosts(&["a"]));
        for zone in ["d MX 10 own.example\nd MX 20 b", "d MX 10 localhost"] {
            assert_eq!(ask(zone, "d").unwrap_err().status().to_string(), "5.4.6", "{zone}");
        }
        assert_eq!(ask("own.example A 192.0.2.1", "own.example"), Err(MxError::Loop("own.example".into())));
    }

    #[test]
    fn absent_and_unknown_are_told_apart() {
        assert_eq!(ask("", "d").unwrap_err().status().to_string(), "5.1.2");
        assert_eq!(ask("d SERVFAIL", "d").unwrap_err().status().to_string(), "4.4.3");
        assert_eq!(ask("d TIMEOUT", "d").unwrap_err().status().to_string(), "4.4.3");
    }

    proptest! {
        #[test]
        fn whatever_the_answer_order_holds(list in prop::collection::vec((0u16..4, "[a-d]|own\\.example|"), 1..30),
                                           seed in any::<usize>()) {
            let data = list.iter().map(|(p, h)| Data::Mx(*p, h.clone())).collect();
            let answer = Answer { data, ttl: std::time::Duration::ZERO, secure: false };
            let own = ["own.example".to_string()];
            if let Ok(found) = order("d", Ok(answer), &own, &mut |below| seed % below) {
                prop_assert!(!found.is_empty() && found.len() <= MAX_EXCHANGERS);
                let ours = list.iter().filter(|(_, h)| h == "own.example").map(|(p, _)| *p).min();
                let best = |host: &String| list.iter().filter(|(_, h)| h == host).map(|(p, _)| *p).min().unwrap();
                prop_assert!(found.iter().all(|h| ours.is_none_or(|ours| best(h) < ours)));
                prop_assert!(!found.contains(&own[0]));
            }
        }
    }
}
