//! The threads that wait in `syncfs`, one for each device, so that a hung one holds up no other.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use posta::unix::durable::{Disk, Durable};
use posta::unix::pass::Packets;

/// A `syncfs` that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The device.
    pub device: u64,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub result: io::Result<()>,
}

/// Where the threads leave their results, and the descriptor that wakes who collects them.
#[derive(Debug)]
pub struct Results {
    sender: Sender<Ended>,
    receiver: Receiver<Ended>,
    bell: Arc<Packets>,
    woken: Packets,
}

impl Results {
    /// An empty place.
    pub fn new() -> io::Result<Results> {
        let (sender, receiver) = mpsc::channel();
        let (bell, woken) = Packets::pair()?;
        bell.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok(Results { sender, receiver, bell: Arc::new(bell), woken })
    }

    /// What has ended since the last call.
    pub fn collect(&self) -> Vec<Ended> {
        // Every ring there is, so that it can ring again; an empty bell is `WouldBlock`.
        while self.woken.receive(&mut [0]).is_ok_and(|(length, _)| length > 0) {}
        self.receiver.try_iter().collect()
    }
}

impl AsFd for Results {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// The thread of one device; it ends when this is dropped (and its last `syncfs` has ended).
#[derive(Debug)]
pub struct Syncer {
    work: Sender<File>,
}

impl Syncer {
    /// Starts the thread.
    pub fn start(device: u64, results: &Results) -> io::Result<Syncer> {
        let (work, folders) = mpsc::channel::<File>();
        let (sender, bell) = (results.sender.clone(), Arc::clone(&results.bell));
        std::thread::Builder::new().name("sync".into()).stack_size(64 * 1024).spawn(move || {
            for folder in folders {
                let begun = Instant::now();
                let result = Disk.sync_file_system(folder.as_fd());
                drop(folder);
                if sender.send(Ended { device, took: begun.elapsed(), result }).is_err() {
                    return;
                }
                // A bell that is full has rung.
                let _ = bell.send(b"!", None);
            }
        })?;
        Ok(Syncer { work })
    }

    /// Has the file system of `folder` synced. `false`: the thread is gone.
    pub fn sync(&self, folder: File) -> bool {
        self.work.send(folder).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use posta::unix::wait::{Watch, wait_ready};

    use super::*;

    #[test]
    fn a_sync_is_reported_and_rings() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::new().unwrap();
        let syncer = Syncer::start(7, &results).unwrap();
        assert!(syncer.sync(File::open(folder.path()).unwrap()));
        assert!(wait_ready(&[Watch::Read(results.as_fd())], Some(Duration::from_secs(60))).unwrap()[0]);
        let ended = results.collect();
        assert_eq!((ended.len(), ended[0].device, ended[0].result.is_ok()), (1, 7, true));
        assert!(results.collect().is_empty());
    }
}
