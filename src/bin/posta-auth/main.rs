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

use getopts::Options;
use log::{error, info};

use posta::unix::signals::{Signals, Told};
use posta::unix::{privilege, sandbox, sysexits};

use posta::config::{self, Config, DomainFate, Users};
use posta::logbook::sink;

use crate::publication::Publication;

/// Between two looks whether a users file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("c", "", "read the configuration from FILE", "FILE");
    options.optflag("V", "", "print the version");
    options.optflag("h", "", "print this help");
    options
}

fn main() -> ExitCode {
    let options = options();
    let given = match options.parse(std::env::args_os().skip(1)) {
        Ok(given) if given.free.is_empty() => given,
        Ok(given) => return usage(&format!("unexpected argument \"{}\"", given.free[0])),
        Err(error) => return usage(&error.to_string()),
    };
    if given.opt_present("h") {
        print!("{}", options.usage("usage: posta-auth [-c FILE]\n\nPublishes who the users are."));
        return ExitCode::SUCCESS;
    }
    if given.opt_present("V") {
        println!("posta-auth {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let file = given.opt_str("c").map(PathBuf::from);
    match config::load(file.as_deref()) {
        Ok(config) => run(file.as_deref(), &config),
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(sysexits::CONFIG)
        }
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("posta-auth: {what}; \"posta-auth -h\" prints what it takes");
    ExitCode::from(sysexits::USAGE)
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
