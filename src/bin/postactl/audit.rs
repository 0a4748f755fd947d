//! `audit`: whether every message that was taken has come to an end that we know, or is in the queue.
//!
//! The history says what was taken and what became of it, posta-queue what it has now. What is in
//! neither is an exception, and the reason for this word to exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use posta::unix::sysexits;

use posta::mail::id::Id;

use posta::courier::order::{Answer, Order};

use posta::config::Config;
use posta::logbook::history;

use posta::net::orders;

use crate::filter::seconds;
use crate::{PATIENCE, Refusal, refusal};

/// A line that is on its way to the history is there by then.
const LAG: Duration = Duration::from_secs(2);

/// What the history says of one message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Course {
    /// It was taken into the queue.
    taken: bool,
    /// It has left the queue.
    removed: bool,
    /// The administrator has deleted it.
    deleted: bool,
    /// The last word of each recipient: `sent`, `deferred`, `bounced`.
    recipients: BTreeMap<String, String>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Delivered,
    Bounced,
    Discarded,
    Queued,
    /// None of these: a recipient has no end, or the message is nowhere.
    Unclear(&'static str),
}

/// Prints the sum; exit code 0 if it comes out even.
pub fn audit(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let since = read(words)?;
    let folder = config.spool.join("history");
    if config.queue.history.is_zero() {
        return Err(Refusal(
            sysexits::CONFIG,
            "queue.history = \"0s\": there is no history to look at".into(),
        ));
    }
    let courses = courses(&folder, since)?;
    let queued = queued(config)?;
    let mut ends: BTreeMap<Id, End> =
        courses.iter().map(|(id, course)| (*id, course.end(queued.contains(id)))).collect();
    if ends.values().any(|end| matches!(end, End::Unclear(_))) {
        // It may have come to its end while we looked.
        std::thread::sleep(LAG);
        let later = self::courses(&folder, since)?;
        for (id, end) in ends.iter_mut().filter(|(_, end)| matches!(end, End::Unclear(_))) {
            *end = later.get(id).map_or(*end, |course| course.end(queued.contains(id)));
        }
    }
    let exceptions = print(&ends, &courses);
    Ok(if exceptions { sysexits::DATA } else { sysexits::OK })
}

fn read(words: &[String]) -> Result<u64, Refusal> {
    let wants = || {
        Refusal::usage(
            "audit takes --since TIME: an age as 2h or 7d, or a date as 2026-11-24 or 2026-11-24T20:15",
        )
    };
    let [option, time] = words else { return Err(wants()) };
    if option != "--since" {
        return Err(wants());
    }
    if let Ok(age) = seconds("--since", time) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        return Ok(now.saturating_sub(age.saturating_mul(1_000_000)));
    }
    let time = jiff::tz::TimeZone::system().to_timestamp(time.parse().map_err(|_| wants())?);
    let time = time.map_err(|_| wants())?;
    Ok(u64::try_from(time.as_microsecond()).unwrap_or(0))
}

/// What the history says of the messages that were taken since then.
fn courses(folder: &Path, since: u64) -> Result<BTreeMap<Id, Course>, Refusal> {
    let mut courses: BTreeMap<Id, Course> = BTreeMap::new();
    history::each(folder, since, &mut |id, text| courses.entry(id).or_default().hear(text))
        .map_err(|error| Refusal(sysexits::NOPERM, format!("{}: {error}", folder.display())))?;
    courses.retain(|_, course| course.taken);
    Ok(courses)
}

fn queued(config: &Config) -> Result<BTreeSet<Id>, Refusal> {
    let mut queued = BTreeSet::new();
    let mut each = |answer, _| {
        if let Answer::Row(row) = answer {
            queued.insert(row.id);
        }
    };
    orders::give(&config.run.join("queue"), &Order::List, Some(PATIENCE), &mut each).map_err(refusal)?;
    Ok(queued)
}

