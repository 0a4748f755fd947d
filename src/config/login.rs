//! Kinds of values that only `[auth]` has.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::sasl::mechanism::Mechanism;

use super::kind::Kind;
use super::nearest::{did_you_mean, quoted};

/// A list of SASL mechanisms.
pub(super) struct Mechanisms;
/// `unix:/path`
pub(super) struct Socket;

impl Kind for Mechanisms {
    type Value = Vec<Mechanism>;

    fn word(&self) -> String {
        "list of mechanisms".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Mechanism>, String> {
        let wanted = || "a list of mechanisms such as [\"PLAIN\", \"LOGIN\"] is wanted here".to_string();
        let list = value.as_array().ok_or_else(wanted)?;
        list.iter().map(|entry| mechanism(entry.get_ref().as_str().ok_or_else(wanted)?)).collect()
    }
}

fn mechanism(name: &str) -> Result<Mechanism, String> {
    Mechanism::parse(name).ok_or_else(|| {
        let known = Mechanism::ALL.map(Mechanism::name);
        let hint = did_you_mean(name, known).unwrap_or_else(|| format!("; known are {}", known.join(", ")));
        format!("unknown mechanism {}{hint}", quoted(name))
    })
}

impl Kind for Socket {
    type Value = PathBuf;

    fn word(&self) -> String {
        "unix:/path".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<PathBuf, String> {
        let path =
            value.as_str().and_then(|text| text.strip_prefix("unix:")).filter(|path| path.starts_with('/'));
        path.map(PathBuf::from)
            .ok_or_else(|| "the path of a socket, as \"unix:/path\", is wanted here".into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::Maybe;
    use super::*;

    fn read<K: Kind>(kind: K, text: &str) -> Result<K::Value, String> {
        kind.read(DeValue::parse(text).unwrap().get_ref())
    }

    #[test]
    fn mechanisms_and_sockets_are_read() {
        assert_eq!(
            read(Mechanisms, "['plain', 'SCRAM-SHA-256']"),
            Ok(vec![Mechanism::Plain, Mechanism::ScramSha256])
        );
        assert_eq!(read(Mechanisms, "[]"), Ok(vec![]));
        assert!(read(Mechanisms, "['PLAN']").unwrap_err().contains("did you mean \"PLAIN\"?"));
        assert!(read(Mechanisms, "'PLAIN'").is_err() && read(Mechanisms, "[1]").is_err());
        assert_eq!(read(Maybe(Socket), "''"), Ok(None));
        assert_eq!(read(Socket, "'unix:/run/dovecot/auth-client'"), Ok("/run/dovecot/auth-client".into()));
        assert!(read(Socket, "'/run/x'").is_err() && read(Socket, "'unix:x'").is_err());
    }
}
