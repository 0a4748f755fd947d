//! Group commit: from a draft to a promise (S1, S2a, S2b).
//!
//! Many who wait at once share one `syncfs`, which costs the same however many they are; a few do, or have
//! their files and the folder synced one by one, whatever is the quicker on this disk
//! ([`pace`](super::pace)). But `syncfs` waits for strangers' dirty data too: once it was slow, each waiter
//! syncs its own file for a minute or more, all at the same time, and one of them the folder. Who syncs for
//! whom is [`gather`](super::gather)'s business.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::envelope::Envelope;
use crate::mail::id::Id;
use crate::unix::fifo::{Hinter, MAX_HINT};

use crate::smtp::event::Proof;

use super::gather::{Gather, Service};
use super::pace::Pace;
use super::write::Named;
use super::{Draft, Spool, SpoolError};

/// When to sync how. The default is what was measured to be best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// So many waiters at most may have their files synced; more share one `syncfs`.
    pub few: usize,
    /// So long at most anybody waits for the disk.
    pub patience: Duration,
    /// A `syncfs` that takes longer was slow.
    pub slow: Duration,
    /// After that, files are synced for so long, and longer where it stays slow.
    pub by_files: Duration,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits {
            few: 3,
            patience: Duration::from_secs(60),
            slow: Duration::from_millis(100),
            by_files: Duration::from_secs(60),
        }
    }
}

/// Group commit. One for each opened spool; its users share it.
#[derive(Debug)]
pub struct Committer {
    gather: Gather<Pending>,
    syncer: Syncer,
}

/// A message that waits for its sync.
#[derive(Debug)]
struct Pending {
    named: Named,
    /// Its thread has synced the file: only its name is to be synced.
    is_synced: bool,
}

/// The proof that a message survives a power cut. It can't be made but by a commit.
#[derive(Debug)]
pub struct Committed {
    id: Id,
}

impl Committed {
    /// Of which message.
    pub fn id(&self) -> Id {
        self.id
    }
}

impl Proof for Committed {
    fn id(&self) -> Id {
        self.id
    }
}

impl Committer {
    /// With the default habits.
    pub fn new(spool: Arc<Spool>) -> Committer {
        Committer::with_habits(spool, Habits::default())
    }

    /// With others.
    pub fn with_habits(spool: Arc<Spool>, habits: Habits) -> Committer {
        let hints = Hints { path: spool.trigger(), prefix: spool.hint_prefix(), pipe: Mutex::new(None) };
        let pace = Mutex::new(Pace::new(habits));
        Committer { gather: Gather::new(habits.patience), syncer: Syncer { spool, pace, hints } }
    }

    /// Appends envelope and trailer, names the file, waits for the sync that covers it, hints. After
    /// an error the message is not in the spool (or, where even that failed, the log says so): its
    /// client is told 451, or 452 if the spool is [`Full`](SpoolError::Full).
    pub fn commit(&self, draft: Draft, envelope: &Envelope) -> Result<Committed, SpoolError> {
        let named = draft.seal(envelope)?;
        let id = named.id;
        let mut unpromised = Unpromised { spool: &self.syncer.spool, id, is_kept: false };
        self.settle(named)
            .map_err(|e| SpoolError::io(self.syncer.spool.entrance.path().join(id.as_str()), e))?;
        unpromised.is_kept = true;
        Ok(Committed { id })
    }

    fn settle(&self, named: Named) -> io::Result<()> {
        let is_synced = self.syncer.pace().goes_by_files(Instant::now());
        if is_synced {
            self.syncer.note(self.syncer.spool.disk.sync_file(&named.file))?;
        }
        self.gather.join(Pending { named, is_synced }, &self.syncer)
    }
}

/// A name that must go again unless its sync succeeds: a client that is told 451 keeps the message.
struct Unpromised<'a> {
    spool: &'a Spool,
    id: Id,
    is_kept: bool,
}

impl Drop for Unpromised<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        match self.spool.disk.unlink(&self.spool.entrance, self.id.as_str()) {
            Ok(()) => {}
            // posta-queue has found it in a scan, and is done with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let folder = self.spool.entrance.path().display();
                log::error!("{}: was refused, but stays in {folder}: {error}; it may come twice", self.id);
            }
        }
    }
}

