//! posta under siege: slow, rude, broken and countless clients at once, and an honest one among them.
//!
//! What must hold: every honest message is accepted and arrives, once; and when the siege is over, memory,
//! threads and descriptors of every program are back where they were. How long an honest message takes is
//! printed, and never judged.
//!
//! `cargo test` runs it in short. `make soak MINUTES=n` runs it round after round for so long, with as
//! many connections as there may be descriptors, up to 10,000, and compares the levels after each round.

mod attack;
mod crowd;
mod level;
mod post;
mod seven;
mod siege;
mod target;
mod words;

#[allow(dead_code)] // the rooms of TLS need the rest
#[path = "../certificates/mod.rs"]
mod certificates;
#[path = "../station/mod.rs"]
mod station;

use std::time::{Duration, Instant};

use level::Levels;
use siege::Siege;
use target::Target;

/// What `make soak` says in the environment: how long, and by which chance.
const MINUTES: &str = "MINUTES";
const SEED: &str = "SEED";

/// What the environment says.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

#[test]
fn honest_mail_comes_through_a_siege_and_nothing_of_it_stays() {
    let minutes = number(MINUTES);
    let files = posta::unix::privilege::raise_open_files().unwrap();
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    let (length, crowd) = match minutes {
        Some(_) => (Duration::from_secs(60), 10_000),
        None => (Duration::from_secs(4), 400),
    };
    // Each of the crowd is a descriptor here, and one there; the attackers need some, too.
    let crowd = crowd.min(usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(2000));
    println!("SEED={seed}; {crowd} idle connections");

    let target = Target::start(crowd);
    let siege = Siege { target: &target, length, crowd };
    siege.warm_up();
    let start = Levels::calm(&target.house);
    println!("{:<24}{start}", "before");

    let end = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or_default());
    let mut first = None;
    for round in 1.. {
        siege.round(seed.wrapping_add(round));
        let after = start.wait_for_return(&target.house, first.as_ref());
        println!("{:<24}{after}", format!("after round {round}"));
        first.get_or_insert(after);
        if Instant::now() >= end {
            break;
        }
    }
    target.expect_sound_log();
}
