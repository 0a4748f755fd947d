//! Honest mail: everybody's from outside, and a user's own with a password. Who is told to come again
//! comes again, as an MTA does; every message has to arrive.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::attack::shake;
use crate::target::{HONEST, Target, connect, wait_long_for};
use crate::words;

/// One message may take so long to be accepted, all attempts together.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two messages of one sender, and before a new attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// Where it all goes.
const USER: &str = "honest";

/// Honest mail under way.
pub struct Post<'a> {
    target: &'a Target,
    next: AtomicU64,
    /// Attempts of which we do not know whether they were accepted.
    unclear: AtomicU64,
    /// Attempts that came to nothing.
    again: AtomicU64,
    /// How long each message took to be accepted, all attempts together.
    accepted: Mutex<Vec<Duration>>,
}

/// What came of it.
pub struct Account {
    pub sent: usize,
    /// Attempts that were refused or cut off, and made again.
    pub again: u64,
    /// From the first attempt until it was accepted, shortest first.
    pub waits: Vec<Duration>,
    /// From the first attempt until it lay in the mailbox, shortest first.
    pub delays: Vec<Duration>,
}

impl<'a> Post<'a> {
    pub fn new(target: &'a Target) -> Post<'a> {
        let [next, unclear, again] = [0; 3].map(AtomicU64::new);
        Post { target, next, unclear, again, accepted: Mutex::default() }
    }

    /// Sends one message after the other until it is over; each is accepted before the next one is begun.
    pub fn send_until(&self, over: &AtomicBool, with_password: bool) {
        while !over.load(Ordering::Relaxed) {
            self.send(with_password);
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends one message, in as many attempts as it takes.
    pub fn send(&self, with_password: bool) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let message =
            format!("From: <a@honest.example>\r\nX-Number: {number}\r\nX-Began: {began}\r\n\r\n.\r\n");
        let first = Instant::now();
        loop {
            let mut said_all = false;
            let outcome = if with_password {
                self.submit(&message, &mut said_all)
            } else {
                self.hand_over(&message, &mut said_all)
            };
            let Err(error) = outcome else {
                self.accepted.lock().unwrap().push(first.elapsed());
                return;
            };
            self.unclear.fetch_add(u64::from(said_all), Ordering::SeqCst);
            self.again.fetch_add(1, Ordering::SeqCst);
            assert!(first.elapsed() < PATIENCE, "message {number} is not accepted in {PATIENCE:?}: {error}");
            std::thread::sleep(PAUSE);
        }
    }

    fn hand_over(&self, message: &str, said_all: &mut bool) -> io::Result<()> {
        let mut stream = connect(HONEST, self.target.smtp)?;
        words::hear(&mut stream, 220)?;
        words::say(&mut stream, "EHLO honest.example\r\n", 250)?;
        transact(&mut stream, message, said_all)
    }

    fn submit(&self, message: &str, said_all: &mut bool) -> io::Result<()> {
        let mut stream = connect(HONEST, self.target.submission)?;
        words::hear(&mut stream, 220)?;
        words::say(&mut stream, "EHLO honest.example\r\n", 250)?;
        words::say(&mut stream, "STARTTLS\r\n", 220)?;
        let mut stream = shake(stream)?;
        words::say(&mut stream, "EHLO honest.example\r\n", 250)?;
        // carol@users.example, "secret".
        words::say(&mut stream, "AUTH PLAIN AGNhcm9sQHVzZXJzLmV4YW1wbGUAc2VjcmV0\r\n", 235)?;
        transact(&mut stream, message, said_all)
    }

    /// Waits until every message is in the mailbox, and empties it.
    pub fn collect(self) -> Account {
        let sent = usize::try_from(self.next.into_inner()).unwrap();
        let folder = self.target.house.path(&format!("mail/{USER}/new"));
        let mut found: BTreeMap<u64, Duration> = BTreeMap::new();
        let mut copies = 0;
        let what = format!("{sent} honest messages in the mailbox");
        wait_long_for(&what, || {
            for path in files(&folder) {
                let Some((number, delay)) = look_at(&path) else { continue };
                found.insert(number, delay);
                copies += 1;
                fs::remove_file(path).unwrap();
            }
            (found.len() >= sent).then_some(())
        });
        let unclear = self.unclear.into_inner();
        assert!(copies <= sent as u64 + unclear, "{copies} copies of {sent} messages, {unclear} unclear");
        let mut delays: Vec<Duration> = found.into_values().collect();
        delays.sort();
        let mut waits = self.accepted.into_inner().unwrap();
        waits.sort();
        Account { sent, again: self.again.into_inner(), waits, delays }
    }
}

/// The duration that this part of all did not exceed.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn transact(stream: &mut (impl io::Read + io::Write), message: &str, said_all: &mut bool) -> io::Result<()> {
    words::say(stream, "MAIL FROM:<carol@users.example>\r\n", 250)?;
    words::say(stream, format!("RCPT TO:<{USER}@example.org>\r\n"), 250)?;
    words::say(stream, "DATA\r\n", 354)?;
    *said_all = true;
    words::say(stream, message, 250)
}

/// The files of a folder that may not be there yet.
pub fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Which message a file is, and how long it took to get there: a name in `new/` is the last thing that
/// happens to a file there.
fn look_at(path: &PathBuf) -> Option<(u64, Duration)> {
    let text = fs::read_to_string(path).ok()?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let (number, began) = (field("X-Number: ")?.parse().ok()?, field("X-Began: ")?.parse().ok()?);
    let about = fs::metadata(path).ok()?;
    let there = Duration::new(about.ctime().try_into().ok()?, about.ctime_nsec().try_into().ok()?);
    Some((number, there.saturating_sub(Duration::from_micros(began))))
}
