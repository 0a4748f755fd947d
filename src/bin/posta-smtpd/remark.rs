//! What the log says of a session.

use posta::logbook::entry::{Client, Peer, Reject};
use posta::logbook::sessions::Sessions;
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::id::Id;
use posta::smtp::reply::Reply;
use posta::smtp::rule;
use posta::smtp::server::{Action, Event};

use crate::count;
use crate::guest::text_of;
use crate::session::Session;
use crate::tally::{Verb, brief};

impl Session {
    /// Counts a command with its answer; a no has its line in the log.
    pub(crate) fn note(&mut self, verb: Option<Verb>, reply: &Reply) {
        // A challenge is the middle of an answer.
        if let Some(verb) = verb.filter(|_| reply.code != 334) {
            self.tally.count(verb, reply.code < 400);
            // A wrong password has a line of its own.
            if reply.code >= 400 && reply.code != 535 {
                self.log_reject(reply);
            } else if reply.code == 535 {
                self.flight.is_odd();
            }
        }
        if self.receiving.take().is_some() && reply.code < 400 {
            count::MESSAGES.add(1);
        }
    }

    /// The line of a refusal.
    pub(crate) fn log_reject(&mut self, reply: &Reply) {
        let session = Some(self.flight.is_odd());
        count::refusal(reply);
        let (helo, extended) = self.server.greeted_as().unwrap_or_default();
        let sender = self.named.sender.as_ref().map(ReversePath::to_string);
        let recipient = self.named.recipient.as_ref().map(Mailbox::to_string);
        let stage = match self.receiving {
            Some(_) => "END-OF-MESSAGE".to_string(),
            None => self.tally.stage().to_string(),
        };
        let reject = Reject {
            id: self.receiving,
            at: &stage,
            peer: self.guest.peer(),
            reply: &brief(reply),
            from: sender.as_deref(),
            to: recipient.as_deref(),
            proto: match (self.entrance.lmtp, extended) {
                (true, _) => "LMTP",
                (false, true) => "ESMTP",
                (false, false) => "SMTP",
            },
            helo,
            session,
        };
        log::info!("{reject}");
    }

    /// The deadline has passed.
    pub(crate) fn overdue(&mut self) -> Action {
        log::info!("timeout after {} from {}", self.tally.stage(), self.guest.peer());
        self.flight.note(format_args!("nothing came in time, after {}", self.tally.stage()));
        self.flight.is_odd();
        self.server.on(Event::TimedOut)
    }

    /// The session has to go for another.
    pub(crate) fn shed(&mut self) -> Action {
        let text = format!("{} is full, and you were silent; try again later", self.terms.smtp.hostname);
        let reply = rule::SHED.reply(text);
        self.log_reject(&reply);
        Action::HangUp(reply)
    }

    /// The last line of the session. One in which something went wrong is kept, and named here.
    pub(crate) fn log_end(&self, sessions: &Sessions) {
        let (peer, tally) = (self.guest.peer(), &self.tally);
        let Some(session) = self.flight.name() else {
            log::info!("disconnect from {peer}{tally}");
            return;
        };
        log::info!("disconnect from {peer}{tally} session={session}");
        count::ODD.add(1);
        sessions.keep(session, &format!("session {session} with {peer}{tally}\n{}", self.flight.text()));
    }

    /// The line of a message that begins.
    pub(crate) fn log_client(&self, id: Id) {
        let guest = &self.guest;
        let login =
            guest.client.login.as_deref().map(|login| (guest.method.as_deref().unwrap_or("none"), login));
        let told = self.server.forwarded();
        let address = told.map(|told| text_of(told.address.value().copied())).unwrap_or_default();
        let original = told.map(|told| {
            let peer = Peer { name: told.name.value().map(String::as_str), address: &address };
            (told.ident.value().map_or("", String::as_str), peer)
        });
        log::info!("{}", Client { id, peer: guest.peer(), login, original });
    }
}
