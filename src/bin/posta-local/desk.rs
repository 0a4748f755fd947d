//! The child's desk: the jobs it holds, and how far each copy has come.
//!
//! A Maildir copy is written at once, waits for a sync, is named, and waits for a sync again
//! (`batches`). Commands run two at a time (`pipe`); an mbox waits for its lock (`mbox`).

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use posta::mail::status::Status;
use posta::unix::durable::{Disk, Folder};
use posta::unix::wait::Watch;

use posta::courier::report::Outcome;
use posta::courier::request::{Owner, Place, Rcpt, Request, Target};

use posta::maildir::copy::{self, Copy, Message};
use posta::maildir::deliver;
use posta::maildir::name::Name;

use crate::answer::answer;
use crate::batches::{Batches, End, Question};
use crate::extension::{divide, is_harmless};
use crate::forward::{Forwards, Rules, Whose};
use crate::home::{Identity, Mailboxes};
use crate::mbox::{Attempt, Mbox};
use crate::pipe::{Running, Told};
use crate::refusal::{Refusal, outcome};
use crate::talk::{FromChild, Settings};

/// Most commands at once.
const COMMANDS: usize = 2;
/// How long a locked mbox is left alone between attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// A copy: which recipient of which job.
#[derive(Debug, Clone)]
struct Ticket {
    job: Rc<Request>,
    /// The recipient's place in the request.
    index: usize,
}

impl Ticket {
    fn recipient(&self) -> &Rcpt {
        &self.job.recipients[self.index]
    }

    fn copy<M: std::ops::Deref<Target = Message>>(&self, message: M) -> Copy<M> {
        Copy::new(message, copy::top(&self.job.sender, &self.recipient().address, &self.job.trace))
    }
}

/// A copy that waits for a free place among the commands, or for a lock.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    message: Rc<Message>,
    /// The command, or the file.
    target: String,
    home: PathBuf,
    since: Instant,
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    identity: Identity,
    settings: Settings,
    mailboxes: Mailboxes,
    forwards: Forwards,
    outcomes: HashMap<u64, Vec<Outcome>>,
    batches: Batches<Ticket>,
    commands: Vec<(Ticket, Running)>,
    commands_waiting: VecDeque<Waiting>,
    mboxes_waiting: VecDeque<Waiting>,
    next_lock: Option<Instant>,
    words: Vec<FromChild>,
    piece: Vec<u8>,
}

/// What the parent is to be told: words that go together, and questions that each carry a folder.
#[derive(Debug)]
pub struct Said {
    /// Words without a file.
    pub words: Vec<FromChild>,
    /// A `sync` each, and a folder of the file system that is meant.
    pub questions: Vec<Question>,
}

impl Desk {
    /// An empty desk.
    pub fn new(identity: Identity, settings: Settings) -> Desk {
        let rules = Rules {
            uid: identity.uid,
            hostname: settings.hostname.clone(),
            delimiter: settings.delimiter.clone(),
            includes: settings.forward_includes,
        };
        Desk {
            identity,
            forwards: Forwards::new(rules),
            mailboxes: Mailboxes::new(settings.limit),
            settings,
            outcomes: HashMap::new(),
            batches: Batches::default(),
            commands: Vec::new(),
            commands_waiting: VecDeque::new(),
            mboxes_waiting: VecDeque::new(),
            next_lock: None,
            words: Vec::new(),
            piece: Vec::new(),
        }
    }

    /// Whether any job is held.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Begins with a job: writes its Maildir copies, puts the others in their lines.
    pub fn begin(&mut self, request: Request, file: File, now: Instant) {
        let job = Rc::new(request);
        self.outcomes.insert(job.job, Vec::new());
        let home = match (&self.identity.home, &job.target) {
            (Some(home), _) => home.clone(),
            (None, Target::Local(Owner::Ids(_, _, home))) => PathBuf::from(home),
            _ => PathBuf::new(),
        };
        let message = Message::open(file, job.size).map(Rc::new);
        for index in 0..job.recipients.len() {
            let ticket = Ticket { job: Rc::clone(&job), index };
            let begun = match &message {
                Ok(message) => self.begin_copy(&ticket, message, &home, now),
                Err(error) => Err(Refusal::of("reading the message", error)),
            };
            if let Err(refusal) = begun {
                self.refuse(&ticket, refusal);
            }
        }
    }

