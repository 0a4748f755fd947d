//! One job: its recipients are taken to one host after the other until each has its outcome. How a
//! host is reached is in `reaching`.
//!
//! - A connection that was kept is used first; one that turns out dead is as if it had not been
//!   there.
//! - Where a host can't be reached, does not welcome us, or goes before it has decided (421, a lost
//!   connection), the next one is asked (RFC 5321 5.1).
//! - What a host has said about a recipient, yes or no or not now, holds for this attempt. A 5xx
//!   holds everywhere (RFC 5321 4.2.1), a 4xx waits for its next time.
//! - Once a host has all of the content, nobody else gets it in this attempt: a silent host may have
//!   kept it (RFC 1047).

use std::cell::OnceCell;
use std::fs::File;
use std::time::Instant;

use log::info;

use posta::mail::address::ReversePath;
use posta::mail::envelope::{BodyKind, Recipient};
use posta::mail::id::Id;
use posta::mail::status::{Fate, Status};

use posta::courier::report::{Outcome, Report};
use posta::courier::request::{Rcpt, Request};
use posta::sasl::client::Login;
use posta::smtp::client::session::Mail;
use posta::smtp::client::verdict::{Finding, Verdict};

use crate::candidate;
use crate::connection::{Bench, Connection, unreadable};
use crate::message::Message;
use crate::office::{Office, Settings};
use crate::security::Way;

mod reaching;

/// Delivers a request's message, whose queue file is `file`.
pub fn deliver(
    office: &Office,
    settings: &Settings,
    request: &Request,
    file: &File,
    bench: &mut Bench,
) -> Report {
    let mut way = settings.ways.to(&request.target, &request.terms, request.require_tls);
    let login = match choose_login(office, &mut way, &request.sender) {
        Ok(login) => login,
        Err(finding) => return same_for_all(request, &finding),
    };
    let mut job = Job {
        office,
        settings,
        request,
        message: Message { trace: &request.trace, file, size: request.size, converted: None },
        eight_bit: OnceCell::new(),
        seven_bit: OnceCell::new(),
        way,
        login,
        outcomes: vec![None; request.recipients.len()],
        worst: None,
        reached: false,
        cut_short: false,
    };
    match candidate::language(&request.target) {
        Some(language) => {
            job.by_kept_connections(bench);
            if !job.is_done() {
                job.by_new_connections(language, bench);
            }
        }
        None => {
            let text = "posta-remote delivers to no mailbox";
            job.note(Finding::ours(Status::new(4, 3, 5), text), Scene::default());
        }
    }
    job.report()
}

/// The login that the host wants, if it wants one: the sender's, if it has one of its own there.
fn choose_login(office: &Office, way: &mut Way, sender: &ReversePath) -> Result<Option<Login>, Finding> {
    let Some(file) = &way.login else { return Ok(None) };
    let chosen = office.logins.of(file, sender).ok_or_else(|| {
        let text = format!("there is no login for mail of <{sender}> in {}", file.display());
        Finding::ours(Status::new(4, 3, 5), text)
    })?;
    way.login_of = chosen.whom;
    Ok(Some(chosen.login))
}

/// A report that gives every recipient of a request the same outcome.
pub fn same_for_all(request: &Request, finding: &Finding) -> Report {
    let outcome = |rcpt: &Rcpt| outcome(rcpt.n, finding, Scene::default(), false);
    Report {
        job: request.job,
        outcomes: request.recipients.iter().map(outcome).collect(),
        unreachable: false,
    }
}

/// Where something was said or has happened; nothing of it if no host was reached.
#[derive(Debug, Clone, Default)]
struct Scene {
    /// The host.
    relay: String,
    /// How the way there was protected.
    tls: String,
    /// The session that is kept.
    session: Option<Id>,
}

struct Job<'a> {
    office: &'a Office,
    settings: &'a Settings,
    request: &'a Request,
    message: Message<'a>,
    /// Whether the message has octets above 127, once that was asked.
    eight_bit: OnceCell<Result<bool, Finding>>,
    /// For servers that take seven bits only, once one was met: the message, if it has more and can be
    /// converted.
    seven_bit: OnceCell<Result<Option<Message<'a>>, Finding>>,
    /// What the way must be like.
    way: Way,
    /// Who we are there, where that is asked.
    login: Option<Login>,
    /// As many as there are recipients.
    outcomes: Vec<Option<Outcome>>,
    /// Why there is no outcome yet, and who said so. What may pass wins over what is for good.
    worst: Option<(Finding, Scene)>,
    /// Some host has talked to us.
    reached: bool,
    /// Not every host was asked, since we are going down.
    cut_short: bool,
}

