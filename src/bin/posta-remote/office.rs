//! What all threads share: what is set, what is remembered, what is under way.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use posta::logbook::sessions::Sessions;

use posta::dns::answer::Names;
use posta::net::relay_logins::Logins;
use posta::net::tls_client::Connector;

use crate::family::Families;
use crate::flight::Flight;
use crate::reuse::Idle;
use crate::security::Ways;
use crate::unreachable::Unreachable;

/// What is set. A job sees the same settings from its begin to its end.
pub struct Settings {
    /// What we call ourselves.
    pub hostname: String,
    /// The names of this host: mail exchangers that are we.
    pub own_names: Vec<String>,
    /// Where this host's own server listens.
    pub listening: Vec<SocketAddr>,
    /// The port of mail exchangers.
    pub port: u16,
    /// For making one connection.
    pub connect_timeout: Duration,
    /// Then a connection is ended.
    pub max_messages_per_connection: usize,
    /// Messages go in chunks where that is offered (RFC 3030).
    pub chunking: bool,
    /// In all, those that are kept among them.
    pub max_connections: usize,
    /// Whom to ask for names.
    pub names: Arc<dyn Names>,
    /// What the ways to targets must be like.
    pub ways: Ways,
    /// Whom we trust under TLS, and the sessions of before.
    pub connector: Arc<Connector>,
}

/// What all threads share.
pub struct Office {
    settings: RwLock<Arc<Settings>>,
    /// Connections that wait for their next message.
    pub idle: Idle,
    /// Hosts that did not answer a moment ago.
    pub unreachable: Unreachable,
    /// How IPv4 and IPv6 fare from here.
    pub families: Families,
    /// Jobs and connections under way.
    pub flight: Arc<Flight>,
    /// Who we are to relays that want to know.
    pub logins: Logins,
    /// Sessions in which something went wrong.
    pub sessions: Arc<Sessions>,
}

impl Office {
    /// An office where nothing is under way yet.
    pub fn new(settings: Settings, logins: Logins, sessions: Sessions) -> Office {
        Office {
            settings: RwLock::new(Arc::new(settings)),
            idle: Idle::default(),
            unreachable: Unreachable::default(),
            families: Families::default(),
            flight: Arc::default(),
            logins,
            sessions: Arc::new(sessions),
        }
    }

    /// What is set now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Sets it anew, for jobs that begin from now on.
    pub fn set(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(settings);
    }

    /// Ends kept connections until there is room for a new one.
    pub fn make_room(&self, max_connections: usize) {
        while self.flight.lines() >= max_connections
            && let Some(connection) = self.idle.oldest()
        {
            connection.quit();
        }
    }

    /// Ends the kept connections that have waited long enough.
    pub fn sweep(&self) {
        for connection in self.idle.expired(Instant::now()) {
            connection.quit();
        }
    }

    /// Ends all kept connections.
    pub fn close(&self) {
        for connection in self.idle.all() {
            connection.quit();
        }
    }
}
