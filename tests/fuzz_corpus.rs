//! The fuzz targets of contrib/fuzz over the inputs kept there, so that what was found stays found.

#[path = "../contrib/fuzz/src/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};

use targets::{TARGETS, find};

/// Of inputs that are longer, only so many beginnings are tried.
const BEGINNINGS: usize = 300;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fuzz/corpus")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_target_holds_over_its_corpus() {
    for (name, target) in TARGETS {
        let inputs = entries(&corpus().join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in inputs {
            // Shown if the target panics.
            println!("{}", path.display());
            let input = std::fs::read(&path).unwrap();
            target(&input);
            // Every beginning of it, too.
            (0..input.len().min(BEGINNINGS)).for_each(|end| target(&input[..end]));
        }
    }
}

#[test]
fn every_corpus_has_its_target() {
    for folder in entries(&corpus()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(find(name).is_some(), "{name} is no target");
    }
    assert!(find("nothing").is_none());
}
