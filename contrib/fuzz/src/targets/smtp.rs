//! The language of SMTP, on both sides.

#[path = "../../../../tests/speaker/mod.rs"]
mod speaker;

use std::sync::Arc;

use posta::smtp::chunk::ChunkReader;
use posta::smtp::client::reply::ReplyReader;
use posta::smtp::command::{self, Command};
use posta::smtp::data::DataReader;
use posta::smtp::event::DataFault;
use posta::smtp::extension;
use posta::smtp::introduction::{Introduction, XCLIENT, XFORWARD};
use posta::smtp::line::{AUTH_LIMIT, Line, LineReader};
use posta::smtp::reply::{MAX_LINE, Reply};
use posta::smtp::server::{Action, Event, LogIn, Server, Service, Settings, Verdict};

use super::split;
use speaker::{House, Speaker, Stored, full_service};

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
                assert!(
                    line.len() + 2 <= limit(line, MAX) && !line.contains(&b'\r') && !line.contains(&b'\n')
                );
            }
            out.push(format!("{line:?}"));
        }
        assert!(reader.unread().len() < limit(reader.unread(), MAX));
    }
    out
}

/// How long a line may be (RFC 4954 4).
fn limit(line: &[u8], max: usize) -> usize {
    if line.to_ascii_uppercase().starts_with(b"AUTH ") { AUTH_LIMIT } else { max }
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

/// Chunks of BDAT: the same however they are split.
pub fn chunk(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let Some((kind, input)) = input.split_first() else { return };
    let read = |step: usize| {
        let mut reader = ChunkReader::new(1 << 12, 4, kind & 1 == 1);
        let mut content = Vec::new();
        input
            .chunks(step)
            .for_each(|piece| reader.feed(piece, &mut |octets| content.extend_from_slice(octets)));
        reader.finish(&mut |octets| content.extend_from_slice(octets));
        let fault = reader.fault().cloned();
        (fault.is_none().then_some(content), fault.is_some())
    };
    assert_eq!(read(step), read(input.len().max(1)));
}

/// Parameters of MAIL and RCPT, and the attributes of XCLIENT and XFORWARD.
pub fn parameters(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let in_form = |reply: &Reply| assert!((500..600).contains(&reply.code), "{reply:?}");
    extension::mail_params(text).map_or_else(|error| in_form(&error.reply()), drop);
    extension::rcpt_params(text).map_or_else(|error| in_form(&error.reply()), drop);
    for known in [XCLIENT, XFORWARD] {
        Introduction::parse(text, known).map_or_else(|error| in_form(&error.reply()), drop);
    }
}

/// A server's replies, as our client reads them: the same however they are split, in bounded memory.
pub fn reply(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    assert_eq!(replies(input, step), replies(input, input.len().max(1)));
}

fn replies(input: &[u8], step: usize) -> (Vec<String>, bool) {
    let mut reader = ReplyReader::default();
    let (mut unread, mut found) = (Vec::new(), Vec::new());
    for piece in input.chunks(step) {
        unread.extend_from_slice(piece);
        loop {
            let Ok((used, reply)) = reader.take(&unread) else { return (found, true) };
            unread.drain(..used);
            let Some(reply) = reply else { break };
            assert!(reply.text().len() < 1 << 17);
            found.push(format!("{reply:?} {}", reply.status()));
        }
    }
    (found, unread.len() > MAX_LINE)
}

/// A session's settings: the second octet says which.
fn house(kind: u8) -> House {
    let mut house = House::default();
    if kind & 1 == 1 {
        house.service = full_service();
        house.passwords.known.push(("u".into(), "p".into()));
    }
    let Service { lmtp, submission, xclient, xforward, secure, starttls, .. } = &mut house.service;
    *submission = kind & 16 != 0;
    (*lmtp, *xclient, *xforward, *secure) = (kind & 2 != 0, kind & 4 != 0, kind & 4 != 0, kind & 8 != 0);
    *starttls &= !*secure;
    house
}

/// A whole session: the same however it is split, replies in form, 250 only for what is stored.
pub fn server(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let Some((&kind, input)) = input.split_first() else { return };
    let mut once = Speaker::new(house(kind));
    once.receive(input);
    // What is sent too early for TLS ends the session, and that depends on the splitting.
    if kind & 1 == 0 || kind & 8 != 0 {
        let mut piecewise = Speaker::new(house(kind));
        input.chunks(step).for_each(|piece| piecewise.receive(piece));
        assert_eq!((&once.said, &once.stored), (&piecewise.said, &piecewise.stored));
    }
    let mut promises = 0;
    in_form(&once.said, |line| promises += usize::from(line.starts_with(b"250 2.0.0 Ok: queued as")));
    if kind & 2 == 0 {
        assert_eq!(promises, once.stored.len());
    }
}

/// Replies that break nothing (RFC 5321 4.2); each line is given on.
fn in_form(said: &[u8], mut each: impl FnMut(&[u8])) {
    for line in said.split_inclusive(|b| *b == b'\n') {
        let Some(text) = line.strip_suffix(b"\r\n") else { panic!("a reply without CR LF") };
        assert!(line.len() <= MAX_LINE && text.iter().all(|b| (b' '..=b'~').contains(b)));
        assert!(matches!(text, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..]), "{text:?}");
        each(text);
    }
}

