//! A text file that answers in place of the DNS, for tests.
//!
//! ```text
//! # a comment
//! example.org   MX     10 mx.example.org
//! null.example  MX     0 .
//! mx.example.org A     127.0.0.1
//! mx.example.org AAAA  ::1
//! www.example   CNAME  example.org
//! 127.0.0.1     PTR    mx.example.org
//! example.org   TXT    any text
//! empty.example EMPTY
//! broken.example SERVFAIL
//! silent.example TIMEOUT
//! ```
//!
//! A name that is not in the file does not exist; one that is there without the record asked for
//! (`EMPTY` makes one without any) has no such data. The owner of a PTR record is an IP address or
//! its name under `arpa`. `TIMEOUT` fails at once, as after a timeout.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use super::answer::{
    Answer, Data, Kind, LookupError, MAX_ALIASES, Names, Picked, Record, SourceError, pick, wire_name,
};
use super::reverse::arpa_name;

/// How long the file's records hold, in seconds.
const TTL: u32 = 60;

/// The names of a file.
#[derive(Debug, Default)]
pub struct Zone {
    names: HashMap<String, Owned>,
}

/// What the file says of a name.
#[derive(Debug)]
enum Owned {
    Records(Vec<Record>),
    Fails(LookupError),
}

impl Zone {
    /// Reads a file; the error names the line that is not understood.
    pub fn read(file: &Path) -> Result<Zone, SourceError> {
        let text = std::fs::read_to_string(file).map_err(|e| SourceError::File(file.into(), e))?;
        Zone::parse(&text).map_err(|(line, what)| SourceError::Line(file.into(), line, what))
    }

    /// Reads a file's text; the error is the number of a line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Zone, (usize, String)> {
        let mut zone = Zone::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                zone.add(line).map_err(|what| (number, what))?;
            }
        }
        Ok(zone)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (owner, rest) = line.split_once(char::is_whitespace).ok_or("a name and a type are wanted")?;
        let owner = match owner.parse::<IpAddr>() {
            Ok(address) => arpa_name(address),
            Err(_) => name(owner)?,
        };
        let rest = rest.trim();
        let (kind, data) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let data = match (kind.to_ascii_uppercase().as_str(), data.trim()) {
            ("SERVFAIL", "") => return self.fail(owner, LookupError::Refused("SERVFAIL".into())),
            ("TIMEOUT", "") => return self.fail(owner, LookupError::TimedOut),
            ("EMPTY", "") => None,
            ("A", ip) => Some(Data::A(ip.parse().map_err(|_| format!("\"{ip}\" is no IPv4 address"))?)),
            ("AAAA", ip) => Some(Data::Aaaa(ip.parse().map_err(|_| format!("\"{ip}\" is no IPv6 address"))?)),
            ("MX", data) => Some(exchanger(data)?),
            ("PTR", to) => Some(Data::Ptr(name(to)?)),
            ("CNAME", to) => Some(Data::Cname(name(to)?)),
            ("TXT", text) => Some(Data::Txt(text.trim_matches('"').as_bytes().to_vec())),
            (other, _) => return Err(format!("\"{other}\" is no type that a zone file knows")),
        };
        match self.names.entry(owner.clone()).or_insert_with(|| Owned::Records(Vec::new())) {
            Owned::Records(records) => records.extend(data.map(|data| (owner, TTL, data))),
            Owned::Fails(_) => return Err(format!("{owner} fails, so it can have no records")),
        }
        Ok(())
    }

    fn fail(&mut self, owner: String, error: LookupError) -> Result<(), String> {
        match self.names.insert(owner.clone(), Owned::Fails(error)) {
            None => Ok(()),
            Some(_) => Err(format!("{owner} is already there, so it can't fail")),
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    wire_name(text).map_err(|_| format!("\"{text}\" is no name"))
}

fn exchanger(data: &str) -> Result<Data, String> {
    let (preference, host) = data.split_once(char::is_whitespace).ok_or("MX wants a number and a name")?;
    let preference = preference.parse().map_err(|_| format!("\"{preference}\" is no preference"))?;
    let host = host.trim();
    Ok(Data::Mx(preference, if host == "." { String::new() } else { name(host)? }))
}

impl Names for Zone {
    fn look_up(&self, name: &str, kind: Kind) -> Result<Answer, LookupError> {
        let mut name = wire_name(name)?;
        for _ in 0..=MAX_ALIASES {
            let records = match self.names.get(&name) {
                None => return Err(LookupError::NoName),
                Some(Owned::Fails(error)) => return Err(error.clone()),
                Some(Owned::Records(records)) => records,
            };
            match pick(records, &name, kind)? {
                Picked::Data(data, ttl) => return Ok(Answer { data, ttl, secure: false }),
                Picked::Ask(next) => name = next,
            }
        }
        Err(LookupError::Circle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
Example.org  MX 10 mx.example.org   # and another
example.org  MX 0 .
mx.example.org A 127.0.0.1
alias.example CNAME example.org
round.example CNAME square.example
square.example CNAME round.example
127.0.0.1 PTR mx.example.org
empty.example EMPTY
broken.example SERVFAIL
silent.example TIMEOUT
";

    #[test]
    fn every_kind_of_answer_can_be_written() {
        let zone = Zone::parse(TEXT).unwrap();
        let mx = vec![Data::Mx(10, "mx.example.org".into()), Data::Mx(0, String::new())];
        assert_eq!(zone.look_up("EXAMPLE.org.", Kind::Mx).unwrap().data, mx);
        assert_eq!(zone.look_up("alias.example", Kind::Mx).unwrap().data, mx);
        assert_eq!(zone.look_up("mx.example.org", Kind::Aaaa), Err(LookupError::NoData));
        assert_eq!(zone.look_up("empty.example", Kind::A), Err(LookupError::NoData));
        assert_eq!(zone.look_up("no.example", Kind::A), Err(LookupError::NoName));
        assert_eq!(zone.look_up("silent.example", Kind::A), Err(LookupError::TimedOut));
        assert_eq!(zone.look_up("broken.example", Kind::A), Err(LookupError::Refused("SERVFAIL".into())));
        assert_eq!(zone.look_up("round.example", Kind::A), Err(LookupError::Circle));
        let ptr = zone.look_up("1.0.0.127.in-addr.arpa", Kind::Ptr).unwrap();
        assert_eq!(ptr.data, [Data::Ptr("mx.example.org".into())]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, line) in
            [("x", 1), ("\na A 1.2.3", 2), ("a MX 10", 1), ("a B c", 1), ("a SERVFAIL\na A 127.0.0.1", 2)]
        {
            assert_eq!(Zone::parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
