//! Floor 4, services: sockets.
//!
//! One thread, the [`acceptor`], watches everything that is silent: listeners, signals, and the
//! sessions that wait for their client. What has something to say goes to the [`pool`], whose
//! threads talk to one client at a time, blocking, over a [`stream`] whose waits have an end. So a
//! thread is held by a client that is busy, and an idle one costs a few hundred bytes ([`parking`]).
//! How many there may be, in all and from one client, is counted in [`seats`]. Where a proxy stands in
//! front of us, it says who the client is ([`proxy`]).
//!
//! A stream turns to TLS in place: [`tls_client`] knows what is asked of a server, [`tls_server`] has the certificates, [`tls_store`] renews them when
//! their files change, `tls_layer` is what lies on the connection from then on.

pub mod acceptor;
mod carrier;
pub mod orders;
pub mod parking;
pub mod pool;
pub mod proxy;
pub mod seats;
pub mod stream;
pub mod tls_client;
mod tls_files;
pub mod tls_handover;
mod tls_layer;
pub mod tls_server;
pub mod tls_store;

#[cfg(test)]
#[path = "../../tests/certificates/mod.rs"]
mod certificates;
