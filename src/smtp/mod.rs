//! Floor 2, languages: SMTP (RFC 5321) as pure state machines, the server's and the client's.
//!
//! The language is not the speaker: a session is `on(event) -> action`; a worker thread does what
//! the action says, blocking, and comes back with the next event. So a session can be fuzzed and
//! model-tested without a socket.
//!
//! The server's side, in the order in which octets go through it: [`line`](mod@line) cuts them into lines,
//! [`command`] reads a line, [`extension`] its parameters, [`server`] decides (in the words
//! of [`event`]), [`transaction`] remembers, [`reply`] is written, a refusal under a [`rule`];
//! [`data`] takes what comes between `354` and the final dot, [`chunk`] what comes behind BDAT, and
//! [`content`] looks at both. What a trusted host says of a client that it speaks for is an
//! [`introduction`].

pub mod chunk;
pub mod client;
pub mod command;
pub mod content;
pub mod data;
pub mod event;
pub mod extension;
pub mod introduction;
pub mod line;
pub mod reply;
pub mod rule;
pub mod server;
pub mod transaction;
