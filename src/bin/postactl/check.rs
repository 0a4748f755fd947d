//! `check` and `settings`: what the configuration says, and what it could.

use std::path::Path;

use posta::unix::sysexits;

use posta::config::nearest::did_you_mean;
use posta::config::{self, DEFAULT_FILE};

use crate::Refusal;
use crate::explain::router;

/// Prints every fault of the file, or, where there is none, what the administrator should know.
pub fn check(file: Option<&Path>, words: &[String]) -> Result<u8, Refusal> {
    if !words.is_empty() {
        return Err(Refusal::usage("check takes nothing; -c names the file"));
    }
    let config = match config::load(file) {
        Ok(config) => config,
        Err(faults) => {
            faults.iter().for_each(|fault| println!("{fault}"));
            return Ok(sysexits::CONFIG);
        }
    };
    let name = file.unwrap_or(Path::new(DEFAULT_FILE)).display();
    for warning in config.warnings().into_iter().chain(router(&config).warnings()) {
        println!("{name}: warning: {warning}");
    }
    if config.file.is_some() {
        println!("{name}: no faults");
    } else {
        println!("{name}: not there; every setting is as by default");
    }
    Ok(sysexits::OK)
}

/// Prints `name = default # help` for every setting, for those of one section, or for one.
pub fn settings(words: &[String]) -> Result<u8, Refusal> {
    let wanted = match words {
        [] => None,
        [name] => Some(name.trim_end_matches('.')),
        _ => return Err(Refusal::usage("settings takes at most one name")),
    };
    let is_wanted = |name: &str| {
        wanted.is_none_or(|wanted| {
            name == wanted || name.strip_prefix(wanted).is_some_and(|n| n.starts_with('.'))
        })
    };
    let mut count = 0;
    for row in config::settings().filter(|row| is_wanted(row.name)) {
        println!("{} = {} # {}", row.name, row.default, row.help);
        count += 1;
    }
    match wanted {
        Some(name) if count == 0 => {
            let hint = did_you_mean(name, config::settings().map(|row| row.name)).unwrap_or_default();
            Err(Refusal::usage(format!("no setting \"{name}\"{hint}")))
        }
        _ => Ok(sysexits::OK),
    }
}
