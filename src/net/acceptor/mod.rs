//! The door to mio: one thread that watches everything that is silent.
//!
//! Listeners, signals, and the sessions that wait for their client: whatever of them has something
//! to say comes out of [`Acceptor::wait`], and the program decides what becomes of it (a worker of
//! the [`pool`](super::pool) takes it, as a rule). The acceptor itself never waits for one client.
//!
//! mio is edge-triggered: a listener that has become ready is remembered as such until `accept`
//! says that nobody is waiting. Where the process or the system has no more descriptors, accepting
//! rests for a moment instead of spinning.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::unix::notify;
use crate::unix::signals::Signals;

use super::parking::{Parked, Parking, Stay};
use super::seats::{Full, Limits, Seats};

mod door;
mod guest;
mod happening;
mod porch;

use door::{Door, Socket};
use guest::Waiting;
use porch::HandedBack;

pub use door::Listener;
pub use guest::Guest;
pub use happening::{Arrival, Happening, Turned, TurnedAway, Why};
pub use porch::Porch;

/// How long accepting rests when there are no descriptors.
const REST: Duration = Duration::from_millis(200);
/// Connections that one listener gives before the others have their turn.
const AT_ONCE: usize = 64;
/// Who has been idle for so long may have to go for another.
const IDLE: Duration = Duration::from_secs(1);
/// While the house is closing: how often we look whether everybody has gone.
const LOOK: Duration = Duration::from_millis(50);

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_LISTENER: usize = 2;

/// The thread's own things. `S` is a parked session.
#[derive(Debug)]
pub struct Acceptor<S> {
    poll: Poll,
    events: Events,
    signals: Signals,
    doors: Vec<Door>,
    seats: Arc<Seats>,
    parking: Parking<Waiting<S>>,
    porch: Porch<S>,
    /// What has happened and was not yet given out.
    happened: VecDeque<Happening<S>>,
    /// Until then nothing is accepted, for want of descriptors.
    resting: Option<Instant>,
    /// When that was last said in the log.
    complained: Option<Instant>,
    /// The house is closing, and this is when it is over.
    closing: Option<Instant>,
}

