//! Lists of networks: which clients are ours.

use std::net::IpAddr;

use crate::config::Network;

/// A list of networks.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    networks: Vec<Network>,
}

impl Networks {
    /// A list. An IPv4 network that was written as mapped into IPv6 is the same IPv4 network.
    pub fn new(networks: &[Network]) -> Networks {
        Networks { networks: networks.iter().map(canonical).collect() }
    }

    /// Whether a client is in one of them. A client without an address (a Unix socket, a pipe) is
    /// in none: nobody knows who stands behind it.
    pub fn contain(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|address| {
            let address = address.to_canonical();
            self.networks.iter().any(|network| is_in(address, network))
        })
    }
}

fn canonical(network: &Network) -> Network {
    match (network.address.to_canonical(), network.bits.checked_sub(96)) {
        (address @ IpAddr::V4(_), Some(bits)) if network.address.is_ipv6() => Network { address, bits },
        _ => *network,
    }
}

/// Whether the first bits of both are the same.
fn is_in(address: IpAddr, network: &Network) -> bool {
    match (address, network.address) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let apart = u32::from(a) ^ u32::from(n);
            apart.leading_zeros() >= u32::from(network.bits.min(32))
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let apart = u128::from(a) ^ u128::from(n);
            apart.leading_zeros() >= u32::from(network.bits.min(128))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[(&str, u8)]) -> Networks {
        let network = |&(address, bits): &(&str, u8)| Network { address: address.parse().unwrap(), bits };
        Networks::new(&list.iter().map(network).collect::<Vec<_>>())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_first_bits_count() {
        let ours = networks(&[("192.0.2.128", 25), ("2001:db8::", 33), ("10.0.0.1", 32)]);
        for inside in ["192.0.2.128", "192.0.2.255", "::ffff:192.0.2.200", "2001:db8:7fff::1", "10.0.0.1"] {
            assert!(ours.contain(ip(inside)), "{inside}");
        }
        for outside in ["192.0.2.127", "2001:db8:8000::1", "10.0.0.2", "::ffff:10.0.0.2", "::1"] {
            assert!(!ours.contain(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn mapped_networks_are_ipv4() {
        let ours = networks(&[("::ffff:10.0.0.0", 104)]);
        assert!(ours.contain(ip("10.255.0.1")) && !ours.contain(ip("11.0.0.1")));
        // All of IPv6 is not all of IPv4.
        assert!(!networks(&[("::", 0)]).contain(ip("192.0.2.1")));
        assert!(networks(&[("0.0.0.0", 0)]).contain(ip("192.0.2.1")));
    }

    #[test]
    fn nobody_s_address_is_in_no_network() {
        assert!(!networks(&[("0.0.0.0", 0), ("::", 0)]).contain(None));
    }
}
