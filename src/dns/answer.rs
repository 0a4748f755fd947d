//! What is asked and what is answered, as far as mail is concerned.
//!
//! A mail server must tell apart what the DNS says for good (the name does not exist, or has no
//! such record) from what it could not say now (SERVFAIL, a timeout): the first bounces, the second
//! waits (RFC 5321 5.1).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Most aliases that are followed from one name (CNAME records).
pub const MAX_ALIASES: usize = 8;

/// A source of names: the DNS, or a file in its place.
pub trait Names: Send + Sync {
    /// The records of that kind at `name`, aliases followed. Blocks; every source has its own
    /// bound for how long.
    fn look_up(&self, name: &str, kind: Kind) -> Result<Answer, LookupError>;
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// Mail exchangers.
    Mx,
    /// Names of an address.
    Ptr,
    /// Text.
    Txt,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Mx => "MX",
            Kind::Ptr => "PTR",
            Kind::Txt => "TXT",
        })
    }
}

/// What a record says. Names are in lower case, without the trailing dot; the root is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A mail exchanger: its preference (the lower the better) and name.
    Mx(u16, String),
    /// The name of an address.
    Ptr(String),
    /// The strings of one record, joined.
    Txt(Vec<u8>),
    /// The name stands for another one.
    Cname(String),
}

impl Data {
    /// Whether it answers a question for `kind`.
    pub fn is(&self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Data::A(_), Kind::A)
                | (Data::Aaaa(_), Kind::Aaaa)
                | (Data::Mx(..), Kind::Mx)
                | (Data::Ptr(_), Kind::Ptr)
                | (Data::Txt(_), Kind::Txt)
        )
    }
}

/// A positive answer: at least one record, all of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The records.
    pub data: Vec<Data>,
    /// How long it holds.
    pub ttl: Duration,
    /// The resolver says that it has validated the answer (the AD bit). Worth as much as the way to
    /// the resolver.
    pub secure: bool,
}

/// Why there is no answer. The first three are for good, the others may pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("no such name in the DNS")]
    NoName,
    /// The name exists, but has no record of that kind.
    #[error("no such record in the DNS")]
    NoData,
    /// What was asked for can't be a name in the DNS.
    #[error("not a name that the DNS could hold")]
    BadName,
    /// SERVFAIL, REFUSED or the like.
    #[error("the name server answered {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no name server answered in time")]
    TimedOut,
    /// Aliases that lead in a circle, or too far.
    #[error("aliases (CNAME) lead on and on")]
    Circle,
    /// Something else: the network, a malformed answer.
    #[error("{0}")]
    Trouble(String),
}

impl LookupError {
    /// Whether asking later could help (RFC 3463 4.4.3 against 5.1.2).
    pub fn is_temporary(&self) -> bool {
        !matches!(self, LookupError::NoName | LookupError::NoData | LookupError::BadName)
    }
}

/// Why a source of names could not be opened.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The zone file or the system's resolv.conf can't be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A line of the zone file is not understood.
    #[error("{0}:{1}: {2}")]
    Line(PathBuf, usize, String),
    /// No thread or no sockets.
    #[error("can't start the resolver: {0}")]
    Start(#[from] std::io::Error),
}

/// The form of a name that is asked for: lower case, A-labels in place of U-labels (RFC 5890),
/// without the trailing dot.
pub fn wire_name(name: &str) -> Result<String, LookupError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = if name.is_ascii() {
        name.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(name).map_err(|_| LookupError::BadName)?
    };
    // RFC 1035 2.3.4: 255 octets on the wire are 253 characters.
    let labels_fit = name.split('.').all(|label| (1..=63).contains(&label.len()));
    if name.len() <= 253 && labels_fit { Ok(name) } else { Err(LookupError::BadName) }
}

/// A record as a source has it: its owner, its seconds to live, what it says.
pub(super) type Record = (String, u32, Data);

/// Picks the answer for `name` out of what a source gave, along aliases: the answer, or the name
/// that has to be asked for next.
pub(super) fn pick(records: &[Record], name: &str, kind: Kind) -> Result<Picked, LookupError> {
    let mut at = name;
    let mut ttl = u32::MAX;
    for _ in 0..=MAX_ALIASES {
        let owned = || records.iter().filter(|r| r.0 == at);
        ttl = owned().map(|r| r.1).fold(ttl, u32::min);
        let data: Vec<Data> = owned().filter(|r| r.2.is(kind)).map(|r| r.2.clone()).collect();
        if !data.is_empty() {
            return Ok(Picked::Data(data, Duration::from_secs(u64::from(ttl))));
        }
        let alias = owned().find_map(|r| if let Data::Cname(to) = &r.2 { Some(to.as_str()) } else { None });
        match alias {
            Some(to) => at = to,
            None if at == name => return Err(LookupError::NoData),
            None => return Ok(Picked::Ask(at.to_string())),
        }
    }
    Err(LookupError::Circle)
}

/// What [`pick`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Picked {
    /// The answer and how long it holds.
    Data(Vec<Data>, Duration),
    /// An alias that leads out of this answer: this name is to be asked for.
    Ask(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cname(from: &str, to: &str) -> Record {
        (from.into(), 60, Data::Cname(to.into()))
    }

    #[test]
    fn names_are_asked_for_in_one_form() {
        assert_eq!(wire_name("MX.Example.").unwrap(), "mx.example");
        assert_eq!(wire_name("Žluť.example").unwrap(), "xn--lu-yta1h.example");
        assert_eq!(wire_name("_25._tcp.mx.example").unwrap(), "_25._tcp.mx.example");
        for bad in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(130)] {
            assert_eq!(wire_name(bad), Err(LookupError::BadName), "{bad}");
        }
    }

    #[test]
    fn aliases_are_followed_within_an_answer_and_out_of_it() {
        let mx = Data::Mx(10, "m".into());
        let records = [cname("a", "b"), cname("b", "c"), ("c".into(), 30, mx.clone())];
        assert_eq!(pick(&records, "a", Kind::Mx), Ok(Picked::Data(vec![mx], Duration::from_secs(30))));
        assert_eq!(pick(&records[..2], "a", Kind::Mx), Ok(Picked::Ask("c".into())));
        assert_eq!(pick(&records, "x", Kind::Mx), Err(LookupError::NoData));
        assert_eq!(pick(&records, "c", Kind::A), Err(LookupError::NoData), "another kind is there");
        let circle = [cname("a", "b"), cname("b", "a")];
        assert_eq!(pick(&circle, "a", Kind::A), Err(LookupError::Circle));
    }
}
