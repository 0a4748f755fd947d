//! What is said of a message: to a hand that is to deliver it, to its sender, and in a list.

use posta::mail::report::{Action, Reported};

use posta::courier::request::{Rcpt, Request};

use posta::route::NoRoute;

use crate::message::Message;
use crate::turns::Job;

impl Message {
    /// The request for a job.
    pub fn request(&self, job: &Job) -> Option<Request> {
        let envelope = &self.entry.envelope;
        let mut recipients = Vec::with_capacity(job.targets.len());
        let mut served = std::collections::HashSet::new();
        let expanded = self.expanded();
        for &n in &job.targets {
            let target = self.targets.get(n as usize)?;
            let recipient = envelope.recipients.get(target.recipient as usize)?;
            let wishes = self.wishes(target, &expanded);
            served.insert(target.recipient);
            recipients.push(Rcpt {
                n,
                address: target.leaf.address.clone(),
                original: recipient.address.clone(),
                notify: wishes.notify,
                orcpt: wishes.original,
                place: target.leaf.place.clone(),
                limit: target.limit,
            });
        }
        let first = self.targets.get(*job.targets.first()? as usize)?;
        Some(Request {
            job: job.number,
            id: self.entry.id,
            sender: self.sender_of(*job.targets.first()?),
            ret: envelope.ret.filter(|_| !first.leaf.of_list),
            envid: envelope.envid.clone().filter(|_| !first.leaf.of_list),
            body: envelope.body,
            utf8: envelope.utf8,
            require_tls: envelope.require_tls,
            arrived: envelope.arrived,
            trace: envelope.trace.clone(),
            size: self.entry.size,
            others: served.len() < envelope.recipients.len(),
            target: first.leaf.target.clone(),
            terms: first.relaying.as_ref().map(|relaying| relaying.terms.clone()).unwrap_or_default(),
            recipients,
        })
    }

    /// What a report says of target `n`.
    pub fn reported(&self, n: u32, action: Action) -> Option<Reported> {
        let target = self.targets.get(n as usize)?;
        let news = target.news.as_ref()?;
        let recipient = self.entry.envelope.recipients.get(target.recipient as usize)?;
        Some(Reported {
            action,
            address: target.leaf.address.clone(),
            original: recipient.original.clone().filter(|_| !target.leaf.of_list),
            status: news.status,
            text: news.text.clone(),
            relay: news.relay.clone(),
            said: news.said,
        })
    }

    /// What a report of a delay says of recipient `n`, who could not be resolved yet.
    pub fn reported_astray(&self, n: u32, why: &NoRoute) -> Option<Reported> {
        let recipient = self.entry.envelope.recipients.get(n as usize)?;
        Some(Reported {
            action: Action::Delayed,
            address: recipient.address.clone(),
            original: recipient.original.clone(),
            status: why.status,
            text: why.text.clone(),
            relay: String::new(),
            said: false,
        })
    }

    /// Why it is still here, for a list: the last thing that was said of a target that is not final.
    pub fn reason(&self) -> String {
        let open = self.targets.iter().filter(|t| !t.is_final());
        let said = open.filter_map(|t| t.news.as_ref()).map(|n| n.text.clone()).next();
        said.or_else(|| self.unresolved.first().map(|u| u.1.to_string())).unwrap_or_default()
    }

    /// The recipients that are not final, as addresses.
    pub fn outstanding(&self) -> Vec<String> {
        let recipients = &self.entry.envelope.recipients;
        let open = self.targets.iter().filter(|t| !t.is_final()).map(|t| t.leaf.address.to_string());
        let unresolved = self.unresolved.iter().filter_map(|u| recipients.get(u.0 as usize));
        open.chain(unresolved.map(|r| r.address.to_string())).collect()
    }
}
