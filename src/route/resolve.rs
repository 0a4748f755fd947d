//! The walk from an address to its leaves, through rules, aliases and tables.
//!
//! Here is the walk itself, and what holds for every domain; [`super::residents`] goes on within the
//! domains that have users. Leaves are handed on as they are found: of a list of a hundred thousand
//! members the walk keeps no more than a mark of 16 bytes for each.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::mail::address::{Mailbox, ReversePath};

use crate::courier::request::{Leaf, Owner, Place, Target};

use crate::config::{DomainFate, DomainRule};

use super::alias::{self, Member};
use super::explain::{destination, rule_in_words, shortened};
use super::rewrite::{Rewritten, Role};
use super::search::{self, Hit};
use super::senders::{Copy, Returned};
use super::table::Row;
use super::transport::{away, by_mx};
use super::{Failure, MAX_LEAVES, NoRoute, Router, Step};

/// Most aliases between an address and a leaf.
pub(super) const MAX_DEPTH: usize = 20;
/// Most failures that are kept; the others are only counted.
const MAX_FAILURES: usize = 1000;

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the first leaf: enough to know that mail can be taken.
    First,
    /// To all leaves.
    All,
}

/// What came of a walk that led somewhere.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Members that lead nowhere, as many as are kept.
    pub(super) failures: Vec<Failure>,
    /// How many more there are.
    pub(super) more: usize,
}

/// One walk.
pub(super) struct Walk<'r> {
    pub(super) router: &'r Router,
    pub(super) reach: Reach,
    /// The message's sender, as it was accepted and as it goes on; none is the null sender.
    accepted: Option<Mailbox>,
    sender: Option<Mailbox>,
    /// A program of this host sends it, perhaps on behalf of others.
    is_forwarded: bool,
    /// The aliases that we are within, outermost first.
    pub(super) chain: Vec<String>,
    /// Of those that are lists with an owner: the list, and its owner's address.
    pub(super) owners: Vec<(String, Mailbox)>,
    /// Every alias that was gone through.
    gone: HashSet<String>,
    /// A mark of every leaf that was found.
    found: HashSet<u128>,
    marks: [RandomState; 2],
    into: &'r mut dyn FnMut(Leaf),
    leaves: usize,
    members: usize,
    /// It leads to more than is allowed: the walk is over.
    too_much: bool,
    pub(super) failures: Vec<Failure>,
    more_failures: usize,
    steps: Option<Vec<Step>>,
}

/// What makes two leaves one: the same mailbox, or the same address elsewhere.
#[derive(Hash)]
enum Mark<'l> {
    Local(&'l Owner, &'l Option<Place>),
    Away(&'l Mailbox),
}

