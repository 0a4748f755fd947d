//! posta: a mail server of classic Unix shape.
//!
//! This library holds the rooms that the programs in `src/bin/` are built from. Programs meet on
//! disk or on a Unix socket, never in code: no program imports another.
//!
//! The rooms lie on floors. A room names only rooms of a lower floor, and neighbours in its own
//! folder; `tests/layers.rs` reads the `use` lines and holds us to it.
//!
//! | floor | rooms | what lives there |
//! |---|---|---|
//! | 5 judgement | `policy` | who may do what, and how often |
//! | 4 services | `net` `dns` `spool` `route` `maildir` | sockets, names, the queue on disk, addresses, mailboxes |
//! | 3 told | `config` `logbook` | what the administrator says, what we say |
//! | 2 languages | `smtp` `sasl` `courier` | protocols as pure state machines: no I/O and no clock of their own |
//! | 1 ground | `mail` `unix` | the words of the field (pure), and the only `unsafe` |
//!
//! Foreign crates have one door each (`tests/doors.rs`): mio in `net/acceptor`, crossbeam in
//! `net/pool`, openssl in `net/tls*` and `sasl/`, hickory and tokio in `dns/resolver`, mailparse in
//! `mail/structure`, regex and rusqlite in `route/`, env_logger in `logbook/sink`, getopts in
//! `config/options` and the `main.rs` of the commands, landlock, libc and nix in `unix/`.
#![deny(unsafe_code)]
#![warn(missing_docs)]

// floor 1: ground
pub mod mail;
#[allow(unsafe_code)]
pub mod unix;

// floor 2: languages
pub mod courier;
pub mod sasl;
pub mod smtp;

// floor 3: told
pub mod config;
pub mod logbook;

// floor 4: services
pub mod dns;
pub mod maildir;
pub mod net;
pub mod route;
pub mod spool;

// floor 5: judgement
pub mod policy;
