//! Looking for new mail: hints from the trigger, and scans of the folders.
//!
//! A hint may get lost, so `new/` and `drop/` are scanned every half minute too. A name that such a
//! scan finds counts only when the scan before found it as well: a file that was linked just now may
//! still wait for its sync, and its hint will come.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use posta::mail::id::Id;

use posta::unix::fifo::Trigger;
use posta::unix::signals::wait_readable;

use posta::spool::{Place, Spool, SpoolError};

use crate::porter::Porter;
use crate::runner::Event;
use crate::schedule::SECOND;

const SCAN_EVERY: Duration = Duration::from_secs(30);
/// A read that fills this much may have come from a pipe that overflowed.
const BUFFER: usize = 64 * 1024;
const BATCH: usize = 1000;

/// Starts the thread that watches, and one that scans all there is: new mail does not wait until a
/// million old messages are known.
pub fn start(
    spool: Arc<Spool>,
    trigger: &Path,
    porter: Porter,
    events: Sender<Event>,
) -> std::io::Result<()> {
    // Opened before the first scan: what comes in after the scan has passed it leaves a hint.
    let trigger = Trigger::open(trigger)?;
    let drop = DropFolder { spool: spool.clone(), porter };
    // Before the first word to the runner, who delivers at once.
    if let Err(error) = drop.each(|id| drop.porter.finish(id)) {
        log::error!("drop/ could not be scanned: {error}");
    }
    let (first, told) = (drop.clone(), events.clone());
    let scan = FirstScan { spool: spool.clone(), drop: first, events: told, batch: Vec::new() };
    let watch = Watch { spool, trigger, drop, events, before: HashSet::new(), partial: Vec::new() };
    std::thread::Builder::new().name("scan".into()).spawn(move || scan.run())?;
    std::thread::Builder::new().name("watch".into()).spawn(move || watch.run())?;
    Ok(())
}

/// The scan of the start. A runner that has gone meanwhile hears nothing of it, and needs nothing.
struct FirstScan {
    spool: Arc<Spool>,
    drop: DropFolder,
    events: Sender<Event>,
    batch: Vec<(Id, u64, u32, bool)>,
}

impl FirstScan {
    fn run(mut self) {
        if let Err(error) = self.scan() {
            log::error!(
                "the spool could not be scanned: {error}; mail that is in it waits for the next start"
            );
        }
        let _ = self.events.send(Event::Scanned);
    }

    /// `new/` before `cur/`, since messages move that way; what users have dropped in between, so that a
    /// single pass (`-1`) knows of it before it ends. It keeps its id.
    fn scan(&mut self) -> Result<(), SpoolError> {
        let mut batch = Vec::new();
        self.spool.scan_new_at_start(&mut |id| {
            batch.push(id);
            if batch.len() >= BATCH {
                let _ = self.events.send(Event::Fresh(std::mem::take(&mut batch)));
            }
        })?;
        let _ = self.events.send(Event::Fresh(batch));
        let fetched = self.drop.each(|id| {
            self.drop.porter.fetch(id);
            let _ = self.events.send(Event::Fresh(vec![id]));
        });
        if let Err(error) = fetched {
            log::error!("drop/ could not be scanned: {error}");
        }
        let spool = self.spool.clone();
        spool.scan_aside(&mut |aside| {
            let held = aside.place == Place::Hold;
            self.batch.push((aside.id, aside.next * SECOND, aside.destination, held));
            if self.batch.len() >= BATCH {
                self.send_batch();
            }
        })?;
        self.send_batch();
        Ok(())
    }

    fn send_batch(&mut self) {
        let _ = self.events.send(Event::Aside(std::mem::take(&mut self.batch)));
    }
}

/// `drop/`, as it is scanned.
#[derive(Clone)]
struct DropFolder {
    spool: Arc<Spool>,
    porter: Porter,
}

impl DropFolder {
    fn each(&self, work: impl Fn(Id)) -> Result<(), SpoolError> {
        let mut dropped = Vec::new();
        self.spool.scan_drop(&mut |id| dropped.push(id))?;
        dropped.into_iter().for_each(work);
        Ok(())
    }

    fn fetch_all(&self) -> Result<(), SpoolError> {
        self.each(|id| self.porter.fetch(id))
    }
}

