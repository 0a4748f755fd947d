//! Enhanced status codes (RFC 3463) and what becomes of a recipient.

use std::fmt;

/// An enhanced status code, `class.subject.detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    /// 2: success, 4: persistent transient failure, 5: permanent failure.
    pub class: u8,
    /// Subject (RFC 3463 3.2 to 3.8).
    pub subject: u16,
    /// Detail.
    pub detail: u16,
}

impl Status {
    /// `Status::new(5, 1, 1)` is 5.1.1.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Status {
        Status { class, subject, detail }
    }

    /// Reads a code off the front of a reply's text: the code and what follows it. Only the
    /// classes 2, 4 and 5 are codes.
    pub fn split(text: &str) -> Option<(Status, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (code, rest) = text.split_at(end);
        if !rest.is_empty() && !rest.starts_with(' ') {
            return None;
        }
        let mut parts = code.split('.');
        let class = parts.next().filter(|p| matches!(*p, "2" | "4" | "5"))?.parse().ok()?;
        let number = |p: &str| if (1..=3).contains(&p.len()) { p.parse().ok() } else { None };
        let subject = parts.next().and_then(number)?;
        let detail = parts.next().and_then(number)?;
        if parts.next().is_some() {
            return None;
        }
        Some((Status { class, subject, detail }, rest.trim_start()))
    }

    /// Reads a whole code.
    pub fn parse(text: &str) -> Option<Status> {
        Status::split(text).filter(|(_, rest)| rest.is_empty()).map(|(status, _)| status)
    }

    /// The fate that the class stands for.
    pub fn fate(self) -> Fate {
        match self.class {
            2 => Fate::Done,
            5 => Fate::Never,
            _ => Fate::Later,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What an attempt came to, for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Delivered, or taken by the next hop.
    Done,
    /// Not now: try again.
    Later,
    /// Not ever: tell the sender.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_off_replies() {
        assert_eq!(Status::split("5.1.1 no such user"), Some((Status::new(5, 1, 1), "no such user")));
        assert_eq!(Status::split("2.0.0"), Some((Status::new(2, 0, 0), "")));
        assert_eq!(Status::split("3.0.0 x"), None);
        assert_eq!(Status::split("5.1 x"), None);
        assert_eq!(Status::split("5.1.1x"), None);
        assert_eq!(Status::split("5.1.1.1 x"), None);
        assert_eq!(Status::split("5.1234.1 x"), None);
        assert_eq!(Status::parse("4.4.1"), Some(Status::new(4, 4, 1)));
    }

    #[test]
    fn the_class_decides_the_fate() {
        assert_eq!(Status::new(2, 1, 5).fate(), Fate::Done);
        assert_eq!(Status::new(4, 2, 2).fate(), Fate::Later);
        assert_eq!(Status::new(5, 2, 2).fate(), Fate::Never);
    }
}
