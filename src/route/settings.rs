//! What a router is told.

use std::path::PathBuf;

use crate::config::{Config, DomainRule, Source};

/// Plain values of the configuration. Their defaults are empty; see posta.toml(5) for what each is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This host's own name.
    pub hostname: String,
    /// Who reads mail for postmaster of a domain that has none of its own.
    pub postmaster: String,
    /// What becomes of mail for each domain.
    pub domains: Vec<DomainRule>,
    /// `routing.domains`: tables with more of them.
    pub domain_tables: Vec<Source>,
    /// `routing.users_files`: those that these may name.
    pub users_files: Vec<PathBuf>,
    /// `routing.logins`: the folder whose files these may name.
    pub logins: Option<PathBuf>,
    /// `local.mailbox`
    pub mailbox: String,
    /// `local.aliases`
    pub aliases: Source,
    /// `local.delimiter`: each of its characters parts a name from an extension.
    pub delimiter: String,
    /// `local.root_mailbox`
    pub root_mailbox: String,
    /// `run/users`: the users files without their hashes, published by posta-auth.
    pub users: PathBuf,
    /// `routing.virtual_aliases`
    pub virtual_aliases: Vec<Source>,
    /// `routing.canonical`
    pub canonical: Vec<Source>,
    /// `routing.sender_canonical`
    pub sender_canonical: Vec<Source>,
    /// `routing.recipient_canonical`
    pub recipient_canonical: Vec<Source>,
    /// `routing.masquerade`
    pub masquerade: Vec<String>,
    /// `routing.masquerade_except`
    pub masquerade_except: Vec<String>,
    /// `routing.srs_domain`; empty: forwarded mail keeps its sender.
    pub srs_domain: String,
    /// `routing.verp`
    pub verp: Vec<String>,
    /// `routing.signed_senders`
    pub signed_senders: Vec<String>,
    /// `routing.refuse_unsigned_bounces`
    pub refuse_unsigned_bounces: bool,
    /// `routing.key`, or the default within the spool.
    pub key: PathBuf,
}

impl Settings {
    /// What a configuration says. For the `main.rs` of the programs that ask where addresses lead: all
    /// must be told the same.
    pub fn of(config: &Config) -> Settings {
        let routing = &config.routing;
        Settings {
            hostname: config.hostname.clone(),
            postmaster: config.postmaster.clone(),
            domains: config.domains.clone(),
            domain_tables: routing.domains.clone(),
            users_files: routing.users_files.clone(),
            logins: routing.logins.clone(),
            mailbox: config.local.mailbox.clone(),
            aliases: config.local.aliases.clone(),
            delimiter: config.local.delimiter.clone(),
            root_mailbox: config.local.root_mailbox.clone(),
            users: config.run.join("users"),
            virtual_aliases: routing.virtual_aliases.clone(),
            canonical: routing.canonical.clone(),
            sender_canonical: routing.sender_canonical.clone(),
            recipient_canonical: routing.recipient_canonical.clone(),
            masquerade: routing.masquerade.clone(),
            masquerade_except: routing.masquerade_except.clone(),
            srs_domain: routing.srs_domain.clone(),
            verp: routing.verp.clone(),
            signed_senders: routing.signed_senders.clone(),
            refuse_unsigned_bounces: routing.refuse_unsigned_bounces,
            key: routing.key.clone().unwrap_or_else(|| config.spool.join("key")),
        }
    }
}

#[cfg(test)]
impl Default for Settings {
    /// For tests: nothing but the least that a router needs.
    fn default() -> Settings {
        Settings {
            hostname: "mail.example".into(),
            postmaster: "root".into(),
            domains: Vec::new(),
            domain_tables: Vec::new(),
            users_files: Vec::new(),
            logins: None,
            mailbox: "~/Maildir/".into(),
            aliases: Source::Text("/no/such/aliases".into()),
            delimiter: "+".into(),
            root_mailbox: "/var/mail/root/".into(),
            users: "/no/such/users".into(),
            virtual_aliases: Vec::new(),
            canonical: Vec::new(),
            sender_canonical: Vec::new(),
            recipient_canonical: Vec::new(),
            masquerade: Vec::new(),
            masquerade_except: vec!["root".into()],
            srs_domain: String::new(),
            verp: Vec::new(),
            signed_senders: Vec::new(),
            refuse_unsigned_bounces: false,
            key: PathBuf::new(),
        }
    }
}
