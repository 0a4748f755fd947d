//! The lines of owners: what waits for each, and his children.
//!
//! An owner has at most one child for his mailboxes and one for everything else: each is a seat, and
//! has its own line. There are so many children at a time. One that has nothing to do makes room
//! first, the least recently used before the others; where all are busy, the one that has served
//! longest takes no more, and its seat goes to the end of the line. A seat whose child died or hung
//! is put off for a while: what comes for it meanwhile is answered at once.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::answer::refused;
use crate::bare::Contents;
use crate::child::describe;
use crate::process::{Alone, Child};
use crate::refusal::Refusal;
use crate::runner::Job;
use crate::seat::Seat;
use crate::talk::{FromChild, Settings};

/// A child with nothing to do stays so long.
const STAYS: Duration = Duration::from_secs(10);
/// A busy child serves so long before it must make room for those in line.
const TURN: Duration = Duration::from_secs(1);
/// A dismissed child that has not gone by then is killed.
const FAREWELL: Duration = Duration::from_secs(10);
/// Longest time that a seat is put off, after its child has died again and again, or hung.
const LONGEST_PUT_OFF: Duration = Duration::from_secs(600);

/// One seat.
#[derive(Debug, Default)]
struct Line {
    jobs: VecDeque<Job>,
    child: Option<Child>,
    put_off: Option<(Instant, Refusal)>,
    /// How often its child has failed since it last did something.
    failures: u32,
}

/// How a child failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It ended, or could not be started.
    Died,
    /// It was not heard for too long.
    Hung,
    /// It said itself that it can't serve this owner.
    Declined,
}

/// All seats.
#[derive(Debug)]
pub struct Lines {
    lines: HashMap<Seat, Line>,
    /// Who waits for a child.
    waiting: VecDeque<Seat>,
    contents: Contents,
    /// Children that were ended and are not yet reaped, and by when they must have gone.
    departed: Vec<(std::process::Child, Option<Instant>)>,
    /// Reports for posta-queue.
    pub reports: Vec<Vec<u8>>,
    /// Syncs that children did themselves: the device, and what each copy took; no time, if the
    /// child has died over it.
    pub released: Vec<(u64, Option<Duration>)>,
    settings: Settings,
    /// The folders that mailboxes lie in.
    folders: Option<Vec<PathBuf>>,
    max_children: usize,
    own_uid: u32,
}

impl Lines {
    /// None yet. `folders`: see [`Seat::of`]. `own_uid` is this process's user.
    pub fn new(
        settings: Settings,
        folders: Option<Vec<PathBuf>>,
        max_children: usize,
        own_uid: u32,
    ) -> Lines {
        Lines {
            lines: HashMap::new(),
            waiting: VecDeque::new(),
            contents: Contents::new(),
            departed: Vec::new(),
            reports: Vec::new(),
            released: Vec::new(),
            settings,
            folders,
            max_children: max_children.max(1),
            own_uid,
        }
    }

    /// Other settings from now on; children that began with the old ones are replaced.
    pub fn reconfigure(&mut self, settings: Settings, folders: Option<Vec<PathBuf>>, max_children: usize) {
        (self.settings, self.folders, self.max_children) = (settings, folders, max_children.max(1));
        self.children_mut().for_each(|child| child.leaving = true);
    }

    /// Takes a job.
    pub fn take(&mut self, job: Job) {
        let line = self.lines.entry(job.seat.clone()).or_default();
        if line.child.is_none() && line.jobs.is_empty() {
            self.waiting.push_back(job.seat.clone());
        }
        line.jobs.push_back(job);
    }

    /// Whether no job is held, here or by a child.
    pub fn is_idle(&self) -> bool {
        self.lines.values().all(|l| l.jobs.is_empty() && l.child.as_ref().is_none_or(|c| c.held.is_empty()))
    }

