//! Completes the header of a submitted message (RFC 6409 8, RFC 5322 3.6) while it passes through.
//!
//! What a message must have and does not is added at the end of its header section: From, Date and
//! Message-ID; in a message that is resent, the Resent fields of that kind (RFC 5322 3.6.6). Addresses
//! without a domain get one. Bcc, Resent-Bcc and Return-Path are left out, as is an mbox file's line
//! `From ` on top. Nothing else is touched, and of the body not an octet.
//!
//! A message that was signed (DKIM-Signature) is completed like any other: a field that its signer did
//! not have is seldom one that he signed to be missing, and without Date and From it would be no mail.
//!
//! A message whose first line is no header field has no header: it gets one, with an empty line before
//! the body. A line within the header that belongs to no field ends the header in the same way.
//!
//! Octets come in blocks of any size. Only a field with addresses is held in memory until it is whole,
//! and a header section has a [limit](MAX_HEADER).

use super::address::{Mailbox, ReversePath};
use super::addresses::unqualified;
use super::phrase::phrase;

/// Most octets of a header section that is completed; a message with more is no mail.
pub const MAX_HEADER: usize = 1024 * 1024;
/// Within so many octets a line shows its field's name (RFC 5322 2.1.1), or it belongs to no field.
const MAX_NAME: usize = 998;

/// Never passed on: whom a blind copy goes to is nobody's business (RFC 5322 3.6.3), and the return path
/// is for the last host to put on (RFC 5321 4.4).
const DROPPED: [&str; 3] = ["bcc", "resent-bcc", "return-path"];
/// Fields whose addresses get our domain where they have none.
const COMPLETED: [&str; 10] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "resent-from",
    "resent-sender",
    "resent-reply-to",
    "resent-to",
    "resent-cc",
];

/// What is put in where it is missing.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now, in the form of RFC 5322 3.3.
    pub date: String,
    /// The left part of a Message-ID: unique on this host.
    pub id: String,
    /// The right part of a Message-ID.
    pub hostname: String,
    /// Put after an address without a domain.
    pub domain: String,
    /// The envelope's sender, who becomes the author.
    pub sender: ReversePath,
    /// The author's name; empty if it is not known.
    pub name: String,
    /// Whom the client logged in as: the author if the sender is nobody.
    pub login: Option<String>,
}

/// A header section in the middle of its completion. Gives out what it is fed, changed.
#[derive(Debug)]
pub struct Completion {
    facts: Facts,
    place: Place,
    /// What belongs to the field at hand and has not been given out.
    held: Vec<u8>,
    /// Octets of the header section so far.
    size: usize,
    is_first_line: bool,
    there: There,
}

/// Where the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the start of a line, or in a field's name; all of it is held.
    Name,
    /// In a field, after its name.
    Within(Kind),
    /// At the start of a line after one of that kind of field: perhaps more of it.
    Next(Kind),
    /// Behind the header section.
    Body,
    /// The header section was too long.
    Lost,
}

/// What is done with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It goes on as it comes.
    Passed,
    /// It is left out.
    Dropped,
    /// It is held until it is whole, and its addresses get a domain.
    Completed,
}

/// Fields that were there: of the message itself, and of its being resent.
#[derive(Debug, Default)]
struct There {
    first: Trio,
    again: Trio,
    is_resent: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Trio {
    from: bool,
    date: bool,
    message_id: bool,
}

impl There {
    fn note(&mut self, name: &str) {
        let (trio, name) = match name.strip_prefix("resent-") {
            Some(rest) => {
                self.is_resent = true;
                (&mut self.again, rest)
            }
            None => (&mut self.first, name),
        };
        match name {
            "from" => trio.from = true,
            "date" => trio.date = true,
            "message-id" => trio.message_id = true,
            _ => {}
        }
    }
}

impl Completion {
    /// Of a message that has not begun yet.
    pub fn new(facts: Facts) -> Completion {
        Completion {
            facts,
            place: Place::Name,
            held: Vec::new(),
            size: 0,
            is_first_line: true,
            there: There::default(),
        }
    }