impl<S: Guest> Acceptor<S> {
    /// Watches these listeners and signals.
    pub fn open(listeners: Vec<Listener>, signals: Signals, limits: Limits) -> io::Result<Acceptor<S>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        watch(&poll, signals.as_fd().as_raw_fd(), SIGNALS)?;
        let mut doors = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let door = Door::open(listener)?;
            watch(&poll, door.raw(), Token(FIRST_LISTENER + index))?;
            doors.push(door);
        }
        let parking = Parking::new(FIRST_LISTENER + doors.len());
        Ok(Acceptor {
            poll,
            events: Events::with_capacity(256),
            signals,
            doors,
            seats: Seats::new(limits),
            parking,
            porch: Porch::new(waker),
            happened: VecDeque::new(),
            resting: None,
            complained: None,
            closing: None,
        })
    }

    /// Where workers park sessions.
    pub fn porch(&self) -> Porch<S> {
        self.porch.clone()
    }

    /// From now on these limits hold.
    pub fn limit(&self, limits: Limits) {
        self.seats.limit(limits);
    }

    /// Clients of these listeners (by index) are proxies that say for whom they connect: their
    /// connections count for nobody until [`Seat::move_to`](super::seats::Seat::move_to) says for whom.
    pub fn expect_proxies(&mut self, listeners: &[bool]) {
        for (door, proxied) in self.doors.iter_mut().zip(listeners) {
            door.proxied = *proxied;
        }
    }

    /// How many sessions there are, parked or not.
    pub fn sessions(&self) -> usize {
        self.seats.taken()
    }

    /// Nobody comes in any more: the listeners are closed, the parked sessions are given out as
    /// [`Why::Closing`], and those that are parked from now on too. When all are gone, or at
    /// `latest`, it is [`Happening::Over`].
    pub fn close(&mut self, latest: Instant) {
        self.doors.clear();
        self.closing = Some(latest);
        while let Some(parked) = self.parking.take_any() {
            self.wake(parked.session, Why::Closing);
        }
    }

    /// Lets a new client wait for its greeting until `until` ([`Happening::Patient`]). Who talks
    /// before is turned away ([`Turned::TalkedFirst`]); who goes has left ([`Happening::Left`]).
    /// Nobody's thread waits with it.
    pub fn pause(&mut self, arrival: Arrival, until: Instant) {
        self.put(Waiting::Newcomer(arrival), until, Stay::Listening);
    }

    /// Waits for the next thing to happen.
    pub fn wait(&mut self) -> io::Result<Happening<S>> {
        loop {
            if let Some(happening) = self.happened.pop_front() {
                return Ok(happening);
            }
            if self.closing.is_some_and(|latest| self.sessions() == 0 || latest <= Instant::now()) {
                return Ok(Happening::Over);
            }
            self.look()?;
        }
    }

    /// Waits for events and writes down what they mean.
    fn look(&mut self) -> io::Result<()> {
        notify::alive();
        let limit = notify::at_most(self.patience(Instant::now()));
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let events: Vec<(Token, bool)> =
            self.events.iter().map(|event| (event.token(), is_the_end(event))).collect();
        for (token, at_end) in events {
            match token {
                WAKER => {}
                SIGNALS => self.read_signals()?,
                Token(number) => match self.doors.get_mut(number - FIRST_LISTENER) {
                    Some(door) => door.ready = true,
                    None => self.stirred(number, at_end),
                },
            }
        }
        let now = Instant::now();
        while let Some(parked) = self.parking.take_overdue(now) {
            self.wake(parked.session, if parked.stay == Stay::Resting { Why::Rested } else { Why::Overdue });
        }
        self.take_parked();
        self.accept(now);
        Ok(())
    }

    /// A parked session's client has done something; a resting one wakes only if that was to go. A
    /// session that is no longer there was taken out since the event came.
    fn stirred(&mut self, number: usize, at_end: bool) {
        let Some(parked) = self.parking.get(number) else { return };
        let why = match parked.stay {
            Stay::Resting if !at_end => return,
            Stay::Resting => Why::Gone,
            Stay::Listening if at_end && parked.session.is_newcomer() => Why::Gone,
            Stay::Listening => Why::Readable,
        };
        if let Some(parked) = self.parking.take(number) {
            self.wake(parked.session, why);
        }
    }

    /// How long there is nothing to do, unless an event comes.
    fn patience(&self, now: Instant) -> Option<Duration> {
        if self.resting.is_none() && self.doors.iter().any(|door| door.ready) {
            return Some(Duration::ZERO);
        }
        let closing = self.closing.map(|latest| latest.min(now + LOOK));
        let next = [self.resting, self.parking.first_end(), closing].into_iter().flatten().min();
        next.map(|at| at.saturating_duration_since(now))
    }

    fn read_signals(&mut self) -> io::Result<()> {
        while let Some(told) = self.signals.next()? {
            self.happened.push_back(Happening::Told(told));
        }
        Ok(())
    }

    /// Watches the sessions that were handed back.
    fn take_parked(&mut self) {
        for HandedBack { session, until, stay } in self.porch.take() {
            self.put(Waiting::Session(session), until, stay);
        }
    }

    /// Parks somebody. Who can't be watched, or comes while the house is closing, is woken at once.
    fn put(&mut self, session: Waiting<S>, until: Instant, stay: Stay) {
        if self.closing.is_some() {
            self.happened.push_back(session.wake(Why::Closing));
            return;
        }
        let token = Token(self.parking.next_number());
        match watch(&self.poll, session.as_fd().as_raw_fd(), token) {
            Ok(()) => {
                let (stranger, since) = (session.is_stranger(), session.idle_since());
                self.parking.put(Parked { session, stay, since, until, stranger });
            }
            Err(error) => {
                log::error!("cannot watch a session: {error}");
                self.happened.push_back(session.wake(Why::Overdue));
            }
        }
    }

    /// Gives somebody who was parked out, no longer watched.
    fn wake(&mut self, session: Waiting<S>, why: Why) {
        let fd = session.as_fd().as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::error!("cannot stop watching a session: {error}");
        }
        self.happened.push_back(session.wake(why));
    }

    /// Lets in who waits at the doors.
    fn accept(&mut self, now: Instant) {
        if self.resting.is_some_and(|until| until > now) {
            return;
        }
        self.resting = None;
        for index in 0..self.doors.len() {
            let mut left = AT_ONCE;
            while self.doors[index].ready && left > 0 {
                left -= 1;
                match self.doors[index].accept() {
                    Ok((socket, address)) => self.seat(socket, address, index, now),
                    Err(error) => match error.kind() {
                        io::ErrorKind::WouldBlock => self.doors[index].ready = false,
                        // The client has gone again, or accept(2) was interrupted.
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                        _ => {
                            self.rest(now, &error);
                            return;
                        }
                    },
                }
            }
        }
    }

    /// Stops accepting for a moment; says so once a minute.
    fn rest(&mut self, now: Instant, error: &io::Error) {
        self.resting = Some(now + REST);
        if self.complained.is_none_or(|at| now.duration_since(at) >= Duration::from_secs(60)) {
            self.complained = Some(now);
            log::warn!("cannot accept connections just now: {error}; {} sessions", self.sessions());
        }
    }

    /// Gives a new client its seat, if there is one or somebody can go for it.
    fn seat(&mut self, socket: Socket, address: Option<SocketAddr>, listener: usize, now: Instant) {
        // An error: the client has gone again.
        let Ok(stream) = socket.into_stream() else { return };
        let client = address.map(|address| address.ip()).filter(|_| !self.doors[listener].proxied);
        let mut seat = self.seats.take(client);
        if matches!(seat, Err(Full::House)) && self.shed(now) {
            seat = self.seats.take(client);
        }
        let happening = match seat {
            Err(full) => {
                Happening::TurnedAway(TurnedAway { address, listener, why: Turned::Full(full), stream })
            }
            Ok(seat) => Happening::Arrived(Arrival { stream, address, listener, seat }),
        };
        self.happened.push_back(happening);
    }

    /// Lets the stranger go who has been idle for longest; `false` if there is none who could.
    fn shed(&mut self, now: Instant) -> bool {
        let Some(since) = now.checked_sub(IDLE).filter(|_| self.seats.may_shed()) else { return false };
        let Some(parked) = self.parking.take_longest_idle(since) else { return false };
        if let Some(seat) = parked.session.seat() {
            seat.vacate();
        }
        self.wake(parked.session, Why::Shed);
        true
    }
}

