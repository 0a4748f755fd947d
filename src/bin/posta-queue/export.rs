//! `queue.metrics_file`: what all programs have counted, written to a file each minute, where the textfile
//! collector of node_exporter looks. A thread of its own: a disk that hangs stops no mail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use posta::courier::order::{Answer, Order};

use posta::logbook::collect;

use crate::runner::Event;

/// Between two writings.
const PACE: Duration = Duration::from_secs(60);

/// Starts the thread; what it is told at the start and at a reload is the file, if there is to be one.
pub fn start(run: PathBuf, events: Sender<Event>) -> io::Result<Sender<Option<PathBuf>>> {
    let (files, told) = channel();
    let export = Export { run, events, file: None, fault: None };
    std::thread::Builder::new().name("metrics".into()).spawn(move || export.run(&told))?;
    Ok(files)
}

struct Export {
    /// The folder below which programs leave their counters.
    run: PathBuf,
    events: Sender<Event>,
    file: Option<PathBuf>,
    /// What went wrong last time, which the log has already.
    fault: Option<String>,
}

impl Export {
    /// Until nobody is left who could tell of another file, or the runner has gone.
    fn run(mut self, told: &Receiver<Option<PathBuf>>) {
        loop {
            match told.recv_timeout(PACE) {
                Ok(file) => self.file = file,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(file) = self.file.clone() else { continue };
            let Some(counted) = self.ask() else { return };
            let written = self.write(&file, &counted).err().map(|error| error.to_string());
            if let Some(fault) = &written
                && self.fault != written
            {
                log::warn!("queue.metrics_file: {}: {fault}", file.display());
            }
            self.fault = written;
        }
    }

    /// The runner's own counters; `None` if it has gone.
    fn ask(&self) -> Option<String> {
        let (answers, heard) = channel();
        self.events.send(Event::Order(Order::Metrics, answers)).ok()?;
        let texts = heard.iter().filter_map(|answer| match answer {
            Answer::Text(text) => Some(text),
            _ => None,
        });
        Some(texts.collect())
    }

    fn write(&self, file: &Path, counted: &str) -> io::Result<()> {
        collect::write(file, &collect::all(Some(counted), &self.run)?)
    }
}
