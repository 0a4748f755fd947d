//! What is told of an address that leads to others (RFC 3461 5.2.7).
//!
//! An alias with one address hands the sender's wishes on. One with several tells the sender, if he wants
//! to know of a success, that it was expanded; the copies then ask for no more successes. A mailing list,
//! which is an alias with an owner, is the end of the poster's message: it is "delivered" to the list,
//! and the copies, which the owner sends, carry no wish of the poster's.
//!
//! So that it is told once, and a restart knows of it, the news is a target of its own: one that is done
//! as soon as it is there, by a relay that no host has the name of.

use std::collections::HashSet;

use posta::mail::address::ReversePath;
use posta::mail::envelope::{Notify, Recipient};
use posta::mail::report::Action;
use posta::mail::status::{Fate, Status};

use crate::message::{Message, News, Target};

/// What an address was that led to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expansion {
    /// An alias.
    Alias,
    /// A mailing list: it has an owner.
    List,
}

impl Expansion {
    /// Its name, where the log and the journal have the relay.
    pub fn word(self) -> &'static str {
        match self {
            Expansion::Alias => "alias",
            Expansion::List => "list",
        }
    }

    /// What a report calls it (RFC 3461 5.2.7.1 and 5.2.7.3).
    pub fn action(self) -> Action {
        match self {
            Expansion::Alias => Action::Expanded,
            Expansion::List => Action::Delivered,
        }
    }
}

impl Target {
    /// Whether it tells the sender of an expansion, and of which kind.
    pub fn expansion(&self) -> Option<Expansion> {
        let news = self.news.as_ref().filter(|news| news.status.fate() == Fate::Done)?;
        [Expansion::Alias, Expansion::List].into_iter().find(|expansion| news.relay == expansion.word())
    }
}

impl Message {
    /// An address of the envelope leads to the targets from `first` on: notes it, if the sender is to
    /// be told.
    pub fn note_expansion(&mut self, recipient: u32, first: usize, now: u64) {
        let Some(named) = self.entry.envelope.recipients.get(recipient as usize) else { return };
        if !named.notify.success || self.entry.envelope.sender == ReversePath::Null {
            return;
        }
        let copies = &self.targets[first..];
        let expansion = match copies.len() {
            _ if copies.iter().all(|copy| copy.leaf.of_list) => Expansion::List,
            1 => return,
            _ => Expansion::Alias,
        };
        let text = format!("sent on to {} addresses", copies.len());
        let news = News { relay: expansion.word().into(), ..News::ours(Status::new(2, 0, 0), text) };
        crate::ingest::settle(self, recipient, news, now);
    }

    /// The recipients of which the sender is told that they were expanded.
    pub fn expanded(&self) -> HashSet<u32> {
        if !self.entry.envelope.recipients.iter().any(|named| named.notify.success) {
            return HashSet::new();
        }
        let told = self.targets.iter().filter(|target| target.expansion().is_some());
        told.map(|target| target.recipient).collect()
    }

    /// What is wished for the copy of a target, under its recipient's name: nothing of a list's, no
    /// success where the sender hears of the expansion (`expanded`).
    pub fn wishes(&self, target: &Target, expanded: &HashSet<u32>) -> Recipient {
        let named = self.entry.envelope.recipients.get(target.recipient as usize);
        match named.filter(|_| !target.leaf.of_list) {
            None => Recipient::plain(target.leaf.address.clone()),
            Some(named) if target.expansion().is_none() && expanded.contains(&target.recipient) => {
                Recipient { notify: Notify { success: false, ..named.notify }, ..named.clone() }
            }
            Some(named) => named.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use posta::mail::address::Mailbox;

    use crate::message::tests::sample;

    use super::*;

    /// A message for a list or an alias with these members, which wants to hear of everything.
    fn expanded_to(members: &[&str], of_list: bool) -> Message {
        let mut message = sample("s@x", &[("staff@one", "SUCCESS,FAILURE")]);
        let named = message.targets.remove(0).leaf;
        for member in members {
            let address = Mailbox::parse(member, false).unwrap();
            message.add(Target::new(0, crate::message::tests::leaf_of(address, &named, of_list)));
        }
        message.note_expansion(0, 0, 5);
        message
    }

    fn notify_of(message: &Message, n: usize) -> Notify {
        message.wishes(&message.targets[n], &message.expanded()).notify
    }

    #[test]
    fn an_alias_for_one_hands_wishes_on() {
        let message = expanded_to(&["a@two"], false);
        assert_eq!(message.targets.len(), 1);
        assert!(notify_of(&message, 0).success);
    }

    #[test]
    fn an_alias_for_several_is_expanded_and_its_copies_ask_for_failures_only() {
        let message = expanded_to(&["a@two", "b@two"], false);
        assert_eq!(message.targets[2].expansion(), Some(Expansion::Alias));
        assert!(notify_of(&message, 2).success);
        assert_eq!(notify_of(&message, 0).keyword().as_deref(), Some("FAILURE"));
        // A restart knows it.
        let mut again = Message::fresh(message.entry.clone(), message.place);
        let mut message = message;
        again.recall(&message.take_unsaved());
        assert_eq!(notify_of(&again, 1).keyword().as_deref(), Some("FAILURE"));
    }

    #[test]
    fn copies_of_a_list_carry_no_wish_of_the_poster() {
        for members in [&["a@two"][..], &["a@two", "b@two"]] {
            let message = expanded_to(members, true);
            assert_eq!(message.targets[members.len()].expansion(), Some(Expansion::List));
            assert_eq!(notify_of(&message, 0), Notify::default());
        }
    }
}
