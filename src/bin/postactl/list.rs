//! `queue`: the messages, as a table for people or as JSON for programs.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order, Row};

use posta::config::Config;
use posta::logbook::entry::Printable;

use posta::net::orders;

use crate::filter::Filter;
use crate::show::time;
use crate::totals::Totals;
use crate::{PATIENCE, Refusal, refusal};

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Question {
    as_json: bool,
    /// Sums for each domain, and not the messages.
    totals: bool,
    filter: Filter,
}

fn read(words: &[String]) -> Result<Question, Refusal> {
    let mut question = Question::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--json" => question.as_json = true,
            "--totals" => question.totals = true,
            option => {
                let value = words.next().unwrap_or_default();
                if !question.filter.take(option, value)? {
                    let why = format!(
                        "queue takes no \"{option}\": it is --json, --totals or a filter, see postactl(8)"
                    );
                    return Err(Refusal::usage(why));
                }
            }
        }
    }
    Ok(question)
}

/// Lists the queue, row by row as they come.
pub fn list(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let question = read(words)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    let mut totals = Totals::default();
    let mut count = 0u64;
    let mut each = |answer, _| {
        let Answer::Row(row) = answer else { return };
        if !question.filter.wants(&row, now) {
            return;
        }
        count += 1;
        if question.totals {
            totals.add(&row);
        } else if question.as_json {
            println!("{}", object(&row));
        } else {
            if count == 1 {
                println!(
                    "{}",
                    line(["ID", "STATE", "SIZE", "ARRIVED", "NEXT", "SENDER, RECIPIENTS, REASON"])
                );
            }
            println!("{}", table_line(&row));
        }
    };
    orders::give(&config.run.join("queue"), &Order::List, Some(PATIENCE), &mut each).map_err(refusal)?;
    totals.lines(question.as_json).iter().for_each(|line| println!("{line}"));
    if count == 0 && !question.as_json {
        let filtered = question.filter != Filter::default();
        println!("{}", if filtered { "no such message in the queue" } else { "the queue is empty" });
    }
    Ok(sysexits::OK)
}

/// One message as a JSON object. Times are seconds since 1970.
fn object(row: &Row) -> serde_json::Value {
    json!({
        "id": row.id.as_str(),
        "state": row.state,
        "sender": row.sender,
        "recipients": row.recipients,
        "size": row.size,
        "arrived": row.arrived / 1_000_000,
        "next": row.next,
        "reason": row.reason,
    })
}

fn table_line(row: &Row) -> String {
    let sender = if row.sender.is_empty() { "<>" } else { &row.sender };
    let mut who = format!("{sender} -> {}", row.recipients.first().map_or("", String::as_str));
    if row.recipients.len() > 1 {
        who += &format!(" and {} more", row.recipients.len() - 1);
    }
    if !row.reason.is_empty() {
        who += &format!(" ({})", row.reason);
    }
    let arrived = time(row.arrived / 1_000_000);
    let next = row.next.map_or("-".to_string(), time);
    line([row.id.as_str(), &row.state, &row.size.to_string(), &arrived, &next, &Printable(&who).to_string()])
}

fn line([id, state, size, arrived, next, who]: [&str; 6]) -> String {
    format!("{id:<16} {state:<8} {size:>9} {arrived:<19} {next:<19} {who}")
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;

    use super::*;

    fn row() -> Row {
        Row {
            id: Id::parse("0123456789ABCDE").unwrap(),
            state: "deferred".into(),
            sender: String::new(),
            recipients: vec!["\"a\"@x".into(), "b@x".into()],
            size: 345,
            arrived: 1_500_000,
            next: None,
            reason: "refused \x1b[31m".into(),
        }
    }

    #[test]
    fn json_has_every_key_and_reads_back() {
        let value: serde_json::Value = serde_json::from_str(&object(&row()).to_string()).unwrap();
        assert_eq!(value["id"], "0123456789ABCDE");
        assert_eq!(value["recipients"][0], "\"a\"@x");
        assert_eq!((value["arrived"].as_u64(), value["next"].is_null()), (Some(1), true));
        for key in ["state", "sender", "size", "reason"] {
            assert!(!value[key].is_null(), "{key}");
        }
    }

    #[test]
    fn options_are_read_in_any_order() {
        let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        let question = read(&words("--state held --totals --json")).unwrap_or_default();
        assert!(question.as_json && question.totals && question.filter != Filter::default());
        for wrong in ["--jsn", "--state", "all", "--json extra"] {
            assert!(read(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_says_who_and_why_and_steers_no_terminal() {
        let line = table_line(&row());
        assert!(line.contains("<> -> \"a\"@x and 1 more (refused"), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
}
