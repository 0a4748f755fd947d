//! A month of life in seconds: the schedule and the rules, which know no clock, no file and no socket,
//! under random traffic with outages, restarts, reloads, hands that die, and an administrator who pauses,
//! holds, releases, deletes and hurries.
//!
//! After every step the books are looked at: nothing that was accepted is lost, nothing is tried before
//! its time or forgotten past it, no destination keeps another one's mail back, and what is remembered
//! does not grow.
//!
//! `POSTA_MONTHS=n` lives n months, each with luck of its own; a month that fails names its seed, and
//! `POSTA_MONTH=seed` lives that one again.

mod books;
mod house;
mod orders;
mod weather;
mod work;

use house::House;

/// Days that a month has.
const DAYS: u64 = 30;

fn live(seed: u64) {
    eprintln!("a month with the seed {seed} (POSTA_MONTH={seed})");
    let mut house = House::new(seed);
    while house.step() {
        house.check();
    }
    house.check_all();
    house.rest_in_peace();
}

#[test]
fn a_month_of_life_loses_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("POSTA_MONTH") {
        Some(seed) => live(seed),
        None => (1..=number("POSTA_MONTHS").unwrap_or(1)).for_each(live),
    }
}
