//! Models of where threads meet: the source files themselves, over threads of a model checker (shuttle),
//! which takes their steps in many orders, at random and by PCT (Burckhardt and others, "A Randomized
//! Scheduler with Probabilistic Guarantees of Finding Bugs"). Where all threads wait and none can go on,
//! a wake-up was lost, and the model fails; it prints the schedule by which it fails again.
//!
//! Without the harness of the standard library: the files' own unit tests are not for these threads.
//! posta-queue's credits have no model: one thread keeps those books (bin/posta-queue/schedule.rs), and
//! its property test is `the_books_balance`.

use std::process::ExitCode;

mod group_commit;
#[path = "."]
mod net {
    #[path = "../../src/net/parking.rs"]
    #[allow(dead_code, unused_imports)] // of its own tests
    pub mod parking;
}
mod parking;
mod pool;
mod stand_in;
#[path = "."]
mod unix {
    #[path = "threads.rs"]
    pub mod threads;

    /// What a crowd leaves behind is the allocator's own matter here.
    pub mod memory {
        pub fn give_back() {}
    }
}

// The source files name these crates; here they find the stand-ins.
extern crate self as crossbeam_channel;
extern crate self as mio;
pub use stand_in::{Receiver, RecvTimeoutError, Sender, TrySendError, Waker, bounded};

/// So many orders are tried of each model, in each of two ways.
const ORDERS: usize = 500;
/// In how many places an order may be unlucky at once.
const DEPTH: usize = 3;

const MODELS: [(&str, fn()); 7] = [
    ("models::group_commit::all_are_served", group_commit::all_are_served),
    ("models::group_commit::a_leader_may_fail_or_die", group_commit::a_leader_may_fail_or_die),
    ("models::group_commit::nobody_has_patience", group_commit::nobody_has_patience),
    ("models::pool::no_job_is_left_behind_where_all_may_go", pool::no_job_is_left_behind_where_all_may_go),
    ("models::pool::no_job_is_left_behind_where_some_stay", pool::no_job_is_left_behind_where_some_stay),
    ("models::pool::a_job_does_not_wait_for_a_busy_worker", pool::a_job_does_not_wait_for_a_busy_worker),
    ("models::parking::no_session_is_lost", parking::no_session_is_lost),
];

/// As cargo and nextest call tests: with --list, or with words of names.
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| words.iter().any(|word| word == option);
    if has("--list") {
        // None is ignored.
        MODELS.iter().filter(|_| !has("--ignored")).for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    for (name, model) in MODELS {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
            println!("test {name}");
            shuttle::check_random(model, ORDERS);
            shuttle::check_pct(model, ORDERS, DEPTH);
        }
    }
    ExitCode::SUCCESS
}
