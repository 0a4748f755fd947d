//! Serving the runner: jobs come in as packets, go to the threads, and their reports go back.
//!
//! One runner is served at a time. When its connection ends, what it had handed out is finished or
//! abandoned within a minute before the next one is served, so that a restarted runner doesn't send
//! what is still being sent.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use thiserror::Error;

use posta::mail::status::Status;
use posta::unix::notify;
use posta::unix::pass::{MAX_PACKET, PacketListener, Packets};
use posta::unix::signals::{Signals, Told, wait_readable};

use posta::courier::fields::FieldError;
use posta::courier::report::{FromHand, Report};
use posta::courier::request::Request;
use posta::smtp::client::verdict::Finding;

use posta::logbook::sink;

use posta::net::pool::{Crowd, Pool, Size, Work};

use crate::connection::Bench;
use crate::deliver::{deliver, same_for_all};
use crate::flight;
use crate::office::Office;

/// How often kept connections are looked after.
const ROUND: Duration = Duration::from_secs(1);
/// How long jobs of a runner that has gone may take before their connections are ended.
const ABANDON: Duration = Duration::from_secs(50);
/// How long transactions may take before their connections are ended when we go down.
const LEAVE: Duration = Duration::from_secs(25);
/// How long jobs may take to notice that their connection was ended.
const NOTICE: Duration = Duration::from_secs(8);
/// How long is waited at once for jobs to end.
const STEP: Duration = Duration::from_millis(50);
/// A thread's stack. The deepest calls are a look-up's.
const STACK: usize = 512 * 1024;
/// How long a thread without a job stays.
const LINGER: Duration = Duration::from_secs(10);

/// Why serving ended, other than by being told to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket that runners connect to.
    #[error("can't listen for posta-queue: {0}")]
    Listen(io::Error),
    /// Signals can't be read.
    #[error("can't wait for signals: {0}")]
    Signals(io::Error),
    /// Jobs of a runner that has gone would not end.
    #[error("jobs of a posta-queue that has gone don't end; starting anew")]
    Stuck,
}

/// What the desk waits on.
pub struct Desk<'a> {
    /// What the threads share.
    pub office: Arc<Office>,
    /// The socket that runners connect to.
    pub listener: PacketListener,
    /// The signals of this process.
    pub signals: &'a Signals,
    /// User ids whose processes are taken for runners.
    pub trusted: Vec<u32>,
    /// Reads the configuration again.
    pub reload: &'a dyn Fn(&Office),
}

/// A job for a thread.
struct Job {
    packet: Vec<u8>,
    file: Option<File>,
    runner: Arc<Packets>,
    _flight: flight::Job,
}

/// How serving one runner ended.
#[derive(PartialEq, Eq)]
enum End {
    RunnerGone,
    Terminated,
}

