//! The listening sockets: bound once, kept through all restarts of who accepts on them, so that no
//! connection is refused in between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{info, warn};
use thiserror::Error;

use posta::unix::listeners::{bind_tcp, bind_unix};
use posta::unix::pass::PacketListener;
use posta::unix::signals::{Signals, Told};

use posta::config::{Config, Listen, ListenAddress};

use crate::house::Owners;
use crate::program::{PROGRAMS, SMTPD, User};

/// How long the children of a keeper that was killed may hold an address.
const PREDECESSORS_END: Duration = Duration::from_secs(45);
/// Between two tries to take such an address.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Why a socket can't be had.
#[derive(Debug, Error)]
pub enum SocketError {
    /// An address of `[[listen]]`.
    #[error("can't listen on {address}: {source}{hint}")]
    Listen { address: String, source: io::Error, hint: &'static str },
    /// A socket in `run/`.
    #[error("can't make the socket {path}: {source}")]
    Run { path: PathBuf, source: io::Error },
}

/// A socket, and whom it is for.
#[derive(Debug)]
struct Socket {
    program: &'static str,
    name: &'static str,
    fd: OwnedFd,
    /// To be removed when we leave.
    path: Option<PathBuf>,
    /// What `[[listen]]` calls it.
    listen: Option<ListenAddress>,
}

/// All of them.
#[derive(Debug)]
pub struct Sockets {
    all: Vec<Socket>,
}

impl Sockets {
    /// Binds everything. `patience` is given where a predecessor was killed: addresses that its
    /// children still hold are waited for, until a signal tells us to go.
    pub fn bind(
        config: &Config,
        owners: &Owners,
        patience: Option<&Signals>,
    ) -> Result<Sockets, SocketError> {
        let mut all = Vec::new();
        for program in &PROGRAMS {
            for (name, mode, client) in program.sockets {
                let path = config.run.join(name);
                let fd = bind_packets(&path, *mode, program.user, *client, owners)
                    .map_err(|source| SocketError::Run { path: path.clone(), source })?;
                all.push(Socket { program: program.name, name, fd, path: Some(path), listen: None });
            }
        }
        for listen in &config.listen {
            all.push(bind_listen(listen, owners, patience)?);
        }
        Ok(Sockets { all })
    }

    /// Those of one program, as `unix::child` takes them.
    pub fn of(&self, program: &str) -> Vec<(String, BorrowedFd<'_>)> {
        let its = self.all.iter().filter(|socket| socket.program == program);
        its.map(|socket| (socket.name.to_string(), socket.fd.as_fd())).collect()
    }

    /// Binds what `[[listen]]` has more than before and drops what it no longer has; whether that
    /// changed anything. If one can't be bound, nothing changes.
    pub fn rebind(&mut self, listen: &[Listen], owners: &Owners) -> Result<bool, SocketError> {
        let held = |address: &ListenAddress| self.all.iter().any(|s| s.listen.as_ref() == Some(address));
        let new = listen.iter().filter(|l| !held(&l.address));
        let new = new.map(|l| bind_listen(l, owners, None)).collect::<Result<Vec<_>, _>>()?;
        let before = self.all.len();
        self.all.retain(|socket| {
            let wanted = |held: &ListenAddress| listen.iter().any(|l| l.address == *held);
            socket.listen.as_ref().is_none_or(wanted)
        });
        let changed = before != self.all.len() || !new.is_empty();
        self.all.extend(new);
        Ok(changed)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = std::fs::remove_file(path) {
            warn!("{}: {error}", path.display());
        }
    }
}

/// Whatever socket is there is stale: this folder is ours alone (`house`), and the children of one
/// before us have lost their keeper.
fn bind_packets(path: &Path, mode: u32, user: User, client: User, owners: &Owners) -> io::Result<OwnedFd> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = PacketListener::bind(path, mode)?;
    if let Some(client) = client.rights(owners) {
        chown(path, user.rights(owners).map(|rights| rights.uid), Some(client.gid))?;
    }
    listener.as_fd().try_clone_to_owned()
}

fn bind_listen(listen: &Listen, owners: &Owners, patience: Option<&Signals>) -> Result<Socket, SocketError> {
    let until = Instant::now() + PREDECESSORS_END;
    let mut told = false;
    loop {
        let source = match open_listen(&listen.address, owners) {
            Ok(fd) => return Ok(socket_for(listen, fd)),
            Err(source) => source,
        };
        let address = name_of(&listen.address);
        let patience =
            patience.filter(|_| source.kind() == io::ErrorKind::AddrInUse && Instant::now() < until);
        let Some(signals) = patience else {
            let hint = hint(&source);
            return Err(SocketError::Listen { address, source, hint });
        };
        if !told {
            info!("{address} is still held, as by a posta-smtpd whose keeper was killed; waiting for it");
            told = true;
        }
        if signals.wait(Some(TRY_AGAIN)).is_ok_and(|told| told == Some(Told::Terminate)) {
            return Err(SocketError::Listen { address, source, hint: "; told to end" });
        }
    }
}

fn open_listen(address: &ListenAddress, owners: &Owners) -> io::Result<OwnedFd> {
    match address {
        ListenAddress::Tcp(address) => Ok(bind_tcp(*address)?.into()),
        ListenAddress::Unix(path) => {
            let listener = bind_unix(path, 0o666)?;
            if let Some(rights) = User::Smtpd.rights(owners) {
                chown(path, Some(rights.uid), Some(rights.gid))?;
            }
            Ok(listener.into())
        }
    }
}

fn socket_for(listen: &Listen, fd: OwnedFd) -> Socket {
    let path = match &listen.address {
        ListenAddress::Unix(path) => Some(path.clone()),
        ListenAddress::Tcp(_) => None,
    };
    Socket { program: SMTPD, name: "smtp", fd, path, listen: Some(listen.address.clone()) }
}

fn name_of(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another mail server may be running: \"ss -ltnp\" shows whose it is",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use posta::config::ListenTls;

    use super::*;

    fn tcp(port: u16) -> Listen {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], port).into());
        let (submission, trusted, proxy, lmtp) = (false, false, false, false);
        Listen { address, tls: ListenTls::None, submission, trusted, proxy, lmtp }
    }

    /// A port that is free at this moment.
    fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn an_address_in_use_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let told = bind_listen(&tcp(port), &Owners::Caller, None).unwrap_err().to_string();
        assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("ss -ltnp"), "{told}");
    }

    #[test]
    fn a_changed_list_binds_the_new_and_drops_the_old() {
        let (one, two) = (tcp(free_port()), tcp(free_port()));
        let mut sockets = Sockets { all: vec![bind_listen(&one, &Owners::Caller, None).unwrap()] };
        assert!(!sockets.rebind(std::slice::from_ref(&one), &Owners::Caller).unwrap());
        assert!(sockets.rebind(std::slice::from_ref(&two), &Owners::Caller).unwrap());
        assert_eq!(sockets.of(SMTPD).len(), 1);
        bind_listen(&one, &Owners::Caller, None).unwrap();
    }

    #[test]
    fn a_stale_socket_in_run_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("local");
        let old = bind_packets(&path, 0o660, User::Keeper, User::Queue, &Owners::Caller).unwrap();
        bind_packets(&path, 0o660, User::Keeper, User::Queue, &Owners::Caller).unwrap();
        drop(old);
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(bind_packets(&file, 0o660, User::Keeper, User::Queue, &Owners::Caller).is_err());
    }
}
