//! Floor 4, services: where does this address go?
//!
//! [`Router`] answers that one question for posta-smtpd (may it be taken?), for posta-queue (which
//! hand, which place?) and for `postactl why` (how come?).
//!
//! | file | what it does |
//! |---|---|
//! | `resolve` | walks from an address to its leaves |
//! | `residents` | walks on in domains with users: aliases, accounts, users files |
//! | `domains` | finds the rule for a domain |
//! | `table/` | rows of a key and a value: text, cdb, SQLite, regular expressions |
//! | `search` | the keys that an address is looked for with |
//! | `alias` | what an alias leads to |
//! | `rewrite` | canonical addresses, hidden hosts |
//! | `senders` | which sender a copy goes out with: `srs`, `tags`, signed by `signature` |
//! | `accounts`, [`users`] | this host's names, and those of users files |
//! | `transport` | makes the leaf |
//! | `explain` | says it all in words |
//! | `inspect` | what is to be mended in the tables |
//!
//! A local part is only ever looked up, never taken apart: `a%b@here`, `b!a@here` and `"a@b"@here`
//! lead to a user of that very name or nowhere. What a table can't say now is never "unknown user".

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::limit::Limit;
use crate::mail::status::Status;

use crate::courier::request::{Leaf, Target};

use crate::config::{DomainFate, Users};

mod accounts;
mod alias;
mod domains;
mod explain;
mod inspect;
mod residents;
mod resolve;
mod rewrite;
mod search;
mod senders;
mod settings;
mod signature;
mod srs;
mod table;
mod tags;
mod transport;
pub mod users;

pub use alias::{Member, included};
pub use domains::{Relaying, with_parents};
pub use inspect::alias_faults;
pub use settings::Settings;
pub use signature::{KeyError, make_key};
pub use table::TableError;
pub use table::make::{MakeError, build as build_cdb};
pub use table::text::Form;

use accounts::Accounts;
use domains::Domains;
use resolve::{Reach, Walk};
use rewrite::Rewriting;
use senders::{Returned, Senders};
use table::watched::{Absent, Watched};
use table::{Lookup, open, open_all};
use transport::Mailboxes;
use users::Published;

/// Most leaves of one address.
const MAX_LEAVES: usize = 250_000;

/// Answers the one question. Shared by all threads; tables are read again when their file changes.
#[derive(Debug)]
pub struct Router {
    settings: Settings,
    domains: Domains,
    aliases: Box<dyn Lookup>,
    virtual_aliases: Vec<Box<dyn Lookup>>,
    rewriting: Rewriting,
    senders: Senders,
    users: Watched<Published>,
    accounts: Accounts,
    /// Most leaves of one address.
    most: usize,
}

/// Why an address leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{status} {text}")]
pub struct NoRoute {
    /// Class 5: never; class 4: a look-up failed, ask again later.
    pub status: Status,
    /// For the reply and the sender.
    pub text: String,
}

/// What RCPT wants to know of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It exists here, or anybody may send there.
    Open,
    /// Only for clients that may relay.
    ClientsOnly,
    /// As `ClientsOnly`: it is a bounce, and nothing that it could be one of was ever sent.
    Unsent,
    /// It does not exist, or nobody can say now.
    No(NoRoute),
}

/// One step of an answer, for `postactl why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In words.
    pub what: String,
    /// The table that says so, if it is one.
    pub table: Option<String>,
    /// The line in it, where it has lines.
    pub line: Option<usize>,
    /// The key that was found there.
    pub key: Option<String>,
}

/// A member of an alias that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The member.
    pub address: String,
    /// Why.
    pub why: NoRoute,
    /// The owner of the list that it is a member of, who is to be told.
    pub owner: Option<Mailbox>,
}

impl Router {
    /// A router. Tables are read when they are first needed.
    pub fn new(settings: Settings) -> Router {
        Router {
            domains: Domains::new(&settings),
            aliases: open(&settings.aliases, Form::Aliases),
            virtual_aliases: open_all(&settings.virtual_aliases, Form::Addresses),
            rewriting: Rewriting::new(&settings),
            senders: Senders::new(&settings),
            users: Watched::new(settings.users.clone(), Absent::Failure, Published::parse),
            accounts: Accounts::default(),
            most: MAX_LEAVES,
            settings,
        }
    }

