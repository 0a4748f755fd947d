//! What the administrator and users write: nothing in it stops a program, and each fault has its place.

use std::path::{Path, PathBuf};

use posta::config::{self, Network, Source};
use posta::courier::request::Hop;
use posta::dns::zone::Zone;
use posta::logbook::history;
use posta::mail::address::Mailbox;
use posta::mail::id::Id;
use posta::policy::access::Kind;
use posta::policy::access::pattern::Subject;
use posta::policy::access::table::Table;
use posta::route::{self, Router};
use posta::sasl::client::Login;
use posta::sasl::keys::Keys;

/// A zone file of tests and small networks.
pub fn zone(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err((line, what)) = Zone::parse(text) {
        assert!((1..=text.lines().count()).contains(&line) && !what.is_empty());
    }
}

/// A file of aliases.
pub fn aliases(input: &[u8]) {
    let path = written("aliases", input);
    let faults = route::alias_faults(&Source::Text(path.clone())).expect("it can be read");
    faults.iter().for_each(|fault| assert!(fault.contains(&path.display().to_string()), "{fault}"));
    remove(&path);
}

/// The configuration.
pub fn config(input: &[u8]) {
    let path = written("config", input);
    if let Err(faults) = config::load(Some(&path)) {
        assert!(!faults.is_empty());
        faults.iter().for_each(|fault| assert!(!fault.to_string().is_empty()));
    }
    remove(&path);
}

/// A table of who may do what: each fault has its place, and what was read can be asked.
pub fn access(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let kind = [Kind::Clients, Kind::Helo, Kind::Senders, Kind::Recipients][usize::from(kind % 4)];
    match Table::parse(kind, text) {
        Ok(table) => {
            let address = "192.0.2.1".parse().ok();
            for subject in [
                Subject::Client { address, name: Some("host.x.example") },
                Subject::Name("x.example"),
                Subject::Path(Some(("a+b", "x.example"))),
                Subject::Path(None),
            ] {
                let found = table.find(&subject);
                assert!(found.is_none_or(|found| (1..=text.lines().count()).contains(&found.line)));
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            let is_placed = |(line, column, what): &(usize, usize, String)| {
                (1..=text.lines().count()).contains(line) && *column > 0 && !what.is_empty()
            };
            assert!(faults.iter().all(is_placed), "{faults:?}");
        }
    }
}

/// A table of aliases of any form, whole or broken: a question has an answer, though it be that nobody
/// can say now.
pub fn tables(input: &[u8]) {
    let Some((kind, content)) = input.split_first() else { return };
    let path = written("table", content);
    let at = path.display();
    // Expressions may not lead accounts anywhere.
    let table = match kind % 5 {
        0 => format!("[local]\naliases = \"{at}\""),
        1 => format!("[local]\naliases = \"cdb:{at}\""),
        2 => format!("[routing]\nvirtual_aliases = [\"regex:{at}\"]"),
        3 => format!("[routing]\nvirtual_aliases = [\"{at}\"]"),
        _ => format!("[routing]\nvirtual_aliases = [\"cdb:{at}\"]"),
    };
    let text = format!("hostname = \"x.example\"\n{table}\n");
    let settings = written("tables", text.as_bytes());
    let config = config::load(Some(&settings)).expect("a configuration");
    let router = Router::new(route::Settings::of(&config));
    for name in ["a", "owner-a", "a+b", "postmaster"] {
        let address = Mailbox::from_parts(name, "x.example").expect("an address");
        if let Ok(leaves) = router.expand(&address) {
            assert!(!leaves.is_empty(), "{address} leads nowhere");
        }
    }
    remove(&settings);
    remove(&path);
}

/// A `.forward`, or an included list: a fault names its line.
pub fn forward(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(what) = route::included(text) {
        assert!(what.starts_with("line "), "{what}");
    }
}

/// A file of users: what is published of it has no hash, and a line for each that can be used.
pub fn users(input: &[u8]) {
    let path = written("users", input);
    let published = route::users::publish(std::slice::from_ref(&path));
    assert!(published.ends_with('\n') && !published.contains("{SCRAM-SHA-256}"), "{published}");
    remove(&path);
}

/// The history, a day's file of it.
pub fn past(input: &[u8]) {
    let folder = written("history", b"").with_extension("folder");
    remove(&folder.with_extension(""));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("2026-11-24"), input).expect("a file");
    let mut all = Vec::new();
    history::each(&folder, 0, &mut |id, text| all.push((id, text.to_string()))).expect("it can be read");
    let lines = input.split(|b| *b == b'\n').count();
    assert!(all.len() <= lines && all.iter().all(|(_, text)| !text.contains('\n')));
    let id = all.first().map_or_else(|| Id::parse("0123456789ABCDE").expect("an id"), |(id, _)| *id);
    history::find(&folder, id).expect("it can be read");
    std::fs::remove_dir_all(&folder).expect("it was there");
}

/// Words of settings: hosts, networks, logins, keys.
pub fn words(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(hop) = Hop::parse(text, 25) {
        assert_eq!(Hop::parse(&hop.to_string(), 26), Some(hop));
    }
    if let Some(network) = Network::parse(text) {
        assert!(network.contains(network.address));
    }
    let _ = Login::parse(text);
    if let Some(keys) = Keys::parse(text) {
        assert!(keys.cost().iterations > 0 && keys.cost().salt > 0);
    }
}

/// A file of that content, one for each thread.
fn written(name: &str, content: &[u8]) -> PathBuf {
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(format!("posta-fuzz-{name}-{process}-{thread:?}"));
    std::fs::write(&path, content).expect("a file in the temporary folder");
    path
}

fn remove(path: &Path) {
    std::fs::remove_file(path).expect("it was there");
}
