//! What carries a stream's octets, a socket or a pipe, with the deadline for every wait on it.
//!
//! A deadline covers a whole phase (a command line, a handshake, a message), not a single read: a
//! peer that sends a byte a minute comes to it all the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::unix::signals::wait_readable;

/// A blocking connection with a deadline. A clone is the same connection, with a deadline of its own
/// from then on: TLS takes one, and if it can't even begin, the plain stream is still whole.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    socket: Socket,
    deadline: Option<Instant>,
    /// The time-outs that the socket was last given, for reading and writing.
    armed: [Option<Duration>; 2],
}

#[derive(Debug, Clone)]
pub(super) enum Socket {
    Tcp(Arc<TcpStream>),
    Unix(Arc<UnixStream>),
    /// What inetd or a pipeline gave us: no socket.
    Pipe {
        input: Arc<File>,
        output: Arc<File>,
    },
}

/// What a wait on the socket is for.
#[derive(Clone, Copy)]
enum Wait {
    Read = 0,
    Write = 1,
}

/// Who asks again no oftener than this wastes nothing worth a system call.
const SELDOM: Duration = Duration::from_millis(900);

impl Carrier {
    /// Without a deadline yet. The socket is a blocking one.
    pub fn new(socket: Socket) -> Carrier {
        Carrier { socket, deadline: None, armed: [None; 2] }
    }

    /// All reads and writes from now on end by `deadline`, with `TimedOut`; `None`: never.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The peer's address; none for a Unix socket or a pipe.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) | Socket::Pipe { .. } => None,
        }
    }

    /// Our own address; none for a Unix socket or a pipe.
    pub fn own_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) | Socket::Pipe { .. } => None,
        }
    }

    /// Says that nothing more will be said.
    pub fn finish_writing(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
            Socket::Pipe { .. } => Ok(()),
        }
    }

    /// Gives the socket a time-out that ends with the deadline. To spare a system call for every
    /// read, one that was armed before stays while it ends at most a second too late; a shorter one
    /// stays too, since who comes to its end only asks again.
    fn arm(&mut self, wait: Wait) -> io::Result<()> {
        let wanted = match self.deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Some(left)
            }
        };
        let armed = &mut self.armed[wait as usize];
        let good_enough = match (*armed, wanted) {
            (None, None) => true,
            (Some(armed), Some(wanted)) => {
                armed <= wanted + Duration::from_secs(1) && (armed >= SELDOM || armed * 2 >= wanted)
            }
            _ => false,
        };
        if good_enough {
            return Ok(());
        }
        match (&self.socket, wait) {
            (Socket::Tcp(socket), Wait::Read) => socket.set_read_timeout(wanted)?,
            (Socket::Tcp(socket), Wait::Write) => socket.set_write_timeout(wanted)?,
            (Socket::Unix(socket), Wait::Read) => socket.set_read_timeout(wanted)?,
            (Socket::Unix(socket), Wait::Write) => socket.set_write_timeout(wanted)?,
            (Socket::Pipe { .. }, Wait::Write) => {}
            (Socket::Pipe { input, .. }, Wait::Read) => {
                // A pipe has no time-out of its own: this wait is for the read that comes next.
                wait_readable(&[input.as_fd()], wanted)
                    .and_then(|ready| if ready[0] { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) })?;
                return Ok(());
            }
        }
        *armed = wanted;
        Ok(())
    }

    fn with_deadline<T>(
        &mut self,
        wait: Wait,
        mut call: impl FnMut(&Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            self.arm(wait)?;
            match call(&self.socket) {
                // The time-out that was armed may have been shorter than what is left.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if self.deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with_deadline(Wait::Read, |socket| match socket {
            Socket::Tcp(socket) => (&**socket).read(buffer),
            Socket::Unix(socket) => (&**socket).read(buffer),
            Socket::Pipe { input, .. } => (&**input).read(buffer),
        })
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with_deadline(Wait::Write, |socket| match socket {
            Socket::Tcp(socket) => (&**socket).write(bytes),
            Socket::Unix(socket) => (&**socket).write(bytes),
            Socket::Pipe { output, .. } => (&**output).write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Pipe { input, .. } => input.as_fd(),
        }
    }
}
