//! The order of judgements about a client, a sender, a recipient.

use std::net::IpAddr;
use std::time::Instant;

use crate::mail::address::{Mailbox, ReversePath};

use crate::smtp::reply::Reply;
use crate::smtp::rule::{self, Rule};

use crate::route::Judgement;

use super::access::{Access, Action, Finding, Networks};
use super::helo::Checks;
use super::limits::{Counts, Limits, counted};
use super::verdict::Verdict;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; none for a Unix socket or a pipe.
    pub address: Option<IpAddr>,
    /// Which of our addresses it has connected to; none if that is not known.
    pub reached: Option<IpAddr>,
    /// It came to a port where users hand their mail in (RFC 6409).
    pub submission: bool,
    /// Who logged in (RFC 4954).
    pub login: Option<String>,
    /// SHA-256 of the certificate that it has shown and has the key of, in hexadecimal.
    pub fingerprint: Option<String>,
    /// The name of its address, if that name leads back to it.
    pub name: Option<String>,
    /// Its name could not be found out now; it may have one.
    pub name_unclear: bool,
}

/// The rules, as the administrator set them.
#[derive(Debug, Default)]
pub struct Rules {
    /// Who may relay. These clients are never limited.
    pub relay_from: Networks,
    /// SHA-256 of certificates whose owners may relay, in lower-case hexadecimal.
    pub relay_fingerprints: Vec<String>,
    /// The administrator's tables.
    pub access: Access,
    /// Which names in HELO are refused.
    pub helo: Checks,
    /// How often who may do what.
    pub limits: Limits,
}

/// The judge, shared by all sessions.
#[derive(Debug)]
pub struct Policy {
    relay_from: Networks,
    relay_fingerprints: Vec<String>,
    access: Access,
    helo: Checks,
    counts: Counts,
}

impl Policy {
    /// A judge who has seen nobody yet.
    pub fn new(rules: Rules) -> Policy {
        Policy {
            relay_from: rules.relay_from,
            relay_fingerprints: rules.relay_fingerprints,
            access: rules.access,
            helo: rules.helo,
            counts: Counts::new(rules.limits),
        }
    }

    /// Whether this client may send to any address.
    pub fn may_relay(&self, client: &Client) -> bool {
        client.login.is_some() || self.is_ours(client)
    }

    /// Whether a client is one of ours, whoever uses it: by its address, its certificate, or a row of
    /// the clients table.
    fn is_ours(&self, client: &Client) -> bool {
        let shown = client.fingerprint.as_ref();
        self.relay_from.contain(client.address)
            || shown.is_some_and(|shown| self.relay_fingerprints.iter().any(|known| is_same(known, shown)))
            || self.finding(client, Instant::now()).is_some_and(|found| found.action == Action::Relay)
    }

    /// What the clients table says of a client, and in which row: for the judgement, and for who asks
    /// why it was so.
    pub fn finding(&self, client: &Client, now: Instant) -> Option<Finding> {
        self.access.client(client, now)
    }

    /// Every row of the administrator's tables that speaks of a message, for who asks why: of its
    /// client, of the name that this gives itself, of its sender and of a recipient.
    pub fn findings(
        &self,
        client: &Client,
        helo: &str,
        sender: &ReversePath,
        recipient: &Mailbox,
        now: Instant,
    ) -> Vec<Finding> {
        let access = &self.access;
        let by_client = [self.finding(client, now), access.helo(helo, now)];
        let by_message = [access.sender(sender, now), access.recipient(recipient, now)];
        by_client.into_iter().chain(by_message).flatten().collect()
    }

    /// Whether a rule asks for the names of clients.
    pub fn asks_for_names(&self, now: Instant) -> bool {
        self.access.asks_for_names(now)
    }

    /// Whether a new client may be made to wait for its greeting: one that nobody has spoken for.
    pub fn may_keep_waiting(&self, client: &Client, now: Instant) -> bool {
        let spoken_for = |found: Finding| found.action == Action::Accept;
        !self.may_relay(client) && !self.finding(client, now).is_some_and(spoken_for)
    }

