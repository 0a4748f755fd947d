//! Listening sockets: bound here, or handed over by the keeper or systemd.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;
/// The first descriptor that is handed over (sd_listen_fds(3)).
pub const FIRST_INHERITED: RawFd = 3;

/// Listens on a TCP address. `[::]` takes IPv4 clients too. An address that was in use a moment
/// ago can be taken again at once.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listens on a Unix stream socket with the rights `mode`; a stale one is replaced.
pub fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    super::pass::remove_stale(path, |p| UnixStream::connect(p).map(drop))?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The sockets that were handed over: LISTEN_FDS of them from descriptor 3 on, each with its name
/// from LISTEN_FDNAMES (or an empty one). The keeper sets no LISTEN_PID; one that is set must be
/// ours. To be called once, early in `main`.
pub fn inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    let said = |name: &str| std::env::var(name).ok();
    let ours = said("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let count: RawFd = match said("LISTEN_FDS") {
        Some(count) if ours => count
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "LISTEN_FDS is not a number"))?,
        _ => return Ok(Vec::new()),
    };
    let names = said("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for fd in FIRST_INHERITED..FIRST_INHERITED.saturating_add(count) {
        // A count that lies must not make us own what is not open, or what somebody else owns.
        // SAFETY: borrowed only for this call, which says of a number that is not open that it is not.
        nix::sys::stat::fstat(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })?;
        // SAFETY: open (just asked), and ours by the protocol of sd_listen_fds(3).
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        close_on_exec(&fd)?;
        sockets.push((names.next().unwrap_or_default().to_string(), fd));
    }
    Ok(sockets)
}

fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Whether a descriptor is a socket at all; inetd's stdin is, a terminal is not.
pub fn is_socket(fd: &impl AsRawFd) -> bool {
    // SAFETY: borrowed only for this call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_wildcard_takes_both_families() {
        let Ok(listener) = bind_tcp("[::]:0".parse().unwrap()) else {
            return; // no IPv6 here
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(is_socket(&listener));
        assert!(!is_socket(&std::fs::File::open("/dev/null").unwrap()));
    }
}