impl Desk<'_> {
    /// Serves one runner after the other, `credits` jobs at once, until told to go.
    pub fn serve(&self, credits: usize) -> Result<(), ServeError> {
        let size =
            Size { name: "remote", least: 1, most: credits, waiting: credits, stack: STACK, linger: LINGER };
        let pool = Pool::start(size, Threads { office: self.office.clone() });
        while let Some(runner) = self.next_runner()? {
            let runner = Arc::new(runner);
            let hello = FromHand::Credits(u32::try_from(credits).unwrap_or(u32::MAX));
            if let Err(error) = send(&runner, &hello) {
                debug!("posta-queue went before it was greeted: {error}");
                continue;
            }
            let end = match self.serve_one(&runner, &pool)? {
                End::RunnerGone => self.abandon(&runner)?,
                End::Terminated => End::Terminated,
            };
            if end == End::Terminated {
                break;
            }
        }
        self.office.close();
        Ok(())
    }

    /// Waits for a runner; none if we are told to go first.
    fn next_runner(&self) -> Result<Option<Packets>, ServeError> {
        loop {
            notify::alive();
            let ready =
                wait_readable(&[self.listener.as_fd(), self.signals.as_fd()], notify::at_most(Some(ROUND)));
            let ready = ready.map_err(ServeError::Signals)?;
            self.office.sweep();
            if ready[1] && self.told_to_go()? {
                return Ok(None);
            }
            if !ready[0] {
                continue;
            }
            let runner = self.listener.accept().map_err(ServeError::Listen)?;
            match runner.peer() {
                Ok(peer) if self.trusted.contains(&peer.uid) => {
                    info!("serving posta-queue, process {}", peer.pid);
                    return Ok(Some(runner));
                }
                Ok(peer) => warn!("process {} of user {} is no posta-queue: refused", peer.pid, peer.uid),
                Err(error) => warn!("a peer that can't be known is refused: {error}"),
            }
        }
    }

    /// Takes jobs from one runner until it or we go.
    fn serve_one(&self, runner: &Arc<Packets>, pool: &Pool<Threads>) -> Result<End, ServeError> {
        let mut buffer = vec![0; MAX_PACKET];
        let mut swept = Instant::now();
        loop {
            notify::alive();
            let ready = wait_readable(&[runner.as_fd(), self.signals.as_fd()], notify::at_most(Some(ROUND)));
            let ready = ready.map_err(ServeError::Signals)?;
            if ready[1] && self.told_to_go()? {
                self.leave(runner, pool, &mut buffer);
                return Ok(End::Terminated);
            }
            if ready[0] && !self.take_job(runner, pool, &mut buffer) {
                return Ok(End::RunnerGone);
            }
            if swept.elapsed() >= ROUND {
                self.office.sweep();
                swept = Instant::now();
            }
        }
    }

    /// Takes one job and hands it to the threads; `false`: the runner has gone, or talks nonsense.
    fn take_job(&self, runner: &Arc<Packets>, pool: &Pool<Threads>, buffer: &mut [u8]) -> bool {
        let (length, file) = match runner.receive(buffer) {
            Ok((0, _)) => return false,
            Ok(got) => got,
            Err(error) => {
                error!("can't hear posta-queue: {error}");
                return false;
            }
        };
        let packet = buffer[..length].to_vec();
        let file = file.map(File::from);
        let job = Job { packet, file, runner: runner.clone(), _flight: self.office.flight.take_off() };
        if pool.offer(job).is_err() {
            error!("posta-queue hands out more jobs than it was granted");
            return false;
        }
        true
    }

    /// Does what the signals say; whether we are to go.
    fn told_to_go(&self) -> Result<bool, ServeError> {
        while let Some(told) = self.signals.next().map_err(ServeError::Signals)? {
            match told {
                Told::Terminate => {
                    notify::stopping();
                    return Ok(true);
                }
                Told::Reload => notify::reloading(|| (self.reload)(&self.office)),
                Told::Louder => sink::louder(),
                Told::Quieter => sink::quieter(),
                Told::Level(level) => sink::set_number(level),
                Told::Child => {}
            }
        }
        Ok(false)
    }

    /// Going down: begins nothing new and says so in answer to every job that still comes, and lets
    /// transactions come to their end.
    fn leave(&self, runner: &Arc<Packets>, pool: &Pool<Threads>, buffer: &mut [u8]) {
        let flight = &self.office.flight;
        flight.stop();
        let until = Instant::now() + LEAVE;
        while Instant::now() < until {
            let waiting = wait_readable(&[runner.as_fd()], Some(Duration::ZERO));
            let waiting = waiting.is_ok_and(|ready| ready[0]);
            if waiting && !self.take_job(runner, pool, buffer) {
                break;
            }
            if !waiting && flight.wait_until_empty(STEP) {
                break;
            }
        }
        if !flight.wait_until_empty(until.saturating_duration_since(Instant::now())) {
            warn!("transactions take too long: their connections are ended");
            flight.cut();
            flight.wait_until_empty(NOTICE);
        }
    }

    /// The runner has gone: what it handed out is finished or abandoned.
    fn abandon(&self, runner: &Packets) -> Result<End, ServeError> {
        info!("posta-queue has gone");
        // Also where it is still there and talks nonsense.
        let _ = runner.shut_down();
        let flight = &self.office.flight;
        flight.stop();
        let mut end = End::RunnerGone;
        let mut until = Instant::now() + ABANDON;
        while !flight.wait_until_empty(STEP) {
            notify::alive();
            if end != End::Terminated && self.told_to_go()? {
                end = End::Terminated;
                until = until.min(Instant::now() + LEAVE);
            }
            if Instant::now() >= until {
                warn!("jobs of a posta-queue that has gone take too long: their connections are ended");
                flight.cut();
                if !flight.wait_until_empty(NOTICE) {
                    return Err(ServeError::Stuck);
                }
            }
        }
        flight.resume();
        Ok(end)
    }
}

/// What the threads do.
struct Threads {
    office: Arc<Office>,
}

impl Work for Threads {
    type Job = Job;
    type Bench = Bench;

