//! The group commit: who leads and who waits.
//!
//! Nobody is told that it is well before a sync that began after his message had its name; everybody is
//! told something; one leads at a time.

use std::io;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

use crate::unix::threads::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, spawn};

#[path = "../../src/spool/gather.rs"]
#[allow(dead_code, unused_imports)] // of its own tests
mod gather;

use gather::{Gather, Service};

/// Long enough: time does not pass in a model.
const LONG: Duration = Duration::from_secs(3600);
const MESSAGES: usize = 4;

/// A disk: what is named is durable once it was synced.
#[derive(Default)]
struct Disk {
    named: Mutex<Vec<usize>>,
    durable: Mutex<Vec<usize>>,
    at_work: AtomicUsize,
    /// Whether it fails now and then.
    fails: bool,
    /// Whether who syncs dies now and then.
    kills: bool,
}

impl Service<usize> for Disk {
    fn serve(&self, batch: &[&usize]) -> Vec<io::Result<()>> {
        assert_eq!(self.at_work.fetch_add(1, Ordering::SeqCst), 0, "two syncs at once");
        let begun = lock(&self.named).clone();
        let dies = self.kills && thread_rng().gen_bool(0.3);
        let fails = self.fails && thread_rng().gen_bool(0.3);
        if !dies && !fails {
            *lock(&self.durable) = begun;
        }
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        if dies {
            // Not panic!, which the checker would take for a fault of the model.
            std::panic::resume_unwind(Box::new("staged"));
        }
        batch.iter().map(|_| if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }).collect()
    }

    fn announce(&self, well: &[&usize]) {
        let durable = lock(&self.durable);
        assert!(well.iter().all(|n| durable.contains(n)), "announced before it was synced");
    }
}

/// The checker's threads are one of the system's: while one of them unwinds, locks of all look poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that are committed at the same time; how many of them are well.
fn commit(patience: Duration, disk: Disk) -> usize {
    let (gather, disk) = (Arc::new(Gather::new(patience)), Arc::new(disk));
    let begin = |n| {
        let (gather, disk) = (Arc::clone(&gather), Arc::clone(&disk));
        spawn(move || {
            lock(&disk.named).push(n);
            let work = || gather.join(n, &*disk);
            let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let is_well = matches!(end, Ok(Ok(())));
            assert!(!is_well || lock(&disk.durable).contains(&n), "said yes to before its sync");
            is_well
        })
    };
    let threads: Vec<_> = (0..MESSAGES).map(begin).collect();
    let well = threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum();
    // Whatever went before, there is a leader for the next one: somebody tries until it is well.
    let last = (0..100).any(|_| begin(MESSAGES).join().unwrap());
    assert!(last || !patience.is_zero() && (disk.fails || disk.kills), "nobody leads any more");
    well
}

/// All is well where the disk is.
pub fn all_are_served() {
    assert_eq!(commit(LONG, Disk::default()), MESSAGES);
}

/// A sync that fails, or dies, is a no for its batch and for nobody else.
pub fn a_leader_may_fail_or_die() {
    commit(LONG, Disk { fails: true, kills: true, ..Disk::default() });
}

/// Everybody loses his patience at once.
pub fn nobody_has_patience() {
    commit(Duration::ZERO, Disk::default());
}