    /// May this client talk to us at all? Where users log in, the table does not keep them out before
    /// they could: they come from anywhere.
    pub fn connection(&self, client: &Client, now: Instant) -> Verdict {
        if self.may_relay(client) {
            return Verdict::Accept;
        }
        let found = self.finding(client, now).filter(|_| !client.submission);
        if let Some(found) = found {
            let rules = (&rule::CLIENT_REFUSED, &rule::CLIENT_LATER);
            match settle(&found, rules, &subject(client)) {
                Verdict::Refuse(reply) | Verdict::HangUp(reply) => return Verdict::HangUp(reply),
                // Of its messages.
                Verdict::Accept | Verdict::Discard(_) => {}
            }
        }
        if self.counts.connections.allows(counted(client), now) {
            return Verdict::Accept;
        }
        Verdict::HangUp(rule::CONNECTIONS.reply("too many connections in a minute; try again later"))
    }

    /// May this client, which calls itself `helo`, begin a message of `sender`?
    pub fn sender(&self, client: &Client, helo: &str, sender: &ReversePath, now: Instant) -> Verdict {
        // RFC 6409 4.3: who hands mail in shows who he is.
        if client.submission && !self.may_relay(client) {
            return Verdict::Refuse(rule::AUTH_WANTED.reply("authentication required"));
        }
        self.stranger(client, helo, sender, now).and_then(|| self.messages(client, sender, now))
    }

    /// What is asked of strangers only.
    fn stranger(&self, client: &Client, helo: &str, sender: &ReversePath, now: Instant) -> Verdict {
        if self.may_relay(client) {
            return Verdict::Accept;
        }
        let found = self.finding(client, now);
        match found {
            Some(Finding { action: Action::Discard, row, .. }) => return Verdict::Discard(row),
            Some(Finding { action: Action::Accept, .. }) => Verdict::Accept,
            _ => self.name(client, helo, now),
        }
        .and_then(|| match self.access.sender(sender, now) {
            Some(found) => {
                let rules = (&rule::SENDER_REFUSED, &rule::SENDER_LATER);
                settle(&found, rules, &format!("<{sender}>"))
            }
            None => Verdict::Accept,
        })
    }

    /// May a stranger call himself so? A row of the table that accepts a name spares it the checks.
    fn name(&self, client: &Client, helo: &str, now: Instant) -> Verdict {
        if let Some(found) = self.access.helo(helo, now) {
            return settle(&found, (&rule::HELO_REFUSED, &rule::HELO_LATER), helo);
        }
        match self.helo.fault(helo, client) {
            Some((rule, what)) => Verdict::Refuse(rule.reply(format!("{helo}: {what}"))),
            None => Verdict::Accept,
        }
    }

    fn messages(&self, client: &Client, sender: &ReversePath, now: Instant) -> Verdict {
        if self.is_ours(client) {
            return Verdict::Accept;
        }
        let counts = &self.counts;
        if client.login.is_none() && !counts.messages.allows(counted(client), now) {
            too_many(&rule::MESSAGES, "messages")
        } else if !counts.messages_per_login.allows(client.login.clone(), now) {
            too_many(&rule::MESSAGES_OF_LOGIN, "messages")
        } else if !counts.messages_per_sender.allows(key(sender), now) {
            too_many(&rule::MESSAGES_OF_SENDER, "messages")
        } else {
            Verdict::Accept
        }
    }

    /// May mail of `sender` go to this recipient, of whom the router says `judged`? The router is asked
    /// only if the client has not asked too often: who tries names out is slowed down.
    pub fn recipient(
        &self,
        client: &Client,
        sender: &ReversePath,
        recipient: &Mailbox,
        judged: impl FnOnce() -> Judgement,
        now: Instant,
    ) -> Verdict {
        let by_table = match self.access.recipient(recipient, now) {
            Some(found) => {
                let rules = (&rule::RECIPIENT_REFUSED, &rule::RECIPIENT_LATER);
                settle(&found, rules, &format!("<{recipient}>"))
            }
            None => Verdict::Accept,
        };
        self.recipients(client, sender, now).and_then(|| match by_table {
            no @ (Verdict::Refuse(_) | Verdict::HangUp(_)) => no,
            // What we would not take is not thrown away for anybody either.
            yes => self.routed(client, recipient, judged(), now).and_then(|| yes),
        })
    }

    fn recipients(&self, client: &Client, sender: &ReversePath, now: Instant) -> Verdict {
        if self.is_ours(client) {
            return Verdict::Accept;
        }
        let counts = &self.counts;
        if client.login.is_none() && !counts.recipients.allows(counted(client), now) {
            too_many(&rule::RECIPIENTS, "recipients")
        } else if !counts.recipients_per_login.allows(client.login.clone(), now) {
            too_many(&rule::RECIPIENTS_OF_LOGIN, "recipients")
        } else if !counts.recipients_per_sender.allows(key(sender), now) {
            too_many(&rule::RECIPIENTS_OF_SENDER, "recipients")
        } else {
            Verdict::Accept
        }
    }

