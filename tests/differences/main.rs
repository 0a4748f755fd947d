//! Our reading of addresses, headers and MIME beside that of others: crate mailparse, and Python's email
//! package. Where they differ, contrib/fuzz/DIFFERENCES has to say why: each difference belongs to one of
//! its categories by what stands in the input, or the test fails and shows it.
//!
//! `cargo test` compares some thousand inputs, always the same; `make fuzz` others, as many as INPUTS says.

mod explain;
mod input;
mod reading;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use explain::{CATEGORIES, explain};
use input::Input;
use reading::{Kind, Reader, read_by_python};

/// So many unexplained differences of each kind and reader are shown.
const SHOWN: usize = 15;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fuzz")
}

/// What is kept of one kind: the corpus of the fuzz target that reads the same.
fn kept(kind: Kind) -> Vec<Input> {
    let folder = fuzz_folder().join("corpus").join(match kind {
        Kind::List => "addresses",
        Kind::Header => "header",
        Kind::Mime => "convert",
    });
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs = Vec::new();
    for entry in entries {
        let octets = fs::read(entry.unwrap().path()).unwrap();
        // The first octet of "convert" says only how the rest is split.
        let skip = usize::from(kind == Kind::Mime).min(octets.len());
        inputs.push(Input { kind, octets: octets[skip..].to_vec(), is_sound: false });
    }
    inputs
}

#[test]
fn every_difference_is_explained() {
    let seed = number("SEED").unwrap_or(1);
    let count = number("INPUTS").unwrap_or(6000);
    let mut chance = Rng::with_seed(seed);
    println!("SEED={seed}");
    let mut inputs: Vec<Input> = Kind::ALL.into_iter().flat_map(kept).collect();
    inputs.extend((0..count).map(|at| Input::make(Kind::ALL[at as usize % 3], &mut chance)));

    let by_python = read_by_python(&fuzz_folder().join("reading.py"), &inputs);
    if by_python.is_none() {
        println!("there is no python3: compared with mailparse alone");
    }
    let mut counts: BTreeMap<(Kind, Reader, &str), u64> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (at, input) in inputs.iter().enumerate() {
        let ours = input.read();
        let others = [
            Some((Reader::Mailparse, input.read_by_mailparse())),
            by_python.as_ref().map(|all| (Reader::Python, all[at].clone())),
        ];
        for (reader, theirs) in others.into_iter().flatten() {
            let category = if ours == theirs {
                "the same"
            } else if let Some(category) = explain(input, reader, &ours, &theirs) {
                category
            } else {
                let text = format!("{input:?}\n  ours: {ours}\n  {reader:?}: {theirs}");
                unexplained.push((input.kind, reader, input.octets.len(), text));
                continue;
            };
            *counts.entry((input.kind, reader, category)).or_default() += 1;
        }
    }
    for ((kind, reader, category), count) in counts {
        println!("{count:>8}  {kind:?} {reader:?}: {category}");
    }
    // The shortest of each kind say most.
    unexplained.sort();
    let of_a_kind = unexplained.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1));
    let shown: String =
        of_a_kind.flat_map(|chunk| chunk.iter().take(SHOWN).map(|(.., text)| format!("{text}\n"))).collect();
    assert!(unexplained.is_empty(), "SEED={seed}: {} unexplained differences:\n{shown}", unexplained.len());
}

/// Each category stands in the file, and nothing else does.
#[test]
fn the_file_has_every_category() {
    let path = fuzz_folder().join("DIFFERENCES");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let heads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("= ")).collect();
    let known: Vec<&str> = CATEGORIES.iter().map(|category| category.name).collect();
    assert_eq!(heads, known);
}
