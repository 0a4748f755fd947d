//! Floor 4, services: names.
//!
//! Whoever needs the DNS asks a [`Names`](answer::Names), blocking, from any thread: the network
//! ([`resolver`]) or, in tests, a text file ([`zone`]). What the answers mean for mail is decided
//! purely: which hosts take a domain's mail, in which order ([`mx`]), at which addresses
//! ([`address`]), and by which name a client may be called ([`reverse`]).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub mod address;
pub mod answer;
mod cache;
pub mod mx;
pub mod resolver;
pub mod reverse;
pub mod zone;

/// Opens the source of names that is set: the zone file if there is one, else the name server, else
/// the system's name servers.
pub fn open(
    zone: Option<&Path>,
    nameserver: Option<SocketAddr>,
) -> Result<Arc<dyn answer::Names>, answer::SourceError> {
    open_trying(zone, nameserver, resolver::TRY)
}

/// The same, where one try of one name server may take `each`: for who can't wait long.
pub fn open_trying(
    zone: Option<&Path>,
    nameserver: Option<SocketAddr>,
    each: Duration,
) -> Result<Arc<dyn answer::Names>, answer::SourceError> {
    Ok(match zone {
        Some(file) => Arc::new(zone::Zone::read(file)?),
        None => Arc::new(resolver::Resolver::start_trying(nameserver, each)?),
    })
}
