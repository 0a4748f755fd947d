//! Which rule applies to a domain.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::mail::address::parse_literal;
use crate::mail::status::Status;

use crate::courier::request::{Leaf, Target};
use crate::courier::terms::Terms;

use crate::config::{DomainFate, DomainRule, Users, domain_rule};

use super::resolve::relay;
use super::table::text::Form;
use super::table::{Lookup, Row, TableError, open_all};
use super::{NoRoute, Settings};

/// All rules, and this host's own names.
#[derive(Debug)]
pub(super) struct Domains {
    hostname: String,
    named: HashMap<String, DomainRule>,
    tables: Vec<Box<dyn Lookup>>,
    named_files: NamedFiles,
    others: DomainRule,
}

/// Files that the rows of tables may name. They have secrets in them, and programs with more rights than
/// whoever writes a table read them: so posta.toml has to name them too.
#[derive(Debug)]
struct NamedFiles {
    users_files: Vec<PathBuf>,
    logins: Option<PathBuf>,
}

/// What the row of a table says of sending on, beside whereto.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relaying {
    /// For posta-remote.
    pub terms: Terms,
    /// For posta-queue: messages a minute; 0: as many as there are.
    pub messages_per_minute: u32,
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
    pub(super) fn new(settings: &Settings) -> Domains {
        let hostname = settings.hostname.trim_end_matches('.').to_lowercase();
        let rules = settings.domains.iter().cloned();
        let mut named: HashMap<String, DomainRule> = rules.map(|rule| (rule.domain.clone(), rule)).collect();
        let others = named.remove("*").unwrap_or_else(|| DomainRule::new("*", DomainFate::RelayMx));
        for own in [hostname.as_str(), "localhost"] {
            named.entry(own.to_string()).or_insert_with(|| {
                let fate = DomainFate::Users { users: Users::System, mailbox: None, owner: None };
                DomainRule { clients_only: true, ..DomainRule::new(own, fate) }
            });
        }
        let users_file = |rule: &DomainRule| users_file(rule).map(Path::to_path_buf);
        let users_files = settings.domains.iter().filter_map(users_file).chain(settings.users_files.clone());
        let named_files = NamedFiles { users_files: users_files.collect(), logins: settings.logins.clone() };
        let tables = open_all(&settings.domain_tables, Form::Domains);
        let others = DomainRule { clients_only: true, ..others };
        Domains { hostname, named, tables, named_files, others }
    }

    /// This host's own name.
    pub(super) fn hostname(&self) -> &str {
        &self.hostname
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
                if let Some(found) = self.in_table(&**table, key, domain)? {
                    return Ok(found);
                }
            }
        }
        Ok(written(&self.others))
    }

    fn in_table(
        &self,
        table: &dyn Lookup,
        key: &str,
        domain: &str,
    ) -> Result<Option<Found<'static>>, NoRoute> {
        let failed = |why: String| {
            log::warn!("look-up of domain {domain} failed: {why}");
            NoRoute::unknown_now("Domain look-up failed, try again later".to_string())
        };
        let Some(row) = table.find(key).map_err(|why| failed(why.to_string()))? else { return Ok(None) };
        let rule = self.named_files.rule(key, &row.value).map_err(|why| failed(format!("{row}: {why}")))?;
        Ok(Some(Found { rule: Cow::Owned(rule), row: Some(row) }))
    }

    /// What the row that sends a leaf on says of the way there. `None`: no row sends it there, or it
    /// says no more than whereto.
    pub(super) fn relaying(&self, leaf: &Leaf) -> Result<Option<Relaying>, NoRoute> {
        if self.tables.is_empty() || matches!(leaf.target, Target::Local(_)) {
            return Ok(None);
        }
        let Found { rule, row } = self.find(leaf.address.domain())?;
        // Mail that was queued before its domain moved has nothing to do with the new place's login.
        if row.is_none() || relay(&rule, &leaf.address).as_ref() != Some(&leaf.target) {
            return Ok(None);
        }
        let terms = Terms { tls: rule.tls, login: rule.login.clone(), source: rule.source };
        let messages_per_minute = rule.messages_per_minute;
        let says_more = terms != Terms::default() || messages_per_minute > 0;
        Ok(says_more.then_some(Relaying { terms, messages_per_minute }))
    }

    /// The file with a domain's users, if it has one.
    pub(super) fn users_file(&self, domain: &str) -> Result<Option<PathBuf>, NoRoute> {
        Ok(users_file(&self.find(domain)?.rule).map(Path::to_path_buf))
    }

    /// What is wrong with the tables, as far as they can be read through.
    pub(super) fn faults(&self) -> Vec<TableError> {
        let mut faults: Vec<TableError> = self.tables.iter().flat_map(|table| table.faults()).collect();
        for table in &self.tables {
            let mut check = |key: &str, row: &Row| {
                if let Err(why) = self.named_files.rule(key, &row.value) {
                    faults.push(TableError::of_row(row, key, why));
                }
            };
            if let Err(why) = table.each(&mut check) {
                faults.push(why);
            }
        }
        faults
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

impl NamedFiles {
    /// The rule that a row has, if it may.
    fn rule(&self, domain: &str, words: &str) -> Result<DomainRule, String> {
        let rule = domain_rule(domain, words)?;
        self.allow(&rule).map(|()| rule)
    }

    fn allow(&self, rule: &DomainRule) -> Result<(), String> {
        if let Some(file) = users_file(rule)
            && !self.users_files.iter().any(|named| named == file)
        {
            let file = file.display();
            return Err(format!("users: {file} is not named in routing.users_files of posta.toml"));
        }
        match &rule.login {
            Some(file) if self.logins.is_none() || file.parent() != self.logins.as_deref() => {
                let file = file.display();
                Err(format!(
                    "login: {file} does not lie in the folder that routing.logins of posta.toml names"
                ))
            }
            _ => Ok(()),
        }
    }
}

fn users_file(rule: &DomainRule) -> Option<&Path> {
    match &rule.fate {
        DomainFate::Users { users: Users::File(file), .. } => Some(file),
        _ => None,
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
    use crate::mail::address::Mailbox;

    use crate::courier::request::Hop;
    use crate::courier::terms::RelayTls;

    use crate::config::Source;

    use super::*;

    fn system() -> DomainFate {
        DomainFate::Users { users: Users::System, mailbox: None, owner: None }
    }

    fn domains_of(hostname: &str, rules: Vec<DomainRule>, tables: &[Source]) -> Domains {
        let settings = Settings {
            hostname: hostname.into(),
            domains: rules,
            domain_tables: tables.to_vec(),
            users_files: vec!["/etc/posta/customers".into()],
            logins: Some("/etc/posta/logins".into()),
            ..Settings::default()
        };
        Domains::new(&settings)
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
        let domains = domains_of("Mail.Example.org.", rules, &[]);
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
        let domains = domains_of("mail.example.org", rules, &[Source::Text(path)]);
        assert_eq!(domains.find("one.example").unwrap().rule.fate, system());
        let two = domains.find("a.two.example").unwrap();
        assert!(matches!(two.rule.fate, DomainFate::Lmtp(_)) && two.row.unwrap().line == Some(2));
        assert_eq!(domain_of(&domains, "three.example"), "*");
        assert!(domains.find("bad.example").unwrap_err().is_temporary());
        assert_eq!(domains.find("sure.example").unwrap().rule.tls, Some(RelayTls::Verify));
        let lost = domains_of("mail.example.org", Vec::new(), &[Source::Text("/no/such".into())]);
        assert!(lost.find("three.example").unwrap_err().is_temporary());
        assert_eq!(lost.find("localhost").unwrap().rule.fate, system());
    }

    #[test]
    fn a_row_says_how_its_mail_is_sent_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("domains");
        let text = "\
            a.example relay = \"relay.example:587\", tls = \"verify\", login = \"/etc/posta/logins/a\", \
                      source = \"192.0.2.7\", messages_per_minute = 6\n\
            b.example relay = \"relay.example:587\"\n\
            c.example relay = \"relay.example:587\", login = \"/etc/posta/logins/../posta.toml\"\n\
            d.example users = \"/etc/posta/customers\"\n\
            e.example users = \"/etc/posta/others\"\n";
        std::fs::write(&path, text).unwrap();
        let in_file = DomainRule::new("file.example", DomainFate::RelayMx);
        let domains = domains_of("mail.example.org", vec![in_file], &[Source::Text(path)]);
        let leaf = |address: &str, hop: &str| Leaf {
            address: Mailbox::parse(address, false).unwrap(),
            target: Target::Smtp(Hop::parse(hop, 25).unwrap()),
            place: None,
            sender: None,
            of_list: false,
        };
        let said = domains.relaying(&leaf("x@a.example", "relay.example:587")).unwrap().unwrap();
        assert_eq!((said.terms.tls, said.messages_per_minute), (Some(RelayTls::Verify), 6));
        assert_eq!(said.terms.login, Some("/etc/posta/logins/a".into()));
        assert_eq!(said.terms.source.four, "192.0.2.7".parse().ok());
        for nothing in ["x@b.example", "x@file.example", "x@other.example", "x@d.example"] {
            assert_eq!(domains.relaying(&leaf(nothing, "relay.example:587")), Ok(None), "{nothing}");
        }
        // The row is another relay's by now.
        assert_eq!(domains.relaying(&leaf("x@a.example", "old.example:587")), Ok(None));
        // Whoever writes the table doesn't choose which of root's files are read.
        assert!(domains.relaying(&leaf("x@c.example", "relay.example:587")).unwrap_err().is_temporary());
        assert!(domains.find("d.example").is_ok());
        assert!(domains.find("e.example").unwrap_err().is_temporary());
        let faults: Vec<String> = domains.faults().iter().map(ToString::to_string).collect();
        assert!(faults[0].contains(":3: login:") && faults[1].contains(":5: users:"), "{faults:?}");
    }

    #[test]
    fn this_host_is_known_by_name_and_address() {
        let domains = domains_of("mail.example.org", Vec::new(), &[]);
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
        let domains = domains_of("mail.example.org", rules, &[]);
        assert_eq!(domains.find("mail.example.org").unwrap().rule.fate, DomainFate::RelayMx);
        assert_eq!(domains.find("[127.0.0.1]").unwrap_err().status, Status::new(5, 1, 2));
    }
}
