//! Which sender a copy goes out with.
//!
//! Without a reason for another one it is the message's own. A list with an owner has the owner's
//! address (RFC 5321 3.9.2), with the recipient's in it where that is wanted (VERP); forwarded mail of
//! strangers has one that leads back through this host ([`super::srs`]); mail of our own may be signed
//! ([`super::tags`]). The null sender stays what it is: a bounce is never bounced.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mail::address::Mailbox;

use super::table::TableError;
use super::table::watched::{Absent, Watched};
use super::{Settings, signature::Keys, srs, tags};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// What the settings say of senders.
#[derive(Debug)]
pub(super) struct Senders {
    srs_domain: Option<String>,
    verp: Vec<String>,
    signed: Vec<String>,
    /// Bounces are taken at signed addresses only.
    refuses_unsigned: bool,
    delimiter: char,
    keys: Watched<Keys>,
}

/// What is to be known of a copy that leaves this host.
#[derive(Debug)]
pub(super) struct Copy<'c> {
    /// The sender so far, and whether its domain is one that this host has a rule for.
    pub(super) sender: &'c Mailbox,
    pub(super) is_ours: bool,
    /// An alias or a program of this host sends it on.
    pub(super) is_forwarded: bool,
}

/// An address of ours that came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// It leads on to this one.
    To(Mailbox),
    /// It is none of ours, or no longer good.
    Refused(String),
}

impl Senders {
    /// What the settings say.
    pub(super) fn new(settings: &Settings) -> Senders {
        let lower = |list: &[String]| list.iter().map(|name| name.to_lowercase()).collect();
        Senders {
            srs_domain: Some(settings.srs_domain.to_lowercase()).filter(|domain| !domain.is_empty()),
            verp: lower(&settings.verp),
            signed: lower(&settings.signed_senders),
            refuses_unsigned: settings.refuse_unsigned_bounces,
            delimiter: settings.delimiter.chars().next().unwrap_or('+'),
            keys: Watched::new(settings.key.clone(), Absent::Failure, Keys::parse),
        }
    }

    /// The key file, if one is needed.
    pub(super) fn key_file(&self) -> Option<&Path> {
        (self.srs_domain.is_some() || !self.signed.is_empty()).then(|| self.keys.path())
    }

    /// The sender of a copy that goes to a stranger's host; `None`: as it was.
    pub(super) fn of_copy(&self, copy: &Copy<'_>) -> Result<Option<Mailbox>, TableError> {
        let domain = copy.sender.domain();
        if copy.is_forwarded && !copy.is_ours {
            let Some(own) = self.srs_domain.as_deref().filter(|own| *own != domain) else { return Ok(None) };
            let sender = srs::forward(copy.sender, own, &*self.keys.get()?, today());
            if sender.is_none() {
                log::warn!("{} is too long to be rewritten: it is sent on as it is", copy.sender);
            }
            return Ok(sender);
        }
        // What comes back from a filter has been signed already.
        if self.signs(domain) && !is_tagged(copy.sender.local(), tags::PRVS) {
            return Ok(tags::sign(copy.sender, &*self.keys.get()?, today()));
        }
        Ok(None)
    }

    /// Whether every sender of a domain is signed, wherever its mail goes: then nothing but forgeries can
    /// come back to one that is not.
    pub(super) fn signs_all(&self, domain: &str) -> bool {
        self.refuses_unsigned && self.signs(domain)
    }

    fn signs(&self, domain: &str) -> bool {
        self.signed.iter().any(|signed| signed == domain)
    }

    /// The sender of a copy of the list that has this owner.
    pub(super) fn of_list(&self, list: &str, owner: &Mailbox, recipient: &Mailbox) -> Mailbox {
        let is_named = self.verp.iter().any(|name| name == list || name == "*");
        let named = is_named.then(|| tags::verp(owner, self.delimiter, recipient)).flatten();
        named.unwrap_or_else(|| owner.clone())
    }