    /// The key file that signed senders need, if there are any; see [`make_key`].
    pub fn key_file(&self) -> Option<&Path> {
        self.senders.key_file()
    }

    /// For posta-smtpd: may mail for this address be taken? Goes through aliases, so that who leads
    /// nowhere is refused at RCPT; one good member of an alias is enough. Who may send is said by the
    /// rule for the address as it was given.
    pub fn judge(&self, address: &Mailbox) -> Judgement {
        let rule = match self.domains.find(address.domain()) {
            Ok(found) => found.rule,
            Err(why) => return Judgement::No(why),
        };
        let has_users = matches!(rule.fate, DomainFate::Users { .. });
        // RFC 5321 4.5.1: mail for postmaster is always taken, whoever sends it.
        if has_users && address.is_postmaster() {
            return Judgement::Open;
        }
        // Bounces come from anywhere.
        let is_back = matches!(self.senders.returned(address), Ok(Some(Returned::To(_))));
        let closed = !is_back && (rule.clients_only || !has_users && is_routed(address.local()));
        match Walk::new(self, Reach::First, &mut drop).from(address).1 {
            Err(why) => Judgement::No(why),
            Ok(_) if closed => Judgement::ClientsOnly,
            Ok(_) => Judgement::Open,
        }
    }

    /// The same for mail of this sender: a bounce to an address whose senders are all signed answers
    /// nothing that we have sent, unless it comes to a signed one (draft-levine-smtp-batv 5).
    pub fn judge_from(&self, sender: &ReversePath, address: &Mailbox) -> Judgement {
        let judged = self.judge(address);
        if judged != Judgement::Open || *sender != ReversePath::Null {
            return judged;
        }
        match self.is_never_sender(address) {
            Ok(true) => Judgement::Unsent,
            Ok(false) => judged,
            Err(why) => {
                log::warn!("look-up of {address} failed: {why}");
                Judgement::No(NoRoute::unknown_now("Recipient look-up failed, try again later".to_string()))
            }
        }
    }

    /// Whether no mail goes out with an address as it is for its sender. Owners of lists send unsigned,
    /// and to postmaster and abuse anybody may write in any way (RFC 5321 4.5.1, RFC 2142 2).
    fn is_never_sender(&self, address: &Mailbox) -> Result<bool, TableError> {
        let local = address.local().to_lowercase();
        if !self.senders.signs_all(address.domain()) || self.senders.returned(address)?.is_some() {
            return Ok(false);
        }
        let bare = self.bare(&local);
        if bare == "postmaster" || bare == "abuse" {
            return Ok(false);
        }
        let is_owner = bare.starts_with(residents::OWNER) && self.aliases.find(bare)?.is_some();
        Ok(!is_owner)
    }

    /// The final destinations, for a message of no sender in particular. Never empty if `Ok`; see
    /// [`Router::expand_into`].
    pub fn expand(&self, address: &Mailbox) -> Result<Vec<Leaf>, NoRoute> {
        let mut leaves = Vec::new();
        self.expand_into(address, &ReversePath::Null, false, &mut |leaf| leaves.push(leaf))?;
        Ok(leaves)
    }

    /// Where mail for a domain goes by the domain's own rule, whatever aliases say of its addresses.
    /// `None`: to users of this host.
    pub fn relay(&self, domain: &Mailbox) -> Result<Option<Target>, NoRoute> {
        Ok(resolve::relay(&self.domains.find(domain.domain())?.rule, domain))
    }

    /// What the row of a domains table that sends a leaf on says of the way there; `None`: no row does.
    pub fn relaying(&self, leaf: &Leaf) -> Result<Option<Relaying>, NoRoute> {
        self.domains.relaying(leaf)
    }

