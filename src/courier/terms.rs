//! On what terms a relay is met: what is said of the way to it beside its place.
//!
//! An entry of `[domains]` says it to posta-remote. A row of a table of `routing.domains` says it to
//! posta-queue, which looks it up for each message, and passes it on with the job.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::fields::{FieldError, Reader, Writer};

/// How the way to a relay is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayTls {
    /// Not at all.
    None,
    /// Where the relay offers it.
    May,
    /// Always; a relay that offers none is not used.
    Encrypt,
    /// Always, and the relay's certificate must be good.
    Verify,
}

/// Addresses of this host that connections to others come from; `None`: as the kernel chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SourceAddresses {
    /// Of connections to IPv4 addresses.
    pub four: Option<Ipv4Addr>,
    /// Of connections to IPv6 addresses.
    pub six: Option<Ipv6Addr>,
}

/// What a row of a table says of the way to a relay. What it doesn't say is as posta.toml has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How the way is encrypted.
    pub tls: Option<RelayTls>,
    /// The file with the name and the password that the relay wants.
    pub login: Option<PathBuf>,
    /// Where connections come from.
    pub source: SourceAddresses,
}

impl RelayTls {
    /// As a setting and a packet have them.
    pub const WORDS: &[(&str, RelayTls)] = &[
        ("none", RelayTls::None),
        ("may", RelayTls::May),
        ("encrypt", RelayTls::Encrypt),
        ("verify", RelayTls::Verify),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            RelayTls::None => "none",
            RelayTls::May => "may",
            RelayTls::Encrypt => "encrypt",
            RelayTls::Verify => "verify",
        }
    }

    fn parse(word: &str) -> Option<RelayTls> {
        RelayTls::WORDS.iter().find(|(its, _)| *its == word).map(|(_, tls)| *tls)
    }
}

impl SourceAddresses {
    /// The same, with the other's addresses where these have none.
    pub fn or(self, other: SourceAddresses) -> SourceAddresses {
        SourceAddresses { four: self.four.or(other.four), six: self.six.or(other.six) }
    }

    /// The one of the family of `to`.
    pub fn towards(self, to: IpAddr) -> Option<IpAddr> {
        if to.is_ipv4() { self.four.map(IpAddr::V4) } else { self.six.map(IpAddr::V6) }
    }
}

impl Terms {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.put_some("tls", self.tls.map(RelayTls::word));
        w.put_some("login", self.login.as_ref().map(|path| path.as_os_str().as_bytes()));
        w.put_some("from4", self.source.four.map(|four| four.to_string()));
        w.put_some("from6", self.source.six.map(|six| six.to_string()));
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Terms, FieldError> {
        let tls = match r.optional_text("tls")? {
            Some(word) => Some(RelayTls::parse(word).ok_or(FieldError::Value("tls"))?),
            None => None,
        };
        let login = r.optional("login")?.map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let four = r.optional_text("from4")?.map(str::parse).transpose();
        let four = four.map_err(|_| FieldError::Value("from4"))?;
        let six = r.optional_text("from6")?.map(str::parse).transpose();
        let six = six.map_err(|_| FieldError::Value("from6"))?;
        Ok(Terms { tls, login, source: SourceAddresses { four, six } })
    }
}
