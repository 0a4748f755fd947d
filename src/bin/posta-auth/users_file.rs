//! A users file as posta-auth reads it: who has which password, and from where.
//!
//! Dovecot's passwd-file: `user@domain:{SCHEME}hash:uid:gid::home::extra`. Of the extra fields,
//! `nologin` and `allow_nets` are heeded, since they forbid something; see posta-users(5).

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use posta::config::Network;
use posta::sasl::keys::Cost;

use crate::mark::Mark;
use crate::password::{Kind, Password};

/// What a users file says of one user.
#[derive(Clone)]
pub struct Entry {
    /// None: never matches.
    pub password: Option<Password>,
    /// `nologin`
    forbidden: bool,
    /// `allow_nets`; none: from everywhere.
    networks: Option<Vec<Network>>,
}

/// A users file.
pub struct UsersFile {
    entries: HashMap<String, Entry>,
    /// What is checked for those who are not in it: a password of the kind that most users have, so
    /// that it takes as long.
    pub usual: Password,
    /// What SCRAM's keys cost most users of it. The decoys cost as much, or they were known by it.
    pub cost: Cost,
    /// Whether every password in it is good for SCRAM.
    pub has_keys: bool,
}

impl Entry {
    /// Whether the user may log in at all, from there.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let inside = |networks: &Vec<Network>| {
            client.is_some_and(|client| networks.iter().any(|network| network.contains(client)))
        };
        !self.forbidden && self.networks.as_ref().is_none_or(inside)
    }
}

impl UsersFile {
    /// Reads one, and its faults, each as `line: what`. A line with a fault has no password.
    pub fn parse(text: &str) -> (UsersFile, Vec<String>) {
        let (mut entries, mut faults) = (HashMap::new(), Vec::new());
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(8, ':');
            let name = fields.next().unwrap_or_default().trim().to_lowercase();
            let field = fields.next().unwrap_or_default().trim();
            let extra = fields.nth(5).unwrap_or_default();
            let entry = read_entry(field, extra).unwrap_or_else(|why| {
                faults.push(format!("{}: {name}: {why}; nobody can log in by it", n + 1));
                Entry { password: None, forbidden: true, networks: None }
            });
            entries.insert(name, entry);
        }
        let usual = usual(entries.values());
        let cost = usual_cost(entries.values());
        let mut stored = entries.values().filter_map(|entry| entry.password.as_ref()).peekable();
        let some = stored.peek().is_some();
        let has_keys = some && stored.all(|password| matches!(password.kind(), Kind::Scram | Kind::Plain));
        (UsersFile { entries, usual: usual.unwrap_or_else(Password::nobodys), cost, has_keys }, faults)
    }

    /// Who is called `local@domain`, or `local` in every domain of the file. Both in lower case.
    pub fn find(&self, local: &str, domain: &str) -> Option<&Entry> {
        self.entries.get(&format!("{local}@{domain}")).or_else(|| self.entries.get(local))
    }

    /// Whether somebody is in it by the whole name `local@domain`.
    pub fn has_whole(&self, local: &str, domain: &str) -> bool {
        self.entries.contains_key(&format!("{local}@{domain}"))
    }
}

fn read_entry(field: &str, extra: &str) -> Result<Entry, String> {
    let password = Password::parse(field).map_err(|why| why.to_string())?;
    let mut entry = Entry { password, forbidden: false, networks: None };
    for word in extra.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("nologin", _) => entry.forbidden = true,
            ("allow_nets", networks) => entry.networks = Some(read_networks(networks)?),
            _ => {}
        }
    }
    Ok(entry)
}

/// `192.0.2.0/24,2001:db8::/32,198.51.100.7`
fn read_networks(text: &str) -> Result<Vec<Network>, String> {
    let network = |text: &str| {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Network { address, bits })
    };
    text.split(',')
        .map(|one| network(one).ok_or_else(|| format!("allow_nets: \"{one}\" is no network")))
        .collect()
}

/// A password of the kind that is there most often.
fn usual<'e>(entries: impl Iterator<Item = &'e Entry>) -> Option<Password> {
    let mut kinds: HashMap<Kind, (usize, &Password)> = HashMap::new();
    for password in entries.filter_map(|entry| entry.password.as_ref()) {
        kinds.entry(password.kind()).or_insert((0, password)).0 += 1;
    }
    kinds.into_values().max_by_key(|(count, _)| *count).map(|(_, password)| password.clone())
}

/// The cost that is there most often; of two, the greater one, so that it stays the same.
fn usual_cost<'e>(entries: impl Iterator<Item = &'e Entry>) -> Cost {
    let mut costs: HashMap<Cost, usize> = HashMap::new();
    for cost in entries.filter_map(|entry| entry.password.as_ref()?.cost()) {
        *costs.entry(cost).or_default() += 1;
    }
    costs.into_iter().max_by_key(|&(cost, count)| (count, cost)).map(|(cost, _)| cost).unwrap_or_default()
}

