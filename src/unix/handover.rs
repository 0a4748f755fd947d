//! How the keeper hands secrets to a program that may not read their files.
//!
//! The keeper is root, reads the files, and parses nothing in them. The program is started with one
//! end of a pair of packet sockets, under a name of its own in LISTEN_FDNAMES; at once, and then
//! whenever the files change, a packet comes with a sealed memory file that holds all of them. Nobody
//! else can have that socket, so nobody has to be asked who he is, and what is renewed needs no
//! restart.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::memory::sealed;
use super::pass::Packets;
use super::signals::wait_readable;

/// What a packet says: a file is attached.
const PARCEL: &[u8] = b"parcel";
/// What a packet says: there is nothing (any more).
const NOTHING: &[u8] = b"nothing";
/// Longest parcel: a thousand certificates.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What is handed over, in a memory file that nobody can change.
#[derive(Debug)]
pub struct Parcel {
    file: File,
}

impl Parcel {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> io::Result<Parcel> {
        Ok(Parcel { file: sealed(bytes)? })
    }
}

/// The keeper's end.
#[derive(Debug)]
pub struct Giver {
    socket: Packets,
}

/// The program's end.
#[derive(Debug)]
pub struct Taker {
    socket: Packets,
}

/// Both ends; the taker's goes to the child as it is.
pub fn pair() -> io::Result<(Giver, Packets)> {
    let (giver, taker) = Packets::pair()?;
    Ok((Giver { socket: giver }, taker))
}

impl Giver {
    /// Hands a parcel over; `None`: there is none. Never waits: a child that has not taken what it was
    /// given before is `WouldBlock`, and may be given it later.
    pub fn give(&self, parcel: Option<&Parcel>) -> io::Result<()> {
        match parcel {
            None => self.socket.try_send(NOTHING, None),
            Some(parcel) => self.socket.try_send(PARCEL, Some(parcel.file.as_fd())),
        }
    }
}

impl Taker {
    /// From the descriptor that we were started with.
    pub fn new(socket: OwnedFd) -> Taker {
        Taker { socket: socket.into() }
    }

    /// Waits at most `limit` for the next hand-over, and takes the newest of all that have come: the
    /// parcel's bytes, or `Some(None)` if it says that there is nothing. `None`: none came.
    /// `UnexpectedEof`: the keeper has gone, and no other will come.
    pub fn take(&self, limit: Duration) -> io::Result<Option<Option<Vec<u8>>>> {
        let mut newest = None;
        let mut limit = limit;
        while wait_readable(&[self.socket.as_fd()], Some(limit))?[0] {
            let mut word = [0; 16];
            let (length, file) = self.socket.receive(&mut word)?;
            newest = match (&word[..length], file) {
                (NOTHING, _) => Some(None),
                (PARCEL, Some(file)) => Some(Some(read(&file.into())?)),
                (b"", _) if newest.is_some() => break,
                (b"", _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Err(garbled()),
            };
            limit = Duration::ZERO;
        }
        Ok(newest)
    }
}

/// What the keeper handed over makes no sense.
pub fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the keeper handed over is garbled")
}

/// The keeper and others who got the file have one offset with us, so it is left alone.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(length.min(LONGEST)).map_err(|_| garbled())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_what_was_given_is_taken() {
        let (giver, socket) = pair().unwrap();
        let taker = Taker { socket };
        assert_eq!(taker.take(Duration::ZERO).unwrap(), None);
        giver.give(Some(&Parcel::new(b"old").unwrap())).unwrap();
        giver.give(Some(&Parcel::new(b"new").unwrap())).unwrap();
        assert_eq!(taker.take(Duration::from_secs(5)).unwrap(), Some(Some(b"new".to_vec())));
        giver.give(None).unwrap();
        drop(giver);
        assert_eq!(taker.take(Duration::from_secs(5)).unwrap(), Some(None));
        assert_eq!(taker.take(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn who_takes_nothing_holds_nobody_up() {
        let (giver, _socket) = pair().unwrap();
        let full = (0..10_000).find_map(|_| giver.give(None).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
