//! The queue as `mailq` prints it, in the form that Postfix's has and scripts read.

use std::fmt::Write as _;
use std::path::Path;

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order, Row};

use posta::logbook::entry::Printable;

use posta::net::orders;

use crate::{PATIENCE, Refusal, order_refusal};

/// Prints the queue.
pub fn print(socket: &Path) -> Result<u8, Refusal> {
    let (mut bytes, mut count) = (0, 0);
    let mut each = |answer, _| {
        if let Answer::Row(row) = answer {
            if count == 0 {
                println!(
                    "{:<16} {:>8} {:<20} -Sender/Recipient-------",
                    "-Queue ID-", "-Size-", "-Arrival Time-"
                );
            }
            bytes += row.size;
            count += 1;
            for line in entry(&row, &time(row.arrived)).lines() {
                println!("{}", Printable(line));
            }
            println!();
        }
    };
    orders::give(socket, &Order::List, Some(PATIENCE), &mut each).map_err(order_refusal)?;
    match count {
        0 => println!("Mail queue is empty"),
        1 => println!("-- {} Kbytes in 1 Request.", bytes.div_ceil(1024)),
        n => println!("-- {} Kbytes in {n} Requests.", bytes.div_ceil(1024)),
    }
    Ok(sysexits::OK)
}

/// One message: a line, the reason in parentheses, and a line for each recipient.
fn entry(row: &Row, arrived: &str) -> String {
    let mark = match row.state.as_str() {
        "active" => "*",
        "held" => "!",
        _ => "",
    };
    let sender = if row.sender.is_empty() { "MAILER-DAEMON" } else { &row.sender };
    let mut text = format!("{:<16} {:>8} {arrived:<20} {sender}\n", format!("{}{mark}", row.id), row.size);
    if !row.reason.is_empty() {
        // Strings are easier to write to than to fail at.
        let _ = writeln!(text, "{:>17}({})", "", row.reason);
    }
    for recipient in &row.recipients {
        let _ = writeln!(text, "{:>47}{recipient}", "");
    }
    text
}

/// `Mon Nov 24 20:21:05`, in the caller's time zone.
fn time(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%a %b %e %H:%M:%S").to_string()
    })
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;

    use super::*;

    #[test]
    fn a_message_is_printed_as_scripts_know_it() {
        let row = Row {
            id: Id::parse("0123456789ABCDE").unwrap(),
            state: "active".into(),
            sender: String::new(),
            recipients: vec!["a@x".into(), "b@x".into()],
            size: 345,
            arrived: 0,
            next: None,
            reason: "connection refused".into(),
        };
        let lines = entry(&row, "Mon Nov 24 20:21:05");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[0], "0123456789ABCDE*      345 Mon Nov 24 20:21:05  MAILER-DAEMON");
        assert_eq!(lines[1].trim(), "(connection refused)");
        assert_eq!((lines[2].trim(), lines[3].trim()), ("a@x", "b@x"));
    }
}
