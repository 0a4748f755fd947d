//! The main loop: from the acceptor to the workers and back.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::logbook::entry::{Peer, Reject};
use posta::logbook::sink;
use posta::net::acceptor::{Acceptor, Arrival, Guest, Happening, Porch, Turned, TurnedAway, Why};
use posta::net::pool::{Crowd, Pool, Size, Work};
use posta::net::seats::{Full, Seat};
use posta::policy::chain::Client;
use posta::smtp::reply::Reply;
use posta::smtp::rule;
use posta::unix::notify;
use posta::unix::signals::Told;

use crate::count;
use crate::guest::text_of;
use crate::house::{House, Terms};
use crate::session::{Bench, Cause, Left, Session};
use crate::tally::brief;

/// Sessions that have begun a message have so long to finish it when the house closes.
const CLOSING_TIME: Duration = Duration::from_secs(30);
/// There are never more workers, whatever the number of sessions.
const MOST_WORKERS: usize = 1000;
/// A worker's stack. Only the pages that are touched cost memory, some 30 KiB as a rule; but who is
/// the first to ask for a date reads the time zone, which takes up to 300 KiB in a debug build.
const STACK: usize = 512 * 1024;

/// How the pool is to be, for so many sessions. Each session waits for a worker at most once, so
/// the channel is never full.
pub fn size(max_sessions: usize) -> Size {
    Size {
        name: "smtpd",
        least: 4.min(max_sessions),
        most: max_sessions.clamp(1, MOST_WORKERS),
        waiting: room(max_sessions),
        stack: STACK,
        linger: Duration::from_secs(10),
    }
}

/// How many sessions a reload can allow without a restart.
pub fn room(max_sessions: usize) -> usize {
    max_sessions.max(4096)
}

/// What a worker is given.
pub enum Job {
    /// A client has come.
    Arrived(Box<Arrival>),
    /// A parked session goes on.
    Awake(Box<Session>, Cause),
}

/// What all workers know.
pub struct Desk {
    pub house: Arc<House>,
    pub porch: Porch<Box<Session>>,
}

impl Work for Desk {
    type Job = Job;
    type Bench = Bench;

    fn work(&self, job: Job, bench: &mut Bench, crowd: &dyn Crowd) {
        let (mut session, cause) = match job {
            Job::Arrived(arrival) => (self.begin(*arrival), Cause::Opened),
            Job::Awake(session, cause) => (session, cause),
        };
        match session.attend(cause, &self.house, bench, Some(crowd)) {
            Left::Over => {}
            Left::Waiting => {
                let deadline = session.deadline();
                self.porch.park(session, deadline);
            }
            Left::Resting(until) => self.porch.rest(session, until),
        }
    }
}

impl Guest for Box<Session> {
    fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    fn is_stranger(&self) -> bool {
        Session::is_stranger(self)
    }

    fn idle_since(&self) -> Instant {
        Session::idle_since(self)
    }
}

impl Desk {
    fn begin(&self, arrival: Arrival) -> Box<Session> {
        let terms = self.house.terms();
        let entrance = terms.entrance(arrival.listener);
        let address = arrival.address.map(|address| address.ip());
        let client = Client { address, submission: entrance.submission, ..Client::default() };
        Box::new(Session::new(arrival.stream, client, entrance, terms, Some(arrival.seat)))
    }
}

