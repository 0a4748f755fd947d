//! Floor 5, judgement: who may do what, and how often.
//!
//! [`chain`] asks in order, the cheapest first: how often this client comes ([`rate`]), whether the
//! address exists (that answer is brought along), whether the client may relay ([`access`]). What
//! comes out is a [`verdict`], which nobody can overlook.

pub mod access;
pub mod chain;
pub mod rate;
pub mod verdict;
