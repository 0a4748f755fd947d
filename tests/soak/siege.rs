//! One siege: everybody at once, and honest mail through the midst of them.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::attack::{ATTACKS, Attacker};
use crate::crowd::Crowd;
use crate::level::Levels;
use crate::post::{Post, files, percentile};
use crate::target::{Target, wait_long_for};

/// A siege of a house.
pub struct Siege<'a> {
    pub target: &'a Target,
    /// How long the attackers go on.
    pub length: Duration,
    /// Clients who do nothing but stay.
    pub crowd: usize,
}

impl Siege<'_> {
    /// Goes the honest ways some times, so that what a program makes at the first time is there at the start.
    pub fn warm_up(&self) {
        let post = Post::new(self.target);
        for _ in 0..5 {
            post.send(true);
            post.send(false);
        }
        post.collect();
    }

    /// A siege; tells what came of it, each line as soon as it is known.
    pub fn round(&self, seed: u64) {
        let crowd = Crowd::gather(self.target, self.crowd);
        let held = Levels::now(&self.target.house).memory_of_smtpd();
        println!("{} clients stay: {} MiB", crowd.size(), held >> 20);

        let (post, over) = (Post::new(self.target), AtomicBool::new(false));
        let done = std::thread::scope(|scope| {
            for with_password in [false, false, true] {
                scope.spawn({
                    let (post, over) = (&post, &over);
                    move || post.send_until(over, with_password)
                });
            }
            let done = self.attack(Instant::now() + self.length, seed);
            over.store(true, Ordering::Relaxed);
            done
        });
        drop(crowd);
        let account = post.collect();
        for ((name, _), count) in ATTACKS.iter().zip(done) {
            println!("  {name:<22}{count:>9}");
        }
        println!("  relayed in seven bits {:>9}, in all", self.target.seven.taken());
        println!("honest mail: {} sent, all arrived; {} attempts in vain", account.sent, account.again);
        for (what, times) in [("accepted", &account.waits), ("in the mailbox", &account.delays)] {
            let [half, most, longest] = [50, 99, 100].map(|percent| percentile(times, percent));
            println!("  {what}: median {half:.2?}, 99% {most:.2?}, longest {longest:.2?}");
        }
        assert!(account.sent > 0);
        self.clear_away();
    }

    /// All attacks at once, until then; how often each was done.
    fn attack(&self, until: Instant, seed: u64) -> Vec<u64> {
        std::thread::scope(|scope| {
            let mut attackers = Vec::new();
            for (band, (_, attack)) in ATTACKS.iter().enumerate() {
                let mut attacker = Attacker::new(self.target, band, until, seed);
                attackers.push(scope.spawn(move || attack(&mut attacker)));
            }
            attackers.into_iter().map(|attacker| attacker.join().unwrap()).collect()
        })
    }

    /// Waits until the attackers' own mail is done with, and throws it away.
    fn clear_away(&self) {
        let house = &self.target.house;
        let left = || ["new", "cur", "journal"].iter().map(|place| house.spooled(place).len()).sum::<usize>();
        wait_long_for("an empty queue", || (left() == 0).then_some(()));
        for user in ["bomb", "cut", "slow"] {
            for path in files(&house.path(&format!("mail/{user}/new"))) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}
