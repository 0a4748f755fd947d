//! The client's side of SMTP (RFC 5321) and LMTP (RFC 2033), pure.
//!
//! [`session`] says what is to be sent next and what an answer means for each recipient
//! ([`verdict`]); [`reply`] reads answers off the wire; [`offer`] is what a server said it can do;
//! [`content`] puts a message into its wire form. The connection and the clock are the caller's.

mod command;
pub mod content;
mod login;
pub mod offer;
mod phase;
pub mod reply;
pub mod session;
mod transaction;
pub mod verdict;
