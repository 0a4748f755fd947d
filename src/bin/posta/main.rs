//! posta, the keeper: opens what only root may open, starts the other programs as their users, and
//! starts them again when they end.
//!
//! SECURITY
//!   Runs as root, so it is small: it parses the configuration and nothing else. It binds the
//!   listening sockets and hands them over, but never accepts a connection, reads no byte from one,
//!   touches no mail; of the spool and in `run/` it only makes the folders, where there are none. It reads the TLS
//!   keys and the passwords for relays, and hands them, unparsed, to posta-smtpd and posta-remote, which
//!   may not open them themselves.
//!   Single threaded: its children are told of its end by the kernel, which watches the very thread
//!   that started them.
//!   Without root, or with `drop_privileges = false`, it and all it starts run as the caller.

mod house;
mod keep;
mod keys;
mod program;
mod sockets;

use std::path::Path;
use std::process::ExitCode;

use log::{error, info, warn};

use posta::unix::enclosure::Enclosure;
use posta::unix::seccomp::Power;
use posta::unix::signals::Signals;
use posta::unix::{privilege, sysexits};

use posta::config::Config;
use posta::config::options::Daemon;
use posta::logbook::sink;

use crate::house::{House, Owners};
use crate::keep::Keeper;
use crate::keys::Keys;
use crate::sockets::Sockets;

const DAEMON: Daemon = Daemon { name: "posta", about: "Starts and keeps the whole mail server.", own: &[] };

fn main() -> ExitCode {
    let begun = DAEMON.begin().and_then(|given| Ok((given.config()?, given)));
    begun.map_or_else(|code| code, |(config, given)| run(given.file(), config))
}

/// Everything after the configuration: starts, keeps until told to go.
fn run(file: Option<&Path>, config: Config) -> ExitCode {
    sink::start("posta", config.log.to, config.log.level);
    match start(file, config) {
        Ok(keeper) => {
            keeper.keep();
            info!("posta ended");
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            error!("{why}");
            ExitCode::from(code)
        }
    }
}

/// Opens everything; an error is the exit code and what is wrong.
fn start(file: Option<&Path>, config: Config) -> Result<Keeper, (u8, String)> {
    let signals = Signals::take_over()
        .map_err(|error| (sysexits::OSERR, format!("can't take over signals: {error}")))?;
    privilege::set_umask(0o022);
    // All that it starts inherits this.
    Enclosure { files: None, without: &[Power::Machine] }
        .enter()
        .map_err(|error| (sysexits::OSERR, format!("giving up powers: {error}")))?;
    if let Err(error) = privilege::raise_open_files() {
        warn!("the limit of open files stays as it is: {error}");
    }
    let owners = Owners::find(&config).map_err(|why| (sysexits::CONFIG, why))?;
    let keys = Keys::read(&config).map_err(|why| (sysexits::CONFIG, why))?;
    let house = House::enter(&config.run).map_err(|error| (error.exit_code(), error.to_string()))?;
    house::furnish(&config.run, &owners);
    house::fill_spool(&config.spool, &owners).map_err(|why| (sysexits::CANTCREAT, why))?;
    let patience = house.has_predecessor().then_some(&signals);
    let sockets =
        Sockets::bind(&config, &owners, patience).map_err(|error| (sysexits::OSERR, error.to_string()))?;
    info!("posta {} started, configuration {}", env!("CARGO_PKG_VERSION"), name_of(&config));
    Ok(Keeper::new(signals, house, sockets, keys, owners, file, config))
}

fn name_of(config: &Config) -> String {
    config.file.as_ref().map_or("built in".to_string(), |file| file.display().to_string())
}
