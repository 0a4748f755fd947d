//! The fuzz targets of contrib/fuzz over the inputs kept there, so that what was found stays found.

#[path = "../contrib/fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

fn over_corpus(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fuzz/corpus").join(name);
    let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!inputs.is_empty());
    for path in inputs {
        println!("{}", path.display());
        let input = std::fs::read(&path).unwrap();
        target(&input);
        // Every beginning of it, too.
        (0..input.len()).for_each(|end| target(&input[..end]));
    }
}

#[test]
fn line() {
    over_corpus("line", targets::line);
}

#[test]
fn command() {
    over_corpus("command", targets::command);
}

#[test]
fn data() {
    over_corpus("data", targets::data);
}

#[test]
fn server() {
    over_corpus("server", targets::server);
}
