//! posta-auth: publishes who the users are, without their password hashes.
//!
//! SECURITY
//!   The only program that opens a file with passwords in it. Runs as root, so that such a file can
//!   be closed to everybody else. It reads the configuration and the users files that it names,
//!   writes `run/users`, and does nothing else: it listens on no socket, starts no program, and
//!   gives up the way to more rights (no_new_privs).

mod publication;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use log::{error, info};

use posta::unix::signals::{Signals, Told};
use posta::unix::{privilege, sandbox, sysexits};

use posta::config::options::Daemon;
use posta::config::{self, Config, DomainFate, Users};
use posta::logbook::sink;

use crate::publication::Publication;

/// Between two looks whether a users file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const DAEMON: Daemon = Daemon { name: "posta-auth", about: "Publishes who the users are.", own: &[] };

fn main() -> ExitCode {
    let begun = DAEMON.begin().and_then(|given| Ok((given.config()?, given)));
    begun.map_or_else(|code| code, |(config, given)| run(given.file(), &config))
}

fn run(file: Option<&Path>, config: &Config) -> ExitCode {
    let signals = Signals::take_over().and_then(|signals| sandbox::no_new_privileges().map(|()| signals));
    sink::start("posta-auth", config.log.to, config.log.level);
    privilege::set_umask(0o022);
    let done = signals.and_then(|signals| publish_until_told(&signals, file, config));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why}");
            ExitCode::from(sysexits::OSERR)
        }
    }
}

/// Publishes, and again whenever a file has changed, until SIGTERM.
fn publish_until_told(signals: &Signals, file: Option<&Path>, config: &Config) -> std::io::Result<()> {
    let mut publication = Publication::new(&config.run, users_files(config));
    loop {
        publication.renew();
        match signals.wait(Some(LOOK_AGAIN))? {
            Some(Told::Terminate) => return Ok(()),
            Some(Told::Reload) => match config::load(file) {
                Ok(config) => publication.of(users_files(&config)),
                Err(faults) => {
                    faults.iter().for_each(|fault| error!("{fault}"));
                    info!("the configuration stays as it was");
                }
            },
            Some(Told::Louder) => sink::louder(),
            Some(Told::Quieter) => sink::quieter(),
            Some(Told::Child) | None => {}
        }
    }
}

/// The users files that the configuration names, each once.
fn users_files(config: &Config) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for rule in &config.domains {
        if let DomainFate::Users { users: Users::File(file), .. } = &rule.fate
            && !files.contains(file)
        {
            files.push(file.clone());
        }
    }
    files
}
