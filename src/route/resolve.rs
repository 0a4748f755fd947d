//! The walk from an address to its leaves, through rules, aliases and tables.

use std::collections::HashSet;
use std::path::Path;

use crate::mail::address::Mailbox;
use crate::mail::status::Status;

use crate::courier::request::{Leaf, Owner, Place, Target};

use crate::config::{DomainFate, Users};

use super::alias::{Alias, Member, read_list};
use super::explain::{destination, list, rule_in_words};
use super::transport::{Mailboxes, alias_file, away, by_mx, of_alias};
use super::{Expansion, Failure, NoRoute, Router, Step};

/// Most aliases between an address and a leaf.
const MAX_DEPTH: usize = 20;
/// Most leaves of one address.
pub(super) const MAX_LEAVES: usize = 10_000;
/// Most members looked at for one address, good or not.
const MAX_MEMBERS: usize = 2 * MAX_LEAVES;

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the first leaf: enough to know that mail can be taken.
    First,
    /// To all leaves.
    All,
}

/// One walk.
pub(super) struct Walk<'r> {
    router: &'r Router,
    reach: Reach,
    /// The aliases that we are within, outermost first.
    chain: Vec<String>,
    /// Every alias that was gone through, and every leaf that was found.
    gone: HashSet<String>,
    found: HashSet<Mark>,
    members: usize,
    /// It leads to more than is allowed: the walk is over.
    too_much: bool,
    expansion: Expansion,
    steps: Option<Vec<Step>>,
}

/// What makes two leaves one: the same mailbox, or the same address elsewhere.
#[derive(PartialEq, Eq, Hash)]
enum Mark {
    Local(Owner, Option<Place>),
    Away(Mailbox),
}