    /// Takes octets of the message, with dots undone, and gives those that go on to `sink`, in order.
    /// Lines end in CR LF, or all in LF.
    pub fn feed(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = octets;
        while !rest.is_empty() {
            let used = match self.place {
                Place::Body => {
                    sink(rest);
                    return;
                }
                Place::Lost => return,
                Place::Name => self.name(rest[0], sink),
                Place::Next(kind) => self.next(kind, rest[0], sink),
                Place::Within(kind) => self.within(kind, rest, sink),
            };
            rest = &rest[used..];
            if self.place != Place::Body {
                self.measure(used);
            }
        }
    }

    /// The message is over. One that was all header, or nothing at all, gets what it lacks now.
    pub fn end(&mut self, sink: &mut impl FnMut(&[u8])) {
        match self.place {
            Place::Body | Place::Lost => return,
            Place::Name => {}
            Place::Within(kind) => {
                // The last line lacks its end.
                match kind {
                    Kind::Passed => sink(b"\r\n"),
                    Kind::Dropped => {}
                    Kind::Completed => self.held.extend_from_slice(b"\r\n"),
                }
                self.finish(kind, sink);
            }
            Place::Next(kind) => self.finish(kind, sink),
        }
        self.begin_body(true, sink);
    }

    /// The header section has more than [`MAX_HEADER`] octets. Nothing more of the message is given out:
    /// it is to be refused, as too large.
    pub fn is_too_long(&self) -> bool {
        self.place == Place::Lost
    }

    fn measure(&mut self, octets: usize) {
        self.size += octets;
        if self.size > MAX_HEADER {
            self.held = Vec::new();
            self.place = Place::Lost;
        }
    }

    /// Takes the next octet of what may be a field's name.
    fn name(&mut self, octet: u8, sink: &mut impl FnMut(&[u8])) -> usize {
        self.held.push(octet);
        let before = &self.held[..self.held.len() - 1];
        let has_begun = before.first().is_some_and(u8::is_ascii_graphic);
        let goes_on = before.last().is_none_or(u8::is_ascii_graphic);
        match octet {
            b'\n' if before.is_empty() || before == b"\r" => self.begin_body(false, sink),
            b'\r' if before.is_empty() => {}
            _ if before.len() >= MAX_NAME => self.begin_body(true, sink),
            b':' if has_begun => self.begin_field(sink),
            // RFC 5322 4.5.3: blanks before the colon are obsolete, and there.
            b' ' | b'\t' if has_begun => {}
            b'!'..=b'~' if octet != b':' && goes_on => {}
            // Not before: "From :" may be the field of that name.
            _ if self.is_first_line && is_from_line(&self.held) => {
                self.begin_kind(Kind::Dropped);
                if octet == b'\n' {
                    self.place = Place::Next(Kind::Dropped);
                }
            }
            _ => self.begin_body(true, sink),
        }
        1
    }

    fn begin_field(&mut self, sink: &mut impl FnMut(&[u8])) {
        let name = self.held[..self.held.len() - 1].trim_ascii_end();
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.there.note(&name);
        if DROPPED.contains(&name.as_str()) {
            self.begin_kind(Kind::Dropped);
        } else if COMPLETED.contains(&name.as_str()) {
            self.begin_kind(Kind::Completed);
        } else {
            sink(&self.held);
            self.begin_kind(Kind::Passed);
        }
    }

    fn begin_kind(&mut self, kind: Kind) {
        if kind != Kind::Completed {
            self.held.clear();
        }
        self.is_first_line = false;
        self.place = Place::Within(kind);
    }

