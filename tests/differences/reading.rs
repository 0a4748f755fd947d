//! Who reads, and what comes of it, in a form that can be compared.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use posta::mail::addresses::parse_list;
use posta::mail::header;
use posta::mail::structure::{Role, Walker};

use crate::input::Input;

/// Python may take so long for all; it is far quicker.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Addresses of a list.
    List,
    /// The fields of a header section.
    Header,
    /// The leaves of a message.
    Mime,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::List, Kind::Header, Kind::Mime];
}

/// Somebody else who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    Mailparse,
    Python,
}

/// What was found, piece by piece; none: it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(pub Option<Vec<Vec<u8>>>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("unreadable"),
            Some(pieces) => pieces.iter().try_for_each(|piece| write!(f, "[{}] ", piece.escape_ascii())),
        }
    }
}

impl Input {
    /// As we read it.
    pub fn read(&self) -> Found {
        Found(match self.kind {
            Kind::List => parse_list(&self.octets)
                .ok()
                .map(|list| list.into_iter().map(|one| bare(one.spec.as_bytes())).collect()),
            Kind::Header => Some(
                header::fields(&self.octets).map(|field| entry(field.name, field.value)).collect::<Vec<_>>(),
            ),
            Kind::Mime => leaves(&self.octets),
        })
    }

    /// As mailparse reads it.
    pub fn read_by_mailparse(&self) -> Found {
        Found(match self.kind {
            Kind::List => std::str::from_utf8(&self.octets).ok().and_then(|text| {
                let list = mailparse::addrparse(text).ok()?;
                let mut found = Vec::new();
                for address in list.iter() {
                    match address {
                        mailparse::MailAddr::Single(one) => found.push(bare(one.addr.as_bytes())),
                        mailparse::MailAddr::Group(group) => {
                            found.extend(group.addrs.iter().map(|one| bare(one.addr.as_bytes())));
                        }
                    }
                }
                Some(found)
            }),
            Kind::Header => mailparse::parse_headers(&self.octets).ok().map(|(fields, _)| {
                fields.iter().map(|field| entry(field.get_key_raw(), field.get_value_raw())).collect()
            }),
            Kind::Mime => mailparse::parse_mail(&self.octets).ok().and_then(|mail| {
                let mut found = Vec::new();
                collect(&mail, &mut found)?;
                Some(found)
            }),
        })
    }
}

/// The leaves' contents as they stand, as the walker gives them; none where it says that it can't know.
fn leaves(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut walker = Walker::new();
    let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut visit = |entity: &posta::mail::structure::Entity, role: Role, piece: &[u8]| {
        use posta::mail::structure::Nature;
        let is_leaf = !matches!(entity.nature, Nature::Multipart | Nature::Message);
        match role {
            Role::HeaderEnd if is_leaf => found.push((entity.number, Vec::new())),
            Role::Content if found.last().is_some_and(|(number, _)| *number == entity.number) => {
                if let Some((_, content)) = found.last_mut() {
                    content.extend_from_slice(piece);
                }
            }
            _ => {}
        }
    };
    walker.feed(message, &mut visit);
    walker.finish(&mut visit);
    walker.unclear().is_none().then(|| found.into_iter().map(|(_, content)| bare_content(&content)).collect())
}

fn collect(mail: &mailparse::ParsedMail, found: &mut Vec<Vec<u8>>) -> Option<()> {
    if mail.ctype.mimetype == "message/rfc822" {
        let inner = mail.get_body_encoded();
        let octets = body_of(&inner);
        return collect(&mailparse::parse_mail(octets).ok()?, found);
    }
    if mail.subparts.is_empty() {
        found.push(bare_content(body_of(&mail.get_body_encoded())));
        return Some(());
    }
    mail.subparts.iter().try_for_each(|part| collect(part, found))
}

fn body_of<'a>(body: &mailparse::body::Body<'a>) -> &'a [u8] {
    use mailparse::body::Body;
    match body {
        Body::Base64(body) | Body::QuotedPrintable(body) => body.get_raw(),
        Body::SevenBit(body) | Body::EightBit(body) => body.get_raw(),
        Body::Binary(body) => body.get_raw(),
    }
}

/// An address without the quotes that it need not have: whether they belong to it nobody agrees on.
fn bare(address: &[u8]) -> Vec<u8> {
    address.iter().copied().filter(|octet| !b"\"\\ \t\r\n".contains(octet)).collect()
}

/// A field's name and value, unfolded, without blanks around it.
fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    let value: Vec<u8> = value.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    [name.trim_ascii(), b": ", value.trim_ascii()].concat()
}

/// Content without the line end before a delimiter, which belongs to that (RFC 2046 5.1.1).
fn bare_content(content: &[u8]) -> Vec<u8> {
    content.trim_ascii_end().to_vec()
}

/// As Python reads all of them; none: there is no Python.
pub fn read_by_python(script: &Path, inputs: &[Input]) -> Option<Vec<Found>> {
    Command::new("python3").arg("-V").stdout(Stdio::null()).status().ok()?;
    let mut questions = tempfile::tempfile().unwrap();
    let hexadecimal = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let text: String = inputs
        .iter()
        .map(|input| {
            format!("{} {}\n", format!("{:?}", input.kind).to_lowercase(), hexadecimal(&input.octets))
        })
        .collect();
    questions.write_all(text.as_bytes()).unwrap();
    questions.rewind().unwrap();
    let mut answers = tempfile::tempfile().unwrap();
    let mut python = Command::new("python3")
        .arg(script)
        .stdin(questions)
        .stdout(File::try_clone(&answers).unwrap())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    while python.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            python.kill().unwrap();
            panic!("Python has not ended in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    answers.rewind().unwrap();
    let mut text = String::new();
    answers.read_to_string(&mut text).unwrap();
    let found: Vec<Found> =
        inputs.iter().zip(text.lines()).map(|(input, line)| answer(input.kind, line)).collect();
    assert_eq!(found.len(), inputs.len(), "Python has answered less than it was asked");
    Some(found)
}

fn answer(kind: Kind, line: &str) -> Found {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let Some(pieces) = value.as_array() else { return Found(None) };
    let octets = |text: &serde_json::Value| {
        let text = text.as_str().unwrap();
        let octet = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        (0..text.len() / 2).map(octet).collect::<Vec<u8>>()
    };
    let piece = |piece: &serde_json::Value| match kind {
        Kind::List => bare(&octets(piece)),
        Kind::Header => entry(&octets(&piece[0]), &octets(&piece[1])),
        Kind::Mime => bare_content(&octets(piece)),
    };
    Found(Some(pieces.iter().map(piece).collect()))
}