/// The leader's work.
#[derive(Debug)]
struct Syncer {
    spool: Arc<Spool>,
    pace: Mutex<Pace>,
    hints: Hints,
}

impl Service<Pending> for Syncer {
    fn serve(&self, batch: &[&Pending]) -> Vec<io::Result<()>> {
        let done = self.note(self.sync(batch));
        let failed = self.spool.failed_syncs.load(Ordering::SeqCst);
        let one = |pending: &&Pending| match &done {
            Err(error) => Err(again(error)),
            // Some sync has failed since it was begun: that may have been the only word of its loss.
            Ok(()) if pending.named.failed_syncs != failed => Err(io::Error::other("a sync has failed")),
            Ok(()) => self.spool.disk.still_works(&pending.named.file),
        };
        batch.iter().map(one).collect()
    }

    fn announce(&self, well: &[&Pending]) {
        self.hints.write(well.iter().map(|pending| pending.named.id));
    }
}

impl Syncer {
    fn sync(&self, batch: &[&Pending]) -> io::Result<()> {
        let (disk, folder) = (&self.spool.disk, &self.spool.entrance);
        let unsynced: Vec<_> = batch.iter().filter(|p| !p.is_synced).collect();
        let begun = Instant::now();
        if self.pace().shares(unsynced.len(), begun) {
            return self.sync_all(begun);
        }
        for pending in &unsynced {
            disk.sync_file(&pending.named.file)?;
        }
        match batch.first() {
            // A folder that can't be opened for reading can't be synced: drop/, for posta-drop.
            Some(any) if !folder.is_readable() => disk.sync_file_system(any.named.file.as_fd())?,
            _ => disk.sync_folder(folder)?,
        }
        self.pace().note_own(begun.elapsed(), unsynced.len() + 1);
        Ok(())
    }

    /// One `syncfs`, on a descriptor that has been open since the start: so it tells of every loss
    /// since the last one.
    fn sync_all(&self, begun: Instant) -> io::Result<()> {
        self.spool.disk.sync_file_system(self.spool.entrance.as_fd())?;
        let now = Instant::now();
        if let Some((usual, pause)) = self.pace().note_all(now - begun, now) {
            log::info!(
                "{}: syncfs took {} ms (usually {} ms): files are synced for the next {} s",
                self.spool.path().display(),
                (now - begun).as_millis(),
                usual.as_millis(),
                pause.as_secs()
            );
        }
        Ok(())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a sync that failed. It is counted after it ended: whatever was begun before has the
    /// old count.
    fn note(&self, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            self.spool.failed_syncs.fetch_add(1, Ordering::SeqCst);
        }
        done
    }
}

/// The same error for another waiter.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The writing end of the trigger.
#[derive(Debug)]
struct Hints {
    path: PathBuf,
    prefix: &'static str,
    pipe: Mutex<Option<Hinter>>,
}

impl Hints {
    /// Hints at these. One that gets lost is made good by posta-queue's next scan.
    fn write(&self, ids: impl Iterator<Item = Id>) {
        let mut lines = String::new();
        for id in ids {
            if lines.len() + self.prefix.len() + id.as_str().len() + 1 > MAX_HINT {
                self.send(&lines);
                lines.clear();
            }
            lines.extend([self.prefix, id.as_str(), "\n"]);
        }
        if !lines.is_empty() {
            self.send(&lines);
        }
    }

