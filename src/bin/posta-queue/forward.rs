//! What users' `.forward` files say, as posta-local reports it (`courier::forward`).
//!
//! Places become targets of the same message, tried at once and remembered in its journal like an
//! alias's. Addresses get a message of their own: a copy whose header says `Delivered-To`, so that a
//! loop over any number of hosts is seen where it comes round. The recipient is done once that
//! message is committed; a crash before this is noted may send it again, and loses nothing.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{Envelope, Notify, Origin, Recipient};
use posta::mail::id::Id;
use posta::mail::status::Status;
use posta::mail::trace;

use posta::courier::forward::Forward;
use posta::courier::request::{Leaf, Place, Target as Where};

use posta::spool::{Draft, Entry, SpoolError};

use crate::bounce::Bouncer;
use crate::clerk::End;
use crate::expansion::Expansion;
use crate::message::{Message, News, Target};
use crate::runner::{NOTE_AFTER, Runner, date, now};

/// Bytes of a message copied at once.
const BLOCK: usize = 64 * 1024;

/// A copy that is to be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onward {
    /// The target that is done with it.
    pub n: u32,
    /// That target's address.
    pub from: Mailbox,
    /// Who sends the copy: whoever is told of the target's end.
    pub sender: ReversePath,
    /// To whom, with the wishes of the recipient that it comes from.
    pub to: Vec<Recipient>,
    /// It is a copy of a list: ENVID and RET of the poster do not go along.
    pub of_list: bool,
    /// The sender is told that it went to several, and of no more successes.
    pub is_expanded: bool,
}

impl Message {
    /// Takes up what the owner of target `n` wants. Gives what there is to be heard of the target
    /// now; `None` while a copy is to be sent on first.
    pub fn redirect(&mut self, n: u32, forward: Forward, heard: News) -> Option<News> {
        let ends = |place: &Place| !matches!(place, Place::Home(_));
        let home = self.home(n).filter(|_| forward.places.iter().all(ends));
        let Some((recipient, leaf, named)) = home else {
            return Some(News::ours(Status::new(4, 3, 0), "the delivery program forwards what is no home's"));
        };
        let goes_to = forward.addresses.len() + forward.places.len();
        for place in forward.places {
            let leaf = Leaf { place: Some(place), ..(*leaf).clone() };
            if !self.targets.iter().any(|target| *target.leaf == leaf) {
                self.came.push(self.targets.len() as u32);
                let limit = self.targets[n as usize].limit;
                self.add(Target { limit, ..Target::new(recipient, leaf) });
            }
        }
        // Another address of the same home may have sent it there already.
        let fresh = |address: &Mailbox| {
            let same_home = |other: &Leaf| (&other.target, &other.place) == (&leaf.target, &leaf.place);
            let pending =
                self.onward.iter().filter(|onward| same_home(&self.targets[onward.n as usize].leaf));
            !pending.flat_map(|onward| &onward.to).any(|to| to.address == *address)
        };
        let is_expanded =
            named.notify.success && self.entry.envelope.sender != ReversePath::Null && goes_to > 1;
        let notify = Notify { success: named.notify.success && !is_expanded, ..named.notify };
        let to = |address| Recipient { address, notify, ..named.clone() };
        let to: Vec<Recipient> = forward.addresses.into_iter().filter(fresh).map(to).collect();
        if to.is_empty() {
            return Some(heard);
        }
        let (sender, of_list) = (self.sender_of(n), leaf.of_list);
        self.onward.push(Onward { n, from: leaf.address.clone(), sender, to, of_list, is_expanded });
        None
    }

    /// A target that is a user's home, the envelope's recipient that it comes from, and its wishes.
    fn home(&self, n: u32) -> Option<(u32, Arc<Leaf>, Recipient)> {
        let target = self.targets.get(n as usize)?;
        let wishes = self.wishes(target, &self.expanded());
        let is_home =
            matches!((&target.leaf.target, &target.leaf.place), (Where::Local(_), Some(Place::Home(_))));
        is_home.then(|| (target.recipient, target.leaf.clone(), wishes))
    }

