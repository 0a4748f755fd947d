//! A connection whose waits have an end.
//!
//! A deadline covers a whole phase (a command line, a reply, a message), not a single read: a peer
//! that sends a byte a minute comes to it all the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A blocking connection with a deadline. Made for TLS to be put on later: the session above sees
/// only `Read` and `Write`.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    deadline: Option<Instant>,
    /// The time-outs that the socket was last given, for reading and writing.
    armed: [Option<Duration>; 2],
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// What inetd or a pipeline gave us: no socket.
    Pipe {
        input: File,
        output: File,
    },
}

/// Ends a connection from outside; see [`Stream::breaker`].
#[derive(Debug)]
pub struct Breaker {
    socket: socket2::Socket,
}

impl Breaker {
    /// Nothing goes either way any more; who waits in a read or a write of the stream wakes with its
    /// end. That it has ended already is no error.
    pub fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// What a wait on the socket is for.
#[derive(Clone, Copy)]
enum Wait {
    Read = 0,
    Write = 1,
}

/// Who asks again no oftener than this wastes nothing worth a system call.
const SELDOM: Duration = Duration::from_millis(900);

impl Stream {
    /// A connection over TCP, blocking from now on, without Nagle's delay.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        Ok(Stream { carrier: Carrier::Tcp(socket), deadline: None, armed: [None; 2] })
    }

