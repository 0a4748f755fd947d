//! Worker threads, as many as are needed: the door to crossbeam.
//!
//! Jobs wait in a bounded channel. A job that finds no idle worker makes a new one, up to a
//! maximum; a worker that has had nothing to do for some seconds goes, down to a minimum. A job
//! that panics ends alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::unix::memory;
use crate::unix::threads::{Arc, AtomicUsize, Builder, Ordering};

/// How big a pool is.
#[derive(Debug, Clone)]
pub struct Size {
    /// The threads' name, at most 15 characters.
    pub name: &'static str,
    /// So many workers stay, though there is nothing to do.
    pub least: usize,
    /// There are never more.
    pub most: usize,
    /// So many jobs may wait for a worker.
    pub waiting: usize,
    /// A worker's stack, in bytes.
    pub stack: usize,
    /// A worker that has been idle for so long goes.
    pub linger: Duration,
}

/// What the workers do.
pub trait Work: Send + Sync + 'static {
    /// What is to be done.
    type Job: Send + 'static;
    /// What a worker keeps from job to job: its buffers.
    type Bench: Default;

    /// Does a job. A panic in here ends the job alone; it is logged, and the bench is made anew.
    /// `crowd` tells how things stand outside, for who could wait for a client or not.
    fn work(&self, job: Self::Job, bench: &mut Self::Bench, crowd: &dyn Crowd);
}

/// How things stand outside a worker's door.
pub trait Crowd {
    /// Whether jobs wait that no worker is free for.
    fn is_waiting(&self) -> bool;

    /// Whether three quarters of all workers that there may be are busy: who is slow then takes
    /// something from others, and shorter deadlines are in order.
    fn is_busy(&self) -> bool;

    /// How many workers are at work, the asking one among them.
    fn at_work(&self) -> usize;
}

/// When so many workers, and half of all, have gone, the memory that they had is given back to the system.
const MANY: usize = 8;

/// The pool. When it is dropped, the workers finish the jobs that wait and go.
#[derive(Debug)]
pub struct Pool<W: Work> {
    jobs: Sender<W::Job>,
    crew: Arc<Crew<W>>,
}

/// What the workers share.
#[derive(Debug)]
struct Crew<W: Work> {
    work: W,
    jobs: Receiver<W::Job>,
    size: Size,
    /// Workers there are.
    all: AtomicUsize,
    /// Workers that wait for a job.
    idle: AtomicUsize,
    /// Benches there are: those of the workers, and of some that are counted no longer.
    benches: AtomicUsize,
    /// Benches that have gone, ever.
    gone: AtomicUsize,
    /// So many had gone when memory was given back last because of them.
    given_back: AtomicUsize,
    /// So many had gone when it was given back last because there was nothing to do.
    rested: AtomicUsize,
}

impl<W: Work> Pool<W> {
    /// Starts the least number of workers.
    pub fn start(size: Size, work: W) -> Pool<W> {
        let (sender, jobs) = bounded(size.waiting);
        let [all, idle, benches, gone, given_back, rested] = [0; 6].map(AtomicUsize::new);
        let crew = Arc::new(Crew { work, jobs, size, all, idle, benches, gone, given_back, rested });
        for _ in 0..crew.size.least {
            crew.grow();
        }
        Pool { jobs: sender, crew }
    }

    /// Puts a job on the channel, without waiting; gives it back if the channel is full.
    pub fn offer(&self, job: W::Job) -> Result<(), W::Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })?;
        self.crew.grow_if_short();
        Ok(())
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.crew.all.load(Ordering::SeqCst)
    }
}

impl<W: Work> Crew<W> {
    /// Starts a worker if more jobs wait than workers. Asked after every job that was put on the
    /// channel, and by every worker that has stopped being idle, so that no job is left behind for
    /// a worker that was counted as idle but had just found something else to do.
    fn grow_if_short(self: &Arc<Crew<W>>) {
        if self.idle.load(Ordering::SeqCst) < self.jobs.len() {
            self.grow();
        }
    }

    /// Starts a worker unless there are enough. That no thread is to be had is only a warning: the
    /// job waits for one that is there.
    fn grow(self: &Arc<Crew<W>>) {
        let one_more = |all: usize| (all < self.size.most).then_some(all + 1);
        if self.all.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_err() {
            return;
        }
        let crew = Arc::clone(self);
        let builder = Builder::new().name(self.size.name.to_string()).stack_size(self.size.stack);
        if let Err(error) = builder.spawn(move || crew.serve()) {
            self.all.fetch_sub(1, Ordering::SeqCst);
            log::warn!("cannot start another thread: {error}; some sessions wait longer");
        }
    }

