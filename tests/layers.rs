//! A room names only rooms of a lower floor, and neighbours in its own folder.

#[allow(dead_code)]
mod source;

use std::fs;

use source::{root, sources, words};

/// The floors, from the ground up.
const FLOORS: [&[&str]; 5] = [
    &["mail", "unix"],
    &["courier", "sasl", "smtp"],
    &["config", "logbook"],
    &["dns", "maildir", "net", "route", "spool"],
    &["policy"],
];

/// A neighbour on the same floor that a room may name: the configuration says where the log goes, and
/// never logs by itself; packets have the form that courier has them have, whoever sends them.
const ALLOWED: [(&str, &str); 2] = [("logbook", "config"), ("sasl", "courier")];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).map(|n| n + 1)
}

#[test]
fn the_library_names_the_same_floors() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut here = 0;
    let mut rooms = 0;
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// floor ") {
            here = rest[..1].parse().unwrap();
        }
        if let Some(room) = line.strip_prefix("pub mod ") {
            let room = room.trim_end_matches(';');
            assert_eq!(floor(room), Some(here), "{room} stands on floor {here} in src/lib.rs");
            rooms += 1;
        }
    }
    assert_eq!(rooms, FLOORS.iter().map(|rooms| rooms.len()).sum::<usize>());
}

#[test]
fn no_room_names_one_of_its_own_floor_or_above() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let room = source.path.split(['/', '.']).next().unwrap();
        let Some(here) = floor(room) else { continue };
        for rest in words(&source.code, "crate") {
            let Some(rest) = rest.strip_prefix("::") else { continue };
            let named = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let there = floor(named);
            seen += 1;
            if named != room && !ALLOWED.contains(&(room, named)) && there.is_none_or(|there| there >= here) {
                wrong.push(format!("src/{} (floor {here}) names {named} (floor {there:?})", source.path));
            }
        }
    }
    assert!(seen > 50, "only {seen} names were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_programs_name_the_library_and_their_own_files_only() {
    for source in sources().iter().filter(|source| source.path.starts_with("bin/")) {
        for word in ["#[path", "include!", "include_str!(\"../"] {
            assert!(!source.code.contains(word), "src/{} has {word}", source.path);
        }
    }
}