    /// Where a recipient leads that is a sender which we have written. `None`: it is no such one.
    pub(super) fn returned(&self, address: &Mailbox) -> Result<Option<Returned>, TableError> {
        let domain = address.domain();
        if self.srs_domain.as_deref() == Some(domain) && is_tagged(address.local(), "srs") {
            let back = srs::back(address.local(), &*self.keys.get()?, today());
            return Ok(
                back.map(|back| back.map_or_else(|why| Returned::Refused(why.to_string()), Returned::To))
            );
        }
        if self.signs(domain) && is_tagged(address.local(), tags::PRVS) {
            let plain = tags::verify(address, &*self.keys.get()?, today());
            return Ok(
                plain.map(|plain| plain.map_or_else(|why| Returned::Refused(why.into()), Returned::To))
            );
        }
        Ok(None)
    }
}

fn is_tagged(local: &str, tag: &str) -> bool {
    local.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag))
}

/// Days since 1970.
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(folder: &tempfile::TempDir) -> Senders {
        let key = folder.path().join("key");
        std::fs::write(&key, "a key that is long enough\n").unwrap();
        Senders::new(&Settings {
            srs_domain: "Us.Example".into(),
            verp: vec!["News".into()],
            signed_senders: vec!["signed.example".into()],
            key,
            ..Settings::default()
        })
    }

    fn at(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    #[test]
    fn strangers_mail_that_is_forwarded_leads_back_through_us() {
        let folder = tempfile::tempdir().unwrap();
        let senders = senders(&folder);
        let sender = at("bob@a.example");
        let copy = |is_ours: bool, is_forwarded: bool| {
            senders.of_copy(&Copy { sender: &sender, is_ours, is_forwarded }).unwrap()
        };
        let sent = copy(false, true).unwrap();
        assert!(sent.local().starts_with("SRS0=") && sent.domain() == "us.example");
        assert_eq!((copy(true, true), copy(false, false)), (None, None));
        assert_eq!(senders.returned(&sent).unwrap(), Some(Returned::To(sender.clone())));
        let forged = at(&sent.to_string().replace("bob", "eve"));
        assert!(matches!(senders.returned(&forged).unwrap(), Some(Returned::Refused(_))));
        assert_eq!(senders.returned(&at(&format!("{}@other.example", sent.local()))).unwrap(), None);
        assert_eq!(senders.returned(&at("srsly@us.example")).unwrap(), None);
    }

    #[test]
    fn our_own_mail_is_signed_where_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let senders = senders(&folder);
        let sender = at("ann@signed.example");
        let sent = senders.of_copy(&Copy { sender: &sender, is_ours: true, is_forwarded: false }).unwrap();
        let sent = sent.unwrap();
        assert!(sent.local().starts_with("prvs="));
        assert_eq!(senders.returned(&sent).unwrap(), Some(Returned::To(sender)));
        assert_eq!(senders.returned(&at("ann@signed.example")).unwrap(), None);
    }

    #[test]
    fn nothing_is_signed_twice() {
        let folder = tempfile::tempdir().unwrap();
        let senders = senders(&folder);
        let sender = at("prvs=0123abcdef=ann@signed.example");
        assert_eq!(senders.of_copy(&Copy { sender: &sender, is_ours: true, is_forwarded: false }), Ok(None));
    }

    #[test]
    fn without_a_key_nobody_can_say() {
        let folder = tempfile::tempdir().unwrap();
        let senders = senders(&folder);
        std::fs::remove_file(folder.path().join("key")).unwrap();
        let sender = at("bob@a.example");
        assert!(senders.of_copy(&Copy { sender: &sender, is_ours: false, is_forwarded: true }).is_err());
        assert!(senders.returned(&at("SRS0=a=b=c=d@us.example")).is_err());
        assert!(senders.returned(&at("bob@us.example")).is_ok());
    }

    #[test]
    fn a_list_names_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let senders = senders(&folder);
        let owner = at("owner-news@us.example");
        let of = |list: &str| senders.of_list(list, &owner, &at("bob@x.example")).to_string();
        assert_eq!(of("news"), "owner-news+bob=x.example@us.example");
        assert_eq!(of("staff"), "owner-news@us.example");
    }
}
