//! What the way to a target must be like: under TLS or not, and how sure of the host we must be.

use std::collections::HashMap;
use std::path::PathBuf;

use posta::courier::request::{Hop, Target};
use posta::courier::terms::Terms;

use posta::config::{DomainFate, DomainRule, RelayTls, SourceAddresses};
use posta::net::tls_client::Demand;
use posta::route::with_parents;

/// The port where a session begins with TLS (RFC 8314 3.3).
const SUBMISSIONS: u16 = 465;

/// The way to a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// What is asked of the host; `None`: no TLS.
    pub tls: Option<Demand>,
    /// The session begins with TLS.
    pub implicit: bool,
    /// The file with the name and the password that the host wants.
    pub login: Option<PathBuf>,
    /// Which of the logins in that file it is, by the sender that it belongs to; empty: everybody's.
    pub login_of: String,
    /// Which of our addresses the connection comes from.
    pub source: SourceAddresses,
}

/// The ways that the administrator has named.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// To the mail exchangers of a domain, or of all below it: `.example.org`.
    domains: HashMap<String, Way>,
    /// To a host that the administrator named. The configuration has no two for one host.
    hops: HashMap<Hop, Way>,
    /// To all others.
    others: Way,
}

impl Ways {
    /// From the entries of `[domains]`, and `remote.tls` and `remote.source`.
    pub fn new(rules: &[DomainRule], default: RelayTls, source: SourceAddresses) -> Ways {
        let way = |tls, source| Way { tls: demand(tls), source, ..Way::default() };
        let mut ways = Ways { others: way(default, source), ..Ways::default() };
        for rule in rules {
            let mut way = way(rule.tls.unwrap_or(default), rule.source.or(source));
            match &rule.fate {
                DomainFate::RelayMx if rule.domain == "*" => ways.others = way,
                DomainFate::RelayMx => drop(ways.domains.insert(rule.domain.clone(), way)),
                DomainFate::RelayTo(hop) | DomainFate::Lmtp(hop) => {
                    way.login = rule.login.clone();
                    way.implicit = is_submissions(hop) && way.tls.is_some();
                    ways.hops.insert(hop.clone(), way);
                }
                _ => {}
            }
        }
        ways
    }

    /// The way to a target on these terms, for a message that may only go under TLS or for any other.
    pub fn to(&self, target: &Target, terms: &Terms, require_tls: bool) -> Way {
        let named = match target {
            // A rule for `.example.org` is for all below it, as it is where mail is routed.
            Target::Mx(domain) => with_parents(domain).find_map(|domain| self.domains.get(domain)),
            Target::Smtp(hop) | Target::Lmtp(hop) => self.hops.get(hop),
            Target::Local(_) => None,
        };
        let mut way = named.unwrap_or(&self.others).clone().on(terms, target);
        if matches!(target, Target::Lmtp(Hop::Unix(_))) {
            way.tls = None;
        } else if require_tls {
            // RFC 8689 4.2.1: the host has to show a good certificate for its name.
            way.tls = Some(Demand::Certificate);
        }
        way
    }
}

impl Way {
    /// The same, but for what a row of a table says.
    fn on(mut self, terms: &Terms, target: &Target) -> Way {
        if let Some(tls) = terms.tls {
            self.tls = demand(tls);
            self.implicit = matches!(target, Target::Smtp(hop) | Target::Lmtp(hop) if is_submissions(hop))
                && self.tls.is_some();
        }
        if terms.login.is_some() {
            self.login = terms.login.clone();
        }
        self.source = terms.source.or(self.source);
        self
    }

    /// The same, in the clear: where TLS was nice to have and the host can't.
    pub fn without_tls(&self) -> Way {
        Way { tls: None, implicit: false, ..self.clone() }
    }

    /// What the administrator wants of TLS here, in the word that says so.
    pub fn policy(&self) -> &'static str {
        match self.tls {
            None => "none",
            Some(Demand::Anything) => "may",
            Some(Demand::Encryption) => "encrypt",
            Some(Demand::Certificate) => "verify",
        }
    }

    /// Tells apart connections that can't take each other's place.
    pub fn key(&self) -> String {
        let tls = self.tls.map_or("plain".to_string(), |demand| format!("{demand:?}"));
        let login = self.login.as_ref().map_or(String::new(), |file| file.display().to_string());
        let SourceAddresses { four, six } = self.source;
        format!("{tls} {login} <{}> {four:?} {six:?}", self.login_of)
    }
}