    /// Takes octets of a field up to the end of its line.
    fn within(&mut self, kind: Kind, octets: &[u8], sink: &mut impl FnMut(&[u8])) -> usize {
        let line_end = memchr::memchr(b'\n', octets);
        let used = line_end.map_or(octets.len(), |at| at + 1);
        match kind {
            Kind::Passed => sink(&octets[..used]),
            Kind::Dropped => {}
            Kind::Completed => self.held.extend_from_slice(&octets[..used]),
        }
        if line_end.is_some() {
            self.place = Place::Next(kind);
        }
        used
    }

    /// RFC 5322 2.2.3: a line that begins with a blank belongs to the field before.
    fn next(&mut self, kind: Kind, octet: u8, sink: &mut impl FnMut(&[u8])) -> usize {
        if matches!(octet, b' ' | b'\t') {
            self.place = Place::Within(kind);
        } else {
            self.finish(kind, sink);
            self.place = Place::Name;
        }
        0
    }

    /// A field is whole.
    fn finish(&mut self, kind: Kind, sink: &mut impl FnMut(&[u8])) {
        if kind == Kind::Completed {
            qualify(&self.held, &self.facts.domain, sink);
            self.held.clear();
        }
    }

    /// The header section ends before what is held: an empty line, or (`needs_empty_line`) what belongs
    /// to the body already.
    fn begin_body(&mut self, needs_empty_line: bool, sink: &mut impl FnMut(&[u8])) {
        sink(self.missing().as_bytes());
        if needs_empty_line {
            sink(b"\r\n");
        }
        sink(&self.held);
        self.held = Vec::new();
        self.place = Place::Body;
    }

    /// The fields that were not there.
    fn missing(&self) -> String {
        let (prefix, there) = match self.there.is_resent {
            true => ("Resent-", self.there.again),
            false => ("", self.there.first),
        };
        let mut fields = String::new();
        if !there.from {
            fields += &format!("{prefix}From: {}\r\n", self.author());
        }
        if !there.date {
            fields += &format!("{prefix}Date: {}\r\n", self.facts.date);
        }
        if !there.message_id {
            fields += &format!("{prefix}Message-ID: <{}@{}>\r\n", self.facts.id, self.facts.hostname);
        }
        fields
    }

