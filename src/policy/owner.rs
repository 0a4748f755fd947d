//! Whose addresses are whose: who has logged in sends under his own only (RFC 6409 6.1).
//!
//! The table has a login and the senders that belong to it on each line, with blanks between them; a
//! sender is `user@domain`, `@domain` for all of a domain, or `*` for any. Several lines may be about
//! one login. A login that the table doesn't name owns the address that is its name.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::mail::address::{Mailbox, ReversePath};

/// The table, and what parts a name from an extension.
#[derive(Debug, Default)]
pub struct Owners {
    table: HashMap<String, Vec<Owned>>,
    delimiter: String,
}

/// What belongs to a login.
#[derive(Debug, PartialEq, Eq)]
enum Owned {
    Anything,
    /// All of a domain, in lower case.
    Domain(String),
    /// An address, in lower case.
    Address(String),
}

impl Owners {
    /// Reads the table; without one, every login owns its own address. Each character of `delimiter`
    /// parts a name from an extension. An error names the file, and the line if it is one's fault.
    pub fn load(file: Option<&Path>, delimiter: &str) -> io::Result<Owners> {
        let table = match file {
            None => HashMap::new(),
            Some(path) => {
                let place = |what: String| io::Error::other(format!("{}:{what}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|why| place(format!(" {why}")))?;
                parse(&text).map_err(place)?
            }
        };
        Ok(Owners { table, delimiter: delimiter.to_string() })
    }

    /// Whether `login` may send as `sender`. The null sender is everybody's: it is how a mail program
    /// sends a receipt (RFC 8098 3).
    pub fn owns(&self, login: &str, sender: &ReversePath) -> bool {
        let ReversePath::Mailbox(sender) = sender else { return true };
        let plain = self.without_extension(sender);
        let whole = sender.to_string().to_lowercase();
        let login = login.to_lowercase();
        let is = |address: &str| address == whole || address == plain;
        match self.table.get(&login) {
            None => is(&login),
            Some(all) => all.iter().any(|owned| match owned {
                Owned::Anything => true,
                Owned::Domain(domain) => domain == sender.domain(),
                Owned::Address(address) => is(address),
            }),
        }
    }

    /// The address without an extension, in lower case.
    fn without_extension(&self, sender: &Mailbox) -> String {
        let local = sender.local();
        // A name doesn't begin with its extension.
        let end = local.char_indices().skip(1).find(|(_, c)| self.delimiter.contains(*c));
        let local = end.map_or(local, |(at, _)| &local[..at]);
        Mailbox::from_parts(local, sender.domain())
            .map_or_else(|_| String::new(), |m| m.to_string())
            .to_lowercase()
    }
}

fn parse(text: &str) -> Result<HashMap<String, Vec<Owned>>, String> {
    let mut table: HashMap<String, Vec<Owned>> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_ascii_whitespace();
        let Some(login) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let owned = table.entry(login.to_lowercase()).or_default();
        for word in words {
            owned.push(read(word).ok_or_else(|| {
                format!("{number}: what is \"{word}\"? write user@example.org, @example.org, or *")
            })?);
        }
    }
    Ok(table)
}

fn read(word: &str) -> Option<Owned> {
    if word == "*" {
        return Some(Owned::Anything);
    }
    if let Some(domain) = word.strip_prefix('@') {
        let anybody = Mailbox::parse(&format!("x@{domain}"), true).ok()?;
        return Some(Owned::Domain(anybody.domain().to_string()));
    }
    Mailbox::parse(word, true).ok().map(|address| Owned::Address(address.to_string().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owns(owners: &Owners, login: &str, sender: &str) -> bool {
        owners.owns(login, &ReversePath::parse(sender, true).unwrap())
    }

    #[test]
    fn without_a_table_a_login_is_an_address() {
        let owners = Owners::load(None, "+").unwrap();
        for sender in ["alice@example.org", "Alice@EXAMPLE.org", "alice+lists@example.org", ""] {
            assert!(owns(&owners, "alice@example.org", sender), "{sender}");
        }
        for sender in ["bob@example.org", "alice@example.net", "+alice@example.org", "alic@example.org"] {
            assert!(!owns(&owners, "alice@example.org", sender), "{sender}");
        }
    }

    #[test]
    fn a_table_says_it_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("senders");
        let text = "# who sends as whom\n\nAlice@example.org alice@example.net  @lists.example\n\
                    alice@example.org Sales@example.org\nroot@example.org *\nnobody@example.org\n";
        std::fs::write(&path, text).unwrap();
        let owners = Owners::load(Some(&path), "-+").unwrap();
        for sender in ["alice@example.net", "any@Lists.example", "sales@example.org", "sales-x@example.org"] {
            assert!(owns(&owners, "alice@example.org", sender), "{sender}");
        }
        assert!(!owns(&owners, "alice@example.org", "alice@example.org"));
        assert!(owns(&owners, "root@example.org", "any@where.example"));
        assert!(!owns(&owners, "nobody@example.org", "nobody@example.org"));
        assert!(owns(&owners, "carol@example.org", "carol@example.org"));
        std::fs::write(&path, "a@b c@d\na@b c\n").unwrap();
        let error = Owners::load(Some(&path), "").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2: what is \"c\"?", path.display())), "{error}");
        assert!(Owners::load(Some(&folder.path().join("none")), "").is_err());
    }
}
