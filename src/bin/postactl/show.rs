//! `show`, `cat`: one message, as posta-queue tells it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use posta::unix::sysexits;

use posta::mail::id::Id;

use posta::courier::order::{Answer, Order, Row};

use posta::config::Config;
use posta::logbook::entry::Printable;

use posta::net::orders;

use crate::{PATIENCE, Refusal, refusal};

/// What is known of one message.
pub fn show(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let order = Order::Show(one_id("show", words)?);
    print_answers(&order, config)
}

/// The message itself, byte for byte.
pub fn cat(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let order = Order::Cat(one_id("cat", words)?);
    let mut copied = Err(io::Error::other("posta-queue sent no file"));
    let mut each = |answer, attached: Option<OwnedFd>| {
        if let (Answer::Text(length), Some(file)) = (answer, attached) {
            copied = copy(&File::from(file), length.trim().parse().unwrap_or(u64::MAX));
        }
    };
    orders::give(&config.run.join("queue"), &order, Some(PATIENCE), &mut each).map_err(refusal)?;
    copied.map_err(|error| Refusal(sysexits::IOERR, format!("can't copy the message: {error}")))?;
    Ok(sysexits::OK)
}

/// The id that a word takes.
pub fn one_id(word: &str, words: &[String]) -> Result<Id, Refusal> {
    match words {
        [text] => parse_id(text),
        _ => Err(Refusal::usage(format!("{word} takes one queue id"))),
    }
}

/// An id as it is typed.
pub fn parse_id(text: &str) -> Result<Id, Refusal> {
    Id::parse(text)
        .ok_or_else(|| Refusal::usage(format!("\"{text}\" is no queue id; \"postactl queue\" lists them")))
}

/// Gives an order, and prints what is answered.
pub fn print_answers(order: &Order, config: &Config) -> Result<u8, Refusal> {
    let mut each = |answer, _| match answer {
        Answer::Row(row) => print!("{}", sheet(&row)),
        Answer::Text(text) => {
            println!("{}", text.lines().map(|l| Printable(l).to_string()).collect::<Vec<_>>().join("\n"))
        }
        Answer::Wait(_) | Answer::Failed(..) | Answer::End => {}
    };
    orders::give(&config.run.join("queue"), order, Some(PATIENCE), &mut each).map_err(refusal)?;
    Ok(sysexits::OK)
}

fn sheet(row: &Row) -> String {
    let next = row.next.map_or("-".to_string(), time);
    let mut text = format!(
        "id: {}\nstate: {}\nsender: <{}>\nsize: {}\narrived: {}\nnext: {next}\n",
        row.id,
        row.state,
        row.sender,
        row.size,
        time(row.arrived / 1_000_000)
    );
    for recipient in &row.recipients {
        text += &format!("recipient: <{recipient}>\n");
    }
    if !row.reason.is_empty() {
        text += &format!("reason: {}\n", row.reason);
    }
    text.lines().map(|line| format!("{}\n", Printable(line))).collect()
}

/// Copies bytes 0 to `length` of the queue file to stdout; the descriptor is shared, so by pread.
fn copy(file: &File, length: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    while at < length {
        let most = buffer.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        match file.read_at(&mut buffer[..most], at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                out.write_all(&buffer[..got])?;
                at += got as u64;
            }
        }
    }
    out.flush()
}

/// `2026-11-24 20:21:05`, in the caller's time zone.
pub fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(String::new, |time| {
        time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_before_posta_queue_is_asked() {
        assert!(one_id("show", &["0123456789ABCDE".into()]).is_ok());
        assert_eq!(one_id("show", &["../x".into()]).err().map(|r| r.0), Some(64));
        assert_eq!(one_id("show", &[]).err().map(|r| r.0), Some(64));
    }

    #[test]
    fn a_sheet_names_all_there_is() {
        let row = Row {
            id: Id::parse("0123456789ABCDE").unwrap(),
            state: "held".into(),
            sender: "a@x".into(),
            recipients: vec!["b@x".into()],
            size: 3,
            arrived: 0,
            next: Some(7),
            reason: "a\x07b".into(),
        };
        let text = sheet(&row);
        assert!(text.contains("sender: <a@x>\n") && text.contains("recipient: <b@x>\n"), "{text}");
        assert!(text.ends_with("reason: a\\x07b\n"), "{text}");
    }
}
