//! Makes a spool with many deferred messages, to measure how posta-queue starts and works with it:
//!
//!     cargo run --release --example deep-spool -- N FOLDER [DOMAINS [HOURS]]
//!
//! FOLDER becomes a spool (or gets N messages more) as if N messages for DOMAINS domains
//! (`d0.dead.example` …; 1000 unless said), each relayed to its own address of 127.0.0.0/8 where nobody
//! listens, had each been tried once and were to be tried again at a time spread over the next HOURS
//! (4; 0 is now). Written with the library, and so in the formats of
//! posta-spool(5), whatever they become; but nothing is synced.
//!
//! SECURITY: for an empty folder of one's own. It takes the spool's lock.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use posta::courier::request::{Hop, Leaf, Target};
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
use posta::mail::status::Status;
use posta::spool::{Committer, Draft, Place, Record, Spool, SpoolError, hash_of};
use posta::unix::durable::{Disk, Durable, Folder};

/// A message of common size: some header fields and two screens of text.
const BODY_LINES: usize = 40;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| words.get(at).map_or(Some(default), |word| word.parse().ok());
    let (Some(count), Some(folder), Some(domains), Some(hours)) =
        (number(0, 0), words.get(1), number(2, 1000), number(3, 4))
    else {
        eprintln!("usage: deep-spool N FOLDER [DOMAINS [HOURS]]");
        return ExitCode::from(64);
    };
    match fill(Path::new(folder), count, domains.max(1), Duration::from_secs(hours * 3600)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deep-spool: {error}");
            ExitCode::from(74)
        }
    }
}

fn fill(path: &Path, count: u64, domains: u64, within: Duration) -> Result<(), SpoolError> {
    Spool::make(path, None)?;
    let spool = Arc::new(Spool::for_running(path, Arc::new(Unsynced))?);
    let committer = Committer::new(spool.clone());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text =
        format!("Subject: deep\r\n\r\n{}", "All work and no play makes a dull queue.\r\n".repeat(BODY_LINES));
    for n in 0..count {
        let envelope = envelope(n, &format!("d{}.dead.example", n % domains), now);
        let [.., a, b, c] = (n % domains).to_be_bytes();
        let hop = Hop::Address([127, a, b, c].into(), 9);
        let mut draft = Draft::begin(&spool)?;
        draft.push(text.as_bytes())?;
        let id = committer.commit(draft, &envelope)?.id();
        let entry = spool.open(id, Place::New)?;
        let mut journal = spool.set_aside(&entry, &history(&envelope, &hop, now))?;
        let wait = within.mul_f64(n as f64 / count as f64);
        journal.set_next((now + wait).as_secs(), hash_of(&format!("smtp:{hop}")))?;
    }
    Ok(())
}

fn envelope(n: u64, domain: &str, now: Duration) -> Envelope {
    let address = |local: &str, domain: &str| Mailbox::from_parts(local, domain).expect("plain ASCII");
    Envelope {
        sender: ReversePath::Mailbox(address(&format!("sender{}", n % 97), "example.org")),
        ret: None,
        envid: None,
        recipients: vec![Recipient::plain(address(&format!("user{n}"), domain))],
        origin: Origin::Posta,
        arrived: now.as_micros() as u64,
        body: BodyKind::SevenBit,
        utf8: false,
        require_tls: false,
        trace: b"Received: by mail.example.org id x; now\r\n".to_vec(),
    }
}

/// What posta-queue notes of one attempt that failed.
fn history(envelope: &Envelope, hop: &Hop, now: Duration) -> [Record; 4] {
    let at = now.as_micros() as u64;
    let leaf = Leaf {
        address: envelope.recipients[0].address.clone(),
        target: Target::Smtp(hop.clone()),
        place: None,
        sender: None,
        of_list: false,
    };
    let text = "connect to 192.0.2.1:25: connection refused".to_string();
    let status = Status::new(4, 4, 1);
    [
        Record::Target { n: 0, recipient: 0, leaf: leaf.into() },
        Record::Expanded,
        Record::Later { n: 0, at, status, relay: String::new(), text, said: false },
        Record::Attempt { at, count: 1 },
    ]
}

/// The true disk, but for the syncs.
#[derive(Debug)]
struct Unsynced;

impl Durable for Unsynced {
    fn unnamed(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        Disk.unnamed(folder, name, mode)
    }

    fn create(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        Disk.create(folder, name, mode)
    }

    fn append(&self, folder: &Folder, name: &str, create: bool, mode: u32) -> io::Result<File> {
        Disk.append(folder, name, create, mode)
    }

    fn make_folder(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<()> {
        Disk.make_folder(folder, name, mode)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        Disk.write(file, bytes)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        Disk.truncate(file, length)
    }

    fn set_modified(&self, file: &File, seconds: u64, nanoseconds: u32) -> io::Result<()> {
        Disk.set_modified(file, seconds, nanoseconds)
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        Disk.link(file, folder, name)
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        Disk.rename(from, name, to, new_name)
    }

    fn keeps_renamed(&self, folder: &Folder) -> bool {
        Disk.keeps_renamed(folder)
    }

    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()> {
        Disk.unlink(folder, name)
    }

    fn sync_file(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _folder: &Folder) -> io::Result<()> {
        Ok(())
    }

    fn still_works(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_file_system(&self, _folder: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}