    /// Whether there is nothing to look after: no child, no job.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.departed.is_empty()
    }

    /// The children and their connections.
    pub fn watched(&self) -> impl Iterator<Item = (&Seat, BorrowedFd<'_>)> {
        let children = self.lines.iter().filter_map(|(seat, line)| Some((seat, line.child.as_ref()?)));
        children.map(|(seat, child)| (seat, child.as_fd()))
    }

    /// The child of a seat.
    pub fn child(&mut self, seat: &Seat) -> Option<&mut Child> {
        self.lines.get_mut(seat)?.child.as_mut()
    }

    fn children_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.lines.values_mut().filter_map(|line| line.child.as_mut())
    }

    fn children(&self) -> usize {
        self.lines.values().filter(|line| line.child.is_some()).count()
    }

    /// A child has said something that needs no more than being noted.
    pub fn note(&mut self, seat: &Seat, word: FromChild, now: Instant) {
        let Some(line) = self.lines.get_mut(seat) else { return };
        let Some(child) = &mut line.child else { return };
        match word {
            FromChild::Ready { uid } => child.uid = Some(uid),
            FromChild::Done { job, report } => {
                if child.held.remove(&job).is_some() {
                    self.reports.push(report);
                }
                child.used = now;
                line.failures = 0;
                line.put_off = None;
            }
            FromChild::Refused { status, text } => {
                self.fail(seat, Failure::Declined, &Refusal { status, text }, now);
            }
            FromChild::Synced(number) => {
                if let Some(Alone { device, copies, since }) = child.alone.remove(&number) {
                    let copies = u32::try_from(copies).unwrap_or(u32::MAX).max(1);
                    self.released.push((device, Some(now.duration_since(since) / copies)));
                }
            }
            FromChild::Alive | FromChild::Sync { .. } => {}
        }
    }

    /// A child has failed: what it held and what waits is refused.
    pub fn fail(&mut self, seat: &Seat, failure: Failure, refusal: &Refusal, now: Instant) {
        let Some(line) = self.lines.get_mut(seat) else { return };
        if failure != Failure::Declined {
            log::warn!("{}: {}", describe(&seat.owner), refusal.text);
        }
        if let Some(child) = line.child.take() {
            let held = child.held.iter();
            self.reports.extend(held.filter_map(|(job, held)| refused(*job, &held.recipients, refusal)));
            self.released.extend(child.alone.values().map(|alone| (alone.device, None)));
            self.departed.push((child.kill(), None));
        }
        line.failures += 1;
        let again = 2u32.saturating_pow(line.failures.saturating_sub(1));
        let pause = match failure {
            // A single death may have been an accident: the next child begins at once.
            Failure::Died if line.failures == 1 => Duration::ZERO,
            Failure::Died => Duration::from_secs(1).saturating_mul(again / 2),
            Failure::Hung => Duration::from_secs(10).saturating_mul(again),
            Failure::Declined => Duration::from_secs(5),
        };
        line.put_off = Some((now + pause.min(LONGEST_PUT_OFF), refusal.clone()));
        if !line.jobs.is_empty() && !self.waiting.contains(seat) {
            self.waiting.push_back(seat.clone());
        }
    }

    /// Gives children to who waits for one, as far as there are any, and jobs to the children.
    pub fn hand_out(&mut self, now: Instant) {
        self.dismiss_leaving(now);
        while let Some(seat) = self.waiting.pop_front() {
            if !self.wants_child(&seat, now) {
                continue;
            }
            if self.children() >= self.max_children && !self.make_room(now) {
                self.waiting.push_front(seat);
                break;
            }
            match Child::start(&seat, &self.settings, self.folders.as_deref(), now) {
                Ok(child) => {
                    if let Some(line) = self.lines.get_mut(&seat) {
                        line.child = Some(child);
                    }
                }
                Err(error) => {
                    let text = format!("starting a delivery process: {error}");
                    self.fail(&seat, Failure::Died, &Refusal::new((4, 3, 0), text), now);
                    break;
                }
            }
        }
        let mut broken = Vec::new();
        for (seat, line) in &mut self.lines {
            let Some(child) = &mut line.child else { continue };
            match child.feed(&mut line.jobs, &mut self.contents, self.own_uid) {
                Ok(unreadable) => {
                    let refused = unreadable.iter().filter_map(|(job, why)| job.refused(why));
                    self.reports.extend(refused);
                }
                Err(error) => broken.push((seat.clone(), error)),
            }
        }
        for (seat, error) in broken {
            let text = format!("delivery process: {error}");
            self.fail(&seat, Failure::Died, &Refusal::new((4, 3, 0), text), now);
        }
    }

    /// Whether anything waits for a seat; if it is put off, it is refused and waits no more.
    fn wants_child(&mut self, seat: &Seat, now: Instant) -> bool {
        let Some(line) = self.lines.get_mut(seat) else { return false };
        if let Some((_, refusal)) = line.put_off.as_ref().filter(|(until, _)| now < *until) {
            let jobs = line.jobs.drain(..);
            self.reports.extend(jobs.filter_map(|job| job.refused(refusal)));
        }
        line.child.is_none() && !line.jobs.is_empty()
    }

    /// Dismisses those that take no more jobs and have none left.
    fn dismiss_leaving(&mut self, now: Instant) {
        let left = |line: &Line| line.child.as_ref().is_some_and(|c| c.leaving && c.held.is_empty());
        let seats: Vec<Seat> = self.lines.iter().filter(|(_, l)| left(l)).map(|(o, _)| o.clone()).collect();
        seats.iter().for_each(|seat| self.dismiss(seat, now));
    }

    /// Dismisses the least recently used child that has nothing to do; if all are busy, sees to it
    /// that one will be done. Whether there is room now.
    fn make_room(&mut self, now: Instant) -> bool {
        let has_child = |(seat, line): (&Seat, &Line)| {
            let child = line.child.as_ref()?;
            Some((seat.clone(), child.used, child.held.is_empty() && line.jobs.is_empty()))
        };
        let idle = self.lines.iter().filter_map(has_child).filter(|(_, _, idle)| *idle);
        if let Some((seat, ..)) = idle.min_by_key(|(_, used, _)| *used) {
            self.dismiss(&seat, now);
            return true;
        }
        // One for each in line, and for the one who asks.
        if self.children_mut().filter(|child| child.leaving).count() > self.waiting.len() {
            return false;
        }
        let turn_is_over = |child: &&mut Child| !child.leaving && now.duration_since(child.started) > TURN;
        if let Some(child) = self.children_mut().filter(turn_is_over).min_by_key(|child| child.started) {
            child.leaving = true;
        }
        false
    }

    fn dismiss(&mut self, seat: &Seat, now: Instant) {
        let Some(line) = self.lines.get_mut(seat) else { return };
        if let Some(child) = line.child.take() {
            self.departed.push((child.dismiss(), Some(now + FAREWELL)));
        }
        if !line.jobs.is_empty() {
            self.waiting.push_back(seat.clone());
        }
    }

    /// Looks after what only time brings: children that hang, or have had nothing to do for long;
    /// seats that need not be remembered.
    pub fn tend(&mut self, now: Instant) {
        let (mut hung, mut done) = (Vec::new(), Vec::new());
        for (seat, line) in &self.lines {
            let Some(child) = &line.child else { continue };
            let busy = !child.held.is_empty() || child.uid.is_none();
            if busy && now.duration_since(child.heard) > self.settings.timeout {
                hung.push((seat.clone(), child.uid.is_some()));
            } else if !busy && line.jobs.is_empty() && now.duration_since(child.used) > STAYS {
                done.push(seat.clone());
            }
        }
        for (seat, ready) in hung {
            let text =
                if ready { "the delivery hangs" } else { "looking up the mailbox's owner takes too long" };
            self.fail(&seat, Failure::Hung, &Refusal::new((4, 4, 7), text), now);
        }
        done.iter().for_each(|seat| self.dismiss(seat, now));
        self.lines.retain(|_, line| {
            let put_off = line.put_off.as_ref().is_some_and(|(until, _)| now < *until + LONGEST_PUT_OFF);
            line.child.is_some() || !line.jobs.is_empty() || put_off
        });
        self.reap(now);
    }

    /// Takes leave of children that have gone.
    pub fn reap(&mut self, now: Instant) {
        self.departed.retain_mut(|(process, until)| {
            if until.is_some_and(|until| now >= until) {
                *until = None;
                if let Err(error) = process.kill() {
                    log::warn!("delivery process {}: {error}", process.id());
                }
            }
            matches!(process.try_wait(), Ok(None))
        });
    }

    /// Forgets what waits; children go on with what they hold.
    pub fn abandon(&mut self) {
        self.waiting.clear();
        self.lines.values_mut().for_each(|line| line.jobs.clear());
    }

    /// Refuses everything, and kills the children that are busy.
    pub fn refuse_all(&mut self, refusal: &Refusal) {
        self.waiting.clear();
        for line in self.lines.values_mut() {
            let jobs = line.jobs.drain(..);
            self.reports.extend(jobs.filter_map(|job| job.refused(refusal)));
            if let Some(child) = line.child.take_if(|child| !child.held.is_empty()) {
                let held = child.held.iter();
                self.reports.extend(held.filter_map(|(job, held)| refused(*job, &held.recipients, refusal)));
                self.released.extend(child.alone.values().map(|alone| (alone.device, None)));
                self.departed.push((child.kill(), None));
            }
        }
    }
}
