//! Floor 2, languages: what posta-queue asks of a hand, and what the hand answers.
//!
//! A hand is posta-local or posta-remote. posta-queue connects to `run/local` or `run/remote` (a
//! SEQPACKET socket, see `unix/pass`), the hand greets with the number of jobs that it takes at
//! once ([`report::FromHand::Credits`]), and posta-queue never has more than those under way. A
//! request is one packet with the open queue file attached; its answer is one packet with a fate
//! for each of its recipients. Neither side ever waits for the other to read.
//!
//! Packets are fields, each `name length:bytes` and a newline ([`fields`]): a person can read a
//! trace of them, and no byte of an address or a reply can be taken for a field's end.

pub mod drop;
pub mod fields;
pub mod forward;
pub mod order;
pub mod report;
pub mod request;
pub mod terms;
pub mod wait;
