//! How much of everything a client, a sender or a login may do.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::net::seats::client_of;

use super::chain::Client;
use super::rate::Rate;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The limits, as the administrator set them; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of a client, a minute.
    pub connections: u32,
    /// Of a client, a minute.
    pub messages: u32,
    /// Of a client, a minute.
    pub recipients: u32,
    /// Of a sender's address, a minute.
    pub messages_per_sender: u32,
    /// Of a sender's address, a minute.
    pub recipients_per_sender: u32,
    /// Of a login, a minute.
    pub messages_per_login: u32,
    /// Of a login, a minute.
    pub recipients_per_login: u32,
    /// Recipients of a client that do not exist, an hour.
    pub unknown_recipients: u32,
}

/// Who has done how much.
#[derive(Debug)]
pub struct Counts {
    /// Connections of clients.
    pub connections: Count<IpAddr>,
    /// Messages of clients.
    pub messages: Count<IpAddr>,
    /// Recipients of clients.
    pub recipients: Count<IpAddr>,
    /// Messages of senders.
    pub messages_per_sender: Count<String>,
    /// Recipients of senders.
    pub recipients_per_sender: Count<String>,
    /// Messages of logins.
    pub messages_per_login: Count<String>,
    /// Recipients of logins.
    pub recipients_per_login: Count<String>,
    /// Unknown recipients of clients.
    pub unknown_recipients: Count<IpAddr>,
}

/// The buckets of one limit, shared by all sessions.
#[derive(Debug)]
pub struct Count<K>(Mutex<Rate<K>>);

impl Counts {
    /// Nobody has done anything yet.
    pub fn new(limits: Limits) -> Counts {
        Counts {
            connections: Count::new(limits.connections, MINUTE),
            messages: Count::new(limits.messages, MINUTE),
            recipients: Count::new(limits.recipients, MINUTE),
            messages_per_sender: Count::new(limits.messages_per_sender, MINUTE),
            recipients_per_sender: Count::new(limits.recipients_per_sender, MINUTE),
            messages_per_login: Count::new(limits.messages_per_login, MINUTE),
            recipients_per_login: Count::new(limits.recipients_per_login, MINUTE),
            unknown_recipients: Count::new(limits.unknown_recipients, HOUR),
        }
    }
}

impl<K: Hash + Eq> Count<K> {
    fn new(most: u32, period: Duration) -> Count<K> {
        Count(Mutex::new(Rate::new(most, period)))
    }

    /// Whether this one may do it once more; nobody may always.
    pub fn allows(&self, who: Option<K>, now: Instant) -> bool {
        who.is_none_or(|who| self.0.lock().unwrap_or_else(PoisonError::into_inner).allow(who, now))
    }
}

/// What a client is counted as; none for one without an address.
pub fn counted(client: &Client) -> Option<IpAddr> {
    client.address.map(client_of)
}
