//! Answers that are still good.
//!
//! Bounded in time by the records' TTL (RFC 1035 3.2.1, RFC 2308 for negative answers), and in
//! number.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::answer::{Answer, Kind, LookupError};

/// Most answers that are kept.
const MAX_ANSWERS: usize = 10_000;
/// Longest life of a positive answer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Shortest life of a positive answer: one second, so that a TTL of 0 costs one query a second and
/// not one for every message.
const SHORTEST: Duration = Duration::from_secs(1);
/// Life of a failure that may pass: long enough to spare the next messages the same timeout.
const TROUBLE: Duration = Duration::from_secs(5);
/// Longest life of a negative answer.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(3600);
/// Life of a negative answer that says nothing of its own.
const NEGATIVE: Duration = Duration::from_secs(60);

/// An answer, or why there is none.
pub type Outcome = Result<Answer, LookupError>;

type Kept = HashMap<(String, Kind), (Instant, Outcome)>;

/// The answers, each until its time has come.
#[derive(Debug, Default)]
pub struct Cache {
    kept: Mutex<Kept>,
}

impl Cache {
    /// The answer that is kept for the question.
    pub fn get(&self, name: &str, kind: Kind, now: Instant) -> Option<Outcome> {
        let kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (until, outcome) = kept.get(&(name.to_string(), kind))?;
        (now < *until).then(|| outcome.clone())
    }

    /// Keeps an answer. `negative` is how long the zone lets "no such name" and "no such record"
    /// hold (RFC 2308 5).
    pub fn put(&self, name: &str, kind: Kind, outcome: &Outcome, negative: Option<Duration>, now: Instant) {
        let life = match outcome {
            Ok(answer) => answer.ttl.clamp(SHORTEST, LONGEST),
            Err(error) if error.is_temporary() => TROUBLE,
            Err(_) => negative.unwrap_or(NEGATIVE).min(LONGEST_NEGATIVE),
        };
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if kept.len() >= MAX_ANSWERS {
            make_room(&mut kept, now);
        }
        kept.insert((name.to_string(), kind), (now + life, outcome.clone()));
    }
}

/// Drops what is over; if nothing is, every second answer (which ones is left to the hash).
fn make_room(kept: &mut Kept, now: Instant) {
    kept.retain(|_, (until, _)| now < *until);
    if kept.len() >= MAX_ANSWERS {
        let mut keep = false;
        kept.retain(|_, _| {
            keep = !keep;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Data;
    use super::*;

    fn answer(ttl: u64) -> Outcome {
        let data = vec![Data::Txt(b"x".to_vec())];
        Ok(Answer { data, ttl: Duration::from_secs(ttl), secure: false })
    }

    #[test]
    fn answers_live_as_long_as_they_say_within_bounds() {
        let cache = Cache::default();
        let now = Instant::now();
        let cases = [
            ("positive", answer(60), None, 60),
            ("zero", answer(0), None, 1),
            ("negative", Err(LookupError::NoName), Some(30), 30),
            ("silent", Err(LookupError::NoData), None, 60),
            ("greedy", Err(LookupError::NoData), Some(1_000_000), 3600),
            ("trouble", Err(LookupError::TimedOut), Some(3600), 5),
        ];
        for (name, outcome, negative, seconds) in cases {
            cache.put(name, Kind::Txt, &outcome, negative.map(Duration::from_secs), now);
            let at = |seconds| cache.get(name, Kind::Txt, now + Duration::from_secs(seconds));
            assert_eq!(at(seconds - 1), Some(outcome), "{name}");
            assert_eq!(at(seconds), None, "{name}");
            assert_eq!(cache.get(name, Kind::A, now), None, "{name}");
        }
    }

    #[test]
    fn its_number_is_bounded() {
        let cache = Cache::default();
        let now = Instant::now();
        for n in 0..MAX_ANSWERS + 100 {
            cache.put(&n.to_string(), Kind::A, &answer(60), None, now);
        }
        assert!(cache.kept.lock().unwrap().len() <= MAX_ANSWERS);
        assert!(cache.get(&(MAX_ANSWERS + 99).to_string(), Kind::A, now).is_some());
    }
}
