//! How tables are asked for an address, and what becomes of it where they have it.
//!
//! The keys, in lower case and with a local part without quotes: the whole address, the address
//! without its extension, in this host's own domains the name alone (with, then without its
//! extension), and last `@domain`. Each key is asked of all tables in turn before the next one.

use crate::mail::address::Mailbox;

use super::table::{Lookup, Row, TableError};

/// A row that an address has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    /// What it says, and where.
    pub(super) row: Row,
    /// The key that was found.
    pub(super) key: String,
    /// The extension that the key lacks, with its delimiter; empty if it lacks none.
    pub(super) extension: String,
}

/// Asks tables for an address. `bare` is its local part without extension; `own`: its domain is
/// one of this host's.
pub(super) fn find(
    tables: &[Box<dyn Lookup>],
    address: &Mailbox,
    bare: &str,
    own: bool,
) -> Result<Option<Hit>, TableError> {
    if tables.is_empty() {
        return Ok(None);
    }
    let (local, domain) = (address.local(), address.domain());
    let extension = &local[bare.len()..];
    let mut keys = vec![(format!("{local}@{domain}"), "")];
    if !extension.is_empty() {
        keys.push((format!("{bare}@{domain}"), extension));
    }
    if own {
        keys.push((local.to_string(), ""));
        if !extension.is_empty() {
            keys.push((bare.to_string(), extension));
        }
    }
    keys.push((format!("@{domain}"), ""));
    for (n, (key, extension)) in keys.into_iter().enumerate() {
        let key = key.to_lowercase();
        for table in tables.iter().filter(|table| n == 0 || !table.wants_whole_keys()) {
            if let Some(row) = table.find(&key)? {
                return Ok(Some(Hit { row, key, extension: extension.to_string() }));
            }
        }
    }
    Ok(None)
}

impl Hit {
    /// What one address of the row's value makes of the address that was asked for: `@domain` keeps
    /// its local part, and an extension that the key lacks goes along. `complete` reads an address,
    /// or a name without a domain.
    pub(super) fn target(
        &self,
        address: &Mailbox,
        text: &str,
        complete: impl FnOnce(&str) -> Option<Mailbox>,
    ) -> Option<Mailbox> {
        if let Some(domain) = text.strip_prefix('@') {
            return Mailbox::from_parts(address.local(), domain).ok();
        }
        let target = complete(text)?;
        if self.extension.is_empty() {
            return Some(target);
        }
        Mailbox::from_parts(&format!("{}{}", target.local(), self.extension), target.domain()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::open_all;
    use super::super::table::text::Form;
    use super::*;
    use crate::config::Source;

    fn tables(folder: &tempfile::TempDir, text: &str, patterns: &str) -> Vec<Box<dyn Lookup>> {
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("text"), text).unwrap();
        std::fs::write(path("patterns"), patterns).unwrap();
        open_all(&[Source::Patterns(path("patterns")), Source::Text(path("text"))], Form::Addresses)
    }

    #[test]
    fn the_most_exact_key_counts_and_expressions_see_whole_addresses_only() {
        let folder = tempfile::tempdir().unwrap();
        let text = "ann+x@d.example one\nann@d.example two\nann three\n@d.example four\nbob+y five\n";
        let tables = tables(&folder, text, "/^@/ never\n/^bob@e/ six\n");
        let found = |address: &str, own: bool| {
            let address = Mailbox::parse(address, false).unwrap();
            let bare = address.local().split('+').next().unwrap();
            find(&tables, &address, bare, own).unwrap().map(|hit| (hit.row.value.to_string(), hit.extension))
        };
        let hit = |value: &str, extension: &str| Some((value.to_string(), extension.to_string()));
        assert_eq!(found("Ann+X@d.example", false), hit("one", ""));
        assert_eq!(found("ann+z@D.example", false), hit("two", "+z"));
        assert_eq!(found("carl+z@d.example", false), hit("four", ""));
        assert_eq!(found("ann@e.example", false), None);
        assert_eq!(found("ann+q@e.example", true), hit("three", "+q"));
        assert_eq!(found("bob+y@f.example", true), hit("five", ""));
        assert_eq!(found("bob@e.example", false), hit("six", ""));
    }

    #[test]
    fn a_target_keeps_what_the_row_leaves_open() {
        let row = Row { value: "".into(), table: "t".into(), line: Some(1) };
        let hit = |extension: &str| Hit { row: row.clone(), key: String::new(), extension: extension.into() };
        let address = Mailbox::parse("Ann+x@d.example", false).unwrap();
        let target = |extension: &str, text: &str| {
            let read = |text: &str| Mailbox::parse(text, false).ok();
            hit(extension).target(&address, text, read).map(|mailbox| mailbox.to_string())
        };
        assert_eq!(target("", "@e.example").as_deref(), Some("Ann+x@e.example"));
        assert_eq!(target("+x", "bob@e.example").as_deref(), Some("bob+x@e.example"));
        assert_eq!(target("", "bob@e.example").as_deref(), Some("bob@e.example"));
        assert_eq!(target("", "bob"), None);
    }
}
