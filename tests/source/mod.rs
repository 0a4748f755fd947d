//! The source as text, for the tests that hold us to the house rules.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of `src/`.
pub struct Source {
    /// Below `src/`.
    pub path: String,
    /// Up to its tests, without lines that are comments.
    pub code: String,
    /// How many lines it has between the head comment, which may hold a table, and its tests.
    pub lines: usize,
}

/// The package's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file in `src/`.
pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut found = Vec::new();
    walk(&src, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let before = before_tests(&text);
            let code = before.lines().filter(|line| !line.trim_start().starts_with("//"));
            found.push(Source {
                path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_string(),
                code: code.map(|line| format!("{line}\n")).collect(),
                lines: before.lines().filter(|line| !line.starts_with("//!")).count(),
            });
        }
    });
    assert!(found.len() > 30, "the sources are not where they are looked for");
    found
}

/// The tests of a file may be seen by its neighbours: `pub(super) mod tests`.
fn before_tests(text: &str) -> &str {
    let begins = |(at, found): &(usize, &str)| {
        let next = text[at + found.len()..].lines().next().unwrap_or_default();
        next.ends_with("mod tests {")
    };
    let tests = text.match_indices("#[cfg(test)]\n").find(begins);
    tests.map_or(text, |(at, _)| &text[..at])
}

fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { walk(&path, each) } else { each(&path) }
    }
}

/// Places where `word` stands in `code` as a word of its own, with what follows it.
pub fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = &'c str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let rest = &code[at + word.len()..];
        let alone = !code[..at].ends_with(is_part) && !rest.starts_with(is_part);
        alone.then_some(rest)
    })
}
