//! What must hold for any input. Each target takes arbitrary octets and panics where it does not.
//! Where input is to be split, its first octet says how.

#[path = "../../../tests/speaker/mod.rs"]
mod speaker;

use posta::smtp::command::{self, Command};
use posta::smtp::data::DataReader;
use posta::smtp::event::DataFault;
use posta::smtp::extension;
use posta::smtp::line::{AUTH_LIMIT, Line, LineReader};
use posta::smtp::reply::MAX_LINE;

use speaker::{House, Speaker, full_service};

/// Octets into lines: the same however they are split, in bounded memory.
pub fn line(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    // Where a TLS handshake ends is not in its octets: it is what there was.
    if input.windows(2).any(|w| w == [0x16, 0x03]) {
        return;
    }
    assert_eq!(lines(input, input.len().max(1)), lines(input, step));
}

fn lines(input: &[u8], step: usize) -> Vec<String> {
    const MAX: usize = 24;
    let mut reader = LineReader::new(MAX);
    let mut out = Vec::new();
    for piece in input.chunks(step) {
        reader.push(piece);
        while let Some(line) = reader.next() {
            if let Line::Whole(line) = line {
                let max = if line.to_ascii_uppercase().starts_with(b"AUTH ") { AUTH_LIMIT } else { MAX };
                assert!(line.len() + 2 <= max && !line.contains(&b'\r') && !line.contains(&b'\n'));
            }
            out.push(format!("{line:?}"));
        }
        let long = reader.unread().to_ascii_uppercase().starts_with(b"AUTH ");
        assert!(!reader.has_line() && reader.unread().len() < if long { AUTH_LIMIT } else { MAX });
    }
    out
}

/// A house with logins, under TLS from the first octet: what STARTTLS says depends on what has come with
/// it.
fn full_house() -> House {
    let mut house = House { service: full_service(), ..House::default() };
    (house.service.secure, house.service.starttls) = (true, false);
    house.passwords.known.push(("alice".to_string(), "secret".to_string()));
    house
}

/// A line into a command: nothing unprintable gets through.
pub fn command(input: &[u8]) {
    let printable = |text: &str| assert!(!text.chars().any(char::is_control), "{text:?}");
    match command::parse(input) {
        Ok(Command::Hello { name, .. }) => assert!(name.bytes().all(|b| b.is_ascii_graphic())),
        Ok(Command::Mail { sender, params }) => {
            printable(&sender.to_string());
            if let Ok(params) = extension::mail_params(params) {
                printable(&params.envid.unwrap_or_default());
            }
        }
        Ok(Command::Rcpt { recipient, params }) => {
            if let Some(mailbox) = recipient {
                printable(&mailbox.to_string());
            }
            if let Ok(params) = extension::rcpt_params(params) {
                printable(&params.original.unwrap_or_default());
            }
        }
        Ok(_) => {}
        Err(error) => assert!(matches!(error.reply().code, 500 | 501)),
    }
}

/// Message data: the same however it is split, and nothing but CR LF . CR LF ends it.
pub fn data(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let (message, consumed, done, fault) = read(input, input.len().max(1));
    let (piecewise, consumed_piecewise, done_piecewise, fault_piecewise) = read(input, step);
    assert_eq!((consumed, done), (consumed_piecewise, done_piecewise));
    assert_eq!(fault.is_some(), fault_piecewise.is_some());
    let data = &input[..consumed];
    let ends = data == b".\r\n" || data.starts_with(b".\r\n") || data.windows(5).any(|w| w == b"\r\n.\r\n");
    assert_eq!(done, ends);
    if fault.is_none() {
        assert_eq!(message, piecewise);
    }
    if done && fault.is_none() {
        // What was undone can be done again.
        let again = [stuffed(&message), b".\r\n".to_vec()].concat();
        assert_eq!(read(&again, step).0, message);
    }
}

fn read(input: &[u8], step: usize) -> (Vec<u8>, usize, bool, Option<DataFault>) {
    let mut reader = DataReader::new(1 << 16, 4);
    let (mut message, mut consumed, mut done) = (Vec::new(), 0, false);
    for piece in input.chunks(step) {
        let progress = reader.feed(piece, &mut |octets| message.extend_from_slice(octets));
        consumed += progress.consumed;
        done = progress.done;
        if done {
            break;
        }
        assert_eq!(progress.consumed, piece.len());
    }
    (message, consumed, done, reader.fault().cloned())
}

fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out
}

/// A whole session: the same however it is split, replies in form, 250 only for what is stored.
pub fn server(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let mut once = Speaker::new(full_house());
    once.receive(input);
    let mut piecewise = Speaker::new(full_house());
    input.chunks(step).for_each(|piece| piecewise.receive(piece));
    assert_eq!((&once.said, &once.stored), (&piecewise.said, &piecewise.stored));
    assert!(once.said.ends_with(b"\r\n"));
    let mut promises = 0;
    for line in once.said.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\r\n") else { panic!("a reply without CR LF") };
        assert!(line.len() <= MAX_LINE && text.iter().all(|b| (b' '..=b'~').contains(b)));
        assert!(matches!(text, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..]));
        promises += usize::from(text.starts_with(b"250 2.0.0 Ok: queued as"));
    }
    assert_eq!(promises, once.stored.len());
}

fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    input.split_first().map(|(step, rest)| (usize::from(*step % 16) + 1, rest))
}
