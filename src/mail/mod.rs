//! Floor 1, ground: the words of the field. Pure: no I/O, no clock.
//!
//! Addresses, enhanced status codes, envelopes, queue ids, header and trace fields, and the
//! delivery status notification.

pub mod address;
pub mod addresses;
pub mod envelope;
pub mod header;
pub mod id;
pub mod report;
pub mod status;
pub mod trace;
