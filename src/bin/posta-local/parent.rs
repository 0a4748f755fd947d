//! The parent's loop: what wakes it, and the runner's connection from its beginning to its end.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use posta::unix::notify;
use posta::unix::pass::PacketListener;
use posta::unix::signals::{Signals, Told};
use posta::unix::users;
use posta::unix::wait::{Watch, wait_ready};

use posta::logbook::sink;

use crate::lines::{Failure, Lines};
use crate::process::{Alone, Child};
use crate::refusal::Refusal;
use crate::runner::Runner;
use crate::seat::Seat;
use crate::syncs::{Answer, Asker, Syncs};
use crate::talk::{self, FromChild, ToChild};

/// What only time brings is looked after so often.
const TICK: Duration = Duration::from_millis(250);
/// So long the last runner's jobs may go on before the next runner is served.
const ENDING: Duration = Duration::from_secs(55);
/// So long they may go on after SIGTERM.
const STOPPING: Duration = Duration::from_secs(30);
/// Most packets heard from one child before the others have their turn.
const AT_ONCE: usize = 16;

/// What the configuration says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For the children.
    pub child: talk::Settings,
    /// Most children at once.
    pub max_children: usize,
    /// Jobs that the runner may have under way.
    pub credits: u32,
    /// The folders that mailboxes lie in, to which children confine themselves; `None`: they don't.
    pub folders: Option<Vec<PathBuf>>,
    /// The users who may connect.
    pub peers: Vec<u32>,
}

/// The parent.
#[derive(Debug)]
pub struct Parent {
    settings: Settings,
    signals: Signals,
    listener: PacketListener,
    runner: Option<Runner>,
    lines: Lines,
    syncs: Syncs,
    /// The last runner has gone: by when what it asked for must be done.
    ending: Option<Instant>,
    /// SIGTERM has come: by when all must be done.
    stopping: Option<Instant>,
    next_tick: Instant,
    buffer: Vec<u8>,
}

/// What a wait ended with.
#[derive(Debug, Default)]
struct Woken {
    signals: bool,
    syncs: bool,
    listener: bool,
    runner: bool,
    children: Vec<Seat>,
}

impl Parent {
    /// A parent that listens.
    pub fn new(settings: Settings, signals: Signals, listener: PacketListener) -> io::Result<Parent> {
        listener.set_nonblocking(true)?;
        let (_, own_uid) = users::current();
        Ok(Parent {
            lines: Lines::new(
                settings.child.clone(),
                settings.folders.clone(),
                settings.max_children,
                own_uid,
            ),
            settings,
            signals,
            listener,
            runner: None,
            syncs: Syncs::new()?,
            ending: None,
            stopping: None,
            next_tick: Instant::now(),
            buffer: Vec::new(),
        })
    }