    fn begin_copy(
        &mut self,
        ticket: &Ticket,
        message: &Rc<Message>,
        home: &Path,
        now: Instant,
    ) -> Result<(), Refusal> {
        let recipient = ticket.recipient();
        if message.was_delivered_to(&recipient.address) {
            // RFC 3463 3.5: routing loop detected.
            let text =
                format!("mail for {} goes in a circle: it was delivered there before", recipient.address);
            return Err(Refusal::new((5, 4, 6), text));
        }
        let place = match &recipient.place {
            Some(Place::Home(mailbox)) => {
                let wanted = self.wanted(recipient, home, mailbox, now)?;
                match wanted {
                    Some(outcome) => {
                        self.note(ticket, outcome);
                        return Ok(());
                    }
                    None => mailbox,
                }
            }
            Some(place) => place,
            None => return Err(Refusal::new((4, 3, 5), "no mailbox is named")),
        };
        let waiting = |target: &str| Waiting {
            ticket: ticket.clone(),
            message: Rc::clone(message),
            target: target.to_string(),
            home: home.to_path_buf(),
            since: now,
        };
        match place {
            Place::Maildir(path) => return self.write(ticket, message, home, path, now),
            _ if self.identity.is_root => {
                let text =
                    "commands and mbox files are refused while drop_privileges is off and we run as root";
                return Err(Refusal::new((4, 3, 5), text));
            }
            Place::Mbox(path) => self.mboxes_waiting.push_back(waiting(path)),
            Place::Command(command) => self.commands_waiting.push_back(waiting(command)),
            Place::Home(_) => return Err(Refusal::new((4, 3, 5), "a mailbox within a mailbox")),
        }
        Ok(())
    }

    /// The outcome, if the owner's `.forward` wants something else than his mailbox.
    fn wanted(
        &mut self,
        recipient: &Rcpt,
        home: &Path,
        mailbox: &Place,
        now: Instant,
    ) -> Result<Option<Outcome>, Refusal> {
        let user = self.identity.user.as_deref();
        let whose = Whose { user, home, address: &recipient.address, mailbox };
        let Some(forward) = self.forwards.wanted(whose, now)? else { return Ok(None) };
        if self.identity.is_root {
            let text = "a .forward is refused while drop_privileges is off and we run as root";
            return Err(Refusal::new((4, 3, 5), text));
        }
        let nothing = forward.addresses.is_empty() && forward.places.is_empty();
        let text = if nothing { "thrown away, as .forward says" } else { "forwarded, as .forward says" };
        let said = outcome(recipient.n, Status::new(2, 0, 0), text);
        Ok(Some(match nothing {
            true => said,
            false => Outcome { passed_on: true, forward: Some(forward), ..said },
        }))
    }

    fn write(
        &mut self,
        ticket: &Ticket,
        message: &Rc<Message>,
        home: &Path,
        path: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let (folder, limit) = (self.folder_of(ticket), ticket.recipient().limit);
        let maildir = self.mailboxes.maildir(home, path, folder, limit, now)?;
        let job = &ticket.job;
        let name = Name::new(job.arrived, job.id, ticket.recipient().n, &self.settings.hostname);
        let mut copy = ticket.copy(&**message);
        let written = deliver::write(&Disk, &maildir, &name, &mut copy, &mut self.piece)?;
        self.batches.add(ticket.clone(), written);
        Ok(())
    }

