//! The steps of an answer in words that a postmaster reads.

use crate::courier::request::{Leaf, Owner, Place, Target};

use crate::config::{DomainFate, DomainRule, Users};

use super::alias::Member;

/// A rule, as it is written in posta.toml.
pub(super) fn rule_in_words(rule: &DomainRule) -> String {
    let words = match &rule.fate {
        DomainFate::Users { users: Users::System, .. } => "users = \"system\"".to_string(),
        DomainFate::Users { users: Users::File(path), .. } => format!("users = \"{}\"", path.display()),
        DomainFate::Users { users: Users::Any, .. } => "users = \"*\"".to_string(),
        DomainFate::Lmtp(hop) => format!("lmtp = \"{hop}\""),
        DomainFate::RelayMx => "relay = \"mx\"".to_string(),
        DomainFate::RelayTo(hop) => format!("relay = \"{hop}\""),
    };
    let whom = if rule.clients_only { ", for clients that may relay" } else { "" };
    format!("\"{}\" is {words}{whom}", rule.domain)
}

/// The members of an alias, as many as fit a line.
pub(super) fn list(members: &[Member]) -> String {
    const MOST: usize = 10;
    let mut words: Vec<String> = members.iter().take(MOST).map(member_in_words).collect();
    if members.len() > MOST {
        words.push(format!("and {} more", members.len() - MOST));
    }
    words.join(", ")
}

fn member_in_words(member: &Member) -> String {
    match member {
        Member::Address(address) => address.clone(),
        Member::Account(name) => format!("\\{name}"),
        Member::Command(command) => format!("|{command}"),
        Member::File(path) => path.clone(),
        Member::Include(path) => format!(":include:{}", path.display()),
    }
}

/// Where a leaf goes.
pub(super) fn destination(leaf: &Leaf) -> String {
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