struct Watch {
    spool: Arc<Spool>,
    trigger: Trigger,
    drop: DropFolder,
    events: Sender<Event>,
    /// What the last scan of `new/` found.
    before: HashSet<Id>,
    /// A line of which the rest has not been read yet.
    partial: Vec<u8>,
}

impl Watch {
    fn run(mut self) {
        let mut next_scan = Instant::now() + SCAN_EVERY;
        loop {
            let left = next_scan.saturating_duration_since(Instant::now());
            let waited = wait_readable(&[self.trigger.as_fd()], Some(left));
            let more = match waited.and_then(|_| self.read_hints()) {
                Ok(overflow) => overflow,
                Err(error) => {
                    log::error!("the trigger can't be read: {error}; new mail is found by scans only");
                    std::thread::sleep(Duration::from_secs(1));
                    false
                }
            };
            if more || Instant::now() >= next_scan {
                if let Err(error) = self.scan() {
                    log::error!("the spool could not be scanned: {error}");
                }
                next_scan = Instant::now() + SCAN_EVERY;
            }
            if self.events.send(Event::Tick).is_err() {
                return;
            }
        }
    }

    fn scan(&mut self) -> Result<(), SpoolError> {
        let mut found = HashSet::new();
        self.spool.scan_new(&mut |id| {
            found.insert(id);
        })?;
        let twice: Vec<Id> = found.intersection(&self.before).copied().collect();
        self.before = found;
        let _ = self.events.send(Event::Fresh(twice));
        self.drop.fetch_all()
    }

    /// Reads the hints that are there; `true` if some may have been lost.
    fn read_hints(&mut self) -> std::io::Result<bool> {
        let mut buffer = vec![0; BUFFER];
        let mut overflow = false;
        while let Some(length) = self.trigger.read(&mut buffer)? {
            overflow |= length == BUFFER;
            self.partial.extend_from_slice(&buffer[..length]);
            overflow |= self.take_lines();
        }
        Ok(overflow)
    }

    /// Takes the whole lines; `true` if one was no hint.
    fn take_lines(&mut self) -> bool {
        let Some(end) = self.partial.iter().rposition(|b| *b == b'\n') else {
            // Anybody may write to the trigger: what is no line is not gathered without end.
            let garbage = self.partial.len() > 64;
            if garbage {
                self.partial.clear();
            }
            return garbage;
        };
        let lines: Vec<u8> = self.partial.drain(..=end).collect();
        let mut fresh = Vec::new();
        let mut wrong = false;
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let text = std::str::from_utf8(line).unwrap_or_default();
            match (text.strip_prefix('+').and_then(Id::parse), Id::parse(text)) {
                (Some(dropped), _) => self.drop.porter.fetch(dropped),
                (None, Some(id)) => fresh.push(id),
                (None, None) => wrong = true,
            }
        }
        let _ = self.events.send(Event::Fresh(fresh));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use crate::porter::tests::porter;
    use crate::stage::Stage;

    use super::*;

    /// A power cut may undo the move to `cur/` and keep the journal. Such a message must not be opened in
    /// `new/` while the scan moves it: it would be delivered and stay, or be forgotten until the next start.
    #[test]
    fn what_was_being_set_aside_is_found_once_and_in_cur() {
        let stage = Stage::new();
        let (torn, new) = (stage.commit("torn@x"), stage.commit("new@x"));
        let entry = stage.spool.open(torn, Place::New).unwrap();
        drop(stage.spool.set_aside(&entry, &[]).unwrap());
        stage.spool.move_to(torn, Place::Cur, Place::New).unwrap();
        let (events, heard) = channel();
        let spool = stage.spool.clone();
        let drop = DropFolder { spool: spool.clone(), porter: porter(&stage) };
        FirstScan { spool, drop, events, batch: Vec::new() }.run();
        let (mut fresh, mut aside) = (Vec::new(), Vec::new());
        for event in heard {
            match event {
                Event::Fresh(ids) => fresh.extend(ids),
                Event::Aside(found) => aside.extend(found.into_iter().map(|found| found.0)),
                _ => {}
            }
        }
        assert_eq!((fresh, aside), (vec![new], vec![torn]));
    }
}
