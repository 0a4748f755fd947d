//! Maildir copies that wait for a sync, batch by batch.
//!
//! What was written or named on one device since the last question is one batch, asked for under
//! one number: a sync, its question and its answer are shared by all of it.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use posta::unix::durable::Durable;

use posta::maildir::deliver::{Maildir, Named, Written};

use crate::refusal::Refusal;
use crate::talk::FromChild;

/// A question to the parent, and a Maildir on the file system that is meant.
pub type Question = (FromChild, Rc<Maildir>);
/// A copy that is done, or was given up.
pub type End<T> = (T, Result<(), Refusal>);

/// What waits on one device. `T` says whose copy it is.
#[derive(Debug)]
struct Batch<T> {
    written: Vec<(T, Written)>,
    named: Vec<(T, Named)>,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { written: Vec::new(), named: Vec::new() }
    }
}

impl<T> Batch<T> {
    /// Any Maildir of it.
    fn maildir(&self) -> Option<&Rc<Maildir>> {
        let written = self.written.iter().map(|(_, copy)| copy.maildir());
        written.chain(self.named.iter().map(|(_, copy)| copy.maildir())).next()
    }
}

/// All that waits.
#[derive(Debug)]
pub struct Batches<T> {
    /// Not yet asked for, by device.
    fresh: HashMap<u64, Batch<T>>,
    /// Asked for, by number, and since when.
    asked: HashMap<u64, (Batch<T>, Instant)>,
    last_number: u64,
}

impl<T> Default for Batches<T> {
    fn default() -> Batches<T> {
        Batches { fresh: HashMap::new(), asked: HashMap::new(), last_number: 0 }
    }
}

impl<T> Batches<T> {
    /// A copy was written.
    pub fn add(&mut self, whose: T, written: Written) {
        self.fresh.entry(written.maildir().device()).or_default().written.push((whose, written));
    }

    /// The questions for what has come together since the last call.
    pub fn questions(&mut self, now: Instant) -> Vec<Question> {
        let mut questions = Vec::new();
        for (device, batch) in self.fresh.drain() {
            let Some(maildir) = batch.maildir().map(Rc::clone) else { continue };
            self.last_number += 1;
            let copies = batch.written.len() + batch.named.len();
            questions.push((FromChild::Sync { number: self.last_number, device, copies }, maildir));
            self.asked.insert(self.last_number, (batch, now));
        }
        questions
    }

    /// A shared sync has covered what was asked for under `number`: what was written gets its name
    /// and waits again, what was named is done.
    pub fn synced(&mut self, disk: &dyn Durable, number: u64) -> Vec<End<T>> {
        let Some((batch, _)) = self.asked.remove(&number) else { return Vec::new() };
        let confirmed = |named: Named| named.confirm(disk).map_err(Refusal::from);
        let mut ends: Vec<End<T>> =
            batch.named.into_iter().map(|(whose, named)| (whose, confirmed(named))).collect();
        for (whose, written) in batch.written {
            match written.name_it(disk) {
                Ok(named) => {
                    self.fresh.entry(named.maildir().device()).or_default().named.push((whose, named));
                }
                Err(error) => ends.push((whose, Err(error.into()))),
            }
        }
        ends
    }

    /// Syncs what was asked for under `number` file by file, through both its phases. `beat` is
    /// called between the files.
    pub fn sync_alone(&mut self, disk: &dyn Durable, number: u64, beat: &mut dyn FnMut()) -> Vec<End<T>> {
        let Some((batch, _)) = self.asked.remove(&number) else { return Vec::new() };
        let (mut named, mut ends) = (batch.named, Vec::new());
        for (whose, written) in batch.written {
            beat();
            if let Err(error) = written.sync(disk) {
                written.give_up(disk);
                ends.push((whose, Err(error.into())));
                continue;
            }
            match written.name_it(disk) {
                Ok(done) => named.push((whose, done)),
                Err(error) => ends.push((whose, Err(error.into()))),
            }
        }
        sync_names(disk, named, beat, &mut ends);
        ends
    }

    /// When the first of what was asked for will have waited for `limit`.
    pub fn deadline(&self, limit: Duration) -> Option<Instant> {
        self.asked.values().map(|(_, since)| *since + limit).min()
    }

    /// Gives up what has waited for `limit`.
    pub fn give_up_late(&mut self, disk: &dyn Durable, now: Instant, limit: Duration) -> Vec<End<T>> {
        let late = self.asked.extract_if(|_, (_, since)| now >= *since + limit);
        let refusal = || Refusal::new((4, 4, 7), "the mailbox's file system takes too long to write");
        let mut ends = Vec::new();
        for (_, (batch, _)) in late {
            for (whose, written) in batch.written {
                written.give_up(disk);
                ends.push((whose, Err(refusal())));
            }
            ends.extend(batch.named.into_iter().map(|(whose, _)| (whose, Err(refusal()))));
        }
        ends
    }
}

