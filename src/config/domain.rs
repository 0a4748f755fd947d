//! `[domains]`: from the words of an entry to what becomes of mail.

use std::path::PathBuf;

use crate::mail::address::parse_domain;
use crate::mail::limit::Limit;

use crate::courier::request::Hop;

use super::file::{Entry, Reading, inline};
use super::kind::wanted;
use super::nearest::{did_you_mean, quoted};
use super::table::Words;
use super::{DomainFate, DomainRule, SourceAddresses, Users};

/// Ports of a hop that names none: SMTP (RFC 5321 4.5.4.2), LMTP (as is the custom; RFC 2033 5
/// forbids 25).
const SMTP_PORT: u16 = 25;
const LMTP_PORT: u16 = 24;

/// Reads all of `[domains]`, in the order of the file.
pub(super) fn read(entry: &mut Entry<'_, '_>) -> Vec<DomainRule> {
    let mut rules: Vec<DomainRule> = Vec::new();
    for (name, place, value) in entry.all() {
        let domain = match domain_name(name) {
            Ok(domain) => domain,
            Err(what) => {
                entry.reading.fault(place.start, what);
                continue;
            }
        };
        let Some(table) = value.get_ref().as_table() else {
            let what = wanted("a table such as { users = \"system\" }", value.get_ref());
            entry.reading.fault(value.span().start, what);
            continue;
        };
        let faults = entry.reading.count();
        let mut found = entry.entry_of(&domain, table);
        let words = Words::read(&mut found);
        let reading = found.finish();
        let meant = fate(&words).and_then(|fate| rule(&domain, fate, &words));
        let again = rules.iter().any(|rule| rule.domain == domain);
        match meant {
            _ if again => {
                let what = format!("domain {} is named twice (in another case, or with a dot)", quoted(name));
                reading.fault(place.start, what);
            }
            Ok(rule) => rules.push(rule),
            // A word that could not be read may be the one that is missing.
            Err(fault) if fault.0.is_none() && reading.count() > faults => (),
            Err(fault) => {
                let (key, what) = *fault;
                match key {
                    Some(key) => {
                        reading.fault_of(&format!("domains.{domain}.{key}"), format!("{key}: {what}"))
                    }
                    None => reading.fault(place.start, what),
                }
            }
        }
    }
    rules
}

/// What is done without `[domains]`: this host's own mail goes to its accounts.
pub(super) fn complete(rules: &mut Vec<DomainRule>, hostname: &str) {
    if rules.is_empty() {
        let system = || DomainFate::Users { users: Users::System, mailbox: None, owner: None };
        rules.push(DomainRule::new(hostname, system()));
        if hostname != "localhost" {
            rules.push(DomainRule::new("localhost", system()));
        }
    }
    if !rules.iter().any(|rule| rule.domain == "*") {
        rules.push(DomainRule::new("*", DomainFate::RelayMx));
    }
    rules.sort_by_key(|rule| rule.domain == "*");
}

fn domain_name(name: &str) -> Result<String, String> {
    if name == "*" {
        return Ok(name.to_string());
    }
    // `.example.org`: every domain below it.
    let (dot, rest) = name.strip_prefix('.').map_or(("", name), |rest| (".", rest));
    match parse_domain(rest) {
        Ok(domain) if dot.is_empty() || !domain.starts_with('[') => Ok(format!("{dot}{domain}")),
        Ok(_) => Err(format!("{} is no domain: nothing lies below an address", quoted(name))),
        Err(why) => Err(format!("{} is no domain: {why}", quoted(name))),
    }
}

/// Reads the entry of a domain as a table has it: the words that would stand between the braces in
/// `[domains]`, or with the braces.
pub fn domain_rule(domain: &str, words: &str) -> Result<DomainRule, String> {
    let words = words.trim();
    let inner = words.strip_prefix('{').and_then(|words| words.strip_suffix('}')).unwrap_or(words);
    let text = format!("{} = {{ {inner} }}", quoted(domain));
    let path = std::path::Path::new("");
    let mut reading = Reading::new(path, &text);
    let rules = inline(&mut reading, &text, read);
    match reading.faults(&[]).into_iter().next() {
        Some(fault) => Err(fault.what),
        None => rules.into_iter().next().ok_or_else(|| "no entry of a domain".to_string()),
    }
}

