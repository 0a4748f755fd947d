//! What is wrong with the name that a client gives itself. Pure.
//!
//! RFC 5321 4.1.4 forbids to refuse mail because that name does not fit the client's address. Who
//! gives a name that is ours, though, is not who he says; and where the administrator wants it, who
//! gives something that can't be a name is refused too.

use std::net::IpAddr;

use crate::mail::address::{parse_domain, parse_literal};
use crate::smtp::rule::{self, Rule};

use super::chain::Client;

/// Which names are refused.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Our own name, which nobody else has.
    pub hostname: String,
    /// Refuse who gives it.
    pub refuse_own_name: bool,
    /// Refuse what is neither a domain name of two labels nor an address in brackets.
    pub refuse_bad_names: bool,
}

impl Checks {
    /// What is wrong with `name`, given by this client: the rule, and a few words.
    pub fn fault(&self, name: &str, client: &Client) -> Option<(&'static Rule, &'static str)> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        if self.refuse_own_name && !is_this_host(client) {
            if bare.eq_ignore_ascii_case(&self.hostname) {
                return Some((&rule::HELO_OURS, "that is our own name"));
            }
            if client.reached.is_some() && address_in(bare) == client.reached {
                return Some((&rule::HELO_OURS, "that is our own address"));
            }
        }
        if self.refuse_bad_names && !is_name(bare) {
            return Some((&rule::HELO_SYNTAX, "that is no full host name"));
        }
        None
    }
}

/// Programs of this host call it by its name, and by its address, as is their right.
fn is_this_host(client: &Client) -> bool {
    client.address.is_none_or(|address| address.is_loopback() || client.reached == Some(address))
}

/// The address in a name: in brackets, as the law has it, or bare, as some have it.
fn address_in(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match inner {
        Some(inner) => parse_literal(inner).ok(),
        None => name.parse().ok(),
    };
    address.map(|address| address.to_canonical())
}

/// RFC 5321 4.1.1.1: a fully qualified domain name, or an address literal.
fn is_name(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => parse_literal(inner).is_ok(),
        None => name.contains('.') && parse_domain(name).is_ok() && name.parse::<IpAddr>().is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        let address = address.parse().ok();
        Client { address, reached: "192.0.2.25".parse().ok(), ..Client::default() }
    }

    fn id(checks: &Checks, name: &str) -> Option<&'static str> {
        checks.fault(name, &client("198.51.100.1")).map(|(rule, _)| rule.id)
    }

    #[test]
    fn only_what_is_asked_for_is_refused() {
        let mild = Checks { hostname: "mx.example.org".to_string(), ..Checks::default() };
        for name in ["mx.example.org", "localhost", "192.0.2.1", "-"] {
            assert_eq!(id(&mild, name), None);
        }
        let strict = Checks { refuse_own_name: true, refuse_bad_names: true, ..mild };
        for name in ["MX.example.org", "mx.example.org.", "[192.0.2.25]", "192.0.2.25"] {
            assert_eq!(id(&strict, name), Some(rule::HELO_OURS.id));
        }
        for here in ["127.0.0.1", "192.0.2.25"] {
            assert_eq!(strict.fault("mx.example.org", &client(here)), None, "this host may call itself so");
        }
        for name in ["localhost", "192.0.2.1", "a..b", "[192.0.2.300]", "_"] {
            assert_eq!(id(&strict, name), Some(rule::HELO_SYNTAX.id), "{name}");
        }
        for name in ["client.example", "client.example.", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert_eq!(id(&strict, name), None, "{name}");
        }
    }
}
