//! What the DNS says of clients and of senders, to who can't wait for it long.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::dns;
use posta::dns::answer::{Answer, Kind, LookupError, Names};
use posta::dns::mx::{MxError, order};
use posta::dns::reverse::confirmed_name;

/// How long one try of one name server may take.
const TRY: Duration = Duration::from_millis(500);
/// After that nothing more is asked for one client.
const PATIENCE: Duration = Duration::from_secs(3);

/// The source of names, for clients and for senders.
pub struct Directory {
    names: Option<Arc<dyn Names>>,
    /// The source may know clients of this very host.
    knows_loopback: bool,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("is_open", &self.names.is_some()).finish_non_exhaustive()
    }
}

impl Directory {
    /// Opens the source that is set: a zone file, a name server, or the system's. Without one mail is
    /// received all the same.
    pub fn open(zone: Option<&Path>, nameserver: Option<SocketAddr>) -> Directory {
        let names = dns::open_trying(zone, nameserver, TRY)
            .inspect_err(|error| {
                log::warn!("clients will have no names, and senders are not looked up: {error}")
            })
            .ok();
        Directory { names, knows_loopback: zone.is_some() || nameserver.is_some() }
    }

    /// The confirmed name of an address. An error: it can't be found out now, or, in a `hurry`, not
    /// at once. The system's name servers are not asked for this host's own addresses.
    pub fn name_of(&self, address: IpAddr, hurry: bool) -> Result<Option<String>, LookupError> {
        let Some(names) = &self.names else { return Ok(None) };
        if address.is_loopback() && !self.knows_loopback {
            return Ok(None);
        }
        confirmed_name(&Hasty::new(&**names, hurry), address)
    }

    /// Whether a domain says that it takes no mail (RFC 7505), as a client at `address` has it for a
    /// sender. What can't be found out now is no.
    pub fn takes_no_mail(&self, domain: &str, address: IpAddr, hurry: bool) -> bool {
        let Some(names) = &self.names else { return false };
        if domain.starts_with('[') || (address.is_loopback() && !self.knows_loopback) {
            return false;
        }
        let answer = Hasty::new(&**names, hurry).look_up(domain, Kind::Mx);
        matches!(order(domain, answer, &[], &mut |_| 0), Err(MxError::TakesNoMail(_)))
    }
}

/// A source that answers no more after some time.
struct Hasty<'a> {
    names: &'a dyn Names,
    until: Instant,
}

impl<'a> Hasty<'a> {
    fn new(names: &'a dyn Names, hurry: bool) -> Hasty<'a> {
        let patience = if hurry { Duration::ZERO } else { PATIENCE };
        Hasty { names, until: Instant::now() + patience }
    }
}

impl Names for Hasty<'_> {
    fn look_up(&self, name: &str, kind: Kind) -> Result<Answer, LookupError> {
        if Instant::now() >= self.until {
            return Err(LookupError::TimedOut);
        }
        self.names.look_up(name, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_name_is_found_unless_there_is_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let zone = folder.path().join("zone");
        std::fs::write(&zone, "127.0.0.2 PTR mx.example\nmx.example A 127.0.0.2\n").unwrap();
        let directory = Directory::open(Some(&zone), None);
        let ask = |address: &str, hurry| directory.name_of(address.parse().unwrap(), hurry);
        assert_eq!(ask("127.0.0.2", false), Ok(Some("mx.example".to_string())));
        assert_eq!(ask("127.0.0.3", false), Ok(None));
        assert!(ask("127.0.0.2", true).unwrap_err().is_temporary());
    }

    #[test]
    fn nobody_is_asked_for_this_host() {
        let directory = Directory { names: None, knows_loopback: false };
        assert_eq!(directory.name_of("::1".parse().unwrap(), false), Ok(None));
    }
}
