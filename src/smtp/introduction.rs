//! What a trusted host says of the client that it speaks for: the attributes of XCLIENT and XFORWARD,
//! as Postfix has them (XCLIENT_README, XFORWARD_README).

use std::net::IpAddr;

use thiserror::Error;

use crate::mail::address::MAX_DOMAIN;
use crate::mail::envelope::from_xtext;

use super::reply::Reply;

/// The attributes of XCLIENT, as its line in the answer to EHLO has them.
pub const XCLIENT: &[&str] = &["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"];
/// The attributes of XFORWARD.
pub const XFORWARD: &[&str] = &["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

/// What was said of one attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Told<T> {
    /// Nothing.
    #[default]
    Nothing,
    /// That it is not known, or not known now.
    Unknown,
    /// This.
    Value(T),
}

impl<T> Told<T> {
    /// What it is, if that was said.
    pub fn value(&self) -> Option<&T> {
        match self {
            Told::Value(value) => Some(value),
            Told::Nothing | Told::Unknown => None,
        }
    }

    /// Whether something was said.
    pub fn is_said(&self) -> bool {
        !matches!(self, Told::Nothing)
    }

    fn update(&mut self, later: Told<T>) {
        if later.is_said() {
            *self = later;
        }
    }
}

/// What was said of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// NAME: its name in the DNS.
    pub name: Told<String>,
    /// ADDR
    pub address: Told<IpAddr>,
    /// PORT
    pub port: Told<u16>,
    /// PROTO: whether it said EHLO.
    pub extended: Told<bool>,
    /// HELO: what it called itself.
    pub helo: Told<String>,
    /// LOGIN: the name that it has shown to be its own.
    pub login: Told<String>,
    /// IDENT: what the host that speaks for it calls the message.
    pub ident: Told<String>,
}

/// Why an introduction can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntroductionError {
    /// No attributes at all, or not written as they must be.
    #[error("attributes are written NAME=value, with blanks between them")]
    Malformed,
    /// No such attribute.
    #[error("no attribute {0}; see the answer to EHLO")]
    Unknown(String),
    /// Its value is not what it has to be.
    #[error("{0}: that is no value of it")]
    Value(&'static str),
}

impl IntroductionError {
    /// The reply to such a command.
    pub fn reply(&self) -> Reply {
        Reply::coded(501, 5, 4, self.to_string())
    }
}

impl Introduction {
    /// Reads attributes; `known` are those that the command has.
    pub fn parse(text: &str, known: &[&'static str]) -> Result<Introduction, IntroductionError> {
        let mut introduction = Introduction::default();
        let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
        words.peek().ok_or(IntroductionError::Malformed)?;
        for word in words {
            let (name, value) = word.split_once('=').ok_or(IntroductionError::Malformed)?;
            let name = *known
                .iter()
                .find(|known| known.eq_ignore_ascii_case(name))
                .ok_or_else(|| IntroductionError::Unknown(name.to_ascii_uppercase()))?;
            introduction.read(name, value).ok_or(IntroductionError::Value(name))?;
        }
        Ok(introduction)
    }

    /// Adds what was said later; it counts more.
    pub fn update(&mut self, later: Introduction) {
        self.name.update(later.name);
        self.address.update(later.address);
        self.port.update(later.port);
        self.extended.update(later.extended);
        self.helo.update(later.helo);
        self.login.update(later.login);
        self.ident.update(later.ident);
    }

    /// Takes one attribute in; `None` if the value is none.
    fn read(&mut self, name: &str, value: &str) -> Option<()> {
        if ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| word.eq_ignore_ascii_case(value)) {
            match name {
                "NAME" => self.name = Told::Unknown,
                "ADDR" => self.address = Told::Unknown,
                "PORT" => self.port = Told::Unknown,
                "PROTO" => self.extended = Told::Unknown,
                "HELO" => self.helo = Told::Unknown,
                "LOGIN" => self.login = Told::Unknown,
                "IDENT" => self.ident = Told::Unknown,
                _ => {}
            }
            return Some(());
        }
        let value = from_xtext(value).filter(|value| is_word(value))?;
        match name {
            "NAME" => self.name = Told::Value(value),
            "ADDR" => self.address = Told::Value(address(&value)?),
            "PORT" => self.port = Told::Value(value.parse().ok()?),
            "PROTO" => self.extended = Told::Value(is_extended(&value)?),
            "HELO" => self.helo = Told::Value(value),
            "LOGIN" => self.login = Told::Value(value),
            "IDENT" => self.ident = Told::Value(value),
            // Where the client connected to, and whether from outside: checked, and of no use here.
            "DESTADDR" => drop(address(&value)?),
            "DESTPORT" => drop(value.parse::<u16>().ok()?),
            "SOURCE" => drop(["LOCAL", "REMOTE"].iter().find(|word| word.eq_ignore_ascii_case(&value))?),
            _ => return None,
        }
        Some(())
    }
}

/// Printable, in one line, and no longer than a name may be.
fn is_word(value: &str) -> bool {
    (1..=MAX_DOMAIN).contains(&value.len()) && !value.chars().any(char::is_control)
}

/// An IPv4 address, or an IPv6 one behind `IPV6:`, as RFC 5321 4.1.3 writes them.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_at_checked(5) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPV6:") => v6.parse().ok().map(IpAddr::V6),
        _ => text.parse().ok().map(IpAddr::V4),
    }
}

fn is_extended(protocol: &str) -> Option<bool> {
    match protocol.to_ascii_uppercase().as_str() {
        "SMTP" => Some(false),
        "ESMTP" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_read() {
        let text = " name=h.example ADDR=IPv6:2001:db8::1 PORT=25 PROTO=esmtp HELO=a+2Bb LOGIN=[unavailable]";
        let told = Introduction::parse(text, XCLIENT).unwrap();
        assert_eq!(told.name.value().map(String::as_str), Some("h.example"));
        assert_eq!(told.address.value(), Some(&"2001:db8::1".parse().unwrap()));
        assert_eq!((&told.port, &told.extended), (&Told::Value(25), &Told::Value(true)));
        assert_eq!(told.helo, Told::Value("a+b".to_string()));
        assert_eq!(told.login, Told::Unknown);
        assert!(!told.ident.is_said());
        let mut both = told.clone();
        both.update(Introduction::parse("LOGIN=alice HELO=[TEMPUNAVAIL]", XCLIENT).unwrap());
        assert_eq!(both.login, Told::Value("alice".to_string()));
        assert_eq!((both.helo, both.name), (Told::Unknown, told.name));
        assert!(Introduction::parse("IDENT=3Y SOURCE=LOCAL", XFORWARD).is_ok());
    }

    #[test]
    fn wrong_ones_are_not() {
        for text in
            ["", "NAME", "ADDR=::1", "ADDR=x", "PORT=65536", "PROTO=HTTP", "HELO=", "HELO=a+0Ab", "X=1"]
        {
            assert_eq!(Introduction::parse(text, XCLIENT).unwrap_err().reply().code, 501, "{text}");
        }
        assert!(Introduction::parse("LOGIN=alice", XFORWARD).is_err());
        assert!(Introduction::parse("SOURCE=ELSEWHERE", XFORWARD).is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "((NAME|ADDR|PROTO|PORT|X)=?[ -~]{0,9} ?){0,4}\\PC{0,9}") {
            let _ = (Introduction::parse(&text, XCLIENT), Introduction::parse(&text, XFORWARD));
        }
    }
}
