//! `metrics`: the counters of all programs, in the text format of Prometheus.
//!
//! posta-queue is asked; posta-smtpd and posta-remote leave theirs in `run/counters/` and
//! `run/remote-counters/`, which costs their sessions nothing.

use std::path::Path;

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order};

use posta::config::Config;
use posta::logbook::collect;

use posta::net::orders;

use crate::{PATIENCE, Refusal, refusal};

/// Prints them, or writes them to the file that `--file` names, at once and whole: where node_exporter's
/// textfile collector looks. Those of posta-queue are missing if it can't be asked, which is said last.
pub fn metrics(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let file = match words {
        [] => None,
        [option, file] if option == "--file" => Some(Path::new(file)),
        _ => return Err(Refusal::usage("metrics takes nothing, or --file FILE")),
    };
    let mut counted = String::new();
    let mut each = |answer, _| {
        if let Answer::Text(counters) = answer {
            counted += &counters;
        }
    };
    let asked = orders::give(&config.run.join("queue"), &Order::Metrics, Some(PATIENCE), &mut each);
    let text = collect::all(asked.is_ok().then_some(&*counted), &config.run)
        .map_err(|error| Refusal(sysexits::NOPERM, format!("{}: {error}", config.run.display())))?;
    match file {
        None => print!("{text}"),
        Some(file) => collect::write(file, &text)
            .map_err(|error| Refusal(sysexits::CANTCREAT, format!("{}: {error}", file.display())))?,
    }
    asked.map_err(refusal)?;
    Ok(sysexits::OK)
}
