//! Filing: what became of messages goes to the disk here, and not in the thread that schedules.
//!
//! A message's tasks always go to the same thread, in order. The rules of the spool (posta-spool(5)):
//! a notice is committed before its targets are noted as reported, and before the message is
//! removed; `cur/ID` is removed before `journal/ID`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use posta::mail::id::Id;

use posta::spool::{Entry, Place, Record, Spool, SpoolError};

use crate::bounce::{Bouncer, Notice};
use crate::forward::{Onward, send_on};
use crate::runner::{Event, now};

/// Threads that file.
const THREADS: usize = 2;

/// What is to be done about one message.
#[derive(Debug)]
pub struct Task {
    /// The message.
    pub entry: Arc<Entry>,
    /// Where it lies.
    pub place: Place,
    /// Sent on first.
    pub onward: Vec<Onward>,
    /// Then told.
    pub notices: Vec<Notice>,
    /// Then noted; not needed where the message ends.
    pub records: Vec<Record>,
    /// Then this.
    pub end: End,
}

/// What a task ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The message is finished: removed.
    Gone,
    /// It stays in the working set.
    Stay,
    /// It waits: until when (microseconds since 1970), and a hash of what for.
    Wait(u64, u32),
    /// It is put on hold.
    Hold,
}

/// How a task went.
#[derive(Debug)]
pub struct Filed {
    /// The message.
    pub id: Id,
    /// What was asked for.
    pub end: End,
    /// The ids of the notices that are committed, and the targets that they tell of.
    pub told: Vec<(Id, Vec<u32>)>,
    /// So many notices are not committed.
    pub untold: usize,
    /// The targets whose copies were sent on, and as which messages.
    pub sent_on: Vec<(u32, Id)>,
    /// What was to be noted, if it was not.
    pub records: Vec<Record>,
    /// Where it lies now, or what went wrong; what was asked for is then not done.
    pub place: Result<Place, SpoolError>,
}

/// The threads.
#[derive(Debug)]
pub struct Clerks {
    lines: Vec<Sender<Order>>,
    syncs: Sender<()>,
}

#[derive(Debug)]
enum Order {
    File(Box<Task>),
    Close(Arc<Entry>),
}

impl Clerks {
    /// Starts the threads. Every task comes back as [`Event::Filed`].
    pub fn start(
        spool: &Arc<Spool>,
        bouncer: &Arc<Bouncer>,
        events: &Sender<Event>,
    ) -> std::io::Result<Clerks> {
        let mut lines = Vec::new();
        for n in 0..THREADS {
            let (line, tasks) = channel();
            let (spool, bouncer, events) = (spool.clone(), bouncer.clone(), events.clone());
            let thread = std::thread::Builder::new().name(format!("clerk-{n}"));
            thread.spawn(move || work(&spool, &bouncer, &tasks, &events))?;
            lines.push(line);
        }
        let (syncs, wanted) = channel();
        let spool = spool.clone();
        std::thread::Builder::new().name("sync".into()).spawn(move || sync(&spool, &wanted))?;
        Ok(Clerks { lines, syncs })
    }

    /// Files a task; `false` if there is no clerk any more.
    pub fn file(&self, task: Task) -> bool {
        self.line(task.entry.id).send(Order::File(Box::new(task))).is_ok()
    }

    /// Whose messages of this name are.
    fn line(&self, id: Id) -> &Sender<Order> {
        let name = id.as_str().bytes().fold(0_usize, |sum, b| sum + usize::from(b));
        &self.lines[name % THREADS]
    }

    /// Closes a message. The last to close a file that is removed gives its blocks back, and may wait
    /// for the disk.
    pub fn close(&self, entry: Arc<Entry>) {
        // A clerk that is gone has said so; the file is closed here then.
        let _ = self.line(entry.id).send(Order::Close(entry));
    }