    /// The folder that a recipient's extension names.
    fn folder_of<'t>(&self, ticket: &'t Ticket) -> Option<&'t str> {
        let (_, extension) = self.settings.folders.then(|| self.divided(ticket.recipient()))?;
        extension.filter(|extension| is_harmless(extension))
    }

    /// The parts of a recipient's local part.
    fn divided<'t>(&self, recipient: &'t Rcpt) -> (&'t str, Option<&'t str>) {
        divide(&recipient.address, self.identity.user.as_deref(), &self.settings.delimiter)
    }

    /// A shared sync has covered what was asked for under `number`.
    pub fn synced(&mut self, number: u64) {
        let ends = self.batches.synced(&Disk, number);
        self.maildirs_done(ends);
    }

    /// Syncs what was asked for under `number` itself. `beat` is called now and then.
    pub fn sync_alone(&mut self, number: u64, beat: &mut dyn FnMut()) {
        let ends = self.batches.sync_alone(&Disk, number, beat);
        self.maildirs_done(ends);
        self.words.push(FromChild::Synced(number));
    }

    fn maildirs_done(&mut self, ends: Vec<End<Ticket>>) {
        for (ticket, result) in ends {
            self.finish(&ticket, result.map(|()| "delivered to maildir".to_string()));
        }
    }

    /// What commands are waited for.
    pub fn watched(&self) -> impl Iterator<Item = Watch<'_>> {
        self.commands.iter().flat_map(|(_, running)| running.watched())
    }

    /// When [`Desk::step`] is to be called, whatever comes.
    pub fn deadline(&self) -> Option<Instant> {
        let commands = self.commands.iter().map(|(_, running)| running.deadline());
        self.batches.deadline(self.settings.timeout).into_iter().chain(commands).chain(self.next_lock).min()
    }

    /// Moves commands and locked mboxes on, and gives up what has had its time.
    pub fn step(&mut self, now: Instant) {
        self.step_commands(now);
        self.step_mboxes(now);
        let late = self.batches.give_up_late(&Disk, now, self.settings.timeout);
        self.maildirs_done(late);
    }

    fn step_commands(&mut self, now: Instant) {
        for at in (0..self.commands.len()).rev() {
            if let Some(result) = self.commands[at].1.step(now) {
                let (ticket, _) = self.commands.swap_remove(at);
                self.finish(&ticket, result);
            }
        }
        while self.commands.len() < COMMANDS
            && let Some(waiting) = self.commands_waiting.pop_front()
        {
            match self.start_command(&waiting) {
                Ok(running) => self.commands.push((waiting.ticket, running)),
                Err(error) => self.refuse(&waiting.ticket, Refusal::of("starting a command", &error)),
            }
        }
    }

    fn start_command(&self, waiting: &Waiting) -> std::io::Result<Running> {
        let recipient = waiting.ticket.recipient();
        let told = Told {
            user: self.identity.user.as_deref(),
            home: &waiting.home,
            sender: waiting.ticket.job.sender.to_string(),
            recipient: recipient.address.to_string(),
            original: recipient.original.to_string(),
            local: recipient.address.local(),
            domain: recipient.address.domain(),
            extension: self.divided(recipient).1,
        };
        let copy = waiting.ticket.copy(Rc::clone(&waiting.message));
        Running::start(&waiting.target, &told, copy, self.settings.timeout)
    }

    fn step_mboxes(&mut self, now: Instant) {
        if self.next_lock.is_some_and(|at| now < at) {
            return;
        }
        for _ in 0..self.mboxes_waiting.len() {
            let Some(waiting) = self.mboxes_waiting.pop_front() else { break };
            match self.append(&waiting) {
                Ok(Attempt::Done) => self.finish(&waiting.ticket, Ok("delivered to mailbox".to_string())),
                Ok(Attempt::Locked) if now < waiting.since + self.settings.timeout => {
                    self.mboxes_waiting.push_back(waiting);
                }
                Ok(Attempt::Locked) => {
                    let text = format!("{} is locked by another program", waiting.target);
                    self.refuse(&waiting.ticket, Refusal::new((4, 2, 0), text));
                }
                Err(refusal) => self.refuse(&waiting.ticket, refusal),
            }
        }
        self.next_lock = (!self.mboxes_waiting.is_empty()).then(|| now + LOCK_PAUSE);
    }

    fn append(&self, waiting: &Waiting) -> Result<Attempt, Refusal> {
        let (folder, name): (Folder, String) = Mailboxes::mbox(&waiting.home, &waiting.target)?;
        let mbox = Mbox { folder: &folder, name: &name, uid: self.identity.uid };
        let mut copy = waiting.ticket.copy(&*waiting.message);
        mbox.append(&Disk, SystemTime::now(), &waiting.ticket.job.sender, &mut copy)
    }

    /// What is to be said since the last call.
    pub fn said(&mut self, now: Instant) -> Said {
        if self.is_empty() {
            self.mailboxes.rest();
        }
        Said { words: std::mem::take(&mut self.words), questions: self.batches.questions(now) }
    }

    fn finish(&mut self, ticket: &Ticket, result: Result<String, Refusal>) {
        match result {
            Ok(text) => self.note(ticket, outcome(ticket.recipient().n, Status::new(2, 0, 0), text)),
            Err(refusal) => self.refuse(ticket, refusal),
        }
    }

    fn refuse(&mut self, ticket: &Ticket, mut refusal: Refusal) {
        // RFC 3463 3.3, X.2.2: mailbox full.
        if self.settings.full_is_final && refusal.status == Status::new(4, 2, 2) {
            refusal.status = Status::new(5, 2, 2);
        }
        self.note(ticket, refusal.outcome(ticket.recipient().n));
    }

    /// Notes an outcome; a job that has them all is done.
    fn note(&mut self, ticket: &Ticket, outcome: Outcome) {
        let job = ticket.job.job;
        let Some(outcomes) = self.outcomes.get_mut(&job) else { return };
        outcomes.push(outcome);
        if outcomes.len() < ticket.job.recipients.len() {
            return;
        }
        let outcomes = self.outcomes.remove(&job).unwrap_or_default();
        self.words.extend(answer(job, outcomes).map(|report| FromChild::Done { job, report }));
    }
}
