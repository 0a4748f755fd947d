//! Foreign crates have one door each, `unsafe` one room, and files names and sizes of the house.

#[allow(dead_code)]
mod source;

use std::fs;

use source::{root, sources, words};

/// Where a crate may be named: beginnings of paths below `src/`. None: everywhere.
const DOORS: &[(&str, &[&str])] = &[
    ("argon2", &["bin/posta-auth/", "bin/postactl/passwd"]),
    ("base64", &[]),
    ("crc32c", &["spool/"]),
    ("crossbeam_channel", &["net/pool"]),
    ("env_logger", &["logbook/sink"]),
    ("fastrand", &[]),
    (
        "getopts",
        &["config/options", "bin/postactl/main.rs", "bin/posta-drop/main.rs", "bin/sendmail/main.rs"],
    ),
    ("icu_normalizer", &["sasl/prepare"]),
    ("idna", &["dns/answer"]),
    (
        "jiff",
        &[
            "logbook/history",
            "logbook/sink",
            "mail/trace",
            "bin/posta-local/mbox",
            "bin/postactl/",
            "bin/sendmail/",
        ],
    ),
    ("landlock", &["unix/enclosure"]),
    ("libc", &["unix/"]),
    ("log", &[]),
    ("mailparse", &["mail/structure"]),
    ("memchr", &[]),
    ("mio", &["net/acceptor"]),
    ("nix", &["unix/"]),
    ("openssl", &["net/tls", "route/signature", "sasl/", "unix/tls_sessions"]),
    ("regex", &["route/"]),
    ("rusqlite", &["route/"]),
    ("serde_json", &["bin/postactl/"]),
    ("socket2", &["unix/", "net/stream"]),
    ("thiserror", &[]),
    ("tokio", &["dns/resolver"]),
    ("toml", &["config/"]),
    ("trust_dns_resolver", &["dns/resolver"]),
];

/// `*` stands for one folder.
fn is_behind(path: &str, door: &str) -> bool {
    match door.split_once('*') {
        None => path.starts_with(door),
        Some((before, after)) => path.strip_prefix(before).is_some_and(|rest| {
            rest.find('/').is_some_and(|at| rest[at..].starts_with(after) && rest[at..].len() == after.len())
        }),
    }
}

#[test]
fn every_foreign_crate_has_a_door() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = dependencies.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for name in names {
        let name = name.replace('-', "_");
        assert!(DOORS.iter().any(|(known, _)| *known == name), "{name} has no door in tests/doors.rs");
    }
}

#[test]
fn foreign_crates_are_named_behind_their_doors_only() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        for (name, doors) in DOORS.iter().filter(|(_, doors)| !doors.is_empty()) {
            // A path's first word: not "net::tokio::…", not a field or a variable.
            let named = words(&source.code, name).any(|rest| {
                let before = &source.code[..source.code.len() - rest.len() - name.len()];
                rest.starts_with("::") && !before.ends_with("::")
            });
            seen += usize::from(named);
            if named && !doors.iter().any(|door| is_behind(&source.path, door)) {
                wrong.push(format!("src/{} names {name}", source.path));
            }
        }
    }
    assert!(seen > 10, "only {seen} were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_lives_in_one_room() {
    for source in sources().iter().filter(|source| !source.path.starts_with("unix/")) {
        assert_eq!(words(&source.code, "unsafe").count(), 0, "src/{}", source.path);
    }
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    for source in sources().iter().filter(|source| source.path.starts_with("unix/")) {
        let text = fs::read_to_string(root().join("src").join(&source.path)).unwrap();
        let blocks = words(&source.code, "unsafe").filter(|rest| rest.trim_start().starts_with('{')).count();
        let reasons = text.matches("SAFETY:").count();
        assert!(reasons > 0 || blocks == 0, "src/{}: {blocks} unsafe blocks", source.path);
    }
}

#[test]
fn files_have_names_of_the_field_and_a_readable_length() {
    const FORBIDDEN: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "manager", "core", "misc"];
    let mut long = Vec::new();
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            assert!(!FORBIDDEN.contains(&part) && part != "types", "src/{}", source.path);
        }
        if source.lines > 400 {
            long.push(format!("src/{} has {} lines before its tests", source.path, source.lines));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn doors_with_a_star_are_of_one_folder() {
    assert!(is_behind("bin/posta/main.rs", "bin/*/main.rs"));
    assert!(!is_behind("bin/posta/keep.rs", "bin/*/main.rs"));
    assert!(!is_behind("bin/posta/main.rs/x", "bin/*/main.rs"));
    assert!(is_behind("net/stream.rs", "net/stream") && !is_behind("net/pool.rs", "net/stream"));
}
