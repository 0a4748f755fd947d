//! posta-drop: puts one message of a user of this host into the spool's drop folder.
//!
//! Reads from stdin an envelope as lines (see `head`), an empty line, and a message whose lines
//! that begin with a dot have one more, ended by a line with a dot alone. An end of stdin before
//! that line submits nothing. Prints the id of what it stored.
//!
//! SECURITY
//!   The only set-group-id program (group postadrop), and anybody may run it. With set-group-id it
//!   takes no `-c` and no environment, so that the folder is the system's own. It writes one file
//!   in `drop/`, which it can't list, and wakes posta-queue. It starts no program, opens no network
//!   connection, and delivers nothing. posta-queue trusts only the owner of the file.
//!   Without the group (no_new_privs forbids set-group-id) it hands an open file without a name to
//!   posta-queue over `run/drop`.

mod head;
mod message;
mod store;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use getopts::Options;

use posta::unix::enclosure::{Enclosure, Files};
use posta::unix::seccomp::Power;
use posta::unix::{privilege, sysexits};

use posta::mail::id::Id;

use posta::config::{self, Config};

use crate::head::HeadError;
use crate::message::Undone;
use crate::store::{Store, StoreError};

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("c", "", "read the configuration from FILE; not with set-group-id", "FILE");
    options.optflag("V", "", "print the version");
    options.optflag("h", "", "print this help");
    options
}

/// Why nothing was submitted: the exit code and what to say.
struct Refusal(u8, String);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal(code, why)) => {
            why.lines().for_each(|line| eprintln!("posta-drop: {line}"));
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), Refusal> {
    let options = options();
    let usage = |what: String| Refusal(sysexits::USAGE, what);
    let given = options.parse(std::env::args_os().skip(1)).map_err(|error| usage(error.to_string()))?;
    if let Some(extra) = given.free.first() {
        return Err(usage(format!("unexpected argument \"{extra}\"; the envelope is read from stdin")));
    }
    if given.opt_present("h") {
        print!("{}", options.usage("usage: posta-drop [-c FILE] < envelope-and-message"));
        return Ok(());
    }
    if given.opt_present("V") {
        println!("posta-drop {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let file = given.opt_str("c").map(PathBuf::from);
    if file.is_some() && privilege::has_more_than_its_caller() {
        return Err(Refusal(
            sysexits::NOPERM,
            "-c is not taken by a set-group-id program: it reads the system's configuration only".into(),
        ));
    }
    privilege::set_umask(0o027);
    let config = config::load(file.as_deref()).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| fault.to_string()).collect();
        Refusal(sysexits::CONFIG, lines.join("\n"))
    })?;
    let id = submit(&config, &mut io::stdin().lock())?;
    println!("{id}");
    Ok(())
}

/// Reads envelope and message and stores them. The file is opened first: then nothing else has to be.
fn submit(config: &Config, input: &mut impl BufRead) -> Result<Id, Refusal> {
    let mut store = Store::begin(&config.spool, &config.run)?;
    enclose(config)?;
    let submission = head::read(input)?;
    let most = config.smtpd.max_message_size;
    let mut size = 0;
    let mut undone = Undone::default();
    undone.read(input, &mut |bytes| {
        size += bytes.len() as u64;
        if size > most {
            let why = format!("the message is larger than the {most} bytes of smtpd.max_message_size");
            return Err(Refusal(sysexits::DATA, why));
        }
        Ok(store.push(bytes)?)
    })?;
    Ok(store.finish(submission, undone.has_eight_bit())?)
}

/// Keeps to the spool before anything is read.
fn enclose(config: &Config) -> Result<(), Refusal> {
    let files = Files { read: vec!["/".into()], write: vec![config.spool.clone()], network: true };
    let entered = Enclosure { files: Some(files), without: Power::ALL }.enter();
    entered.map(drop).map_err(|error| Refusal(sysexits::OSERR, format!("giving up powers: {error}")))
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Refusal {
        let code = if matches!(error, HeadError::Io(_)) { sysexits::IOERR } else { sysexits::DATA };
        Refusal(code, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal(error.exit_code(), error.to_string())
    }
}

impl From<message::Cut> for Refusal {
    fn from(cut: message::Cut) -> Refusal {
        let code = if matches!(cut, message::Cut::Io(_)) { sysexits::IOERR } else { sysexits::DATA };
        Refusal(code, cut.to_string())
    }
}
