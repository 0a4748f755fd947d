//! From a user to a leaf: whose rights, and which mailbox.

use crate::mail::address::Mailbox;
use crate::mail::status::Status;

use crate::unix::users::{self, Account};

use crate::courier::request::{Hop, Leaf, Owner, Place, Target};

use super::NoRoute;
use super::domains::literal;
use super::users::User;

/// Who delivers mail for uid 0 to `root_mailbox`: nothing is delivered as root.
const MAIL_ACCOUNT: &str = "mail";
/// Who runs commands and writes files that an alias names (Postfix: `default_privs`).
const ALIAS_ACCOUNT: &str = "nobody";
/// The port of a host that is named by its address (RFC 5321 4.1.3).
const SMTP_PORT: u16 = 25;

/// What a domain's rule and `[local]` say of mailboxes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mailboxes<'r> {
    /// The rule's `mailbox`.
    pub(super) of_domain: Option<&'r str>,
    /// `local.mailbox`
    pub(super) of_host: &'r str,
    /// `local.root_mailbox`
    pub(super) of_root: &'r str,
    /// The rule's `owner`.
    pub(super) owner: Option<&'r str>,
    /// The rule's domain.
    pub(super) domain: &'r str,
}

impl Mailboxes<'_> {
    /// The mailbox of an account of this host.
    pub(super) fn of_account(&self, address: &Mailbox, account: &Account) -> Result<Leaf, NoRoute> {
        if account.uid == 0 {
            return Ok(self.root(address));
        }
        let path = self.path(&account.name)?;
        match self.owner {
            None => {
                Ok(local(address, Owner::Account(account.name.clone()), Place::Home(Box::new(place(path)))))
            }
            Some(owner) => {
                let path = with_home(path, &account.home.to_string_lossy())?;
                Ok(local(address, Owner::Account(owner.to_string()), place(path)))
            }
        }
    }

    /// The mailbox of a user from a users file.
    pub(super) fn of_user(&self, address: &Mailbox, user: &User) -> Result<Leaf, NoRoute> {
        let name = user.name.rsplit_once('@').map_or(user.name.as_str(), |(name, _)| name);
        let path = self.path(name)?;
        match (self.owner, user.ids) {
            (Some(owner), _) => {
                let path = with_home(path, &user.home)?;
                Ok(local(address, Owner::Account(owner.to_string()), place(path)))
            }
            // As a fault of the table, not of the address. Without root's rights, or with them kept
            // on purpose, there is nothing to be gained by the id.
            (None, Some((0, _))) if users::current().1 != 0 => {
                Err(NoRoute::unknown_now(format!("user {name} has uid 0, as which nothing is delivered")))
            }
            (None, Some((uid, gid))) => {
                let owner = Owner::Ids(uid, gid, user.home.clone());
                if path.starts_with("~/") && user.home.is_empty() {
                    return Err(no_home());
                }
                // A mailbox that the administrator has placed elsewhere is no home with a .forward.
                let own = self.of_domain.is_none() && !user.home.is_empty();
                let place = if own { Place::Home(Box::new(place(path))) } else { place(path) };
                Ok(local(address, owner, place))
            }
            // Nobody's own: no .forward either, since a command in it would run with our rights.
            (None, None) => Ok(local(address, caller(), place(with_home(path, &user.home)?))),
        }
    }

    /// The mailbox of anybody, where `users = "*"`. `name` is the local part in lower case without
    /// its extension.
    pub(super) fn of_anybody(&self, address: &Mailbox, name: &str) -> Result<Leaf, NoRoute> {
        let path = self.path(name)?;
        let owner = self.owner.map_or_else(caller, |owner| Owner::Account(owner.to_string()));
        Ok(local(address, owner, place(path)))
    }

    /// The mailbox for uid 0 and for a postmaster whom nobody is.
    pub(super) fn root(&self, address: &Mailbox) -> Leaf {
        local(address, Owner::Account(MAIL_ACCOUNT.to_string()), place(self.of_root.to_string()))
    }

    /// The path with its words filled in. What a stranger wrote never leads out of its place.
    fn path(&self, user: &str) -> Result<String, NoRoute> {
        let path = self.of_domain.unwrap_or(self.of_host);
        let words = [("{user}", user), ("{domain}", self.domain)];
        let mut filled = String::with_capacity(path.len() + 32);
        let mut rest = path;
        while let Some(at) = rest.find('{') {
            let (before, found) = rest.split_at(at);
            filled.push_str(before);
            match words.iter().find(|(word, _)| found.starts_with(word)) {
                Some((word, value)) => {
                    filled.push_str(harmless(value)?);
                    rest = &found[word.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &found[1..];
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// A part of an address that may become a part of a path.
fn harmless(part: &str) -> Result<&str, NoRoute> {
    let harm = part.is_empty()
        || part.starts_with('.')
        || part.contains("..")
        || part.contains(|c: char| c == '/' || c.is_control());
    if harm {
        let text = format!("User unknown: \"{}\" can be no part of a mailbox's path", part.escape_debug());
        return Err(NoRoute { status: Status::new(5, 1, 1), text });
    }
    Ok(part)
}

/// The path with the home folder in the place of `~`, for an owner whose home is another one.
fn with_home(path: String, home: &str) -> Result<String, NoRoute> {
    match path.strip_prefix("~/") {
        Some(_) if home.is_empty() => Err(no_home()),
        Some(within) => Ok(format!("{}/{within}", home.trim_end_matches('/'))),
        None => Ok(path),
    }
}

fn no_home() -> NoRoute {
    NoRoute::unknown_now("the users file says no home, and the domain no mailbox".to_string())
}

/// A path that ends in `/` is a Maildir, any other an mbox.
fn place(path: String) -> Place {
    if path.ends_with('/') { Place::Maildir(path) } else { Place::Mbox(path) }
}

/// Whether a place is the mailbox at that path.
pub(super) fn is_path(place: &Place, path: &str) -> bool {
    matches!(place, Place::Maildir(at) | Place::Mbox(at) if at == path)
}

/// Whoever this process runs as.
fn caller() -> Owner {
    Owner::Ids(users::current().1, users::current_group(), String::new())
}

fn local(address: &Mailbox, owner: Owner, place: Place) -> Leaf {
    Leaf {
        address: address.clone(),
        target: Target::Local(owner),
        place: Some(place),
        sender: None,
        of_list: false,
    }
}

/// A command or file that an alias names.
pub(super) fn of_alias(address: &Mailbox, place: Place) -> Leaf {
    local(address, Owner::Account(ALIAS_ACCOUNT.to_string()), place)
}

/// A file that an alias names.
pub(super) fn alias_file(address: &Mailbox, path: &str) -> Leaf {
    of_alias(address, place(path.to_string()))
}

/// Mail that goes to other servers.
pub(super) fn away(address: &Mailbox, target: Target) -> Leaf {
    Leaf { address: address.clone(), target, place: None, sender: None, of_list: false }
}

/// `relay = "mx"`: an address literal has no MX but is the host itself (RFC 5321 4.1.3).
pub(super) fn by_mx(address: &Mailbox) -> Target {
    match literal(address.domain()) {
        Some(ip) => Target::Smtp(Hop::Address(ip, SMTP_PORT)),
        None => Target::Mx(address.domain().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Mailboxes<'static> = Mailboxes {
        of_domain: None,
        of_host: "~/Maildir/",
        of_root: "/var/mail/root",
        owner: None,
        domain: "x.example",
    };

    fn address() -> Mailbox {
        Mailbox::parse("Alice+a@x.example", false).unwrap()
    }

    fn account(uid: u32) -> Account {
        Account { name: "alice".into(), uid, gid: uid, home: "/home/alice".into(), gecos: String::new() }
    }

    fn user(ids: Option<(u32, u32)>, home: &str) -> User {
        User { name: "alice@x.example".into(), ids, home: home.into(), limit: None }
    }

    fn parts(leaf: Result<Leaf, NoRoute>) -> (Owner, Place) {
        match leaf.unwrap() {
            Leaf { target: Target::Local(owner), place: Some(place), .. } => (owner, place),
            leaf => panic!("{leaf:?}"),
        }
    }

    fn maildir(path: &str) -> Place {
        Place::Maildir(path.into())
    }

    #[test]
    fn accounts_have_their_own_mailbox_but_root_none() {
        let home = Place::Home(Box::new(maildir("~/Maildir/")));
        assert_eq!(
            parts(PLAIN.of_account(&address(), &account(1000))),
            (Owner::Account("alice".into()), home)
        );
        let root = (Owner::Account("mail".into()), Place::Mbox("/var/mail/root".into()));
        assert_eq!(parts(PLAIN.of_account(&address(), &account(0))), root);
        let owned = Mailboxes { owner: Some("vmail"), ..PLAIN };
        assert_eq!(
            parts(owned.of_account(&address(), &account(1000))),
            (Owner::Account("vmail".into()), maildir("/home/alice/Maildir/"))
        );
    }

    #[test]
    fn users_of_a_file_go_by_ids_owner_or_caller() {
        let ids = Owner::Ids(5000, 5001, "/srv/alice".into());
        let own = user(Some((5000, 5001)), "/srv/alice");
        let home = Place::Home(Box::new(maildir("~/Maildir/")));
        assert_eq!(parts(PLAIN.of_user(&address(), &own)), (ids.clone(), home));
        let placed = Mailboxes { of_domain: Some("/srv/{domain}/{user}/"), ..PLAIN };
        assert_eq!(parts(placed.of_user(&address(), &own)), (ids, maildir("/srv/x.example/alice/")));
        let owned = Mailboxes { owner: Some("vmail"), ..PLAIN };
        assert_eq!(
            parts(owned.of_user(&address(), &own)),
            (Owner::Account("vmail".into()), maildir("/srv/alice/Maildir/"))
        );
        let (owner, place) = parts(PLAIN.of_user(&address(), &user(None, "/srv/alice/")));
        assert_eq!((owner, place), (caller(), maildir("/srv/alice/Maildir/")));
        for nowhere in [user(Some((5000, 5001)), ""), user(None, "")] {
            assert_eq!(PLAIN.of_user(&address(), &nowhere).unwrap_err().status, Status::new(4, 3, 5));
        }
    }

    #[test]
    fn strangers_words_stay_in_their_place() {
        let placed = Mailboxes { of_domain: Some("/srv/{user}/x{y}/"), ..PLAIN };
        assert_eq!(parts(placed.of_anybody(&address(), "a%b@c!d")).1, maildir("/srv/a%b@c!d/x{y}/"));
        for bad in ["", ".", "..", ".ssh", "a/b", "../b", "a..b", "a\0b"] {
            assert_eq!(
                placed.of_anybody(&address(), bad).unwrap_err().status,
                Status::new(5, 1, 1),
                "{bad:?}"
            );
        }
        // A path that doesn't use the local part takes any.
        let fixed = Mailboxes { of_domain: Some("/srv/catch/"), ..PLAIN };
        assert_eq!(parts(fixed.of_anybody(&address(), "../b")).1, maildir("/srv/catch/"));
    }

    #[test]
    fn literals_have_no_mx() {
        let at = |text: &str| by_mx(&Mailbox::parse(text, false).unwrap());
        assert_eq!(at("a@x.example"), Target::Mx("x.example".into()));
        assert_eq!(at("a@[192.0.2.1]"), Target::Smtp(Hop::Address("192.0.2.1".parse().unwrap(), 25)));
    }

    proptest! {
        #[test]
        fn no_local_part_leads_out(name in "\\PC{0,20}|[./a]{0,6}") {
            let placed = Mailboxes { of_domain: Some("/srv/{user}/in"), ..PLAIN };
            if let Ok(path) = placed.path(&name) {
                let inner = path.strip_prefix("/srv/").unwrap().strip_suffix("/in").unwrap();
                prop_assert!(!inner.is_empty() && !inner.contains('/') && !inner.starts_with('.'));
            }
        }
    }
}
