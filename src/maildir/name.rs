//! The name of a message's file in a Maildir.
//!
//! `SECONDS.ID_N.HOST,S=SIZE`: when the message was accepted, its queue id, the number of the
//! recipient within the message, this host, and the file's size (which IMAP servers read off the
//! name). Nothing in it is made up at the delivery, so that a repeated delivery replaces itself.

use crate::mail::id::Id;

/// Most characters of the host's name in a file's name, which must not grow beyond 255.
const MAX_HOST: usize = 100;

/// The name of one recipient's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    base: String,
}

impl Name {
    /// For a message that was accepted at `arrived` (microseconds since 1970), and its recipient
    /// `n`.
    pub fn new(arrived: u64, id: Id, n: u32, host: &str) -> Name {
        let seconds = arrived / 1_000_000;
        let host: String = host.chars().take(MAX_HOST).map(harmless).collect();
        Name { base: format!("{seconds}.{id}_{n}.{host}") }
    }

    /// The name in `tmp/`, where the size is not known yet.
    pub fn in_tmp(&self) -> &str {
        &self.base
    }

    /// The name in `new/`, of a file of `size` bytes.
    pub fn in_new(&self, size: u64) -> String {
        format!("{},S={size}", self.base)
    }
}

/// A slash would lead elsewhere, a colon begins the flags, and a comma the fields.
fn harmless(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_what_and_where() {
        let id = Id::parse("0123456789ABCDE").unwrap();
        let name = Name::new(1_795_550_000_999_999, id, 3, "mail.example.org");
        assert_eq!(name.in_tmp(), "1795550000.0123456789ABCDE_3.mail.example.org");
        assert_eq!(name.in_new(512), "1795550000.0123456789ABCDE_3.mail.example.org,S=512");
    }

    #[test]
    fn a_hosts_name_leads_nowhere() {
        let id = Id::parse("0123456789ABCDE").unwrap();
        let name = Name::new(0, id, 0, &format!("../a:2,S\0ä{}", "x".repeat(500)));
        assert!(name.in_tmp().starts_with("0.0123456789ABCDE_0..._a_2_S__x"));
        assert!(name.in_new(u64::MAX).len() < 255);
    }
}
