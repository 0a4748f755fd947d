//! A message of the working set: its recipients' final destinations, and what became of each.

use std::collections::HashMap;
use std::sync::Arc;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::limit::Limit;
use posta::mail::status::{Fate, Status};

use posta::courier::report::Outcome;
use posta::courier::request::{Leaf, MAX_RECIPIENTS};

use posta::route::{NoRoute, Relaying};
use posta::spool::{Entry, Place, Record};

use crate::destination::{hash, of_target};
use crate::forward::Onward;
use crate::rate::spacing;
use crate::schedule::Part;
use crate::wishes::Granted;

/// What was said of a target, last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Enhanced status code; its class is the fate.
    pub status: Status,
    /// Who said it.
    pub relay: String,
    /// What was said.
    pub text: String,
    /// It is a remote server's reply.
    pub said: bool,
    /// DSN wishes went along.
    pub passed_on: bool,
    /// What the history says of it besides: how the way was protected, and the session that was kept.
    pub aside: String,
}

impl News {
    /// Our own words.
    pub fn ours(status: Status, text: impl Into<String>) -> News {
        let (relay, aside) = (String::new(), String::new());
        News { status, relay, text: text.into(), said: false, passed_on: false, aside }
    }
}

impl From<Outcome> for News {
    fn from(o: Outcome) -> News {
        let mut aside = String::new();
        if !o.tls.is_empty() {
            aside = format!(", tls={}", o.tls);
        }
        if let Some(session) = o.session {
            aside += &format!(", session={session}");
        }
        News { status: o.status, relay: o.relay, text: o.text, said: o.said, passed_on: o.passed_on, aside }
    }
}

/// One final destination of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index of the envelope's recipient.
    pub recipient: u32,
    /// Where it goes. Shared with the journal's record until a clerk has written that: a list may have
    /// a hundred thousand members.
    pub leaf: Arc<Leaf>,
    /// What the row of a table says of the way there. As the table says now: it is in no journal.
    pub relaying: Option<Arc<Relaying>>,
    /// What the mailbox may hold, where it is not as for all; as the users file says now.
    pub limit: Option<Limit>,
    /// The tables can't say these now: it is not tried.
    pub astray: bool,
    /// Nothing yet, or what was said last.
    pub news: Option<News>,
    /// The sender has been told of its end, or is not to be.
    pub reported: bool,
}

impl Target {
    /// A target that nothing is known of yet.
    pub fn new(recipient: u32, leaf: impl Into<Arc<Leaf>>) -> Target {
        Target {
            recipient,
            leaf: leaf.into(),
            relaying: None,
            limit: None,
            astray: false,
            news: None,
            reported: false,
        }
    }

    /// Delivered or given up: not to be tried any more.
    pub fn is_final(&self) -> bool {
        self.fate().is_some_and(|fate| fate != Fate::Later)
    }

    /// What became of it, if anything.
    pub fn fate(&self) -> Option<Fate> {
        self.news.as_ref().map(|news| news.status.fate())
    }
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The opened queue file.
    pub entry: Arc<Entry>,
    /// Where it lies.
    pub place: Place,
    /// Its final destinations.
    pub targets: Vec<Target>,
    /// Recipients that could not be resolved, and why: to be asked for again.
    pub unresolved: Vec<(u32, NoRoute)>,
    /// Attempts that have ended.
    pub attempts: u32,
    /// Hands that died while they held it.
    pub strikes: u32,
    /// One of them in this attempt.
    pub struck: bool,
    /// The sender was told of the delay.
    pub warned: bool,
    /// What the journal lacks.
    pub unsaved: Vec<Record>,
    /// The expansion is not in the journal yet.
    pub unsaved_from: usize,
    /// Jobs queued or under way.
    pub jobs: usize,
    /// A clerk has it in hand.
    pub filing: bool,
    /// It is to be settled as soon as the clerk has given it back.
    pub settle: bool,
    /// Copies that are to be sent on, as users' `.forward` files want it.
    pub onward: Vec<Onward>,
    /// Targets that came to it in this attempt and are in no job yet.
    pub came: Vec<u32>,
    /// The administrator's order that a clerk carries out just now.
    pub granted: Option<Granted>,
}

/// What targets that go together have in common: destination, sender, terms, and whether they are a list's.
type Company<'m> = (String, Option<&'m Mailbox>, Option<&'m Relaying>, bool);

impl Message {
    /// A message without a journal.
    pub fn fresh(entry: Arc<Entry>, place: Place) -> Message {
        Message {
            entry,
            place,
            targets: Vec::new(),
            unresolved: Vec::new(),
            attempts: 0,
            strikes: 0,
            struck: false,
            warned: false,
            unsaved: Vec::new(),
            unsaved_from: 0,
            jobs: 0,
            filing: false,
            settle: false,
            onward: Vec::new(),
            came: Vec::new(),
            granted: None,
        }
    }

