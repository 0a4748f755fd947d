//! What a session has done, for the log.

use std::fmt;

use posta::logbook::flight::Flight;
use posta::mail::address::{Mailbox, ReversePath};
use posta::smtp::reply::Reply;
use posta::smtp::server::Question;

/// The commands, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Helo,
    Ehlo,
    Lhlo,
    StartTls,
    Auth,
    Xclient,
    Xforward,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    /// Anything else, and lines that are no commands.
    Unknown,
}

/// In the order of the log line: the verb and the octets that a client sends for it.
const NAMES: [(Verb, &str); 17] = [
    (Verb::Helo, "HELO"),
    (Verb::Ehlo, "EHLO"),
    (Verb::Lhlo, "LHLO"),
    (Verb::StartTls, "STARTTLS"),
    (Verb::Auth, "AUTH"),
    (Verb::Xclient, "XCLIENT"),
    (Verb::Xforward, "XFORWARD"),
    (Verb::Mail, "MAIL"),
    (Verb::Rcpt, "RCPT"),
    (Verb::Data, "DATA"),
    (Verb::Bdat, "BDAT"),
    (Verb::Rset, "RSET"),
    (Verb::Noop, "NOOP"),
    (Verb::Vrfy, "VRFY"),
    (Verb::Help, "HELP"),
    (Verb::Quit, "QUIT"),
    (Verb::Unknown, "UNKNOWN"),
];

impl Verb {
    /// The command that a line begins with.
    pub fn of(line: &[u8]) -> Verb {
        let end = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
        let found = NAMES.iter().find(|(_, name)| line[..end].eq_ignore_ascii_case(name.as_bytes()));
        found.map_or(Verb::Unknown, |(verb, _)| *verb)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

/// How often each command was given, and how often it was answered with a yes.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [Count; NAMES.len()],
    last: Option<Verb>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    good: u32,
    all: u32,
}

impl Tally {
    /// A command was answered.
    pub fn count(&mut self, verb: Verb, good: bool) {
        let count = &mut self.counts[verb as usize];
        count.all = count.all.saturating_add(1);
        count.good = count.good.saturating_add(u32::from(good));
        self.last = Some(verb);
    }

    /// A command has come that may never be answered.
    pub fn begin(&mut self, verb: Verb) {
        self.last = Some(verb);
    }

    /// Writes a command line down. What is no command may be a secret or a piece of mail where AUTH or
    /// DATA has been said before, and the client goes on as if it had got what it wanted.
    pub fn remember(&self, verb: Verb, line: &[u8], flight: &mut Flight) {
        let went_astray = [Verb::Auth, Verb::Data, Verb::Bdat].iter().any(|verb| self.has(*verb));
        match verb {
            Verb::Unknown if went_astray => flight.heard_secret(),
            // RFC 4954 4: the command, or the answer to a challenge.
            Verb::Auth if Verb::of(line) != Verb::Auth => flight.heard_secret(),
            _ => flight.heard(line),
        }
    }

    fn has(&self, verb: Verb) -> bool {
        self.counts[verb as usize].all > 0
    }

    /// How far the session came: the last command, or CONNECT.
    pub fn stage(&self) -> Stage {
        Stage(self.last)
    }
}

impl fmt::Display for Tally {
    /// ` ehlo=1 mail=1 rcpt=1/2 data=1 quit=1 commands=5/6`: good/all where they differ.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = Count::default();
        for ((_, name), count) in NAMES.iter().zip(self.counts) {
            if count.all > 0 {
                write!(f, " {}={count}", name.to_ascii_lowercase())?;
            }
            sum.good = sum.good.saturating_add(count.good);
            sum.all = sum.all.saturating_add(count.all);
        }
        write!(f, " commands={sum}")
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.good == self.all {
            write!(f, "{}", self.all)
        } else {
            write!(f, "{}/{}", self.good, self.all)
        }
    }
}

/// How far a session came.
#[derive(Debug)]
pub struct Stage(Option<Verb>);

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(verb) => verb.fmt(f),
            None => f.write_str("CONNECT"),
        }
    }
}

/// Whom the transaction has named last, for the log.
#[derive(Debug, Default)]
pub struct Named {
    pub sender: Option<ReversePath>,
    pub recipient: Option<Mailbox>,
}

impl Named {
    /// A question names somebody; a new sender begins a new transaction.
    pub fn remember(&mut self, question: Question) {
        match question {
            Question::Sender(sender) => *self = Named { sender: Some(sender), recipient: None },
            Question::Recipient(recipient) => self.recipient = recipient,
        }
    }
}

/// A reply as the log has it: its codes and its first line.
pub fn brief(reply: &Reply) -> String {
    let text = reply.lines.first().map_or("", String::as_str);
    match reply.status {
        Some(status) => format!("{} {status} {text}", reply.code),
        None => format!("{} {text}", reply.code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_known_in_any_case() {
        for (place, (verb, name)) in NAMES.iter().enumerate() {
            assert_eq!((*verb as usize, verb.to_string().as_str()), (place, *name));
        }
        assert_eq!(Verb::of(b"rcpt TO:<a@b>"), Verb::Rcpt);
        assert_eq!(Verb::of(b"RCPTTO:<a@b>"), Verb::Unknown);
        assert_eq!(Verb::of(b""), Verb::Unknown);
    }

    #[test]
    fn the_last_line_counts() {
        let mut tally = Tally::default();
        assert_eq!(
            (tally.to_string().as_str(), tally.stage().to_string().as_str()),
            (" commands=0", "CONNECT")
        );
        tally.count(Verb::Ehlo, true);
        tally.count(Verb::Rcpt, true);
        tally.count(Verb::Rcpt, false);
        tally.begin(Verb::Data);
        assert_eq!(tally.to_string(), " ehlo=1 rcpt=1/2 commands=2/3");
        assert_eq!(tally.stage().to_string(), "DATA");
    }
}