/// Keeps the house until it is told to go. `reload` reads the configuration again and puts the new
/// terms up; it says whether it could.
pub fn keep(
    mut acceptor: Acceptor<Box<Session>>,
    pool: &Pool<Desk>,
    house: &House,
    mut reload: impl FnMut() -> bool,
) -> io::Result<()> {
    loop {
        match acceptor.wait()? {
            Happening::Arrived(arrival) => match pause(&arrival, house) {
                Some(pause) => acceptor.pause(arrival, Instant::now() + pause),
                None => offer(pool, house, Job::Arrived(Box::new(arrival))),
            },
            Happening::Patient(arrival) => offer(pool, house, Job::Arrived(Box::new(arrival))),
            Happening::Left(address) => log::info!(
                "lost connection after CONNECT from {}",
                text_of(address.map(|address| address.ip()))
            ),
            Happening::Awake(session, why) => offer(pool, house, Job::Awake(session, cause(why))),
            Happening::TurnedAway(client) => turn_away(client, house),
            Happening::Told(Told::Reload) => {
                if notify::reloading(&mut reload) {
                    acceptor.limit(house.terms().limits);
                }
            }
            Happening::Told(Told::Terminate) if !house.is_closing() => {
                log::info!("closing; {} sessions", acceptor.sessions());
                notify::stopping();
                house.close();
                acceptor.close(Instant::now() + CLOSING_TIME);
            }
            Happening::Told(Told::Louder) => sink::louder(),
            Happening::Told(Told::Quieter) => sink::quieter(),
            Happening::Told(Told::Level(level)) => sink::set_number(level),
            Happening::Told(_) => {}
            Happening::Over => {
                match acceptor.sessions() {
                    0 => log::info!("closed"),
                    left => log::warn!("closed; {left} sessions were cut off"),
                }
                return Ok(());
            }
        }
    }
}

/// How long a new client has to wait for its greeting. Not where it has the first word, and not if it
/// is one of ours.
fn pause(arrival: &Arrival, house: &House) -> Option<Duration> {
    let terms = house.terms();
    let entrance = terms.entrance(arrival.listener);
    let address = arrival.address.map(|address| address.ip());
    let client = Client { address, ..Client::default() };
    let may_wait = !entrance.proxy && !entrance.implicit && address.is_some();
    terms.greet_pause.filter(|_| may_wait && terms.policy.may_keep_waiting(&client, Instant::now()))
}

fn cause(why: Why) -> Cause {
    match why {
        // What the client has sent while the session rested is read now.
        Why::Readable | Why::Rested => Cause::Readable,
        Why::Gone => Cause::Gone,
        Why::Overdue => Cause::Overdue,
        Why::Shed => Cause::Shed,
        Why::Closing => Cause::Closing,
    }
}

/// Hands a job to the workers. That there is no room for it can't be, see [`size`]; should it be
/// all the same, the client is told.
fn offer(pool: &Pool<Desk>, house: &House, job: Job) {
    let Err(job) = pool.offer(job) else { return };
    log::error!("more sessions wait for a worker than there can be");
    let (mut stream, listens) = match job {
        Job::Arrived(arrival) => (arrival.stream, !house.terms().entrance(arrival.listener).implicit),
        Job::Awake(session, _) => {
            let listens = session.is_listening();
            (session.stream, listens)
        }
    };
    if !listens {
        return;
    }
    stream.set_deadline(Some(Instant::now() + Duration::from_millis(10)));
    let mut word = Vec::new();
    refusal(&house.terms(), Full::House).write_to(&mut word);
    // Who can't be told so quickly is told by the closing.
    let _ = stream.write_all(&word);
}

/// This client has to go before it was greeted.
fn turn_away(client: TurnedAway, house: &House) {
    let reply = match client.why {
        Turned::Full(full) => refusal(&house.terms(), full),
        // RFC 5321 3.1: the client waits for the greeting. Who doesn't is not listening to us.
        Turned::TalkedFirst => rule::TALKED_FIRST.reply("wait for the greeting before you send anything"),
    };
    let reject = Reject {
        id: None,
        at: "CONNECT",
        peer: Peer { name: None, address: &text_of(client.address.map(|address| address.ip())) },
        reply: &brief(&reply),
        from: None,
        to: None,
        proto: "SMTP",
        helo: "",
        session: None,
    };
    count::refusal(&reply);
    log::info!("{reject}");
    let mut word = Vec::new();
    // Into a handshake nothing can be said: the closing has to tell.
    if !house.terms().entrance(client.listener).implicit {
        reply.write_to(&mut word);
    }
    client.dismiss(&word);
}

/// What a client without a seat is told.
pub fn refusal(terms: &Terms, full: Full) -> Reply {
    let text = format!("{} {full}; try again later", terms.smtp.hostname);
    match full {
        Full::House => rule::HOUSE_FULL.reply(text),
        Full::Client => rule::CLIENT_FULL.reply(text),
    }
}
