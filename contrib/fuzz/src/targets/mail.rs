//! Addresses, headers, bodies.

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::addresses::{parse_list, unqualified};
use posta::mail::complete::{Completion, Facts};
use posta::mail::convert::{Converter, Survey, Unfit};
use posta::mail::envelope::{Notify, from_xtext};
use posta::mail::header;
use posta::mail::status::Status;
use posta::mail::trace;

use super::split;

/// An address, and the small values beside it: what is read is written so that it is read again.
pub fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(mailbox) = Mailbox::parse(text, true) {
        let written = mailbox.to_string();
        assert!(!written.chars().any(|c| c.is_ascii_control()), "{written:?}");
        assert_eq!(Mailbox::parse(&written, true).as_ref(), Ok(&mailbox));
        assert_eq!(Mailbox::parse(text, false).is_ok(), text.is_ascii());
        assert!(!trace::delivered_to(&mailbox).trim_end().contains(['\r', '\n']));
    }
    if let Ok(path) = ReversePath::parse(text, true) {
        assert_eq!(ReversePath::parse(&path.to_string(), true).as_ref(), Ok(&path));
    }
    if let Some(notify) = Notify::parse(text) {
        assert_eq!(Notify::parse(&notify.keyword().unwrap_or_default()), Some(notify));
    }
    if let Some(status) = Status::parse(text) {
        assert_eq!(Status::parse(&status.to_string()), Some(status));
    }
    let _ = from_xtext(text);
}

/// A list of addresses: once a domain is put where one lacks, none lacks any more.
pub fn addresses(input: &[u8]) {
    let Ok(places) = unqualified(input) else { return };
    let listed = parse_list(input).expect("both read the same");
    assert_eq!(listed.iter().filter_map(|one| one.unqualified_at).collect::<Vec<_>>(), places);
    let (mut whole, mut from) = (Vec::new(), 0);
    for at in places {
        whole.extend_from_slice(&input[from..at]);
        whole.extend_from_slice(b"@x");
        from = at;
    }
    whole.extend_from_slice(&input[from..]);
    assert_eq!(unqualified(&whole), Ok(Vec::new()));
}

/// The fields of a header: found where they lie, each once.
pub fn header(input: &[u8]) {
    let (section, body) = header::split(input);
    assert!(section.len() + body.len() <= input.len());
    let mut length = 0;
    for field in header::fields(input) {
        length += field.raw.len();
        assert!(header::is_field(field.raw));
        let text = field.text();
        assert!(!text.contains(['\r', '\n']));
        let mut out = Vec::new();
        header::write(&mut out, "X", &text);
        assert_eq!(header::fields(&out).count(), 1);
    }
    assert!(length <= section.len());
    let _ = trace::hops(input);
}

/// A submitted message's header: completed the same however it is split, and only once.
pub fn complete(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let once = completed(input, input.len().max(1));
    assert_eq!(completed(input, step), once);
    assert_eq!(completed(&once, step), once);
    let fields: Vec<_> = header::fields(&once).collect();
    assert!(!fields.iter().any(|f| f.is("Bcc") || f.is("Resent-Bcc") || f.is("Return-Path")));
    let is_resent = fields.iter().any(|f| f.name.to_ascii_lowercase().starts_with(b"resent-"));
    let prefix = if is_resent { "Resent-" } else { "" };
    for name in ["From", "Date", "Message-ID"] {
        assert!(fields.iter().any(|f| f.is(&format!("{prefix}{name}"))), "{name}");
    }
}

fn completed(message: &[u8], step: usize) -> Vec<u8> {
    let mut completion = Completion::new(Facts {
        date: "Tue, 24 Nov 2026 20:00:00 +0000".into(),
        id: "ID".into(),
        hostname: "mail.example.org".into(),
        domain: "example.org".into(),
        sender: ReversePath::Null,
        name: String::new(),
        login: None,
    });
    let mut out = Vec::new();
    message
        .chunks(step)
        .for_each(|piece| completion.feed(piece, &mut |octets| out.extend_from_slice(octets)));
    completion.end(&mut |octets| out.extend_from_slice(octets));
    out
}

/// Conversion to seven bits: the same however it is split, and there is nothing left to be converted.
pub fn convert(input: &[u8]) {
    let Some((step, input)) = split(input) else { return };
    let once = converted(input, input.len().max(1));
    assert_eq!(converted(input, step), once);
    let Ok(once) = once else { return };
    assert!(once.is_ascii() && !once.contains(&0));
    let ends = once.iter().filter(|b| matches!(b, b'\r' | b'\n')).count();
    assert_eq!(once.windows(2).filter(|pair| pair == b"\r\n").count() * 2, ends);
    assert_eq!(converted(&once, step).as_ref(), Ok(&once));
}

fn converted(message: &[u8], step: usize) -> Result<Vec<u8>, Unfit> {
    let mut survey = Survey::new();
    message.chunks(step).for_each(|piece| survey.feed(piece));
    let plan = survey.finish()?;
    let mut converter = Converter::new(&plan);
    let mut out = Vec::new();
    message.chunks(step).for_each(|piece| converter.feed(piece, &mut out));
    converter.finish(&mut out);
    Ok(out)
}
