//! tests/LESSONS names tests that exist, and says of everything else that it is open.

#[allow(dead_code)]
mod source;

use std::fs;

use source::root;

/// Entries of the list.
const LESSONS: usize = 95;
/// Of them without a test. A change may make them fewer; more of them want a good reason.
const MOST_OPEN: usize = 3;

/// One entry: its number, and its lines.
fn entries() -> Vec<(usize, Vec<String>)> {
    let text = fs::read_to_string(root().join("tests/LESSONS")).unwrap();
    let mut entries: Vec<(usize, Vec<String>)> = Vec::new();
    for line in text.lines() {
        let number = line.split(' ').next().and_then(|word| word.parse().ok());
        match (number, entries.last_mut()) {
            (Some(number), _) => entries.push((number, vec![line.to_string()])),
            (None, Some(entry)) if line.starts_with("    ") => entry.1.push(line.trim().to_string()),
            _ => {}
        }
    }
    entries
}

/// What is wrong with a test's name; nothing if there is such a test.
fn fault(name: &str) -> Option<String> {
    if let Some(dialogue) = name.strip_prefix("dialogues/") {
        let path = root().join(format!("tests/dialogues/{dialogue}.dialogue"));
        return (!path.exists()).then(|| format!("there is no dialogue {dialogue}"));
    }
    let Some((file, function)) = name.split_once("::") else {
        return Some(format!("{name}: not FILE::NAME"));
    };
    let Ok(text) = fs::read_to_string(root().join(file)) else { return Some(format!("there is no {file}")) };
    let is_test = text.split("#[test]").skip(1).any(|rest| {
        let signature = rest.split('{').next().unwrap_or_default();
        signature.contains(&format!("fn {function}("))
    });
    (!is_test).then(|| format!("{file} has no test {function}"))
}

#[test]
fn every_lesson_has_a_test_that_exists_or_is_open() {
    let entries = entries();
    let numbers: Vec<usize> = entries.iter().map(|entry| entry.0).collect();
    assert_eq!(numbers, (1..=LESSONS).collect::<Vec<_>>());
    let (mut faults, mut open) = (Vec::new(), Vec::new());
    for (number, lines) in &entries {
        let of = |word: &str| lines.iter().filter_map(|l| l.strip_prefix(word)).collect::<Vec<_>>();
        let (does, tests, reasons) = (of("does: "), of("test: "), of("open: "));
        match (does.len(), tests.is_empty(), reasons.len()) {
            (1, false, 0) => {}
            (_, true, 1) => open.push(*number),
            _ => faults.push(format!("{number}: neither done and tested, nor open")),
        }
        let names = tests.iter().flat_map(|line| line.split_whitespace());
        faults.extend(names.filter_map(fault).map(|fault| format!("{number}: {fault}")));
    }
    println!("open: {open:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(open.len() <= MOST_OPEN, "open: {open:?}");
}

#[test]
fn what_is_no_test_is_noticed() {
    assert!(fault("tests/lessons.rs::entries").is_some());
    assert!(fault("tests/lessons.rs::nothing").is_some() && fault("dialogues/nothing").is_some());
    assert_eq!(fault("tests/lessons.rs::what_is_no_test_is_noticed"), None);
}
