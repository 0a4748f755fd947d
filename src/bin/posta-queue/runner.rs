//! The thread that decides: it hears what happened, keeps the messages of the working set, asks the
//! schedule who is next, and hands work out. It makes no file-system call and waits for nobody:
//! messages are opened by `ingest`, results filed by the `clerk`s, the hands reached through
//! non-blocking sockets.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use posta::mail::id::Id;
use posta::mail::status::Status;
use posta::unix::notify;

use posta::courier::order::{Answer, Failure, Order};
use posta::courier::report::Report;

use posta::logbook::history::History;
use posta::logbook::together::together;

use posta::spool::{Place, SpoolError};

use crate::clerk::{Clerks, Filed};
use crate::desk::Listing;
use crate::destination::{Hand, hash};
use crate::dispatch::Line;
use crate::elsewhere::Retry;
use crate::ingest::Ingest;
use crate::message::{Message, News};
use crate::pace::Rules;
use crate::schedule::{SECOND, Schedule, Settings};
use crate::turns::{Ending, Job};
use crate::wishes::{Pass, Wish};

/// Results of a message that is not done yet are noted this much later.
pub(crate) const NOTE_AFTER: u64 = SECOND / 2;
/// What is noted, and what is removed since it is done, is on the disk this much later: so a power cut
/// repeats at most what was delivered in the last second.
const SYNC_AFTER: u64 = SECOND * 2 / 5;
/// What could not be filed is tried again after this.
pub(crate) const FILE_AGAIN: u64 = 30 * SECOND;
/// A hand whose socket was full is asked again after this, if nothing comes from it before.
const SEND_AGAIN: u64 = SECOND / 50;
/// Events taken in before work is handed out again.
const GULP: usize = 256;

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// Ids in `new/`.
    Fresh(Vec<Id>),
    /// Messages in `cur/` and `hold/`: id, when due, hash of the destination, held.
    Aside(Vec<(Id, u64, u32, bool)>),
    /// The scan of the start is through.
    Scanned,
    /// A message is open.
    Opened(Box<Message>),
    /// A message could not be opened.
    NotOpened {
        /// Which.
        id: Id,
        /// Where it was looked for.
        place: Place,
        /// Why.
        error: SpoolError,
    },
    /// A message that made us panic while it was opened: it lies in `hold/` now.
    PutOnHold(Id),
    /// A clerk has done, or failed to do, a task.
    Filed(Filed),
    /// A hand greeted.
    HandUp {
        /// Which.
        hand: Hand,
        /// To send jobs by.
        line: Line,
        /// Jobs that it takes at once.
        credits: usize,
    },
    /// A hand has gone.
    HandDown {
        /// Which.
        hand: Hand,
        /// Which connection to it ended.
        connection: u64,
    },
    /// A hand has answered.
    Report {
        /// Which.
        hand: Hand,
        /// On which connection.
        connection: u64,
        /// What.
        report: Report,
    },
    /// The administrator wants something; the answers go there.
    Order(Order, Sender<Answer>),
    /// Everything that waits for a domain is to be tried now.
    Retry(Retry),
    /// What waits for one destination that is not the named one is wanted.
    Elsewhere(String, Sender<Vec<Id>>),
    /// A list of what is known is wanted.
    List(Sender<Vec<Listing>>),
    /// What is known of one message is wanted.
    Find(Id, Sender<Option<Listing>>),
    /// New rules from the configuration, and what the schedule is to follow.
    Rules(Rules, Box<Settings>),
    /// Finish what is under way and go.
    Terminate,
    /// Nothing: look at the clock.
    Tick,
}

/// The runner.
pub struct Runner {
    pub(crate) schedule: Schedule,
    pub(crate) rules: Rules,
    pub(crate) messages: HashMap<Id, Message>,
    pub(crate) clerks: Clerks,
    pub(crate) ingest: Ingest,
    pub(crate) history: History,
    pub(crate) lines: [Option<Line>; 2],
    pub(crate) send_again: Option<u64>,
    /// Messages with results that are not on the disk yet, and until when they must be.
    pub(crate) unnoted: VecDeque<(u64, Id)>,
    /// When the spool is to be synced, if anything was filed since it was last.
    sync_at: Option<u64>,
    /// Messages that could not be filed, and when to try again.
    pub(crate) troubled: VecDeque<(u64, Id)>,
    /// What the administrator wants of messages that are under way.
    pub(crate) wishes: HashMap<Id, Wish>,
    pub(crate) passes: Vec<Pass>,
    pub(crate) scanned: bool,
    pub(crate) terminating: bool,
    pub(crate) counters: Counters,
}

