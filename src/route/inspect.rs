//! What the administrator should mend in the tables, for `postactl check` and `newaliases`.

use crate::mail::address::Mailbox;

use crate::courier::request::Leaf;

use crate::config::{DomainFate, Source, Users};

use super::resolve::{Reach, Walk};
use super::table::text::{Form, Rows};
use super::table::watched::Content;
use super::table::{Lookup, Row, TableError, open};
use super::{Router, transport};

/// Most rows of one table that are followed to their ends.
const MOST_ROWS: usize = 100_000;
/// Most that is said of the rows of one table.
const MOST_SAID: usize = 1000;

/// What is wrong with a table of aliases, each fault as `FILE:LINE: what`; for `newaliases`. A missing
/// text file is an empty table.
pub fn alias_faults(source: &Source) -> Result<Vec<String>, TableError> {
    let faults = match source {
        // As it is on the disk, also where that is worse than what was read before.
        Source::Text(path) => match std::fs::read(path) {
            Ok(bytes) => Rows::parse(path, &String::from_utf8_lossy(&bytes), Form::Aliases).faults().to_vec(),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(why) => return Err(TableError::unreadable(path, &why)),
        },
        other => open(other, Form::Aliases).faults(),
    };
    Ok(faults.iter().map(ToString::to_string).collect())
}

impl Router {
    /// What is wrong with the tables, each as `FILE:LINE: what`: files that can't be read, rows and
    /// expressions that make no sense, queries that can't be prepared.
    pub fn faults(&self) -> Vec<String> {
        let tables = self.virtual_aliases.iter().map(|table| &**table);
        let tables = std::iter::once(&*self.aliases).chain(tables).chain(self.rewriting.tables());
        let faults = tables.flat_map(|table| table.faults()).chain(self.domains.faults());
        let mut faults: Vec<String> = faults.map(|fault| fault.to_string()).collect();
        // One table may stand in several settings.
        let mut said = std::collections::HashSet::new();
        faults.retain(|fault| said.insert(fault.clone()));
        faults
    }

    /// What the administrator should know of where the tables lead.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(domain) = self.system_domain() {
            let address = |key: &str| Mailbox::from_parts(key, &domain).ok();
            self.dead_ends(&*self.aliases, "alias", address, &mut warnings);
        }
        for table in &self.virtual_aliases {
            // `@domain` stands for many addresses, none of which is known.
            let address = |key: &str| self.complete(key).filter(|_| !key.starts_with('@'));
            self.dead_ends(&**table, "virtual alias", address, &mut warnings);
        }
        let root = self.settings.root_mailbox.as_str();
        let to_root = |leaf: &Leaf| leaf.place.as_ref().is_some_and(|place| transport::is_path(place, root));
        if let Some(Ok(leaves)) = self.qualify("root").map(|address| self.expand(&address))
            && leaves.iter().any(to_root)
        {
            let aliases = &self.settings.aliases;
            let text = format!("mail for root goes to {root} as user mail: say in {aliases} who reads it");
            warnings.push(text);
        }
        warnings
    }

    /// A domain whose users are this host's accounts: those have the aliases.
    fn system_domain(&self) -> Option<String> {
        let is_system = |fate: &DomainFate| matches!(fate, DomainFate::Users { users: Users::System, .. });
        let own = self.domains.hostname();
        if self.domains.find(own).is_ok_and(|found| is_system(&found.rule.fate)) {
            return Some(own.to_string());
        }
        let mut rules = self.settings.domains.iter();
        let rule = rules.find(|rule| is_system(&rule.fate) && !rule.domain.starts_with('.'))?;
        Some(rule.domain.clone())
    }

    /// Follows each row of a table, and says which lead nowhere, or only in a circle, and whose members
    /// do. `address` makes an address of a key.
    fn dead_ends(
        &self,
        table: &dyn Lookup,
        word: &str,
        address: impl Fn(&str) -> Option<Mailbox>,
        said: &mut Vec<String>,
    ) {
        let (mut rows, most) = (0, said.len() + MOST_SAID);
        let mut follow = |key: &str, row: &Row| {
            rows += 1;
            let Some(address) = address(key).filter(|_| rows <= MOST_ROWS && said.len() < most) else {
                return;
            };
            match Walk::new(self, Reach::All, &mut drop).from(&address).1 {
                Err(why) => said.push(format!("{row}: {word} {key} leads nowhere: {why}")),
                Ok(ended) => said.extend(ended.failures.iter().map(|failure| {
                    let (member, why) = (&failure.address, &failure.why);
                    format!("{row}: {word} {key}: its member {member} leads nowhere: {why}")
                })),
            }
        };
        // That it can't be read through is a fault.
        if table.each(&mut follow).is_ok() && rows > MOST_ROWS {
            said.push(format!("of {rows} rows ({word}) {MOST_ROWS} were followed to their ends"));
        }
        said.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::DomainRule;

    use super::super::Settings;
    use super::*;

    #[test]
    fn rows_that_lead_nowhere_are_found_with_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let aliases = "root: daemon\na: b\nb: a\nstaff: daemon, nobody-such\ngood: bin\n";
        let addresses = "info@virtual.example gone@virtual.example\n@virtual.example daemon\n\
                         lost@other.example nobody-such\n";
        let system = DomainFate::Users { users: Users::System, mailbox: None, owner: None };
        let empty = DomainFate::Users { users: Users::Virtual, mailbox: None, owner: None };
        let router = Router::new(Settings {
            domains: vec![DomainRule::new("mail.example", system), DomainRule::new("virtual.example", empty)],
            aliases: Source::Text(file("aliases", aliases)),
            virtual_aliases: vec![Source::Text(file("virtual", addresses))],
            ..Settings::default()
        });
        assert_eq!(router.faults(), Vec::<String>::new());
        let warnings = router.warnings();
        let wanted = [
            "aliases:2: alias a leads nowhere: 5.4.6",
            "aliases:3: alias b leads nowhere: 5.4.6",
            "aliases:4: alias staff: its member nobody-such@mail.example leads nowhere: 5.1.1",
            "virtual:3: virtual alias lost@other.example leads nowhere: 5.1.1",
        ];
        assert_eq!(warnings.len(), wanted.len(), "{warnings:#?}");
        for (warning, wanted) in warnings.iter().zip(wanted) {
            assert!(warning.contains(wanted), "{wanted}: {warnings:#?}");
        }
    }

    #[test]
    fn every_kind_of_table_has_its_faults() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let database = file("rows.db", "");
        let query = "SELECT x FROM nowhere WHERE y = ?1".to_string();
        let router = Router::new(Settings {
            aliases: Source::Text(file("aliases", "root: daemon\nno colon\n")),
            virtual_aliases: vec![
                Source::Patterns(file("patterns", "/^ok$/ a@x\n/(/ b@x\n")),
                Source::Cdb(file("big.cdb", "rubbish")),
                Source::Sqlite { file: database, query },
                Source::Text("/no/such/table".into()),
            ],
            domain_tables: vec![Source::Text(file(
                "domains",
                "x.example relay = \"mx\"\ny.example rely = \"mx\"\n",
            ))],
            ..Settings::default()
        });
        let faults = router.faults();
        let wanted =
            ["aliases:2: ", "patterns:2: ", "big.cdb: ", "rows.db: ", "/no/such/table: ", "domains:2: "];
        assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
        for (fault, wanted) in faults.iter().zip(wanted) {
            assert!(fault.contains(wanted), "{wanted}: {faults:#?}");
        }
    }
}