impl<'r> Walk<'r> {
    /// A walk that hands its leaves to `into`.
    pub(super) fn new(router: &'r Router, reach: Reach, into: &'r mut dyn FnMut(Leaf)) -> Walk<'r> {
        Walk {
            router,
            reach,
            accepted: None,
            sender: None,
            is_forwarded: false,
            chain: Vec::new(),
            owners: Vec::new(),
            gone: HashSet::new(),
            found: HashSet::new(),
            marks: [RandomState::new(), RandomState::new()],
            into,
            leaves: 0,
            members: 0,
            too_much: false,
            failures: Vec::new(),
            more_failures: 0,
            steps: None,
        }
    }

    /// The same, for a message of this sender; `is_forwarded`: a program of this host sends it on.
    pub(super) fn of(mut self, sender: &ReversePath, is_forwarded: bool) -> Self {
        self.accepted = sender.mailbox().cloned();
        self.is_forwarded = is_forwarded;
        self
    }

    /// The same, with its steps told.
    pub(super) fn telling(mut self) -> Self {
        self.steps = Some(Vec::new());
        self
    }

    /// Walks from an address; gives the steps, and what it came to.
    pub(super) fn from(mut self, address: &Mailbox) -> (Vec<Step>, Result<Ended, NoRoute>) {
        self.begin(address);
        // Where something can't be looked up now, all must wait: what is left out could not be
        // made good later.
        let now = self.failures.iter().find(|failure| failure.why.is_temporary());
        let now = now.filter(|_| self.reach == Reach::All || self.leaves == 0);
        let never = self.failures.first().filter(|_| self.leaves == 0);
        let result = match now.or(never) {
            _ if self.too_much => {
                Err(NoRoute::too_much(format!("leads to more than {} addresses", self.router.most)))
            }
            Some(failure) => Err(failure.why.clone()),
            None if self.leaves == 0 => Err(NoRoute::user_unknown()),
            None => Ok(Ended { failures: self.failures, more: self.more_failures }),
        };
        (self.steps.unwrap_or_default(), result)
    }

    /// What is done once, before an address is followed: the sender is rewritten, then the recipient.
    fn begin(&mut self, address: &Mailbox) -> bool {
        self.sender = self.accepted.clone();
        if let Some(sender) = self.accepted.clone() {
            match self.rewritten(&sender, Role::Sender) {
                Ok(sender) => self.sender = Some(sender),
                Err(why) => return self.fail_for_now(address, why),
            }
        }
        match self.router.senders.returned(address) {
            Err(why) => return self.fail_for_now(address, why.to_string()),
            Ok(Some(Returned::Refused(why))) => return self.fail(address, NoRoute::not_ours(why)),
            Ok(Some(Returned::To(next))) => {
                self.step(|| {
                    Step::of(format!("{address}: a sender of our own making, leads back to {next}"))
                });
                return self.address(&next);
            }
            Ok(None) => (),
        }
        match self.rewritten(address, Role::Recipient) {
            Ok(next) => self.address(&next),
            Err(why) => self.fail_for_now(address, why),
        }
    }

    /// An address as canonical tables and masquerading make it.
    fn rewritten(&mut self, address: &Mailbox, role: Role) -> Result<Mailbox, String> {
        let router = self.router;
        let (bare, own) = (|m: &Mailbox| router.bare(m.local()).to_string(), |m: &Mailbox| router.is_own(m));
        let applied = router.rewriting.apply(address, role, bare, own, |text| router.complete(text));
        let mut now = address.clone();
        for Rewritten { address: next, hit } in applied.map_err(|why| why.in_words())? {
            let whose = if role == Role::Sender { "sender" } else { "recipient" };
            self.step(|| match &hit {
                Some(hit) => Step::found(hit, format!("{whose} {now} is written as {next}")),
                None => Step::of(format!("{whose} {now} is written as {next} (routing.masquerade)")),
            });
            now = next;
        }
        Ok(now)
    }

    /// Follows an address. Tells whether it leads anywhere; if not, the failure is noted.
    pub(super) fn address(&mut self, address: &Mailbox) -> bool {
        if let Some(reached) = self.virtual_alias(address) {
            return reached;
        }
        let found = match self.router.domains.find(address.domain()) {
            Ok(found) => found,
            Err(why) => return self.fail(address, why),
        };
        self.step(|| rule_step(address, &found.rule, found.row.as_ref()));
        let rule: Cow<'_, DomainRule> = found.rule;
        if let DomainFate::Users { users, mailbox, owner } = &rule.fate {
            let domain = rule_domain(&rule, address);
            let mailboxes = self.router.mailboxes(domain, mailbox.as_deref(), owner.as_deref());
            return self.user(address, users, &mailboxes);
        }
        let Some(target) = relay(&rule, address) else { return false };
        self.abroad(away(address, target), rule.domain == "*")
    }

    /// Follows what a table of virtual aliases has for an address. `None`: nothing, or we come from
    /// there: an address that leads to itself means its mailbox.
    fn virtual_alias(&mut self, address: &Mailbox) -> Option<bool> {
        let router = self.router;
        let name = format!("<{}>", address.to_string().to_lowercase());
        if router.virtual_aliases.is_empty() || self.chain.contains(&name) {
            return None;
        }
        let (bare, own) = (router.bare(address.local()), router.is_own(address));
        let hit = match search::find(&router.virtual_aliases, address, bare, own) {
            Ok(hit) => hit?,
            Err(why) => return Some(self.fail_for_now(address, why.to_string())),
        };
        self.step(|| {
            Step::found(&hit, format!("virtual alias {} leads to {}", hit.key, shortened(&hit.row.value)))
        });
        Some(self.within(address, name, |walk| walk.virtual_members(address, &hit)))
    }

    fn virtual_members(&mut self, address: &Mailbox, hit: &Hit) -> bool {
        let mut reached = false;
        for member in alias::members(&hit.row.value, alias::address_only) {
            if self.is_enough() {
                break;
            }
            self.count_member();
            reached |= match member {
                Ok(Member::Address(text)) => {
                    match hit.target(address, &text, |text| self.router.complete(text)) {
                        Some(next) => self.address(&next),
                        None => self.fail_named(&text, NoRoute::bad_address(&text)),
                    }
                }
                Ok(_) => false, // `address_only` gives nothing else
                Err(why) => self.fail_for_now(address, format!("{}: {why}", hit.row)),
            };
        }
        if !reached && self.failures.is_empty() && !self.is_enough() {
            return self.fail_for_now(address, format!("{}: \"{}\" leads nowhere", hit.row, hit.key));
        }
        reached
    }

    /// Goes through an alias of that name, once, and not too deep.
    pub(super) fn within(
        &mut self,
        address: &Mailbox,
        name: String,
        follow: impl FnOnce(&mut Self) -> bool,
    ) -> bool {
        if !self.gone.insert(name.clone()) {
            self.step(|| Step::of(format!("{name}: gone through already")));
            return true;
        }
        if self.chain.len() >= MAX_DEPTH {
            let text = format!("more than {MAX_DEPTH} aliases within each other");
            return self.fail(address, NoRoute::too_much(text));
        }
        self.chain.push(name);
        let reached = follow(self);
        self.chain.pop();
        reached
    }

    /// A leaf that leaves this host; `unknown`: its domain has no rule of its own.
    fn abroad(&mut self, leaf: Leaf, unknown: bool) -> bool {
        if self.reach == Reach::First {
            return self.leaf(leaf);
        }
        let sender = match (self.owners.last(), &self.sender) {
            (_, None) => None,
            (Some((list, owner)), _) => Some(self.router.senders.of_list(list, owner, &leaf.address)),
            (None, Some(sender)) if unknown || self.router.senders.signs_all(sender.domain()) => {
                let is_forwarded = self.is_forwarded || !self.chain.is_empty();
                let copy = Copy { sender, is_ours: self.router.has_rule(sender), is_forwarded };
                match self.router.senders.of_copy(&copy) {
                    Ok(sender) => sender,
                    Err(why) => return self.fail_for_now(&leaf.address.clone(), why.to_string()),
                }
            }
            (None, Some(_)) => None,
        };
        self.sent_as(leaf, sender)
    }

    /// A leaf with the sender that its mail has by now.
    pub(super) fn leaf(&mut self, leaf: Leaf) -> bool {
        let owner = self.owners.last().map(|(_, owner)| owner.clone());
        let sender = owner.filter(|_| self.sender.is_some());
        self.sent_as(leaf, sender)
    }

    fn sent_as(&mut self, leaf: Leaf, sender: Option<Mailbox>) -> bool {
        let changed =
            sender.or_else(|| self.sender.clone()).filter(|now| Some(now) != self.accepted.as_ref());
        let leaf = Leaf { sender: changed, of_list: !self.owners.is_empty(), ..leaf };
        self.step(|| Step::of(format!("{}: {}", leaf.address, destination(&leaf))));
        let mark = match &leaf.target {
            Target::Local(owner) => Mark::Local(owner, &leaf.place),
            _ => Mark::Away(&leaf.address),
        };
        let [high, low] = &self.marks;
        let mark = u128::from(high.hash_one(&mark)) << 64 | u128::from(low.hash_one(&mark));
        if self.found.insert(mark) {
            self.leaves += 1;
            self.too_much |= self.leaves > self.router.most;
            if !self.too_much {
                (self.into)(leaf);
            }
        }
        true
    }

    pub(super) fn fail(&mut self, address: &Mailbox, why: NoRoute) -> bool {
        self.fail_named(&address.to_string(), why)
    }

    /// A look-up has failed: why is for the log, not for the peer.
    pub(super) fn fail_for_now(&mut self, address: &Mailbox, why: String) -> bool {
        log::warn!("look-up of {address} failed: {why}");
        self.step(|| Step::of(why));
        self.fail(address, NoRoute::unknown_now("Recipient look-up failed, try again later".to_string()))
    }

    pub(super) fn fail_named(&mut self, address: &str, why: NoRoute) -> bool {
        self.step(|| Step::of(format!("{address}: {why}")));
        let is_news = why.is_temporary() && self.failures.last().is_none_or(|last| !last.why.is_temporary());
        if self.failures.len() < MAX_FAILURES || is_news {
            // Of a bounce nobody is told.
            let owner = self.owners.last().filter(|_| self.sender.is_some()).map(|(_, owner)| owner.clone());
            self.failures.push(Failure { address: address.to_string(), why, owner });
        } else {
            self.more_failures += 1;
        }
        false
    }

    /// Whether a look-up has failed since there were so many failures.
    pub(super) fn waits(&self, since: usize) -> bool {
        self.failures[since..].iter().any(|failure| failure.why.is_temporary())
    }

    /// Counts a member of a list, good or not.
    pub(super) fn count_member(&mut self) {
        self.members += 1;
        self.too_much |= self.members > 2 * self.router.most;
    }

    /// Whether nothing that is still to come would change the answer.
    pub(super) fn is_enough(&self) -> bool {
        let waits = || self.failures.last().is_some_and(|last| last.why.is_temporary());
        self.too_much
            || match self.reach {
                Reach::First => self.leaves > 0,
                Reach::All => waits(),
            }
    }

    pub(super) fn step(&mut self, what: impl FnOnce() -> Step) {
        if let Some(steps) = &mut self.steps {
            steps.push(what());
        }
    }
}

