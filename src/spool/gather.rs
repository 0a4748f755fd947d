//! Who leads and who waits, when many threads want the same slow service at once.
//!
//! The first who comes serves; whoever comes meanwhile gathers, and when the first is done, one of
//! these serves all of them at once. There is no timer: while one batch is being served, the next
//! gathers. Nobody waits longer than his patience, and a leader that panics lets its batch go.

use std::io;
use std::time::{Duration, Instant};

use crate::unix::threads::{
    Arc, AtomicI32, Mutex, MutexGuard, Ordering, PoisonError, Thread, current, park_timeout,
};

/// What a leader does.
pub(super) trait Service<T> {
    /// Serves all of a batch; says of each, in the same order, whether it is well.
    fn serve(&self, batch: &[&T]) -> Vec<io::Result<()>>;
    /// Called with those that are well and have waited for it, before they are woken.
    fn announce(&self, well: &[&T]);
}

/// Where they meet.
#[derive(Debug)]
pub(super) struct Gather<T> {
    meeting: Mutex<Meeting<T>>,
    patience: Duration,
}

#[derive(Debug)]
struct Meeting<T> {
    /// Those whom the next leader serves.
    gathering: Vec<Arc<Waiter<T>>>,
    /// Since when there has been a leader at work.
    led_since: Option<Instant>,
}

#[derive(Debug)]
struct Waiter<T> {
    item: T,
    /// One of the states below, or the errno that its service ended with.
    state: AtomicI32,
    thread: Thread,
}

const WAITS: i32 = 0;
const LEADS: i32 = -1;
const WELL: i32 = -2;
/// Has lost its patience: nobody will ask what became of it.
const GONE: i32 = -3;
/// Its leader panicked.
const ABANDONED: i32 = -4;
/// Its service failed with an error that has no number.
const FAILED: i32 = -5;

impl<T> Gather<T> {
    pub fn new(patience: Duration) -> Gather<T> {
        Gather { meeting: Mutex::new(Meeting { gathering: Vec::new(), led_since: None }), patience }
    }