    fn send(&self, lines: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hinter) = &*pipe
            && hinter.hint(lines.as_bytes()).is_ok()
        {
            return;
        }
        // Not opened yet, or the reader has gone (EPIPE): perhaps there is a new one.
        *pipe = Hinter::open(&self.path).unwrap_or_else(|error| {
            log::warn!("{}: {error}; posta-queue will find new mail by its scans only", self.path.display());
            None
        });
        if let Some(hinter) = &*pipe
            && let Err(error) = hinter.hint(lines.as_bytes())
        {
            log::debug!("{}: {error}", self.path.display());
            *pipe = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::envelope::{BodyKind, Origin, Recipient};
    use crate::unix::durable::staged::{Fault, Lost, Staged};
    use crate::unix::durable::{Disk, Durable};
    use crate::unix::fifo::Trigger;

    use super::super::Place;

    fn envelope() -> Envelope {
        Envelope {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            recipients: vec![Recipient::plain(Mailbox::parse("bob@example.net", false).unwrap())],
            origin: Origin::Posta,
            arrived: 7,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: Vec::new(),
        }
    }

    struct Scene {
        _root: tempfile::TempDir,
        disk: Arc<Staged>,
        spool: Arc<Spool>,
    }

    fn scene(disk: impl FnOnce(Staged) -> Staged) -> Scene {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("attic")).unwrap();
        let path = root.path().join("spool");
        Spool::make(&path, None).unwrap();
        let disk = Arc::new(disk(Staged::new(&root.path().join("attic"))));
        let spool = Arc::new(Spool::for_running(&path, disk.clone()).unwrap());
        Scene { _root: root, disk, spool }
    }

    impl Scene {
        fn draft(&self, message: &[u8]) -> Draft {
            let mut draft = Draft::begin(&self.spool).unwrap();
            draft.push(message).unwrap();
            draft
        }

        fn named(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.spool.path().join("new")).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    #[test]
    fn a_message_costs_one_write_and_reads_back() {
        let scene = scene(|disk| disk);
        let committer = Committer::new(scene.spool.clone());
        let trigger = Trigger::open(&scene.spool.trigger()).unwrap();
        let before = scene.disk.calls();
        let done = committer.commit(scene.draft(b"a message\r\n"), &envelope()).unwrap();
        // unnamed, write, link, sync of the file, sync of the folder
        assert_eq!(scene.disk.calls() - before, 5);
        let entry = scene.spool.open(done.id(), Place::New).unwrap();
        assert_eq!((entry.size, &entry.envelope), (11, &envelope()));
        let mut hint = [0; 64];
        let length = trigger.read(&mut hint).unwrap().unwrap();
        assert_eq!(&hint[..length], format!("{}\n", done.id()).as_bytes());
    }

    #[test]
    fn large_messages_are_written_in_blocks_with_and_without_unnamed_files() {
        for fall_back in [false, true] {
            let scene = scene(|disk| if fall_back { disk.without_unnamed() } else { disk });
            let committer = Committer::new(scene.spool.clone());
            let message: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
            let mut draft = Draft::begin(&scene.spool).unwrap();
            message.chunks(7_001).for_each(|chunk| draft.push(chunk).unwrap());
            assert_eq!(draft.size(), 300_000);
            let id = committer.commit(draft, &envelope()).unwrap().id();
            assert_eq!(scene.spool.open(id, Place::New).unwrap().size, 300_000);
            assert_eq!(
                std::fs::read(scene.spool.path().join("new").join(id.as_str())).unwrap()[..300_000],
                message
            );
            drop(scene.draft(b"never finished"));
            assert_eq!(scene.named(), [id.to_string()]);
        }
    }

    #[test]
    fn a_failed_sync_fails_all_that_were_begun_before_it_ended() {
        let scene = scene(|disk| disk);
        let committer = Committer::new(scene.spool.clone());
        let (first, second) = (scene.draft(b"1"), scene.draft(b"2"));
        scene.disk.plan(2, Fault::Fail(5));
        assert!(committer.commit(first, &envelope()).is_err());
        assert!(committer.commit(second, &envelope()).is_err());
        assert!(scene.named().is_empty());
        let third = committer.commit(scene.draft(b"3"), &envelope()).unwrap();
        assert_eq!(scene.named(), [third.id().to_string()]);
    }