impl Course {
    /// A line of the history.
    fn hear(&mut self, text: &str) {
        if text.ends_with("(queue active)") {
            self.taken = true;
        } else if text == "removed" {
            self.removed = true;
        } else if text.starts_with("deleted by ") {
            self.deleted = true;
        } else if let Some(rest) = text.strip_prefix("to=<")
            && let Some((to, rest)) = rest.split_once('>')
            && let Some((_, rest)) = rest.split_once(", status=")
        {
            let word = rest.split(' ').next().unwrap_or_default();
            // An alias that could not be looked up leads somewhere by now.
            if let Some((_, from)) = text.split_once(", orig_to=<")
                && let Some((from, _)) = from.split_once('>')
                && from != to
                && self.recipients.get(from).is_some_and(|word| word == "deferred")
            {
                self.recipients.remove(from);
            }
            self.recipients.insert(to.to_string(), word.to_string());
        }
    }

    fn end(&self, is_queued: bool) -> End {
        let has = |wanted: &str| self.recipients.values().any(|word| word == wanted);
        match (self.removed, is_queued) {
            (false, true) => End::Queued,
            (false, false) => End::Unclear("it is not in the queue, and nothing says that it has left it"),
            (true, _) if self.deleted => End::Discarded,
            (true, _) if has("deferred") => End::Unclear("it has left the queue with a recipient unserved"),
            (true, _) if has("bounced") => End::Bounced,
            (true, _) if has("sent") => End::Delivered,
            (true, _) => {
                End::Unclear("it has left the queue, and nothing says what became of its recipients")
            }
        }
    }
}

/// Prints the sum and each exception; whether there are any.
fn print(ends: &BTreeMap<Id, End>, courses: &BTreeMap<Id, Course>) -> bool {
    let count = |wanted: End| ends.values().filter(|end| **end == wanted).count();
    let exceptions = ends.values().filter(|end| matches!(end, End::Unclear(_))).count();
    println!(
        "{} accepted = {} delivered + {} bounced + {} discarded + {} queued{}",
        ends.len(),
        count(End::Delivered),
        count(End::Bounced),
        count(End::Discarded),
        count(End::Queued),
        if exceptions > 0 { format!(" + {exceptions} UNCLEAR") } else { String::new() }
    );
    for (id, end) in ends {
        if let End::Unclear(why) = end {
            let words: Vec<String> = courses
                .get(id)
                .map(|course| course.recipients.iter().map(|(to, word)| format!("<{to}> {word}")).collect())
                .unwrap_or_default();
            println!("{id}: {why} {}", words.join(", "));
        }
    }
    exceptions > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(lines: &[&str]) -> Course {
        let mut course = Course::default();
        lines.iter().for_each(|line| course.hear(line));
        course
    }

    const TAKEN: &str = "from=<a@x>, size=3, nrcpt=2 (queue active)";
    const SENT: &str = "to=<b@y>, relay=local, delay=1, dsn=2.0.0, status=sent (stored)";
    const LATE: &str = "to=<c@y>, relay=none, delay=1, dsn=4.4.1, status=deferred (refused)";
    const NEVER: &str = "to=<c@y>, relay=none, delay=9, dsn=5.4.7, status=bounced (too old)";

    #[test]
    fn each_message_has_one_end() {
        let end = |lines: &[&str], queued| course(lines).end(queued);
        assert_eq!(end(&[TAKEN, SENT, "removed"], false), End::Delivered);
        assert_eq!(end(&[TAKEN, SENT, LATE, NEVER, "removed"], false), End::Bounced);
        assert_eq!(end(&[TAKEN, LATE, "deleted by the administrator", "removed"], false), End::Discarded);
        assert_eq!(end(&[TAKEN, SENT, LATE], true), End::Queued);
        let astray = "to=<staff@x>, relay=none, delay=1, dsn=4.3.5, status=deferred (a table is dead)";
        let found = "to=<b@y>, orig_to=<staff@x>, relay=local, delay=9, dsn=2.0.0, status=sent (stored)";
        assert_eq!(end(&[TAKEN, astray, found, "removed"], false), End::Delivered);
        for lines in [&[TAKEN, SENT][..], &[TAKEN, SENT, LATE, "removed"], &[TAKEN, "removed"]] {
            assert!(matches!(end(lines, false), End::Unclear(_)), "{lines:?}");
        }
    }

    #[test]
    fn a_time_is_an_age_or_a_date() {
        let since = |time: &str| read(&["--since".into(), time.into()]).ok();
        let two_hours_ago = since("2h").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(now - two_hours_ago >= 7_200_000_000);
        assert!(since("2026-11-24").unwrap() < since("2026-11-24T20:15").unwrap());
        assert_eq!((since("yesterday"), read(&[]).ok()), (None, None));
    }
}