    /// Takes up what a journal says. Targets count only when the mark that ends their expansion
    /// follows; results of targets that are not there are passed over.
    pub fn recall(&mut self, records: &[Record]) {
        let mut pending = Vec::new();
        for record in records {
            match record {
                Record::Target { n, recipient, leaf } => {
                    // What was torn off before its end mark has come again.
                    pending.truncate((*n as usize).saturating_sub(self.targets.len()));
                    pending.push(Target::new(*recipient, Arc::clone(leaf)));
                }
                Record::Expanded => self.targets.append(&mut pending),
                Record::Done { n, relay, text, passed_on, .. } => {
                    let ours = News::ours(Status::new(2, 0, 0), text);
                    self.set(*n, News { relay: relay.clone(), passed_on: *passed_on, ..ours });
                }
                Record::Later { n, status, relay, text, said, .. }
                | Record::Never { n, status, relay, text, said, .. } => {
                    let ours = News::ours(*status, text);
                    self.set(*n, News { relay: relay.clone(), said: *said, ..ours });
                }
                Record::Reported { n, .. } => {
                    if let Some(target) = self.targets.get_mut(*n as usize) {
                        target.reported = true;
                    }
                }
                Record::Warned { .. } => self.warned = true,
                Record::Strike { .. } => self.strikes += 1,
                Record::Released { .. } => self.strikes = 0,
                Record::Attempt { count, .. } => self.attempts = *count,
                Record::Head { .. } | Record::Held { .. } => {}
            }
        }
        self.unsaved_from = self.targets.len();
    }

    fn set(&mut self, n: u32, news: News) {
        if let Some(target) = self.targets.get_mut(n as usize) {
            target.news = Some(news);
        }
    }

    /// Who sends the copy for target `n`, and is told of its end: the message's sender, unless a list
    /// or a forwarder has put another in its place.
    pub fn sender_of(&self, n: u32) -> ReversePath {
        let own = self.targets.get(n as usize).and_then(|target| target.leaf.sender.clone());
        own.map_or_else(|| self.entry.envelope.sender.clone(), ReversePath::Mailbox)
    }

    /// Recipients of the envelope that have no target yet.
    pub fn unexpanded(&self) -> Vec<u32> {
        let count = self.entry.envelope.recipients.len() as u32;
        let mut known = vec![false; count as usize];
        for target in &self.targets {
            if let Some(known) = known.get_mut(target.recipient as usize) {
                *known = true;
            }
        }
        (0..count).filter(|n| !known[*n as usize]).collect()
    }

    /// Adds a target. Whoever adds it has seen that no other goes where it goes.
    pub fn add(&mut self, target: Target) {
        self.targets.push(target);
    }

    /// What is to be tried, as parts of one destination on the same terms, one sender and at most 100
    /// recipients each. A list's copies are apart from others, since they go out without the poster's
    /// wishes.
    pub fn parts(&self) -> Vec<Part> {
        self.parts_of(|_, target| !target.is_final() && !target.astray)
    }

    /// Of these what came to the message in this attempt and is in no job yet. From now on it is.
    pub fn parts_that_came(&mut self) -> Vec<Part> {
        let came = std::mem::take(&mut self.came);
        self.parts_of(|n, target| target.news.is_none() && came.contains(&n))
    }

    /// Whether there is a target that was never tried.
    pub fn has_untried(&self) -> bool {
        self.targets.iter().any(|target| target.news.is_none())
    }

