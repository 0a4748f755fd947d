//! Rewriting of envelope addresses: canonical tables, and domains that hide their hosts.
//!
//! Only the envelope is rewritten. A message's header stays as it came: who signed it (DKIM) signed
//! it as it was.

use crate::mail::address::Mailbox;

use super::Settings;
use super::search::{self, Hit};
use super::table::text::Form;
use super::table::{Lookup, Row, TableError, open_all};

/// The tables and settings.
#[derive(Debug)]
pub(super) struct Rewriting {
    senders: Vec<Box<dyn Lookup>>,
    recipients: Vec<Box<dyn Lookup>>,
    both: Vec<Box<dyn Lookup>>,
    masquerade: Vec<String>,
    except: Vec<String>,
}

/// Whose address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Sender,
    Recipient,
}

/// One rewriting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// The new address.
    pub(super) address: Mailbox,
    /// What the table says, if a table has said it.
    pub(super) hit: Option<Hit>,
}

/// Why an address can't be rewritten now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unclear {
    /// A table can't say.
    Table(TableError),
    /// A row makes no address.
    Row(Row),
}

impl Rewriting {
    /// What the settings say.
    pub(super) fn new(settings: &Settings) -> Rewriting {
        let lower = |list: &[String]| list.iter().map(|name| name.to_lowercase()).collect();
        Rewriting {
            senders: open_all(&settings.sender_canonical, Form::Addresses),
            recipients: open_all(&settings.recipient_canonical, Form::Addresses),
            both: open_all(&settings.canonical, Form::Addresses),
            masquerade: lower(&settings.masquerade),
            except: lower(&settings.masquerade_except),
        }
    }

    /// All tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &dyn Lookup> {
        [&self.senders, &self.recipients, &self.both].into_iter().flatten().map(|table| &**table)
    }

    /// Rewrites an address, in at most three steps. `bare` gives a local part without extension,
    /// `own` says whether a domain is one of this host's, `complete` reads an address or a name.
    pub(super) fn apply(
        &self,
        address: &Mailbox,
        role: Role,
        bare: impl Fn(&Mailbox) -> String,
        own: impl Fn(&Mailbox) -> bool,
        complete: impl Fn(&str) -> Option<Mailbox>,
    ) -> Result<Vec<Rewritten>, Unclear> {
        let first = if role == Role::Sender { &self.senders } else { &self.recipients };
        let mut steps: Vec<Rewritten> = Vec::new();
        for tables in [first, &self.both] {
            if tables.is_empty() {
                continue;
            }
            let now = steps.last().map_or(address, |step| &step.address).clone();
            let found = search::find(tables, &now, &bare(&now), own(&now)).map_err(Unclear::Table)?;
            let Some(hit) = found else { continue };
            let target = hit.target(&now, hit.row.value.trim(), &complete);
            let address = target.ok_or_else(|| Unclear::Row(hit.row.clone()))?;
            steps.push(Rewritten { address, hit: Some(hit) });
        }
        let now = steps.last().map_or(address, |step| &step.address);
        if role == Role::Sender
            && let Some(address) = self.hide(now)
        {
            steps.push(Rewritten { address, hit: None });
        }
        Ok(steps)
    }

    /// The address without its host: `bob@host.example.org` is `bob@example.org` to the world.
    fn hide(&self, address: &Mailbox) -> Option<Mailbox> {
        if self.except.contains(&address.local().to_lowercase()) {
            return None;
        }
        let lies_below = |domain: &&String| {
            address.domain().strip_suffix(domain.as_str()).is_some_and(|host| host.ends_with('.'))
        };
        let domain = self.masquerade.iter().find(lies_below)?;
        Mailbox::from_parts(address.local(), domain).ok()
    }
}

impl Unclear {
    /// For the log.
    pub(super) fn in_words(&self) -> String {
        match self {
            Unclear::Table(why) => why.to_string(),
            Unclear::Row(row) => format!("{row}: \"{}\" is not one address", row.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn rewriting(folder: &tempfile::TempDir) -> Rewriting {
        let table = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            vec![Source::Text(path)]
        };
        Rewriting::new(&Settings {
            sender_canonical: table("senders", "bob@h.example b@h.example\nbad@h.example c@x, d@x\n"),
            recipient_canonical: table("recipients", "bob@h.example r@h.example\n"),
            canonical: table(
                "both",
                "b@h.example Bob.Best@example.org\n@old.example @new.example\nann ann.a\n",
            ),
            masquerade: vec!["sub.example.org".into(), "Example.org".into()],
            ..Settings::default()
        })
    }

    fn rewritten(text: &str, role: Role) -> Result<String, Unclear> {
        let folder = tempfile::tempdir().unwrap();
        let address = Mailbox::parse(text, false).unwrap();
        let bare = |address: &Mailbox| address.local().split('+').next().unwrap_or_default().to_string();
        let own = |address: &Mailbox| address.domain() == "own.example";
        let complete = |text: &str| {
            let text = if text.contains('@') { text.to_string() } else { format!("{text}@own.example") };
            Mailbox::parse(&text, false).ok()
        };
        let steps = rewriting(&folder).apply(&address, role, bare, own, complete)?;
        Ok(steps.last().map_or(text.to_string(), |step| step.address.to_string()))
    }

    #[test]
    fn senders_and_recipients_have_tables_of_their_own_and_one_together() {
        let sender = |text: &str| rewritten(text, Role::Sender).unwrap();
        assert_eq!(sender("bob@h.example"), "Bob.Best@example.org");
        assert_eq!(sender("bob+x@h.example"), "Bob.Best+x@example.org");
        assert_eq!(rewritten("bob@h.example", Role::Recipient).unwrap(), "r@h.example");
        assert_eq!(sender("x@old.example"), "x@new.example");
        assert_eq!(
            (sender("ann@own.example"), sender("ann@h.example")),
            ("ann.a@own.example".into(), "ann@h.example".into())
        );
        assert!(matches!(rewritten("bad@h.example", Role::Sender), Err(Unclear::Row(_))));
    }

    #[test]
    fn hosts_are_hidden_in_senders_but_for_those_who_are_named() {
        let sender = |text: &str| rewritten(text, Role::Sender).unwrap();
        assert_eq!(sender("bob@a.b.example.org"), "bob@example.org");
        assert_eq!(sender("bob@a.sub.example.org"), "bob@sub.example.org");
        for same in ["Root@a.example.org", "bob@example.org", "bob@myexample.org"] {
            assert_eq!(sender(same), same);
        }
        assert_eq!(rewritten("bob@a.example.org", Role::Recipient).unwrap(), "bob@a.example.org");
    }
}
