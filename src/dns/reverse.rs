//! The name of a client: what its address is called, if that name leads back to the address.

use std::net::IpAddr;

use super::address::addresses;
use super::answer::{Data, Kind, LookupError, Names};

/// Most names of one address that are tried.
const MAX_NAMES: usize = 5;

/// The name under which an address has its PTR records (RFC 1035 3.5, RFC 3596 2.5).
pub fn arpa_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let mut name: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            name.push_str("ip6.arpa");
            name
        }
    }
}

/// The confirmed name of an address: the first of its names that has this very address. `None`: it
/// has none, or none that is confirmed. An error: it could not be found out now.
pub fn confirmed_name(names: &dyn Names, address: IpAddr) -> Result<Option<String>, LookupError> {
    let address = address.to_canonical();
    let claimed = match names.look_up(&arpa_name(address), Kind::Ptr) {
        Ok(answer) => answer.data,
        Err(error) if error.is_temporary() => return Err(error),
        Err(_) => return Ok(None),
    };
    let mut trouble = None;
    for claim in claimed.into_iter().take(MAX_NAMES) {
        let Data::Ptr(name) = claim else { continue };
        match addresses(names, &name) {
            Ok(found) if found.contains(&address) => return Ok(Some(name)),
            Err(error) if error.is_temporary() => trouble = Some(error),
            _ => {}
        }
    }
    trouble.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use super::super::zone::Zone;
    use super::*;

    #[test]
    fn a_name_counts_only_if_it_leads_back() {
        let zone = Zone::parse(
            "192.0.2.1 PTR liar.example\n192.0.2.1 PTR mx.example\nmx.example A 192.0.2.1\n\
             liar.example A 192.0.2.9\n192.0.2.2 PTR broken.example\nbroken.example SERVFAIL\n\
             2001:db8::1 PTR six.example\nsix.example AAAA 2001:db8::1",
        )
        .unwrap();
        let ask = |ip: &str| confirmed_name(&zone, ip.parse().unwrap());
        assert_eq!(ask("192.0.2.1"), Ok(Some("mx.example".into())));
        assert_eq!(ask("::ffff:192.0.2.1"), Ok(Some("mx.example".into())));
        assert_eq!(ask("2001:db8::1"), Ok(Some("six.example".into())));
        assert_eq!(ask("192.0.2.9"), Ok(None));
        assert!(ask("192.0.2.2").unwrap_err().is_temporary());
    }
}