    fn parts_of(&self, wanted: impl Fn(u32, &Target) -> bool) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut open: HashMap<Company<'_>, usize> = HashMap::new();
        for (n, target) in (0..).zip(&self.targets).filter(|(n, t)| wanted(*n, t)) {
            let (hand, destination) = of_target(&target.leaf.target);
            let relaying = target.relaying.as_deref();
            let together = (destination, target.leaf.sender.as_ref(), relaying, target.leaf.of_list);
            let at = open.get(&together).copied().filter(|at| parts[*at].targets.len() < MAX_RECIPIENTS);
            match at {
                Some(at) => parts[at].targets.push(n),
                None => {
                    let destination = together.0.clone();
                    open.insert(together, parts.len());
                    let spacing = relaying.and_then(|relaying| spacing(relaying.messages_per_minute));
                    parts.push(Part { hand, destination, targets: vec![n], spacing });
                }
            }
        }
        parts
    }

    /// The hash of the destination that it waits for; 0 if it waits for several, or can't say.
    pub fn waits_for(&self) -> u32 {
        let mut open = self.targets.iter().filter(|t| !t.is_final()).map(|t| of_target(&t.leaf.target).1);
        let Some(first) = open.next() else { return 0 };
        let is_only = self.unresolved.is_empty() && open.all(|other| other == first);
        if is_only { hash(&first) } else { 0 }
    }

    /// Whether every recipient has come to its end.
    pub fn is_done(&self) -> bool {
        self.unresolved.is_empty() && self.targets.iter().all(Target::is_final)
    }

    /// Takes up what was said of target `n` and notes it for the journal.
    pub fn hear(&mut self, n: u32, news: News, at: u64) {
        let News { status, relay, text, said, passed_on, .. } = news.clone();
        self.unsaved.push(match status.fate() {
            Fate::Done => Record::Done { n, at, relay, text, passed_on },
            Fate::Later => Record::Later { n, at, status, relay, text, said },
            Fate::Never => Record::Never { n, at, status, relay, text, said },
        });
        self.set(n, news);
    }

    /// Of records that could not be filed only those stay that are true all the same: no notice is
    /// noted that was not committed (`untold` were not, the last ones), nor a hold that is none.
    pub fn keep_true(&mut self, records: &mut Vec<Record>, untold: usize) {
        if untold > 0 && records.iter().any(|record| matches!(record, Record::Warned { .. })) {
            self.warned = false;
        }
        let is_reported = |n: u32| self.targets.get(n as usize).is_some_and(|target| target.reported);
        records.retain(|record| match record {
            Record::Reported { n, .. } => is_reported(*n),
            Record::Warned { .. } => untold == 0,
            Record::Held { .. } => false,
            _ => true,
        });
    }

    /// Everything that the journal lacks, the expansion first. They are saved once the clerk says so.
    pub fn take_unsaved(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for (n, target) in self.targets.iter().enumerate().skip(self.unsaved_from) {
            let (n, recipient, leaf) = (n as u32, target.recipient, Arc::clone(&target.leaf));
            records.push(Record::Target { n, recipient, leaf });
        }
        if !records.is_empty() {
            records.push(Record::Expanded);
        }
        self.unsaved_from = self.targets.len();
        records.append(&mut self.unsaved);
        records
    }
}

#[cfg(test)]
pub mod tests {
    use posta::mail::envelope::{BodyKind, Envelope, Notify, Origin, Recipient};
    use posta::mail::id::Id;

    use posta::courier::request::{Owner, Target as Where};
    use posta::courier::terms::Terms;

