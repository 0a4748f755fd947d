//! What became of each message, kept for a while: so that `postactl show` can answer for one that is
//! gone, on hosts whose log is elsewhere or rotated away.
//!
//! Files of lines, `MICROSECONDS ID text`, in a folder of their own; a new file each day, and when
//! one has grown long. They are written by a thread in the order of the events, and not synced: a
//! power cut may cost the last lines, and no promise hangs on them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::mail::id::Id;

use super::entry::Printable;

const SECOND: u64 = 1_000_000;
/// Lines that wait for a slow disk; more are lost, since nobody waits for the history.
const WAITING: usize = 16 * 1024;
/// After each write the thread sleeps for so long: under load it wakes for many lines, not for each.
const BREATH: Duration = Duration::from_millis(20);

/// What is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// Files older than this are removed. Zero: nothing is kept at all.
    pub age: Duration,
    /// The oldest are removed when all are longer than this: bytes.
    pub size: u64,
}

/// Takes lines.
#[derive(Debug, Clone)]
pub struct History {
    thread: Option<Arc<Thread>>,
    /// Lines were lost, and it has been said.
    behind: Arc<AtomicBool>,
}

/// The thread that writes, and how to reach it.
#[derive(Debug)]
struct Thread {
    lines: Option<SyncSender<Line>>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(handle) = self.handle.take() {
            // One that has panicked has said so.
            let _ = handle.join();
        }
    }
}

#[derive(Debug)]
struct Line {
    at: u64,
    id: Id,
    text: String,
}

