//! sendmail, mailq, newaliases: the command that every Unix program calls to send a mail.
//!
//! Reads a message, completes its header, takes recipients from the command line or (`-t`) the
//! header, and hands it to posta-drop. As `mailq` (`-bp`) it lists the queue, as `newaliases` (`-bi`) it
//! looks whether the aliases can be read.
//!
//! SECURITY
//!   Runs as its caller, without any right of its own, on input that is the caller's or, from web
//!   forms and the like, a stranger's. Addresses with control characters are refused, so that no
//!   header field can be smuggled in. It opens the configuration and `run/queue`, and starts
//!   posta-drop (with `-bs` posta-smtpd), never a shell. What of sendmail's options would write
//!   a file or choose where things are is refused.

mod aliases;
mod compose;
mod dangerous;
mod header;
mod input;
mod listing;
mod options;
mod submit;
mod verify;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use getopts::{Matches, ParsingStyle};

use posta::unix::{child, sysexits, users};

use posta::courier::order::Order;

use posta::config::{self, Config};

use posta::net::orders;

use crate::options::{Deliver, Flush, Mode, Options};

/// How long posta-queue may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes wrong ends here: the exit code (sysexits) and what is said.
#[derive(Debug)]
pub struct Refusal(pub u8, pub String);

/// Whether a letter has a value.
#[derive(Clone, Copy)]
enum Value {
    None,
    /// In the same word or the next.
    Wanted(&'static str),
    /// In the same word only.
    Attached(&'static str),
}

/// The letters: those with a meaning here, and those that other sendmails know and old callers give.
const LETTERS: &[(&str, Value, &str)] = &[
    ("t", Value::None, "take recipients from To, Cc and Bcc, and remove Bcc"),
    ("i", Value::None, "a line with a dot alone does not end the message (also -oi)"),
    ("f", Value::Wanted("ADDRESS"), "envelope sender; <> is nobody"),
    ("r", Value::Wanted("ADDRESS"), "the same"),
    ("F", Value::Wanted("NAME"), "full name for a From that is missing"),
    (
        "b",
        Value::Wanted("MODE"),
        "p: list the queue; s: SMTP on stdin; v: verify addresses; i: check the aliases; m: send",
    ),
    ("q", Value::Attached("WHAT"), "try the queue now: all, or RDOMAIN, or IID"),
    ("N", Value::Wanted("WISHES"), "notify: never, or failure,delay,success"),
    ("R", Value::Wanted("PART"), "a failure notice gives back: full or hdrs"),
    ("V", Value::Attached("ENVID"), "envelope id; -V alone prints the version"),
    ("v", Value::None, "print the id of what was stored"),
    ("c", Value::Wanted("FILE"), "read the configuration from FILE"),
    ("C", Value::Wanted("FILE"), "the same, for root"),
    ("o", Value::Wanted("OPTION"), "ignored, but for -oi; refused if it names a file"),
    ("A", Value::Wanted("X"), "ignored"),
    ("B", Value::Wanted("TYPE"), "ignored: the body's kind is seen from the body"),
    ("D", Value::Wanted("FILE"), "refused"),
    ("L", Value::Wanted("TAG"), "ignored"),
    ("O", Value::Wanted("OPTION"), "ignored; refused if it names a file"),
    ("X", Value::Wanted("FILE"), "refused"),
    ("d", Value::Attached("LEVEL"), "ignored"),
    ("e", Value::Wanted("MODE"), "ignored: errors are told by the exit code and on stderr"),
    ("p", Value::Wanted("PROTOCOL"), "ignored"),
    ("h", Value::Attached("HOPS"), "ignored; -h alone prints this help"),
    ("G", Value::None, "ignored"),
    ("I", Value::None, "as -bi"),
    ("U", Value::None, "ignored"),
    ("m", Value::None, "ignored"),
    ("n", Value::None, "ignored"),
];

fn table() -> getopts::Options {
    let mut table = getopts::Options::new();
    // An address that begins with a dash must not become an option: "--", or after the first recipient.
    table.parsing_style(ParsingStyle::StopAtFirstFree);
    for (letter, value, help) in LETTERS {
        match value {
            Value::None => table.optflagmulti(letter, "", help),
            Value::Wanted(hint) => table.optmulti(letter, "", help, hint),
            Value::Attached(hint) => table.optflagopt(letter, "", help, hint),
        };
    }
    table
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(Refusal(code, why)) => {
            why.lines().for_each(|line| eprintln!("sendmail: {line}"));
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<u8, Refusal> {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or("sendmail");
    let words: Vec<_> = words.map(options::attach).collect();
    let given = table().parse(&words).map_err(|e| Refusal(sysexits::USAGE, e.to_string()))?;
    let alone = |letter: &str| given.opt_present(letter) && values(&given, letter).is_empty();
    if alone("h") {
        print!("{}", table().usage("usage: sendmail [option ...] [recipient ...] < message"));
        return Ok(sysexits::OK);
    }
    if alone("V") {
        println!("posta sendmail {}", env!("CARGO_PKG_VERSION"));
        return Ok(sysexits::OK);
    }
    let asked = |letter: &str| given.opt_present(letter).then(|| values(&given, letter));
    dangerous::refuse(&asked, users::current().0 == 0)?;
    let options = options::read(called, &asked, given.free.clone())?;
    let config = config::load(options.config.as_deref()).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(|fault| fault.to_string()).collect();
        Refusal(sysexits::CONFIG, lines.join("\n"))
    })?;
    carry_out(options, &config)
}

/// The values of a letter, in order; a letter that stands alone has none.
fn values(given: &Matches, letter: &str) -> Vec<String> {
    given.opt_strs(letter).into_iter().filter(|value| value != options::NOTHING_ATTACHED).collect()
}

fn carry_out(options: Options, config: &Config) -> Result<u8, Refusal> {
    match &options.mode {
        Mode::Deliver(deliver) => deliver_mail(&options, deliver, config),
        Mode::List => listing::print(&config.run.join("queue")),
        Mode::Verify(addresses) => verify::verify(addresses, config),
        Mode::Aliases => aliases::check(config),
        Mode::Flush(flush) => give_flush(flush, config),
        Mode::Smtp => Err(speak_smtp(&options, config)),
        Mode::Nothing => Ok(sysexits::OK),
    }
}

fn deliver_mail(options: &Options, deliver: &Deliver, config: &Config) -> Result<u8, Refusal> {
    let mut input = std::io::stdin().lock();
    let caller = submit::Caller::find(&config.hostname, options)?;
    let mail = compose::compose(&mut input, deliver, &caller)?;
    submit::hand_to_drop(mail, &mut input, deliver, options, config)
}

/// `-q`: an ordinary user may ask for a pass over what is due; root has everything tried.
fn give_flush(flush: &Flush, config: &Config) -> Result<u8, Refusal> {
    let order = match flush {
        Flush::All if users::current().0 == 0 => Order::RetryAll,
        Flush::All => Order::Pass,
        Flush::Domain(domain) => Order::RetryDomain(domain.clone()),
        Flush::Id(id) => Order::RetryId(*id),
    };
    let socket = config.run.join("queue");
    orders::give(&socket, &order, None, &mut |_, _| {}).map_err(order_refusal)?;
    Ok(sysexits::OK)
}

/// The exit code and words for an order that came to nothing.
pub fn order_refusal(error: orders::OrderError) -> Refusal {
    Refusal(error.exit_code(), error.to_string())
}

/// `-bs`: becomes `posta-smtpd -i`, which comes back only if that can't be.
fn speak_smtp(options: &Options, config: &Config) -> Refusal {
    let path = match child::program("posta-smtpd", &config.libexec) {
        Ok(path) => path,
        Err(error) => return Refusal(sysexits::OSERR, error.to_string()),
    };
    let new = config.spool.join("new");
    if !posta::unix::users::may_write(&new) {
        return Refusal(
            sysexits::NOPERM,
            format!(
                "-bs stores mail in {} by itself, which this user may not; connect to port 25, or give the \
                 message to \"sendmail -t\"",
                new.display()
            ),
        );
    }
    let mut command = Command::new(&path);
    command.arg("-i");
    if let Some(file) = &options.config {
        command.arg("-c").arg(file);
    }
    let error = command.exec();
    Refusal(sysexits::OSERR, format!("{}: {error}", path.display()))
}
