//! The walk within the domains that have users: aliases, accounts, users files.

use std::path::Path;

use crate::mail::address::Mailbox;
use crate::mail::status::Status;

use crate::courier::request::Place;

use crate::config::{DomainFate, Users};

use super::alias::{self, Included, Member};
use super::explain::shortened;
use super::resolve::{Reach, Walk, rule_domain};
use super::table::{Row, TableError};
use super::transport::{Mailboxes, alias_file, of_alias};
use super::{NoRoute, Step};

/// What the address of a list's owner begins with.
pub(super) const OWNER: &str = "owner-";

impl Walk<'_> {
    /// Follows an address of a domain with users.
    pub(super) fn user(&mut self, address: &Mailbox, users: &Users, mailboxes: &Mailboxes<'_>) -> bool {
        let failures = self.failures.len();
        let reached = match users {
            Users::System => self.system(address, mailboxes),
            Users::File(file) => self.in_file(address, file, mailboxes),
            Users::Virtual => self.fail(address, NoRoute::user_unknown()),
            Users::Any => {
                let name = self.router.bare(address.local()).to_lowercase();
                match mailboxes.of_anybody(address, &name) {
                    Ok(leaf) => self.leaf(leaf),
                    Err(why) => self.fail(address, why),
                }
            }
        };
        if reached || !address.is_postmaster() || self.waits(failures) {
            return reached;
        }
        self.failures.truncate(failures);
        self.postmaster(address, mailboxes)
    }

    /// RFC 5321 4.5.1: mail for postmaster is always taken. If the domain has none of its own, it is
    /// the host's; if there is none either, it goes where root's mail goes.
    fn postmaster(&mut self, address: &Mailbox, mailboxes: &Mailboxes<'_>) -> bool {
        const ALL: &str = "postmaster of all domains";
        let failures = self.failures.len();
        if !self.chain.iter().any(|name| name == ALL) {
            let of_host = self.router.settings.postmaster.clone();
            self.step(|| Step::of(format!("{address} is nobody: the setting postmaster says {of_host}")));
            self.chain.push(ALL.to_string());
            let reached = self.member(address, Member::Address(of_host));
            self.chain.pop();
            if reached || self.waits(failures) {
                return reached;
            }
            self.failures.truncate(failures);
        }
        self.step(|| Step::of(format!("{address} is nobody, but mail for postmaster is always taken")));
        self.leaf(mailboxes.root(address))
    }

    /// An address whose users are the accounts of this host: aliases first, as in Postfix.
    fn system(&mut self, address: &Mailbox, mailboxes: &Mailboxes<'_>) -> bool {
        let local = address.local();
        let mut in_loop = false;
        for name in unique([local.to_lowercase(), self.router.bare(local).to_lowercase()]) {
            if self.chain.contains(&name) {
                // `alice: alice, bob@x`: an alias that names itself means the account.
                in_loop = true;
                continue;
            }
            match self.router.aliases.find(&name) {
                Ok(None) => (),
                Ok(Some(row)) => return self.alias(address, name, &row),
                Err(why) => return self.fail_for_now(address, why.to_string()),
            }
        }
        if in_loop {
            self.step(|| Step::of(format!("{address}: within its own alias, so it is the account")));
        }
        self.account(address, local, mailboxes, in_loop)
    }

    fn alias(&mut self, address: &Mailbox, name: String, row: &Row) -> bool {
        let members = shortened(&row.value);
        self.step(|| Step::at(row, &name, format!("{row}: alias {name} leads to {members}")));
        let owner = match self.owner(address, &name) {
            Ok(owner) => owner,
            Err(why) => return self.fail_for_now(address, why.to_string()),
        };
        let has_owner = owner.is_some();
        if let Some(owner) = owner {
            self.step(|| Step::of(format!("{name} has an owner: its copies are sent by {owner}")));
            self.owners.push((name.clone(), owner));
        }
        let reached = self.within(address, name.clone(), |walk| walk.all(address, &row.value, row));
        if has_owner {
            self.owners.pop();
        }
        reached
    }

    /// The owner of a list: `owner-list` beside `list` gets what can't be delivered of it
    /// (aliases(5), RFC 5321 3.9.2).
    fn owner(&self, address: &Mailbox, name: &str) -> Result<Option<Mailbox>, TableError> {
        if self.reach == Reach::First || name.starts_with(OWNER) {
            return Ok(None);
        }
        let owner = format!("{OWNER}{name}");
        let found = self.router.aliases.find(&owner)?;
        Ok(found.and_then(|_| Mailbox::from_parts(&owner, address.domain()).ok()))
    }

    /// Follows all members of a list.
    fn all(&mut self, address: &Mailbox, list: &str, row: &Row) -> bool {
        let mut reached = false;
        let mut count = 0_usize;
        for member in alias::members(list, alias::member) {
            if self.is_enough() {
                return reached;
            }
            count += 1;
            reached |= match member {
                Ok(member) => self.member(address, member),
                Err(why) => self.fail_for_now(address, format!("{row}: {why}")),
            };
        }
        if count == 0 {
            return self.fail_for_now(address, format!("{row}: leads nowhere"));
        }
        reached
    }

    /// Follows one member of the alias that `address` is.
    fn member(&mut self, address: &Mailbox, member: Member) -> bool {
        self.count_member();
        if self.is_enough() {
            return false;
        }
        match member {
            Member::Address(text) => match self.router.complete(&text) {
                Some(next) => self.address(&next),
                None => self.fail_named(&text, NoRoute::bad_address(&text)),
            },
            Member::Account(name) => self.exactly(address, &name),
            Member::Command(command) => self.leaf(of_alias(address, Place::Command(command))),
            Member::File(path) => self.leaf(alias_file(address, &path)),
            Member::Include(path) => {
                // A list that includes itself has been gone through already.
                let name = format!(":include:{}", path.display());
                self.within(address, name, |walk| walk.include(address, &path))
            }
        }
    }

    /// `\name`: the account, past all aliases.
    fn exactly(&mut self, address: &Mailbox, name: &str) -> bool {
        let Some(next) = Mailbox::from_parts(name, address.domain()).ok() else {
            return self.fail_named(name, NoRoute::bad_address(name));
        };
        match self.router.domains.find(address.domain()) {
            Ok(found) => match &found.rule.fate {
                DomainFate::Users { mailbox, owner, .. } => {
                    let domain = rule_domain(&found.rule, address);
                    let mailboxes = self.router.mailboxes(domain, mailbox.as_deref(), owner.as_deref());
                    self.account(&next, name, &mailboxes, false)
                }
                _ => self.fail(&next, NoRoute::user_unknown()),
            },
            Err(why) => self.fail(&next, why),
        }
    }

    /// `:include:`: a file with members. Commands and files are for the administrator's own table.
    fn include(&mut self, address: &Mailbox, path: &Path) -> bool {
        let named = |why: String| format!("{}: {why}", path.display());
        let mut list = match Included::open(path) {
            Ok(list) => list,
            Err(why) => return self.fail_for_now(address, named(why)),
        };
        self.step(|| Step::of(format!("{}: the members named there", path.display())));
        let (mut reached, mut is_empty) = (false, true);
        loop {
            let (number, line) = match list.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(why) => return self.fail_for_now(address, named(why)),
            };
            for member in alias::members(&line, alias::member) {
                if self.is_enough() {
                    return reached;
                }
                is_empty = false;
                reached |= match member {
                    Ok(Member::Command(_) | Member::File(_)) => {
                        let text = named("a list can't name commands or files".to_string());
                        self.fail(address, NoRoute { status: Status::new(5, 7, 1), text })
                    }
                    Ok(member) => self.member(address, member),
                    Err(why) => self.fail_for_now(address, named(format!("line {number}: {why}"))),
                };
            }
        }
        if is_empty {
            // RFC 3463 3.3, X.2.4: a list that can't be expanded.
            let text = named("the list is empty".to_string());
            return self.fail(address, NoRoute { status: Status::new(5, 2, 4), text });
        }
        reached
    }

    /// The account that a local part names: as it is, in lower case, without extension.
    fn account(&mut self, address: &Mailbox, local: &str, mailboxes: &Mailboxes<'_>, in_loop: bool) -> bool {
        let bare = self.router.bare(local);
        for name in unique([local.to_string(), local.to_lowercase(), bare.to_string(), bare.to_lowercase()]) {
            match self.router.accounts.find(&name) {
                Err(why) => return self.fail_for_now(address, why),
                Ok(None) => (),
                Ok(Some(account)) => {
                    self.step(|| {
                        let home = account.home.display();
                        Step::of(format!(
                            "{name} is an account of this host: uid {}, home {home}",
                            account.uid
                        ))
                    });
                    return match mailboxes.of_account(address, &account) {
                        Ok(leaf) => self.leaf(leaf),
                        Err(why) => self.fail(address, why),
                    };
                }
            }
        }
        if in_loop {
            return self.fail(address, NoRoute::too_much(format!("alias {local} leads only to itself")));
        }
        self.fail(address, NoRoute::user_unknown())
    }

    /// An address whose users are in a file.
    fn in_file(&mut self, address: &Mailbox, file: &Path, mailboxes: &Mailboxes<'_>) -> bool {
        let published = match self.router.users.get() {
            Ok(published) => published,
            Err(why) => return self.fail_for_now(address, why.to_string()),
        };
        let local = address.local();
        match published.find_either(file, [local, self.router.bare(local)], mailboxes.domain) {
            Err(why) => self.fail_for_now(address, why),
            Ok(Some(user)) => {
                self.step(|| Step::of(format!("{}: {} is a user", file.display(), user.name)));
                match mailboxes.of_user(address, user) {
                    Ok(leaf) => self.leaf(leaf),
                    Err(why) => self.fail(address, why),
                }
            }
            Ok(None) => {
                self.step(|| Step::of(format!("{}: {local} is no user", file.display())));
                self.fail(address, NoRoute::user_unknown())
            }
        }
    }
}

/// The names without those that were there before.
fn unique<N: PartialEq, const COUNT: usize>(names: [N; COUNT]) -> impl Iterator<Item = N> {
    let mut seen: Vec<N> = Vec::with_capacity(COUNT);
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen.into_iter()
}