    /// A connection over a Unix socket, blocking from now on.
    pub fn unix(socket: UnixStream) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        Ok(Stream { carrier: Carrier::Unix(socket), deadline: None, armed: [None; 2] })
    }

    /// A connection over standard input and output, as inetd gives it: a socket of either kind, or,
    /// where standard input is none, two pipes or files (`output` is then written to). A pipe that
    /// nobody reads has no deadline: who started us holds only us up.
    pub fn standard(input: OwnedFd, output: OwnedFd) -> io::Result<Stream> {
        if !crate::unix::listeners::is_socket(&input) {
            let carrier = Carrier::Pipe { input: File::from(input), output: File::from(output) };
            return Ok(Stream { carrier, deadline: None, armed: [None; 2] });
        }
        let socket = socket2::Socket::from(input);
        if socket.domain()? == socket2::Domain::UNIX {
            Stream::unix(OwnedFd::from(socket).into())
        } else {
            Stream::tcp(socket.into())
        }
    }

    /// Connects to `address`, optionally from `source`, within `limit`.
    pub fn connect(address: SocketAddr, source: Option<IpAddr>, limit: Duration) -> io::Result<Stream> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&address.into(), limit)?;
        Stream::tcp(socket.into())
    }

    /// Connects to the Unix socket at `path`. One whose queue of waiting connections is full is an
    /// error (`WouldBlock`), not a wait.
    pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<Stream> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.connect_timeout(&socket2::SockAddr::unix(path)?, limit)?;
        Stream::unix(OwnedFd::from(socket).into())
    }

    /// A second handle on the connection, with which another thread can end it.
    pub fn breaker(&self) -> io::Result<Breaker> {
        Ok(Breaker { socket: self.as_fd().try_clone_to_owned()?.into() })
    }

    /// All reads and writes from now on end by `deadline`, with `TimedOut`; `None`: never.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The peer's address; none for a Unix socket or a pipe.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.carrier {
            Carrier::Tcp(socket) => socket.peer_addr().ok(),
            Carrier::Unix(_) | Carrier::Pipe { .. } => None,
        }
    }

    /// Says that nothing more will be said. Who closes while the peer still sends should do this
    /// and read for a moment, or the last words get lost (RFC 9293 3.6.1: the peer sees a reset).
    pub fn finish_writing(&mut self) -> io::Result<()> {
        match &self.carrier {
            Carrier::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Carrier::Unix(socket) => socket.shutdown(Shutdown::Write),
            Carrier::Pipe { .. } => Ok(()),
        }
    }

    /// Waits at most `limit` for something to read; `false` if nothing came. The end of the stream
    /// counts as something.
    pub fn readable_within(&self, limit: Duration) -> io::Result<bool> {
        Ok(crate::unix::signals::wait_readable(&[self.as_fd()], Some(limit))?[0])
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
        match (&self.carrier, wait) {
            (Carrier::Tcp(socket), Wait::Read) => socket.set_read_timeout(wanted)?,
            (Carrier::Tcp(socket), Wait::Write) => socket.set_write_timeout(wanted)?,
            (Carrier::Unix(socket), Wait::Read) => socket.set_read_timeout(wanted)?,
            (Carrier::Unix(socket), Wait::Write) => socket.set_write_timeout(wanted)?,
            (Carrier::Pipe { .. }, Wait::Write) => {}
            (Carrier::Pipe { input, .. }, Wait::Read) => {
                // A pipe has no time-out of its own: this wait is for the read that comes next.
                crate::unix::signals::wait_readable(&[input.as_fd()], wanted)
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
        mut call: impl FnMut(&mut Carrier) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            self.arm(wait)?;
            match call(&mut self.carrier) {
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

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with_deadline(Wait::Read, |carrier| match carrier {
            Carrier::Tcp(socket) => socket.read(buffer),
            Carrier::Unix(socket) => socket.read(buffer),
            Carrier::Pipe { input, .. } => input.read(buffer),
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with_deadline(Wait::Write, |carrier| match carrier {
            Carrier::Tcp(socket) => socket.write(bytes),
            Carrier::Unix(socket) => socket.write(bytes),
            Carrier::Pipe { output, .. } => output.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.carrier {
            Carrier::Tcp(socket) => socket.as_fd(),
            Carrier::Unix(socket) => socket.as_fd(),
            Carrier::Pipe { input, .. } => input.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_can_end_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut stream = Stream::connect_unix(&path, Duration::from_secs(5)).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let breaker = stream.breaker().unwrap();
        let reader = std::thread::spawn(move || stream.read(&mut [0]).unwrap());
        breaker.cut();
        assert_eq!(reader.join().unwrap(), 0);
    }

    #[test]
    fn a_trickle_does_not_put_the_deadline_off() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut stream = Stream::unix(one).unwrap();
        let writer = std::thread::spawn(move || {
            let mut other = other;
            while other.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let begun = Instant::now();
        stream.set_deadline(Some(begun + Duration::from_millis(200)));
        let mut byte = [0];
        let error = loop {
            if let Err(error) = stream.read(&mut byte) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        writer.join().unwrap();
    }

    #[test]
    fn a_silent_peer_comes_to_the_deadline() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut stream = Stream::unix(one).unwrap();
        stream.set_deadline(Some(Instant::now() + Duration::from_millis(30)));
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!stream.readable_within(Duration::from_millis(1)).unwrap());
    }

    #[test]
    fn pipes_serve_where_there_is_no_socket() {
        let (input, mut to_input) = io::pipe().unwrap();
        let (mut from_output, output) = io::pipe().unwrap();
        let mut stream = Stream::standard(input.into(), output.into()).unwrap();
        stream.set_deadline(Some(Instant::now() + Duration::from_millis(30)));
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        stream.set_deadline(Some(Instant::now() + Duration::from_secs(10)));
        to_input.write_all(b"a").unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        stream.write_all(&byte).unwrap();
        from_output.read_exact(&mut byte).unwrap();
        assert_eq!((&byte, stream.peer_address()), (b"a", None));
        drop(to_input);
        assert_eq!(stream.read(&mut byte).unwrap(), 0);
    }

    #[test]
    fn standard_input_may_be_a_socket() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let input: OwnedFd = one.into();
        let output = input.try_clone().unwrap();
        let mut stream = Stream::standard(input, output).unwrap();
        stream.write_all(b"a").unwrap();
        stream.finish_writing().unwrap();
        let mut said = String::new();
        other.read_to_string(&mut said).unwrap();
        assert_eq!(said, "a");
    }
}