    /// What the mailbox of a leaf may hold, where its user's line in a users file says it, or else the entry
    /// of its domain; `None`: neither does.
    pub fn limit(&self, leaf: &Leaf) -> Result<Option<Limit>, NoRoute> {
        let address = &leaf.address;
        let rule = self.domains.find(address.domain())?.rule;
        let of_user = match &rule.fate {
            DomainFate::Users { users: Users::File(file), .. } => {
                let unknown =
                    |why: String| NoRoute::unknown_now(format!("look-up of {address} failed: {why}"));
                let users = self.users.get().map_err(|why| unknown(why.to_string()))?;
                let domain = resolve::rule_domain(&rule, address);
                let names = [address.local(), self.bare(address.local())];
                let user = users.find_either(file, names, domain).map_err(unknown)?;
                user.and_then(|user| user.limit)
            }
            _ => None,
        };
        Ok(of_user.or(rule.limit))
    }

    /// The users file of a domain, whose entry may be in a table; `None`: it has none.
    pub fn users_file(&self, domain: &str) -> Result<Option<PathBuf>, NoRoute> {
        self.domains.users_file(&domain.to_lowercase())
    }

    /// For posta-queue: hands the final destinations to `into`, one after the other, without
    /// duplicates; at least one if `Ok`. After an error what was handed out counts for nothing.
    ///
    /// `sender` is the message's; `is_forwarded`: a program of this host sends it on. Members of
    /// aliases that never lead anywhere are given back, after a line in the log for each. If a look-up
    /// fails for one of them, all wait.
    pub fn expand_into(
        &self,
        address: &Mailbox,
        sender: &ReversePath,
        is_forwarded: bool,
        into: &mut dyn FnMut(Leaf),
    ) -> Result<Vec<Failure>, NoRoute> {
        let ended = Walk::new(self, Reach::All, into).of(sender, is_forwarded).from(address).1?;
        for Failure { address: member, why, .. } in &ended.failures {
            log::warn!("{address}: a member of its alias, {member}, leads nowhere: {why}");
        }
        if ended.more > 0 {
            log::warn!("{address}: {} more members of its alias lead nowhere", ended.more);
        }
        Ok(ended.failures)
    }

    /// For `postactl why`: the steps of the same answer.
    pub fn explain(
        &self,
        address: &Mailbox,
        sender: &ReversePath,
    ) -> (Vec<Step>, Result<Vec<Leaf>, NoRoute>) {
        let mut leaves = Vec::new();
        let mut into = |leaf| leaves.push(leaf);
        let (steps, result) =
            Walk::new(self, Reach::All, &mut into).of(sender, false).telling().from(address);
        (steps, result.map(|_| leaves))
    }

    /// Completes an address without a domain with this host's own.
    pub fn qualify(&self, local: &str) -> Option<Mailbox> {
        Mailbox::from_parts(local, self.domains.hostname()).ok()
    }

    /// A member of an alias as an address.
    fn complete(&self, text: &str) -> Option<Mailbox> {
        if text.contains('@') { Mailbox::parse(text, true).ok() } else { self.qualify(text) }
    }

    /// A local part without its extension: `alice` of `alice+work`.
    fn bare<'l>(&self, local: &'l str) -> &'l str {
        match local.find(|c| self.settings.delimiter.contains(c)) {
            None | Some(0) => local,
            Some(at) => &local[..at],
        }
    }

    /// Whether a domain's names are this host's: its users are the accounts.
    fn is_own(&self, address: &Mailbox) -> bool {
        let found = self.domains.find(address.domain());
        let is_system = |fate: &DomainFate| matches!(fate, DomainFate::Users { users: Users::System, .. });
        found.is_ok_and(|found| is_system(&found.rule.fate))
    }

    /// Whether a domain has a rule of its own. One that can't be looked up has none for now.
    fn has_rule(&self, address: &Mailbox) -> bool {
        self.domains.find(address.domain()).is_ok_and(|found| found.rule.domain != "*")
    }

    fn mailboxes<'r>(
        &'r self,
        domain: &'r str,
        mailbox: Option<&'r str>,
        owner: Option<&'r str>,
    ) -> Mailboxes<'r> {
        Mailboxes {
            of_domain: mailbox,
            of_host: &self.settings.mailbox,
            of_root: &self.settings.root_mailbox,
            owner,
            domain,
        }
    }
}

