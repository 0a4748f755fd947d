//! Kinds of values that say who and where on a network: addresses, networks, certificates.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::kind::{Kind, Lines, Text, text, wanted};
use super::nearest::quoted;
use super::{ListenAddress, Network, SourceAddresses};

/// A list of networks and addresses.
pub(super) struct Networks;
/// A list of SHA-256 fingerprints in hexadecimal, colons allowed; they become lower case without.
pub(super) struct Fingerprints;
/// An address and a port.
pub(super) struct Address;
/// Addresses of this host to connect from: one, or one of each family.
pub(super) struct Sources;
/// Where to listen: an address and a port, or `unix:/path`.
pub(super) struct Place;

impl Kind for Networks {
    type Value = Vec<Network>;

    fn word(&self) -> String {
        "list of networks".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Network>, String> {
        let list = value.as_array().ok_or_else(|| wanted("a list of networks", value))?;
        list.iter().map(|entry| network(text(entry.get_ref(), "a network in quotes")?)).collect()
    }
}

/// Reads `192.0.2.0/24` or `::1`.
fn network(text: &str) -> Result<Network, String> {
    let bad = || format!("{} is no network such as \"192.0.2.0/24\" or \"::1\"", quoted(text));
    let network = Network::parse(text).ok_or_else(bad)?;
    let Network { address, bits } = network;
    let start = network.first();
    if start != address {
        return Err(format!("{} has bits beyond its mask; did you mean \"{start}/{bits}\"?", quoted(text)));
    }
    Ok(network)
}

impl Kind for Fingerprints {
    type Value = Vec<String>;

    fn word(&self) -> String {
        "list of fingerprints".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let list = value.as_array().ok_or_else(|| wanted("a list of fingerprints", value))?;
        list.iter().map(|entry| fingerprint(text(entry.get_ref(), "a fingerprint in quotes")?)).collect()
    }
}

fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    let is_sha256 = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_sha256
        .then_some(digits)
        .ok_or_else(|| format!("{} is no SHA-256 fingerprint: 64 hexadecimal digits", quoted(text)))
}

impl Kind for Address {
    type Value = SocketAddr;

    fn word(&self) -> String {
        "address:port".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SocketAddr, String> {
        let text = text(value, "an address and a port in quotes")?;
        text.parse().map_err(|_| {
            format!("{} is no address with a port such as \"192.0.2.1:25\" or \"[::1]:25\"", quoted(text))
        })
    }
}

impl Kind for Sources {
    type Value = SourceAddresses;

    fn word(&self) -> String {
        "list of addresses".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SourceAddresses, String> {
        let texts = if value.is_array() { Lines.read(value)? } else { vec![Text.read(value)?] };
        let mut sources = SourceAddresses::default();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let again = match text.parse() {
                Ok(IpAddr::V4(ip)) => sources.four.replace(ip).is_some(),
                Ok(IpAddr::V6(ip)) => sources.six.replace(ip).is_some(),
                Err(_) => return Err(format!("{} is no address such as \"192.0.2.1\"", quoted(text))),
            };
            if again {
                return Err(format!("{} is one too many: one IPv4 and one IPv6 address fit", quoted(text)));
            }
        }
        Ok(sources)
    }
}

impl Kind for Place {
    type Value = ListenAddress;

    fn word(&self) -> String {
        "address:port or unix:/path".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<ListenAddress, String> {
        match value.as_str().and_then(|text| text.strip_prefix("unix:")) {
            Some(path) if path.starts_with('/') => Ok(ListenAddress::Unix(path.into())),
            Some(path) => Err(format!("{} must be a path that begins with \"/\"", quoted(path))),
            None => Address.read(value).map(ListenAddress::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: Kind>(kind: K, source: &str) -> Result<K::Value, String> {
        kind.read(DeValue::parse(source).unwrap().get_ref())
    }

    #[test]
    fn a_source_is_one_address_or_one_of_each_family() {
        let read = |text| read(Sources, text).map(|found| (found.four.is_some(), found.six.is_some()));
        assert_eq!(read("''"), Ok((false, false)));
        assert_eq!(read("'192.0.2.1'"), Ok((true, false)));
        assert_eq!(read("['2001:db8::1', '192.0.2.1']"), Ok((true, true)));
        for bad in ["'host'", "['192.0.2.1', '192.0.2.2']", "'192.0.2.1:25'", "25"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_whole() {
        let nets = read(Networks, "['127.0.0.0/8', '::1', '0.0.0.0/0']").unwrap();
        assert!(nets[0].contains("127.9.9.9".parse().unwrap()));
        assert!(nets[0].contains("::ffff:127.0.0.1".parse().unwrap()), "IPv4 as IPv6 sees it");
        assert!(!nets[0].contains("128.0.0.1".parse().unwrap()));
        assert!(nets[1].contains("::1".parse().unwrap()) && !nets[1].contains("::2".parse().unwrap()));
        assert!(
            nets[2].contains("8.8.8.8".parse().unwrap()) && !nets[2].contains("2001:db8::1".parse().unwrap())
        );
        assert!(read(Networks, "['10.0.0.1/8']").unwrap_err().contains("did you mean \"10.0.0.0/8\"?"));
        for bad in ["['10.0.0.0/33']", "['ten']", "[1]", "'10.0.0.0/8'", "['10.0.0.0/']"] {
            assert!(read(Networks, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let digits = "0f".repeat(32);
        let with_colons = vec!["0F"; 32].join(":");
        let read_one = |text: &str| read(Fingerprints, &format!("['{text}']"));
        assert_eq!(read_one(&digits), Ok(vec![digits.clone()]));
        assert_eq!(read_one(&with_colons), Ok(vec![digits.clone()]));
        assert!(read_one(&digits[1..]).is_err() && read_one(&"0g".repeat(32)).is_err());
    }

    #[test]
    fn places_are_absolute() {
        assert_eq!(read(Place, "'unix:/run/x'"), Ok(ListenAddress::Unix("/run/x".into())));
        assert!(read(Place, "'unix:x'").is_err());
        assert!(read(Place, "'localhost:25'").is_err());
    }
}