/// What is wrong with an entry, and with which of its words.
type Wrong = Box<(Option<&'static str>, String)>;

fn wrong(key: impl Into<Option<&'static str>>, what: impl Into<String>) -> Wrong {
    Box::new((key.into(), what.into()))
}

/// Exactly one of `users`, `lmtp` and `relay` says where mail goes.
fn fate(words: &Words) -> Result<DomainFate, Wrong> {
    let Words { users, lmtp, relay, .. } = words;
    match (users.as_str(), lmtp.as_str(), relay.as_str()) {
        (users, "", "") if !users.is_empty() => Ok(DomainFate::Users {
            users: self::users(users)?,
            mailbox: words.mailbox.clone(),
            owner: Some(words.owner.clone()).filter(|owner| !owner.is_empty()),
        }),
        ("", lmtp, "") if !lmtp.is_empty() => hop("lmtp", lmtp, LMTP_PORT).map(DomainFate::Lmtp),
        ("", "", "mx") => Ok(DomainFate::RelayMx),
        ("", "", relay) if !relay.is_empty() => match hop("relay", relay, SMTP_PORT)? {
            Hop::Unix(_) => Err(wrong("relay", "a Unix socket is for lmtp, not for relay")),
            hop => Ok(DomainFate::RelayTo(hop)),
        },
        ("", "", "") => Err(wrong(None, "users, lmtp or relay must say where mail for this domain goes")),
        _ => Err(wrong(None, "only one of users, lmtp and relay can say where mail for this domain goes")),
    }
}

fn users(word: &str) -> Result<Users, Wrong> {
    match word {
        "system" => Ok(Users::System),
        "*" => Ok(Users::Any),
        "virtual" => Ok(Users::Virtual),
        path if path.starts_with('/') => Ok(Users::File(PathBuf::from(path))),
        _ => {
            let hint = did_you_mean(word, ["system", "virtual"]).unwrap_or_else(|| {
                "; it is \"system\", \"virtual\", \"*\" or the path of a users file".into()
            });
            Err(wrong("users", format!("unknown value {}{hint}", quoted(word))))
        }
    }
}

fn hop(key: &'static str, text: &str, port: u16) -> Result<Hop, Wrong> {
    Hop::parse(text, port).ok_or_else(|| {
        let mx = if key == "relay" { "\"mx\", " } else { "" };
        wrong(key, format!("{} is not {mx}host:port, [address]:port or unix:/path", quoted(text)))
    })
}

/// What its Maildirs may hold, if anything is said of it.
fn limit(words: &Words) -> Option<Limit> {
    let limit = Limit { bytes: words.quota.unwrap_or_default(), messages: words.quota_messages };
    limit.is_set().then_some(limit)
}

/// The rule, if its words don't contradict each other.
fn rule(domain: &str, fate: DomainFate, words: &Words) -> Result<DomainRule, Wrong> {
    let everybody = domain == "*";
    match &fate {
        DomainFate::Users { .. } if everybody => {
            return Err(wrong("users", "\"*\" stands for all other domains; they can't have mailboxes here"));
        }
        DomainFate::Users { users: Users::Virtual, mailbox, owner }
            if mailbox.is_some() || owner.is_some() || limit(words).is_some() =>
        {
            return Err(wrong("users", "\"virtual\" has no mailboxes: its addresses lead elsewhere"));
        }
        DomainFate::Users { users: Users::Any, mailbox: None, .. } => {
            return Err(wrong("users", "\"*\" needs a mailbox, since its users have none of their own"));
        }
        DomainFate::Users { users: Users::Any, mailbox: Some(mailbox), owner: None }
            if mailbox.starts_with("~/") =>
        {
            return Err(wrong("mailbox", "\"~\" needs an owner, since users = \"*\" have no home"));
        }
        DomainFate::Users { .. } => {
            let sources = words.source != SourceAddresses::default();
            if words.tls.is_some() || words.login.is_some() || sources || words.messages_per_minute > 0 {
                let what = "tls, login, source and messages_per_minute are words of a relay; here are users";
                return Err(wrong(None, what));
            }
        }
        DomainFate::RelayMx if words.login.is_some() => {
            return Err(wrong(
                "login",
                "a password is for a relay that is named, not for whoever the DNS names",
            ));
        }
        _ => {
            if words.mailbox.is_some() || !words.owner.is_empty() || limit(words).is_some() {
                let what = "mailbox, owner, quota and quota_messages are words of a domain with users";
                return Err(wrong(None, what));
            }
        }
    }
    Ok(DomainRule {
        clients_only: words.accept || everybody,
        tls: words.tls,
        login: words.login.clone(),
        source: words.source,
        messages_per_minute: words.messages_per_minute,
        limit: limit(words),
        ..DomainRule::new(domain, fate)
    })
}
