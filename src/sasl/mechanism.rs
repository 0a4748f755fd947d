//! The mechanisms, their names, and which are offered when.

use std::fmt;

/// A mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS: proof bound to the TLS connection (RFC 5802, 7677).
    ScramSha256Plus,
    /// SCRAM-SHA-256: neither side shows the password (RFC 5802, 7677).
    ScramSha256,
    /// PLAIN: name and password in one message (RFC 4616).
    Plain,
    /// LOGIN: the same in two, for old clients (draft-murchison-sasl-login).
    Login,
}

/// What a channel binding is made of (RFC 5929, 9266).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// tls-exporter: a secret of this very connection (RFC 9266).
    Exporter,
    /// tls-server-end-point: the hash of the server's certificate (RFC 5929 4).
    ServerEndPoint,
}

impl Mechanism {
    /// All, the strongest first: the order in which they are offered.
    pub const ALL: [Mechanism; 4] =
        [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    /// The mechanism of that name, in whatever case.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether it needs stored SCRAM keys (or the password itself); a hash of another kind won't do.
    pub fn needs_keys(self) -> bool {
        matches!(self, Mechanism::ScramSha256Plus | Mechanism::ScramSha256)
    }
}

/// Which of the `allowed` mechanisms a connection is offered, the strongest first. `secure`: nobody can
/// listen, since it is encrypted, or comes in where the administrator trusts the way (RFC 4954 4,
/// RFC 8314); without that there are none. `bound`: it has a channel binding.
pub fn offered(allowed: &[Mechanism], secure: bool, bound: bool) -> Vec<Mechanism> {
    let fits = |mechanism: &Mechanism| {
        secure && allowed.contains(mechanism) && (bound || *mechanism != Mechanism::ScramSha256Plus)
    };
    Mechanism::ALL.into_iter().filter(fits).collect()
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Binding {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Exporter => "tls-exporter",
            Binding::ServerEndPoint => "tls-server-end-point",
        }
    }

    /// The binding of that name; names are compared letter by letter (RFC 5802 7: cb-name).
    pub fn parse(name: &str) -> Option<Binding> {
        [Binding::Exporter, Binding::ServerEndPoint].into_iter().find(|binding| binding.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_any_case() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(mechanism.name()), Some(mechanism));
            assert_eq!(Mechanism::parse(&mechanism.name().to_lowercase()), Some(mechanism));
        }
        assert_eq!(Mechanism::parse("CRAM-MD5"), None);
        assert_eq!(Binding::parse("tls-exporter"), Some(Binding::Exporter));
        assert_eq!(Binding::parse("tls-unique"), None);
    }

    #[test]
    fn nothing_is_offered_in_the_open_and_plus_only_where_it_can_be_bound() {
        assert!(offered(&Mechanism::ALL, false, true).is_empty());
        assert_eq!(offered(&Mechanism::ALL, true, true), Mechanism::ALL);
        assert_eq!(offered(&Mechanism::ALL, true, false), Mechanism::ALL[1..]);
        assert_eq!(
            offered(&[Mechanism::Login, Mechanism::Plain], true, true),
            [Mechanism::Plain, Mechanism::Login]
        );
    }
}