    /// fsync on XFS, when an error of its log shuts it down at that moment: nothing was written, and all
    /// seems well.
    #[test]
    fn a_sync_that_lies_is_not_believed() {
        for (few, syncs) in [(0, 1), (3, 2)] {
            for at in 0..syncs {
                let scene = scene(|disk| disk);
                let habits = Habits { few, ..Habits::default() };
                let committer = Committer::with_habits(scene.spool.clone(), habits);
                let draft = scene.draft(b"1");
                // After write and link.
                scene.disk.plan(2 + at, Fault::Lie);
                let done = committer.commit(draft, &envelope());
                scene.disk.power_cut(0, Lost::All).unwrap();
                assert!(done.is_err() && scene.named().is_empty(), "few {few}, sync {at}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let scene = scene(|disk| disk);
        let committer = Committer::new(scene.spool.clone());
        let draft = scene.draft(b"1");
        scene.disk.plan(0, Fault::Short(28));
        assert!(matches!(committer.commit(draft, &envelope()), Err(SpoolError::Full { .. })));
        let mut draft = Draft::begin(&scene.spool).unwrap();
        scene.disk.plan(0, Fault::Short(28));
        assert!(matches!(draft.push(&[b'x'; 100_000]), Err(SpoolError::Full { .. })));
        // Who goes on in spite of it gets no promise.
        assert!(committer.commit(draft, &envelope()).is_err());
        assert!(scene.named().is_empty());
    }

    #[test]
    fn many_share_one_sync() {
        let scene = scene(|disk| disk);
        let committer = Committer::with_habits(scene.spool.clone(), Habits { few: 0, ..Habits::default() });
        let before = scene.disk.calls();
        committer.commit(scene.draft(b"1"), &envelope()).unwrap();
        assert_eq!(scene.disk.calls() - before, 4);
        assert_eq!(scene.disk.unsynced_names(), 0);
    }

    #[test]
    fn threads_commit_side_by_side() {
        let scene = scene(|disk| disk);
        let committer = Committer::new(scene.spool.clone());
        let commit = |_| committer.commit(scene.draft(b"x\r\n"), &envelope()).unwrap().id().to_string();
        let run = || (0..20).map(commit).collect::<Vec<_>>();
        let mut ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(run)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let mut named = scene.named();
        ids.sort();
        named.sort();
        assert_eq!((ids.len(), ids), (320, named));
        scene.disk.power_cut(0, Lost::All).unwrap();
        assert_eq!(scene.named().len(), 320);
    }

    #[test]
    fn after_a_slow_sync_each_syncs_its_own_file() {
        let scene = scene(|disk| disk);
        let habits = Habits { few: 0, slow: Duration::ZERO, ..Habits::default() };
        let committer = Committer::with_habits(scene.spool.clone(), habits);
        committer.commit(scene.draft(b"1"), &envelope()).unwrap();
        assert!(committer.syncer.pace().goes_by_files(Instant::now()));
        let before = scene.disk.calls();
        committer.commit(scene.draft(b"2"), &envelope()).unwrap();
        assert_eq!(scene.disk.calls() - before, 5);
        assert_eq!(scene.disk.unsynced_names(), 0);
        scene.disk.plan(3, Fault::Fail(5));
        assert!(committer.commit(scene.draft(b"3"), &envelope()).is_err());
        assert_eq!(scene.named().len(), 2);
    }

    #[test]
    fn hints_find_a_reader_that_was_restarted() {
        let scene = scene(|disk| disk);
        let (hints, path) = (Committer::new(scene.spool.clone()).syncer.hints, scene.spool.trigger());
        let ids: Vec<Id> = (0..600).map(Spool::mint).collect();
        hints.write(ids.iter().copied());
        let read = |trigger: &Trigger| {
            let (mut text, mut buffer) = (String::new(), [0; 65536]);
            while let Some(length) = trigger.read(&mut buffer).unwrap() {
                text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            text.lines().filter_map(Id::parse).collect::<Vec<Id>>()
        };
        for _ in 0..2 {
            let trigger = Trigger::open(&path).unwrap();
            hints.write(ids.iter().copied());
            assert_eq!(read(&trigger), ids);
            drop(trigger);
            hints.write(ids.iter().copied());
        }
    }

    #[test]
    fn what_is_dropped_is_hinted_at_as_such() {
        let scene = scene(|disk| disk);
        let trigger = Trigger::open(&scene.spool.trigger()).unwrap();
        let disk: Arc<dyn Durable> = Arc::new(Disk);
        let drop = Arc::new(Spool::for_dropping(scene.spool.path(), disk).unwrap());
        let draft = Draft::begin(&drop).unwrap();
        let id = Committer::new(drop).commit(draft, &envelope()).unwrap().id();
        let mut hint = [0; 64];
        let length = trigger.read(&mut hint).unwrap().unwrap();
        assert_eq!(&hint[..length], format!("+{id}\n").as_bytes());
    }
}