impl<'r> Walk<'r> {
    /// A walk; `explain`: with its steps told.
    pub(super) fn new(router: &'r Router, reach: Reach, explain: bool) -> Walk<'r> {
        Walk {
            router,
            reach,
            chain: Vec::new(),
            gone: HashSet::new(),
            found: HashSet::new(),
            members: 0,
            too_much: false,
            expansion: Expansion::default(),
            steps: explain.then(Vec::new),
        }
    }

    /// Walks from an address; gives what it came to, and the steps.
    pub(super) fn from(mut self, address: &Mailbox) -> (Vec<Step>, Result<Expansion, NoRoute>) {
        self.address(address);
        let Expansion { leaves, failures } = &self.expansion;
        // Where something can't be looked up now, all must wait: what is left out could not be
        // made good later.
        let now = failures.iter().find(|failure| failure.why.is_temporary());
        let now = now.filter(|_| self.reach == Reach::All || leaves.is_empty());
        let never = failures.first().filter(|_| leaves.is_empty());
        let result = match now.or(never) {
            _ if self.too_much => {
                Err(NoRoute::too_much(format!("leads to more than {MAX_LEAVES} addresses")))
            }
            Some(failure) => Err(failure.why.clone()),
            None if leaves.is_empty() => Err(NoRoute::user_unknown()),
            None => Ok(self.expansion),
        };
        (self.steps.unwrap_or_default(), result)
    }

    /// Follows an address. Tells whether it leads anywhere; if not, the failure is noted.
    fn address(&mut self, address: &Mailbox) -> bool {
        let rule = match self.router.domains.find(address.domain()) {
            Ok(rule) => rule,
            Err(why) => return self.fail(address, why),
        };
        self.step(|| format!("{address}: the rule for {}", rule_in_words(rule)));
        let target = match &rule.fate {
            DomainFate::Users { users, mailbox, owner } => {
                let mailboxes = self.router.mailboxes(rule, mailbox.as_deref(), owner.as_deref());
                return self.user(address, users, &mailboxes);
            }
            DomainFate::RelayMx => by_mx(address),
            DomainFate::RelayTo(hop) => Target::Smtp(hop.clone()),
            DomainFate::Lmtp(hop) => Target::Lmtp(hop.clone()),
        };
        self.leaf(away(address, target))
    }

    /// Follows an address of a domain with users.
    fn user(&mut self, address: &Mailbox, users: &Users, mailboxes: &Mailboxes<'_>) -> bool {
        let failures = self.expansion.failures.len();
        let reached = match users {
            Users::System => self.system(address, mailboxes),
            Users::File(file) => self.in_file(address, file, mailboxes),
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
        self.expansion.failures.truncate(failures);
        self.postmaster(address, mailboxes)
    }

    /// RFC 5321 4.5.1: mail for postmaster is always taken. If the domain has none of its own, it is
    /// the host's; if there is none either, it goes where root's mail goes.
    fn postmaster(&mut self, address: &Mailbox, mailboxes: &Mailboxes<'_>) -> bool {
        const ALL: &str = "postmaster of all domains";
        let failures = self.expansion.failures.len();
        if !self.chain.iter().any(|name| name == ALL) {
            let of_host = self.router.settings.postmaster.clone();
            self.step(|| format!("{address} is nobody: the setting postmaster says {of_host}"));
            self.chain.push(ALL.to_string());
            let reached = self.member(address, &Member::Address(of_host));
            self.chain.pop();
            if reached || self.waits(failures) {
                return reached;
            }
            self.expansion.failures.truncate(failures);
        }
        self.step(|| format!("{address} is nobody, but mail for postmaster is always taken"));
        self.leaf(mailboxes.root(address))
    }

    /// An address whose users are the accounts of this host: aliases first, as in Postfix.
    fn system(&mut self, address: &Mailbox, mailboxes: &Mailboxes<'_>) -> bool {
        let aliases = match self.router.aliases.get() {
            Ok(aliases) => aliases,
            Err(why) => return self.fail_for_now(address, why),
        };
        let local = address.local();
        let mut in_loop = false;
        for name in unique([local.to_lowercase(), self.router.bare(local).to_lowercase()]) {
            if self.chain.contains(&name) {
                // `alice: alice, bob@x`: an alias that names itself means the account.
                in_loop = true;
            } else if let Some(alias) = aliases.get(&name) {
                return self.alias(address, &name, alias);
            }
        }
        if in_loop {
            self.step(|| format!("{address}: within its own alias, so it is the account"));
        }
        self.account(address, local, mailboxes, in_loop)
    }

    fn alias(&mut self, address: &Mailbox, name: &str, alias: &Alias) -> bool {
        let path = self.router.aliases.path();
        self.step(|| {
            format!("{}:{}: alias {name} leads to {}", path.display(), alias.line, list(&alias.members))
        });
        if !self.gone.insert(name.to_string()) {
            self.step(|| format!("alias {name}: gone through already"));
            return true;
        }
        if self.chain.len() >= MAX_DEPTH {
            let text = format!("more than {MAX_DEPTH} aliases within each other");
            return self.fail(address, NoRoute::too_much(text));
        }
        self.chain.push(name.to_string());
        let reached = self.all(address, &alias.members);
        self.chain.pop();
        reached
    }

    /// Follows all members of a list.
    fn all(&mut self, address: &Mailbox, members: &[Member]) -> bool {
        let mut reached = false;
        for member in members {
            reached |= self.member(address, member);
        }
        reached
    }

    /// Follows one member of the alias that `address` is.
    fn member(&mut self, address: &Mailbox, member: &Member) -> bool {
        self.members += 1;
        self.too_much |= self.members > MAX_MEMBERS;
        if self.is_enough() {
            return false;
        }
        match member {
            Member::Address(text) => match self.router.complete(text) {
                Some(next) => self.address(&next),
                None => self.fail_named(text, NoRoute::bad_address(text)),
            },
            Member::Account(name) => self.exactly(address, name),
            Member::Command(command) => self.leaf(of_alias(address, Place::Command(command.clone()))),
            Member::File(path) => self.leaf(alias_file(address, path)),
            Member::Include(path) => self.include(address, path),
        }
    }

    /// `\name`: the account, past all aliases.
    fn exactly(&mut self, address: &Mailbox, name: &str) -> bool {
        let Some(next) = Mailbox::from_parts(name, address.domain()).ok() else {
            return self.fail_named(name, NoRoute::bad_address(name));
        };
        let mailboxes = match self.router.domains.find(address.domain()).map(|rule| (rule, &rule.fate)) {
            Ok((rule, DomainFate::Users { mailbox, owner, .. })) => {
                self.router.mailboxes(rule, mailbox.as_deref(), owner.as_deref())
            }
            _ => return self.fail(&next, NoRoute::user_unknown()),
        };
        self.account(&next, name, &mailboxes, false)
    }

    /// `:include:`: a file with members. Commands and files are for the administrator's own table.
    fn include(&mut self, address: &Mailbox, path: &Path) -> bool {
        let members = match read_list(path) {
            Ok(members) => members,
            Err(why) => return self.fail_for_now(address, format!("{}: {why}", path.display())),
        };
        self.step(|| format!("{}: {} members", path.display(), members.len()));
        if self.chain.len() >= MAX_DEPTH {
            let text = format!("more than {MAX_DEPTH} lists within each other");
            return self.fail(address, NoRoute::too_much(text));
        }
        self.chain.push(format!(":include:{}", path.display()));
        let mut reached = false;
        for member in &members {
            reached |= match member {
                Member::Command(_) | Member::File(_) => {
                    let text = format!("{}: a list can't name commands or files", path.display());
                    self.fail(address, NoRoute { status: Status::new(5, 7, 1), text })
                }
                member => self.member(address, member),
            };
        }
        self.chain.pop();
        if members.is_empty() {
            // RFC 3463 3.3, X.2.4: a list that can't be expanded.
            let text = format!("{}: the list is empty", path.display());
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
                        format!(
                            "{name} is an account of this host: uid {}, home {}",
                            account.uid,
                            account.home.display()
                        )
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
            Err(why) => return self.fail_for_now(address, why),
        };
        let local = address.local();
        for name in unique([local, self.router.bare(local)]) {
            match published.find(file, name, mailboxes.domain) {
                Err(why) => return self.fail_for_now(address, why),
                Ok(None) => (),
                Ok(Some(user)) => {
                    self.step(|| format!("{}: {} is a user", file.display(), user.name));
                    return match mailboxes.of_user(address, user) {
                        Ok(leaf) => self.leaf(leaf),
                        Err(why) => self.fail(address, why),
                    };
                }
            }
        }
        self.step(|| format!("{}: {local} is no user", file.display()));
        self.fail(address, NoRoute::user_unknown())
    }

    fn leaf(&mut self, leaf: Leaf) -> bool {
        let mark = match &leaf.target {
            Target::Local(owner) => Mark::Local(owner.clone(), leaf.place.clone()),
            _ => Mark::Away(leaf.address.clone()),
        };
        self.step(|| format!("{}: {}", leaf.address, destination(&leaf)));
        if self.found.insert(mark) {
            self.expansion.leaves.push(leaf);
            self.too_much |= self.expansion.leaves.len() > MAX_LEAVES;
        }
        true
    }

    fn fail(&mut self, address: &Mailbox, why: NoRoute) -> bool {
        self.fail_named(&address.to_string(), why)
    }

    /// A look-up has failed: why is for the log, not for the peer.
    fn fail_for_now(&mut self, address: &Mailbox, why: String) -> bool {
        log::warn!("look-up of {address} failed: {why}");
        self.step(|| why);
        self.fail(address, NoRoute::unknown_now("Recipient look-up failed, try again later".to_string()))
    }

    fn fail_named(&mut self, address: &str, why: NoRoute) -> bool {
        self.step(|| format!("{address}: {why}"));
        self.expansion.failures.push(Failure { address: address.to_string(), why });
        false
    }

    /// Whether a look-up has failed since there were so many failures.
    fn waits(&self, since: usize) -> bool {
        self.expansion.failures[since..].iter().any(|failure| failure.why.is_temporary())
    }

    fn is_enough(&self) -> bool {
        self.too_much || (self.reach == Reach::First && !self.expansion.leaves.is_empty())
    }

    fn step(&mut self, what: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.steps {
            steps.push(Step { what: what() });
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
