//! Which sync is the quicker one for those who wait: learned from those that were made.
//!
//! Each file and then the folder synced by itself, or one `syncfs` for all: on a disk where every call takes
//! its time, however much it has to write, the one call is quicker even for a single message; on one where it
//! is the writing that takes time, `syncfs` pays for strangers' dirty data too. So both are timed.

use std::time::{Duration, Instant};

use super::commit::Habits;

/// How long syncs take, and so how to sync next.
#[derive(Debug)]
pub(super) struct Pace {
    habits: Habits,
    /// Of `syncfs`.
    all: Recent,
    /// Of one file's or folder's own sync.
    own: Recent,
    /// Batches of a few, counted.
    small: u32,
    by_files_until: Option<Instant>,
    /// So many times in a row `syncfs` was slow.
    slow: u32,
}

impl Pace {
    /// Ten times the usual is slow, but not below this: an idle disk's usual is so short that every
    /// hiccup would be ten times as long.
    const LEAST: Duration = Duration::from_millis(20);
    /// One batch of a few in so many goes the way that seems to be the slower one, or has never been tried.
    const TRIES: u32 = 32;
    /// The pause after a slow one is doubled so often at most, each time that the next one is slow too: with a
    /// minute, to an hour. All who wait meanwhile wait for that one.
    const DOUBLED: u32 = 6;

    pub fn new(habits: Habits) -> Pace {
        Pace {
            habits,
            all: Recent::default(),
            own: Recent::default(),
            small: 0,
            by_files_until: None,
            slow: 0,
        }
    }

    /// Whether `syncfs` was slow of late, and every waiter syncs his own file.
    pub fn goes_by_files(&self, now: Instant) -> bool {
        self.by_files_until.is_some_and(|until| now < until)
    }

    /// Whether so many files that wait, and their folder, are best covered by one `syncfs`.
    pub fn shares(&mut self, files: usize, now: Instant) -> bool {
        if files == 0 || self.goes_by_files(now) {
            return false;
        }
        if files > self.habits.few {
            return true;
        }
        self.small = self.small.wrapping_add(1);
        let calls = u32::try_from(files + 1).unwrap_or(u32::MAX);
        let seems_quicker = match (self.all.usual, self.own.usual) {
            (Some(all), Some(own)) => all < own * calls,
            _ => false,
        };
        seems_quicker != self.small.is_multiple_of(Pace::TRIES)
    }

    /// Notes how long so many syncs of single files or folders took together.
    pub fn note_own(&mut self, took: Duration, calls: usize) {
        if let Ok(calls @ 1..) = u32::try_from(calls) {
            self.own.note(took / calls);
        }
    }

    /// Notes how long a `syncfs` took. If that was slow: how long it usually takes, and how long files are
    /// synced now.
    pub fn note_all(&mut self, took: Duration, now: Instant) -> Option<(Duration, Duration)> {
        let usual = self.all.usual.unwrap_or(took);
        self.all.note(took);
        let limit = self.habits.slow.min((usual * 10).max(Pace::LEAST));
        if took <= limit {
            self.slow = 0;
            return None;
        }
        let pause = self.habits.by_files * (1 << self.slow);
        self.slow = (self.slow + 1).min(Pace::DOUBLED);
        self.by_files_until = Some(now + pause);
        Some((usual, pause))
    }
}

/// The last durations, in no order, and their median.
#[derive(Debug, Default)]
struct Recent {
    durations: [Duration; Recent::MEMORY],
    noted: usize,
    usual: Option<Duration>,
}

impl Recent {
    /// How many are remembered.
    const MEMORY: usize = 15;

    fn note(&mut self, took: Duration) {
        self.durations[self.noted % Recent::MEMORY] = took;
        self.noted += 1;
        let mut known = self.durations;
        let known = &mut known[..self.noted.min(Recent::MEMORY)];
        let middle = known.len() / 2;
        self.usual = Some(*known.select_nth_unstable(middle).1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_sync_is_noticed() {
        let mut pace = Pace::new(Habits::default());
        let (now, ms) = (Instant::now(), Duration::from_millis);
        assert_eq!(pace.note_all(ms(90), now), None);
        assert_eq!(pace.note_all(ms(101), now), Some((ms(90), ms(60_000))));
        for _ in 0..40 {
            pace.note_all(ms(3), now);
        }
        assert_eq!(pace.note_all(ms(29), now), None);
        assert_eq!(pace.note_all(ms(31), now), Some((ms(3), ms(60_000))));
        assert_eq!(pace.by_files_until, Some(now + ms(60_000)));
        for _ in 0..40 {
            pace.note_all(ms(0), now);
        }
        assert_eq!(pace.note_all(ms(19), now), None);
    }

    #[test]
    fn what_stays_slow_is_tried_less_and_less_often() {
        let mut pace = Pace::new(Habits::default());
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let pauses: Vec<u64> =
            (0..8).filter_map(|_| Some(pace.note_all(second, now)?.1.as_secs() / 60)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(pace.note_all(second / 100, now), None);
        assert_eq!(pace.note_all(second, now).map(|(_, pause)| pause), Some(60 * second));
    }

    /// How many of these batches of so many files share, where a call takes its time.
    fn share_of(pace: &mut Pace, files: usize, batches: u32, own: Duration, all: Duration) -> u32 {
        let now = Instant::now();
        let mut shared = 0;
        for _ in 0..batches {
            if pace.shares(files, now) {
                shared += 1;
                pace.note_all(all, now);
            } else {
                pace.note_own(own * u32::try_from(files + 1).unwrap(), files + 1);
            }
        }
        shared
    }

    #[test]
    fn the_quicker_way_is_learned_and_the_other_tried_now_and_then() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(Habits::default());
        // A call takes 5 ms, whatever it writes. Known after the first try.
        assert_eq!(share_of(&mut pace, 1, Pace::TRIES, ms(5), ms(6)), 1);
        assert_eq!(share_of(&mut pace, 1, Pace::TRIES, ms(5), ms(6)), Pace::TRIES - 1);
        // The disk has others to write for now: that shows within a few tries.
        share_of(&mut pace, 1, 15, ms(5), ms(15));
        assert_eq!(share_of(&mut pace, 1, Pace::TRIES, ms(5), ms(15)), 1);
        // For three it is as good still.
        assert!(share_of(&mut pace, 3, Pace::TRIES, ms(5), ms(15)) > Pace::TRIES / 2);
    }

    #[test]
    fn many_always_share_unless_that_was_slow() {
        let mut pace = Pace::new(Habits::default());
        let now = Instant::now();
        pace.note_own(Duration::from_micros(10), 1);
        pace.note_all(Duration::from_millis(90), now);
        assert!(pace.shares(4, now) && !pace.shares(3, now) && !pace.shares(0, now));
        pace.note_all(Duration::from_secs(1), now);
        assert!(!pace.shares(4, now) && pace.shares(4, now + Duration::from_secs(61)));
    }
}
