//! posta, the keeper: opens what only root may open, starts the other programs as their users, and
//! starts them again when they end.
//!
//! SECURITY
//!   Runs as root, so it is small: it parses the configuration and nothing else. It binds the
//!   listening sockets and hands them over, but never accepts a connection, reads no byte from one,
//!   touches no mail; of the spool it only makes the folders, where there are none. It reads the TLS
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

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopts::Options;
use log::{error, info, warn};

use posta::unix::signals::Signals;
use posta::unix::{privilege, sysexits};

use posta::config::{self, Config};
use posta::logbook::sink;

use crate::house::{House, Owners};
use crate::keep::Keeper;
use crate::keys::Keys;
use crate::sockets::Sockets;

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
        print!("{}", options.usage("usage: posta [-c FILE]\n\nStarts and keeps the whole mail server."));
        return ExitCode::SUCCESS;
    }
    if given.opt_present("V") {
        println!("posta {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let file = given.opt_str("c").map(PathBuf::from);
    match config::load(file.as_deref()) {
        Ok(config) => run(file.as_deref(), config),
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(sysexits::CONFIG)
        }
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("posta: {what}; \"posta -h\" prints what it takes");
    ExitCode::from(sysexits::USAGE)
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
    if let Err(error) = privilege::raise_open_files() {
        warn!("the limit of open files stays as it is: {error}");
    }
    let owners = Owners::find(&config).map_err(|why| (sysexits::CONFIG, why))?;
    let keys = Keys::read(&config).map_err(|why| (sysexits::CONFIG, why))?;
    let house = House::enter(&config.run).map_err(|error| (error.exit_code(), error.to_string()))?;
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