/// What has been counted since the start.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    /// Messages opened for the first time, removed.
    pub messages: [u64; 2],
    /// Recipients delivered, deferred, bounced.
    pub recipients: [u64; 3],
    /// Notices sent.
    pub notices: u64,
    /// By posta-local, by posta-remote: recipients delivered, deferred, bounced.
    pub by_hand: [[u64; 3]; 2],
    /// From the arrival of delivered mail to its delivery: microseconds, summed up.
    pub delay: u64,
}

/// Now, in microseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// A time in the form of RFC 5322.
pub fn date(micros: u64) -> String {
    posta::mail::trace::date((micros / SECOND) as i64)
}

/// What kind of reason a fault of the spool is for an order that comes to nothing.
pub fn failure(error: &SpoolError) -> Failure {
    match error {
        SpoolError::Gone { .. } | SpoolError::Unsound { .. } => Failure::Wrong,
        _ => Failure::Later,
    }
}

impl Runner {
    /// A runner with nothing to do yet.
    pub fn new(schedule: Schedule, rules: Rules, ingest: Ingest, clerks: Clerks, history: History) -> Runner {
        Runner {
            schedule,
            rules,
            messages: HashMap::new(),
            clerks,
            ingest,
            history,
            lines: [None, None],
            send_again: None,
            unnoted: VecDeque::new(),
            sync_at: None,
            troubled: VecDeque::new(),
            wishes: HashMap::new(),
            passes: Vec::new(),
            scanned: false,
            terminating: false,
            counters: Counters::default(),
        }
    }