impl NoRoute {
    fn user_unknown() -> NoRoute {
        NoRoute { status: Status::new(5, 1, 1), text: "User unknown".to_string() }
    }

    fn bad_address(text: &str) -> NoRoute {
        let text = format!("\"{}\" is no address", text.escape_debug());
        NoRoute { status: Status::new(5, 1, 3), text }
    }

    /// A sender of our own making that isn't, or no longer is (RFC 3463 3.8, X.7.1).
    fn not_ours(text: String) -> NoRoute {
        NoRoute { status: Status::new(5, 7, 1), text }
    }

    /// A table or the name service can't say (RFC 3463 3.4, X.3.5).
    fn unknown_now(text: String) -> NoRoute {
        NoRoute { status: Status::new(4, 3, 5), text }
    }

    /// A loop, or what is as good as one (RFC 3463 3.5, X.4.6).
    fn too_much(text: String) -> NoRoute {
        NoRoute { status: Status::new(5, 4, 6), text }
    }

    /// Whether it is worth asking again.
    pub fn is_temporary(&self) -> bool {
        self.status.class == 4
    }
}

/// Whether a local part asks the next host to send the mail on: `a%b@here`, `b!a@here`,
/// `"a@b"@here`. Strangers may not ask that of a host that trusts us (RFC 5321 3.6.1, RFC 2505 2).
fn is_routed(local: &str) -> bool {
    local.contains(['%', '!', '@'])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use crate::courier::request::{Hop, Owner, Place};

    use crate::config::{DomainRule, Source};

    use super::table::text::Rows;

    use super::*;

    /// A router over a folder with tables.
    struct House {
        folder: tempfile::TempDir,
        router: Router,
    }

    fn users(users: Users, mailbox: Option<&str>) -> DomainFate {
        DomainFate::Users { users, mailbox: mailbox.map(str::to_string), owner: None }
    }

    fn house(aliases: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("aliases"), aliases.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        let content = "alice@file.example:x:5000:5000::/srv/alice\nbroken@file.example:x:y:1::/srv\n";
        std::fs::write(path("one"), content).unwrap();
        std::fs::write(path("run-users"), users::publish(&[path("one")])).unwrap();
        let closed = DomainRule::new("closed.example", DomainFate::RelayTo(Hop::Host("in".into(), 25)));
        let domains = vec![
            DomainRule::new("system.example", users(Users::System, None)),
            DomainRule::new("file.example", users(Users::File(path("one")), None)),
            DomainRule::new("lost.example", users(Users::File(path("lost")), None)),
            DomainRule::new("any.example", users(Users::Any, Some("/srv/any/{user}/"))),
            DomainRule::new("lists.example", DomainFate::Lmtp(Hop::Unix("/run/lmtp".into()))),
            DomainRule::new("backup.example", DomainFate::RelayTo(Hop::Host("primary".into(), 25))),
            DomainRule { clients_only: true, ..closed },
        ];
        let settings = Settings {
            domains,
            aliases: Source::Text(path("aliases")),
            users: path("run-users"),
            ..Settings::default()
        };
        House { router: Router::new(settings), folder }
    }

    fn at(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    impl House {
        fn expand(&self, address: &str) -> Vec<Leaf> {
            self.router.expand(&at(address)).unwrap_or_else(|why| panic!("{address}: {why}"))
        }

        /// Final addresses, sorted.
        fn reached(&self, address: &str) -> Vec<String> {
            let mut reached: Vec<_> =
                self.expand(address).iter().map(|leaf| leaf.address.to_string()).collect();
            reached.sort();
            reached
        }

        fn refused(&self, address: &str) -> String {
            let refused = self.router.expand(&at(address)).expect_err(address).status;
            if !address.starts_with("postmaster") {
                let judged = self.router.judge(&at(address));
                assert!(matches!(judged, Judgement::No(why) if why.status == refused), "{address}");
            }
            refused.to_string()
        }

        fn judge(&self, address: &str) -> Judgement {
            self.router.judge(&at(address))
        }
    }

    fn root_leaf(address: &str) -> Leaf {
        Leaf {
            address: at(address),
            target: Target::Local(Owner::Account("mail".into())),
            place: Some(Place::Maildir("/var/mail/root/".into())),
            sender: None,
            of_list: false,
        }
    }

    #[test]
    fn each_domain_goes_its_way() {
        let house = house("");
        let target = |address: &str| house.expand(address).remove(0).target;
        assert_eq!(target("x@lists.example"), Target::Lmtp(Hop::Unix("/run/lmtp".into())));
        assert_eq!(target("x@backup.example"), Target::Smtp(Hop::Host("primary".into(), 25)));
        assert_eq!(target("x@elsewhere.example"), Target::Mx("elsewhere.example".into()));
        assert_eq!(target("daemon@System.Example."), Target::Local(Owner::Account("daemon".into())));
        let file = house.expand("Alice+x@file.example").remove(0);
        assert_eq!(file.target, Target::Local(Owner::Ids(5000, 5000, "/srv/alice".into())));
        assert_eq!(file.place, Some(Place::Home(Box::new(Place::Maildir("~/Maildir/".into())))));
        let any = house.expand("Who.Ever+x@any.example").remove(0);
        assert_eq!(any.place, Some(Place::Maildir("/srv/any/who.ever/".into())));
    }

    #[test]
    fn rcpt_is_told_who_may_send() {
        let house = house("out: x@elsewhere.example\n");
        for open in
            ["daemon@system.example", "DAEMON+x@system.example", "alice@file.example", "out@system.example"]
        {
            assert_eq!(house.judge(open), Judgement::Open, "{open}");
        }
        for open in ["x@lists.example", "x@backup.example", "x@any.example"] {
            assert_eq!(house.judge(open), Judgement::Open, "{open}");
        }
        for closed in ["x@closed.example", "x@elsewhere.example", "x@[192.0.2.1]", "daemon@mail.example"] {
            assert_eq!(house.judge(closed), Judgement::ClientsOnly, "{closed}");
        }
        assert_eq!(house.refused("nobody-such@system.example"), "5.1.1");
        assert_eq!(house.refused("nobody-such@file.example"), "5.1.1");
        assert_eq!(house.refused("a@mail.example"), "5.1.1");
    }

    #[test]
    fn a_failed_look_up_is_no_unknown_user() {
        let house = house("some: daemon, :include:FOLDER/no-list\n");
        assert_eq!(house.refused("x@lost.example"), "4.3.5");
        assert_eq!(house.refused("broken@file.example"), "4.3.5");
        // One good member is enough to take the mail; but all are delivered to, or none yet.
        assert_eq!(house.judge("some@system.example"), Judgement::Open);
        assert_eq!(house.router.expand(&at("some@system.example")).unwrap_err().status, Status::new(4, 3, 5));
        std::fs::remove_file(house.folder.path().join("aliases")).unwrap();
        std::fs::create_dir(house.folder.path().join("aliases")).unwrap();
        let fresh = Router::new(house.router.settings.clone());
        assert!(
            matches!(fresh.judge(&at("daemon@system.example")), Judgement::No(why) if why.is_temporary())
        );
        let lost = Settings { users: house.folder.path().join("none"), ..house.router.settings.clone() };
        let fresh = Router::new(lost);
        assert!(matches!(fresh.judge(&at("alice@file.example")), Judgement::No(why) if why.is_temporary()));
    }

    #[test]
    fn a_local_part_is_never_routed_on() {
        let house = house("");
        for local in ["x%elsewhere.example", "elsewhere.example!x", "\"x@elsewhere.example\"", "\"a@b\"+c"] {
            for domain in ["system.example", "file.example"] {
                if let Ok(address) = Mailbox::parse(&format!("{local}@{domain}"), false) {
                    assert_eq!(house.refused(&address.to_string()), "5.1.1");
                }
            }
            for domain in ["backup.example", "lists.example"] {
                if let Ok(address) = Mailbox::parse(&format!("{local}@{domain}"), false) {
                    assert_eq!(house.router.judge(&address), Judgement::ClientsOnly);
                }
            }
        }
        for local in ["../x", "\"\"", "\".ssh\"", "a/b", "\"a..b\""] {
            let address = format!("{local}@any.example");
            if Mailbox::parse(&address, false).is_ok() {
                assert_eq!(house.refused(&address), "5.1.1");
            }
        }
    }

    #[test]
    fn aliases_lead_through_lists_and_out() {
        let house = house(concat!(
            "Staff: daemon, Bin@system.example, out, \"|/bin/cat -n, x\", /var/tmp/mbox, DAEMON\n",
            "out: x@elsewhere.example, alice@file.example\n",
            "list: :include:FOLDER/list\n",
        ));
        std::fs::write(house.folder.path().join("list"), "# list\ndaemon\nbin, nobody-such\n|/bin/false\n")
            .unwrap();
        assert_eq!(
            house.reached("sTAFF+x@system.example"),
            [
                "Bin@system.example",
                "alice@file.example",
                "daemon@mail.example",
                "sTAFF+x@system.example",
                "sTAFF+x@system.example",
                "x@elsewhere.example"
            ]
        );
        let leaves = house.expand("staff@system.example");
        let nobody = Target::Local(Owner::Account("nobody".into()));
        let command = leaves.iter().find(|leaf| matches!(leaf.place, Some(Place::Command(_)))).unwrap();
        assert_eq!(command.place, Some(Place::Command("/bin/cat -n, x".into())));
        assert_eq!(command.target, nobody);
        assert!(
            leaves.iter().any(|l| l.place == Some(Place::Mbox("/var/tmp/mbox".into())) && l.target == nobody)
        );
        let mut count = 0;
        let list =
            house
                .router
                .expand_into(&at("list@system.example"), &ReversePath::Null, false, &mut |_| count += 1);
        assert_eq!(count, 2);
        let failed: Vec<String> = list.unwrap().iter().map(|f| f.why.status.to_string()).collect();
        assert_eq!(failed, ["5.1.1", "5.7.1"]);
    }

    #[test]
    fn loops_end_and_expansion_is_bounded() {
        let mut text = String::from(concat!(
            "daemon: daemon, bin\nsys: \\daemon\na: b\nb: a\nself: self\nboth: bin, b\n",
            "twice: two, three\ntwo: bin\nthree: two, bin\n",
        ));
        for n in 0..30 {
            text +=
                &format!("deep{n}: deep{}\nwide{n}: wide{m}, \"wide{m}\"@system.example\n", n + 1, m = n + 1);
        }
        text += "deep30: bin\nwide30: bin\ndeep: deep25\nlist: :include:FOLDER/big\nme: :include:FOLDER/me\n";
        let mut house = house(&text);
        house.router.most = 1000;
        let big: String = (0..1001).map(|n| format!("u{n}@elsewhere.example\n")).collect();
        std::fs::write(house.folder.path().join("big"), big).unwrap();
        std::fs::write(house.folder.path().join("me"), "bin\nme\n").unwrap();
        assert_eq!(house.reached("daemon@system.example"), ["bin@mail.example", "daemon@mail.example"]);
        assert_eq!(
            house.reached("sys@system.example"),
            ["sys@system.example"].map(|_| "daemon@system.example")
        );
        assert_eq!(house.refused("a@system.example"), "5.4.6");
        assert_eq!(house.refused("self@system.example"), "5.4.6");
        assert_eq!(house.reached("both@system.example"), ["bin@mail.example"]);
        assert_eq!(house.reached("twice@system.example"), ["bin@mail.example"]);
        assert_eq!(house.reached("deep@system.example"), ["bin@mail.example"]);
        assert_eq!(house.refused("deep0@system.example"), "5.4.6");
        assert_eq!(house.refused("wide0@system.example"), "5.4.6");
        assert_eq!(house.reached("me@system.example"), ["bin@mail.example"]);
        assert_eq!(house.judge("list@system.example"), Judgement::Open);
        assert_eq!(house.router.expand(&at("list@system.example")).unwrap_err().status, Status::new(5, 4, 6));
    }

    #[test]
    fn the_deepest_chain_fits_a_small_stack() {
        let text: String = (0..20).map(|n| format!("deep{n}: deep{}\n", n + 1)).collect();
        let house = house(&text);
        // A thread that overflows its stack ends the process, and the test with it.
        std::thread::scope(|scope| {
            let ask = || house.judge("deep0@system.example");
            let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, ask).unwrap();
            assert!(matches!(thread.join().unwrap(), Judgement::No(_)));
        });
    }

    #[test]
    fn postmaster_is_always_there() {
        let house = house("postmaster: nobody-such\n");
        let domains = ["system.example", "file.example", "lost.example", "mail.example", "localhost"];
        for domain in domains {
            assert_eq!(house.judge(&format!("PostMaster@{domain}")), Judgement::Open, "{domain}");
        }
        assert_eq!(house.expand("postmaster@system.example"), [root_leaf("root@mail.example")]);
        assert_eq!(house.expand("postmaster@file.example"), [root_leaf("root@mail.example")]);
        assert_eq!(house.refused("postmaster@lost.example"), "4.3.5");
        assert_eq!(house.router.qualify("postmaster"), Some(at("postmaster@mail.example")));
        assert_eq!(house.expand("root@system.example"), [root_leaf("root@system.example")]);
        let nobody = Settings { postmaster: "nobody-such".into(), ..house.router.settings.clone() };
        let leaves = Router::new(nobody).expand(&at("postmaster@file.example")).unwrap();
        assert_eq!(leaves, [root_leaf("postmaster@file.example")]);
    }

    #[test]
    fn the_steps_say_where_each_thing_is_written() {
        let house = house("# x\nstaff: daemon, out@elsewhere.example\n");
        let (steps, leaves) = house.router.explain(&at("staff@system.example"), &ReversePath::Null);
        assert_eq!(leaves.unwrap().len(), 2);
        let text: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
        let text = text.join("\n");
        let aliases = house.folder.path().join("aliases");
        for words in [
            "staff@system.example: the rule for \"system.example\" is users = \"system\"",
            &format!("{}:2: alias staff leads to daemon, out@elsewhere.example", aliases.display()),
            "daemon is an account of this host: uid 1",
            "daemon@mail.example: is delivered as user daemon as the user's .forward says",
            "out@elsewhere.example: is sent to the mail exchangers of elsewhere.example",
        ] {
            assert!(text.contains(words), "{words} not in\n{text}");
        }
    }

    #[test]
    fn check_hears_of_root_s_mail_and_of_bad_lines() {
        let bad = house("bad line\n");
        let (faults, warnings) = (bad.router.faults(), bad.router.warnings());
        assert!(faults[0].ends_with("aliases:1: no colon after the alias's name"), "{faults:?}");
        assert!(warnings[0].starts_with("mail for root goes to /var/mail/root/"), "{warnings:?}");
        let good = house("root: daemon\n");
        assert_eq!((good.router.faults(), good.router.warnings()), (vec![], vec![]));
    }

    #[test]
    fn a_changed_table_is_seen() {
        let house = house("");
        let aliases: &Path = &house.folder.path().join("aliases");
        let settings = house.router.settings.clone();
        let parse = |path: &Path, text: &str| Ok(Rows::parse(path, text, Form::Aliases));
        let table = Watched::new(aliases.to_path_buf(), Absent::Empty, parse).always_looking();
        let router = Router { aliases: Box::new(table), ..Router::new(settings) };
        assert!(matches!(router.judge(&at("new@system.example")), Judgement::No(_)));
        std::fs::write(aliases, "new: daemon\n").unwrap();
        assert_eq!(router.judge(&at("new@system.example")), Judgement::Open);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_table_has_an_end(
            text in "([a-e]: (([a-e]|\\\\[a-e]|[a-e]@any\\.example), ){0,4}[a-e]\n){0,6}",
            local in "[a-e]",
        ) {
            let router = house(&text).router;
            let address = Mailbox::from_parts(&local, "system.example").unwrap();
            if let Ok(leaves) = router.expand(&address) {
                prop_assert!(!leaves.is_empty());
                prop_assert_eq!(router.judge(&address), Judgement::Open);
            }
        }
    }
}
