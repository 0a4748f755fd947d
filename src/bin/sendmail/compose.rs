//! From what a caller gives to a mail: whom it goes to, from whom, and a complete header.

use std::io::BufRead;
use std::time::{SystemTime, UNIX_EPOCH};

use posta::unix::sysexits;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::addresses::parse_list;
use posta::mail::complete::{Completion, Facts, MAX_HEADER};
use posta::mail::id::Mint;
use posta::mail::trace;

use crate::Refusal;
use crate::header::Header;
use crate::input::HeaderLines;
use crate::options::Deliver;
use crate::submit::Caller;

/// A mail whose body is still to be read.
pub struct Mail {
    pub sender: ReversePath,
    pub recipients: Vec<Mailbox>,
    /// Complete, with the empty line after it.
    pub header: Vec<u8>,
    /// What was read of the body already.
    pub body_begins: Vec<u8>,
    /// There is no more of it on stdin.
    pub ended: bool,
}

/// Reads the header from `input` and completes it.
pub fn compose(input: &mut impl BufRead, deliver: &Deliver, caller: &Caller) -> Result<Mail, Refusal> {
    let read = HeaderLines::read(input, deliver.ignore_dots)
        .map_err(|error| Refusal(sysexits::IOERR, format!("can't read the message: {error}")))?
        .ok_or_else(too_long)?;
    let header = completed(&read.lines, caller)?;
    Ok(Mail {
        sender: caller.sender.clone(),
        recipients: recipients(&Header::new(read.lines), deliver, caller)?,
        header,
        body_begins: read.body_begins,
        ended: read.ended,
    })
}

/// Those of the command line, and with `-t` those of the header; each once.
fn recipients(header: &Header, deliver: &Deliver, caller: &Caller) -> Result<Vec<Mailbox>, Refusal> {
    let mut recipients = Vec::new();
    for argument in &deliver.recipients {
        recipients.extend(read_argument(argument, &caller.hostname)?);
    }
    if deliver.from_header {
        let named = header.recipients().map_err(|bad| {
            Refusal(
                sysexits::DATA,
                format!("the message's field \"{}\" can't be read: {}", bad.name, bad.why),
            )
        })?;
        for spec in named {
            recipients.push(mailbox(&spec, &caller.hostname)?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    recipients.retain(|mailbox| seen.insert(mailbox.clone()));
    if !recipients.is_empty() {
        return Ok(recipients);
    }
    let where_to = if deliver.from_header {
        "in the message's header"
    } else {
        "on the command line; -t reads the header"
    };
    Err(Refusal(sysexits::USAGE, format!("no recipient {where_to}")))
}

/// The addresses of one argument: mostly one, but a list with commas is taken too.
pub fn read_argument(argument: &str, hostname: &str) -> Result<Vec<Mailbox>, Refusal> {
    let bad = |why: String| Refusal(sysexits::DATA, format!("\"{}\": {why}", argument.escape_debug()));
    // A line end in an address is an attack on header fields, never a slip.
    if argument.chars().any(char::is_control) {
        return Err(bad("control characters in an address".into()));
    }
    let list = parse_list(argument.as_bytes()).map_err(|why| bad(why.to_string()))?;
    list.iter().map(|listed| mailbox(&listed.spec, hostname)).collect()
}

/// An address, with this host's name where it has none.
fn mailbox(spec: &str, hostname: &str) -> Result<Mailbox, Refusal> {
    let read = Mailbox::parse(spec, true).or_else(|error| match error {
        posta::mail::address::AddressError::NoDomain => Mailbox::parse(&format!("{spec}@{hostname}"), true),
        error => Err(error),
    });
    read.map_err(|why| Refusal(sysexits::DATA, format!("\"{}\": {why}", spec.escape_debug())))
}

/// The header as it is sent, with the empty line after it.
fn completed(lines: &[Vec<u8>], caller: &Caller) -> Result<Vec<u8>, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut completion = Completion::new(Facts {
        date: trace::date(now.as_secs() as i64),
        id: Mint::new(u64::from(std::process::id())).next(now.as_micros() as u64).to_string(),
        hostname: caller.hostname.clone(),
        domain: caller.hostname.clone(),
        sender: caller.sender.clone(),
        name: caller.full_name.clone(),
        login: None,
    });
    let mut header = Vec::new();
    lines.iter().for_each(|line| completion.feed(line, &mut |octets| header.extend_from_slice(octets)));
    completion.end(&mut |octets| header.extend_from_slice(octets));
    if completion.is_too_long() { Err(too_long()) } else { Ok(header) }
}

fn too_long() -> Refusal {
    Refusal(sysexits::DATA, format!("the header is longer than {MAX_HEADER} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller {
            hostname: "host.example".into(),
            sender: ReversePath::parse("alice@host.example", false).unwrap(),
            full_name: "Alice A. \"Al\" Person".into(),
        }
    }

    fn compose_text(text: &str, deliver: &Deliver) -> Result<(Mail, String), Refusal> {
        let mail = compose(&mut text.as_bytes(), deliver, &caller())?;
        let header = String::from_utf8(mail.header.clone()).unwrap().replace("\r\n", "\n");
        Ok((mail, header))
    }

    fn to(recipients: &[&str]) -> Deliver {
        Deliver { recipients: recipients.iter().map(|r| r.to_string()).collect(), ..Deliver::default() }
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_there_stays() {
        let (_, header) = compose_text("Subject: x\n\n", &to(&["bob"])).unwrap();
        assert!(header.contains("\nFrom: \"Alice A. \\\"Al\\\" Person\" <alice@host.example>\n"), "{header}");
        assert!(header.contains("\nDate: ") && header.contains("\nMessage-ID: <"), "{header}");
        let given = "From: a@x\nDate: d\nMessage-Id: <m>\n\n";
        assert_eq!(compose_text(given, &to(&["bob"])).unwrap().1, given);
        let (_, header) = compose_text("Resent-To: c@x\nFrom: a@x\n\n", &to(&["bob"])).unwrap();
        assert!(header.contains("\nResent-From: ") && header.contains("\nResent-Date: "), "{header}");
        assert!(!header.contains("\nDate: "), "{header}");
    }

    #[test]
    fn recipients_are_completed_and_each_counts_once() {
        let deliver = Deliver { from_header: true, ..to(&["bob", "c@x,d@x"]) };
        let (mail, _) = compose_text("To: bob@host.example, e@x\n\nx", &deliver).unwrap();
        let got: Vec<String> = mail.recipients.iter().map(|m| m.to_string()).collect();
        assert_eq!(got, ["bob@host.example", "c@x", "d@x", "e@x"]);
    }

    #[test]
    fn no_recipient_and_bad_addresses_are_refused() {
        let code = |deliver: &Deliver, text: &str| compose_text(text, deliver).err().map(|refusal| refusal.0);
        assert_eq!(code(&to(&[]), "\n"), Some(64));
        assert_eq!(code(&Deliver { from_header: true, ..to(&[]) }, "Subject: x\n\n"), Some(64));
        assert_eq!(code(&Deliver { from_header: true, ..to(&[]) }, "To: a b\n\n"), Some(65));
        for bad in ["a@x\r\nBcc: v@y", "a@x\n,b@x", "a b", "a@x@y", "a@-x", "<a@x"] {
            assert_eq!(code(&to(&[bad]), "\n"), Some(65), "{bad}");
        }
    }
}
