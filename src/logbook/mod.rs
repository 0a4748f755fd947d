//! Floor 3, told: what we say. One line per event: the queue id, then `key=value`.
//!
//! [`entry`] has the words, so that every program says the same thing in the same way and the tools
//! that read Postfix's log understand it. [`sink`] is the door to env_logger: where lines go, and
//! in what dress; [`together`] writes many of them at once. [`history`] keeps what became of each
//! message. [`flight`] is the memory of a session, which [`sessions`] keeps where something went wrong.
//! [`count`] are the counters behind `postactl metrics`, which [`collect`] brings together; [`left`] reads
//! what programs have left.

pub mod collect;
pub mod count;
pub mod entry;
pub mod flight;
pub mod history;
pub mod left;
pub mod sessions;
pub mod sink;
pub mod together;
