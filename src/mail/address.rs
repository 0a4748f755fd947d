//! Mailboxes and paths (RFC 5321 4.1.2).
//!
//! A [`Mailbox`] keeps the local part exactly as it came, byte for byte (RFC 5321 2.4: it is the
//! receiving host's to interpret), but without needless quoting: `"a"@x` and `a@x` are one
//! mailbox. The domain is kept in lower case without a trailing dot.

use std::fmt;

use thiserror::Error;

/// Most octets of a local part (RFC 5321 4.5.3.1.1).
pub const MAX_LOCAL_PART: usize = 64;
/// Most octets of a domain (RFC 5321 4.5.3.1.2).
pub const MAX_DOMAIN: usize = 255;
/// Most octets of a path, with its angle brackets (RFC 5321 4.5.3.1.3).
pub const MAX_PATH: usize = 256;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("empty address")]
    Empty,
    /// No `@`, where a domain is wanted.
    #[error("no domain")]
    NoDomain,
    /// The local part is no dot-string and no quoted string.
    #[error("malformed local part")]
    LocalPart,
    /// The domain is neither a host name nor an address literal.
    #[error("malformed domain")]
    Domain,
    /// Longer than RFC 5321 4.5.3.1 allows.
    #[error("address too long")]
    TooLong,
    /// An octet above 127, without SMTPUTF8.
    #[error("octets above 127 need SMTPUTF8")]
    EightBit,
    /// Brackets missing or unbalanced, or text after the closing one.
    #[error("malformed path")]
    Path,
}

/// One mailbox: local part and domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: String,
    domain: String,
}

impl Mailbox {
    /// Reads `local@domain`, quoted or not. With `utf8`, octets above 127 are taken in both parts
    /// (RFC 6531 3.3); the lengths are checked in octets.
    pub fn parse(text: &str, utf8: bool) -> Result<Mailbox, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if !utf8 && !text.is_ascii() {
            return Err(AddressError::EightBit);
        }
        let (local, rest) = if text.starts_with('"') {
            quoted_string(text)?
        } else {
            let at = text.find('@').ok_or(AddressError::NoDomain)?;
            let (local, rest) = text.split_at(at);
            if !is_dot_string(local) {
                return Err(AddressError::LocalPart);
            }
            (local.to_string(), rest)
        };
        let domain = rest.strip_prefix('@').ok_or(AddressError::NoDomain)?;
        Mailbox::from_parts(&local, domain)
    }

    /// Makes a mailbox of an unquoted local part and a domain, as tables and accounts have them.
    pub fn from_parts(local: &str, domain: &str) -> Result<Mailbox, AddressError> {
        if local.len() > MAX_LOCAL_PART {
            return Err(AddressError::TooLong);
        }
        // RFC 5321 4.1.2: what a quoted string can carry is printable; controls are not.
        if local.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(AddressError::LocalPart);
        }
        Ok(Mailbox { local: local.to_string(), domain: parse_domain(domain)? })
    }

    /// The local part without quotes, case kept.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain in lower case, or an address literal with its brackets.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether any octet is above 127, so that SMTPUTF8 is needed to pass it on.
    pub fn needs_utf8(&self) -> bool {
        !self.local.is_ascii() || !self.domain.is_ascii()
    }

    /// Whether this is `postmaster`, in any case (RFC 5321 4.5.1).
    pub fn is_postmaster(&self) -> bool {
        self.local.eq_ignore_ascii_case("postmaster")
    }
}

impl fmt::Display for Mailbox {
    /// The mailbox as it goes on the wire, quoted where it must be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

/// The sender of an envelope: a mailbox, or nobody (RFC 5321 4.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: the null sender, which nothing is ever sent back to.
    Null,
    /// Errors go to this mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless it is the null sender.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Reads what [`Display`](fmt::Display) writes: an address, or nothing for the null sender.
    pub fn parse(text: &str, utf8: bool) -> Result<ReversePath, AddressError> {
        if text.is_empty() {
            return Ok(ReversePath::Null);
        }
        Mailbox::parse(text, utf8).map(ReversePath::Mailbox)
    }
}

