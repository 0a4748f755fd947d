//! What is wrong with the name that a client gives itself. Pure.
//!
//! RFC 5321 4.1.4 forbids to refuse mail because that name does not fit the client's address. Who
//! gives a name that is ours, though, is not who he says; and where the administrator wants it, who
//! gives something that can't be a name is refused too.

use crate::mail::address::{parse_domain, parse_literal};
use crate::smtp::rule::{self, Rule};

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
    /// What is wrong with `name`: the rule, and a few words.
    pub fn fault(&self, name: &str) -> Option<(&'static Rule, &'static str)> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        if self.refuse_own_name && bare.eq_ignore_ascii_case(&self.hostname) {
            return Some((&rule::HELO_OURS, "that is our own name"));
        }
        if self.refuse_bad_names && !is_name(bare) {
            return Some((&rule::HELO_SYNTAX, "that is no full host name"));
        }
        None
    }
}

/// RFC 5321 4.1.1.1: a fully qualified domain name, or an address literal.
fn is_name(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => parse_literal(inner).is_ok(),
        None => name.contains('.') && parse_domain(name).is_ok() && name.parse::<std::net::IpAddr>().is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(checks: &Checks, name: &str) -> Option<&'static str> {
        checks.fault(name).map(|(rule, _)| rule.id)
    }

    #[test]
    fn only_what_is_asked_for_is_refused() {
        let mild = Checks { hostname: "mx.example.org".to_string(), ..Checks::default() };
        for name in ["mx.example.org", "localhost", "192.0.2.1", "-"] {
            assert_eq!(id(&mild, name), None);
        }
        let strict = Checks { refuse_own_name: true, refuse_bad_names: true, ..mild };
        for name in ["MX.example.org", "mx.example.org."] {
            assert_eq!(id(&strict, name), Some(rule::HELO_OURS.id));
        }
        for name in ["localhost", "192.0.2.1", "a..b", "[192.0.2.300]", "_"] {
            assert_eq!(id(&strict, name), Some(rule::HELO_SYNTAX.id), "{name}");
        }
        for name in ["client.example", "client.example.", "[192.0.2.1]", "[IPv6:2001:db8::1]"] {
            assert_eq!(id(&strict, name), None, "{name}");
        }
    }
}