const LINES: [&[u8]; 16] = [
    b"EHLO c.example",
    b"LHLO c.example",
    b"MAIL FROM:<a@b>",
    b"MAIL FROM:<> SIZE=3 BODY=BINARYMIME SMTPUTF8 RET=HDRS",
    b"RCPT TO:<c@d>",
    b"RCPT TO:<postmaster>",
    b"DATA",
    b"BDAT 3",
    b"BDAT 0 LAST",
    b"RSET",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"AUTH LOGIN dQ==",
    b"*",
    b"XCLIENT ADDR=192.0.2.1 LOGIN=u",
    b"QUIT",
];

/// Events in any order, also in those that no worker would bring them in: whatever is done, the session
/// answers, in form, and comes to data only with a recipient.
pub fn events(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    let house = house(kind);
    let settings = Settings { max_errors: usize::from(kind >> 4), ..house.settings };
    let mut server: Server<Stored> = Server::new(Arc::new(settings), house.service);
    let mut said = Vec::new();
    for &octet in input {
        let (what, which) = (octet >> 4, octet & 15);
        let refusal = || Reply::coded(550, 7, 1, "no");
        let fault = || if which & 1 == 1 { DataFault::Full } else { DataFault::Loop };
        let action = server.on(match what {
            0 => Event::Opened,
            1 => Event::LongLine,
            2 => Event::BareLineEnd,
            3 => Event::TooSoon,
            4 => Event::Judged(Verdict::Accept(None)),
            5 => Event::Judged(Verdict::Refuse(refusal())),
            6 => Event::Secured,
            7 => Event::LogIn(LogIn::Challenge(vec![which; usize::from(which)])),
            8 => Event::LogIn(if which & 1 == 1 { LogIn::Done("u".into()) } else { LogIn::Refused }),
            9 => Event::Data(Ok(Stored)),
            10 => Event::Data(Err(fault())),
            11 => Event::Chunk(if which & 1 == 1 { Ok(()) } else { Err(fault()) }),
            12 => Event::NoPlace(fault()),
            13 if which == 0 => Event::TimedOut,
            _ => Event::Line(LINES[usize::from(which)]),
        });
        let action = if let Action::Swallow { then, .. } = action { *then } else { action };
        match action {
            Action::Say(reply) => reply.write_to(&mut said),
            Action::SayEach(replies) => replies.iter().for_each(|reply| reply.write_to(&mut said)),
            Action::Secure { go_ahead } => go_ahead.write_to(&mut said),
            Action::TakeData { go_ahead } => {
                assert!(server.transaction().is_some_and(|t| !t.recipients.is_empty()));
                go_ahead.write_to(&mut said);
            }
            Action::HangUp(reply) => {
                reply.write_to(&mut said);
                break;
            }
            _ => {}
        }
    }
    in_form(&said, |_| ());
}