    fn work(&self, job: Job, bench: &mut Bench, _crowd: &dyn Crowd) {
        match self.answer(&job, bench) {
            Ok(report) => {
                if let Err(error) = send(&job.runner, &FromHand::Report(report)) {
                    debug!("posta-queue went before it heard what became of a job: {error}");
                }
            }
            Err(error) => {
                error!("posta-queue sent a job that can't be read: {error}");
                let _ = job.runner.shut_down();
            }
        }
    }
}

impl Threads {
    /// Does a job. A fault of the program hits this job alone.
    fn answer(&self, job: &Job, bench: &mut Bench) -> Result<Report, FieldError> {
        let request = Request::decode(&job.packet)?;
        let Some(file) = &job.file else {
            return Err(FieldError::Missing("queue file"));
        };
        let settings = self.office.settings();
        let work = || deliver(&self.office, &settings, &request, file, bench);
        Ok(catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            error!("{}: a fault of posta-remote; the message is tried again later", request.id);
            same_for_all(&request, &Finding::ours(Status::new(4, 3, 0), "a fault of posta-remote"))
        }))
    }
}

fn send(runner: &Packets, answer: &FromHand) -> io::Result<()> {
    let packet = answer.encode().map_err(io::Error::other)?;
    runner.send(&packet, None)
}

#[cfg(test)]
mod tests {
    use posta::courier::request::{Rcpt, Target};
    use posta::dns::answer::{Answer, Kind, LookupError, Names};
    use posta::mail::address::{Mailbox, ReversePath};
    use posta::mail::envelope::{BodyKind, Notify};
    use posta::mail::id::Id;

    use crate::office::Settings;

    use super::*;

    struct Faulty;

    impl Names for Faulty {
        fn look_up(&self, _: &str, _: Kind) -> Result<Answer, LookupError> {
            panic!("staged");
        }
    }

    fn office() -> Arc<Office> {
        Arc::new(Office::new(
            Settings {
                hostname: "own.example".into(),
                own_names: Vec::new(),
                ways: Default::default(),
                connector: Arc::new(posta::net::tls_client::Connector::new(None).unwrap()),
                listening: Vec::new(),
                port: 25,
                connect_timeout: Duration::from_secs(1),
                max_messages_per_connection: 1,
                chunking: true,
                max_connections: 1,
                names: Arc::new(Faulty),
            },
            posta::net::relay_logins::Logins::open(Vec::new(), None).unwrap(),
            posta::logbook::sessions::Sessions::open("/no/such".into()),
        ))
    }

    fn request() -> Request {
        let address = Mailbox::parse("a@d.example", false).unwrap();
        let original = address.clone();
        let rcpt = Rcpt {
            n: 3,
            address,
            original,
            notify: Notify::default(),
            orcpt: None,
            place: None,
            limit: None,
        };
        Request {
            job: 9,
            id: Id::parse("0123456789ABCDE").unwrap(),
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            arrived: 0,
            trace: Vec::new(),
            size: 0,
            others: false,
            target: Target::Mx("d.example".into()),
            terms: Default::default(),
            recipients: vec![rcpt],
        }
    }

    /// Nobody waits outside.
    struct Nobody;

    impl Crowd for Nobody {
        fn is_waiting(&self) -> bool {
            false
        }
        fn is_busy(&self) -> bool {
            false
        }
        fn at_work(&self) -> usize {
            1
        }
    }

    #[test]
    fn a_fault_of_the_program_makes_its_job_wait_and_hits_no_other() {
        let office = office();
        let (runner, ours) = Packets::pair().unwrap();
        let ours = Arc::new(ours);
        let threads = Threads { office: office.clone() };
        for _ in 0..2 {
            let packet = request().encode().unwrap();
            let (file, flight) = (Some(tempfile::tempfile().unwrap()), office.flight.take_off());
            let job = Job { packet, file, runner: ours.clone(), _flight: flight };
            threads.work(job, &mut Bench::default(), &Nobody);
            let mut buffer = [0; 1000];
            let (length, _) = runner.receive(&mut buffer).unwrap();
            let Ok(FromHand::Report(report)) = FromHand::decode(&buffer[..length]) else { panic!() };
            let outcome = &report.outcomes[0];
            assert_eq!((report.job, outcome.n, outcome.status.to_string().as_str()), (9, 3, "4.3.0"));
        }
        assert!(office.flight.wait_until_empty(Duration::ZERO));
    }
}