fn is_submissions(hop: &Hop) -> bool {
    matches!(hop, Hop::Host(_, SUBMISSIONS) | Hop::Address(_, SUBMISSIONS))
}

fn demand(tls: RelayTls) -> Option<Demand> {
    match tls {
        RelayTls::None => None,
        RelayTls::May => Some(Demand::Anything),
        RelayTls::Encrypt => Some(Demand::Encryption),
        RelayTls::Verify => Some(Demand::Certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(domain: &str, fate: DomainFate, tls: Option<RelayTls>) -> DomainRule {
        DomainRule { tls, ..DomainRule::new(domain, fate) }
    }

    fn hop(text: &str) -> Hop {
        Hop::parse(text, 25).unwrap()
    }

    #[test]
    fn a_domain_has_its_own_way_and_the_others_have_the_default() {
        let relay = |text: &str| DomainFate::RelayTo(hop(text));
        let rules = [
            rule("a.example", DomainFate::RelayMx, Some(RelayTls::Verify)),
            rule(".below.example", DomainFate::RelayMx, Some(RelayTls::Verify)),
            rule("plain.below.example", DomainFate::RelayMx, Some(RelayTls::None)),
            rule("b.example", relay("relay.example"), Some(RelayTls::None)),
            rule("c.example", relay("relay.example:465"), None),
            rule("d.example", DomainFate::Lmtp(hop("unix:/run/lmtp")), None),
        ];
        let sources = |four: &str| SourceAddresses { four: four.parse().ok(), six: None };
        let ways = Ways::new(&rules, RelayTls::Encrypt, sources("192.0.2.9"));
        let mx = |domain: &str| Target::Mx(domain.into());
        let tls = |target: &Target, require| ways.to(target, &Terms::default(), require).tls;
        assert_eq!(tls(&mx("a.example"), false), Some(Demand::Certificate));
        assert_eq!(tls(&mx("deep.in.below.example"), false), Some(Demand::Certificate));
        assert_eq!(tls(&mx("plain.below.example"), false), None);
        assert_eq!(tls(&mx("below.example"), false), Some(Demand::Encryption));
        assert_eq!(tls(&mx("other.example"), false), Some(Demand::Encryption));
        assert_eq!(tls(&mx("other.example"), true), Some(Demand::Certificate));
        assert_eq!(tls(&Target::Smtp(hop("relay.example")), false), None);
        assert_eq!(tls(&Target::Lmtp(hop("unix:/run/lmtp")), true), None);
        let implicit = ways.to(&Target::Smtp(hop("relay.example:465")), &Terms::default(), false);
        assert_eq!(
            implicit,
            Way {
                tls: Some(Demand::Encryption),
                implicit: true,
                source: sources("192.0.2.9"),
                ..Way::default()
            }
        );
        assert_ne!(implicit.without_tls().key(), implicit.key());
        let elsewhere = Way { source: sources("192.0.2.7"), ..implicit.clone() };
        assert_ne!(elsewhere.key(), implicit.key(), "connections from another address are others");
        let of_another = Way { login_of: "a@own.example".into(), ..implicit.clone() };
        assert_ne!(of_another.key(), implicit.key(), "who has logged in as one is not taken for another");
        let others =
            Ways::new(&[rule("*", DomainFate::RelayMx, Some(RelayTls::None))], RelayTls::May, sources(""));
        assert_eq!(others.to(&mx("a.example"), &Terms::default(), false).tls, None);
    }

    #[test]
    fn what_a_row_of_a_table_says_goes_before_the_entry_of_its_relay() {
        let login = |name: &str| Some(PathBuf::from(name));
        let relay = DomainRule {
            login: login("/entry"),
            ..rule("a.example", DomainFate::RelayTo(hop("relay.example:465")), Some(RelayTls::None))
        };
        let source = SourceAddresses { four: "192.0.2.9".parse().ok(), six: None };
        let ways = Ways::new(&[relay], RelayTls::May, source);
        let to = Target::Smtp(hop("relay.example:465"));
        let entry = ways.to(&to, &Terms::default(), false);
        assert_eq!((entry.login, entry.tls, entry.implicit), (login("/entry"), None, false));
        let terms = Terms { tls: Some(RelayTls::Verify), login: login("/row"), ..Terms::default() };
        let row = ways.to(&to, &terms, false);
        assert_eq!((&row.login, row.tls, row.implicit), (&login("/row"), Some(Demand::Certificate), true));
        assert_eq!(row.source, source);
        assert_ne!(
            row.key(),
            ways.to(&to, &Terms::default(), false).key(),
            "another login, another connection"
        );
    }
}
