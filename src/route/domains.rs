//! Which rule applies to a domain.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};

use crate::mail::address::parse_literal;
use crate::mail::status::Status;

use crate::config::{DomainFate, DomainRule, Users};

use super::NoRoute;

/// All rules, and this host's own names.
#[derive(Debug)]
pub(super) struct Domains {
    hostname: String,
    named: HashMap<String, DomainRule>,
    others: DomainRule,
}

impl Domains {
    /// The rules of the configuration. This host's own name and `localhost` are always known: if
    /// they have no rule, their users are the accounts of this host, for those who may relay. So a
    /// job's mail to `root` never leaves the host in search of itself.
    pub(super) fn new(hostname: &str, rules: Vec<DomainRule>) -> Domains {
        let hostname = hostname.trim_end_matches('.').to_lowercase();
        let mut named: HashMap<String, DomainRule> =
            rules.into_iter().map(|rule| (rule.domain.clone(), rule)).collect();
        let others = named.remove("*").unwrap_or_else(|| DomainRule::new("*", DomainFate::RelayMx));
        for own in [hostname.as_str(), "localhost"] {
            named.entry(own.to_string()).or_insert_with(|| {
                let fate = DomainFate::Users { users: Users::System, mailbox: None, owner: None };
                DomainRule { clients_only: true, ..DomainRule::new(own, fate) }
            });
        }
        Domains { hostname, named, others: DomainRule { clients_only: true, ..others } }
    }

    /// This host's own name.
    pub(super) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The rule for a domain as [`Mailbox::domain`](crate::mail::address::Mailbox::domain) gives it.
    pub(super) fn find(&self, domain: &str) -> Result<&DomainRule, NoRoute> {
        if let Some(rule) = self.named.get(domain) {
            return Ok(rule);
        }
        match literal(domain) {
            Some(address) if is_own(address) => self.own_address(domain),
            _ => Ok(&self.others),
        }
    }

    /// RFC 5321 4.1.3: an address literal of this host means this host.
    fn own_address(&self, domain: &str) -> Result<&DomainRule, NoRoute> {
        let rule = self.named.get(&self.hostname);
        rule.filter(|rule| matches!(rule.fate, DomainFate::Users { users: Users::System, .. })).ok_or_else(
            || {
                let text = format!("{domain} is this host, which has no users of its own");
                NoRoute { status: Status::new(5, 1, 2), text }
            },
        )
    }
}

/// The address in an address literal with its brackets.
pub(super) fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    parse_literal(inner).ok()
}

/// Whether an address is one of this host's: the kernel lets us bind to no other.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> DomainFate {
        DomainFate::Users { users: Users::System, mailbox: None, owner: None }
    }

    #[test]
    fn a_domain_s_own_rule_goes_before_the_others() {
        let rules = vec![DomainRule::new("example.org", system())];
        let domains = Domains::new("Mail.Example.org.", rules);
        assert_eq!(domains.hostname(), "mail.example.org");
        assert_eq!(domains.find("example.org").unwrap().domain, "example.org");
        assert_eq!(domains.find("sub.example.org").unwrap().domain, "*");
        assert!(domains.find("other.example").unwrap().clients_only);
    }

    #[test]
    fn this_host_is_known_by_name_and_address() {
        let domains = Domains::new("mail.example.org", Vec::new());
        for own in ["mail.example.org", "localhost", "[127.0.0.1]", "[IPv6:::ffff:127.0.0.1]", "[0.0.0.0]"] {
            let rule = domains.find(own).unwrap();
            assert!(rule.clients_only && rule.fate == system(), "{own}");
        }
        assert_eq!(domains.find("[192.0.2.1]").unwrap().domain, "*");
        assert_eq!(domains.find("[IPv6:2001:db8::1]").unwrap().domain, "*");
    }

    #[test]
    fn a_host_without_users_takes_nothing_for_its_address() {
        let rules = vec![DomainRule::new("mail.example.org", DomainFate::RelayMx)];
        let domains = Domains::new("mail.example.org", rules);
        assert_eq!(domains.find("mail.example.org").unwrap().fate, DomainFate::RelayMx);
        assert_eq!(domains.find("[127.0.0.1]").unwrap_err().status, Status::new(5, 1, 2));
    }
}
