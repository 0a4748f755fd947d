//! What posta-smtpd would say to a client: for `why`, by the same code.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};

use posta::unix::sysexits;

use posta::mail::address::{Mailbox, ReversePath};

use posta::smtp::reply::Reply;

use posta::config::Config;

use posta::policy::access::Finding;
use posta::policy::chain::{Client, Policy, Rules};
use posta::policy::verdict::Verdict;
use posta::route::Router;

use crate::Refusal;

/// Who asks posta-smtpd, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub address: IpAddr,
    pub sender: &'a ReversePath,
    pub recipient: &'a Mailbox,
}

/// The answer.
#[derive(Debug)]
pub struct Trace {
    /// The rows of access tables that speak of it.
    rows: Vec<Finding>,
    may_relay: bool,
    /// A row asks for the client's name, which is not looked up here.
    wants_name: bool,
    /// The first no, and to which command; none: it is taken.
    refused: Option<(&'static str, Reply)>,
    /// Taken and thrown away: the row that says so.
    discarded: Option<String>,
}

/// Asks as a session would, command by command. Rates are not counted: nobody has come yet.
pub fn trace(asker: Asker<'_>, config: &Config, router: &Router) -> Result<Trace, Refusal> {
    let rules = Rules::of(config).map_err(|error| Refusal(sysexits::CONFIG, error.to_string()))?;
    let policy = Policy::new(rules);
    let client = Client { address: Some(asker.address), ..Client::default() };
    let (helo, now) = (literal(asker.address), Instant::now());
    let Asker { sender, recipient, .. } = asker;
    let questions: [(&str, &dyn Fn() -> Verdict); 3] = [
        ("CONNECT", &|| policy.connection(&client, now)),
        ("MAIL", &|| policy.sender(&client, &helo, sender, now)),
        ("RCPT", &|| {
            policy.recipient(&client, sender, recipient, || router.judge_from(sender, recipient), now)
        }),
    ];
    let mut trace = Trace {
        rows: policy.findings(&client, &helo, sender, recipient, now),
        may_relay: policy.may_relay(&client),
        wants_name: policy.asks_for_names(now),
        refused: None,
        discarded: None,
    };
    for (command, ask) in questions {
        match ask() {
            Verdict::Accept => {}
            Verdict::Discard(row) => trace.discarded = Some(row.to_string()),
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => {
                trace.refused = Some((command, reply));
                break;
            }
        }
    }
    Ok(trace)
}

/// A client that calls itself by its address (RFC 5321 4.1.3): a name that no check refuses.
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

impl Trace {
    /// In one line.
    pub fn taken(&self, ip: IpAddr) -> String {
        match (&self.refused, &self.discarded) {
            (Some((command, reply)), _) => {
                format!("not taken from {ip} without a login: at {command}, {}", words(reply))
            }
            (None, Some(row)) => format!("taken from {ip} and thrown away, by {row}"),
            (None, None) if self.may_relay => format!("taken from {ip}, which may relay"),
            (None, None) => format!("taken from {ip}"),
        }
    }

    /// What led there, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.rows.iter().map(|found| format!("{}: {}", found.row, found.action.word())).collect();
        if self.wants_name {
            lines.push(
                "a row of the clients table asks for the client's name, which is not looked up here".into(),
            );
        }
        lines
    }

    /// For programs.
    pub fn object(&self) -> Value {
        let row = |found: &Finding| {
            json!({
                "table": found.row.file.display().to_string(),
                "kind": found.row.kind.to_string(),
                "line": found.row.line,
                "action": found.action.word(),
            })
        };
        json!({
            "taken": self.refused.is_none(),
            "may_relay": self.may_relay,
            "at": self.refused.as_ref().map(|(command, _)| *command),
            "reply": self.refused.as_ref().map(|(_, reply)| words(reply)),
            "discarded_by": self.discarded,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// A reply in one line.
fn words(reply: &Reply) -> String {
    let text = reply.lines.join(" ");
    match reply.status {
        Some(status) => format!("{} {status} {text}", reply.code),
        None => format!("{} {text}", reply.code),
    }
}
