//! How much a mailbox may hold, as Maildir++ and Dovecot write it.

use std::fmt;

/// Most that a Maildir may hold, all its folders together. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

impl Limit {
    /// Whether there is any.
    pub fn is_set(self) -> bool {
        self != Limit::default()
    }

    /// Reads what a [`Limit`] is written as: `1000000S,1000C`.
    pub fn parse(text: &str) -> Option<Limit> {
        let mut limit = Limit::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            if let Some(bytes) = part.strip_suffix('S') {
                limit.bytes = bytes.parse().ok()?;
            } else {
                limit.messages = part.strip_suffix('C')?.parse().ok()?;
            }
        }
        Some(limit)
    }

    /// Reads Dovecot's rule for all folders, `*:storage=1G:messages=1000`. Storage without a unit is in
    /// KiB, as it is there; 0 and `ignore` are no limit.
    pub fn of_rule(rule: &str) -> Option<Limit> {
        let limits = rule.strip_prefix("*:")?;
        if limits == "ignore" {
            return Some(Limit::default());
        }
        let mut limit = Limit::default();
        for part in limits.split(':') {
            match part.split_once('=')? {
                ("storage", size) => limit.bytes = bytes(size, 1024)?,
                ("bytes", size) => limit.bytes = bytes(size, 1)?,
                ("messages", count) => limit.messages = count.parse().ok()?,
                _ => return None,
            }
        }
        Some(limit)
    }
}

/// A number of bytes with a unit of 1024; `plain` is that of a number without one.
fn bytes(size: &str, plain: u64) -> Option<u64> {
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &size[digits.len()..] {
        "" => plain,
        "B" | "b" => 1,
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        "T" | "t" => 1 << 40,
        _ => return None,
    };
    // A `+` is a limit beside another one, which there is not here.
    let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

impl fmt::Display for Limit {
    /// As the first line of Maildir++'s `maildirsize`: what is no limit is not written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.messages) {
            (0, 0) => Ok(()),
            (bytes, 0) => write!(f, "{bytes}S"),
            (0, messages) => write!(f, "{messages}C"),
            (bytes, messages) => write!(f, "{bytes}S,{messages}C"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_of_dovecot_is_read() {
        let read = |rule: &str| Limit::of_rule(rule).map(|limit| (limit.bytes, limit.messages));
        assert_eq!(read("*:storage=1G:messages=1000"), Some((1 << 30, 1000)));
        assert_eq!(read("*:storage=10"), Some((10 * 1024, 0)));
        assert_eq!(read("*:bytes=500"), Some((500, 0)));
        assert_eq!(read("*:messages=0"), Some((0, 0)));
        assert_eq!(read("*:ignore"), Some((0, 0)));
        for bad in ["", "Trash:storage=+10%", "*:", "*:storage=+1G", "*:storage=1X", "*:size=1", "*:storage="]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read("*:storage=99999999999999999T"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: u64, messages: u64) {
            let limit = Limit { bytes, messages };
            prop_assert_eq!(Limit::parse(&limit.to_string()), Some(limit));
        }

        #[test]
        fn nothing_makes_it_panic(text in "(\\*:)?(\\PC|[0-9BKMG=:,SC]){0,20}") {
            let _ = (Limit::parse(&text), Limit::of_rule(&text));
        }
    }
}
