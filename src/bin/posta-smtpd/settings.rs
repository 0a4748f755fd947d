//! From the configuration to what sessions and acceptor need.

use std::io;
use std::sync::Arc;

use posta::config::{Config, DomainFate, Listen, ListenTls, Users};
use posta::net::seats::Limits;
use posta::net::tls_server::TlsFiles;
use posta::policy::access::Networks;
use posta::policy::chain::{Policy, Rules};
use posta::policy::owner::Owners;
use posta::route::{self, Router};
use posta::smtp::server;

use crate::house::{Entrance, Terms};

/// What holds for sessions. An error: a table that can't be read, or a fault in it.
pub fn terms(config: &Config) -> io::Result<Terms> {
    let (smtpd, users) = (&config.smtpd, config.run.join("users"));
    let has_users_file = |fate: &DomainFate| matches!(fate, DomainFate::Users { users: Users::File(_), .. });
    Ok(Terms {
        smtp: Arc::new(server::Settings {
            hostname: config.hostname.clone(),
            max_message_size: smtpd.max_message_size,
            max_recipients: smtpd.max_recipients,
            max_errors: smtpd.max_errors,
        }),
        policy: Policy::new(Rules::of(config)?),
        limits: limits(config),
        entrances: config.listen.iter().map(entrance).collect(),
        command_timeout: smtpd.command_timeout,
        data_timeout: smtpd.data_timeout,
        message_timeout: smtpd.message_timeout,
        min_data_rate: smtpd.min_data_rate,
        max_hops: smtpd.max_hops,
        users: config.domains.iter().any(|rule| has_users_file(&rule.fate)).then_some(users),
        auth: config.run.join("auth"),
        owners: Owners::load(smtpd.login_senders.as_deref(), &config.local.delimiter)?,
        hide_client: smtpd.hide_client,
        reverse_dns: smtpd.reverse_dns,
        refuse_null_mx_senders: smtpd.refuse_null_mx_senders,
        greet_pause: smtpd.greet_pause,
        xclient_from: Networks::new(&smtpd.xclient_from),
        xforward_from: Networks::new(&smtpd.xforward_from),
        router: Router::new(route::Settings::of(config)),
    })
}

/// How many sessions there may be.
pub fn limits(config: &Config) -> Limits {
    Limits { sessions: config.smtpd.max_sessions, per_client: config.smtpd.max_sessions_per_client }
}

/// Where the certificates are; none: there is no TLS.
pub fn tls_files(config: &Config) -> Option<TlsFiles> {
    Some(TlsFiles {
        certificate: config.tls.certificate.clone()?,
        key: config.tls.key.clone(),
        client_ca: config.tls.client_ca.clone(),
        hostname: config.hostname.clone(),
    })
}

/// A listener.
fn entrance(listen: &Listen) -> Entrance {
    Entrance {
        submission: listen.submission,
        starttls: listen.tls == ListenTls::StartTls,
        implicit: listen.tls == ListenTls::Implicit,
        trusted: listen.trusted,
        proxy: listen.proxy,
        lmtp: listen.lmtp,
    }
}
