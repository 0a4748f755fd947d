//! Several addresses of one host, raced (RFC 8305 5): a slow one does not hold the others up.
//!
//! One thread makes all the attempts: each is a connect that does not block, begun a moment after
//! the one before or as soon as that has failed, and one poll watches them all.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::unix::wait::{Watch, is_under_way, wait_ready};

use super::Stream;

/// How long an attempt has before the next one begins beside it (RFC 8305 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// One who runs.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
}

/// How a race ended. Runners are named by their place in the list.
#[derive(Debug, Default)]
pub struct Race {
    /// The first that connected.
    pub winner: Option<(usize, Stream)>,
    /// Those that failed before that: why, and how long it took.
    pub failed: Vec<(usize, io::Error, Duration)>,
    /// Those that had begun before the winner, and have been given up.
    pub overtaken: Vec<usize>,
}

/// An attempt that has not come to its end.
struct Attempt {
    place: usize,
    socket: Socket,
    begun: Instant,
}

impl Stream {
    /// Connects to the first of `runners` that takes the connection; each may take `limit`. All
    /// others are dropped.
    pub fn race(runners: &[Runner], limit: Duration) -> Race {
        let mut race = Race::default();
        let mut under_way: Vec<Attempt> = Vec::new();
        let (mut next, mut next_at) = (0, Instant::now());
        loop {
            while next < runners.len() && (under_way.is_empty() || Instant::now() >= next_at) {
                let begun = Instant::now();
                match begin(runners[next]) {
                    Ok(socket) => {
                        under_way.push(Attempt { place: next, socket, begun });
                        next_at = begun + HEAD_START;
                    }
                    Err(error) => race.failed.push((next, error, begun.elapsed())),
                }
                next += 1;
            }
            let Some(first) = under_way.first() else { return race };
            let until =
                if next < runners.len() { next_at.min(first.begun + limit) } else { first.begun + limit };
            let failures = race.failed.len();
            if let Some(winner) = watch(&mut under_way, until, limit, &mut race.failed) {
                race.overtaken = under_way.iter().map(|a| a.place).filter(|p| *p < winner.place).collect();
                match Stream::tcp(winner.socket.into()) {
                    Ok(stream) => race.winner = Some((winner.place, stream)),
                    Err(error) => race.failed.push((winner.place, error, winner.begun.elapsed())),
                }
                return race;
            }
            if race.failed.len() > failures {
                next_at = Instant::now();
            }
        }
    }
}

/// Waits until `until`, or until something has happened: takes out the one that has connected, or
/// those that have failed or had their time.
fn watch(
    under_way: &mut Vec<Attempt>,
    until: Instant,
    limit: Duration,
    failed: &mut Vec<(usize, io::Error, Duration)>,
) -> Option<Attempt> {
    let watched: Vec<Watch<'_>> = under_way.iter().map(|a| Watch::Write(a.socket.as_fd())).collect();
    let ready = wait_ready(&watched, Some(until.saturating_duration_since(Instant::now())));
    let mut ready = match ready {
        Ok(ready) => ready.into_iter(),
        Err(error) => {
            let all = under_way.drain(..);
            failed.extend(all.map(|a| (a.place, io::Error::from(error.kind()), a.begun.elapsed())));
            return None;
        }
    };
    let mut still = Vec::with_capacity(under_way.len());
    let mut winner = None;
    for attempt in under_way.drain(..) {
        let took = attempt.begun.elapsed();
        let error = match ready.next() {
            Some(true) => match attempt.socket.take_error() {
                Ok(None) if winner.is_none() => {
                    winner = Some(attempt);
                    continue;
                }
                Ok(None) => continue,
                Ok(Some(error)) | Err(error) => error,
            },
            _ if took >= limit => io::Error::new(io::ErrorKind::TimedOut, "connection timed out"),
            _ => {
                still.push(attempt);
                continue;
            }
        };
        failed.push((attempt.place, error, took));
    }
    *under_way = still;
    winner
}

/// Begins an attempt.
fn begin(runner: Runner) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(runner.to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = runner.from {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&runner.to.into()) {
        Err(error) if !is_under_way(&error) => Err(error),
        _ => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn to(to: SocketAddr) -> Runner {
        Runner { to, from: None }
    }

    /// A listener that nobody gets through to: its queue is full.
    fn silent() -> (TcpListener, Vec<Socket>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).listen(0).unwrap();
        let at = listener.local_addr().unwrap();
        let queue = (0..4).map(|_| begin(to(at)).unwrap()).collect();
        (listener, queue)
    }

    #[test]
    fn a_silent_address_is_overtaken() {
        let (silent, _queue) = silent();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let runners = [&silent, &open, &open].map(|listener| to(listener.local_addr().unwrap()));
        let race = Stream::race(&runners, LIMIT);
        let (place, stream) = race.winner.unwrap();
        assert_eq!((place, race.overtaken, race.failed.len()), (1, vec![0], 0));
        assert_eq!(stream.peer_address(), Some(open.local_addr().unwrap()));
    }

    #[test]
    fn after_a_failure_the_next_one_begins_and_all_failures_are_told() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let race = Stream::race(&[to(closed), to(open.local_addr().unwrap())], LIMIT);
        assert_eq!(race.failed[0].1.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!((race.winner.unwrap().0, race.failed[0].0, race.failed.len()), (1, 0, 1));
        let race = Stream::race(&[to(closed), to(closed)], LIMIT);
        assert_eq!((race.winner.is_none(), race.failed.len()), (true, 2));
        assert!(Stream::race(&[], LIMIT).winner.is_none());
    }

    #[test]
    fn each_has_its_time() {
        let (silent, _queue) = silent();
        let at = to(silent.local_addr().unwrap());
        let race = Stream::race(&[at, at], Duration::from_millis(300));
        assert!(race.winner.is_none());
        assert!(race.failed.iter().all(|(_, error, _)| error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(race.failed.len(), 2);
    }

    #[test]
    fn the_connection_comes_from_the_address_that_is_wanted() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = "127.0.0.7".parse().unwrap();
        let race = Stream::race(&[Runner { to: open.local_addr().unwrap(), from: Some(from) }], LIMIT);
        assert_eq!(race.winner.unwrap().1.own_address().unwrap().ip(), from);
    }
}