impl<'a> Job<'a> {
    fn is_done(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// Places of the recipients without an outcome.
    fn open(&self) -> Vec<usize> {
        (0..self.outcomes.len()).filter(|at| self.outcomes[*at].is_none()).collect()
    }

    /// Names the target and the way, so that a kept connection can be found again.
    fn destination(&self) -> String {
        format!("{} {}", candidate::destination(&self.request.target), self.way.key())
    }

    /// Sends to all that are open, in as many transactions as the host wants. `false`: it was a
    /// kept connection, and a dead one.
    fn over(&mut self, connection: &mut Connection, bench: &mut Bench) -> bool {
        let mut may_be_dead = connection.transactions() > 0;
        let mut here = self.open();
        loop {
            let (message, body) = match self.fit(connection, bench) {
                Ok(fit) => fit,
                Err(finding) => {
                    self.note(finding, Scene::default());
                    return true;
                }
            };
            // RFC 9422 4: no more recipients than the host says it takes; the others come next.
            let domain = |at: &usize| self.request.recipients[*at].address.domain();
            let rest = here.split_off(connection.offer().limits.fitting(here.iter().map(domain)));
            let verdicts = connection.deliver(self.mail(&here, message, body), message, bench);
            if may_be_dead && !connection.was_heard() {
                return false;
            }
            (may_be_dead, self.reached) = (false, true);
            here = self.take(&here, verdicts, connection);
            here.extend(rest);
            if here.is_empty() {
                return true;
            }
            if !connection.is_ready() || self.office.flight.is_stopping() {
                let text = "the host takes no more recipients now";
                self.note(Finding::ours(Status::new(4, 5, 3), text), self.scene(connection));
                return true;
            }
        }
    }

    /// Notes what was decided; gives back the places of those that need another transaction.
    fn take(&mut self, here: &[usize], verdicts: Vec<Verdict>, connection: &Connection) -> Vec<usize> {
        let (mut surplus, mut undecided) = (Vec::new(), None);
        let scene = self.scene(connection);
        if let Some(session) = scene.session {
            info!("{}: not all is well with {}; session={session}", self.request.id, scene.relay);
        }
        for (at, verdict) in here.iter().copied().zip(verdicts) {
            match verdict {
                Verdict::Final(finding) => {
                    let passed_on = connection.offer().dsn && finding.status.fate() == Fate::Done;
                    let n = self.request.recipients[at].n;
                    self.outcomes[at] = Some(outcome(n, &finding, scene.clone(), passed_on));
                }
                Verdict::Open(finding) => undecided = Some(finding),
                Verdict::Surplus => surplus.push(at),
            }
        }
        if let Some(finding) = undecided {
            self.tell(&finding, &scene);
            self.note(finding, scene);
        }
        surplus
    }

    /// The message as this host can take it, and the kind of its body. Where it can't, another host may.
    fn fit(&self, connection: &Connection, bench: &mut Bench) -> Result<(&Message<'a>, BodyKind), Finding> {
        let (body, offer) = (self.request.body, connection.offer());
        match body {
            BodyKind::BinaryMime if offer.binary_mime => return Ok((&self.message, body)),
            BodyKind::EightBitMime if offer.eight_bit_mime => return Ok((&self.message, body)),
            BodyKind::SevenBit if offer.eight_bit_mime => {
                // Many send eight bits and don't say so; the next host is told what it gets.
                let body = if self.is_eight_bit(bench)? { BodyKind::EightBitMime } else { body };
                return Ok((&self.message, body));
            }
            _ => {}
        }
        match self.seven_bit.get_or_init(|| self.convert(connection, bench)) {
            Err(finding) => Err(finding.clone()),
            Ok(Some(converted)) => Ok((converted, BodyKind::SevenBit)),
            // Some call all their mail 8BITMIME.
            Ok(None) => Ok((&self.message, BodyKind::SevenBit)),
        }
    }

    /// Whether there is an octet above 127 in the message. It is looked through once.
    fn is_eight_bit(&self, bench: &mut Bench) -> Result<bool, Finding> {
        let look = || self.message.is_eight_bit(&mut bench.block).map_err(|error| unreadable(&error));
        self.eight_bit.get_or_init(look).clone()
    }

    /// RFC 6152 3: what has octets above 127 is not sent to who has not said that he takes it: it is
    /// converted, or sent back.
    fn convert(&self, connection: &Connection, bench: &mut Bench) -> Result<Option<Message<'a>>, Finding> {
        let is_binary = self.request.body == BodyKind::BinaryMime;
        if !is_binary && !self.is_eight_bit(bench)? {
            return Ok(None);
        }
        let block = &mut bench.block;
        let converted = self.message.in_seven_bits(block).map_err(|e| unreadable(&e))?;
        let message = converted.map_err(|why| {
            let lacks = if is_binary { "BINARYMIME" } else { "8BITMIME" };
            Finding::ours(Status::new(5, 6, 3), format!("the host does not offer {lacks}: {why}"))
        })?;
        if message.converted.as_ref().is_some_and(|converted| converted.plan.breaks_signature()) {
            let (id, peer) = (self.request.id, connection.peer());
            info!("{id}: converted to seven bits for {peer}: its DKIM signature no longer holds");
        }
        Ok(Some(message))
    }

