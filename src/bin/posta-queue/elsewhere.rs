//! `retry DOMAIN` finds what was filed for another destination.
//!
//! A deferred message is known to the schedule by the hash of its destination. When the way to a domain
//! has changed since (another relay, a smarthost that is no more), that is the destination of old, whose
//! name nobody remembers: so its files are read, one message at a time, by the thread that serves the
//! order.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Sender, channel};

use posta::mail::id::Id;
use posta::unix::pass::Packets;

use posta::courier::order::Answer;

use posta::spool::{Place, SpoolError};

use crate::desk::Desk;
use crate::destination::hash;
use crate::message::Message;
use crate::runner::{Event, Runner, now};
use crate::wishes::done;

/// Everything that waits for a domain is to be tried now.
#[derive(Debug)]
pub struct Retry {
    /// The destination that its mail goes to now.
    pub name: String,
    /// Messages for the domain that were filed for other destinations.
    pub elsewhere: HashSet<Id>,
    /// Whoever asked.
    pub answers: Sender<Answer>,
}

impl Desk {
    /// Has all tried now that waits for `domain`, whose mail goes to the destination `name`.
    pub(crate) fn retry(&self, packets: &Packets, domain: &str, name: String) -> io::Result<()> {
        let (sender, waiting) = channel();
        self.events.send(Event::Elsewhere(name.clone(), sender)).map_err(io::Error::other)?;
        let waiting = waiting.recv().map_err(io::Error::other)?;
        let elsewhere = waiting.into_iter().filter(|id| self.is_for(*id, domain)).collect();
        let (answers, answered) = channel();
        let retry = Retry { name, elsewhere, answers };
        self.events.send(Event::Retry(retry)).map_err(io::Error::other)?;
        self.tell(packets, &answered)
    }

    fn is_for(&self, id: Id, domain: &str) -> bool {
        match self.look(id, Place::Cur) {
            Ok((message, _)) => message.waits_for_domain(domain),
            // Tried, and finished, since it was listed.
            Err(SpoolError::Gone { .. }) => false,
            Err(error) => {
                log::warn!("{id}: can't say whether it is for {domain}: {error}");
                false
            }
        }
    }
}

impl Message {
    /// Whether a recipient in `domain` is still to get it.
    fn waits_for_domain(&self, domain: &str) -> bool {
        let mut open = self.targets.iter().filter(|target| !target.is_final());
        open.any(|target| target.leaf.address.domain().eq_ignore_ascii_case(domain))
    }
}

impl Runner {
    /// Makes due now what waits for a destination, for several, or is named.
    pub(crate) fn retry(&mut self, retry: &Retry) {
        let Retry { name, elsewhere, answers } = retry;
        let wanted = hash(name);
        let is_meant = |id: Id, at: u32| at == wanted || at == 0 || elsewhere.contains(&id);
        let count = self.schedule.hurry(now(), is_meant);
        done(answers, format!("{count} deferred messages for {name} will be tried now"));
    }
}
