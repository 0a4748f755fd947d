//! Whom a row of a table means. Pure.

use std::fmt;
use std::net::IpAddr;

use crate::mail::address::parse_literal;

use crate::config::Network;

/// The kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of clients, by address and confirmed name.
    Clients,
    /// Of the names that clients give themselves in HELO and EHLO.
    Helo,
    /// Of senders (MAIL FROM).
    Senders,
    /// Of recipients (RCPT TO).
    Recipients,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Clients => "clients",
            Kind::Helo => "helo",
            Kind::Senders => "senders",
            Kind::Recipients => "recipients",
        })
    }
}

/// Whom a row means. All names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `*`: anybody.
    Any,
    /// `<>`: the null sender.
    Null,
    /// `unknown`: a client without a confirmed name.
    Unknown,
    /// `192.0.2.0/24`, `2001:db8::1`: the first address and the number of bits that count.
    Network(IpAddr, u8),
    /// `example.org`: this name, or addresses in this domain.
    Name(String),
    /// `.example.org`: names below this one, and not itself.
    Below(String),
    /// `user@`: this user in any domain.
    User(String),
    /// `user@example.org`: this address.
    Address(String, String),
}

/// Who is looked up.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A client.
    Client {
        /// Its address; none for a Unix socket.
        address: Option<IpAddr>,
        /// Its confirmed name.
        name: Option<&'a str>,
    },
    /// A name.
    Name(&'a str),
    /// The local part and the domain of an address; none is the null sender.
    Path(Option<(&'a str, &'a str)>),
}

impl Pattern {
    /// Reads a pattern of a table of that kind; an error says what is wrong.
    pub fn parse(kind: Kind, text: &str) -> Result<Pattern, String> {
        let text = text.to_ascii_lowercase();
        if text == "*" {
            return Ok(Pattern::Any);
        }
        match kind {
            Kind::Clients if text == "unknown" => Ok(Pattern::Unknown),
            Kind::Clients if text.contains([':', '/']) || text.parse::<IpAddr>().is_ok() => network(&text),
            Kind::Helo if !text.starts_with('.') => Ok(Pattern::Name(helo_name(&text))),
            Kind::Clients | Kind::Helo => name(&text),
            Kind::Senders if text == "<>" => Ok(Pattern::Null),
            Kind::Senders | Kind::Recipients => match text.rsplit_once('@') {
                None => name(&text),
                Some(("", _)) => Err(format!("\"{text}\" has no user; for a domain leave the @ out")),
                Some((user, "")) => Ok(Pattern::User(user.to_string())),
                Some((user, domain)) => match name(domain)? {
                    Pattern::Name(domain) => Ok(Pattern::Address(user.to_string(), domain)),
                    _ => Err(format!("\"{text}\": a user of all domains below one can't be meant")),
                },
            },
        }
    }

    /// Whether it is about a client's name.
    pub fn is_of_a_name(&self) -> bool {
        matches!(self, Pattern::Name(_) | Pattern::Below(_) | Pattern::Unknown)
    }
}

impl Subject<'_> {
    /// Every pattern that means this one, but for networks: of these `bits` tells which lengths there
    /// are for a family.
    pub fn patterns(&self, bits: impl Fn(IpAddr) -> Vec<u8>) -> Vec<Pattern> {
        let mut all = vec![Pattern::Any];
        match *self {
            Subject::Client { address, name } => {
                if let Some(address) = address.map(|address| address.to_canonical()) {
                    let lengths = bits(address).into_iter();
                    all.extend(lengths.map(|bits| Pattern::Network(Network { address, bits }.first(), bits)));
                }
                match name {
                    Some(name) => names(&name.to_ascii_lowercase(), &mut all),
                    None => all.push(Pattern::Unknown),
                }
            }
            Subject::Name(name) => names(&helo_name(&name.to_ascii_lowercase()), &mut all),
            Subject::Path(None) => all.push(Pattern::Null),
            Subject::Path(Some((local, domain))) => {
                let (local, domain) = (local.to_ascii_lowercase(), domain.to_ascii_lowercase());
                names(&domain, &mut all);
                all.push(Pattern::User(local.clone()));
                all.push(Pattern::Address(local, domain));
            }
        }
        all
    }
}

/// The name itself, and all that it lies below.
fn names(name: &str, all: &mut Vec<Pattern>) {
    let name = name.strip_suffix('.').unwrap_or(name);
    all.push(Pattern::Name(name.to_string()));
    let above = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    all.extend(above.map(|above| Pattern::Below(above.to_string())));
}

/// An address in brackets has many spellings, and is meant in any of them.
fn helo_name(name: &str) -> String {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner.and_then(|inner| parse_literal(inner).ok()) {
        Some(address) => format!("[{}]", address.to_canonical()),
        None => name.to_string(),
    }
}

/// `example.org` or `.example.org`. Internationalised names are written as `xn--…`, as the DNS has
/// them, or as addresses have them.
fn name(text: &str) -> Result<Pattern, String> {
    let (below, name) = match text.strip_prefix('.') {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |label: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || !c.is_ascii();
        !label.is_empty() && label.chars().all(known)
    };
    let is_literal = name.starts_with('[') && name.ends_with(']');
    if !is_literal && !name.split('.').all(good) {
        return Err(format!("\"{text}\" is no name"));
    }
    Ok(if below { Pattern::Below(name.to_string()) } else { Pattern::Name(name.to_string()) })
}

