//! The connection of posta-queue: requests come in, reports go out, nobody waits for the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use posta::mail::id::Id;
use posta::unix::pass::{MAX_PACKET, PacketListener, Packets};

use posta::courier::report::FromHand;
use posta::courier::request::{Request, Target};

use crate::answer::refused;
use crate::refusal::Refusal;
use crate::seat::Seat;

/// Most requests read before others have their turn.
const AT_ONCE: usize = 256;

/// A request, as far as the parent must know it, and its file.
#[derive(Debug)]
pub struct Job {
    /// The request's number.
    pub number: u64,
    /// The message's queue id.
    pub id: Id,
    /// Length of the message in the file.
    pub size: u64,
    /// Whether the envelope names others too.
    pub others: bool,
    /// Which child it is for.
    pub seat: Seat,
    /// The recipients' numbers within the message.
    pub recipients: Vec<u32>,
    /// The request, word for word.
    pub packet: Vec<u8>,
    /// The open queue file.
    pub file: File,
}

impl Job {
    /// The report, if it is refused as a whole.
    pub fn refused(&self, refusal: &Refusal) -> Option<Vec<u8>> {
        refused(self.number, &self.recipients, refusal)
    }
}

/// posta-queue, connected.
#[derive(Debug)]
pub struct Runner {
    packets: Packets,
    reports: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

/// What came from it.
#[derive(Debug, Default)]
pub struct Heard {
    /// Requests that can be served.
    pub jobs: Vec<Job>,
    /// The connection is at its end.
    pub gone: bool,
}

impl Runner {
    /// Takes the next connection, of one of the users `peers`, and greets it with `credits`.
    pub fn accept(listener: &PacketListener, peers: &[u32], credits: u32) -> io::Result<Option<Runner>> {
        let packets = match listener.accept() {
            Ok(packets) => packets,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let peer = packets.peer()?;
        if !peers.contains(&peer.uid) {
            log::warn!("refused a connection from uid={} pid={}: not posta-queue's user", peer.uid, peer.pid);
            return Ok(None);
        }
        packets.set_nonblocking(true)?;
        let greeting = FromHand::Credits(credits).encode().map_err(io::Error::other)?;
        let reports = VecDeque::from([greeting]);
        Ok(Some(Runner { packets, reports, buffer: vec![0; MAX_PACKET] }))
    }

    /// Reads what has come. `folders`: where mailboxes lie; see [`Seat::of`].
    pub fn hear(&mut self, folders: Option<&[PathBuf]>) -> Heard {
        let mut heard = Heard::default();
        for _ in 0..AT_ONCE {
            match self.packets.receive(&mut self.buffer) {
                Ok((0, _)) => heard.gone = true,
                Ok((length, file)) => match job(&self.buffer[..length], file.map(File::from), folders) {
                    Ok(job) => {
                        heard.jobs.push(job);
                        continue;
                    }
                    Err(why) => {
                        log::error!("posta-queue sent what is no request for posta-local: {why}");
                        heard.gone = true;
                    }
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::warn!("connection of posta-queue: {error}");
                    heard.gone = true;
                }
            }
            break;
        }
        heard
    }

    /// Sends a report, now or as soon as it can be taken.
    pub fn report(&mut self, report: Vec<u8>) {
        self.reports.push_back(report);
    }

    /// Sends what waits, as far as it is taken. `false`: the peer has gone.
    pub fn flush(&mut self) -> bool {
        while let Some(report) = self.reports.front() {
            match self.packets.send(report, None) {
                Ok(()) => drop(self.reports.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether reports wait to be taken.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }
}

impl AsFd for Runner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }
}

fn job(packet: &[u8], file: Option<File>, folders: Option<&[PathBuf]>) -> Result<Job, String> {
    let request = Request::decode(packet).map_err(|error| error.to_string())?;
    let Target::Local(owner) = request.target.clone() else {
        return Err("its target is remote".to_string());
    };
    Ok(Job {
        number: request.job,
        id: request.id,
        size: request.size,
        others: request.others,
        seat: Seat::of(owner, &request, folders),
        recipients: request.recipients.iter().map(|recipient| recipient.n).collect(),
        packet: packet.to_vec(),
        file: file.ok_or("its file is missing")?,
    })
}