impl History {
    /// Starts the thread that writes. When the last `History` is dropped, all is written.
    pub fn start(keep: Keep) -> io::Result<History> {
        if keep.age.is_zero() {
            return Ok(History { thread: None, behind: Arc::default() });
        }
        match DirBuilder::new().mode(0o700).create(&keep.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let (lines, heard) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("history".into());
        let handle = thread.spawn(move || Writer::new(keep).write_all(&heard))?;
        let thread = Thread { lines: Some(lines), handle: Some(handle) };
        Ok(History { thread: Some(Arc::new(thread)), behind: Arc::default() })
    }

    /// Notes what happened to a message; `at` in microseconds since 1970.
    pub fn note(&self, at: u64, id: Id, text: impl FnOnce() -> String) {
        let Some(lines) = self.thread.as_ref().and_then(|thread| thread.lines.as_ref()) else { return };
        match lines.try_send(Line { at, id, text: text() }) {
            Ok(()) => self.behind.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(_)) if !self.behind.swap(true, Ordering::Relaxed) => {
                log::warn!("history: the disk is too slow for it; what happens meanwhile is only in the log");
            }
            // A writer that is gone has said so.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// What was noted of a message, oldest first: when, in microseconds since 1970, and what.
pub fn find(folder: &Path, id: Id) -> io::Result<Vec<(u64, String)>> {
    let mut found = Vec::new();
    scan(folder, id.made().unwrap_or_default(), &mut |at, named, text| {
        if named == id.as_str() {
            found.push((at, text.to_string()));
        }
    })?;
    Ok(found)
}

/// All that was noted since then (microseconds since 1970), oldest first.
pub fn each(folder: &Path, since: u64, hear: &mut dyn FnMut(Id, &str)) -> io::Result<()> {
    scan(folder, since, &mut |at, named, text| {
        if at >= since
            && let Some(id) = Id::parse(named)
        {
            hear(id, text);
        }
    })
}

/// Every line of the days from `since` on: when, of whom, and what.
fn scan(folder: &Path, since: u64, hear: &mut dyn FnMut(u64, &str, &str)) -> io::Result<()> {
    let first_day = day(since);
    for name in names(folder)?.into_iter().filter(|name| *name >= first_day) {
        let file = match File::open(folder.join(name)) {
            // Its time was over just now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            let mut words = text.trim_end().splitn(3, ' ');
            if let (Some(at), Some(named), Some(text)) = (words.next(), words.next(), words.next())
                && let Ok(at) = at.parse()
            {
                hear(at, named, text);
            }
            line.clear();
        }
    }
    Ok(())
}

/// The files, oldest first; none if there is no folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let names: io::Result<Vec<_>> = listed.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
    let mut names: Vec<String> = names?.into_iter().flatten().collect();
    names.sort_unstable();
    Ok(names)
}

/// `2026-11-24`, of microseconds since 1970 (UTC).
fn day(micros: u64) -> String {
    let seconds = i64::try_from(micros / SECOND).unwrap_or_default();
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y-%m-%d").to_string())
        .unwrap_or_default()
}

struct Writer {
    keep: Keep,
    /// The file being written, its day, and how long it is.
    open: Option<(BufWriter<File>, String, u64)>,
    complained: bool,
}

impl Writer {
    fn new(keep: Keep) -> Writer {
        Writer { keep, open: None, complained: false }
    }

    /// Until there is nobody left who could say anything.
    fn write_all(mut self, heard: &Receiver<Line>) {
        while let Ok(line) = heard.recv() {
            let mut done = self.write(&line);
            // What has come meanwhile goes in the same piece.
            for line in heard.try_iter().take(WAITING) {
                done = done.and_then(|()| self.write(&line));
            }
            done = done.and_then(|()| self.open.as_mut().map_or(Ok(()), |(file, ..)| file.flush()));
            match done {
                Ok(()) => self.complained = false,
                Err(error) => {
                    self.open = None;
                    if !std::mem::replace(&mut self.complained, true) {
                        log::error!("{}: {error}; the history has a gap", self.keep.folder.display());
                    }
                }
            }
            std::thread::sleep(BREATH);
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let today = day(line.at);
        let part = (self.keep.size / 8).max(1);
        let open = self.open.take_if(|(_, day, length)| *day == today && *length < part);
        let (mut file, _, length) = match open {
            Some(open) => open,
            None => (self.begin(&today, line.at)?, String::new(), 0),
        };
        let text = format!("{} {} {}\n", line.at, line.id, Printable(&line.text));
        file.write_all(text.as_bytes())?;
        self.open = Some((file, today, length + text.len() as u64));
        Ok(())
    }

    /// The next file of a day; what is too old, or too much, goes.
    fn begin(&self, today: &str, now: u64) -> io::Result<BufWriter<File>> {
        let Keep { folder, age, size } = &self.keep;
        let first_day = day(now.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)));
        let names = names(folder)?;
        let mut left: u64 = 0;
        for name in names.iter().rev() {
            let path = folder.join(name);
            left += fs::metadata(&path)?.len();
            if *name < first_day || left > size - size / 8 {
                fs::remove_file(&path)?;
            }
        }
        // After the last one of the day: in the order of their names they are in the order of time.
        let last =
            names.last().and_then(|name| name.strip_prefix(today)?.strip_prefix('.')?.parse::<u64>().ok());
        let path = folder.join(format!("{today}.{:06}", last.map_or(0, |last| last + 1)));
        File::options().append(true).create_new(true).mode(0o600).open(path).map(BufWriter::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_550_000 * SECOND;
    const DAY: u64 = 86_400 * SECOND;

    fn line(at: u64, id: Id, text: &str) -> Line {
        Line { at, id, text: text.into() }
    }

    #[test]
    fn what_was_noted_is_found_across_days_and_restarts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("history");
        let keep = Keep { folder: folder.clone(), age: Duration::from_secs(14 * 86_400), size: 1 << 20 };
        let ids = [NOW, NOW + 5].map(|at| crate::mail::id::Mint::new(7).next(at));
        assert_eq!(find(&folder, ids[0]).unwrap(), []);
        let history = History::start(keep.clone()).unwrap();
        history.note(NOW, ids[0], || "from=<a@b>, size=3".into());
        drop(history);
        assert_eq!(find(&folder, ids[0]).unwrap().len(), 1);
        let mut writer = Writer::new(keep);
        writer.write(&line(NOW + 1, ids[1], "another")).unwrap();
        writer.write(&line(NOW + DAY, ids[0], "two\nlines")).unwrap();
        drop(writer);
        let wanted = [(NOW, "from=<a@b>, size=3".to_string()), (NOW + DAY, "two\\nlines".to_string())];
        assert_eq!(find(&folder, ids[0]).unwrap(), wanted);
        let mut since = Vec::new();
        each(&folder, NOW + 1, &mut |id, text| since.push((id, text.to_string()))).unwrap();
        assert_eq!(since, [(ids[1], "another".to_string()), (ids[0], "two\\nlines".to_string())]);
        // A file whose time is over between its listing and its opening is no fault.
        std::os::unix::fs::symlink("/no/such", folder.join("2099-01-01.000000")).unwrap();
        assert_eq!(find(&folder, ids[0]).unwrap(), wanted);
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_path_buf();
        let id = crate::mail::id::Mint::new(7).next(NOW);
        let mut writer =
            Writer::new(Keep { folder: folder.clone(), age: Duration::from_secs(2 * 86_400), size: 8000 });
        writer.write(&line(NOW, id, "old")).unwrap();
        writer.write(&line(NOW + 3 * DAY, id, "new")).unwrap();
        drop(writer.open.take());
        assert_eq!(find(&folder, id).unwrap().len(), 1);
        for n in 0..1000 {
            writer.write(&line(NOW + 3 * DAY + n, id, "many")).unwrap();
        }
        drop(writer.open.take());
        let all: u64 =
            names(&folder).unwrap().iter().map(|name| folder.join(name).metadata().unwrap().len()).sum();
        assert!(all <= 9000, "{all}");
        assert_eq!(find(&folder, id).unwrap().last(), Some(&(NOW + 3 * DAY + 999, "many".to_string())));
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("history");
        let history = History::start(Keep { folder: folder.clone(), age: Duration::ZERO, size: 1 }).unwrap();
        history.note(NOW, crate::mail::id::Mint::new(7).next(NOW), || panic!("nobody wants to know"));
        assert!(!folder.exists());
    }
}