impl fmt::Display for ReversePath {
    /// Without angle brackets; the null sender is nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => Ok(()),
            ReversePath::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// Checks a domain and gives it in lower case without a trailing dot: a host name of letters,
/// digits, hyphens (and, as hosts in the field have them, underscores), UTF-8 labels, or an
/// address literal (RFC 5321 4.1.3).
pub fn parse_domain(text: &str) -> Result<String, AddressError> {
    if text.len() > MAX_DOMAIN {
        return Err(AddressError::TooLong);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(AddressError::Domain)?;
        return parse_literal(inner).map(|ip| match ip {
            std::net::IpAddr::V4(ip) => format!("[{ip}]"),
            std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        });
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(AddressError::NoDomain);
    }
    if text.split('.').all(is_label) { Ok(text.to_lowercase()) } else { Err(AddressError::Domain) }
}

/// The IP address in an address literal without its brackets: `192.0.2.1` or `IPv6:2001:db8::1`.
pub fn parse_literal(inner: &str) -> Result<std::net::IpAddr, AddressError> {
    let tag = inner.get(..5);
    if tag.is_some_and(|t| t.eq_ignore_ascii_case("IPv6:")) {
        return inner[5..].parse().map(std::net::IpAddr::V6).map_err(|_| AddressError::Domain);
    }
    inner.parse().map(std::net::IpAddr::V4).map_err(|_| AddressError::Domain)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80)
}

/// Atoms joined by single dots (RFC 5321 4.1.2).
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// An octet of an atom (RFC 5322 3.2.3, RFC 6532 3.2 for those above 127).
pub fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b) || b >= 0x80
}

/// Takes a quoted string off the front: its content without quoting, and what follows.
fn quoted_string(text: &str) -> Result<(String, &str), AddressError> {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((content, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c)) if !c.is_control() => content.push(c),
                _ => return Err(AddressError::LocalPart),
            },
            c if c.is_control() => return Err(AddressError::LocalPart),
            c => content.push(c),
        }
    }
    Err(AddressError::LocalPart)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Mailbox, AddressError> {
        Mailbox::parse(text, false)
    }

    #[test]
    fn quoting_is_forgotten_where_it_says_nothing() {
        assert_eq!(parse("\"a\"@x.example"), parse("a@X.Example."));
        assert_eq!(parse("\"a b\"@x").unwrap().to_string(), "\"a b\"@x");
        assert_eq!(parse(r#""a\"b"@x"#).unwrap().local(), "a\"b");
        assert_eq!(parse("\"\"@x").unwrap().to_string(), "\"\"@x");
    }

    #[test]
    fn malformed_addresses_are_told_apart() {
        assert_eq!(parse(""), Err(AddressError::Empty));
        assert_eq!(parse("alice"), Err(AddressError::NoDomain));
        assert_eq!(parse("alice@"), Err(AddressError::NoDomain));
        assert_eq!(parse("a..b@x"), Err(AddressError::LocalPart));
        assert_eq!(parse(".a@x"), Err(AddressError::LocalPart));
        assert_eq!(parse("a b@x"), Err(AddressError::LocalPart));
        assert_eq!(parse("a@b@c"), Err(AddressError::Domain));
        assert_eq!(parse("a@-x"), Err(AddressError::Domain));
        assert_eq!(parse("a@x..y"), Err(AddressError::Domain));
        assert_eq!(parse("ä@x"), Err(AddressError::EightBit));
        assert_eq!(parse(&format!("{}@x", "a".repeat(65))), Err(AddressError::TooLong));
        assert_eq!(parse(&format!("a@{}.x", "a".repeat(64))), Err(AddressError::Domain));
        assert_eq!(parse(&format!("a@{}", "a.".repeat(140))), Err(AddressError::TooLong));
    }

    #[test]
    fn literals_are_read_and_written_in_one_form() {
        assert_eq!(parse("a@[192.0.2.1]").unwrap().domain(), "[192.0.2.1]");
        assert_eq!(parse("a@[ipv6:2001:DB8:0::1]").unwrap().domain(), "[IPv6:2001:db8::1]");
        assert_eq!(parse("a@[300.0.2.1]"), Err(AddressError::Domain));
        assert_eq!(parse("a@[192.0.2.1"), Err(AddressError::Domain));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(local in "[ -~]{1,64}", domain in "[a-z0-9]{1,10}(\\.[a-z0-9]{1,10}){0,3}") {
            let mailbox = Mailbox::from_parts(&local, &domain).unwrap();
            prop_assert_eq!(Mailbox::parse(&mailbox.to_string(), false).unwrap(), mailbox);
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC*") {
            let _ = Mailbox::parse(&text, true);
        }
    }
}
