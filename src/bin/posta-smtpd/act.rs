//! Doing what the state machine says.

use std::time::Duration;

use posta::mail::address::ReversePath;
use posta::smtp::introduction::Introduction;
use posta::smtp::reply::Reply;
use posta::smtp::rule;
use posta::smtp::server::{Action, Event, Question, Verdict};

use crate::house::House;
use crate::judge::{Asker, judge, verdict};
use crate::offer::{self, Trust};
use crate::receive::{receive, receive_chunk, swallow};
use crate::session::{Loss, Session, Stage};
use crate::tally::Verb;

/// A client that makes many errors waits so long for each answer.
const SLOW: Duration = Duration::from_secs(1);

/// How a session goes on.
pub enum Next {
    /// With the next line.
    Line,
    /// With a handshake.
    Handshake,
    /// With an answer that is kept back for so long.
    Rest(Duration),
    /// This was the last word.
    Over(Reply),
}

impl Session {
    /// Does what an action says, and what comes of that.
    pub(crate) fn carry_out(
        &mut self,
        verb: Option<Verb>,
        mut action: Action,
        house: &House,
        out: &mut Vec<u8>,
    ) -> Result<Next, Loss> {
        loop {
            if self.talks_too_soon(&action) {
                action = self.server.on(Event::TooSoon);
            }
            action = match action {
                Action::Say(reply) => return Ok(self.say(verb, &reply, out)),
                Action::SayEach(replies) => {
                    for reply in &replies {
                        reply.write_to(out);
                    }
                    if let Some(reply) = replies.first() {
                        self.note(verb, reply);
                    }
                    self.wind_up();
                    return Ok(Next::Line);
                }
                Action::Listen => {
                    self.drop_what_is_over();
                    self.wind_up();
                    return Ok(Next::Line);
                }
                Action::HangUp(reply) => {
                    // A wrong password costs its time, though it was one error too many.
                    if let Some(wait) = self.take_penalty() {
                        self.deadline += wait;
                        self.parting = Some(Box::new((verb, Action::HangUp(reply))));
                        return Ok(Next::Rest(wait));
                    }
                    self.note(verb, &reply);
                    reply.write_to(out);
                    return Ok(Next::Over(reply));
                }
                Action::Secure { go_ahead } => {
                    self.note(verb, &go_ahead);
                    go_ahead.write_to(out);
                    self.flush(out)?;
                    self.forget_guest();
                    self.wind_up();
                    self.stage = Stage::Securing;
                    return Ok(Next::Handshake);
                }
                Action::Judge(question) => {
                    let verdict = self.judge(&question, house);
                    self.named.remember(question);
                    self.server.on(Event::Judged(verdict))
                }
                Action::Introduce(told) => {
                    let verdict = self.introduce(&told);
                    self.server.on(Event::Judged(verdict))
                }
                Action::LogIn { mechanism, initial } => {
                    let step = self.log_in(mechanism, initial.as_deref());
                    self.server.on(Event::LogIn(step))
                }
                Action::Respond(response) => {
                    let step = self.respond(&response);
                    self.server.on(Event::LogIn(step))
                }
                Action::TakeData { go_ahead } => {
                    let taken = receive(self, house, out, &go_ahead)?;
                    self.server.on(taken)
                }
                Action::TakeChunk { size, last } => {
                    let taken = receive_chunk(self, house, out, size, last)?;
                    self.server.on(taken)
                }
                Action::Swallow { size, then } => {
                    swallow(self, out, size)?;
                    *then
                }
            };
            self.drop_what_is_over();
        }
    }

    /// RFC 2920 3.1: EHLO, DATA and some others end a group. Who sends on all the same has not seen
    /// our answer, and may be somebody who makes another server send what is not SMTP. Before TLS it
    /// is never let pass, from nobody: it could be read as if it had come under it (CVE-2011-0411).
    fn talks_too_soon(&self, action: &Action) -> bool {
        let is_securing = matches!(action, Action::Secure { .. });
        self.server.client_must_wait() && !self.lines.is_empty() && (is_securing || self.is_stranger())
    }

