//! Floor 5, judgement: who may do what, and how often.
//!
//! [`chain`] asks in order, the cheapest first: whether the administrator's tables say something
//! ([`access`]), how a client calls itself ([`helo`]), how often this client, sender or login comes
//! ([`limits`], by the buckets of [`rate`]), whether the address exists (that answer is brought along),
//! whether the client may relay. What comes out is a [`verdict`], which nobody can overlook.
//! [`owner`] knows which senders are whose. [`settings`] makes the rules of the configuration.

pub mod access;
pub mod chain;
pub mod helo;
pub mod limits;
pub mod owner;
pub mod rate;
pub mod settings;
pub mod verdict;