    /// What follows from the router's answer.
    fn routed(&self, client: &Client, recipient: &Mailbox, judged: Judgement, now: Instant) -> Verdict {
        let why = match judged {
            Judgement::Open => return Verdict::Accept,
            Judgement::ClientsOnly | Judgement::Unsent if self.may_relay(client) => return Verdict::Accept,
            Judgement::ClientsOnly => {
                let text = format!("<{recipient}>: Relay access denied: not a domain of this server");
                return Verdict::Refuse(rule::RELAYING.reply(text));
            }
            Judgement::Unsent => {
                let text = format!("<{recipient}>: this bounce answers nothing that was sent from here");
                return Verdict::Refuse(rule::UNSIGNED_BOUNCE.reply(text));
            }
            Judgement::No(why) => why,
        };
        let rule = match (why.status.class, why.status.subject) {
            (4, _) => &rule::LOOK_UP,
            // RFC 3463 3.2: the address itself is at fault.
            (_, 1) => &rule::NO_RECIPIENT,
            _ => &rule::NO_ROUTE,
        };
        let is_unknown = *rule == rule::NO_RECIPIENT && !self.may_relay(client);
        if is_unknown && !self.counts.unknown_recipients.allows(counted(client), now) {
            let text = "too many recipients that do not exist; put your list right and try again later";
            return Verdict::HangUp(rule::UNKNOWN_RECIPIENTS.reply(text));
        }
        let text = format!("<{recipient}>: {}", why.text);
        Verdict::Refuse(Reply::new(rule.code, Some(why.status), text).under(rule))
    }
}

/// What a row of a table means; `rules` are for what is refused and for what is put off. The log names
/// the row.
fn settle(found: &Finding, rules: (&Rule, &Rule), subject: &str) -> Verdict {
    let (rule, word, text) = match found.action {
        Action::Accept | Action::Relay => return Verdict::Accept,
        Action::Discard => return Verdict::Discard(found.row.clone()),
        Action::Refuse => (rules.0, "refused", "refused by a rule of this server"),
        Action::Later => (rules.1, "put off", "not now; try again later"),
    };
    log::info!("{subject} {word} by {}", found.row);
    let text = if found.text.is_empty() { text } else { &found.text };
    Verdict::Refuse(rule.reply(format!("{subject}: {text}")))
}

fn too_many(rule: &Rule, what: &str) -> Verdict {
    Verdict::Refuse(rule.reply(format!("too many {what} in a minute; try again later")))
}

/// What a sender is counted as. Null senders are of everybody, and are not counted.
fn key(sender: &ReversePath) -> Option<String> {
    sender.mailbox().map(|mailbox| mailbox.to_string().to_ascii_lowercase())
}

/// A client, in a reply.
fn subject(client: &Client) -> String {
    client.address.map_or_else(|| "client".to_string(), |address| format!("[{address}]"))
}

/// Fingerprints, however they are written.
fn is_same(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.replace(':', "").to_ascii_lowercase();
    digits(one) == digits(other)
}

#[cfg(test)]
mod tests {
    use crate::mail::status::Status;

    use crate::config::Network;

    use crate::route::NoRoute;

    use super::super::access::Places;

    use super::*;

    fn policy() -> Policy {
        let ours = Network { address: "10.0.0.0".parse().unwrap(), bits: 8 };
        Policy::new(Rules {
            relay_from: Networks::new(&[ours]),
            limits: Limits { connections: 1, messages: 2, recipients: 3, ..Limits::default() },
            ..Rules::default()
        })
    }

    fn client(address: &str) -> Client {
        Client { address: Some(address.parse().unwrap()), ..Client::default() }
    }

    fn code(verdict: &Verdict) -> u16 {
        match verdict {
            Verdict::Accept | Verdict::Discard(_) => 250,
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => reply.code,
        }
    }

    fn sender(policy: &Policy, client: &Client, now: Instant) -> Verdict {
        policy.sender(client, "client.example", &ReversePath::Null, now)
    }

    fn recipient(policy: &Policy, client: &Client, judged: Judgement) -> u16 {
        let to = Mailbox::parse("x@y.example", false).unwrap();
        code(&policy.recipient(client, &ReversePath::Null, &to, || judged, Instant::now()))
    }