    /// Copies that are still to be sent on. What was given up in the meantime is not.
    pub fn take_stock_of_onward(&mut self) -> bool {
        let targets = &self.targets;
        self.onward.retain(|onward| targets.get(onward.n as usize).is_some_and(|t| !t.is_final()));
        !self.onward.is_empty()
    }
}

impl Runner {
    /// Before a message is settled: sends on what is to be sent on, and tries the places that came
    /// to it. Whether it is to be settled later.
    pub(crate) fn goes_on(&mut self, id: Id) -> bool {
        let Some(message) = self.messages.get_mut(&id) else { return false };
        if message.take_stock_of_onward() {
            message.settle = true;
            self.file(id, Vec::new(), Vec::new(), End::Stay);
            return true;
        }
        // What a stop would leave behind is in the journal, and tried first after the next start.
        if self.terminating || !message.has_untried() {
            return false;
        }
        let now = now();
        self.admit_what_came(id, now);
        let busy = self.messages.get(&id).is_some_and(|message| message.jobs > 0);
        if busy {
            self.unnoted.push_back((now + NOTE_AFTER, id));
        }
        busy
    }

    /// Tries the places that came to an open message.
    pub(crate) fn admit_what_came(&mut self, id: Id, now: u64) {
        let Some(message) = self.messages.get_mut(&id).filter(|message| !message.came.is_empty()) else {
            return;
        };
        let (parts, alone) = (message.parts_that_came(), message.strikes > 0);
        self.admit_parts(id, parts, alone, now);
    }

    /// Copies were committed under these ids: their targets are done.
    pub(crate) fn sent_on(&mut self, id: Id, sent: &[(u32, Id)]) {
        let now = now();
        let Some(message) = self.messages.get_mut(&id) else { return };
        for (n, copy) in sent {
            let is_expanded = message.onward.iter().any(|onward| onward.n == *n && onward.is_expanded);
            message.onward.retain(|onward| onward.n != *n);
            let news = News::ours(Status::new(2, 0, 0), format!("forwarded as {copy}"));
            let relay = if is_expanded { Expansion::Alias.word() } else { "local" };
            message.hear(*n, News { relay: relay.into(), passed_on: !is_expanded, ..news }, now);
        }
        let targets: Vec<u32> = sent.iter().map(|(n, _)| *n).collect();
        self.log_targets(id, &targets, now);
    }
}

/// Makes a copy of `entry` that goes on, and commits it; gives its queue id. The sender stays whoever
/// he was (RFC 5321 3.9.1), be it a list's owner, and so do his wishes (RFC 3461 5.2.7).
pub fn send_on(office: &Bouncer, entry: &Entry, onward: &Onward, now: u64) -> Result<Id, SpoolError> {
    let mut draft = Draft::begin(&office.spool)?;
    let own_id = draft.id();
    draft.push(trace::delivered_to(&onward.from).as_bytes())?;
    draft.push(&entry.envelope.trace)?;
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < entry.size {
        let length = (entry.size - at).min(BLOCK as u64) as usize;
        let piece = &mut block[..length];
        let named = |source| SpoolError::Io { path: entry.id.to_string(), source };
        entry.file.read_exact_at(piece, at).map_err(named)?;
        draft.push(piece)?;
        at += length as u64;
    }
    let envelope = Envelope {
        sender: onward.sender.clone(),
        recipients: onward.to.clone(),
        origin: match entry.envelope.origin {
            Origin::DoubleBounce => Origin::DoubleBounce,
            _ => Origin::Posta,
        },
        arrived: now,
        ret: entry.envelope.ret.filter(|_| !onward.of_list),
        envid: entry.envelope.envid.clone().filter(|_| !onward.of_list),
        utf8: entry.envelope.utf8 || onward.to.iter().any(|to| to.address.needs_utf8()),
        trace: trace::made_here(&office.hostname, own_id, &date(now)).into_bytes(),
        ..entry.envelope.clone()
    };
    Ok(office.committer.commit(draft, &envelope)?.id())
}

#[cfg(test)]
mod tests {
    use posta::courier::request::Owner;

    use crate::message::tests::sample;
    use crate::stage::Stage;

    use super::*;

