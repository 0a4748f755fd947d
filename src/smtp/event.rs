//! What goes in and out of the server's side of a session: events, actions, and what is between
//! them, questions and judgements.

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::id::Id;

use super::introduction::Introduction;
use super::reply::Reply;
use super::rule;

/// The proof that a message is stored durably. Only the spool can make one, so a 250 without a sync
/// does not compile.
pub trait Proof {
    /// The stored message's queue id.
    fn id(&self) -> Id;
}

/// What has happened.
#[derive(Debug)]
pub enum Event<'a, P> {
    /// The connection is there; on a listener of TLS from the first octet, its handshake is done.
    Opened,
    /// A line, without its CRLF.
    Line(&'a [u8]),
    /// A line longer than allowed; it has been swallowed up to its CRLF.
    LongLine,
    /// A line that ended in a bare LF, or held a bare CR (RFC 5321 2.3.8).
    BareLineEnd,
    /// In place of what the last action wanted: while [`Server::client_must_wait`](super::server::Server::client_must_wait), the client has
    /// sent more already (RFC 2920 3.1). Whether to look for that is the worker's choice, but for
    /// [`Action::Secure`].
    TooSoon,
    /// The answer to [`Action::Judge`] about a sender or a recipient, or to [`Action::Introduce`].
    Judged(Verdict),
    /// The answer to [`Action::Secure`]: the handshake is done. A handshake that fails ends the
    /// session without a word: there is nobody to say it to.
    Secured,
    /// The answer to [`Action::LogIn`] and [`Action::Respond`].
    LogIn(LogIn),
    /// In place of the data that [`Action::TakeData`] or [`Action::TakeChunk`] wanted: there is no
    /// place to put it. No word has been said; a chunk has been swallowed.
    NoPlace(DataFault),
    /// The answer to [`Action::TakeChunk`], unless it was the last: all of it has been read.
    Chunk(Result<(), DataFault>),
    /// The answer to [`Action::TakeData`], and to [`Action::TakeChunk`] of the last chunk.
    Data(Result<P, DataFault>),
    /// A deadline for the next command has passed.
    TimedOut,
    /// The server is going down.
    Closing,
}

/// What is to be done. The worker then comes back with an event; after `Say` the next line's.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Say this, then read the next line. Replies may be gathered while lines are waiting (RFC 2920).
    Say(Reply),
    /// Say all of these, then read the next line: LMTP's answers to the end of data (RFC 2033 4.2).
    SayEach(Vec<Reply>),
    /// Read the next line; there is nothing to say.
    Listen,
    /// Decide about the transaction's sender (`recipient` is none) or about a recipient; answer
    /// with [`Event::Judged`].
    Judge(Question),
    /// A host that may do so speaks for another client: whether that one may talk to us is to be
    /// decided, and if so, it is the client from now on. Answer with [`Event::Judged`].
    Introduce(Box<Introduction>),
    /// If anything more has been received already, give [`Event::TooSoon`]: it could be read as if
    /// it had come under TLS (RFC 3207 5, CVE-2011-0411). Else say this, do the TLS handshake, forget
    /// what was known of the client, and give [`Event::Secured`].
    Secure {
        /// `220 …`
        go_ahead: Reply,
    },
    /// Begin an exchange that shows who the client is; answer with [`Event::LogIn`].
    LogIn {
        /// In capitals (RFC 4422 3.1), one of those that were offered.
        mechanism: String,
        /// What the client has said already.
        initial: Option<Vec<u8>>,
    },
    /// The client's next word in the exchange; answer with [`Event::LogIn`].
    Respond(Vec<u8>),
    /// Open a draft. If that fails, give [`Event::NoPlace`]. Else say `go_ahead`, read the data,
    /// store it, and give [`Event::Data`].
    TakeData {
        /// `354 …`
        go_ahead: Reply,
    },
    /// Open a draft unless there is one, and put the next `size` octets into it, as they are (RFC
    /// 3030 2). Give [`Event::Chunk`], or, after the last one, store the message and give
    /// [`Event::Data`]. Whatever is wrong, the octets are read.
    TakeChunk {
        /// In octets.
        size: u64,
        /// It ends the message.
        last: bool,
    },
    /// Read the next `size` octets and forget them: a chunk that is not wanted. Then do what comes next.
    Swallow {
        /// In octets.
        size: u64,
        /// Saying why it is not wanted.
        then: Box<Action>,
    },
    /// Say this and close.
    HangUp(Reply),
}

/// What is to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May this be the sender?
    Sender(ReversePath),
    /// May mail be taken for this recipient? `None` is `<postmaster>` without a domain.
    Recipient(Option<Mailbox>),
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Accepted. For `<postmaster>` without a domain: as this mailbox.
    Accept(Option<Mailbox>),
    /// Not accepted: the whole reply (4xx or 5xx), from who judged.
    Refuse(Reply),
    /// Not accepted, and the session ends with this reply (421).
    HangUp(Reply),
}

/// How an exchange about who the client is stands (RFC 4954).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogIn {
    /// The server's next word in it.
    Challenge(Vec<u8>),
    /// The client is this user.
    Done(String),
    /// It has not shown who it is. Nothing more is told: neither the user nor the password.
    Refused,
    /// There were too many wrong passwords, and this one was not even looked at.
    LockedOut,
    /// It can't be found out now.
    Later,
}

/// Why data that was read, or was to be read, is not stored. All of it has been swallowed up to the
/// final dot where 354 had been said, and to the end of the chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataFault {
    /// More than `max_message_size`: 552 5.3.4.
    TooBig,
    /// A bare LF or CR in the data: 550 5.6.0 (RFC 5321 2.3.8, no smuggling).
    BareLineEnd,
    /// Too many Received fields: 554 5.4.6.
    Loop,
    /// No space: 452 4.3.1.
    Full,
    /// Another fault of the disk: 451 4.3.0.
    Disk,
    /// Thrown away by a rule, as the log says under this id. The client is told that it was taken.
    Discarded(Id),
}

impl DataFault {
    /// The reply to the final dot, to DATA, or to a chunk.
    pub fn into_reply(self) -> Reply {
        match self {
            // RFC 1870 6.1 and 6.3
            DataFault::TooBig => {
                rule::TOO_BIG.reply("the message is larger than the SIZE in the answer to EHLO")
            }
            DataFault::BareLineEnd => {
                rule::BARE_LINE_END.reply("the message has a bare CR or LF; send every line end as CR LF")
            }
            DataFault::Loop => {
                rule::LOOP.reply("too many Received fields: this message goes round in a loop")
            }
            DataFault::Full => rule::NO_SPACE.reply("no space for this message now; try again later"),
            DataFault::Disk => rule::NOT_STORED.reply("this message could not be stored; try again later"),
            DataFault::Discarded(id) => Reply::coded(250, 0, 0, format!("Ok: taken as {id}")),
        }
    }
}
