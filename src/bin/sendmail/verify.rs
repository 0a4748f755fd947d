//! `-bv`: says where addresses lead, and sends nothing. The words are sendmail's.

use posta::unix::sysexits;

use posta::mail::address::{AddressError, Mailbox};

use posta::courier::request::{Leaf, Owner, Target};

use posta::config::Config;

use posta::route::{NoRoute, Router, Settings};

use crate::Refusal;

/// Prints a line or more for each address. The exit code is that of the worst.
pub fn verify(addresses: &[String], config: &Config) -> Result<u8, Refusal> {
    if addresses.is_empty() {
        return Err(Refusal(sysexits::USAGE, "-bv: which addresses?".to_string()));
    }
    let router = Router::new(Settings::of(config));
    let mut worst = sysexits::OK;
    for address in addresses {
        let found = mailbox(address, &router)?;
        let (lines, code) = tell(address, router.expand(&found));
        lines.iter().for_each(|line| println!("{line}"));
        worst = worst.max(code);
    }
    Ok(worst)
}

/// A name without a domain is one of this host.
fn mailbox(address: &str, router: &Router) -> Result<Mailbox, Refusal> {
    match Mailbox::parse(address, true) {
        Err(AddressError::NoDomain) => router.qualify(address).ok_or(AddressError::NoDomain),
        read => read,
    }
    .map_err(|why| Refusal(sysexits::DATA, format!("{address}: {why}")))
}

fn tell(address: &str, found: Result<Vec<Leaf>, NoRoute>) -> (Vec<String>, u8) {
    match found {
        Ok(leaves) => {
            let line = |leaf: &Leaf| format!("{address}... deliverable: {}", mailer(leaf));
            (leaves.iter().map(line).collect(), sysexits::OK)
        }
        Err(none) => {
            let code = if none.status.class == 4 { sysexits::TEMPFAIL } else { sysexits::NO_USER };
            (vec![format!("{address}... {none}")], code)
        }
    }
}

fn mailer(leaf: &Leaf) -> String {
    let user = leaf.address.to_string();
    match &leaf.target {
        Target::Local(Owner::Account(name)) => format!("mailer local, user {name}"),
        Target::Local(Owner::Ids(..)) => format!("mailer local, user {user}"),
        Target::Mx(domain) => format!("mailer esmtp, host {domain}, user {user}"),
        Target::Smtp(hop) => format!("mailer esmtp, host {hop}, user {user}"),
        Target::Lmtp(hop) => format!("mailer lmtp, host {hop}, user {user}"),
    }
}