    /// Works until SIGTERM has come and all is done. `reload` reads the configuration again; `None`:
    /// it is not good.
    pub fn run(&mut self, reload: &dyn Fn() -> Option<Settings>) -> io::Result<()> {
        notify::ready();
        loop {
            notify::alive();
            let woken = self.wait()?;
            if woken.signals {
                self.heed_signals(reload)?;
            }
            if woken.listener {
                self.accept();
            }
            if woken.runner {
                self.hear_runner();
            }
            for seat in &woken.children {
                self.hear_child(seat);
            }
            if woken.syncs {
                let answers = self.syncs.collect(Instant::now());
                self.pass_on(answers);
            }
            self.tick();
            self.lines.hand_out(Instant::now());
            for (device, each) in self.lines.released.drain(..) {
                self.syncs.synced_alone(device, each);
            }
            self.answer_runner();
            if self.is_over() {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Woken> {
        let mut watched = vec![Watch::Read(self.signals.as_fd()), Watch::Read(self.syncs.as_fd())];
        let serves = self.stopping.is_none();
        let listens = serves && self.runner.is_none() && self.ending.is_none();
        if listens {
            watched.push(Watch::Read(self.listener.as_fd()));
        }
        let runner = self.runner.as_ref();
        watched.extend(runner.filter(|_| serves).map(|runner| Watch::Read(runner.as_fd())));
        watched.extend(runner.filter(|r| r.has_reports()).map(|runner| Watch::Write(runner.as_fd())));
        let first_child = watched.len();
        let (seats, fds): (Vec<&Seat>, Vec<_>) = self.lines.watched().unzip();
        watched.extend(fds.into_iter().map(Watch::Read));
        let calm = self.lines.is_empty() && self.ending.is_none() && self.stopping.is_none();
        let limit = self.next_tick.saturating_duration_since(Instant::now());
        let ready = wait_ready(&watched, notify::at_most((!calm).then_some(limit)))?;
        let talking = seats.into_iter().zip(&ready[first_child..]).filter(|(_, ready)| **ready);
        Ok(Woken {
            signals: ready[0],
            syncs: ready[1],
            listener: listens && ready[2],
            runner: runner.is_some() && serves && ready[2],
            children: talking.map(|(seat, _)| seat.clone()).collect(),
        })
    }

    fn heed_signals(&mut self, reload: &dyn Fn() -> Option<Settings>) -> io::Result<()> {
        while let Some(told) = self.signals.next()? {
            match told {
                Told::Terminate if self.stopping.is_none() => {
                    notify::stopping();
                    log::info!("stopping");
                    self.stopping = Some(Instant::now() + STOPPING);
                }
                Told::Reload => {
                    if let Some(settings) = notify::reloading(reload) {
                        let (child, folders) = (settings.child.clone(), settings.folders.clone());
                        self.lines.reconfigure(child, folders, settings.max_children);
                        self.settings = settings;
                    }
                }
                Told::Child => self.lines.reap(Instant::now()),
                Told::Louder => self.log_at(sink::louder),
                Told::Quieter => self.log_at(sink::quieter),
                Told::Level(level) => self.log_at(|| sink::set_number(level)),
                Told::Terminate => {}
            }
        }
        Ok(())
    }

    /// Another level, for the children too.
    fn log_at(&mut self, change: impl FnOnce()) {
        change();
        self.settings.child.level = log::max_level();
        let (child, folders) = (self.settings.child.clone(), self.settings.folders.clone());
        self.lines.reconfigure(child, folders, self.settings.max_children);
    }

    fn accept(&mut self) {
        match Runner::accept(&self.listener, &self.settings.peers, self.settings.credits) {
            Ok(runner) => self.runner = runner,
            Err(error) => {
                log::warn!("taking a connection: {error}");
                // Whatever is lacking (descriptors, memory), it will not be there at once.
                std::thread::sleep(TICK);
            }
        }
    }

    fn hear_runner(&mut self) {
        let Some(runner) = &mut self.runner else { return };
        let heard = runner.hear(self.settings.folders.as_deref());
        heard.jobs.into_iter().for_each(|job| self.lines.take(job));
        if heard.gone {
            self.end_runner();
        }
    }

    /// The runner has gone: what was begun is finished, the rest is forgotten (the next runner asks
    /// again).
    fn end_runner(&mut self) {
        self.runner = None;
        self.lines.abandon();
        self.ending = Some(Instant::now() + ENDING);
    }

    fn hear_child(&mut self, seat: &Seat) {
        for _ in 0..AT_ONCE {
            let Some(child) = self.lines.child(seat) else { return };
            let now = Instant::now();
            match child.receive(&mut self.buffer) {
                Ok(Some((words, file))) => {
                    child.heard = now;
                    let pid = child.pid();
                    self.heed(seat, pid, words, file.map(File::from), now);
                }
                Ok(None) => return,
                Err(error) => {
                    let text = match error.kind() {
                        ErrorKind::UnexpectedEof => "the delivery process died".to_string(),
                        _ => format!("the delivery process can't be understood: {error}"),
                    };
                    self.lines.fail(seat, Failure::Died, &Refusal::new((4, 3, 0), text), now);
                    return;
                }
            }
        }
    }

    fn heed(&mut self, seat: &Seat, pid: u32, words: Vec<FromChild>, mut file: Option<File>, now: Instant) {
        for word in words {
            match (word, file.take()) {
                (FromChild::Sync { number, device, copies }, Some(folder)) => {
                    let who = Asker { seat: seat.clone(), pid, number, device, copies };
                    let answers = self.syncs.ask(who, folder, now);
                    self.pass_on(answers);
                }
                (word, unused) => {
                    file = unused;
                    self.lines.note(seat, word, now);
                }
            }
        }
    }

    /// Puts answers about syncs where the next packet to their child is made. A child that has died
    /// in the meantime syncs nothing.
    fn pass_on(&mut self, answers: Vec<Answer>) {
        for Answer { to, word } in answers {
            let Asker { device, copies, .. } = to;
            let same = |child: &&mut Child| child.pid() == to.pid;
            match (self.lines.child(&to.seat).filter(same), &word) {
                (Some(child), ToChild::Yourself(number)) => {
                    child.alone.insert(*number, Alone { device, copies, since: Instant::now() });
                    child.answers.push(word);
                }
                (Some(child), _) => child.answers.push(word),
                (None, ToChild::Yourself(_)) => self.syncs.synced_alone(device, None),
                (None, _) => {}
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.lines.tend(now);
        self.syncs.forget(now);
        if self.ending.is_some_and(|by| now >= by) {
            log::warn!("deliveries for the last posta-queue are given up");
            self.lines.refuse_all(&Refusal::new((4, 4, 7), "the delivery takes too long"));
        }
        if self.stopping.is_some_and(|by| now >= by) {
            self.lines.refuse_all(&Refusal::new((4, 3, 2), "posta-local is being stopped"));
        }
    }

    /// Sends the reports; those for a runner that has gone are dropped.
    fn answer_runner(&mut self) {
        let reports = self.lines.reports.drain(..);
        match &mut self.runner {
            Some(runner) => {
                reports.for_each(|report| runner.report(report));
                if !runner.flush() {
                    self.end_runner();
                }
            }
            None => drop(reports),
        }
        if self.ending.is_some() && self.lines.is_idle() {
            self.ending = None;
        }
    }

    /// Whether SIGTERM has come and nothing is left to do. Reports that the runner does not take in
    /// time are lost with the connection: it asks again.
    fn is_over(&self) -> bool {
        let Some(by) = self.stopping else { return false };
        let answered = self.runner.as_ref().is_none_or(|runner| !runner.has_reports());
        (self.lines.is_idle() && answered) || Instant::now() >= by + TICK * 4
    }
}
