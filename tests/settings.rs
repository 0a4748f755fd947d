//! The settings, their manual page and the sample say the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use posta::config;

fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(in_repository(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// The page's settings, each with its default.
fn on_the_page() -> HashMap<String, String> {
    let page = read("man/posta.toml.5");
    let mut settings = HashMap::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".It Ic ") {
            assert_eq!(current, None, "no default before {name}");
            current = Some(name.to_string());
        } else if let Some(default) = line.strip_prefix("Default: ") {
            let name = current.take().unwrap_or_else(|| panic!("a default of nothing: {line}"));
            assert_eq!(settings.insert(name.clone(), default.to_string()), None, "{name} is there twice");
        }
    }
    settings
}

#[test]
fn the_page_has_every_setting_with_its_default() {
    let mut page = on_the_page();
    for row in config::settings() {
        let default = page.remove(row.name);
        assert_eq!(default.as_deref(), Some(row.default), "{} in man/posta.toml.5", row.name);
    }
    assert!(page.is_empty(), "man/posta.toml.5 has settings that there are not: {page:?}");
}

/// The sample with its commented settings put in force.
fn sample_in_force() -> String {
    let uncommented =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_string);
    read("contrib/posta.toml").lines().map(|line| uncommented(line).unwrap_or_default() + "\n").collect()
}

#[test]
fn the_sample_loads_as_it_is_and_with_every_line_in_force() {
    let as_it_is = config::load(Some(&in_repository("contrib/posta.toml"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posta.toml");
    std::fs::write(&path, sample_in_force()).unwrap();
    let in_force = config::load(Some(&path)).unwrap_or_else(|faults| panic!("{faults:#?}"));
    // What the sample shows as defaults are the defaults.
    assert_eq!(in_force.smtpd, as_it_is.smtpd);
    assert_eq!(in_force.local, as_it_is.local);
    assert_eq!(in_force.queue, as_it_is.queue);
    assert_eq!(in_force.remote, as_it_is.remote);
    assert_eq!(in_force.listen, as_it_is.listen);
    assert_eq!(in_force.hostname, as_it_is.hostname);
    assert_eq!(in_force.domains.len(), 7);
}

#[test]
fn the_sample_names_every_setting_of_a_table() {
    let sample = sample_in_force();
    let mut section = String::new();
    let mut said: HashMap<String, String> = HashMap::new();
    for line in sample.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_string() + ".";
        } else if let Some((name, value)) = line.split_once(" = ") {
            let value = value.split("  ").next().unwrap_or_default().trim();
            said.insert(format!("{section}{name}"), value.to_string());
        }
    }
    for row in config::settings().filter(|row| !row.name.contains(".NAME.")) {
        assert_eq!(
            said.get(row.name).map(String::as_str),
            Some(row.default),
            "{} in contrib/posta.toml",
            row.name
        );
    }
}

#[test]
fn a_row_is_complete() {
    for row in config::settings() {
        assert!(!row.help.is_empty() && !row.kind().is_empty(), "{}", row.name);
    }
}
