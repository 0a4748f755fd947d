//! Why a copy was not delivered, as the queue and the sender are told.

use std::fmt::Display;
use std::io::{Error, ErrorKind};

use posta::mail::status::Status;

use posta::courier::report::Outcome;

use posta::maildir::deliver::DeliverError;

/// A status of class 4 or 5, and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Enhanced status code (RFC 3463).
    pub status: Status,
    /// For the log and the sender.
    pub text: String,
}

impl Refusal {
    /// A refusal with `class.subject.detail`.
    pub fn new((class, subject, detail): (u8, u16, u16), text: impl Into<String>) -> Refusal {
        Refusal { status: Status::new(class, subject, detail), text: text.into() }
    }

    /// What a failed call at `place` (a path) means for the delivery.
    pub fn of(place: impl Display, error: &Error) -> Refusal {
        let code = match error.kind() {
            // RFC 3463 3.3: mailbox full. Its reader can make room, so it is tried again.
            ErrorKind::QuotaExceeded => (4, 2, 2),
            ErrorKind::StorageFull => (4, 3, 1),
            ErrorKind::FileTooLarge => (5, 2, 3),
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename
            // A link, a fifo or a socket where a file should be.
            | ErrorKind::InvalidData => (4, 2, 1),
            _ => (4, 3, 0),
        };
        Refusal::new(code, format!("{place}: {}", reason(error)))
    }

    /// The outcome of recipient `n`.
    pub fn outcome(self, n: u32) -> Outcome {
        outcome(n, self.status, self.text)
    }
}

impl From<DeliverError> for Refusal {
    fn from(error: DeliverError) -> Refusal {
        Refusal::of(&error.path, &error.source)
    }
}

/// An outcome of recipient `n` that this program answers for.
pub fn outcome(n: u32, status: Status, text: impl Into<String>) -> Outcome {
    Outcome {
        n,
        status,
        text: text.into(),
        relay: "local".to_string(),
        said: false,
        passed_on: false,
        tls: String::new(),
        session: None,
        forward: None,
    }
}

/// The reason in words, without the number that Rust puts behind it.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(errno: i32) -> String {
        Refusal::of("/x", &Error::from_raw_os_error(errno)).status.to_string()
    }

    #[test]
    fn troubles_have_their_codes() {
        const EACCES: i32 = 13;
        const EIO: i32 = 5;
        const EFBIG: i32 = 27;
        const ENOSPC: i32 = 28;
        const EROFS: i32 = 30;
        const EDQUOT: i32 = 122;
        let codes = [EDQUOT, ENOSPC, EFBIG, EACCES, EROFS, EIO].map(status);
        assert_eq!(codes, ["4.2.2", "4.3.1", "5.2.3", "4.2.1", "4.2.1", "4.3.0"]);
        assert_eq!(Refusal::of("/x", &Error::from_raw_os_error(EACCES)).text, "/x: Permission denied");
    }
}