    #[test]
    fn strangers_are_limited_and_ours_are_not() {
        let (policy, now) = (policy(), Instant::now());
        let (stranger, ours) = (client("192.0.2.1"), client("10.1.2.3"));
        let connect = |who: &Client| code(&policy.connection(who, now));
        assert_eq!((connect(&stranger), connect(&stranger)), (250, 421));
        assert!((0..9).all(|_| connect(&ours) == 250));
        let sends: Vec<u16> = (0..3).map(|_| code(&sender(&policy, &stranger, now))).collect();
        assert_eq!(sends, [250, 250, 450]);
        let asks: Vec<u16> = (0..4).map(|_| recipient(&policy, &stranger, Judgement::Open)).collect();
        assert_eq!(asks, [250, 250, 250, 450]);
    }

    #[test]
    fn relaying_is_for_our_clients() {
        let policy = policy();
        assert_eq!(recipient(&policy, &client("10.9.9.9"), Judgement::ClientsOnly), 250);
        assert_eq!(recipient(&policy, &client("::ffff:10.9.9.9"), Judgement::ClientsOnly), 250);
        assert_eq!(recipient(&policy, &client("192.0.2.1"), Judgement::ClientsOnly), 554);
        let nobody = Client::default();
        assert_eq!(recipient(&policy, &nobody, Judgement::ClientsOnly), 554);
        assert_eq!(recipient(&policy, &nobody, Judgement::Open), 250);
    }

    #[test]
    fn submission_wants_to_know_who_it_is() {
        let (policy, now) = (policy(), Instant::now());
        let submission = |address: &str| Client { submission: true, ..client(address) };
        assert_eq!(code(&sender(&policy, &submission("192.0.2.1"), now)), 530);
        assert_eq!(code(&sender(&policy, &submission("10.1.1.1"), now)), 250);
        let login = Some("alice@example.org".to_string());
        assert_eq!(code(&sender(&policy, &Client { login, ..submission("192.0.2.1") }, now)), 250);
    }

    #[test]
    fn the_router_s_no_becomes_a_reply() {
        let policy = policy();
        let no = |class, subject, detail| {
            let status = Status::new(class, subject, detail);
            let judged = Judgement::No(NoRoute { status, text: "because".to_string() });
            recipient(&policy, &client("10.0.0.1"), judged)
        };
        assert_eq!((no(5, 1, 1), no(4, 3, 0), no(5, 4, 6)), (550, 451, 554));
    }

    /// A judge with these tables, of kinds and texts.
    fn with_tables(tables: &[(&str, &str)]) -> (tempfile::TempDir, Policy) {
        let folder = tempfile::tempdir().unwrap();
        let mut places = Places::default();
        for (kind, text) in tables {
            let path = folder.path().join(kind);
            std::fs::write(&path, text).unwrap();
            match *kind {
                "clients" => places.clients = Some(path),
                "helo" => places.helo = Some(path),
                "senders" => places.senders = Some(path),
                _ => places.recipients = Some(path),
            }
        }
        let access = Access::load(&places).unwrap();
        let helo = Checks { hostname: "mx.example".into(), refuse_own_name: true, refuse_bad_names: false };
        (folder, Policy::new(Rules { access, helo, ..Rules::default() }))
    }

    fn path(text: &str) -> ReversePath {
        ReversePath::parse(text.trim_matches(['<', '>']), false).unwrap()
    }