    /// Says a reply, or keeps it back.
    fn say(&mut self, verb: Option<Verb>, reply: &Reply, out: &mut Vec<u8>) -> Next {
        self.drop_what_is_over();
        self.note(verb, reply);
        self.wind_up();
        match self.penalty_for(reply) {
            None => {
                reply.write_to(out);
                Next::Line
            }
            Some(wait) => {
                self.deadline += wait;
                reply.write_to(&mut self.owed);
                Next::Rest(wait)
            }
        }
    }

    /// How long this reply is kept back. Wrong passwords and many errors cost the client time, and us
    /// no thread (RFC 5321 7.8, RFC 4954 9).
    fn penalty_for(&mut self, reply: &Reply) -> Option<Duration> {
        let penalty = self.take_penalty();
        let many = self.server.errors() > self.terms.smtp.max_errors / 2;
        let is_slowed = many && reply.is_permanent_failure() && self.is_stranger();
        penalty.or(is_slowed.then_some(SLOW))
    }

    /// What a wrong password costs.
    fn take_penalty(&mut self) -> Option<Duration> {
        self.penalty.take().filter(|wait| !wait.is_zero())
    }

    /// Chunks without their message, and an exchange that was given up, are no longer needed.
    fn drop_what_is_over(&mut self) {
        if self.server.transaction().is_none() {
            self.chunks = None;
        }
        if !self.server.is_logging_in() {
            self.exchange = None;
        }
    }

    /// Decides about a sender or a recipient.
    fn judge(&mut self, question: &Question, house: &House) -> Verdict {
        if matches!(question, Question::Sender(_)) && self.must_turn_to_tls() {
            let text = "say STARTTLS first, and then log in";
            return Verdict::Refuse(rule::TLS_WANTED.reply(text));
        }
        if let (Question::Sender(sender), Some(login)) = (question, &self.guest.client.login)
            && !self.terms.owners.owns(login, sender)
        {
            let text = format!("<{sender}>: this sender is not one of {login}'s");
            return Verdict::Refuse(rule::SENDER_NOT_YOURS.reply(text));
        }
        let (helo, _) = self.server.greeted_as().unwrap_or_default();
        let sender = self.server.transaction().map_or(&ReversePath::Null, |transaction| &transaction.sender);
        let asker = Asker { client: &self.guest.client, helo, sender };
        let (verdict, row) = judge(&self.terms, asker, question);
        self.discards.note(question, row);
        match (question, &verdict) {
            (Question::Sender(ReversePath::Mailbox(sender)), Verdict::Accept(_))
                if self.is_without_mail(sender.domain(), house) =>
            {
                let text = format!("<{sender}>: the sender's domain takes no mail (null MX)");
                Verdict::Refuse(rule::NULL_MX_SENDER.reply(text))
            }
            _ => verdict,
        }
    }

    /// Whether nobody could be told of a failure, as the domain of a stranger's sender says itself (RFC
    /// 7505 4.2).
    fn is_without_mail(&self, domain: &str, house: &House) -> bool {
        let address = self.guest.client.address.filter(|_| self.is_stranger());
        let Some(address) = address.filter(|_| self.terms.refuse_null_mx_senders) else { return false };
        house.directory.takes_no_mail(domain, address, self.is_hurried())
    }

    /// Who has to log in can do so under TLS only (RFC 8314 4.1).
    fn must_turn_to_tls(&self) -> bool {
        let entrance = self.entrance;
        let in_the_open = entrance.starttls && !self.server.is_secure() && !entrance.trusted;
        entrance.submission && in_the_open && !self.terms.policy.may_relay(&self.guest.client)
    }

    /// A trusted host speaks for somebody: may that one talk to us? If so, it is the client from now on,
    /// after STARTTLS too, and has no more rights than if it had connected itself.
    fn introduce(&mut self, told: &Introduction) -> Verdict {
        let host = self.guest.peer().to_string();
        let guest = self.guest.introduced(told);
        let verdict = verdict(self.terms.policy.connection(&guest.client, std::time::Instant::now()));
        if matches!(verdict, Verdict::Accept(_)) {
            self.guest = guest;
            self.connected = self.guest.client.address;
            self.spoken_for |= told.address.is_said();
            let Trust { xclient, xforward } = offer::trust(&self.terms, self.connected);
            self.server.entrust(xclient, xforward);
            log::info!("connect from {} through {host}", self.guest.peer());
        }
        verdict
    }
}
