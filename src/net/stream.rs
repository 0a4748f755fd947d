//! A connection whose waits have an end, plain or under TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod race;

use super::carrier::{Carrier, Socket};
use super::tls_client::{Assurance, Connector, Demand};
pub use super::tls_layer::{Binding, Security};
use super::tls_layer::{Layer, TlsFault};
use super::tls_server::Certificates;
pub use race::{Race, Runner};

/// A blocking connection with a deadline. The session above sees only `Read` and `Write`; once TLS
/// has been agreed on, they go through it.
#[derive(Debug)]
pub struct Stream {
    way: Way,
}

#[derive(Debug)]
enum Way {
    Plain(Carrier),
    /// On the heap: a plain session that is parked is to stay small.
    Secured(Box<Layer>),
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

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Stream {
        Stream { way: Way::Plain(Carrier::new(socket)) }
    }
}

impl Stream {
    /// A connection over TCP, blocking from now on, without Nagle's delay.
    pub fn tcp(socket: TcpStream) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        Ok(Socket::Tcp(Arc::new(socket)).into())
    }

    /// A connection over a Unix socket, blocking from now on.
    pub fn unix(socket: UnixStream) -> io::Result<Stream> {
        socket.set_nonblocking(false)?;
        Ok(Socket::Unix(Arc::new(socket)).into())
    }

    /// A connection over standard input and output, as inetd gives it: a socket of either kind, or,
    /// where standard input is none, two pipes or files (`output` is then written to). A pipe that
    /// nobody reads has no deadline: who started us holds only us up.
    pub fn standard(input: OwnedFd, output: OwnedFd) -> io::Result<Stream> {
        if !crate::unix::listeners::is_socket(&input) {
            let (input, output) = (Arc::new(File::from(input)), Arc::new(File::from(output)));
            return Ok(Socket::Pipe { input, output }.into());
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
        let mut race = Stream::race(&[Runner { to: address, from: source }], limit);
        match race.winner {
            Some((_, stream)) => Ok(stream),
            None => Err(race.failed.pop().map_or(io::ErrorKind::NotConnected.into(), |(_, why, _)| why)),
        }
    }

    /// Connects to the Unix socket at `path`. One whose queue of waiting connections is full is an
    /// error (`WouldBlock`), not a wait.
    pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<Stream> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.connect_timeout(&socket2::SockAddr::unix(path)?, limit)?;
        Stream::unix(OwnedFd::from(socket).into())
    }

    /// Turns to TLS as the server. `false`: the client's next piece of the handshake has not come by the
    /// stream's deadline; to be called again when there is something to read, until `latest`. The
    /// caller has taken care that nothing the client sent before is still in its own buffer: it would
    /// pass for a word under TLS (RFC 3207 6, CVE-2011-0411). After an error the connection is of no
    /// use any more.
    pub fn secure(&mut self, certificates: &Certificates, latest: Instant) -> Result<bool, TlsFault> {
        if let Way::Plain(carrier) = &self.way {
            self.way = Way::Secured(Box::new(certificates.begin(carrier.clone())?));
        }
        match &mut self.way {
            Way::Secured(layer) => layer.accept(latest),
            Way::Plain(_) => Ok(false),
        }
    }

    /// Turns to TLS as the client of `host`, a name or an address, by the stream's deadline; tells how sure
    /// we can be of the server. What [`secure`](Stream::secure) says of the caller's buffer and of errors
    /// holds here too (CVE-2021-38371).
    pub fn secure_to(
        &mut self,
        host: &str,
        connector: &Connector,
        demand: Demand,
    ) -> Result<Assurance, TlsFault> {
        let (layer, assurance) = connector.connect(host, demand, self.plain()?)?;
        self.way = Way::Secured(Box::new(layer));
        Ok(assurance)
    }

    fn plain(&self) -> Result<Carrier, TlsFault> {
        match &self.way {
            Way::Plain(carrier) => Ok(carrier.clone()),
            Way::Secured(_) => Err(TlsFault::Twice),
        }
    }

    /// What TLS has agreed on; none on a plain connection.
    pub fn security(&self) -> Option<&Security> {
        match &self.way {
            Way::Plain(_) => None,
            Way::Secured(layer) => layer.security(),
        }
    }

    /// What names this very TLS connection, for SCRAM-PLUS; none on a plain connection, or where this
    /// kind of binding isn't defined for what was agreed on.
    pub fn binding(&self, kind: Binding) -> Option<Vec<u8>> {
        match &self.way {
            Way::Plain(_) => None,
            Way::Secured(layer) => layer.binding(kind),
        }
    }

    /// Whether TLS goes on with a session of before, which cost no whole handshake.
    pub fn is_resumed(&self) -> bool {
        matches!(&self.way, Way::Secured(layer) if layer.ssl().session_reused())
    }

    /// Whether octets have come that lie within the TLS layer, where nobody who watches the socket
    /// sees them.
    pub fn has_buffered(&self) -> bool {
        match &self.way {
            Way::Plain(_) => false,
            Way::Secured(layer) => layer.has_buffered(),
        }
    }

    /// A second handle on the connection, with which another thread can end it.
    pub fn breaker(&self) -> io::Result<Breaker> {
        Ok(Breaker { socket: self.as_fd().try_clone_to_owned()?.into() })
    }

    /// All reads and writes from now on end by `deadline`, with `TimedOut`; `None`: never.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        match &mut self.way {
            Way::Plain(carrier) => carrier.set_deadline(deadline),
            Way::Secured(layer) => layer.carrier_mut().set_deadline(deadline),
        }
    }

    fn carrier(&self) -> &Carrier {
        match &self.way {
            Way::Plain(carrier) => carrier,
            Way::Secured(layer) => layer.carrier(),
        }
    }

    /// The peer's address; none for a Unix socket or a pipe.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.carrier().peer_address()
    }

    /// Our own address, which the peer has connected to; none for a Unix socket or a pipe.
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.carrier().own_address()
    }

    /// Says that nothing more will be said; under TLS with its own goodbye (close_notify, RFC 8446
    /// 6.1), by the deadline. Who closes while the peer still sends should do this and read for a
    /// moment, or the last words get lost (RFC 9293 3.6.1: the peer sees a reset).
    pub fn finish_writing(&mut self) -> io::Result<()> {
        if let Way::Secured(layer) = &mut self.way {
            layer.say_goodbye()?;
        }
        self.carrier().finish_writing()
    }

    /// Waits at most `limit` for something to read; `false` if nothing came. The end of the stream
    /// counts as something.
    pub fn readable_within(&self, limit: Duration) -> io::Result<bool> {
        Ok(self.has_buffered() || crate::unix::signals::wait_readable(&[self.as_fd()], Some(limit))?[0])
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.way {
            Way::Plain(carrier) => carrier.read(buffer),
            Way::Secured(layer) => layer.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.way {
            Way::Plain(carrier) => carrier.write(bytes),
            Way::Secured(layer) => layer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.carrier().as_fd()
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
    fn a_listener_that_takes_nobody_in_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(1).unwrap();
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let connect = |_| Stream::connect_unix(&path, Duration::from_secs(5));
            let _ = done.send((0..9).map(connect).collect::<Vec<_>>());
        });
        let tried = outcome.recv_timeout(Duration::from_secs(60)).expect("it does not wait");
        assert!(tried[0].is_ok() && tried[8].is_err());
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
