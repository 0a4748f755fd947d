//! Packets between programs of this host, with open files attached.
//!
//! A Unix socket of kind SEQPACKET keeps the borders of what is sent: one send is one receive, so
//! no program parses a stream. The peer is known by SO_PEERCRED, open files go along by SCM_RIGHTS.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, sockopt,
};

/// The longest packet: what one send may carry.
pub const MAX_PACKET: usize = 64 * 1024;
/// Most open files that go along with one packet (Linux takes 253).
pub const MAX_FILES: usize = 128;

/// The process at the other end, as the kernel knew it when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// One end of a connection that carries packets.
#[derive(Debug)]
pub struct Packets {
    fd: OwnedFd,
}

impl Packets {
    /// Connects to the socket at `path`; waits for as long as the listener's queue of connections is full.
    pub fn connect(path: &Path) -> io::Result<Packets> {
        let fd = packet_socket()?;
        socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Packets { fd })
    }

    /// As [`connect`](Packets::connect), and never waits: a listener whose queue of connections is full
    /// is `WouldBlock`. The connection itself waits as any other.
    pub fn try_connect(path: &Path) -> io::Result<Packets> {
        let packets = Packets { fd: packet_socket()? };
        packets.set_nonblocking(true)?;
        socket::connect(packets.fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        packets.set_nonblocking(false)?;
        Ok(packets)
    }

    /// Two ends, connected to each other.
    pub fn pair() -> io::Result<(Packets, Packets)> {
        let kind = SockType::SeqPacket;
        let (one, other) = socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Packets { fd: one }, Packets { fd: other }))
    }

    /// Sends one packet, with at most one open file. A full buffer is `WouldBlock` on a
    /// non-blocking end; the packet is then not sent at all.
    pub fn send(&self, bytes: &[u8], attached: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(bytes, attached.as_slice(), MsgFlags::MSG_NOSIGNAL)
    }

    /// As [`send`](Packets::send), and never waits: a full buffer is `WouldBlock`, whatever the end is
    /// set to.
    pub fn try_send(&self, bytes: &[u8], attached: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(bytes, attached.as_slice(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)
    }

    /// Sends one packet, with up to [`MAX_FILES`] open files.
    pub fn send_many(&self, bytes: &[u8], attached: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(bytes, attached, MsgFlags::MSG_NOSIGNAL)
    }

    fn send_with(&self, bytes: &[u8], attached: &[BorrowedFd<'_>], flags: MsgFlags) -> io::Result<()> {
        let raw: Vec<RawFd> = attached.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &control[..] };
        loop {
            let parts = [IoSlice::new(bytes)];
            match socket::sendmsg::<()>(self.fd.as_raw_fd(), &parts, control, flags, None) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one packet: its length (0: the peer has gone) and the file that came with it. A
    /// packet longer than `buffer` is an error.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let space = nix::cmsg_space!([RawFd; 4]);
        let (length, files) = self.receive_into(buffer, space)?;
        Ok((length, files.into_iter().next()))
    }

    /// Receives one packet with up to [`MAX_FILES`] open files, in the order they were attached.
    pub fn receive_many(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let space = nix::cmsg_space!([RawFd; MAX_FILES]);
        self.receive_into(buffer, space)
    }

    fn receive_into(&self, buffer: &mut [u8], mut space: Vec<u8>) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = match socket::recvmsg::<()>(self.fd.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(got) => got,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut files = Vec::new();
            for message in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = message {
                    // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                    files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if got.flags.contains(MsgFlags::MSG_TRUNC) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "packet longer than the buffer"));
            }
            return Ok((got.bytes, files));
        }
    }

    /// Whether calls give `WouldBlock` in place of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        set_nonblocking(self.fd.as_fd(), on)
    }

    /// After this long, a receive gives up with `WouldBlock`.
    pub fn set_receive_timeout(&self, limit: Duration) -> io::Result<()> {
        Ok(socket::setsockopt(&self.fd, sockopt::ReceiveTimeout, &time_value(limit))?)
    }

    /// After this long, a send that finds no room gives up with `WouldBlock`.
    pub fn set_send_timeout(&self, limit: Duration) -> io::Result<()> {
        Ok(socket::setsockopt(&self.fd, sockopt::SendTimeout, &time_value(limit))?)
    }

    /// Whether the other end is closed.
    pub fn has_gone(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(polled[0].revents().is_some_and(|said| !said.is_empty()))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<Peer> {
        peer(self.fd.as_fd())
    }

    /// A second handle on this end, for another thread.
    pub fn try_clone(&self) -> io::Result<Packets> {
        Ok(Packets { fd: self.fd.try_clone()? })
    }

    /// No packet goes either way any more; a thread that waits in `receive` wakes with 0.
    pub fn shut_down(&self) -> io::Result<()> {
        Ok(socket::shutdown(self.fd.as_raw_fd(), socket::Shutdown::Both)?)
    }
}

