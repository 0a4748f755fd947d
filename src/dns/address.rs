//! The addresses of a host, in the order in which they are tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::answer::{Answer, Data, Kind, LookupError, Names, wire_name};

/// Most addresses of one host that are used.
pub const MAX_ADDRESSES: usize = 8;

/// The addresses of a host, A and AAAA, families taking turns (RFC 8305 4), IPv6 first. What can't
/// be connected to (unspecified, multicast, broadcast) is left out. A failed look-up of one family
/// is an error only if the other one has nothing.
pub fn addresses(names: &dyn Names, host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let host = wire_name(host)?;
    // RFC 6761 6.3: never a question to the DNS.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let four = names.look_up(&host, Kind::A);
    if four == Err(LookupError::NoName) {
        return Err(LookupError::NoName);
    }
    let six = names.look_up(&host, Kind::Aaaa);
    let error = [&four, &six]
        .into_iter()
        .filter_map(|answer| answer.as_ref().err())
        .find(|error| error.is_temporary())
        .cloned();
    let found = take_turns(of(six), of(four));
    if found.is_empty() { Err(error.unwrap_or(LookupError::NoData)) } else { Ok(found) }
}

/// The usable addresses of an answer.
fn of(answer: Result<Answer, LookupError>) -> Vec<IpAddr> {
    let data = answer.map(|answer| answer.data).unwrap_or_default();
    let ips = data.into_iter().filter_map(|data| match data {
        Data::A(ip) => Some(IpAddr::V4(ip)),
        Data::Aaaa(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    });
    ips.filter_map(usable).collect()
}

/// The address in its own family, if a mail server can be there. The unspecified address would be
/// ourselves.
pub fn usable(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    (!(ip.is_unspecified() || ip.is_multicast() || broadcast)).then_some(ip)
}

fn take_turns(one: Vec<IpAddr>, other: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    while all.len() < MAX_ADDRESSES {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        all.extend(pair.into_iter().flatten());
    }
    all.truncate(MAX_ADDRESSES);
    all
}

#[cfg(test)]
mod tests {
    use super::super::zone::Zone;
    use super::*;

    fn find(zone: &str, host: &str) -> Result<Vec<String>, LookupError> {
        let zone = Zone::parse(zone).unwrap();
        addresses(&zone, host).map(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn families_take_turns() {
        let zone = "h A 192.0.2.1\nh A 192.0.2.2\nh A 192.0.2.3\nh AAAA 2001:db8::1\nh AAAA ::\nh A 0.0.0.0";
        assert_eq!(find(zone, "h").unwrap(), ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let many: String = (1..100).map(|n| format!("h A 192.0.2.{n}\n")).collect();
        assert_eq!(find(&many, "h").unwrap().len(), MAX_ADDRESSES);
    }

    #[test]
    fn absent_and_unknown_are_told_apart() {
        assert_eq!(find("", "h"), Err(LookupError::NoName));
        assert_eq!(find("h EMPTY", "h"), Err(LookupError::NoData));
        assert_eq!(find("h TIMEOUT", "h"), Err(LookupError::TimedOut));
        assert_eq!(find("h A 0.0.0.0", "h"), Err(LookupError::NoData));
        assert_eq!(find("", "LOCALHOST.").unwrap(), ["127.0.0.1", "::1"]);
    }
}