    /// A worker's life.
    fn serve(self: Arc<Crew<W>>) {
        self.benches.fetch_add(1, Ordering::Relaxed);
        let mut bench = W::Bench::default();
        while let Some(job) = self.next_job() {
            let done = catch_unwind(AssertUnwindSafe(|| self.work.work(job, &mut bench, &*self)));
            if let Err(panic) = done {
                log::error!("a session ended by a fault of the program: {}", words_of(panic.as_ref()));
                bench = W::Bench::default();
            }
        }
        drop(bench);
        self.bench_is_gone();
    }

    /// When half of a crowd of workers has gone, and again half of those: what the allocator keeps of their
    /// buffers would otherwise be kept for ever. A worker that goes is not counted any more long before its
    /// bench is dropped, where many go at once: so benches are counted.
    fn bench_is_gone(&self) {
        let left = self.benches.fetch_sub(1, Ordering::Relaxed) - 1;
        let gone = self.gone.fetch_add(1, Ordering::Relaxed) + 1;
        let before = self.given_back.load(Ordering::Relaxed);
        // Of several that go at the same time one does it.
        if gone.saturating_sub(before) >= left.max(MANY)
            && self.given_back.compare_exchange(before, gone, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            memory::give_back();
        }
    }

    /// A worker that stays has had nothing to do for a while, and then again. If nobody has gone meanwhile,
    /// the threads of those who went before have ended, and what each kept for itself to the end is given
    /// back too. `seen` is how many had gone the first time.
    fn is_at_rest(&self, seen: &mut Option<usize>) {
        let gone = self.gone.load(Ordering::Relaxed);
        if seen.replace(gone) == Some(gone) && self.rested.swap(gone, Ordering::Relaxed) != gone {
            memory::give_back();
        }
    }

    /// The next job; none when this worker is to go (it is then no longer counted).
    fn next_job(self: &Arc<Crew<W>>) -> Option<W::Job> {
        let mut seen = None;
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let got = self.jobs.recv_timeout(self.size.linger);
            self.idle.fetch_sub(1, Ordering::SeqCst);
            match got {
                Ok(job) => {
                    self.grow_if_short();
                    return Some(job);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.all.fetch_sub(1, Ordering::SeqCst);
                    return None;
                }
                Err(RecvTimeoutError::Timeout) if self.may_go() => {
                    // A job that came while this one still looked idle.
                    self.grow_if_short();
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => self.is_at_rest(&mut seen),
            }
        }
    }

