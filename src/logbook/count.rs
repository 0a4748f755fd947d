//! Counters, and their text for `postactl metrics`: a program keeps them in a file, which is written anew
//! every few seconds if something has changed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

use super::collect::write;

/// The folder below `run` with the counters of posta-smtpd.
pub const RECEIVING: &str = "counters";
/// The folder below `run` with the counters of posta-remote.
pub const SENDING: &str = "remote-counters";

/// The file is never older than this.
const PACE: Duration = Duration::from_secs(5);

/// A number that many threads add to. Made as a `static`.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    labels: &'static str,
    help: &'static str,
    kind: &'static str,
    value: AtomicU64,
}

impl Counter {
    /// A number that only grows. By custom its name ends in `_total`.
    pub const fn growing(name: &'static str, help: &'static str) -> Counter {
        Counter { name, labels: "", help, kind: "counter", value: AtomicU64::new(0) }
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str) -> Counter {
        Counter { name, labels: "", help, kind: "gauge", value: AtomicU64::new(0) }
    }

    /// One of several numbers of the same name, told apart by labels as `status="sent"`.
    pub const fn labelled(self, labels: &'static str) -> Counter {
        Counter { labels, ..self }
    }

    /// Adds to it.
    pub fn add(&self, by: u64) {
        self.value.fetch_add(by, Ordering::Relaxed);
    }

    /// Takes from it.
    pub fn sub(&self, by: u64) {
        self.value.fetch_sub(by, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, to: u64) {
        self.value.store(to, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// The counters in Prometheus' text format. Those of one name must stand together.
pub fn export<'c>(counters: impl IntoIterator<Item = &'c Counter>) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    for counter in counters {
        let Counter { name, labels, help, kind, .. } = counter;
        // Writing to a String doesn't fail.
        if told.insert(*name) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let value = counter.get();
        let _ = match *labels {
            "" => writeln!(text, "{name} {value}"),
            labels => writeln!(text, "{name}{{{labels}}} {value}"),
        };
    }
    text
}

/// Starts the thread that keeps what `text` gives in a file.
pub fn keep(file: PathBuf, text: impl Fn() -> String + Send + 'static) -> io::Result<()> {
    let mut written = text();
    write(&file, &written)?;
    thread::Builder::new().name("counters".into()).spawn(move || {
        loop {
            thread::sleep(PACE);
            let now = text();
            if now != written {
                match write(&file, &now) {
                    Ok(()) => written = now,
                    Err(error) => log::debug!("{}: {error}", file.display()),
                }
            }
        }
    })?;
    Ok(())
}

/// Writes the file a last time.
pub fn end(file: &Path, text: &str) {
    if let Err(error) = write(file, text) {
        log::debug!("{}: {error}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_name_share_their_help() {
        static SENT: Counter =
            Counter::growing("posta_deliveries_total", "Attempts.").labelled("status=\"sent\"");
        static LATE: Counter =
            Counter::growing("posta_deliveries_total", "Attempts.").labelled("status=\"deferred\"");
        static SESSIONS: Counter = Counter::gauge("posta_sessions", "Sessions now.");
        SENT.add(3);
        SESSIONS.set(7);
        SESSIONS.sub(2);
        assert_eq!(
            export([&SENT, &LATE, &SESSIONS]),
            "# HELP posta_deliveries_total Attempts.\n# TYPE posta_deliveries_total counter\n\
             posta_deliveries_total{status=\"sent\"} 3\nposta_deliveries_total{status=\"deferred\"} 0\n\
             # HELP posta_sessions Sessions now.\n# TYPE posta_sessions gauge\nposta_sessions 5\n"
        );
    }
}
