//! What a client is offered: by the listener that it came to, by what posta-auth can do, and by who
//! it is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use posta::policy::chain::Client;
use posta::sasl::mechanism::{Mechanism, offered};
use posta::smtp::server::{Mechanisms, Service};

use crate::house::{Entrance, House, Terms};
use crate::login;

/// The mechanisms that posta-auth has published, read again when it publishes others.
#[derive(Debug)]
pub struct Offers {
    run: PathBuf,
    /// The file's time, and what came of it: under TLS only, and on trusted listeners.
    read: Mutex<Option<(SystemTime, [Arc<Mechanisms>; 2])>>,
}

impl Offers {
    /// Of the posta-auth whose sockets are in `run`.
    pub fn new(run: PathBuf) -> Offers {
        Offers { run, read: Mutex::new(None) }
    }

    /// How a client may log in; by no mechanism while posta-auth has not come up.
    pub fn mechanisms(&self, trusted: bool) -> Arc<Mechanisms> {
        let file = std::fs::metadata(self.run.join("mechanisms")).and_then(|about| about.modified());
        let Ok(modified) = file else { return Arc::default() };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.as_ref().is_none_or(|(at, _)| *at != modified) {
            let all = login::mechanisms(&self.run);
            *read = Some((modified, [false, true].map(|trusted| Arc::new(mechanisms(&all, trusted)))));
        }
        read.as_ref().map_or_else(Arc::default, |(_, both)| Arc::clone(&both[usize::from(trusted)]))
    }
}

/// RFC 4954 4: without TLS only where the administrator trusts the way. A channel can be bound to
/// under TLS alone.
fn mechanisms(all: &[Mechanism], trusted: bool) -> Mechanisms {
    let names = |mechanisms: Vec<Mechanism>| mechanisms.into_iter().map(|it| it.name().to_string()).collect();
    Mechanisms { secure: names(offered(all, true, true)), plain: names(offered(all, trusted, false)) }
}

/// What the session is told of it.
pub fn service(house: &House, terms: &Terms, entrance: Entrance, client: &Client) -> Service {
    let Trust { xclient, xforward } = trust(terms, client.address);
    Service {
        lmtp: entrance.lmtp,
        submission: entrance.submission,
        starttls: entrance.starttls && house.certificates.current().is_some(),
        secure: entrance.implicit,
        mechanisms: house.offers.mechanisms(entrance.trusted),
        xclient,
        xforward,
    }
}

/// Which words about others are believed.
pub struct Trust {
    /// By XCLIENT.
    pub xclient: bool,
    /// By XFORWARD.
    pub xforward: bool,
}

/// How far a client at this address is trusted.
pub fn trust(terms: &Terms, address: Option<IpAddr>) -> Trust {
    Trust { xclient: terms.xclient_from.contain(address), xforward: terms.xforward_from.contain(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_offered_where_nobody_reads_along() {
        let run = tempfile::tempdir().unwrap();
        let offers = Offers::new(run.path().to_path_buf());
        assert_eq!(*offers.mechanisms(true), Mechanisms::default());
        std::fs::write(run.path().join("mechanisms"), "SCRAM-SHA-256-PLUS\nPLAIN\n").unwrap();
        let offer = offers.mechanisms(false);
        assert_eq!((offer.secure.join(" ").as_str(), offer.plain.len()), ("SCRAM-SHA-256-PLUS PLAIN", 0));
        assert_eq!(offers.mechanisms(true).plain, ["PLAIN"]);
        std::fs::remove_file(run.path().join("mechanisms")).unwrap();
        assert_eq!(*offers.mechanisms(true), Mechanisms::default());
    }
}
