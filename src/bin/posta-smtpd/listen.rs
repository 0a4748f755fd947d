//! The listening sockets: handed over by the keeper or systemd, or bound here.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use thiserror::Error;

use posta::config::{Listen, ListenAddress};
use posta::net::acceptor::Listener;
use posta::net::tls_handover;
use posta::unix::listeners::{bind_tcp, bind_unix, inherited};

/// Anybody on this host may connect to a Unix socket; the folder it lies in decides who can.
const UNIX_MODE: u32 = 0o666;

/// Why we can't listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The sockets that were handed over can't be taken.
    #[error("LISTEN_FDS: {0}; start posta-smtpd from posta, or from a systemd socket unit")]
    Inherited(io::Error),
    /// The address can't be bound.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Bind {
        /// As it is configured.
        address: String,
        /// Why.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is another mail server running?",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root to open: start posta as root",
        _ => "",
    }
}

/// What was handed over: sockets to listen on, and the one by which the keeper gives certificates.
pub fn handed_over() -> Result<(Vec<OwnedFd>, Option<OwnedFd>), ListenError> {
    let all = inherited().map_err(ListenError::Inherited)?;
    let (keeper, sockets): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| name == tls_handover::NAME);
    let sockets = sockets.into_iter().map(|(_, fd)| fd).collect();
    Ok((sockets, keeper.into_iter().next().map(|(_, fd)| fd)))
}

/// A listener for each entry, in the same order. What was handed over and fits no entry is closed.
pub fn open(entries: &[Listen], sockets: Vec<OwnedFd>) -> Result<Vec<Listener>, ListenError> {
    let mut handed_over: Vec<Listener> = sockets.into_iter().filter_map(listener).collect();
    let mut listeners = Vec::with_capacity(entries.len());
    for entry in entries {
        let found = handed_over.iter().position(|socket| fits(socket, &entry.address));
        listeners.push(match found {
            Some(place) => handed_over.swap_remove(place),
            None => bind(&entry.address)
                .map_err(|source| ListenError::Bind { address: name(&entry.address), source })?,
        });
    }
    for socket in handed_over {
        log::warn!("a socket was handed over that no [[listen]] entry names: {socket:?}");
    }
    Ok(listeners)
}

/// The address as the configuration has it.
pub fn name(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Where a listener really listens, for the log: a port of 0 has become another.
pub fn place(listener: &Listener) -> String {
    match listener {
        Listener::Tcp(socket) => socket.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
        Listener::Unix(socket) => format!("unix:{}", path(socket).unwrap_or_default().display()),
    }
}

fn bind(address: &ListenAddress) -> io::Result<Listener> {
    Ok(match address {
        ListenAddress::Tcp(address) => Listener::Tcp(bind_tcp(*address)?),
        ListenAddress::Unix(path) => Listener::Unix(bind_unix(path, UNIX_MODE)?),
    })
}

/// What kind of socket was handed over; none if it is no socket that we know.
fn listener(fd: OwnedFd) -> Option<Listener> {
    let tcp = TcpListener::from(fd);
    if tcp.local_addr().is_ok() {
        return Some(Listener::Tcp(tcp));
    }
    let unix = UnixListener::from(OwnedFd::from(tcp));
    let known = unix.local_addr().is_ok();
    if !known {
        log::warn!("descriptor {unix:?} was handed over and is no listening socket");
    }
    known.then_some(Listener::Unix(unix))
}

/// Whether a socket is the one that an entry asks for. Port 0 is any port.
fn fits(socket: &Listener, wanted: &ListenAddress) -> bool {
    match (socket, wanted) {
        (Listener::Tcp(socket), ListenAddress::Tcp(wanted)) => socket.local_addr().is_ok_and(|address| {
            address.ip() == wanted.ip() && (address.port() == wanted.port() || wanted.port() == 0)
        }),
        (Listener::Unix(socket), ListenAddress::Unix(wanted)) => path(socket).as_ref() == Some(wanted),
        _ => false,
    }
}

fn path(socket: &UnixListener) -> Option<PathBuf> {
    socket.local_addr().ok()?.as_pathname().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = ListenAddress::Unix(folder.path().join("smtp"));
        let unix = listener(OwnedFd::from(UnixListener::bind(folder.path().join("smtp")).unwrap())).unwrap();
        assert!(fits(&unix, &wanted));
        assert_eq!(place(&unix), name(&wanted));

        let tcp = listener(OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())).unwrap();
        let fits = |text: &str| fits(&tcp, &ListenAddress::Tcp(text.parse().unwrap()));
        assert!(fits(&place(&tcp)) && fits("127.0.0.1:0"));
        assert!(!fits("127.0.0.2:0") && !fits("127.0.0.1:1"));

        let no_socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(listener(no_socket).is_none());
    }
}