    /// `Full Name <address>`.
    fn author(&self) -> String {
        let Facts { sender, login, domain, hostname, name, .. } = &self.facts;
        let logged_in =
            |login: &String| Mailbox::parse(login, true).or_else(|_| Mailbox::from_parts(login, domain)).ok();
        let address = match sender.mailbox().cloned().or_else(|| login.as_ref().and_then(logged_in)) {
            Some(mailbox) => mailbox.to_string(),
            None => format!("MAILER-DAEMON@{hostname}"),
        };
        match name.trim() {
            "" => address,
            name => format!("{} <{address}>", phrase(name)),
        }
    }
}

/// The line that begins a message in an mbox file.
fn is_from_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

/// Gives out a field with `@domain` after each address that has none. One that can't be read stays as it
/// is.
fn qualify(field: &[u8], domain: &str, sink: &mut impl FnMut(&[u8])) {
    let start = memchr::memchr(b':', field).map_or(field.len(), |colon| colon + 1);
    let mut given = 0;
    for at in unqualified(&field[start..]).unwrap_or_default() {
        sink(&field[given..start + at]);
        sink(b"@");
        sink(domain.as_bytes());
        given = start + at;
    }
    sink(&field[given..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDED: &str = "From: alice@example.org\r\nDate: D\r\nMessage-ID: <ID@mail.example.org>\r\n";

    fn facts() -> Facts {
        Facts {
            date: "D".into(),
            id: "ID".into(),
            hostname: "mail.example.org".into(),
            domain: "example.org".into(),
            sender: ReversePath::parse("alice@example.org", false).unwrap(),
            name: String::new(),
            login: None,
        }
    }

    fn fed(message: &[u8], step: usize, facts: Facts) -> (Vec<u8>, bool) {
        let mut completion = Completion::new(facts);
        let mut out = Vec::new();
        message
            .chunks(step)
            .for_each(|piece| completion.feed(piece, &mut |octets| out.extend_from_slice(octets)));
        completion.end(&mut |octets| out.extend_from_slice(octets));
        (out, completion.is_too_long())
    }

    /// The same for pieces of any size.
    fn completed(message: &str) -> String {
        let whole = fed(message.as_bytes(), 1 << 20, facts()).0;
        for step in 1..4 {
            assert_eq!(fed(message.as_bytes(), step, facts()).0, whole);
        }
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_at_the_headers_end() {
        assert_eq!(completed("Subject: s\r\n\r\nbody\r\n"), format!("Subject: s\r\n{ADDED}\r\nbody\r\n"));
        let given = "FROM: a@x\r\nDate : d\r\nMessage-Id:\r\n <m>\r\n\r\nDate: none\r\n";
        assert_eq!(completed(given), given);
        let text = completed("From: a@x\r\nMessage-ID: <m>\r\n\r\n");
        assert_eq!(text, "From: a@x\r\nMessage-ID: <m>\r\nDate: D\r\n\r\n");
    }

    #[test]
    fn a_message_without_a_header_gets_one() {
        assert_eq!(completed(""), format!("{ADDED}\r\n"));
        assert_eq!(completed("\r\nbody\r\n"), format!("{ADDED}\r\nbody\r\n"));
        assert_eq!(completed("no field here\r\nA: 1\r\n"), format!("{ADDED}\r\nno field here\r\nA: 1\r\n"));
        assert_eq!(completed(" indented\r\n"), format!("{ADDED}\r\n indented\r\n"));
        assert_eq!(completed("ü: x\r\n"), format!("{ADDED}\r\nü: x\r\n"));
        assert_eq!(completed(":x\r\n"), format!("{ADDED}\r\n:x\r\n"));
        assert_eq!(completed("half a line"), format!("{ADDED}\r\nhalf a line"));
        let long = format!("{}:\r\n", "x".repeat(2000));
        assert_eq!(completed(&long), format!("{ADDED}\r\n{long}"));
    }

    #[test]
    fn a_line_of_no_field_ends_the_header() {
        assert_eq!(
            completed("A: 1\r\nno field\r\nB: 2\r\n"),
            format!("A: 1\r\n{ADDED}\r\nno field\r\nB: 2\r\n")
        );
        assert_eq!(completed("A: 1\r\n"), format!("A: 1\r\n{ADDED}\r\n"));
        assert_eq!(completed("A: 1"), format!("A: 1\r\n{ADDED}\r\n"));
        assert_eq!(completed("A: 1\r\nB"), format!("A: 1\r\n{ADDED}\r\nB"));
        assert_eq!(completed("To: bob"), format!("To: bob@example.org\r\n{ADDED}\r\n"));
    }

    #[test]
    fn private_fields_go_with_all_their_lines() {
        let text = "Bcc: b@x,\r\n c@x,\r\n\td@x\r\nbcc : e@x\r\nA: 1\r\nResent-Bcc: f@x\r\nReturn-Path: <g@x>\r\n\r\nBcc: y\r\n";
        let resent = ADDED.replace("From:", "Resent-From:").replace("Date:", "Resent-Date:");
        let resent = resent.replace("Message-ID:", "Resent-Message-ID:");
        assert_eq!(completed(text), format!("A: 1\r\n{resent}\r\nBcc: y\r\n"));
        assert_eq!(completed("Bcc: a"), format!("{ADDED}\r\n"));
        assert_eq!(completed("From x Mon\r\nA: 1\r\n\r\n"), format!("A: 1\r\n{ADDED}\r\n"));
        assert_eq!(completed("From \nA: 1\r\n\r\n"), format!("A: 1\r\n{ADDED}\r\n"));
        let given = "From : a@x\r\nDate: d\r\nMessage-ID: m\r\n\r\n";
        assert_eq!(completed(given), given, "a field, if an odd one");
        assert_eq!(completed("A: 1\r\nFrom x\r\n"), format!("A: 1\r\n{ADDED}\r\nFrom x\r\n"));
    }

    #[test]
    fn addresses_without_a_domain_get_ours() {
        let text = completed(
            "From: root (Cron Daemon)\r\nTo: Bob <bob>,\r\n al, c@y\r\nSubject: bob\r\nCc: broken <\r\n\
             Reply-To: friends: a, b@x;\r\nSender: <>\r\nDate: d\r\nMessage-ID: m\r\n\r\n",
        );
        assert_eq!(
            text,
            "From: root@example.org (Cron Daemon)\r\nTo: Bob <bob@example.org>,\r\n al@example.org, c@y\r\n\
             Subject: bob\r\nCc: broken <\r\nReply-To: friends: a@example.org, b@x;\r\nSender: <>\r\nDate: d\r\n\
             Message-ID: m\r\n\r\n"
        );
    }

    #[test]
    fn who_sends_is_the_author() {
        let from = |facts: Facts| {
            let text = String::from_utf8(fed(b"Date: d\r\nMessage-ID: m\r\n\r\n", 99, facts).0).unwrap();
            text.lines().nth(2).unwrap().to_string()
        };
        assert_eq!(
            from(Facts { name: "A. Person".into(), ..facts() }),
            "From: \"A. Person\" <alice@example.org>"
        );
        let nobody = Facts { sender: ReversePath::Null, ..facts() };
        assert_eq!(from(nobody.clone()), "From: MAILER-DAEMON@mail.example.org");
        assert_eq!(from(Facts { login: Some("bob".into()), ..nobody.clone() }), "From: bob@example.org");
        assert_eq!(from(Facts { login: Some("bob@y".into()), ..nobody.clone() }), "From: bob@y");
        let forged = from(Facts { login: Some("b\r\nX: y".into()), ..nobody });
        assert_eq!(forged, "From: MAILER-DAEMON@mail.example.org");
    }

    #[test]
    fn an_endless_header_is_noticed_and_given_up() {
        for line in ["A: x\r\n", "To: bob\r\n", "Bcc: x\r\n", "To: x,\r\n ", "X: "] {
            let (out, is_too_long) = fed(line.repeat(MAX_HEADER / 2).as_bytes(), 4096, facts());
            assert!(is_too_long && out.len() <= 3 * MAX_HEADER, "{line}");
        }
        let body = "x".repeat(3 * MAX_HEADER);
        assert!(!fed(format!("A: 1\r\n\r\n{body}").as_bytes(), 4096, facts()).1);
        assert!(!fed(body.as_bytes(), 4096, facts()).1);
    }

    #[test]
    fn many_bare_names_take_no_time_for_each_other() {
        let list = "a,".repeat(MAX_HEADER / 2 - 100);
        let (out, is_too_long) = fed(format!("To: {list}\r\n\r\n").as_bytes(), 4096, facts());
        assert!(!is_too_long);
        assert_eq!(out.len(), 8 + list.len() + (MAX_HEADER / 2 - 100) * 12 + ADDED.len());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_and_a_second_pass_nothing_new(
            message in "((Bcc|From|To|Date|X|From x|Resent-To)?[ :]?(a|,|<|\\(|\u{e4}| )?(\r\n|\r\n\r\n| )){0,12}",
            step in 1usize..9,
        ) {
            let once = fed(message.as_bytes(), usize::MAX, facts()).0;
            prop_assert_eq!(&fed(message.as_bytes(), step, facts()).0, &once);
            prop_assert_eq!(&fed(&once, step, facts()).0, &once);
        }

        #[test]
        fn a_body_is_never_touched(body in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            let message = [b"To: bob\r\n\r\n", &body[..]].concat();
            let out = fed(&message, step, facts()).0;
            prop_assert!(out.ends_with(&[b"\r\n\r\n", &body[..]].concat()));
        }
    }
}
