//! From the configuration to what a router is told: once, since posta-smtpd, posta-queue and postactl
//! ask the same question and must get the same answer.

use crate::config::Config;

use super::Settings;

impl Settings {
    /// What the configuration says.
    pub fn of(config: &Config) -> Settings {
        Settings {
            hostname: config.hostname.clone(),
            postmaster: config.postmaster.clone(),
            domains: config.domains.clone(),
            mailbox: config.local.mailbox.clone(),
            aliases: config.local.aliases.clone(),
            delimiter: config.local.delimiter.clone(),
            root_mailbox: config.local.root_mailbox.clone(),
            users: config.run.join("users"),
        }
    }
}
