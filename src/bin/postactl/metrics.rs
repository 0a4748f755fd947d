//! `metrics`: the counters of all programs, in the text format of Prometheus.
//!
//! posta-queue is asked; posta-smtpd and posta-remote leave theirs in `run/counters/` and
//! `run/remote-counters/`, which costs their sessions nothing.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order};

use posta::config::Config;
use posta::logbook::count;

use posta::net::orders;

use crate::{PATIENCE, Refusal, refusal};

/// Prints them, or writes them to the file that `--file` names, at once and whole: where node_exporter's
/// textfile collector looks. What can't be asked is said after the others.
pub fn metrics(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let file = match words {
        [] => None,
        [option, file] if option == "--file" => Some(Path::new(file)),
        _ => return Err(Refusal::usage("metrics takes nothing, or --file FILE")),
    };
    let mut text = String::new();
    let mut each = |answer, _| {
        if let Answer::Text(counters) = answer {
            text += &counters;
        }
    };
    let asked = orders::give(&config.run.join("queue"), &Order::Metrics, Some(PATIENCE), &mut each);
    text +=
        &format!("# TYPE posta_up gauge\nposta_up{{program=\"posta-queue\"}} {}\n", u8::from(asked.is_ok()));
    for folder in [count::RECEIVING, count::SENDING] {
        text += &left(&config.run.join(folder))?;
    }
    match file {
        None => print!("{text}"),
        Some(file) => write(file, &text)
            .map_err(|error| Refusal(sysexits::CANTCREAT, format!("{}: {error}", file.display())))?,
    }
    asked.map_err(refusal)?;
    Ok(sysexits::OK)
}

/// What the programs have left; nothing if none has.
fn left(folder: &Path) -> Result<String, Refusal> {
    let fault = |error: io::Error| Refusal(sysexits::NOPERM, format!("{}: {error}", folder.display()));
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        listed => listed.map_err(fault)?,
    };
    let mut text = String::new();
    for entry in listed {
        let path = entry.map_err(fault)?.path();
        // One that is just being written has such a name.
        if path.extension().is_none() {
            text += &fs::read_to_string(&path).map_err(fault)?;
        }
    }
    Ok(text)
}

/// The collector never sees half a file.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = fs::File::create(&new)?;
    written.write_all(text.as_bytes())?;
    fs::rename(&new, file)
}