    /// Waits until `item` has been served, by this thread or by another one. Where nobody has been
    /// served for longer than the patience, fails at once.
    pub fn join(&self, item: T, service: &impl Service<T>) -> io::Result<()> {
        let thread = current();
        let me = Arc::new(Waiter { item, state: AtomicI32::new(WAITS), thread });
        if self.enter(&me)? {
            self.lead(service);
        }
        let deadline = Instant::now() + self.patience;
        loop {
            match me.state.load(Ordering::Acquire) {
                WAITS => self.wait(&me, deadline)?,
                LEADS => self.lead(service),
                WELL => return Ok(()),
                ABANDONED => return Err(io::Error::other("the thread that was syncing has died")),
                FAILED => return Err(io::Error::other("the sync has failed")),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Sleeps until woken (or for no reason), at most until the patience is at its end.
    fn wait(&self, me: &Waiter<T>, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && me.turn(WAITS, GONE) {
            return Err(self.no_answer());
        }
        park_timeout(left);
        Ok(())
    }

    /// Joins the gathering; says whether this thread leads it, since nobody else does.
    fn enter(&self, me: &Arc<Waiter<T>>) -> io::Result<bool> {
        let mut meeting = self.meeting();
        let leads = match meeting.led_since {
            Some(since) if since.elapsed() > self.patience => return Err(self.no_answer()),
            Some(_) => false,
            None => {
                meeting.led_since = Some(Instant::now());
                true
            }
        };
        meeting.gathering.push(Arc::clone(me));
        Ok(leads)
    }

    /// Serves all who have gathered, the caller among them.
    fn lead(&self, service: &impl Service<T>) {
        let batch = std::mem::take(&mut self.meeting().gathering);
        let mut leader = Leader { gather: self, batch, is_over: false };
        let items: Vec<&T> = leader.batch.iter().map(|w| &w.item).collect();
        let results = service.serve(&items);
        drop(items);
        // Before the batch is woken: the disk need not wait for it.
        leader.hand_over();
        let mut well = Vec::with_capacity(results.len());
        for (waiter, result) in leader.batch.iter().zip(results) {
            let result = result.map_or_else(|e| e.raw_os_error().unwrap_or(FAILED), |()| WELL);
            if waiter.settle(result) && result == WELL {
                well.push(&waiter.item);
            }
        }
        service.announce(&well);
    }

    /// Makes one of those who have gathered the next leader.
    fn hand_over(&self) {
        let mut meeting = self.meeting();
        let next = meeting.gathering.iter().find(|w| w.turn(WAITS, LEADS));
        match next {
            Some(waiter) => {
                waiter.thread.unpark();
                meeting.led_since = Some(Instant::now());
            }
            None => {
                meeting.gathering.clear();
                meeting.led_since = None;
            }
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting<T>> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_answer(&self) -> io::Error {
        let text = format!("the disk has not answered for {} s", self.patience.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}

impl<T> Waiter<T> {
    fn turn(&self, from: i32, to: i32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Says what became of it; `false` if it has gone, or knows already.
    fn settle(&self, result: i32) -> bool {
        self.turn(WAITS, result) || self.turn(LEADS, result)
    }
}

/// A leader at work. However it ends, its batch is woken and another may lead.
struct Leader<'a, T> {
    gather: &'a Gather<T>,
    batch: Vec<Arc<Waiter<T>>>,
    is_over: bool,
}

impl<T> Leader<'_, T> {
    fn hand_over(&mut self) {
        self.is_over = true;
        self.gather.hand_over();
    }
}

impl<T> Drop for Leader<'_, T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.hand_over();
        }
        for waiter in &self.batch {
            waiter.settle(ABANDONED);
            waiter.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Serves when it is told to, as it is told to.
    struct Told {
        begun: Sender<Vec<u32>>,
        orders: Mutex<Receiver<Verdict>>,
        announced: Mutex<Vec<u32>>,
    }

    enum Verdict {
        Well,
        Fail(i32),
        Panic,
    }

    impl Service<u32> for Told {
        fn serve(&self, batch: &[&u32]) -> Vec<io::Result<()>> {
            self.begun.send(batch.iter().map(|n| **n).collect()).unwrap();
            let verdict = self.orders.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap();
            let one = |_| match verdict {
                Verdict::Well => Ok(()),
                Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
                Verdict::Panic => panic!("staged"),
            };
            batch.iter().map(one).collect()
        }

        fn announce(&self, well: &[&u32]) {
            self.announced.lock().unwrap().extend(well.iter().map(|n| **n));
        }
    }

    struct Scene {
        gather: Gather<u32>,
        told: Told,
        begun: Receiver<Vec<u32>>,
        orders: Sender<Verdict>,
    }

    fn scene(patience: Duration) -> Scene {
        let ((begun_in, begun), (orders, orders_out)) = (channel(), channel());
        let told = Told { begun: begun_in, orders: Mutex::new(orders_out), announced: Mutex::default() };
        Scene { gather: Gather::new(patience), told, begun, orders }
    }

    impl<T> Gather<T> {
        fn wait_for(&self, gathered: usize) {
            let begun = Instant::now();
            while self.meeting().gathering.len() < gathered {
                assert!(begun.elapsed() < LONG, "nobody gathers");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn while_one_batch_is_served_the_next_gathers() {
        let Scene { gather, told, begun, orders } = scene(LONG);
        std::thread::scope(|scope| {
            let join = |n| {
                scope.spawn({
                    let (gather, told) = (&gather, &told);
                    move || gather.join(n, told)
                })
            };
            let first = join(1);
            assert_eq!(begun.recv_timeout(LONG).unwrap(), [1]);
            let rest: Vec<_> = (2..=5).map(join).collect();
            gather.wait_for(4);
            orders.send(Verdict::Well).unwrap();
            first.join().unwrap().unwrap();
            let mut second = begun.recv_timeout(LONG).unwrap();
            second.sort();
            assert_eq!(second, [2, 3, 4, 5]);
            orders.send(Verdict::Fail(28)).unwrap();
            for waiter in rest {
                assert_eq!(waiter.join().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
            }
        });
        assert_eq!(*told.announced.lock().unwrap(), [1]);
    }

    #[test]
    fn a_leader_that_panics_lets_its_batch_go_and_another_leads() {
        let Scene { gather, told, begun, orders } = scene(LONG);
        std::thread::scope(|scope| {
            let join = |n| {
                scope.spawn({
                    let (gather, told) = (&gather, &told);
                    move || gather.join(n, told)
                })
            };
            let first = join(1);
            begun.recv_timeout(LONG).unwrap();
            let rest: Vec<_> = (2..=3).map(join).collect();
            gather.wait_for(2);
            orders.send(Verdict::Panic).unwrap();
            assert!(first.join().is_err());
            begun.recv_timeout(LONG).unwrap();
            orders.send(Verdict::Panic).unwrap();
            let ends: Vec<_> = rest.into_iter().map(|w| w.join()).collect();
            // One led and panicked, the other was let go.
            assert_eq!(ends.iter().filter(|e| e.is_err()).count(), 1);
            assert_eq!(ends.iter().filter(|e| matches!(e, Ok(Err(_)))).count(), 1);
            orders.send(Verdict::Well).unwrap();
            join(4).join().unwrap().unwrap();
        });
        assert_eq!(*told.announced.lock().unwrap(), [4]);
    }

    #[test]
    fn who_waits_for_a_leader_that_hangs_loses_patience_and_is_not_announced() {
        let Scene { gather, told, begun, orders } = scene(Duration::from_millis(50));
        std::thread::scope(|scope| {
            let join = |n| {
                scope.spawn({
                    let (gather, told) = (&gather, &told);
                    move || gather.join(n, told)
                })
            };
            let first = join(1);
            begun.recv_timeout(LONG).unwrap();
            let second = join(2);
            assert_eq!(second.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            // And now nobody even waits.
            assert_eq!(gather.join(3, &told).unwrap_err().kind(), io::ErrorKind::TimedOut);
            orders.send(Verdict::Well).unwrap();
            first.join().unwrap().unwrap();
            orders.send(Verdict::Well).unwrap();
            join(4).join().unwrap().unwrap();
        });
        assert_eq!(*told.announced.lock().unwrap(), [1, 4]);
    }

    /// Counts, and checks that nobody else serves at the same time.
    #[derive(Default)]
    struct Alone {
        at_work: AtomicUsize,
        batches: AtomicUsize,
        served: AtomicUsize,
        announced: AtomicUsize,
    }

    impl Service<usize> for Alone {
        fn serve(&self, batch: &[&usize]) -> Vec<io::Result<()>> {
            assert_eq!(self.at_work.fetch_add(1, Ordering::SeqCst), 0);
            self.batches.fetch_add(1, Ordering::SeqCst);
            self.served.fetch_add(batch.len(), Ordering::SeqCst);
            std::thread::yield_now();
            self.at_work.fetch_sub(1, Ordering::SeqCst);
            batch.iter().map(|n| if **n % 7 == 0 { Err(io::Error::other("seven")) } else { Ok(()) }).collect()
        }

        fn announce(&self, well: &[&usize]) {
            self.announced.fetch_add(well.len(), Ordering::SeqCst);
        }
    }

    #[test]
    fn everybody_is_served_once_and_learns_his_own_fate() {
        const THREADS: usize = 32;
        const ROUNDS: usize = 200;
        let (gather, alone, start) = (Gather::new(LONG), Alone::default(), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (gather, alone, start) = (&gather, &alone, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in (0..ROUNDS).map(|round| round * THREADS + thread) {
                        assert_eq!(gather.join(n, alone).is_err(), n % 7 == 0);
                    }
                });
            }
        });
        let all = THREADS * ROUNDS;
        assert_eq!(alone.served.load(Ordering::SeqCst), all);
        assert_eq!(alone.announced.load(Ordering::SeqCst), all - all.div_ceil(7));
        assert!(alone.batches.load(Ordering::SeqCst) <= all);
        assert!(gather.meeting().led_since.is_none());
    }
}