/// The users files, each read again when it has changed.
#[derive(Default)]
pub struct UsersFiles {
    read: Mutex<HashMap<PathBuf, Reading>>,
}

struct Reading {
    /// None: it has to be read again in any case.
    mark: Option<Mark>,
    file: Result<Arc<UsersFile>, String>,
    /// What was said of it, so that it is said once.
    said: Vec<String>,
}

impl UsersFiles {
    /// The file as it is now. An error is why it can't be read; it is in the log already, as are the
    /// faults of its lines.
    pub fn get(&self, path: &Path) -> Result<Arc<UsersFile>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before it is read: a change after that is seen the next time.
        let mark = Mark::of(path);
        if let Some(reading) = read.get(path)
            && mark.is_some()
            && reading.mark == mark
        {
            return reading.file.clone();
        }
        let (file, faults) = match std::fs::read(path) {
            Ok(bytes) => {
                let (file, faults) = UsersFile::parse(&String::from_utf8_lossy(&bytes));
                let place = |fault| format!("{}:{fault}", path.display());
                (Ok(Arc::new(file)), faults.into_iter().map(place).collect())
            }
            Err(why) => {
                let why = format!("users file {}: {why}", path.display());
                (Err(why.clone()), vec![why])
            }
        };
        if read.get(path).is_none_or(|reading| reading.said != faults) {
            faults.iter().for_each(|fault| log::error!("{fault}"));
        }
        let mark = mark.filter(Mark::is_settled);
        read.insert(path.to_path_buf(), Reading { mark, file: file.clone(), said: faults });
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRYPTED: &str =
        "$6$abc$LjS2xoTsdir5sS/M1uEwqdwDr1heBzu5kLkUda5YOSOOVowN.LnFchHDNiRC7EMRN3hfwSgiE4fD1Ox6FxebU0";

    fn parse(text: &str) -> UsersFile {
        let (file, faults) = UsersFile::parse(text);
        assert_eq!(faults, [""; 0]);
        file
    }

    #[test]
    fn users_are_found_with_their_domain_or_in_all() {
        let file =
            parse("# users\n\nAlice@Example.org:{PLAIN}a:1:1::/h::x=y\nbob:{PLAIN}b\ncarl@example.org\n");
        assert!(file.find("alice", "example.org").unwrap().password.is_some());
        assert!(file.find("alice", "example.net").is_none());
        assert!(file.find("bob", "any.example").is_some());
        assert!(file.find("carl", "example.org").unwrap().password.is_none());
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_matches_nobody() {
        let (file, faults) =
            UsersFile::parse("a:{PLAIN}x\nb:{ROT13}x\nc:{PLAIN}x::::::allow_nets=1.2.3.4/40\n");
        assert_eq!(faults.len(), 2);
        assert!(faults[0].starts_with("2: b: unknown scheme {ROT13}"), "{}", faults[0]);
        assert!(faults[1].starts_with("3: c: allow_nets: \"1.2.3.4/40\""), "{}", faults[1]);
        assert!(file.find("b", "x").unwrap().password.is_none());
        assert!(!file.find("c", "x").unwrap().admits(None));
    }

    #[test]
    fn extra_fields_forbid() {
        let file = parse(
            "a:{PLAIN}x::::::nologin\nb:{PLAIN}x::::::userdb_x=1 allow_nets=192.0.2.0/24,2001:db8::/32\nc:{PLAIN}x\n",
        );
        let admits = |name: &str, client: Option<&str>| {
            file.find(name, "").unwrap().admits(client.map(|client| client.parse().unwrap()))
        };
        assert!(!admits("a", Some("192.0.2.1")));
        assert!(admits("b", Some("192.0.2.1")) && admits("b", Some("2001:db8::9")));
        assert!(!admits("b", Some("192.0.3.1")) && !admits("b", None));
        assert!(admits("c", None));
    }

    #[test]
    fn what_most_have_is_what_strangers_are_checked_against() {
        let file = parse(&format!("a:{CRYPTED}\nb:{{PLAIN}}x\nc:{CRYPTED}\n"));
        assert_eq!(file.usual.kind(), Kind::Crypt);
        assert!(!file.has_keys);
        assert!(parse("a:{PLAIN}x\nb:*\n").has_keys);
        let empty = parse("a:*\n");
        assert_eq!((empty.usual.kind(), empty.has_keys), (Kind::Argon2, false));
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let files = UsersFiles::default();
        assert!(files.get(&path).err().unwrap().contains("No such file"));
        std::fs::write(&path, "a:{PLAIN}x\n").unwrap();
        assert!(files.get(&path).unwrap().find("a", "").is_some());
        std::fs::write(&path, "b:{PLAIN}x\n").unwrap();
        assert!(files.get(&path).unwrap().find("a", "").is_none());
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let (one, two) = (files.get(&path).unwrap(), files.get(&path).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
    }
}
