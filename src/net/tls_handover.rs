//! How the keeper hands certificates and keys to a program that may not read their files.
//!
//! The keeper is root, reads the files, and parses nothing in them. posta-smtpd is started with one
//! end of a pair of packet sockets, under the name [`NAME`] in LISTEN_FDNAMES; at once, and then
//! whenever the files change, a packet comes with a sealed memory file that holds all of them. Nobody
//! else can have that socket, so nobody has to be asked who he is, and a renewed certificate needs no restart.
//!
//! Inside of the memory file stand netstrings (`length:octets,`): for each certificate `pair`, its name,
//! the paths of certificate and key, and both contents; then perhaps `client_ca`, its path and its content.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::unix::memory::sealed;
use crate::unix::pass::Packets;
use crate::unix::signals::wait_readable;

pub use super::tls_files::{Material, Pair, Stamp, TlsFiles};

/// The name of the socket among those that a program is started with.
pub const NAME: &str = "tls";

/// What a packet says: a file with material is attached.
const MATERIAL: &[u8] = b"material";
/// What a packet says: there is no certificate (any more).
const NOTHING: &[u8] = b"nothing";
/// Longest material: a thousand certificates.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The keeper's end.
#[derive(Debug)]
pub struct Giver {
    socket: Packets,
}

/// Material, ready to be handed over.
#[derive(Debug)]
pub struct Parcel {
    file: File,
}

impl Parcel {
    /// Puts material into a memory file that nobody can change.
    pub fn new(material: &Material) -> io::Result<Parcel> {
        Ok(Parcel { file: sealed(&pack(material))? })
    }
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
    /// Hands material over; `None`: there is none. Never waits: a child that has not taken what it was
    /// given before is `WouldBlock`, and may be given it later.
    pub fn give(&self, parcel: Option<&Parcel>) -> io::Result<()> {
        match parcel {
            None => self.socket.try_send(NOTHING, None),
            Some(parcel) => self.socket.try_send(MATERIAL, Some(parcel.file.as_fd())),
        }
    }
}

impl Taker {
    /// From the descriptor named [`NAME`] that we were started with.
    pub fn new(socket: OwnedFd) -> Taker {
        Taker { socket: socket.into() }
    }

    /// Waits at most `limit` for the next hand-over, and takes the newest of all that have come.
    /// `None`: none came. `UnexpectedEof`: the keeper has gone, and no other will come.
    pub fn take(&self, limit: Duration) -> io::Result<Option<Option<Material>>> {
        let mut newest = None;
        let mut limit = limit;
        while wait_readable(&[self.socket.as_fd()], Some(limit))?[0] {
            let mut word = [0; 16];
            let (length, file) = self.socket.receive(&mut word)?;
            newest = match (&word[..length], file) {
                (NOTHING, _) => Some(None),
                (MATERIAL, Some(file)) => Some(Some(unpack(&read(&file.into())?).ok_or_else(garbled)?)),
                (b"", _) if newest.is_some() => break,
                (b"", _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Err(garbled()),
            };
            limit = Duration::ZERO;
        }
        Ok(newest)
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the keeper handed over is garbled")
}

/// The keeper and others who got the file have one offset with us, so it is left alone.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(length.min(LONGEST)).map_err(|_| garbled())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn pack(material: &Material) -> Vec<u8> {
    let mut out = Vec::new();
    for pair in &material.pairs {
        put(&mut out, b"pair");
        put(&mut out, pair.name.as_bytes());
        put(&mut out, path_bytes(&pair.certificate_file));
        put(&mut out, path_bytes(&pair.key_file));
        put(&mut out, &pair.certificate);
        put(&mut out, &pair.key);
    }
    if let Some((path, bytes)) = &material.client_ca {
        put(&mut out, b"client_ca");
        put(&mut out, path_bytes(path));
        put(&mut out, bytes);
    }
    out
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.push(b',');
}

/// `None` if it isn't what `pack` makes.
fn unpack(mut bytes: &[u8]) -> Option<Material> {
    let mut material = Material { pairs: Vec::new(), client_ca: None };
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            b"pair" => material.pairs.push(Pair {
                name: String::from_utf8(next(&mut bytes)?.to_vec()).ok()?,
                certificate_file: path(next(&mut bytes)?),
                key_file: path(next(&mut bytes)?),
                certificate: next(&mut bytes)?.to_vec(),
                key: next(&mut bytes)?.to_vec(),
            }),
            b"client_ca" => material.client_ca = Some((path(next(&mut bytes)?), next(&mut bytes)?.to_vec())),
            _ => return None,
        }
    }
    (!material.pairs.is_empty()).then_some(material)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Takes the first netstring off.
fn next<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let colon = memchr::memchr(b':', bytes)?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = &bytes[colon + 1..];
    if rest.get(length) != Some(&b',') {
        return None;
    }
    *bytes = &rest[length + 1..];
    Some(&rest[..length])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn material(key: &[u8]) -> Material {
        let pair = |name: &str| Pair {
            name: name.into(),
            certificate_file: format!("/tls/{name}/cert.pem").into(),
            key_file: format!("/tls/{name}/key.pem").into(),
            certificate: b"certificate, \n:".to_vec(),
            key: key.to_vec(),
        };
        Material {
            pairs: vec![pair("a.example"), pair("b.example")],
            client_ca: Some(("/ca".into(), vec![0])),
        }
    }

    #[test]
    fn the_newest_of_what_was_given_is_taken() {
        let (giver, socket) = pair().unwrap();
        let taker = Taker { socket };
        assert_eq!(taker.take(Duration::ZERO).unwrap(), None);
        giver.give(Some(&Parcel::new(&material(b"old")).unwrap())).unwrap();
        giver.give(Some(&Parcel::new(&material(b"new")).unwrap())).unwrap();
        assert_eq!(taker.take(Duration::from_secs(5)).unwrap(), Some(Some(material(b"new"))));
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

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let material = material(&key);
            prop_assert_eq!(unpack(&pack(&material)), Some(material));
        }

        #[test]
        fn anything_else_is_garbled_or_well_formed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(material) = unpack(&bytes) {
                prop_assert_eq!(unpack(&pack(&material)), Some(material));
            }
        }
    }
}
