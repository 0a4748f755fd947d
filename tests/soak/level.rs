//! What a program has taken of the system: memory, threads, descriptors.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::station::House;

/// Who is looked at.
const PROGRAMS: [&str; 5] = ["posta-smtpd", "posta-queue", "posta-local", "posta-remote", "posta-auth"];

/// How long a program may take to come down: threads and children linger for some seconds, on a busy
/// machine for more.
const PATIENCE: Duration = Duration::from_secs(180);

/// More than at the start that is no leak. Memory: what a program keeps of the buffers that it has once
/// needed, and what the allocator does; it may not grow from round to round by more than [`CREEP`].
/// Threads: those that keep to their work for a while. Descriptors: connections kept between programs.
const MORE: Level = Level { memory: 64 << 20, threads: 4, files: 16 };

/// What memory may grow by between the first round and any later one.
const CREEP: u64 = 16 << 20;

/// What one program has, all its processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level {
    /// Octets of memory, shared ones by their part (PSS).
    memory: u64,
    threads: usize,
    files: usize,
}

/// What all have, in the order of [`PROGRAMS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels([Level; PROGRAMS.len()]);

impl Level {
    fn of(house: &House, program: &str) -> Level {
        let mut sum = Level::default();
        for pid in house.pids(program) {
            // A process that has just gone has nothing.
            let count = |what| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kilobytes: Option<u64> = pss.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            sum.memory += kilobytes.unwrap_or_default() << 10;
            sum.threads += count("task");
            sum.files += count("fd");
        }
        sum
    }

    fn is_within(&self, start: &Level, first: Option<&Level>) -> bool {
        self.memory <= start.memory + MORE.memory
            && first.is_none_or(|first| self.memory <= first.memory + CREEP)
            && self.threads <= start.threads + MORE.threads
            && self.files <= start.files + MORE.files
    }
}

impl Levels {
    /// As they are now.
    pub fn now(house: &House) -> Levels {
        Levels(PROGRAMS.map(|program| Level::of(house, program)))
    }

    /// As they are when nothing has come or gone for a while.
    pub fn calm(house: &House) -> Levels {
        const WHILE: Duration = Duration::from_secs(2);
        let end = Instant::now() + PATIENCE;
        let (mut levels, mut since) = (Levels::now(house), Instant::now());
        while since.elapsed() < WHILE && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
            let now = Levels::now(house);
            if now.0.map(|it| (it.threads, it.files)) != levels.0.map(|it| (it.threads, it.files)) {
                since = Instant::now();
            }
            levels = now;
        }
        levels
    }

    /// Waits until all are back where they were at the start, and no higher than after the first round.
    pub fn wait_for_return(&self, house: &House, first: Option<&Levels>) -> Levels {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Levels::now(house);
            let is_back = |at: usize| now.0[at].is_within(&self.0[at], first.map(|first| &first.0[at]));
            if (0..PROGRAMS.len()).all(is_back) {
                return now;
            }
            assert!(
                Instant::now() < end,
                "something stays:\nbefore:  {self}\nfirst:   {}\nnow:     {now}",
                first.map(Levels::to_string).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// posta-smtpd's memory, octets.
    pub fn memory_of_smtpd(&self) -> u64 {
        self.0[0].memory
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, level) in PROGRAMS.iter().zip(&self.0) {
            let Level { memory, threads, files } = level;
            write!(f, "{}: {} MiB {threads} threads {files} files; ", &name[6..], memory >> 20)?;
        }
        Ok(())
    }
}
