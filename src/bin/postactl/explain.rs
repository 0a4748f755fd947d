//! `why`: where an address leads, step by step.

use std::net::IpAddr;

use serde_json::{Value, json};

use posta::unix::sysexits;

use posta::mail::address::{Mailbox, ReversePath};

use posta::courier::request::{Hop, Leaf, Owner, Place, Target};

use posta::config::{Config, DomainFate, DomainRule, RelayTls};

use posta::route::{Judgement, NoRoute, Router, Settings, Step, with_parents};

use crate::Refusal;
use crate::client::{self, Asker, Trace};

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    address: String,
    from: Option<String>,
    client: Option<IpAddr>,
    json: bool,
}

/// Prints the steps and the end of the way; exit code 0 if there is one.
pub fn why(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let question = read(words)?;
    let router = router(config);
    let address = mailbox(&question.address, &router)?;
    let from = question.from.as_deref().unwrap_or_default();
    let from =
        ReversePath::parse(from, true).map_err(|why| Refusal::usage(format!("--from {from}: {why}")))?;
    let asker = question.client.map(|ip| Asker { address: ip, sender: &from, recipient: &address });
    let trace = asker.map(|asker| client::trace(asker, config, &router)).transpose()?;
    let taken = match (&trace, question.client) {
        (Some(trace), Some(ip)) => trace.taken(ip),
        _ => acceptance(router.judge(&address)),
    };
    let (steps, end) = router.explain(&address, &from);
    let ways: Vec<_> = end.iter().flatten().map(|leaf| tls(leaf, config, &router)).collect();
    if question.json {
        let mut object = object(&address, &taken, &steps, &end, &ways);
        object["client"] = trace.as_ref().map(Trace::object).unwrap_or_default();
        println!("{object}");
    } else {
        trace.iter().flat_map(Trace::lines).for_each(|line| println!("{line}"));
        println!("{taken}");
        steps.iter().for_each(|step| println!("{}", step.what));
        match &end {
            Ok(leaves) => leaves.iter().zip(&ways).for_each(|(leaf, tls)| {
                println!("-> {}{}", destination(leaf), tls.map(said).unwrap_or_default());
            }),
            Err(none) => println!("-> nowhere: {none}"),
        }
    }
    Ok(match end {
        Ok(_) => sysexits::OK,
        Err(none) if none.is_temporary() => sysexits::TEMPFAIL,
        Err(_) => sysexits::DATA,
    })
}

/// The same for programs.
fn object(
    address: &Mailbox,
    taken: &str,
    steps: &[Step],
    end: &Result<Vec<Leaf>, NoRoute>,
    ways: &[Option<RelayTls>],
) -> Value {
    let step =
        |step: &Step| json!({ "what": step.what, "table": step.table, "line": step.line, "key": step.key });
    let ways = ways.iter().map(|tls| tls.map(RelayTls::word));
    let leads_to: Vec<String> = end.iter().flatten().map(destination).collect();
    json!({
        "address": address.to_string(),
        "taken": taken,
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
        "leads_to": leads_to,
        "tls": ways.collect::<Vec<_>>(),
        "error": end.as_ref().err().map(ToString::to_string),
    })
}

/// A router of what the configuration says.
pub fn router(config: &Config) -> Router {
    Router::new(Settings::of(config))
}

fn read(words: &[String]) -> Result<Question, Refusal> {
    let mut question = Question { address: String::new(), from: None, client: None, json: false };
    let mut words = words.iter();
    let wants = || Refusal::usage("why takes [--json] [--from ADDRESS] [--client IP] ADDRESS");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => question.json = true,
            "--from" => question.from = Some(words.next().ok_or_else(wants)?.clone()),
            "--client" => {
                let text = words.next().ok_or_else(wants)?;
                let ip =
                    text.parse().map_err(|_| Refusal::usage(format!("--client {text}: no IP address")))?;
                question.client = Some(ip);
            }
            address if question.address.is_empty() && !address.starts_with("--") => {
                question.address = address.to_string();
            }
            _ => return Err(wants()),
        }
    }
    if question.address.is_empty() { Err(wants()) } else { Ok(question) }
}

fn mailbox(address: &str, router: &Router) -> Result<Mailbox, Refusal> {
    if !address.contains('@')
        && let Some(mailbox) = router.qualify(address)
    {
        return Ok(mailbox);
    }
    Mailbox::parse(address, true).map_err(|why| Refusal::usage(format!("\"{address}\": {why}")))
}

