//! Which rule applies to a domain.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};

use crate::mail::address::parse_literal;
use crate::mail::status::Status;

use crate::config::{DomainFate, DomainRule, Source, Users, domain_rule};

use super::NoRoute;
use super::table::text::Form;
use super::table::{Lookup, Row, open_all};

/// All rules, and this host's own names.
#[derive(Debug)]
pub(super) struct Domains {
    hostname: String,
    named: HashMap<String, DomainRule>,
    tables: Vec<Box<dyn Lookup>>,
    others: DomainRule,
}

/// The rule for a domain, and where it is written unless that is posta.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<'d> {
    /// The rule.
    pub(super) rule: Cow<'d, DomainRule>,
    /// The row of a table that has it.
    pub(super) row: Option<Row>,
}

impl Domains {
    /// The rules of the configuration. This host's own name and `localhost` are always known: if
    /// they have no rule, their users are the accounts of this host, for those who may relay. So a
    /// job's mail to `root` never leaves the host in search of itself.
    pub(super) fn new(hostname: &str, rules: Vec<DomainRule>, tables: &[Source]) -> Domains {
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
        let tables = open_all(tables, Form::Domains);
        Domains { hostname, named, tables, others: DomainRule { clients_only: true, ..others } }
    }

    /// This host's own name.
    pub(super) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The tables with more rules.
    pub(super) fn tables(&self) -> impl Iterator<Item = &dyn Lookup> {
        self.tables.iter().map(|table| &**table)
    }

    /// The rule for a domain as [`Mailbox::domain`](crate::mail::address::Mailbox::domain) gives it:
    /// its own, or that of the nearest domain above it (`.example.org`), or else the one for all.
    pub(super) fn find(&self, domain: &str) -> Result<Found<'_>, NoRoute> {
        let written = |rule| Found { rule: Cow::Borrowed(rule), row: None };
        if let Some(address) = literal(domain) {
            return match self.named.get(domain) {
                Some(rule) => Ok(written(rule)),
                None if is_own(address) => self.own_address(domain).map(written),
                None => Ok(written(&self.others)),
            };
        }
        for (n, key) in with_parents(domain).enumerate() {
            if let Some(rule) = self.named.get(key) {
                return Ok(written(rule));
            }
            for table in self.tables.iter().filter(|table| n == 0 || !table.wants_whole_keys()) {
                if let Some(found) = in_table(&**table, key, domain)? {
                    return Ok(found);
                }
            }
        }
        Ok(written(&self.others))
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

/// A domain, then those above it, each with a dot before it: `a.b.c`, `.b.c`, `.c`.
pub fn with_parents(domain: &str) -> impl Iterator<Item = &str> {
    let above = domain.match_indices('.').map(|(at, _)| &domain[at..]);
    std::iter::once(domain).chain(above)
}

fn in_table(table: &dyn Lookup, key: &str, domain: &str) -> Result<Option<Found<'static>>, NoRoute> {
    let failed = |why: String| {
        log::warn!("look-up of domain {domain} failed: {why}");
        NoRoute::unknown_now("Domain look-up failed, try again later".to_string())
    };
    let Some(row) = table.find(key).map_err(|why| failed(why.to_string()))? else { return Ok(None) };
    let rule = domain_rule(key, &row.value).map_err(|why| failed(format!("{row}: {why}")))?;
    Ok(Some(Found { rule: Cow::Owned(rule), row: Some(row) }))
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

    fn domain_of(domains: &Domains, name: &str) -> String {
        domains.find(name).unwrap().rule.domain.clone()
    }

    #[test]
    fn a_domain_s_own_rule_goes_before_the_others() {
        let rules = vec![
            DomainRule::new("example.org", system()),
            DomainRule::new(".example.net", DomainFate::RelayMx),
            DomainRule::new(".deep.example.net", DomainFate::RelayMx),
        ];
        let domains = Domains::new("Mail.Example.org.", rules, &[]);
        assert_eq!(domains.hostname(), "mail.example.org");
        for (name, rule) in [
            ("example.org", "example.org"),
            ("sub.example.org", "*"),
            ("example.net", "*"),
            ("a.b.example.net", ".example.net"),
            ("a.deep.example.net", ".deep.example.net"),
            ("deep.example.net", ".example.net"),
        ] {
            assert_eq!(domain_of(&domains, name), rule, "{name}");
        }
        assert!(domains.find("other.example").unwrap().rule.clients_only);
    }

    #[test]
    fn tables_have_more_rules() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("domains");
        let text = "one.example relay = \"one:25\"\n.two.example { lmtp = \"unix:/l\" }\nbad.example x = 1\n\
                    sure.example relay = \"mx\", tls = \"verify\"\n";
        std::fs::write(&path, text).unwrap();
        let rules = vec![DomainRule::new("one.example", system())];
        let domains = Domains::new("mail.example.org", rules, &[Source::Text(path)]);
        assert_eq!(domains.find("one.example").unwrap().rule.fate, system());
        let two = domains.find("a.two.example").unwrap();
        assert!(matches!(two.rule.fate, DomainFate::Lmtp(_)) && two.row.unwrap().line == Some(2));
        assert_eq!(domain_of(&domains, "three.example"), "*");
        assert!(domains.find("bad.example").unwrap_err().is_temporary());
        assert!(domains.find("sure.example").unwrap_err().is_temporary(), "never sent in the clear");
        let lost = Domains::new("mail.example.org", Vec::new(), &[Source::Text("/no/such".into())]);
        assert!(lost.find("three.example").unwrap_err().is_temporary());
        assert_eq!(lost.find("localhost").unwrap().rule.fate, system());
    }

    #[test]
    fn this_host_is_known_by_name_and_address() {
        let domains = Domains::new("mail.example.org", Vec::new(), &[]);
        for own in ["mail.example.org", "localhost", "[127.0.0.1]", "[IPv6:::ffff:127.0.0.1]", "[0.0.0.0]"] {
            let rule = domains.find(own).unwrap().rule;
            assert!(rule.clients_only && rule.fate == system(), "{own}");
        }
        assert_eq!(domain_of(&domains, "[192.0.2.1]"), "*");
        assert_eq!(domain_of(&domains, "[IPv6:2001:db8::1]"), "*");
    }

    #[test]
    fn a_host_without_users_takes_nothing_for_its_address() {
        let rules = vec![DomainRule::new("mail.example.org", DomainFate::RelayMx)];
        let domains = Domains::new("mail.example.org", rules, &[]);
        assert_eq!(domains.find("mail.example.org").unwrap().rule.fate, DomainFate::RelayMx);
        assert_eq!(domains.find("[127.0.0.1]").unwrap_err().status, Status::new(5, 1, 2));
    }
}
