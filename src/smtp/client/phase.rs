//! What is waited for, and how long.

use std::time::Duration;

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The server's 220.
    Greeting,
    /// The reply to EHLO, HELO or LHLO.
    Hello,
    /// The reply to STARTTLS.
    StartTls,
    /// A reply within AUTH.
    Login,
    /// The reply to RSET.
    Reset,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Recipient,
    /// The reply to DATA.
    Data,
    /// The reply to BDAT, before the last chunk.
    Chunk,
    /// The reply to the final dot, or to the last chunk.
    End,
}

impl Phase {
    /// How long the reply may take, all of it (RFC 5321 4.5.3.2).
    pub fn limit(self) -> Duration {
        let minutes = match self {
            Phase::Greeting | Phase::Hello | Phase::Reset | Phase::Mail | Phase::Recipient => 5,
            Phase::StartTls | Phase::Login | Phase::Data => 2,
            // RFC 3030 names none: as for a block of content, there and back.
            Phase::Chunk => 5,
            Phase::End => 10,
        };
        Duration::from_secs(minutes * 60)
    }

    /// What is waited for, in words: `lost connection while waiting for …`.
    pub fn words(self) -> &'static str {
        match self {
            Phase::Greeting => "the greeting",
            Phase::Hello => "the reply to EHLO",
            Phase::StartTls => "the reply to STARTTLS",
            Phase::Login => "the reply to AUTH",
            Phase::Reset => "the reply to RSET",
            Phase::Mail => "the reply to MAIL FROM",
            Phase::Recipient => "the reply to RCPT TO",
            Phase::Data => "the reply to DATA",
            Phase::Chunk => "the reply to BDAT",
            Phase::End => "the reply to the end of data",
        }
    }
}

/// How long one block of content may take to go out (RFC 5321 4.5.3.2.5).
pub const BLOCK_LIMIT: Duration = Duration::from_secs(180);
