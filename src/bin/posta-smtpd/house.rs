//! What all sessions share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use posta::logbook::sessions::{self, Sessions};
use posta::net::seats::Limits;
use posta::net::tls_store::Store;
use posta::policy::access::Networks;
use posta::policy::chain::Policy;
use posta::policy::owner::Owners;
use posta::route::Router;
use posta::smtp::server;
use posta::spool::{Committer, Spool};

use crate::names::Directory;
use crate::offer::Offers;

/// The house: one for the process.
#[derive(Debug)]
pub struct House {
    terms: RwLock<Arc<Terms>>,
    closing: AtomicBool,
    /// Most workers are busy, as the last of them saw that turned to a client.
    pub hurry: Arc<AtomicBool>,
    /// Where new mail goes.
    pub spool: Arc<Spool>,
    /// Makes it durable.
    pub committer: Committer,
    /// The certificates.
    pub certificates: Arc<Store>,
    /// Where sessions are kept in which something went wrong.
    pub sessions: Sessions,
    /// How clients may log in.
    pub offers: Offers,
    /// What clients are called.
    pub directory: Directory,
}

/// What the administrator has said. A session keeps the terms that it began with; a reload makes
/// new ones for those who come.
#[derive(Debug)]
pub struct Terms {
    /// Shared with the sessions' state machines.
    pub smtp: Arc<server::Settings>,
    /// Who may do what, and how often.
    pub policy: Policy,
    /// Whom there is.
    pub router: Router,
    /// How many sessions there may be.
    pub limits: Limits,
    /// By listener. A listener beyond the list is like the plainest.
    pub entrances: Vec<Entrance>,
    /// For a whole command line, and for a client to take our replies.
    pub command_timeout: Duration,
    /// For each piece of message data.
    pub data_timeout: Duration,
    /// For the data of a whole message.
    pub message_timeout: Duration,
    /// Octets of message data that have to come in a second, after the first piece's time.
    pub min_data_rate: u64,
    /// Received fields in a message; more is a loop.
    pub max_hops: usize,
    /// Without this file nobody knows who exists here; none where it isn't needed.
    pub users: Option<PathBuf>,
    /// Where posta-auth listens.
    pub auth: PathBuf,
    /// Whose addresses are whose.
    pub owners: Owners,
    /// Who has logged in is not shown with the address that he sends from.
    pub hide_client: bool,
    /// The DNS is asked for clients' names.
    pub reverse_dns: bool,
    /// The DNS is asked whether strangers' senders take mail at all.
    pub refuse_null_mx_senders: bool,
    /// Strangers wait so long for their greeting.
    pub greet_pause: Option<Duration>,
    /// Who may say XCLIENT.
    pub xclient_from: Networks,
    /// Who may say XFORWARD.
    pub xforward_from: Networks,
}

/// A listener, as the sessions that come by it see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Users hand their mail in here (RFC 6409).
    pub submission: bool,
    /// Sessions may turn to TLS, where there is a certificate.
    pub starttls: bool,
    /// Sessions begin with TLS.
    pub implicit: bool,
    /// Passwords may come without TLS: nobody reads along.
    pub trusted: bool,
    /// A proxy connects, and says for whom.
    pub proxy: bool,
    /// LMTP is spoken here (RFC 2033).
    pub lmtp: bool,
}

impl House {
    /// A house that takes everybody in on these terms. `run` is the folder of sockets.
    pub fn new(
        terms: Terms,
        spool: Spool,
        certificates: Arc<Store>,
        run: PathBuf,
        directory: Directory,
    ) -> House {
        let spool = Arc::new(spool);
        House {
            terms: RwLock::new(Arc::new(terms)),
            closing: AtomicBool::new(false),
            hurry: Arc::default(),
            committer: Committer::new(Arc::clone(&spool)),
            spool,
            certificates,
            sessions: Sessions::open(run.join(sessions::RECEIVING)),
            offers: Offers::new(run),
            directory,
        }
    }

    /// The terms that hold for who comes now.
    pub fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these terms hold.
    pub fn change(&self, terms: Terms) {
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }

    /// Sessions are to end as soon as they can.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether sessions are to end as soon as they can.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

impl Terms {
    /// The listener of that number.
    pub fn entrance(&self, listener: usize) -> Entrance {
        self.entrances.get(listener).copied().unwrap_or_default()
    }

    /// What is still missing before anybody can be served.
    pub fn missing(&self) -> Option<&PathBuf> {
        self.users.as_ref().filter(|path| !path.exists())
    }
}
