//! Where clients come in: listening sockets, and the connections that they give.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::net::stream::Stream;

/// A listening socket, not yet watched.
#[derive(Debug)]
pub enum Listener {
    /// TCP, over IPv4 or IPv6 or both.
    Tcp(TcpListener),
    /// A Unix stream socket; its clients have no address.
    Unix(UnixListener),
}

/// A listener that is watched.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    /// Somebody may be waiting.
    pub(super) ready: bool,
    /// Its clients are proxies.
    pub(super) proxied: bool,
}

/// A connection just accepted.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Door {
    /// A door at which somebody may be waiting already.
    pub(super) fn open(listener: Listener) -> io::Result<Door> {
        match &listener {
            Listener::Tcp(listener) => listener.set_nonblocking(true)?,
            Listener::Unix(listener) => listener.set_nonblocking(true)?,
        }
        Ok(Door { listener, ready: true, proxied: false })
    }

    pub(super) fn raw(&self) -> RawFd {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_raw_fd(),
            Listener::Unix(listener) => listener.as_raw_fd(),
        }
    }

    /// Lets the next client in, without waiting.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        Ok(match &self.listener {
            Listener::Tcp(listener) => {
                let (socket, address) = listener.accept()?;
                // On [::] an IPv4 client comes mapped into IPv6.
                (Socket::Tcp(socket), Some(SocketAddr::new(address.ip().to_canonical(), address.port())))
            }
            Listener::Unix(listener) => (Socket::Unix(listener.accept()?.0), None),
        })
    }
}

impl Socket {
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(socket) => Stream::tcp(socket),
            Socket::Unix(socket) => Stream::unix(socket),
        }
    }
}