    /// Takes this worker out of the count, unless it is one of the least.
    fn may_go(&self) -> bool {
        let one_less = |all: usize| (all > self.size.least).then(|| all - 1);
        self.all.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

impl<W: Work> Crowd for Crew<W> {
    fn is_waiting(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.at_work() * 4 >= self.size.most * 3
    }

    fn at_work(&self) -> usize {
        self.all.load(Ordering::Relaxed).saturating_sub(self.idle.load(Ordering::Relaxed))
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use super::*;

    struct Echo;

    enum Order {
        Panic,
        /// Waits until the sender is dropped, after saying that it has begun.
        Hold(mpsc::Sender<()>, mpsc::Receiver<()>),
        Say(mpsc::Sender<usize>),
        /// Says whether others wait.
        LookOut(mpsc::Sender<bool>),
        /// Says whether most workers are busy.
        Busy(mpsc::Sender<bool>),
    }

    impl Work for Echo {
        type Job = Order;
        type Bench = usize;
        fn work(&self, order: Order, bench: &mut usize, crowd: &dyn Crowd) {
            *bench += 1;
            match order {
                Order::Panic => panic!("staged"),
                Order::Hold(begun, until) => {
                    begun.send(()).unwrap();
                    let _ = until.recv();
                }
                Order::Say(to) => to.send(*bench).unwrap(),
                Order::LookOut(to) => to.send(crowd.is_waiting()).unwrap(),
                Order::Busy(to) => to.send(crowd.is_busy()).unwrap(),
            }
        }
    }

    fn size(least: usize, most: usize, waiting: usize) -> Size {
        let linger = Duration::from_millis(20);
        Size { name: "test", least, most, waiting, stack: 128 * 1024, linger }
    }

    fn wait_until(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < end, "did not come true in 10 s");
            thread::yield_now();
        }
    }

    #[test]
    fn it_grows_to_its_maximum_and_shrinks_again() {
        let pool = Pool::start(size(1, 3, 1), Echo);
        let (begun, has_begun) = mpsc::channel();
        let holds: Vec<mpsc::Sender<()>> = (0..3)
            .map(|_| {
                let (hold, until) = mpsc::channel();
                assert!(pool.offer(Order::Hold(begun.clone(), until)).is_ok());
                has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
                hold
            })
            .collect();
        assert_eq!(pool.workers(), 3);
        let (say, said) = mpsc::channel();
        assert!(pool.offer(Order::Say(say.clone())).is_ok(), "one may wait");
        assert!(pool.offer(Order::Say(say)).is_err(), "and no more");
        assert_eq!(pool.workers(), 3);
        drop(holds);
        assert!(said.recv_timeout(Duration::from_secs(10)).is_ok());
        wait_until(|| pool.workers() == 1);
    }

    #[test]
    fn the_memory_of_a_crowd_is_given_back_when_its_benches_are_gone() {
        let pool = Pool::start(size(2, 40, 1), Echo);
        let (begun, has_begun) = mpsc::channel();
        let mut holds = Vec::new();
        for _ in 0..40 {
            let (hold, until) = mpsc::channel();
            assert!(pool.offer(Order::Hold(begun.clone(), until)).is_ok());
            has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
            holds.push(hold);
        }
        let crew = Arc::clone(&pool.crew);
        let count = |what: &AtomicUsize| what.load(Ordering::SeqCst);
        assert_eq!((count(&crew.benches), count(&crew.gone), count(&crew.rested)), (40, 0, 0));
        drop(holds);
        wait_until(|| count(&crew.benches) == 2 && count(&crew.rested) == 38);
        assert_eq!(count(&crew.gone), 38);
        assert_eq!(pool.workers(), 2);
    }

    #[test]
    fn a_panic_ends_one_job_and_renews_the_bench() {
        let pool = Pool::start(size(1, 1, 4), Echo);
        let (say, said) = mpsc::channel();
        let next = || said.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(pool.offer(Order::Say(say.clone())).is_ok());
        assert_eq!(next(), 1);
        assert!(pool.offer(Order::Panic).is_ok());
        assert!(pool.offer(Order::Say(say)).is_ok());
        assert_eq!(next(), 1);
    }

    #[test]
    fn a_worker_sees_that_others_wait() {
        let pool = Pool::start(size(1, 1, 4), Echo);
        let (begun, has_begun) = mpsc::channel();
        let (hold, until) = mpsc::channel();
        let (say, said) = mpsc::channel();
        assert!(pool.offer(Order::Hold(begun, until)).is_ok());
        has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(pool.offer(Order::LookOut(say.clone())).is_ok());
        assert!(pool.offer(Order::LookOut(say)).is_ok());
        drop(hold);
        let next = || said.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((next(), next()), (true, false));
    }

    #[test]
    fn a_worker_sees_that_three_quarters_are_busy() {
        let pool = Pool::start(size(1, 4, 8), Echo);
        let (begun, has_begun) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let mut holds = Vec::new();
        let mut heard = Vec::new();
        for _ in 0..3 {
            // Beside those that are held, the one that is asked is busy itself.
            assert!(pool.offer(Order::Busy(say.clone())).is_ok());
            heard.push(said.recv_timeout(Duration::from_secs(10)).unwrap());
            let (hold, until) = mpsc::channel();
            assert!(pool.offer(Order::Hold(begun.clone(), until)).is_ok());
            has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
            holds.push(hold);
            // The one that was asked may not be idle again yet, which would count it as busy.
            wait_until(|| pool.workers() - pool.crew.idle.load(Ordering::SeqCst) == holds.len());
        }
        assert_eq!(heard, [false, false, true]);
        drop(holds);
    }

    #[test]
    fn no_job_is_left_behind() {
        let pool = Pool::start(size(0, 4, 1000), Echo);
        let (say, said) = mpsc::channel();
        for round in 0..200 {
            for _ in 0..5 {
                assert!(pool.offer(Order::Say(say.clone())).is_ok());
            }
            for _ in 0..5 {
                assert!(said.recv_timeout(Duration::from_secs(10)).is_ok(), "round {round}");
            }
        }
        drop(pool);
    }
}
