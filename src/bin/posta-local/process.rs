//! A child as the parent sees it: its process, its connection, and the jobs it holds.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Instant;

use posta::unix::child;
use posta::unix::pass::Packets;

use posta::courier::request::Owner;

use crate::bare::{Bare, Contents};
use crate::refusal::Refusal;
use crate::runner::Job;
use crate::seat::Seat;
use crate::talk::{self, FromChild, MAX_TALK, ROOM, Settings, ToChild, request_length};

/// Most jobs that a child holds at once; each keeps up to two files open there.
pub const WINDOW: usize = 200;
/// Most requests in one packet.
const BATCH: usize = 64;
/// The option that makes a child of this program, with the owner's login name …
pub const OWNER_OPTION: &str = "owner";
/// … or his ids, `UID:GID`.
pub const IDS_OPTION: &str = "ids";

/// A job that a child holds.
#[derive(Debug)]
pub struct Held {
    /// The recipients' numbers.
    pub recipients: Vec<u32>,
    /// The bare content, if it was given that: it is held in memory as long as the job.
    #[expect(dead_code, reason = "only its end matters")]
    pub bare: Option<Rc<Bare>>,
}

/// A sync that a child was told to do itself.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    /// The device.
    pub device: u64,
    /// Of how many copies.
    pub copies: usize,
    /// When it was told.
    pub since: Instant,
}

/// A child.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    packets: Packets,
    /// Its user id, once it is ready.
    pub uid: Option<u32>,
    /// The jobs it holds.
    pub held: HashMap<u64, Held>,
    /// The syncs that it was told to do itself, by their numbers.
    pub alone: HashMap<u64, Alone>,
    /// When something came from it last, or was given to it while it had nothing to do.
    pub heard: Instant,
    /// Since when it has served its owner.
    pub started: Instant,
    /// Since when it has had nothing to do, or had something last.
    pub used: Instant,
    /// It gets no more jobs.
    pub leaving: bool,
    /// Answers about syncs that are to be sent.
    pub answers: Vec<ToChild>,
}

impl Child {
    /// Starts the child of a seat. `folders`: where mailboxes lie.
    pub fn start(
        seat: &Seat,
        settings: &Settings,
        folders: Option<&[PathBuf]>,
        now: Instant,
    ) -> io::Result<Child> {
        let (packets, theirs) = Packets::pair()?;
        // Not by its path: after an upgrade another program may stand there.
        let program = Path::new("/proc/self/exe");
        let mut command = child::command(program, &[("parent".to_string(), theirs.as_fd())], None)?;
        command.arg0("posta-local").arg(match &seat.owner {
            Owner::Account(name) => format!("--{OWNER_OPTION}={name}"),
            Owner::Ids(uid, gid, _) => format!("--{IDS_OPTION}={uid}:{gid}"),
        });
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        packets.set_nonblocking(true)?;
        let homes = seat.confined.as_ref();
        let confined = homes.map(|homes| folders.iter().copied().flatten().chain(homes).cloned().collect());
        let settings = Settings { confined, ..settings.clone() };
        let begin = talk::to_child(&[ToChild::Begin(settings)]).map_err(io::Error::other)?;
        packets.send(&begin, None)?;
        Ok(Child {
            process,
            packets,
            uid: None,
            held: HashMap::new(),
            alone: HashMap::new(),
            heard: now,
            started: now,
            used: now,
            leaving: false,
            answers: Vec::new(),
        })
    }

    /// Its process id, which tells it from the next child of the same owner.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Gives it what it takes now: answers about syncs, and jobs from the front of the line. Gives
    /// back jobs whose message can't be read. An error is one of the connection.
    pub fn feed(
        &mut self,
        jobs: &mut VecDeque<Job>,
        contents: &mut Contents,
        own_uid: u32,
    ) -> io::Result<Vec<(Job, Refusal)>> {
        let mut unreadable = Vec::new();
        loop {
            let bares = match self.fitting(jobs, contents, own_uid) {
                Ok(bares) => bares,
                Err(error) => {
                    let refusal = Refusal::of("reading the message", &error);
                    unreadable.extend(jobs.pop_front().map(|job| (job, refusal)));
                    continue;
                }
            };
            let count = bares.len();
            if (count == 0 && self.answers.is_empty()) || !self.send_batch(jobs, &bares)? {
                return Ok(unreadable);
            }
            self.answers.clear();
            if self.held.is_empty() {
                self.heard = Instant::now();
            }
            for (job, bare) in jobs.drain(..count).zip(bares) {
                self.held.insert(job.number, Held { recipients: job.recipients, bare });
            }
        }
    }

    /// The jobs from the front of the line that go into one packet: for each its bare content, if
    /// it gets that in place of the queue file. An error concerns the first job.
    fn fitting(
        &self,
        jobs: &VecDeque<Job>,
        contents: &mut Contents,
        own_uid: u32,
    ) -> io::Result<Vec<Option<Rc<Bare>>>> {
        let mut bares = Vec::new();
        let Some(uid) = self.uid.filter(|_| !self.leaving) else { return Ok(bares) };
        let mut length = 0;
        for job in jobs.iter().take(WINDOW.saturating_sub(self.held.len()).min(BATCH)) {
            length += request_length(&job.packet);
            if length > ROOM && !bares.is_empty() {
                break;
            }
            if !job.others || uid == own_uid {
                bares.push(None);
                continue;
            }
            match contents.of(job.id, &job.file, job.size) {
                Ok(Some(bare)) => bares.push(Some(bare)),
                Ok(None) => break,
                Err(error) if bares.is_empty() => return Err(error),
                // Its turn to be refused comes when it is the first.
                Err(_) => break,
            }
        }
        Ok(bares)
    }

    /// Sends the answers and the first jobs in one packet; `false` if there is no room for it now.
    fn send_batch(&self, jobs: &VecDeque<Job>, bares: &[Option<Rc<Bare>>]) -> io::Result<bool> {
        let requests = jobs.iter().take(bares.len()).map(|job| ToChild::Request(job.packet.clone()));
        let words: Vec<ToChild> = self.answers.iter().cloned().chain(requests).collect();
        let mut files = Vec::with_capacity(bares.len());
        for (job, bare) in jobs.iter().zip(bares) {
            files.push(bare.as_ref().map_or(job.file.as_fd(), |bare| bare.file.as_fd()));
        }
        self.send(&words, &files)
    }

    fn send(&self, words: &[ToChild], files: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let packet = talk::to_child(words).map_err(io::Error::other)?;
        match self.packets.send_many(&packet, files) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next packet's words and file, if one has come; `Ok(None)`: nothing now. An end of the
    /// connection is `UnexpectedEof`.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<(Vec<FromChild>, Option<OwnedFd>)>> {
        buffer.resize(MAX_TALK, 0);
        match self.packets.receive(buffer) {
            Ok((0, _)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok((length, file)) => {
                let words = talk::read_as_parent(&buffer[..length]).map_err(io::Error::other)?;
                Ok(Some((words, file)))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends it: it sees the end of its connection, and goes when it is back from what it does. The
    /// process is to be reaped.
    pub fn dismiss(self) -> std::process::Child {
        self.process
    }

    /// Ends it at once, as far as the kernel lets it; the process is to be reaped.
    pub fn kill(mut self) -> std::process::Child {
        if let Err(error) = self.process.kill() {
            log::warn!("delivery process {}: {error}", self.process.id());
        }
        self.process
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }
}
