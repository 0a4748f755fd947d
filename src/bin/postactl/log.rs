//! `log`: how much the programs say, while they run.
//!
//! Each is told by a signal, with a number for the level (unix/signals): so it needs neither the keeper nor a
//! service manager, and who may do it the kernel knows.

use std::path::{Path, PathBuf};

use log::LevelFilter;

use posta::unix::processes::{self, Process};
use posta::unix::{signals, sysexits};

use posta::config::Config;
use posta::config::nearest::did_you_mean;
use posta::logbook::sink;

use crate::Refusal;

/// Those that log.
const DAEMONS: [&str; 6] =
    ["posta", "posta-auth", "posta-local", "posta-remote", "posta-queue", "posta-smtpd"];

/// The words of `log.level`.
const LEVELS: [(&str, LevelFilter); 4] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
];

/// Has all programs of this configuration that run, or the one that is named, log at a level. Without one, at
/// that of the configuration.
pub fn log(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let (level, only) = match words {
        [] => (config.log.level, None),
        [level] => (parse(level)?, None),
        [level, program] => (parse(level)?, Some(program.as_str())),
        _ => {
            return Err(Refusal::usage("log takes a level, and the name of a program if only that is meant"));
        }
    };
    if let Some(program) = only.filter(|program| !DAEMONS.contains(program)) {
        let hint = did_you_mean(program, DAEMONS).unwrap_or_default();
        return Err(Refusal::usage(format!("no program that logs is called \"{program}\"{hint}")));
    }
    let all = processes::all().map_err(|error| Refusal(sysexits::OSERR, format!("/proc: {error}")))?;
    let file = config.file.as_deref();
    let told: Vec<(&str, u32)> = all
        .iter()
        .filter(|process| process.takes_usr1 && reads(process, file))
        .filter_map(|process| Some((daemon(process)?, process)))
        .filter(|(name, process)| only.is_none_or(|only| only == *name) && !is_child(process, &all))
        .map(|(name, process)| (name, process.pid))
        .collect();
    if told.is_empty() {
        let which = only.unwrap_or("no program of posta");
        let not = if only.is_some() { " does not run" } else { " runs" };
        return Err(Refusal(sysexits::UNAVAILABLE, format!("{which}{not} with this configuration")));
    }
    for (name, pid) in told {
        signals::tell_level(pid, sink::number(level))
            .map_err(|error| Refusal(sysexits::NOPERM, format!("{name}[{pid}]: {error}")))?;
        println!("{name}[{pid}]: {}", level.as_str().to_lowercase());
    }
    Ok(sysexits::OK)
}

fn parse(word: &str) -> Result<LevelFilter, Refusal> {
    let found = LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    found.ok_or_else(|| {
        let hint = did_you_mean(word, LEVELS.iter().map(|(name, _)| *name));
        let hint = hint.unwrap_or_else(|| "; there are error, warn, info and debug".to_string());
        Refusal::usage(format!("unknown level \"{word}\"{hint}"))
    })
}

/// The name of a program of ours.
fn daemon(process: &Process) -> Option<&'static str> {
    let called = Path::new(process.words.first()?).file_name()?;
    DAEMONS.into_iter().find(|name| called == *name)
}

/// Whether it reads the configuration that we read.
fn reads(process: &Process, file: Option<&Path>) -> bool {
    let words = &process.words[1.min(process.words.len())..];
    let own = words.iter().enumerate().find_map(|(n, word)| match word.strip_prefix("-c") {
        Some("") => words.get(n + 1).map(PathBuf::from),
        Some(file) => Some(PathBuf::from(file)),
        None => None,
    });
    let same =
        |a: &Path, b: &Path| a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    match (own.as_deref(), file) {
        (Some(own), Some(file)) => same(own, file),
        (None, Some(file)) => same(Path::new(posta::config::DEFAULT_FILE), file),
        (Some(_), None) => false,
        (None, None) => true,
    }
}

/// A child that delivers for one user hears of it from its parent.
fn is_child(process: &Process, all: &[Process]) -> bool {
    let parent = all.iter().find(|other| other.pid == process.parent);
    parent.is_some_and(|parent| daemon(parent) == daemon(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(words: &[&str]) -> Process {
        let words = words.iter().map(|word| word.to_string()).collect();
        Process { pid: 7, parent: 1, uid: 0, words, takes_usr1: true }
    }

    #[test]
    fn programs_are_known_by_name_and_configuration() {
        let smtpd = process(&["/usr/sbin/posta-smtpd", "-c", "/x/posta.toml"]);
        assert_eq!(daemon(&smtpd), Some("posta-smtpd"));
        assert_eq!(daemon(&process(&["postactl", "log"])), None);
        assert_eq!(daemon(&process(&[])), None);
        assert!(reads(&smtpd, Some(Path::new("/x/posta.toml"))));
        assert!(!reads(&smtpd, Some(Path::new("/etc/posta/posta.toml"))) && !reads(&smtpd, None));
        assert!(reads(&process(&["posta", "-c/y"]), Some(Path::new("/y"))));
        let plain = process(&["posta"]);
        assert!(reads(&plain, Some(Path::new(posta::config::DEFAULT_FILE))) && reads(&plain, None));
        assert!(!reads(&plain, Some(Path::new("/x/posta.toml"))));
    }

    #[test]
    fn a_child_of_the_same_program_is_left_to_it() {
        let parent = process(&["posta-local"]);
        let child = Process { pid: 8, parent: 7, ..parent.clone() };
        let all = [parent.clone(), child.clone()];
        assert!(is_child(&child, &all) && !is_child(&parent, &all));
    }

    #[test]
    fn a_level_is_a_word_of_the_configuration() {
        assert_eq!(parse("debug").ok(), Some(LevelFilter::Debug));
        let told = parse("dbug").map_err(|refusal| refusal.1).unwrap_err();
        assert!(told.contains("\"debug\""), "{told}");
    }
}
