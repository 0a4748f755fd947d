//! postactl: the administrator's command.
//!
//! SECURITY
//!   Runs as its caller, without any right of its own. It reads the configuration, and for `why` the
//!   tables that the configuration names, and for `session` and `metrics` what
//!   posta-smtpd has left in `run/`. Orders about the queue go to posta-queue over `run/queue`,
//!   which knows the caller's user id from the kernel and decides what that user may do. It never
//!   touches the queue by itself, but for `set-permissions`, which makes its folders; `audit` reads the
//!   history beside it. `passwd` reads and
//!   replaces a users file, as far as the caller may; `log` sends signals to the programs, likewise.

mod audit;
mod cdb;
mod change;
mod check;
mod client;
mod explain;
mod filter;
mod list;
mod log;
mod metrics;
mod passwd;
mod permissions;
mod session;
mod show;
mod totals;
mod when;
mod word;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use getopts::{Options, ParsingStyle};

use posta::unix::sysexits;

use posta::courier::order::Order;

use posta::config::{self, Config};

use posta::net::orders;

use crate::word::Word;

/// How long posta-queue may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes wrong ends here: the exit code (sysexits) and what is said.
pub struct Refusal(pub u8, pub String);

impl Refusal {
    /// A command line that makes no sense.
    pub fn usage(what: impl Into<String>) -> Refusal {
        Refusal(sysexits::USAGE, what.into())
    }
}

fn options() -> Options {
    let mut options = Options::new();
    // What follows the word belongs to the word.
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    options.optopt("c", "", "read the configuration from FILE", "FILE");
    options.optflag("V", "", "print the version");
    options.optflag("h", "", "print this help");
    options
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(Refusal(code, why)) => {
            why.lines().for_each(|line| eprintln!("postactl: {line}"));
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<u8, Refusal> {
    let options = options();
    let given = options.parse(std::env::args_os().skip(1)).map_err(|e| Refusal::usage(e.to_string()))?;
    if given.opt_present("h") {
        print!("{}", options.usage(&word::help()));
        return Ok(sysexits::OK);
    }
    if given.opt_present("V") {
        println!("postactl {}", env!("CARGO_PKG_VERSION"));
        return Ok(sysexits::OK);
    }
    let Some((name, rest)) = given.free.split_first() else {
        return Err(Refusal::usage(format!("what to do?\n{}", word::help())));
    };
    let word = word::find(name).map_err(Refusal::usage)?;
    let file = given.opt_str("c").map(PathBuf::from);
    if *word == Word::Check {
        return check::check(file.as_deref(), rest);
    }
    let config = config::load(file.as_deref()).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| fault.to_string()).collect();
        Refusal(sysexits::CONFIG, lines.join("\n"))
    })?;
    carry_out(word, rest, &config)
}

fn carry_out(word: &Word, rest: &[String], config: &Config) -> Result<u8, Refusal> {
    match word {
        Word::Check => check::check(config.file.as_deref(), rest),
        Word::Settings => check::settings(rest),
        Word::Queue => list::list(rest, config),
        Word::Show => show::show(rest, config),
        Word::Cat => show::cat(rest, config),
        Word::Metrics => metrics::metrics(rest, config),
        Word::Hold | Word::Release | Word::Delete | Word::Bounce => change::change(word, rest, config),
        Word::Retry => change::retry(rest, config),
        Word::Pause => change::of_domain(Order::Pause, rest, config),
        Word::Resume => change::of_domain(Order::Resume, rest, config),
        Word::Session => session::session(rest, config),
        Word::Audit => audit::audit(rest, config),
        Word::When => when::when(rest, config),
        Word::Why => explain::why(rest, config),
        Word::Log => log::log(rest, config),
        Word::Cdb => cdb::build(rest, config),
        Word::Passwd => passwd::passwd(rest, config),
        Word::SetPermissions => permissions::set(rest, config),
    }
}

/// Gives an order that needs no answer but that it was carried out.
pub fn give(order: &Order, config: &Config) -> Result<(), Refusal> {
    orders::give(&config.run.join("queue"), order, Some(PATIENCE), &mut |_, _| {}).map_err(refusal)
}

/// The exit code and words for an order that came to nothing.
pub fn refusal(error: orders::OrderError) -> Refusal {
    Refusal(error.exit_code(), error.to_string())
}
