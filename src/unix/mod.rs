//! Floor 1, ground: the operating system. The only room with `unsafe` in it, and the only door to
//! libc and nix.
//!
//! Every function gives `std::io::Error` and leaves it to the caller to name the file or the peer.

pub mod capabilities;
pub mod child;
pub mod crypt;
pub mod durable;
pub mod enclosure;
pub mod fifo;
pub mod group;
pub mod handover;
pub mod listeners;
pub mod memory;
pub mod notify;
#[cfg(feature = "pam")]
pub mod pam;
pub mod pass;
pub mod privilege;
pub mod processes;
pub mod random;
pub mod record_lock;
pub mod seccomp;
pub mod shadow;
pub mod signals;
pub mod sysexits;
pub mod terminal;
pub mod threads;
pub mod tls_sessions;
pub mod users;
pub mod wait;
