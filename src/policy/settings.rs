//! From the configuration to the rules: one way for the server that judges and for who asks why.

use std::io;

use crate::config::{Config, Fault, Limits as Rates};

use super::access::{Access, Networks, Places};
use super::chain::Rules;
use super::helo::Checks;
use super::limits::Limits;

impl Rules {
    /// The rules as the administrator has set them. An error: every fault of the access tables.
    pub fn of(config: &Config) -> io::Result<Rules> {
        let smtpd = &config.smtpd;
        Ok(Rules {
            relay_from: Networks::new(&smtpd.relay_from),
            relay_fingerprints: smtpd.relay_fingerprints.clone(),
            access: access(config)?,
            helo: Checks {
                hostname: config.hostname.clone(),
                refuse_own_name: smtpd.refuse_own_name,
                refuse_bad_names: smtpd.refuse_bad_names,
            },
            limits: rates(&config.limits),
        })
    }
}

/// The tables of who may do what.
fn access(config: &Config) -> io::Result<Access> {
    let places = Places {
        clients: config.access.clients.clone(),
        helo: config.access.helo.clone(),
        senders: config.access.senders.clone(),
        recipients: config.access.recipients.clone(),
    };
    Access::load(&places).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        io::Error::other(faults.join("\n"))
    })
}

/// How often who may do what.
fn rates(limits: &Rates) -> Limits {
    Limits {
        connections: limits.connections_per_minute,
        messages: limits.messages_per_minute,
        recipients: limits.recipients_per_minute,
        messages_per_sender: limits.messages_per_minute_per_sender,
        recipients_per_sender: limits.recipients_per_minute_per_sender,
        messages_per_login: limits.messages_per_minute_per_login,
        recipients_per_login: limits.recipients_per_minute_per_login,
        unknown_recipients: limits.unknown_recipients_per_hour,
    }
}