/// The domain that a mailbox's path names: the rule's, or where that stands for many, the address's.
pub(super) fn rule_domain<'d>(rule: &'d DomainRule, address: &'d Mailbox) -> &'d str {
    if rule.domain.starts_with('.') { address.domain() } else { &rule.domain }
}

/// Where a rule sends mail for an address; `None`: to users of this host.
pub(super) fn relay(rule: &DomainRule, address: &Mailbox) -> Option<Target> {
    match &rule.fate {
        DomainFate::Users { .. } => None,
        DomainFate::RelayMx => Some(by_mx(address)),
        DomainFate::RelayTo(hop) => Some(Target::Smtp(hop.clone())),
        DomainFate::Lmtp(hop) => Some(Target::Lmtp(hop.clone())),
    }
}

fn rule_step(address: &Mailbox, rule: &DomainRule, row: Option<&Row>) -> Step {
    let what = format!("{address}: the rule for {}", rule_in_words(rule));
    match row {
        Some(row) => Step::at(row, &rule.domain, what),
        None => Step::of(what),
    }
}

const _: () = assert!(MAX_LEAVES >= 100_000, "a list of so many members is an ordinary one");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::{Source, Users};
    use crate::courier::request::Hop;

    use super::super::{Judgement, Settings};
    use super::*;

    /// A router over a folder with tables; the words of the settings are set by `set`.
    struct House {
        _folder: tempfile::TempDir,
        router: Router,
    }

    fn house(virtual_aliases: &str, aliases: &str, set: impl FnOnce(&mut Settings)) -> House {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
            path
        };
        let users =
            |users| DomainFate::Users { users, mailbox: Some("/m/{domain}/{user}/".into()), owner: None };
        let virtuals = DomainFate::Users { users: Users::Virtual, mailbox: None, owner: None };
        let mut settings = Settings {
            domains: vec![
                DomainRule::new("any.example", users(Users::Any)),
                DomainRule::new("virtual.example", virtuals),
                DomainRule::new(".below.example", users(Users::Any)),
                DomainRule::new("relay.example", DomainFate::RelayTo(Hop::Host("in".into(), 25))),
            ],
            virtual_aliases: vec![Source::Text(file("virtual", virtual_aliases))],
            aliases: Source::Text(file("aliases", aliases)),
            key: file("key", "a key that is long enough\n"),
            ..Settings::default()
        };
        set(&mut settings);
        House { router: Router::new(settings), _folder: folder }
    }

    fn at(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    impl House {
        /// `address` or `address from sender`, for mail of that sender.
        fn sent(&self, sender: &str, address: &str) -> Result<Vec<String>, String> {
            let sender = ReversePath::parse(sender, true).unwrap();
            let mut sent = Vec::new();
            let mut into = |leaf: Leaf| {
                let from = leaf.sender.map(|sender| format!(" from {sender}")).unwrap_or_default();
                sent.push(format!("{}{from}", leaf.address));
            };
            let ended = self.router.expand_into(&at(address), &sender, false, &mut into);
            ended.map(|_| sent).map_err(|why| why.status.to_string())
        }

        fn reached(&self, address: &str) -> Vec<String> {
            self.sent("", address).unwrap_or_else(|why| panic!("{address}: {why}"))
        }

        fn judge(&self, address: &str) -> String {
            self.judge_from("a@x.example", address)
        }

        fn judge_from(&self, sender: &str, address: &str) -> String {
            match self.router.judge_from(&ReversePath::parse(sender, true).unwrap(), &at(address)) {
                Judgement::Open => "open".into(),
                Judgement::ClientsOnly => "clients".into(),
                Judgement::Unsent => "unsent".into(),
                Judgement::No(why) => why.status.to_string(),
            }
        }
    }

    #[test]
    fn a_bounce_of_nothing_is_known_by_its_address() {
        let aliases = "news: bin@any.example, bob@far.example\nowner-news: bin\n";
        let signing = |settings: &mut Settings| {
            settings.signed_senders = vec!["any.example".into(), "system.example".into()];
            let fate = DomainFate::Users { users: Users::System, mailbox: None, owner: None };
            settings.domains.push(DomainRule::new("system.example", fate));
        };
        let house = |refuse| {
            house("", aliases, |settings| {
                signing(settings);
                settings.refuse_unsigned_bounces = refuse;
            })
        };
        let (taking, refusing) = (house(false), house(true));
        let to_relay = |house: &House| house.sent("ann@any.example", "x@relay.example").unwrap().remove(0);
        assert_eq!(to_relay(&taking), "x@relay.example");
        // All of its mail is signed, or the bounces of some would not come back.
        let signed = to_relay(&refusing).replace("x@relay.example from ", "");
        assert!(signed.starts_with("prvs="), "{signed}");
        for taken in [&*signed, "postmaster@any.example", "Abuse+x@any.example", "x@relay.example"] {
            assert_eq!(refusing.judge_from("", taken), "open", "{taken}");
        }
        for owner in ["owner-news@system.example", "Owner-News+bob=far.example@system.example"] {
            assert_eq!(refusing.judge_from("", owner), "open", "{owner}");
        }
        for unsent in ["ann@any.example", "owner-ann@any.example", "bin@system.example"] {
            assert_eq!(refusing.judge_from("", unsent), "unsent", "{unsent}");
            assert_eq!(refusing.judge(unsent), "open", "{unsent}");
            assert_eq!(taking.judge_from("", unsent), "open", "{unsent}");
        }
        assert_eq!(refusing.judge_from("", &signed.replace("ann", "eve")), "5.7.1");
    }

    #[test]
    fn virtual_aliases_lead_across_domains() {
        let text = "info@virtual.example alice@any.example, bob@far.example\n\
                    @virtual.example @any.example\n\
                    gone@virtual.example nobody-such\n\
                    carl@any.example carl@any.example, copy@any.example\n\
                    one@any.example two@any.example\ntwo@any.example one@any.example\n\
                    moved@far.example gone@virtual.example\n";
        let house = house(text, "", |_| ());
        assert_eq!(house.reached("Info@Virtual.example"), ["alice@any.example", "bob@far.example"]);
        assert_eq!(house.reached("info+x@virtual.example"), ["alice+x@any.example", "bob+x@far.example"]);
        assert_eq!(house.reached("Else@virtual.example"), ["Else@any.example"]);
        assert_eq!(house.reached("carl@any.example"), ["carl@any.example", "copy@any.example"]);
        assert_eq!(
            house.reached("one@any.example"),
            ["one@any.example"],
            "what leads to itself is a mailbox"
        );
        assert_eq!(
            (house.judge("info@virtual.example"), house.judge("x@far.example")),
            ("open".into(), "clients".into())
        );
        assert_eq!(house.judge("gone@virtual.example"), "5.1.1", "refused through the alias");
        assert_eq!(house.judge("moved@far.example"), "5.1.1", "though its own domain would take it");
    }

    #[test]
    fn a_domain_of_virtual_addresses_has_no_others() {
        let house = house("a@virtual.example b@any.example\n", "", |_| ());
        assert_eq!(
            (house.judge("a@virtual.example"), house.judge("b@virtual.example")),
            ("open".into(), "5.1.1".into())
        );
        assert_eq!(house.judge("postmaster@virtual.example"), "open");
        assert_eq!(house.reached("x@a.below.example"), ["x@a.below.example"]);
        assert_eq!(house.judge("x@below.example"), "clients");
        let leaf = &house.router.expand(&at("x@a.below.example")).unwrap()[0];
        assert_eq!(leaf.place, Some(Place::Maildir("/m/a.below.example/x/".into())));
    }

    #[test]
    fn a_dead_table_makes_mail_wait_and_nobody_unknown() {
        let lost = || vec![Source::Cdb("/no/such/table.cdb".into())];
        type Set = fn(&mut Settings, Vec<Source>);
        let cases: [(Set, &str); 4] = [
            (|settings, lost| settings.virtual_aliases = lost, "x@any.example"),
            (|settings, lost| settings.recipient_canonical = lost, "x@any.example"),
            (|settings, lost| settings.domain_tables = lost, "x@unknown.example"),
            (|settings, lost| settings.aliases = lost[0].clone(), "nobody-such@mail.example"),
        ];
        for (set, address) in cases {
            let house = house("", "", |settings| set(settings, lost()));
            assert_eq!(
                (house.judge(address), house.sent("", address)),
                ("4.3.5".into(), Err("4.3.5".into()))
            );
        }
        let house = house("bad@any.example |/bin/false\n", "", |_| ());
        assert_eq!(
            (house.judge("bad@any.example"), house.judge("good@any.example")),
            ("4.3.5".into(), "open".into())
        );
    }

    #[test]
    fn a_list_with_an_owner_is_sent_by_its_owner() {
        let aliases = "news: daemon, x@far.example, inner\nowner-news: daemon\n\
                       inner: y@far.example\nowner-inner: bin\nplain: z@far.example\n";
        let house = house("", aliases, |settings| settings.verp = vec!["inner".into()]);
        assert_eq!(
            house.sent("s@far.example", "news@mail.example").unwrap(),
            [
                "daemon@mail.example from owner-news@mail.example",
                "x@far.example from owner-news@mail.example",
                "y@far.example from owner-inner+y=far.example@mail.example",
            ]
        );
        assert_eq!(house.sent("", "news@mail.example").unwrap()[1], "x@far.example", "a bounce stays one");
        assert_eq!(house.sent("s@far.example", "plain@mail.example").unwrap(), ["z@far.example"]);
        assert_eq!(house.reached("owner-inner+y=far.example@mail.example"), ["bin@mail.example"]);
    }

    #[test]
    fn forwarded_mail_of_strangers_leads_back_through_us() {
        let text = "ann@any.example ann@far.example, ann@relay.example, here@any.example\n";
        let house = house(text, "", |settings| settings.srs_domain = "any.example".into());
        let sent = house.sent("bob@stranger.example", "ann@any.example").unwrap();
        let (first, srs) = sent[0].split_once(" from ").unwrap();
        assert_eq!(
            (first, &sent[1..]),
            ("ann@far.example", &["ann@relay.example".into(), "here@any.example".into()][..])
        );
        assert!(srs.starts_with("SRS0=") && srs.ends_with("=stranger.example=bob@any.example"), "{srs}");
        // The way back is open to all, even though this host relays nothing there.
        assert_eq!(
            (house.reached(srs), house.judge(srs)),
            (vec!["bob@stranger.example".to_string()], "open".into())
        );
        let forged = srs.replace("=bob@", "=eve@");
        assert_eq!((house.judge(&forged), house.sent("", &forged)), ("5.7.1".into(), Err("5.7.1".into())));
        // Nothing is rewritten that is ours, is nobody's, or goes straight on.
        assert_eq!(house.sent("carl@any.example", "ann@any.example").unwrap()[0], "ann@far.example");
        assert_eq!(house.sent("", "ann@any.example").unwrap()[0], "ann@far.example");
        assert_eq!(house.sent("bob@stranger.example", "x@far.example").unwrap(), ["x@far.example"]);
    }

    #[test]
    fn without_its_key_forwarded_mail_waits() {
        let house = house("a@any.example a@far.example\n", "", |settings| {
            settings.srs_domain = "any.example".into();
            settings.key = "/no/such/key".into();
        });
        assert_eq!(house.sent("b@stranger.example", "a@any.example"), Err("4.3.5".into()));
        assert_eq!(house.judge("a@any.example"), "open", "there is somebody");
        assert_eq!(house.judge("SRS0=aaaaaa=aa=x.example=b@any.example"), "4.3.5");
    }

    #[test]
    fn addresses_of_the_envelope_are_rewritten_once() {
        let canonical = "old@any.example new@any.example\nnew@any.example newer@any.example\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("canonical");
        std::fs::write(&path, canonical).unwrap();
        let house = house("", "", |settings| {
            settings.canonical = vec![Source::Text(path)];
            settings.masquerade = vec!["far.example".into()];
            settings.signed_senders = vec!["signed.example".into()];
        });
        assert_eq!(
            house.sent("b@web.far.example", "old@any.example").unwrap(),
            ["new@any.example from b@far.example"]
        );
        assert_eq!(
            house.sent("old@any.example", "x@elsewhere.example").unwrap(),
            ["x@elsewhere.example from new@any.example"]
        );
        let signed = house.sent("s@signed.example", "x@elsewhere.example").unwrap().remove(0);
        let sender = signed.split_once(" from ").unwrap().1;
        assert!(sender.starts_with("prvs=") && sender.ends_with("=s@signed.example"), "{signed}");
        assert_eq!(house.reached(sender), ["s@signed.example"]);
        assert_eq!(
            house.sent("s@signed.example", "x@any.example").unwrap(),
            ["x@any.example"],
            "only abroad"
        );
    }

    #[test]
    fn the_steps_name_table_line_and_key() {
        let house = house("# x\ninfo@any.example staff@mail.example\n", "staff: daemon\n", |_| ());
        let (steps, _) = house.router.explain(&at("info@any.example"), &ReversePath::Null);
        let told: Vec<_> = steps
            .iter()
            .filter_map(|step| {
                Some((step.table.as_ref()?.rsplit('/').next()?, step.line?, step.key.as_deref()?))
            })
            .collect();
        assert_eq!(told, [("virtual", 2, "info@any.example"), ("aliases", 1, "staff")]);
    }

    #[test]
    fn a_list_of_a_hundred_thousand_is_walked_through() {
        let house = house("", "list: :include:FOLDER/list\n", |_| ());
        let list: String = (0..100_000).map(|n| format!("user-{n}@far.example\n")).collect();
        std::fs::write(house._folder.path().join("list"), list).unwrap();
        let mut count = 0;
        let mut into = |_: Leaf| count += 1;
        house.router.expand_into(&at("list@mail.example"), &ReversePath::Null, false, &mut into).unwrap();
        assert_eq!(count, 100_000);
        assert_eq!(house.judge("list@mail.example"), "clients");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_table_has_an_end(
            text in "([a-d]?@(any|virtual|far)\\.example (([a-d]?@(any|virtual)\\.example|[a-d]), ){0,3}[a-d]@far\\.example\n){0,6}",
            aliases in "([a-d]: [a-d]@(any|virtual)\\.example, [a-d]\n){0,3}",
            local in "[a-d]",
        ) {
            let house = house(&text, &aliases, |settings| settings.srs_domain = "any.example".into());
            for domain in ["any", "virtual", "far"] {
                let sent = house.sent("s@stranger.example", &format!("{local}@{domain}.example"));
                prop_assert!(sent.is_err() || !sent.unwrap().is_empty());
            }
        }
    }
}