    fn line(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Accept => "accept".to_string(),
            Verdict::Discard(row) => format!("discard by line {}", row.line),
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => format!("{} {}", reply.code, reply.lines[0]),
        }
    }

    #[test]
    fn the_clients_table_lets_in_and_keeps_out() {
        let text =
            "192.0.2.1 refuse go away\n192.0.2.2 later\n192.0.2.3 relay\n192.0.2.4 discard\n192.0.2.5 accept";
        let (_folder, policy) = with_tables(&[("clients", text)]);
        let now = Instant::now();
        let connect = |who: &str| line(&policy.connection(&client(who), now));
        assert_eq!(connect("192.0.2.1"), "554 [192.0.2.1]: go away [P0201]");
        assert_eq!(connect("192.0.2.2"), "421 [192.0.2.2]: not now; try again later [P0202]");
        let user = Client { submission: true, ..client("192.0.2.1") };
        assert_eq!(line(&policy.connection(&user, now)), "accept", "users come from anywhere");
        assert!(policy.may_relay(&client("192.0.2.3")) && !policy.may_relay(&client("192.0.2.5")));
        assert_eq!(connect("192.0.2.4"), "accept");
        let mail = |who: &str| line(&policy.sender(&client(who), "mx.example", &ReversePath::Null, now));
        assert_eq!(mail("192.0.2.4"), "discard by line 4");
        assert_eq!(mail("192.0.2.5"), "accept", "its name is not looked at");
        assert_eq!(mail("192.0.2.6"), "550 mx.example: that is our own name [P0205]");
        assert!(policy.may_keep_waiting(&client("192.0.2.6"), now));
        assert!(!policy.may_keep_waiting(&client("192.0.2.5"), now));
    }

    #[test]
    fn names_and_senders_are_looked_up_for_strangers_only() {
        let tables = [
            ("helo", "ylmf-pc refuse\nmx.example accept"),
            ("senders", "bad@ later slowly\nspam.example discard"),
        ];
        let (_folder, policy) = with_tables(&tables);
        let now = Instant::now();
        let stranger = client("192.0.2.1");
        let mail = |who: &Client, helo: &str, from: &str| line(&policy.sender(who, helo, &path(from), now));
        assert_eq!(
            mail(&stranger, "ylmf-PC", "<a@b.example>"),
            "550 ylmf-PC: refused by a rule of this server [P0203]"
        );
        assert_eq!(mail(&stranger, "mx.example", "<a@b.example>"), "accept");
        assert_eq!(mail(&stranger, "h", "<Bad@b.example>"), "450 <Bad@b.example>: slowly [P0302]");
        assert_eq!(mail(&stranger, "h", "<x@spam.example>"), "discard by line 2");
        let login = Client { login: Some("alice".into()), ..stranger };
        assert_eq!(mail(&login, "ylmf-pc", "<bad@b.example>"), "accept");
    }

    #[test]
    fn the_recipients_table_opens_no_relay() {
        let (_folder, policy) = with_tables(&[("recipients", "gone@ refuse\n* discard")]);
        let ask = |client: &Client, to: &str, judged: Judgement| {
            let to = Mailbox::parse(to, false).unwrap();
            line(&policy.recipient(client, &ReversePath::Null, &to, || judged, Instant::now()))
        };
        let stranger = client("192.0.2.1");
        assert!(ask(&stranger, "gone@x.example", Judgement::Open).starts_with("550 <gone@x.example>: "));
        assert_eq!(ask(&stranger, "a@x.example", Judgement::Open), "discard by line 2");
        assert!(ask(&stranger, "a@y.example", Judgement::ClientsOnly).starts_with("554 "));
    }

    #[test]
    fn a_certificate_gives_the_right_to_relay() {
        let known = "AB:cd:01".to_string();
        let policy = Policy::new(Rules { relay_fingerprints: vec![known], ..Rules::default() });
        let with = |shown: &str| Client { fingerprint: Some(shown.to_string()), ..client("192.0.2.1") };
        assert!(policy.may_relay(&with("abcd01")) && policy.may_relay(&with("AB:CD:01")));
        assert!(!policy.may_relay(&with("abcd02")) && !policy.may_relay(&client("192.0.2.1")));
    }

    #[test]
    fn senders_and_logins_have_their_own_limits() {
        let limits = Limits {
            messages_per_sender: 1,
            messages_per_login: 2,
            unknown_recipients: 2,
            ..Limits::default()
        };
        let policy = Policy::new(Rules { limits, ..Rules::default() });
        let now = Instant::now();
        let mail = |who: &Client, from: &str| code(&policy.sender(who, "h", &path(from), now));
        let (one, two) = (client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!((mail(&one, "<a@x.example>"), mail(&two, "<A@x.example>")), (250, 450));
        assert_eq!((mail(&one, "<>"), mail(&one, "<>")), (250, 250));
        let login = Client { login: Some("alice".into()), ..one.clone() };
        let said: Vec<u16> =
            ["<b@x.example>", "<c@x.example>", "<d@x.example>"].map(|from| mail(&login, from)).to_vec();
        assert_eq!(said, [250, 250, 450]);
        let unknown = || {
            let no = NoRoute { status: Status::new(5, 1, 1), text: "no such user".into() };
            recipient(&policy, &one, Judgement::No(no))
        };
        assert_eq!((unknown(), unknown(), unknown()), (550, 550, 421));
    }
}