/// Makes names durable; each Maildir is synced once, however many of its names are new.
fn sync_names<T>(
    disk: &dyn Durable,
    mut named: Vec<(T, Named)>,
    beat: &mut dyn FnMut(),
    ends: &mut Vec<End<T>>,
) {
    while let Some((_, first)) = named.first() {
        beat();
        let maildir = Rc::clone(first.maildir());
        let result = first.sync(disk).map_err(Refusal::from);
        let (same, others): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|(_, copy)| Rc::ptr_eq(copy.maildir(), &maildir));
        named = others;
        let confirmed = |named: Named| result.clone().and_then(|()| Ok(named.confirm(disk)?));
        ends.extend(same.into_iter().map(|(whose, named)| (whose, confirmed(named))));
    }
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;
    use posta::unix::durable::{Disk, Folder};

    use posta::maildir::copy::{Copy, Message};
    use posta::maildir::deliver;
    use posta::maildir::name::Name;

    use super::*;

    fn written(maildir: &Rc<Maildir>, n: u32) -> Written {
        let message = Message::open(tempfile::tempfile().unwrap(), 0).unwrap();
        let name = Name::new(0, Id::parse("0123456789ABCDE").unwrap(), n, "host");
        deliver::write(&Disk, maildir, &name, &mut Copy::new(&message, Vec::new()), &mut Vec::new()).unwrap()
    }

    fn count(folder: &tempfile::TempDir, name: &str) -> usize {
        std::fs::read_dir(folder.path().join(name)).unwrap().count()
    }

    fn maildir(folder: &tempfile::TempDir) -> Rc<Maildir> {
        Rc::new(Maildir::open(&Disk, Folder::open(folder.path()).unwrap().into()).unwrap())
    }

    fn number(questions: &[Question], expected: usize) -> u64 {
        match questions {
            [(FromChild::Sync { number, copies, .. }, _)] if *copies == expected => *number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_syncs_make_a_delivery() {
        let folder = tempfile::tempdir().unwrap();
        let (maildir, now) = (maildir(&folder), Instant::now());
        let mut batches = Batches::default();
        batches.add('a', written(&maildir, 0));
        batches.add('b', written(&maildir, 1));
        let first = number(&batches.questions(now), 2);
        batches.add('c', written(&maildir, 2));
        assert_eq!(batches.synced(&Disk, first), []);
        assert_eq!((count(&folder, "tmp"), count(&folder, "new")), (1, 2));
        // The names of the first and the bytes of the third share a sync.
        let second = number(&batches.questions(now), 3);
        assert_eq!(batches.synced(&Disk, second), [('a', Ok(())), ('b', Ok(()))]);
        assert_eq!(batches.synced(&Disk, second), []);
        let third = number(&batches.questions(now), 1);
        assert_eq!(batches.sync_alone(&Disk, third, &mut || {}), [('c', Ok(()))]);
        assert!(batches.questions(now).is_empty());
    }

    #[test]
    fn alone_both_phases_are_done_at_once() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let maildirs = [maildir(&folders[0]), maildir(&folders[1])];
        let mut batches = Batches::default();
        for n in 0..4 {
            batches.add(n, written(&maildirs[n as usize % 2], n));
        }
        let asked = number(&batches.questions(Instant::now()), 4);
        let mut ends = batches.sync_alone(&Disk, asked, &mut || {});
        ends.sort_by_key(|end| end.0);
        assert_eq!(ends, [(0, Ok(())), (1, Ok(())), (2, Ok(())), (3, Ok(()))]);
        assert_eq!((count(&folders[0], "new"), count(&folders[1], "new")), (2, 2));
    }

    #[test]
    fn what_waits_too_long_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let (maildir, now, limit) = (maildir(&folder), Instant::now(), Duration::from_secs(5));
        let mut batches = Batches::default();
        batches.add('a', written(&maildir, 0));
        batches.questions(now);
        assert_eq!(batches.deadline(limit), Some(now + limit));
        assert_eq!(batches.give_up_late(&Disk, now, limit), []);
        let ends = batches.give_up_late(&Disk, now + limit, limit);
        assert_eq!((ends.len(), ends[0].0), (1, 'a'));
        assert_eq!(count(&folder, "tmp"), 0);
    }
}
