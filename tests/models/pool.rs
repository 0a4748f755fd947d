//! The pool of workers: how it grows and shrinks.
//!
//! No job is left behind, nor waits for a busy worker while there may be another one; and there are
//! never more workers than the most, nor fewer than the least.

use std::time::Duration;

use crate::unix::threads::{Arc, AtomicUsize, Condvar, Mutex, Ordering};

#[path = "../../src/net/pool.rs"]
#[allow(dead_code, unused_imports)] // of its own tests
mod checked;

pub use checked::{Crowd, Pool, Size, Work};

/// A pool of that size.
pub fn size(least: usize, most: usize) -> Size {
    Size { name: "model", least, most, waiting: 16, stack: 256 * 1024, linger: Duration::from_secs(1) }
}

/// Counts up, and can be waited for. A panic in a worker is caught by the pool: faults are counted too.
#[derive(Debug, Default)]
pub struct Count {
    number: Mutex<usize>,
    grown: Condvar,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
}

impl Count {
    pub fn add(&self) {
        *self.number.lock().unwrap() += 1;
        self.grown.notify_all();
    }

    /// Waits until so many jobs have been begun; it gives how many.
    pub fn wait_for(&self, wanted: usize) -> usize {
        let mut number = self.number.lock().unwrap();
        while *number < wanted {
            number = self.grown.wait(number).unwrap();
        }
        *number
    }
}

#[derive(Debug)]
struct Counting(Arc<Count>);

impl Work for Counting {
    /// It does not end before so many were begun.
    type Job = usize;
    type Bench = ();

    fn work(&self, others: usize, (): &mut (), _crowd: &dyn Crowd) {
        let now = self.0.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_at_work.fetch_max(now, Ordering::SeqCst);
        self.0.add();
        self.0.wait_for(others);
        self.0.at_work.fetch_sub(1, Ordering::SeqCst);
    }
}

fn no_job_is_left_behind(least: usize, most: usize) {
    const JOBS: usize = 5;
    let count = Arc::new(Count::default());
    let pool = Pool::start(size(least, most), Counting(Arc::clone(&count)));
    for done in 1..=JOBS {
        assert!(pool.offer(0).is_ok(), "there is room for all");
        assert!((least..=most).contains(&pool.workers()), "{} workers", pool.workers());
        if done == 2 {
            // All may be idle, or about to go.
            count.wait_for(2);
        }
    }
    assert_eq!(count.wait_for(JOBS), JOBS, "a job was done twice");
    assert!((least..=most).contains(&pool.workers()), "{} workers", pool.workers());
    assert!(count.most_at_work.load(Ordering::SeqCst) <= most);
}

/// Of a pool in which all may go.
pub fn no_job_is_left_behind_where_all_may_go() {
    no_job_is_left_behind(0, 2);
}

/// Of a pool as posta-smtpd has it, only smaller.
pub fn no_job_is_left_behind_where_some_stay() {
    no_job_is_left_behind(1, 3);
}

/// Two that wait for each other are done side by side, whoever is thought to be idle.
pub fn a_job_does_not_wait_for_a_busy_worker() {
    let count = Arc::new(Count::default());
    let pool = Pool::start(size(1, 2), Counting(Arc::clone(&count)));
    for others in [0, 3, 3] {
        assert!(pool.offer(others).is_ok());
    }
    count.wait_for(3);
}