    /// Makes everything durable whose filing has come back. A slow disk holds up no clerk.
    pub fn sync(&self) {
        // One that is gone has said so.
        let _ = self.syncs.send(());
    }
}

fn work(spool: &Spool, bouncer: &Bouncer, orders: &Receiver<Order>, events: &Sender<Event>) {
    for order in orders {
        match order {
            Order::Close(entry) => drop(entry),
            Order::File(task) => {
                if events.send(Event::Filed(file(spool, bouncer, *task))).is_err() {
                    return;
                }
            }
        }
    }
}

fn sync(spool: &Spool, wanted: &Receiver<()>) {
    while wanted.recv().is_ok() {
        // One covers all that were asked for by now.
        wanted.try_iter().for_each(drop);
        if let Err(error) = spool.sync_journals() {
            log::error!("what was filed could not be synced: {error}; a power cut now may repeat deliveries");
        }
    }
}

fn file(spool: &Spool, bouncer: &Bouncer, task: Task) -> Filed {
    let id = task.entry.id;
    let (mut told, mut sent_on) = (Vec::new(), Vec::new());
    let carried_out = catch_unwind(AssertUnwindSafe(|| {
        send_all_on(bouncer, &task, &mut sent_on)?;
        carry_out(spool, bouncer, &task, &mut told)
    }));
    let place = carried_out.unwrap_or_else(|_| {
        // The thread has other messages to file; this one is tried again, and the log says so.
        let source = std::io::Error::other("posta-queue panicked while it filed results (a bug)");
        Err(SpoolError::Io { path: id.to_string(), source })
    });
    let records = if place.is_ok() { Vec::new() } else { task.records };
    let untold = task.notices.len() - told.len();
    Filed { id, end: task.end, told, untold, sent_on, records, place }
}

fn send_all_on(bouncer: &Bouncer, task: &Task, sent_on: &mut Vec<(u32, Id)>) -> Result<(), SpoolError> {
    for onward in &task.onward {
        sent_on.push((onward.n, send_on(bouncer, &task.entry, onward, now())?));
    }
    Ok(())
}

fn carry_out(
    spool: &Spool,
    bouncer: &Bouncer,
    task: &Task,
    told: &mut Vec<(Id, Vec<u32>)>,
) -> Result<Place, SpoolError> {
    let id = task.entry.id;
    for notice in &task.notices {
        let notice_id = bouncer.tell(&task.entry, notice, now())?;
        told.push((notice_id, notice.targets.clone()));
    }
    if task.end == End::Gone {
        spool.finish(id, task.place)?;
        return Ok(task.place);
    }
    if task.end == End::Stay && task.records.is_empty() {
        return Ok(task.place);
    }
    let place = note(spool, task)?;
    match task.end {
        End::Hold if place != Place::Hold => {
            spool.move_to(id, place, Place::Hold)?;
            Ok(Place::Hold)
        }
        End::Wait(..) if place == Place::Hold => {
            spool.move_to(id, Place::Hold, Place::Cur)?;
            Ok(Place::Cur)
        }
        _ => Ok(place),
    }
}

/// Writes the records; a message without a journal gets one and moves to `cur/`.
fn note(spool: &Spool, task: &Task) -> Result<Place, SpoolError> {
    let id = task.entry.id;
    let kept = if task.place == Place::New { None } else { spool.journal(&task.entry)? };
    let (mut journal, place) = match kept {
        Some(mut journal) => {
            journal.append(&task.records)?;
            (journal, task.place)
        }
        // One that lies in cur/ or hold/ without a journal that is its own stays there.
        None => {
            let place = if task.place == Place::New { Place::Cur } else { task.place };
            (spool.set_aside(&task.entry, &task.records)?, place)
        }
    };
    if let End::Wait(due, destination) = task.end {
        journal.set_next(due / crate::schedule::SECOND, destination)?;
    }
    log::debug!("{id}: {} records noted", task.records.len());
    Ok(place)
}
