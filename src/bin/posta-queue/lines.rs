//! The peers on `run/drop`: a line for each user, and one of each line at a time.
//!
//! Anybody on this host may stand there and say nothing, or hand over a file that can't be read to its
//! end (of a file system of his own, which does not answer). Then he keeps nobody waiting but himself.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use posta::unix::pass::{PacketListener, Packets};

/// Most users with somebody in line, each of whom has a thread; root always finds room.
const USERS: usize = 64;
/// Most of one user who wait. Whoever is turned away sees the end of the connection, and tries again
/// later.
const WAITING: usize = 128;

/// Who waits, by user; a user with a thread has a line, be it empty.
type Lines = HashMap<u32, VecDeque<Packets>>;

/// Serves a peer of that user, to its end.
pub trait Serve: Send + Sync + 'static {
    /// Does it.
    fn serve(&self, peer: &Packets, uid: u32);
}

/// All lines.
pub struct Door<S> {
    server: S,
    lines: Mutex<Lines>,
}

impl<S: Serve> Door<S> {
    /// Nobody waits yet.
    pub fn new(server: S) -> Arc<Door<S>> {
        Arc::new(Door { server, lines: Mutex::default() })
    }

    /// Serves all who connect to `listener`, for ever, in threads of its own.
    pub fn open(self: Arc<Door<S>>, listener: PacketListener) -> io::Result<()> {
        let forever = move || {
            loop {
                let peer = listener.accept().and_then(|peer| Ok((peer.peer()?.uid, peer)));
                if let Err(error) = peer.and_then(|(uid, peer)| self.line_up(uid, peer)) {
                    log::error!("run/drop: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        };
        Builder::new().name("drop".into()).spawn(forever).map(drop)
    }

    /// Puts a peer at the end of its user's line. An error: no thread is to be had.
    fn line_up(self: &Arc<Door<S>>, uid: u32, peer: Packets) -> io::Result<()> {
        let mut lines = self.lines();
        let users = lines.len();
        match lines.get_mut(&uid) {
            Some(line) if line.len() < WAITING => line.push_back(peer),
            Some(_) => log::warn!("run/drop: uid={uid}: {WAITING} wait already; one is turned away"),
            None if users >= USERS && uid != 0 => {
                log::warn!("run/drop: uid={uid}: {USERS} users are being served; one is turned away");
            }
            None => {
                lines.insert(uid, VecDeque::from([peer]));
                drop(lines);
                let door = Arc::clone(self);
                let started = Builder::new().name("drop-user".into()).spawn(move || door.serve_line(uid));
                if let Err(error) = started {
                    self.lines().remove(&uid);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Serves a user's line until nobody stands in it.
    fn serve_line(&self, uid: u32) {
        while let Some(peer) = self.next_of(uid) {
            self.server.serve(&peer, uid);
        }
    }

    fn next_of(&self, uid: u32) -> Option<Packets> {
        let mut lines = self.lines();
        let next = lines.get_mut(&uid).and_then(VecDeque::pop_front);
        if next.is_none() {
            lines.remove(&uid);
        }
        next
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Answers what it hears; whoever says nothing is waited for.
    struct Echo;

    impl Serve for Echo {
        fn serve(&self, peer: &Packets, _uid: u32) {
            let mut buffer = [0; 16];
            if let Ok((length, _)) = peer.receive(&mut buffer) {
                let _ = peer.send(&buffer[..length], None);
            }
        }
    }

    fn line_up(door: &Arc<Door<Echo>>, uid: u32) -> Packets {
        let (ours, theirs) = Packets::pair().unwrap();
        door.line_up(uid, theirs).unwrap();
        ours.set_receive_timeout(Duration::from_secs(60)).unwrap();
        ours
    }

    fn answer(peer: &Packets) -> usize {
        peer.receive(&mut [0; 16]).unwrap().0
    }

    #[test]
    fn who_says_nothing_keeps_his_own_waiting_and_nobody_else() {
        let door = Door::new(Echo);
        let silent = line_up(&door, 1);
        let own = line_up(&door, 1);
        own.send(b"own", None).unwrap();
        let others: Vec<Packets> = (2..5).map(|uid| line_up(&door, uid)).collect();
        for other in &others {
            other.send(b"other", None).unwrap();
            assert_eq!(answer(other), 5);
        }
        own.set_nonblocking(true).unwrap();
        assert!(own.receive(&mut [0; 16]).is_err(), "not his turn yet");
        own.set_nonblocking(false).unwrap();
        drop(silent);
        assert_eq!(answer(&own), 3);
        let begun = Instant::now();
        while !door.lines().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "lines stay");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_and_their_number_are_bounded() {
        let door = Door::new(Echo);
        let line: Vec<Packets> = (0..WAITING + 2).map(|_| line_up(&door, 1)).collect();
        assert_eq!(answer(&line[WAITING + 1]), 0, "turned away");
        let users: Vec<Packets> = (2..=USERS as u32).map(|uid| line_up(&door, uid)).collect();
        assert_eq!(answer(&line_up(&door, 1000)), 0, "turned away");
        let root = line_up(&door, 0);
        root.send(b"root", None).unwrap();
        assert_eq!(answer(&root), 4);
        drop((line, users));
    }
}
