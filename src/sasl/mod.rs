//! Floor 2, languages: who is it? SASL (RFC 4422), the server's side, as SMTP carries it (RFC 4954).
//!
//! `mechanism` has the names and says which are offered when. `plain`, `login` and `scram` read what
//! clients say in each of them, `keys` is what SCRAM stores in place of a password, `prepare` makes
//! two spellings of a name or a password one. `exchange` puts them together: one state machine for
//! all mechanisms, that posta-auth runs. `dialogue` is what posta-smtpd and posta-auth say to each
//! other over `run/auth`.
//!
//! `client` is the other side, for a relay that wants to know who posta-remote is.
//!
//! The server's side knows no password: the exchange asks for a check, or for keys, and is told.

use thiserror::Error;

pub mod client;
pub mod dialogue;
pub mod exchange;
pub mod keys;
pub mod login;
pub mod mechanism;
pub mod plain;
pub mod prepare;
pub mod scram;

/// The longest name and the longest password, in octets. libcrypt takes no more either, and no hash
/// takes its time over what strangers make long.
pub const LONGEST: usize = 512;

/// Why an exchange fails, for the log; a client is told less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The client's words are not what the mechanism has them be.
    #[error("malformed response: {0}")]
    Malformed(&'static str),
    /// The client wants to act for somebody else than who logs in (CVE-2023-27582).
    #[error("wants to act for another user")]
    Authzid,
    /// The client's channel is not ours, or somebody between us has hidden what we offer.
    #[error("channel binding: {0}")]
    Binding(&'static str),
    /// The client does not know the password.
    #[error("wrong password")]
    Proof,
    /// OpenSSL would not do it.
    #[error("OpenSSL can't do PBKDF2 with SHA-256")]
    Library,
}

/// What a client says of itself in `PLAIN` and `LOGIN`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who it says to be; prepared, see [`prepare::name`].
    pub login: String,
    /// The password as it came.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Without the password, and without the name, which may be a password typed into the wrong field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Of a name and a password as they came.
    fn new(login: &[u8], password: &[u8]) -> Result<Credentials, Fault> {
        let password =
            std::str::from_utf8(password).map_err(|_| Fault::Malformed("password is not UTF-8"))?;
        match password.len() {
            0 => return Err(Fault::Malformed("empty password")),
            1..=LONGEST if !password.contains('\0') => {}
            _ => return Err(Fault::Malformed("password is too long or has a NUL")),
        }
        Ok(Credentials { login: prepare::name(login)?, password: password.to_string() })
    }
}
