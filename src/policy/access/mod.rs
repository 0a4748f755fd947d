//! What the administrator says of clients, names, senders and recipients, in tables of his own
//! (posta-access(5)).
//!
//! A [`pattern`] is what a row begins with; a [`table`] finds the first row that fits; a [`mod@file`] is a
//! table that is read again when it changes. [`networks`] are the lists that stand in posta.toml
//! itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::Fault;
use crate::mail::address::{Mailbox, ReversePath};

use super::chain::Client;

pub mod file;
pub mod networks;
pub mod pattern;
pub mod table;

pub use file::File;
pub use networks::Networks;
pub use pattern::Kind;
pub use table::Action;

use pattern::Subject;

/// Where the tables are; none: there is no such table.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// For [`Kind::Clients`].
    pub clients: Option<PathBuf>,
    /// For [`Kind::Helo`].
    pub helo: Option<PathBuf>,
    /// For [`Kind::Senders`].
    pub senders: Option<PathBuf>,
    /// For [`Kind::Recipients`].
    pub recipients: Option<PathBuf>,
}

/// The tables.
#[derive(Debug, Default)]
pub struct Access {
    clients: Option<File>,
    helo: Option<File>,
    senders: Option<File>,
    recipients: Option<File>,
}

/// What a table says of somebody: the row that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is to be done.
    pub action: Action,
    /// The administrator's own words for the reply; empty if there are none.
    pub text: String,
    /// Which row it was, for the log and for who asks why.
    pub row: Row,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The table's kind.
    pub kind: Kind,
    /// The table's file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Row {
    /// `clients table /etc/posta/clients:12`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} table {}:{}", self.kind, self.file.display(), self.line)
    }
}

impl Access {
    /// Reads all tables. An error: every fault in them.
    pub fn load(places: &Places) -> Result<Access, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut load = |kind, place: &Option<PathBuf>| {
            let file = File::load(kind, place.as_deref()?);
            file.map_err(|more| faults.extend(more)).ok()
        };
        let access = Access {
            clients: load(Kind::Clients, &places.clients),
            helo: load(Kind::Helo, &places.helo),
            senders: load(Kind::Senders, &places.senders),
            recipients: load(Kind::Recipients, &places.recipients),
        };
        if faults.is_empty() { Ok(access) } else { Err(faults) }
    }

    /// What is said of a client. While its name can't be found out, what refuses it may be the wrong
    /// row: then it is only put off.
    pub fn client(&self, client: &Client, now: Instant) -> Option<Finding> {
        let file = self.clients.as_ref()?;
        let table = file.table(now);
        let name = client.name.as_deref();
        let found = table.find(&Subject::Client { address: client.address, name })?;
        let mut finding = file.finding(found);
        let unsure = client.name_unclear && table.first_name().is_some_and(|line| line <= found.line);
        if unsure && matches!(found.action, Action::Refuse | Action::Discard) {
            finding.action = Action::Later;
        }
        Some(finding)
    }

    /// What is said of the name that a client gives itself.
    pub fn helo(&self, name: &str, now: Instant) -> Option<Finding> {
        find(self.helo.as_ref()?, &Subject::Name(name), now)
    }

    /// What is said of a sender.
    pub fn sender(&self, sender: &ReversePath, now: Instant) -> Option<Finding> {
        find(self.senders.as_ref()?, &path(sender.mailbox()), now)
    }

    /// What is said of a recipient.
    pub fn recipient(&self, recipient: &Mailbox, now: Instant) -> Option<Finding> {
        find(self.recipients.as_ref()?, &path(Some(recipient)), now)
    }
}

fn find(file: &File, subject: &Subject<'_>, now: Instant) -> Option<Finding> {
    file.table(now).find(subject).map(|found| file.finding(found))
}

fn path(mailbox: Option<&Mailbox>) -> Subject<'_> {
    Subject::Path(mailbox.map(|mailbox| (mailbox.local(), mailbox.domain())))
}

/// A fault of a table's file.
fn fault(file: &Path, line: usize, column: usize, what: String) -> Fault {
    Fault { file: file.to_path_buf(), line, column, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(clients: &str) -> (tempfile::TempDir, Access) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, clients).unwrap();
        let access = Access::load(&Places { clients: Some(path), ..Places::default() }).unwrap();
        (folder, access)
    }

    fn client(address: &str, name: Option<&str>) -> Client {
        let name = name.map(str::to_string);
        Client { address: Some(address.parse().unwrap()), name, ..Client::default() }
    }

    #[test]
    fn a_name_that_is_not_known_now_refuses_nobody_for_good() {
        let (_folder, access) =
            access("192.0.2.1 refuse\n.good.example accept\n* refuse no\nunknown discard\n");
        let action = |client: &Client| access.client(client, Instant::now()).map(|found| found.action);
        assert_eq!(action(&client("198.51.100.1", Some("mx.good.example"))), Some(Action::Accept));
        assert_eq!(action(&client("198.51.100.1", None)), Some(Action::Refuse));
        let unclear = |address| Client { name_unclear: true, ..client(address, None) };
        assert_eq!(action(&unclear("198.51.100.1")), Some(Action::Later));
        assert_eq!(action(&unclear("192.0.2.1")), Some(Action::Refuse), "no name could have helped");
    }

    #[test]
    fn a_finding_names_its_row() {
        let (folder, access) = access("# ours\n\n192.0.2.0/24   refuse  go away\n");
        let found = access.client(&client("192.0.2.77", None), Instant::now()).unwrap();
        assert_eq!((found.action, found.text.as_str()), (Action::Refuse, "go away"));
        let place = folder.path().join("clients");
        assert_eq!(found.row.to_string(), format!("clients table {}:3", place.display()));
    }
}
