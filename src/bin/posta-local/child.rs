//! The child: one process for each owner of mailboxes, with that owner's rights.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use posta::unix::pass::Packets;
use posta::unix::wait::{Watch, wait_ready};

use posta::courier::request::{Owner, Request};

use posta::config::LogTo;
use posta::logbook;

use crate::desk::{Desk, Said};
use crate::home;
use crate::talk::{self, FromChild, MAX_TALK, Settings, ToChild};

/// While it is busy, the parent hears from it at least so often.
const BEAT: Duration = Duration::from_secs(1);
/// Most packets read before there is an answer.
const AT_ONCE: usize = 32;
/// Most bytes of answers in one packet, but for the last one in it.
const FULL: usize = 60 * 1024;

/// Serves `owner` until the parent closes the connection.
pub fn run(owner: &Owner, parent: OwnedFd) -> ExitCode {
    match serve(owner, Packets::from(parent)) {
        Ok(()) => ExitCode::SUCCESS,
        // The parent is gone: nobody is left to be told.
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("delivery process of {}: {error}", describe(owner));
            ExitCode::from(71) // EX_OSERR
        }
    }
}

/// The owner as the log names it.
pub fn describe(owner: &Owner) -> String {
    match owner {
        Owner::Account(name) => format!("account {name}"),
        Owner::Ids(uid, gid, _) => format!("uid {uid}, gid {gid}"),
    }
}

fn serve(owner: &Owner, parent: Packets) -> io::Result<()> {
    let Some(settings) = first_word(&parent)? else { return Ok(()) };
    let to = if settings.syslog { LogTo::Syslog } else { LogTo::Stderr };
    logbook::sink::start("posta-local", to, settings.level);
    let identity = match home::become_owner(owner, settings.keep_rights) {
        Ok(identity) => identity,
        Err(refusal) => {
            let word = FromChild::Refused { status: refusal.status, text: refusal.text };
            return Voice::new(&parent).say(&[word]);
        }
    };
    if let Some(folders) = &settings.confined
        && let Err(error) = home::confine(&identity, folders)
    {
        log::warn!("{} is not confined to its mailboxes: {error}", describe(owner));
    }
    let mut voice = Voice::new(&parent);
    voice.say(&[FromChild::Ready { uid: identity.uid }])?;
    parent.set_nonblocking(true)?;
    let mut desk = Desk::new(identity, settings);
    let mut buffer = vec![0; MAX_TALK];
    loop {
        wait(&parent, &desk)?;
        for _ in 0..AT_ONCE {
            let (length, files) = match parent.receive_many(&mut buffer) {
                Ok((0, _)) => return Ok(()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            take(&mut desk, &mut voice, &buffer[..length], files)?;
        }
        desk.step(Instant::now());
        voice.say_all(desk.said(Instant::now()))?;
        if !desk.is_empty() {
            voice.beat()?;
        }
    }
}

/// Waits for the parent's settings; `None` if it goes without a word.
fn first_word(parent: &Packets) -> io::Result<Option<Settings>> {
    let mut buffer = vec![0; MAX_TALK];
    let (length, _) = parent.receive(&mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    match talk::read_as_child(&buffer[..length]).map_err(io::Error::other)?.pop() {
        Some(ToChild::Begin(settings)) => Ok(Some(settings)),
        _ => Err(io::Error::other("the parent began without its settings")),
    }
}

fn wait(parent: &Packets, desk: &Desk) -> io::Result<()> {
    let watched: Vec<Watch<'_>> = desk.watched().chain([Watch::Read(parent.as_fd())]).collect();
    let busy = (!desk.is_empty()).then_some(BEAT);
    let due = desk.deadline().map(|at| at.saturating_duration_since(Instant::now()));
    wait_ready(&watched, due.into_iter().chain(busy).min()).map(drop)
}

/// Does what one packet says.
fn take(desk: &mut Desk, voice: &mut Voice<'_>, packet: &[u8], files: Vec<OwnedFd>) -> io::Result<()> {
    let mut files = files.into_iter();
    for word in talk::read_as_child(packet).map_err(io::Error::other)? {
        match word {
            ToChild::Request(request) => {
                let request = Request::decode(&request).map_err(io::Error::other)?;
                let file = files.next().ok_or_else(|| io::Error::other("a request came without its file"))?;
                desk.begin(request, File::from(file), Instant::now());
            }
            ToChild::Synced(number) => desk.synced(number),
            ToChild::Yourself(number) => {
                // If the parent has gone, the next thing said will find out.
                desk.sync_alone(number, &mut || drop(voice.beat()));
            }
            ToChild::Begin(_) => return Err(io::Error::other("settings came twice")),
        }
        voice.beat()?;
    }
    Ok(())
}

/// What speaks to the parent, and knows when it did so last.
struct Voice<'a> {
    parent: &'a Packets,
    last: Instant,
}

impl<'a> Voice<'a> {
    fn new(parent: &'a Packets) -> Voice<'a> {
        Voice { parent, last: Instant::now() }
    }

    /// Says that we are alive, if nothing was said for a while.
    fn beat(&mut self) -> io::Result<()> {
        if self.last.elapsed() >= BEAT { self.say(&[FromChild::Alive]) } else { Ok(()) }
    }

    fn say_all(&mut self, said: Said) -> io::Result<()> {
        let mut words = &said.words[..];
        while !words.is_empty() {
            let mut length = 0;
            let fits = words.iter().take_while(|word| {
                let before = length;
                length += size(word);
                before < FULL
            });
            let (now, later) = words.split_at(fits.count());
            self.say(now)?;
            words = later;
        }
        for (question, maildir) in &said.questions {
            let packet = talk::from_child(std::slice::from_ref(question)).map_err(io::Error::other)?;
            self.send(&packet, Some(maildir.new_folder().as_fd()))?;
        }
        Ok(())
    }

    fn say(&mut self, words: &[FromChild]) -> io::Result<()> {
        let packet = talk::from_child(words).map_err(io::Error::other)?;
        self.send(&packet, None)
    }

    fn send(&mut self, packet: &[u8], file: Option<std::os::fd::BorrowedFd<'_>>) -> io::Result<()> {
        self.last = Instant::now();
        loop {
            match self.parent.send(packet, file) {
                // The parent reads without ever waiting for us: this is short.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_ready(&[Watch::Write(self.parent.as_fd())], None)?;
                }
                done => return done,
            }
        }
    }
}

/// About the bytes that a word adds to a packet.
fn size(word: &FromChild) -> usize {
    match word {
        FromChild::Done { report, .. } => report.len() + 64,
        _ => 64,
    }
}
