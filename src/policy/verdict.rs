//! What a judgement says.

use crate::smtp::reply::Reply;

use super::access::Row;

/// A judgement. To let one drop is to accept by accident, so the compiler asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing against it.
    Accept,
    /// To be accepted and thrown away: a row of a table says so. In the end a line in the log names it.
    Discard(Row),
    /// No, with this reply: 4xx for "not now", 5xx for "never".
    Refuse(Reply),
    /// No, and the session is over (421).
    HangUp(Reply),
}

impl Verdict {
    /// This verdict if it settles the matter, else what `next` says.
    pub fn and_then(self, next: impl FnOnce() -> Verdict) -> Verdict {
        match self {
            Verdict::Accept => next(),
            settled => settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_no_stands() {
        let no = || Verdict::Refuse(Reply::new(550, None, "no"));
        assert_eq!(Verdict::Accept.and_then(no), no());
        assert_eq!(no().and_then(|| Verdict::Accept), no());
        assert_eq!(no().and_then(|| unreachable!("not asked")), no());
    }
}