    /// Runs until told to go.
    pub fn run(mut self, events: &Receiver<Event>) {
        loop {
            notify::alive();
            let first = match events.recv_timeout(self.patience(now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let _lines = together();
            for event in first.into_iter().chain(events.try_iter().take(GULP)) {
                self.hear(event);
            }
            if self.terminating && !self.is_busy() {
                self.clerks.sync();
                return;
            }
            self.look_at_clock(now());
            self.hand_out();
        }
    }

    /// How long nothing has to be done if nothing happens.
    fn patience(&self, now: u64) -> Duration {
        let times = [
            self.schedule.wake_at(),
            self.send_again,
            self.sync_at,
            self.unnoted.front().map(|u| u.0),
            self.troubled.front().map(|t| t.0),
        ];
        let next = times.into_iter().flatten().min().unwrap_or(now + 60 * SECOND);
        let wait = Duration::from_micros(next.saturating_sub(now).clamp(1000, 60 * SECOND));
        notify::at_most(Some(wait)).unwrap_or(wait)
    }

    /// While terminating: whether something is still under way that is worth waiting for.
    fn is_busy(&self) -> bool {
        self.messages.values().any(|m| m.filing)
    }

    pub(crate) fn hear(&mut self, event: Event) {
        match event {
            Event::Fresh(ids) => ids.into_iter().for_each(|id| self.schedule.add_fresh(id)),
            Event::Aside(found) => {
                for (id, due, destination, held) in found {
                    if held {
                        self.schedule.found_held(id)
                    } else {
                        self.schedule.found_waiting(id, due, destination)
                    }
                }
            }
            Event::Scanned => {
                self.scanned = true;
                self.schedule.scanned();
            }
            Event::Opened(message) => self.opened(*message),
            Event::NotOpened { id, place, error } => self.not_opened(id, place, &error),
            Event::PutOnHold(id) => self.put_on_hold(id),
            Event::Filed(filed) => self.filed(filed),
            Event::HandUp { hand, line, credits } => {
                log::info!("{} takes {credits} jobs at once", crate::dispatch::program(hand));
                self.lines[hand as usize] = Some(line);
                self.schedule.hand_up(hand, credits);
            }
            Event::HandDown { hand, connection } => self.hand_down(hand, connection),
            Event::Report { hand, connection, report } => self.heard(hand, connection, report),
            Event::Order(order, answers) => self.order(order, answers),
            Event::Retry(retry) => self.retry(&retry),
            Event::Elsewhere(name, answer) => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(self.schedule.waiting_elsewhere(hash(&name)));
            }
            Event::List(answers) => self.list(&answers),
            Event::Find(id, answers) => self.find(id, &answers),
            Event::Rules(rules, settings) => {
                self.rules = rules;
                self.schedule.follow(*settings);
            }
            Event::Terminate => self.terminate(),
            Event::Tick => {}
        }
    }

    pub(crate) fn look_at_clock(&mut self, now: u64) {
        while let Some((_, id)) = self.unnoted.pop_front_if(|u| u.0 <= now) {
            self.note(id);
        }
        if self.sync_at.take_if(|at| *at <= now).is_some() {
            self.clerks.sync();
        }
        while let Some((_, id)) = self.troubled.pop_front_if(|t| t.0 <= now) {
            self.settle(id);
        }
        if self.send_again.is_some_and(|at| at <= now) {
            self.send_again = None;
        }
    }

    /// Asks for messages to be opened and gives jobs to the hands, as many as may be.
    fn hand_out(&mut self) {
        if self.terminating {
            return;
        }
        let now = now();
        while let Some((id, place)) = self.schedule.next_open(now) {
            self.ingest.open(id, place);
        }
        // It was due, and its destination is left alone: that was its turn.
        self.schedule.take_put_off().into_iter().for_each(|id| self.left(id));
        while self.send_again.is_none() {
            let Some(job) = self.schedule.next_job(now) else { break };
            self.send(job, now);
        }
        self.end_passes(now);
    }

    fn send(&mut self, job: Job, now: u64) {
        let request = self.messages.get(&job.id).and_then(|message| Some((message.request(&job)?, message)));
        let Some((request, message)) = request else {
            log::error!("{}: a job for a message that is not open", job.id);
            self.schedule.job_ended(job.number, job.hand, Ending::Lost, "", now);
            return;
        };
        let sent = match (request.encode(), &self.lines[job.hand as usize]) {
            (Ok(packet), Some(line)) => line.send(&packet, &message.entry.file),
            (Ok(_), None) => Err(std::io::ErrorKind::NotConnected.into()),
            (Err(error), _) => return self.too_long(&job, &error.to_string(), now),
        };
        if let Err(error) = sent {
            log::debug!("{}: not sent yet: {error}", job.id);
            self.schedule.take_back(job.number, job.hand);
            self.send_again = Some(now + SEND_AGAIN);
        }
    }

    /// A request that fits into no packet: long addresses, and a hundred of them. Half as many will
    /// fit; one that fits not even alone can't be delivered.
    fn too_long(&mut self, job: &Job, error: &str, now: u64) {
        let divided = self.schedule.divide(job.number, job.hand);
        let Some(message) = self.messages.get_mut(&job.id) else { return };
        if divided {
            message.jobs += 1;
            return;
        }
        self.schedule.job_ended(job.number, job.hand, Ending::Reached, "", now);
        let news = News::ours(Status::new(5, 3, 4), format!("the delivery program can't be asked: {error}"));
        job.targets.iter().for_each(|n| message.hear(*n, news.clone(), now));
        self.log_targets(job.id, &job.targets, now);
        self.job_done(job.id, now);
    }

    fn not_opened(&mut self, id: Id, place: Place, error: &SpoolError) {
        if let Some(wish) = self.wishes.remove(&id) {
            wish.fail(failure(error), format!("{id}: {error}"));
        }
        self.schedule.not_there(id);
        match error {
            // Told twice of a message that was finished in between, or put aside.
            SpoolError::Gone { .. } => log::debug!("{id}: not there any more"),
            SpoolError::Unsound { .. } => {} // the spool has said so, and where it is now
            _ => {
                log::error!("{id}: {error}; it will be tried again");
                match place {
                    Place::Hold => self.schedule.hold(id),
                    Place::Cur => self.schedule.defer(id, now() + FILE_AGAIN, 0),
                    // What waits is looked for in cur/; what is in new/ the scans find again.
                    Place::New => {}
                }
            }
        }
        self.left(id);
    }

    fn put_on_hold(&mut self, id: Id) {
        if let Some(wish) = self.wishes.remove(&id) {
            wish.fail(Failure::Later, format!("{id}: can't be opened; it is on hold, and the log says more"));
        }
        self.schedule.hold(id);
        self.left(id);
    }

    /// Something was filed that must be on the disk soon.
    pub(crate) fn sync_soon(&mut self, now: u64) {
        self.sync_at.get_or_insert(now + SYNC_AFTER);
    }

    /// A message has left the working set: passes wait for it no longer.
    pub(crate) fn left(&mut self, id: Id) {
        for pending in self.passes.iter_mut().filter_map(|p| p.pending.as_mut()) {
            pending.remove(&id);
        }
    }

    fn terminate(&mut self) {
        self.terminating = true;
        let ids: Vec<Id> = self.messages.keys().copied().collect();
        ids.into_iter().for_each(|id| {
            self.note(id);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use posta::config::{DomainFate, DomainRule};

    use crate::rate::Spacings;
    use crate::stage::Stage;

    use super::*;

    #[test]
    fn what_can_t_be_read_now_is_looked_for_where_it_lies() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        let [new, cur] = ["0123456789ABCDE", "0123456789ABCDF"].map(|id| Id::parse(id).unwrap());
        let unreadable = |id, place| {
            let source = std::io::Error::other("too many open files");
            Event::NotOpened { id, place, error: SpoolError::Io { path: "x".into(), source } }
        };
        runner.schedule.add_fresh(new);
        assert_eq!(runner.schedule.next_open(now()), Some((new, Place::New)));
        runner.hear(unreadable(new, Place::New));
        // Not among those that wait, which are looked for in cur/: the next scan of new/ finds it.
        assert_eq!((runner.schedule.counts(), runner.schedule.wake_at()), ([0; 4], None));
        runner.hear(Event::Fresh(vec![new]));
        assert_eq!(runner.schedule.next_open(now()), Some((new, Place::New)));

        runner.schedule.found_waiting(cur, now(), 0);
        assert_eq!(runner.schedule.next_open(now()), Some((cur, Place::Cur)));
        runner.hear(unreadable(cur, Place::Cur));
        assert_eq!(runner.schedule.next_open(now()), None);
        assert_eq!(runner.schedule.next_open(now() + FILE_AGAIN), Some((cur, Place::Cur)));
    }

    #[test]
    fn rates_that_were_read_again_hold_at_once() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        assert_eq!(runner.schedule.settings.spacings.of("x.example"), None);
        let slow = DomainRule { messages_per_minute: 60, ..DomainRule::new("*", DomainFate::RelayMx) };
        let settings = Settings { spacings: Spacings::new(&[slow]), ..runner.schedule.settings.clone() };
        runner.hear(Event::Rules(runner.rules.clone(), Box::new(settings)));
        assert_eq!(runner.schedule.settings.spacings.of("x.example"), Some(crate::schedule::SECOND));
    }

    #[test]
    fn a_pass_does_not_wait_for_what_is_put_off() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        runner.scanned = true;
        assert!(runner.schedule.resting.pause("slow"));
        let id = Id::parse("0123456789ABCDE").unwrap();
        runner.schedule.found_waiting(id, now(), crate::destination::hash("slow"));
        let (answers, answer) = channel();
        runner.order(Order::Pass, answers);
        runner.end_passes(now());
        assert!(answer.try_recv().is_err());
        runner.hand_out();
        assert_eq!(answer.try_recv(), Ok(Answer::End));
    }

    #[test]
    fn one_that_made_us_panic_gives_its_slot_back() {
        let stage = Stage::new();
        let (events, _heard) = channel();
        let mut runner = stage.runner(&events);
        let id = Id::parse("0123456789ABCDE").unwrap();
        runner.schedule.add_fresh(id);
        runner.schedule.next_open(now());
        let (answers, answer) = channel();
        runner.order(Order::Delete(id), answers);
        runner.hear(Event::PutOnHold(id));
        assert_eq!(runner.schedule.counts(), [0, 0, 0, 1]);
        assert!(matches!(answer.recv(), Ok(Answer::Failed(Failure::Later, _))));
    }
}
