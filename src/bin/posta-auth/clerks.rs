//! The threads that do slow work: hashes, name services, Dovecot. Few of them, and a bounded heap of
//! work: guesses can slow each other down, and not fill the memory.

use std::collections::{HashMap, VecDeque};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Work that waits, in all.
const MOST: usize = 256;
/// Work of one client, waiting or being done.
const MOST_OF_CLIENT: usize = 4;

/// A piece of work, and its outcome.
type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// The clerks. `T` is what their work comes to.
pub struct Clerks<T> {
    desk: Arc<Desk<T>>,
    /// Has something to read when work is done.
    bell: PipeReader,
}

struct Desk<T> {
    heap: Mutex<Heap<T>>,
    there_is_work: Condvar,
    bell: PipeWriter,
}

struct Heap<T> {
    /// Of who has logged in from there before: done first.
    known: VecDeque<Task<T>>,
    strangers: VecDeque<Task<T>>,
    by_client: HashMap<IpAddr, usize>,
    /// Each with the number it was given in with; `None` where the clerk broke down over it.
    done: Vec<(u64, Option<T>)>,
}

struct Task<T> {
    number: u64,
    client: Option<IpAddr>,
    work: Work<T>,
}

impl<T: Send + 'static> Clerks<T> {
    /// As many as there are processors, and at least two.
    pub fn start() -> io::Result<Clerks<T>> {
        let (bell, ringer) = io::pipe()?;
        posta::unix::pass::set_nonblocking(std::os::fd::AsFd::as_fd(&bell), true)?;
        posta::unix::pass::set_nonblocking(std::os::fd::AsFd::as_fd(&ringer), true)?;
        let heap = Heap {
            known: VecDeque::new(),
            strangers: VecDeque::new(),
            by_client: HashMap::new(),
            done: Vec::new(),
        };
        let desk = Arc::new(Desk { heap: Mutex::new(heap), there_is_work: Condvar::new(), bell: ringer });
        let count = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
        for _ in 0..count {
            let desk = Arc::clone(&desk);
            std::thread::Builder::new().name("clerk".into()).spawn(move || desk.work())?;
        }
        Ok(Clerks { desk, bell })
    }

    /// Gives work in under a number. `false`: there is too much already, of this client or in all.
    pub fn give(
        &self,
        number: u64,
        client: Option<IpAddr>,
        is_known: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> bool {
        let mut heap = self.desk.lock();
        let of_client = client.map_or(0, |client| heap.by_client.get(&client).copied().unwrap_or_default());
        if heap.known.len() + heap.strangers.len() >= MOST || of_client >= MOST_OF_CLIENT {
            return false;
        }
        if let Some(client) = client {
            heap.by_client.insert(client, of_client + 1);
        }
        let queue = if is_known { &mut heap.known } else { &mut heap.strangers };
        queue.push_back(Task { number, client, work: Box::new(work) });
        drop(heap);
        self.desk.there_is_work.notify_one();
        true
    }

    /// What has been done since the last time.
    pub fn take_done(&self) -> Vec<(u64, Option<T>)> {
        // Emptied first: what is done after that rings again.
        let mut rings = [0; 64];
        while io::Read::read(&mut &self.bell, &mut rings).is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.desk.lock().done)
    }

    /// To be watched: readable when something is done.
    pub fn bell(&self) -> &PipeReader {
        &self.bell
    }
}

impl<T> Desk<T> {
    fn work(&self) {
        loop {
            let Task { number, client, work } = self.next();
            let outcome = catch_unwind(AssertUnwindSafe(work)).ok();
            let mut heap = self.lock();
            if let Some(client) = client
                && let Some(count) = heap.by_client.get_mut(&client)
            {
                *count -= 1;
                if *count == 0 {
                    heap.by_client.remove(&client);
                }
            }
            heap.done.push((number, outcome));
            drop(heap);
            // A full pipe is readable already.
            let _ = (&self.bell).write(b"!");
        }
    }

    fn next(&self) -> Task<T> {
        let mut heap = self.lock();
        loop {
            let task = heap.known.pop_front().or_else(|| heap.strangers.pop_front());
            match task {
                Some(task) => return task,
                None => heap = self.there_is_work.wait(heap).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heap<T>> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use posta::unix::wait::{Watch, wait_ready};

    use super::*;

    fn wait<T: Send + 'static>(clerks: &Clerks<T>, count: usize) -> Vec<(u64, Option<T>)> {
        let mut done = Vec::new();
        for _ in 0..1000 {
            wait_ready(&[Watch::Read(clerks.bell().as_fd())], Some(Duration::from_secs(10))).unwrap();
            done.extend(clerks.take_done());
            if done.len() >= count {
                return done;
            }
        }
        panic!("{} of {count} are done", done.len());
    }

    #[test]
    fn work_is_done_and_rings_and_a_breakdown_is_one_piece_s_affair() {
        let clerks = Clerks::start().unwrap();
        assert!(clerks.give(1, None, false, || 7));
        assert!(clerks.give(2, None, true, || panic!("on purpose")));
        let mut done = wait(&clerks, 2);
        done.sort_by_key(|(number, _)| *number);
        assert_eq!(done, [(1, Some(7)), (2, None)]);
        assert!(clerks.give(3, None, false, || 8));
        assert_eq!(wait(&clerks, 1), [(3, Some(8))]);
    }

    #[test]
    fn no_client_fills_the_heap_and_the_heap_is_bounded() {
        let clerks = Clerks::start().unwrap();
        let (go, hold) = channel::<()>();
        let hold = Arc::new(Mutex::new(hold));
        let give = |number: u64, client: u32| {
            let hold = Arc::clone(&hold);
            clerks.give(number, Some(IpAddr::V4(client.into())), false, move || {
                // Ends with an error when the sender is dropped.
                let _ = hold.lock().map(|hold| hold.recv());
            })
        };
        let taken = (0..10).filter(|n| give(*n, 1)).count();
        assert_eq!(taken, MOST_OF_CLIENT);
        assert!(give(10, 2));
        let taken = (0..2 * MOST as u64).filter(|n| give(100 + n, 100 + *n as u32)).count();
        assert!((MOST - MOST_OF_CLIENT - 1..=MOST + 100).contains(&taken), "{taken}");
        drop(go);
        wait(&clerks, MOST_OF_CLIENT + 1 + taken);
        assert!(clerks.desk.lock().by_client.is_empty());
    }
}
