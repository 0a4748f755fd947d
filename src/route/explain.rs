//! The steps of an answer in words that a postmaster reads.

use crate::courier::request::{Leaf, Owner, Place, Target};

use crate::config::{DomainFate, DomainRule, Users};

use super::Step;
use super::search::Hit;
use super::table::Row;

impl Step {
    /// A step that no table has a part in.
    pub(super) fn of(what: String) -> Step {
        Step { what, table: None, line: None, key: None }
    }

    /// A step that a row of a table leads to. `what` says it in words, with the place.
    pub(super) fn at(row: &Row, key: &str, what: String) -> Step {
        Step { what, table: Some(row.table.to_string()), line: row.line, key: Some(key.to_string()) }
    }

    /// A step that a table has for an address.
    pub(super) fn found(hit: &Hit, what: String) -> Step {
        Step::at(&hit.row, &hit.key, format!("{}: {what}", hit.row))
    }
}

/// A rule, as it is written in posta.toml.
pub(super) fn rule_in_words(rule: &DomainRule) -> String {
    let words = match &rule.fate {
        DomainFate::Users { users: Users::System, .. } => "users = \"system\"".to_string(),
        DomainFate::Users { users: Users::File(path), .. } => format!("users = \"{}\"", path.display()),
        DomainFate::Users { users: Users::Virtual, .. } => "users = \"virtual\"".to_string(),
        DomainFate::Users { users: Users::Any, .. } => "users = \"*\"".to_string(),
        DomainFate::Lmtp(hop) => format!("lmtp = \"{hop}\""),
        DomainFate::RelayMx => "relay = \"mx\"".to_string(),
        DomainFate::RelayTo(hop) => format!("relay = \"{hop}\""),
    };
    let whom = if rule.clients_only { ", for clients that may relay" } else { "" };
    format!("\"{}\" is {words}{whom}", rule.domain)
}

/// A value, or as much of it as fits a line.
pub(super) fn shortened(value: &str) -> String {
    const MOST: usize = 200;
    if value.len() <= MOST {
        return value.to_string();
    }
    format!("{}… ({} bytes)", &value[..value.floor_char_boundary(MOST)], value.len())
}

/// Where a leaf goes, and who sends it if that isn't the message's sender.
pub(super) fn destination(leaf: &Leaf) -> String {
    let place = place_of(leaf);
    match &leaf.sender {
        Some(sender) => format!("{place}, with the sender {sender}"),
        None => place,
    }
}

fn place_of(leaf: &Leaf) -> String {
    match &leaf.target {
        Target::Mx(domain) => format!("is sent to the mail exchangers of {domain}"),
        Target::Smtp(hop) => format!("is sent to {hop} by SMTP"),
        Target::Lmtp(hop) => format!("is handed to {hop} by LMTP"),
        Target::Local(owner) => {
            let place = leaf.place.as_ref().map_or_else(|| "nowhere".to_string(), place_in_words);
            match owner {
                Owner::Account(name) => format!("is delivered as user {name} {place}"),
                Owner::Ids(uid, gid, _) => format!("is delivered as uid {uid}, gid {gid} {place}"),
            }
        }
    }
}

fn place_in_words(place: &Place) -> String {
    match place {
        Place::Maildir(path) => format!("into the Maildir {path}"),
        Place::Mbox(path) => format!("into the mbox {path}"),
        Place::Command(command) => format!("to the command {command}"),
        Place::Home(within) => {
            format!("as the user's .forward says, or without one {}", place_in_words(within))
        }
    }
}
