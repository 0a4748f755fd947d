//! The order of judgements about a client, a sender, a recipient.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::mail::address::Mailbox;

use crate::smtp::reply::Reply;
use crate::smtp::rule;

use crate::net::seats::client_of;
use crate::route::Judgement;

use super::access::Networks;
use super::rate::Rate;
use super::verdict::Verdict;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; none for a Unix socket or a pipe.
    pub address: Option<IpAddr>,
    /// It came to a port where users hand their mail in (RFC 6409).
    pub submission: bool,
    /// Who logged in (RFC 4954).
    pub login: Option<String>,
    /// SHA-256 of the certificate that it has shown and has the key of, in hexadecimal.
    pub fingerprint: Option<String>,
}

/// The rules, as the administrator set them.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Who may relay. These clients are never limited.
    pub relay_from: Networks,
    /// Per client and minute; 0 is no limit.
    pub connections_per_minute: u32,
    /// Per client and minute; 0 is no limit.
    pub messages_per_minute: u32,
    /// Per client and minute; 0 is no limit.
    pub recipients_per_minute: u32,
}

/// The judge, shared by all sessions.
#[derive(Debug)]
pub struct Policy {
    relay_from: Networks,
    connections: Mutex<Rate>,
    messages: Mutex<Rate>,
    recipients: Mutex<Rate>,
}

impl Policy {
    /// A judge who has seen nobody yet.
    pub fn new(rules: Rules) -> Policy {
        Policy {
            relay_from: rules.relay_from,
            connections: Mutex::new(Rate::new(rules.connections_per_minute)),
            messages: Mutex::new(Rate::new(rules.messages_per_minute)),
            recipients: Mutex::new(Rate::new(rules.recipients_per_minute)),
        }
    }

    /// Whether this client may send to any address.
    pub fn may_relay(&self, client: &Client) -> bool {
        client.login.is_some() || self.relay_from.contain(client.address)
    }

    /// May this client talk to us at all?
    pub fn connection(&self, client: &Client, now: Instant) -> Verdict {
        if self.within(&self.connections, client, now) {
            return Verdict::Accept;
        }
        Verdict::HangUp(rule::CONNECTIONS.reply("too many connections in a minute; try again later"))
    }

    /// May this client begin a message?
    pub fn sender(&self, client: &Client, now: Instant) -> Verdict {
        // RFC 6409 4.3: who hands mail in shows who he is.
        if client.submission && !self.may_relay(client) {
            return Verdict::Refuse(rule::AUTH_WANTED.reply("authentication required"));
        }
        if self.within(&self.messages, client, now) {
            return Verdict::Accept;
        }
        Verdict::Refuse(rule::MESSAGES.reply("too many messages in a minute; try again later"))
    }

    /// May mail go to this recipient, of whom the router says `judged`? The router is asked only if
    /// the client has not asked too often: who tries names out is slowed down.
    pub fn recipient(
        &self,
        client: &Client,
        recipient: &Mailbox,
        judged: impl FnOnce() -> Judgement,
        now: Instant,
    ) -> Verdict {
        if !self.within(&self.recipients, client, now) {
            let text = "too many recipients in a minute; try again later";
            return Verdict::Refuse(rule::RECIPIENTS.reply(text));
        }
        match judged() {
            Judgement::Open => Verdict::Accept,
            Judgement::ClientsOnly if self.may_relay(client) => Verdict::Accept,
            Judgement::ClientsOnly => {
                let text = format!("<{recipient}>: relaying denied: not a domain of this server");
                Verdict::Refuse(rule::RELAYING.reply(text))
            }
            Judgement::No(why) => {
                let rule = match (why.status.class, why.status.subject) {
                    (4, _) => &rule::LOOK_UP,
                    // RFC 3463 3.2: the address itself is at fault.
                    (_, 1) => &rule::NO_RECIPIENT,
                    _ => &rule::NO_ROUTE,
                };
                let text = format!("<{recipient}>: {}", why.text);
                Verdict::Refuse(Reply::new(rule.code, Some(why.status), text).under(rule))
            }
        }
    }

    fn within(&self, rate: &Mutex<Rate>, client: &Client, now: Instant) -> bool {
        let Some(address) = client.address else { return true };
        if self.may_relay(client) {
            return true;
        }
        rate.lock().unwrap_or_else(PoisonError::into_inner).allow(client_of(address), now)
    }
}

#[cfg(test)]
mod tests {
    use crate::mail::status::Status;

    use crate::config::Network;

    use crate::route::NoRoute;

    use super::*;

    fn policy() -> Policy {
        let ours = Network { address: "10.0.0.0".parse().unwrap(), bits: 8 };
        Policy::new(Rules {
            relay_from: Networks::new(&[ours]),
            connections_per_minute: 1,
            messages_per_minute: 2,
            recipients_per_minute: 3,
        })
    }

    fn client(address: &str) -> Client {
        Client { address: Some(address.parse().unwrap()), ..Client::default() }
    }

    fn code(verdict: &Verdict) -> u16 {
        match verdict {
            Verdict::Accept => 250,
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => reply.code,
        }
    }

    fn recipient(policy: &Policy, client: &Client, judged: Judgement) -> u16 {
        let to = Mailbox::parse("x@y.example", false).unwrap();
        code(&policy.recipient(client, &to, || judged, Instant::now()))
    }

    #[test]
    fn strangers_are_limited_and_ours_are_not() {
        let (policy, now) = (policy(), Instant::now());
        let (stranger, ours) = (client("192.0.2.1"), client("10.1.2.3"));
        let connect = |who: &Client| code(&policy.connection(who, now));
        assert_eq!((connect(&stranger), connect(&stranger)), (250, 421));
        assert!((0..9).all(|_| connect(&ours) == 250));
        let sends: Vec<u16> = (0..3).map(|_| code(&policy.sender(&stranger, now))).collect();
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
        assert_eq!(code(&policy.sender(&submission("192.0.2.1"), now)), 530);
        assert_eq!(code(&policy.sender(&submission("10.1.1.1"), now)), 250);
        let login = Some("alice@example.org".to_string());
        assert_eq!(code(&policy.sender(&Client { login, ..submission("192.0.2.1") }, now)), 250);
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
}