    use crate::turns::Job;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text, false).unwrap()
    }

    /// A message from `sender` for these recipients, each going to its domain, except `local` ones.
    pub fn sample(sender: &str, recipients: &[(&str, &str)]) -> Message {
        let named = |(address, notify): &(&str, &str)| Recipient {
            address: mailbox(address),
            notify: Notify::parse(notify).unwrap_or_default(),
            original: None,
        };
        let envelope = Envelope {
            sender: ReversePath::parse(sender, false).unwrap(),
            ret: None,
            envid: None,
            recipients: recipients.iter().map(named).collect(),
            origin: Origin::Posta,
            arrived: 1_795_550_000_000_000,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            trace: b"Received: by x\r\n".to_vec(),
        };
        let file = Arc::new(tempfile::tempfile().unwrap());
        let id = Id::parse("0123456789ABCDE").unwrap();
        let entry =
            Arc::new(Entry { id, file, envelope, size: 10, inode: 1, crc: 2, message_id: String::new() });
        let mut message = Message::fresh(entry, Place::New);
        for (n, (address, _)) in (0..).zip(recipients) {
            let address = mailbox(address);
            let target = if address.domain() == "local" {
                Where::Local(Owner::Account(address.local().to_string()))
            } else {
                Where::Mx(address.domain().to_string())
            };
            message.add(Target::new(n, Leaf { address, target, place: None, sender: None, of_list: false }));
        }
        message
    }

    /// A copy for `address` that goes where `other` goes.
    pub fn leaf_of(address: Mailbox, other: &Leaf, of_list: bool) -> Leaf {
        Leaf { address, of_list, ..other.clone() }
    }

    #[test]
    fn what_goes_on_other_terms_goes_in_another_job_and_what_nobody_knows_in_none() {
        let all = ["a@one", "b@one", "c@one", "d@one"].map(|address| (address, ""));
        let mut message = sample("s@x", &all);
        let relaying = |name: &str| {
            let terms = Terms { login: Some(name.into()), ..Terms::default() };
            Some(Arc::new(Relaying { terms, messages_per_minute: 6 }))
        };
        message.targets[0].relaying = relaying("/a");
        message.targets[2].relaying = relaying("/a");
        message.targets[3].astray = true;
        let parts = message.parts();
        let targets: Vec<_> = parts.iter().map(|part| (part.targets.as_slice(), part.spacing)).collect();
        assert_eq!(targets, [(&[0, 2][..], Some(10_000_000)), (&[1][..], None)]);
    }

    #[test]
    fn what_is_noted_is_recalled() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", ""), ("c@two", "")]);
        message.hear(0, News::ours(Status::new(2, 0, 0), "ok"), 5);
        message.hear(1, News::ours(Status::new(4, 4, 1), "refused"), 6);
        message.unsaved.push(Record::Strike { at: 7 });
        message.unsaved.push(Record::Attempt { at: 7, count: 4 });
        let records = message.take_unsaved();
        // However long a list is, its addresses are in memory once.
        assert!(
            matches!(&records[2], Record::Target { leaf, .. } if Arc::ptr_eq(leaf, &message.targets[2].leaf))
        );
        assert!(message.take_unsaved().is_empty());
        let mut recalled = Message::fresh(message.entry.clone(), Place::Cur);
        recalled.recall(&records);
        assert_eq!(recalled.targets, message.targets);
        assert_eq!((recalled.attempts, recalled.strikes), (4, 1));
        assert!(recalled.unexpanded().is_empty());
        assert_eq!(recalled.outstanding(), ["b@two", "c@two"]);
        assert_eq!(recalled.reason(), "refused");
    }

    #[test]
    fn an_expansion_without_its_end_does_not_count() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", "")]);
        let mut records = message.take_unsaved();
        assert_eq!(records.pop(), Some(Record::Expanded));
        let mut recalled = Message::fresh(message.entry.clone(), Place::Cur);
        recalled.recall(&records);
        assert_eq!(recalled.unexpanded(), [0, 1]);
    }

    #[test]
    fn a_later_expansion_that_was_torn_off_is_forgotten_when_it_comes_again() {
        let mut message = sample("s@x", &[("a@local", "")]);
        let mut records = message.take_unsaved();
        let came = |message: &mut Message| {
            let target = message.targets[0].clone();
            message.add(Target::new(0, target.leaf.clone()));
            message.add(Target::new(0, target.leaf));
        };
        came(&mut message);
        let again = message.take_unsaved();
        records.extend_from_slice(&again[..1]);
        records.extend_from_slice(&again);
        let mut recalled = Message::fresh(message.entry.clone(), Place::Cur);
        recalled.recall(&records);
        assert_eq!(recalled.targets.len(), 3);
    }

    #[test]
    fn recipients_of_one_destination_go_together_a_hundred_at_most() {
        let names: Vec<String> = (0..250).map(|n| format!("u{n}@two")).collect();
        let mut recipients: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "")).collect();
        recipients.push(("a@one", ""));
        let mut message = sample("s@x", &recipients);
        let sizes = |m: &Message| m.parts().iter().map(|p| p.targets.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&message), [100, 100, 50, 1]);
        message.hear(0, News::ours(Status::new(2, 0, 0), "ok"), 5);
        assert_eq!(sizes(&message), [100, 100, 49, 1]);
    }

    #[test]
    fn copies_with_a_sender_of_their_own_go_apart_and_come_back_to_it() {
        let mut message = sample("s@x", &[("a@two", ""), ("b@two", ""), ("c@two", "")]);
        Arc::make_mut(&mut message.targets[1].leaf).sender = Some(mailbox("owner-list@x"));
        message.hear(0, News::ours(Status::new(5, 1, 1), "no"), 5);
        message.hear(1, News::ours(Status::new(5, 1, 1), "no"), 5);
        let parts = sample_parts(&message);
        assert_eq!(parts, [vec![2]]);
        let fresh = {
            message.targets.iter_mut().for_each(|target| target.news = None);
            sample_parts(&message)
        };
        assert_eq!(fresh, [vec![0, 2], vec![1]]);
        assert_eq!(message.sender_of(0).to_string(), "s@x");
        assert_eq!(message.sender_of(1).to_string(), "owner-list@x");
    }

    fn sample_parts(message: &Message) -> Vec<Vec<u32>> {
        message.parts().into_iter().map(|part| part.targets).collect()
    }

    #[test]
    fn one_that_waits_for_several_destinations_is_put_off_for_none() {
        let mut message = sample("s@x", &[("a@one", ""), ("b@two", ""), ("c@two", "")]);
        assert_eq!(message.waits_for(), 0);
        message.hear(0, News::ours(Status::new(2, 0, 0), "ok"), 5);
        assert_eq!(message.waits_for(), hash("two"));
    }

    #[test]
    fn a_request_says_whether_others_get_the_message_too() {
        let message = sample("s@x", &[("a@local", ""), ("b@two", "")]);
        let part = message.parts().remove(0);
        let job = Job {
            spacing: None,
            number: 1,
            id: message.entry.id,
            hand: part.hand,
            destination: 0,
            targets: part.targets,
            alone: false,
        };
        let request = message.request(&job).unwrap();
        assert!(request.others);
        assert_eq!(request.recipients.len(), 1);
        let alone = sample("s@x", &[("a@local", "")]);
        assert!(!alone.request(&job).unwrap().others);
    }
}
