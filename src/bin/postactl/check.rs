//! `check` and `settings`: what the configuration says, and what it could.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use posta::unix::sysexits;

use posta::config::nearest::did_you_mean;
use posta::config::{self, Config, DEFAULT_FILE, DomainFate, Users};

use posta::policy::chain::Rules;
use posta::policy::owner::Owners;
use posta::route::users;

use crate::Refusal;
use crate::explain::router;

/// Prints every fault of the file and of the tables that it names, each with its place, and what the
/// administrator should know.
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
    let router = router(&config);
    let warn = |warnings: Vec<String>| {
        warnings.iter().for_each(|warning| println!("{name}: warning: {warning}"));
    };
    warn(config.warnings());
    let faults: Vec<String> =
        router.faults().into_iter().chain(table_faults(&config)).chain(users_faults(&config)).collect();
    if !faults.is_empty() {
        faults.iter().for_each(|fault| println!("{fault}"));
        return Ok(sysexits::CONFIG);
    }
    // Where a table is faulty, most of what leads through it leads nowhere.
    warn(router.warnings());
    if config.file.is_some() {
        println!("{name}: no faults");
    } else {
        println!("{name}: not there; every setting is as by default");
    }
    Ok(sysexits::OK)
}

/// What is wrong with the tables of who may do what.
fn table_faults(config: &Config) -> Vec<String> {
    let access = Rules::of(config).err().map(|faults| faults.to_string());
    let owners = Owners::load(config.smtpd.login_senders.as_deref(), "").err().map(|fault| fault.to_string());
    let all = access.into_iter().chain(owners);
    all.flat_map(|faults| faults.lines().map(str::to_string).collect::<Vec<_>>()).collect()
}

/// What is wrong with the users files. One that is not there has its warning; who may not read them, as
/// they have passwords in them, can't look.
fn users_faults(config: &Config) -> Vec<String> {
    let named = config.domains.iter().filter_map(|rule| match &rule.fate {
        DomainFate::Users { users: Users::File(path), .. } => Some(path),
        _ => None,
    });
    let files: BTreeSet<&PathBuf> = named.chain(&config.routing.users_files).collect();
    let faults = |path: &PathBuf| match users::faults(path) {
        Ok(faults) => faults,
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Vec::new(),
        Err(why) => vec![format!("{}: {why}", path.display())],
    };
    files.into_iter().flat_map(faults).collect()
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