/// Whether the peer has closed the connection, or its own direction of it (EPOLLRDHUP).
fn is_the_end(event: &Event) -> bool {
    event.is_read_closed() || event.is_error()
}

/// Watches a descriptor for something to read.
fn watch(poll: &Poll, fd: RawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use crate::net::seats::Seat;

    use super::*;

    const LIMITS: Limits = Limits { sessions: 2, per_client: 3 };

    /// The signals are blocked for the test's own thread only, which ends with the test.
    fn open(listener: Listener, limits: Limits) -> Acceptor<Arrival> {
        Acceptor::open(vec![listener], Signals::take_over().unwrap(), limits).unwrap()
    }

    fn tcp() -> (Listener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Listener::Tcp(listener), address)
    }

    fn arrival(acceptor: &mut Acceptor<Arrival>) -> Arrival {
        match acceptor.wait().unwrap() {
            Happening::Arrived(arrival) => arrival,
            other => panic!("not an arrival: {other:?}"),
        }
    }

    fn awake(acceptor: &mut Acceptor<Arrival>) -> (Arrival, Why) {
        match acceptor.wait().unwrap() {
            Happening::Awake(arrival, why) => (arrival, why),
            other => panic!("not awake: {other:?}"),
        }
    }

    impl Guest for Arrival {
        fn seat(&self) -> Option<&Seat> {
            Some(&self.seat)
        }
        /// In these tests who comes over IPv6 is no stranger.
        fn is_stranger(&self) -> bool {
            self.address.is_none_or(|address| address.is_ipv4())
        }
        fn idle_since(&self) -> Instant {
            Instant::now()
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_full_house_turns_clients_away_until_a_seat_is_free() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let (one, two) = (arrival(&mut acceptor), arrival(&mut acceptor));
        assert_eq!(one.address.unwrap().ip(), address.ip());
        let mut third = TcpStream::connect(address).unwrap();
        match acceptor.wait().unwrap() {
            Happening::TurnedAway(away) => {
                assert_eq!(away.why, Turned::Full(Full::House));
                away.dismiss(b"421 full\r\n");
            }
            other => panic!("{other:?}"),
        }
        let mut said = String::new();
        third.read_to_string(&mut said).unwrap();
        assert_eq!((said.as_str(), acceptor.sessions()), ("421 full\r\n", 2));
        drop(two);
        let _client = TcpStream::connect(address).unwrap();
        arrival(&mut acceptor);
    }

    #[test]
    fn a_parked_session_wakes_for_bytes_or_for_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut acceptor = open(Listener::Unix(UnixListener::bind(&path).unwrap()), LIMITS);
        let porch = acceptor.porch();
        let mut client = UnixStream::connect(&path).unwrap();
        let session = arrival(&mut acceptor);
        assert_eq!(session.address, None);

        porch.park(session, soon());
        let (session, why) = awake(&mut acceptor);
        assert_eq!(why, Why::Overdue);

        // Parked by another thread, while the acceptor waits; the bytes are there before.
        client.write_all(b"x").unwrap();
        std::thread::spawn(move || porch.park(session, later()));
        let (mut session, why) = awake(&mut acceptor);
        assert_eq!(why, Why::Readable);
        session.stream.read_exact(&mut [0]).unwrap();

        acceptor.porch().park(session, later());
        drop(client);
        let (session, why) = awake(&mut acceptor);
        assert_eq!(why, Why::Readable);
        assert!(acceptor.parking.is_empty());
        drop(session);
        assert_eq!(acceptor.sessions(), 0);
    }

    #[test]
    fn a_resting_session_wakes_when_it_has_rested_whatever_its_client_says() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let mut client = TcpStream::connect(address).unwrap();
        let session = arrival(&mut acceptor);
        client.write_all(b"in a hurry").unwrap();
        let until = soon();
        acceptor.porch().rest(session, until);
        let (session, why) = awake(&mut acceptor);
        assert_eq!(why, Why::Rested);
        assert!(Instant::now() >= until);
        // What was said meanwhile is still there.
        acceptor.porch().park(session, later());
        assert_eq!(awake(&mut acceptor).1, Why::Readable);
    }

    #[test]
    fn a_resting_session_wakes_when_its_client_goes_or_the_house_closes() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let (one, two) = (arrival(&mut acceptor), arrival(&mut acceptor));
        let porch = acceptor.porch();
        porch.rest(one, later());
        let [client, _other] = clients;
        drop(client);
        let (session, why) = awake(&mut acceptor);
        assert_eq!(why, Why::Gone);
        drop(session);
        assert_eq!(acceptor.sessions(), 1, "its seat is free");
        porch.rest(two, later());
        acceptor.close(later());
        assert_eq!(awake(&mut acceptor).1, Why::Closing);
    }

    /// As if all who are parked had been silent for some time.
    fn let_time_pass(acceptor: &mut Acceptor<Arrival>) {
        acceptor.take_parked();
        let mut parked: Vec<_> = std::iter::from_fn(|| acceptor.parking.take_any()).collect();
        parked.sort_by_key(|parked| parked.since);
        for mut parked in parked {
            parked.since -= IDLE;
            let fd = parked.session.as_fd().as_raw_fd();
            acceptor.poll.registry().deregister(&mut SourceFd(&fd)).unwrap();
            watch(&acceptor.poll, fd, Token(acceptor.parking.next_number())).unwrap();
            acceptor.parking.put(parked);
        }
    }

    #[test]
    fn a_full_house_sheds_the_stranger_who_is_silent_for_longest() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let (one, two) = (arrival(&mut acceptor), arrival(&mut acceptor));
        let (first, second) = (one.address, two.address);
        let porch = acceptor.porch();
        porch.park(one, later());
        porch.rest(two, later());
        acceptor.take_parked();
        acceptor.limit(Limits { sessions: 2, per_client: 9 });

        let _early = TcpStream::connect(address).unwrap();
        assert!(matches!(acceptor.wait().unwrap(), Happening::TurnedAway(_)), "nobody was idle for long");
        let_time_pass(&mut acceptor);
        let newcomers = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let mut seated = Vec::new();
        for gone in [first, second] {
            let (shed, why) = awake(&mut acceptor);
            assert_eq!((shed.address, why), (gone, Why::Shed));
            seated.push(arrival(&mut acceptor));
        }
        assert_eq!((acceptor.sessions(), acceptor.parking.len()), (2, 0));
        drop((seated, newcomers));
    }

    #[test]
    fn who_is_known_is_never_shed() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = open(Listener::Tcp(listener), Limits { sessions: 1, per_client: 9 });
        let _client = TcpStream::connect(address).unwrap();
        let ours = arrival(&mut acceptor);
        acceptor.porch().park(ours, later());
        let_time_pass(&mut acceptor);
        let _other = TcpStream::connect(address).unwrap();
        assert!(matches!(acceptor.wait().unwrap(), Happening::TurnedAway(_)));
        assert_eq!(acceptor.parking.len(), 1);
    }

    #[test]
    fn a_pause_before_the_greeting_finds_out_who_talks_first() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, Limits { sessions: 3, per_client: 3 });
        let mut talks = TcpStream::connect(address).unwrap();
        let arrived = arrival(&mut acceptor);
        acceptor.pause(arrived, later());
        talks.write_all(b"EHLO x\r\n").unwrap();
        match acceptor.wait().unwrap() {
            Happening::TurnedAway(away) => {
                assert_eq!(away.why, Turned::TalkedFirst);
                away.dismiss(b"554 wait\r\n");
            }
            other => panic!("{other:?}"),
        }
        let mut said = String::new();
        talks.read_to_string(&mut said).unwrap();
        assert_eq!(said, "554 wait\r\n");

        let leaves = TcpStream::connect(address).unwrap();
        let arrived = arrival(&mut acceptor);
        acceptor.pause(arrived, later());
        drop(leaves);
        assert!(matches!(acceptor.wait().unwrap(), Happening::Left(Some(_))));

        let _waits = TcpStream::connect(address).unwrap();
        let arrived = arrival(&mut acceptor);
        acceptor.pause(arrived, soon());
        assert!(matches!(acceptor.wait().unwrap(), Happening::Patient(_)));
        assert_eq!(acceptor.sessions(), 0);
    }

    #[test]
    fn closing_wakes_the_parked_and_waits_for_the_others() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        let (one, two) = (arrival(&mut acceptor), arrival(&mut acceptor));
        let porch = acceptor.porch();
        porch.park(one, later());
        acceptor.take_parked();
        acceptor.close(later());
        assert!(TcpStream::connect(address).is_err(), "nobody comes in any more");
        assert_eq!(awake(&mut acceptor).1, Why::Closing);
        porch.park(two, later());
        assert_eq!(awake(&mut acceptor).1, Why::Closing);
        assert!(matches!(acceptor.wait().unwrap(), Happening::Over));
    }

    #[test]
    fn closing_ends_though_somebody_stays() {
        let (listener, address) = tcp();
        let mut acceptor = open(listener, LIMITS);
        let _client = TcpStream::connect(address).unwrap();
        let _stays = arrival(&mut acceptor);
        acceptor.close(soon());
        assert!(matches!(acceptor.wait().unwrap(), Happening::Over));
        assert_eq!(acceptor.sessions(), 1);
    }
}