fn network(text: &str) -> Result<Pattern, String> {
    let bad = || format!("\"{text}\" is no network such as 192.0.2.0/24 or 2001:db8::1");
    let network = Network::parse(text).ok_or_else(bad)?;
    let Network { address, bits } = network;
    let first = network.first();
    if first != address {
        return Err(format!("\"{text}\" has bits beyond its mask; did you mean {}/{bits}?", first));
    }
    // An IPv4 network that was written as mapped into IPv6 is the same IPv4 network.
    Ok(match (address.to_canonical(), bits.checked_sub(96)) {
        (v4 @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => Pattern::Network(v4, bits),
        _ => Pattern::Network(address, bits),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a pattern of that kind means this one.
    fn means(kind: Kind, pattern: &str, subject: Subject<'_>) -> bool {
        let pattern = Pattern::parse(kind, pattern).unwrap();
        let bits = |address: IpAddr| match &pattern {
            Pattern::Network(network, bits) if network.is_ipv4() == address.is_ipv4() => vec![*bits],
            _ => vec![],
        };
        subject.patterns(bits).contains(&pattern)
    }

    fn client<'a>(address: &str, name: Option<&'a str>) -> Subject<'a> {
        Subject::Client { address: Some(address.parse().unwrap()), name }
    }

    #[test]
    fn clients_are_meant_by_network_and_by_name() {
        let mx = client("::ffff:192.0.2.1", Some("MX.Example.org"));
        for pattern in [
            "*",
            "192.0.2.0/24",
            "192.0.2.1",
            "::ffff:192.0.2.0/120",
            "mx.example.org",
            ".example.org",
            ".org",
        ] {
            assert!(means(Kind::Clients, pattern, mx), "{pattern}");
        }
        for pattern in ["unknown", "192.0.2.2", "0.0.0.0/32", "::/0", ".mx.example.org", "example.org", "org"]
        {
            assert!(!means(Kind::Clients, pattern, mx), "{pattern}");
        }
        assert!(means(Kind::Clients, "unknown", client("2001:db8::1", None)));
        assert!(means(Kind::Clients, "2001:db8::/32", client("2001:db8::1", None)));
        assert!(!means(Kind::Clients, "0.0.0.0/0", client("2001:db8::1", None)));
    }

    #[test]
    fn addresses_are_meant_by_user_and_domain() {
        let alice = Subject::Path(Some(("Alice", "mail.Example.org")));
        for pattern in ["alice@mail.example.org", "ALICE@", "mail.example.org", ".example.org", "*"] {
            assert!(means(Kind::Senders, pattern, alice), "{pattern}");
            assert!(means(Kind::Recipients, pattern, alice), "{pattern}");
        }
        for pattern in ["alice@example.org", "bob@", "example.org", ".mail.example.org", "<>"] {
            assert!(!means(Kind::Senders, pattern, alice), "{pattern}");
        }
        assert!(means(Kind::Senders, "<>", Subject::Path(None)));
    }

    #[test]
    fn names_are_meant_however_a_literal_is_written() {
        assert!(means(Kind::Helo, "[192.0.2.1]", Subject::Name("[192.0.2.1]")));
        assert!(means(Kind::Helo, "[IPv6:2001:DB8::1]", Subject::Name("[ipv6:2001:db8:0::1]")));
        assert!(means(Kind::Helo, "localhost", Subject::Name("LOCALHOST")));
        assert!(means(Kind::Helo, ".dyn.example", Subject::Name("a.dyn.example.")));
    }

    #[test]
    fn wrong_patterns_are_told() {
        for (kind, pattern) in [
            (Kind::Clients, "192.0.2.1/24"),
            (Kind::Clients, "192.0.2.0/33"),
            (Kind::Clients, "192.0.2/24"),
            (Kind::Clients, "a..b"),
            (Kind::Clients, "alice@example.org"),
            (Kind::Senders, "@example.org"),
            (Kind::Senders, "alice@.example.org"),
            (Kind::Recipients, "<>"),
            (Kind::Recipients, "."),
        ] {
            assert!(Pattern::parse(kind, pattern).is_err(), "{kind} {pattern}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,20}|[0-9a-f:./@<>*\\[\\]]{0,20}") {
            for kind in [Kind::Clients, Kind::Helo, Kind::Senders, Kind::Recipients] {
                let _ = Pattern::parse(kind, &text);
            }
        }

        #[test]
        fn a_network_means_exactly_who_shares_its_bits(network: u128, other: u128, bits in 0u8..=128) {
            let shared = Network { address: IpAddr::V6(network.into()), bits }.first();
            let candidates = Subject::Client { address: Some(IpAddr::V6(other.into())), name: None }
                .patterns(|_| vec![bits]);
            let same = (network ^ other).leading_zeros() >= u32::from(bits);
            // Addresses that are really IPv4 are no IPv6 clients.
            prop_assume!(IpAddr::V6(other.into()).to_canonical().is_ipv6());
            prop_assert_eq!(candidates.contains(&Pattern::Network(shared, bits)), same);
        }
    }
}