    /// The envelope for these recipients.
    fn mail(&self, here: &[usize], message: &Message, body: BodyKind) -> Mail {
        let request = self.request;
        let recipient = |at: &usize| {
            let rcpt = &request.recipients[*at];
            Recipient { address: rcpt.address.clone(), notify: rcpt.notify, original: rcpt.orcpt.clone() }
        };
        Mail {
            sender: request.sender.clone(),
            ret: request.ret,
            envid: request.envid.clone(),
            body,
            utf8: request.utf8,
            require_tls: request.require_tls,
            size: message.length(),
            recipients: here.iter().map(recipient).collect(),
        }
    }

    /// Keeps the connection for the next message, or ends it.
    fn release(&self, destination: &str, connection: Connection) {
        let keep = connection.is_ready()
            && connection.transactions() < self.settings.max_messages_per_connection
            && !self.office.flight.is_stopping();
        if keep {
            let host = connection.host().to_string();
            self.office.idle.keep(destination, host, connection, Instant::now());
        } else {
            connection.quit();
        }
    }

    /// The place of a connection.
    fn scene(&self, connection: &Connection) -> Scene {
        let tls = format!("{} (policy {})", connection.cover(), self.policy());
        Scene { relay: connection.peer().to_string(), tls, session: connection.odd() }
    }

    /// What is wanted of TLS, and by whom.
    fn policy(&self) -> &'static str {
        if self.request.require_tls { "requiretls" } else { self.way.policy() }
    }

    /// Says in the log why a host came to no decision.
    fn tell(&self, finding: &Finding, scene: &Scene) {
        let (id, text, relay) = (self.request.id, &finding.text, &scene.relay);
        let session = scene.session.map(|session| format!("; session={session}")).unwrap_or_default();
        if finding.said {
            info!("{id}: host {relay} said: {text}{session}");
        } else {
            info!("{id}: {text}{session}");
        }
    }

    /// Notes why the open recipients have no outcome. What came later counts, unless it is for good
    /// and what came before may pass.
    fn note(&mut self, finding: Finding, scene: Scene) {
        let before_may_pass = self.worst.as_ref().is_some_and(|w| w.0.status.fate() != Fate::Never);
        if finding.status.fate() != Fate::Never || !before_may_pass {
            self.worst = Some((finding, scene));
        }
    }

    fn report(self) -> Report {
        let nothing = || (Finding::ours(Status::new(4, 4, 0), "no host was tried"), Scene::default());
        let (finding, scene) = self.worst.unwrap_or_else(nothing);
        let waits = self.outcomes.iter().any(Option::is_none) && finding.status.fate() == Fate::Later;
        let each = self.outcomes.into_iter().zip(&self.request.recipients);
        let each = each
            .map(|(known, rcpt)| known.unwrap_or_else(|| outcome(rcpt.n, &finding, scene.clone(), false)));
        Report {
            job: self.request.job,
            outcomes: each.collect(),
            unreachable: waits && !self.reached && !self.cut_short,
        }
    }
}

fn outcome(n: u32, finding: &Finding, scene: Scene, passed_on: bool) -> Outcome {
    let Scene { relay, tls, session } = scene;
    Outcome {
        n,
        status: finding.status,
        text: finding.text.clone(),
        relay,
        tls,
        session,
        said: finding.said,
        passed_on,
        forward: None,
    }
}