impl From<OwnedFd> for Packets {
    fn from(fd: OwnedFd) -> Packets {
        Packets { fd }
    }
}

impl From<Packets> for OwnedFd {
    fn from(packets: Packets) -> OwnedFd {
        packets.fd
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket that packet connections come in on.
#[derive(Debug)]
pub struct PacketListener {
    fd: OwnedFd,
}

impl PacketListener {
    /// Listens at `path` with the rights `mode`. A stale socket there is replaced; one that
    /// somebody answers on is `AddrInUse`, and a file of another kind is left alone.
    pub fn bind(path: &Path, mode: u32) -> io::Result<PacketListener> {
        remove_stale(path, |p| Packets::connect(p).map(drop))?;
        let fd = packet_socket()?;
        socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket::listen(&fd, Backlog::new(128)?)?;
        Ok(PacketListener { fd })
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> io::Result<Packets> {
        loop {
            match socket::accept4(self.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                // SAFETY: accept4 has just made this descriptor; nobody else has it.
                Ok(fd) => return Ok(Packets { fd: unsafe { OwnedFd::from_raw_fd(fd) } }),
                Err(nix::Error::EINTR | nix::Error::ECONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether `accept` gives `WouldBlock` in place of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        set_nonblocking(self.fd.as_fd(), on)
    }
}

impl From<OwnedFd> for PacketListener {
    fn from(fd: OwnedFd) -> PacketListener {
        PacketListener { fd }
    }
}

impl AsFd for PacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn time_value(limit: Duration) -> nix::sys::time::TimeVal {
    nix::sys::time::TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()))
}

/// Who is at the other end of a connected Unix socket.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let who = socket::getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok(Peer { pid: who.pid(), uid: who.uid(), gid: who.gid() })
}

/// Switches O_NONBLOCK.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let mut flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Removes a socket that nobody answers on any more.
pub(super) fn remove_stale(path: &Path, answers: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of another kind"));
    }
    if answers(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    std::fs::remove_file(path)
}

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_packet_arrives_whole_and_with_its_file() {
        let (one, other) = Packets::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        one.send(b"first", Some(file.as_fd())).unwrap();
        one.send(b"second", None).unwrap();
        let mut buffer = [0; 64];
        let (length, attached) = other.receive(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"first");
        let mut got = std::fs::File::from(attached.unwrap());
        got.rewind().unwrap();
        let mut content = String::new();
        got.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let (length, attached) = other.receive(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], attached.is_none()), (&b"second"[..], true));
        drop(one);
        assert_eq!(other.receive(&mut buffer).unwrap().0, 0);
    }

    #[test]
    fn many_files_come_in_their_order() {
        let (one, other) = Packets::pair().unwrap();
        let files: Vec<std::fs::File> = (0..MAX_FILES)
            .map(|n| {
                let mut file = tempfile::tempfile().unwrap();
                write!(file, "{n}").unwrap();
                file.rewind().unwrap();
                file
            })
            .collect();
        let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        one.send_many(b"all", &borrowed).unwrap();
        let (_, got) = other.receive_many(&mut [0; 64]).unwrap();
        let content = |fd: OwnedFd| std::io::read_to_string(std::fs::File::from(fd)).unwrap();
        let expected: Vec<String> = (0..MAX_FILES).map(|n| n.to_string()).collect();
        assert_eq!(got.into_iter().map(content).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_full_buffer_never_blocks_the_sender() {
        let (one, _other) = Packets::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let packet = vec![0; MAX_PACKET];
        let error = (0..1000).find_map(|_| one.send(&packet, None).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn who_never_reads_holds_up_nobody_for_ever_and_who_goes_is_seen_to_go() {
        let (one, other) = Packets::pair().unwrap();
        one.set_send_timeout(Duration::from_millis(10)).unwrap();
        let packet = vec![0; MAX_PACKET];
        let error = (0..1000).find_map(|_| one.send(&packet, None).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        other.send(b"more", None).unwrap();
        assert!(!one.has_gone().unwrap());
        drop(other);
        assert!(one.has_gone().unwrap());
    }

    #[test]
    fn a_stale_socket_is_replaced_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = PacketListener::bind(&path, 0o600).unwrap();
        assert_eq!(PacketListener::bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let listener = PacketListener::bind(&path, 0o600).unwrap();
        let client = Packets::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        assert_eq!(server.peer().unwrap().pid, std::process::id() as i32);
        drop(client);
        let other = folder.path().join("file");
        std::fs::write(&other, "").unwrap();
        assert_eq!(PacketListener::bind(&other, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