    fn home(message: &mut Message) {
        for target in &mut message.targets {
            Arc::make_mut(&mut target.leaf).place =
                Some(Place::Home(Box::new(Place::Maildir("~/Maildir/".into()))));
        }
    }

    fn forward(addresses: &[&str], places: &[&str]) -> Forward {
        Forward {
            addresses: addresses.iter().map(|a| Mailbox::parse(a, false).unwrap()).collect(),
            places: places.iter().map(|p| Place::Maildir(p.to_string())).collect(),
        }
    }

    fn heard() -> News {
        News::ours(Status::new(2, 0, 0), "forwarded")
    }

    #[test]
    fn places_become_targets_and_addresses_wait_to_be_sent_on() {
        let mut message = sample("s@x", &[("alice@local", "NEVER")]);
        home(&mut message);
        let said = message.redirect(0, forward(&["b@two"], &["~/Maildir/", "/srv/box/"]), heard());
        assert_eq!(said, None);
        assert_eq!(message.targets.len(), 3);
        let added = &message.targets[1];
        assert_eq!(added.leaf.target, Where::Local(Owner::Account("alice".into())));
        assert_eq!(
            (added.recipient, added.leaf.place.clone()),
            (0, Some(Place::Maildir("~/Maildir/".into())))
        );
        assert!(message.take_stock_of_onward());
        assert_eq!(message.onward[0].from.to_string(), "alice@local");
        assert!(!message.onward[0].to[0].notify.wants_failure());
        // The same again, after a crash between the two: nothing is put into a mailbox twice.
        message.redirect(0, forward(&[], &["/srv/box/"]), heard());
        assert_eq!(message.targets.len(), 3);
        message.hear(0, heard(), 5);
        assert!(!message.take_stock_of_onward());
    }

    #[test]
    fn two_addresses_of_one_home_send_one_copy_on() {
        let mut message = sample("s@x", &[("alice@local", ""), ("alice+x@local", "")]);
        home(&mut message);
        message.targets[1].leaf = Arc::new(Leaf {
            target: message.targets[0].leaf.target.clone(),
            ..(*message.targets[1].leaf).clone()
        });
        assert_eq!(message.redirect(0, forward(&["b@two"], &[]), heard()), None);
        assert_eq!(message.redirect(1, forward(&["b@two"], &[]), heard()), Some(heard()));
        assert_eq!(message.redirect(1, forward(&["c@two"], &[]), heard()), None);
        assert_eq!(message.onward.len(), 2);
    }

    #[test]
    fn a_list_s_copy_goes_on_from_the_list_s_owner() {
        let stage = Stage::new();
        let (events, _heard) = std::sync::mpsc::channel();
        let _runner = stage.runner(&events);
        let mut message = sample("s@x", &[("alice@local", "")]);
        home(&mut message);
        message.entry.file.write_all_at(&[b'x'; 10], 0).unwrap();
        Arc::make_mut(&mut message.targets[0].leaf).sender = Mailbox::parse("owner-list@x", false).ok();
        assert_eq!(message.redirect(0, forward(&["b@two"], &[]), heard()), None);
        let copy = send_on(&stage.bouncer(), &message.entry, &message.onward[0], 5).unwrap();
        let sent = stage.spool.open(copy, posta::spool::Place::New).unwrap();
        assert_eq!(sent.envelope.sender.to_string(), "owner-list@x");
    }

    #[test]
    fn what_is_no_home_forwards_nothing() {
        let mut message = sample("s@x", &[("alice@local", "")]);
        let said = message.redirect(0, forward(&["b@two"], &["/srv/"]), heard()).unwrap();
        assert_eq!((said.status.class, message.targets.len(), message.onward.len()), (4, 1, 0));
    }

    #[test]
    fn places_alone_end_the_home_at_once() {
        let mut message = sample("s@x", &[("alice@local", "")]);
        home(&mut message);
        assert_eq!(message.redirect(0, forward(&[], &["/srv/"]), heard()), Some(heard()));
        message.hear(0, heard(), 5);
        assert!(!message.is_done() && message.has_untried());
        assert_eq!(message.parts_that_came()[0].targets, [1]);
        assert!(message.parts_that_came().is_empty());
    }
}
