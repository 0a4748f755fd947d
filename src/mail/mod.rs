//! Floor 1, ground: the words of the field. Pure: no I/O, no clock.
//!
//! Addresses, enhanced status codes, envelopes, queue ids, limits of mailboxes, header and trace fields, what a submitted
//! message's header lacks, and the delivery status notification.

pub mod address;
pub mod addresses;
pub mod complete;
pub mod convert;
pub mod envelope;
pub mod header;
pub mod id;
pub mod limit;
pub mod phrase;
pub mod report;
pub mod status;
pub mod structure;
pub mod trace;
pub mod transfer;