/// What posta-smtpd would say to RCPT, whoever the client is.
fn acceptance(judgement: Judgement) -> String {
    match judgement {
        Judgement::Open => "taken from anybody".into(),
        Judgement::ClientsOnly => {
            "taken only from clients that may relay (smtpd.relay_from, or a login)".into()
        }
        Judgement::Unsent => {
            "taken only from clients that may relay: nothing was sent that this could be a bounce of".into()
        }
        Judgement::No(no) => format!("not taken: {no}"),
    }
}

/// What is asked of the way to a target, as posta-remote asks it; none for mailboxes of this host and
/// for sockets of it.
fn tls(leaf: &Leaf, config: &Config, router: &Router) -> Option<RelayTls> {
    let of_domain = |name: &str| {
        let mut rules = config.domains.iter();
        rules.find(|rule| rule.domain == name && rule.fate == DomainFate::RelayMx)
    };
    let of_hop = |hop: &Hop| {
        let is_its = |rule: &&DomainRule| matches!(&rule.fate, DomainFate::RelayTo(its) | DomainFate::Lmtp(its) if its == hop);
        config.domains.iter().find(is_its)
    };
    let entry = match &leaf.target {
        Target::Local(_) | Target::Lmtp(Hop::Unix(_)) => return None,
        Target::Mx(domain) => with_parents(domain).find_map(of_domain),
        Target::Smtp(hop) | Target::Lmtp(hop) => of_hop(hop),
    };
    // A row that can't be looked up now has been reported as a step, or will be when mail goes there.
    let row = router.relaying(leaf).ok().flatten().and_then(|said| said.terms.tls);
    let entry = entry.or_else(|| of_domain("*")).and_then(|rule| rule.tls);
    Some(row.or(entry).unwrap_or(config.remote.tls))
}

fn said(tls: RelayTls) -> &'static str {
    match tls {
        RelayTls::None => ", without TLS",
        RelayTls::May => ", under TLS if it can",
        RelayTls::Encrypt => ", under TLS only",
        RelayTls::Verify => ", under TLS only and with a good certificate",
    }
}

fn destination(leaf: &Leaf) -> String {
    let place = leaf.place.as_ref().map(place).unwrap_or_default();
    let target = match &leaf.target {
        Target::Local(Owner::Account(name)) => format!("{place}, as user {name}"),
        Target::Local(Owner::Ids(uid, gid, _)) => format!("{place}, as user id {uid}, group id {gid}"),
        Target::Mx(domain) => format!("the mail exchangers of {domain}"),
        Target::Smtp(hop) => format!("{hop} by SMTP"),
        Target::Lmtp(hop) => format!("{hop} by LMTP"),
    };
    match &leaf.sender {
        Some(sender) => format!("{}: {target}, from {sender}", leaf.address),
        None => format!("{}: {target}", leaf.address),
    }
}

fn place(place: &Place) -> String {
    match place {
        Place::Maildir(path) => format!("Maildir {path}"),
        Place::Mbox(path) => format!("mbox {path}"),
        Place::Command(command) => format!("command {command}"),
        Place::Home(within) => format!("the owner's .forward, or else {}", self::place(within)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Question> {
        read(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn the_question_is_read_in_any_order() {
        let full = words(&["--json", "--from", "a@x", "b@y", "--client", "192.0.2.1"]).unwrap();
        assert!(full.json && !words(&["b@y"]).unwrap().json);
        assert_eq!((full.address.as_str(), full.from.as_deref()), ("b@y", Some("a@x")));
        assert_eq!(full.client, Some([192, 0, 2, 1].into()));
        assert_eq!(words(&["b@y"]).unwrap().client, None);
        for bad in
            [&[][..], &["--from", "a@x"], &["b@y", "c@z"], &["--client", "x", "b@y"], &["b@y", "--from"]]
        {
            assert_eq!(words(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_destination_is_said_in_words() {
        let leaf = Leaf {
            address: Mailbox::parse("a@x", false).unwrap(),
            target: Target::Local(Owner::Account("alice".into())),
            place: Some(Place::Home(Box::new(Place::Maildir("~/Maildir/".into())))),
            sender: None,
            of_list: false,
        };
        assert_eq!(
            destination(&leaf),
            "a@x: the owner's .forward, or else Maildir ~/Maildir/, as user alice"
        );
    }
}
