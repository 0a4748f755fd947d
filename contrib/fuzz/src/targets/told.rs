//! What the administrator and users write: nothing in it stops a program, and each fault has its place.

use std::path::{Path, PathBuf};

use posta::config;
use posta::dns::zone::Zone;
use posta::route;

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
    let faults = route::alias_faults(&path).expect("it can be read");
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
