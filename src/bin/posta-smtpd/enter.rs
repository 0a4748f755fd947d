//! How a session begins: by the word of a proxy, by TLS, by the greeting; and how it turns to TLS
//! later.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::logbook::entry::Said;
use posta::net::pool::Crowd;
use posta::net::proxy::{self, Header};
use posta::policy::chain::Client;
use posta::policy::verdict::Verdict;
use posta::smtp::reply::Reply;
use posta::smtp::rule;
use posta::smtp::server::{Action, Event, Server};

use crate::count;
use crate::guest::Guest;
use crate::house::House;
use crate::keep;
use crate::offer;
use crate::session::{Loss, Session, Stage};
use crate::tally::Named;
use crate::wait::stay;

/// A handshake, and a proxy's header, may take so long.
const HANDSHAKE: Duration = Duration::from_secs(60);

impl Session {
    /// Does what has to be done before commands come: all that is before the greeting, or a handshake.
    /// None: the client has not begun with its part, or not gone on, and the session is to be parked until
    /// it does.
    pub(crate) fn go_in(&mut self, house: &House, crowd: Option<&dyn Crowd>) -> Result<Option<Action>, Loss> {
        let limit = Instant::now() + self.patience(HANDSHAKE);
        self.deadline = self.deadline.min(limit);
        let waits_for_client = self.stage == Stage::Securing || self.entrance.proxy || self.entrance.implicit;
        if waits_for_client && !self.has_word(crowd)? {
            return Ok(None);
        }
        if self.stage == Stage::Entering {
            if let Err(reply) = self.identify(house) {
                // Under TLS it could not be read.
                if self.entrance.implicit {
                    return Err(Loss::Unsecured);
                }
                self.stage = Stage::Talking;
                self.wind_up();
                return Ok(Some(Action::HangUp(reply)));
            }
            self.stage = Stage::Opening;
        }
        let handshake = self.stage == Stage::Securing || self.entrance.implicit;
        if handshake && !self.secure(house, crowd)? {
            return Ok(None);
        }
        let action = match self.stage {
            Stage::Securing => self.server.on(Event::Secured),
            _ => self.greet(house)?,
        };
        self.stage = Stage::Talking;
        self.wind_up();
        Ok(Some(action))
    }

    /// Finds out who the client is. An error: what it is told if the proxy does not say.
    fn identify(&mut self, house: &House) -> Result<(), Reply> {
        if self.entrance.proxy {
            self.ask_proxy()?;
        }
        self.connected = self.guest.client.address;
        self.guest.client.reached = self.own_address();
        if self.terms.reverse_dns {
            self.look_name_up(house);
        }
        log::info!("connect from {}", self.guest.peer());
        Ok(())
    }

    /// Lets the client in, or not.
    fn greet(&mut self, house: &House) -> Result<Action, Loss> {
        let service = offer::service(house, &self.terms, self.entrance, &self.guest.client);
        self.server = Server::new(Arc::clone(&self.terms.smtp), service);
        let action = match self.obstacle() {
            Some(reply) => Action::HangUp(reply),
            // RFC 5321 3.1: the client waits for the greeting. Who doesn't is not listening to us.
            None if self.is_stranger() && self.stream.readable_within(Duration::ZERO)? => {
                self.server.on(Event::TooSoon)
            }
            None => self.server.on(Event::Opened),
        };
        if let Action::HangUp(reply) = &action {
            self.log_reject(reply);
        }
        Ok(action)
    }

    /// Hears from the proxy who the client is.
    fn ask_proxy(&mut self) -> Result<(), Reply> {
        match proxy::take(&mut self.stream, self.deadline) {
            Ok(Header::Client { from, .. }) => self.guest.move_to(Some(from.ip().to_canonical())),
            Ok(Header::Unknown) => self.guest.move_to(None),
            Ok(Header::Local) => {}
            Err(fault) => {
                log::warn!("proxy {}: {fault}", self.guest.peer());
                let text = format!("{} does not know who you are", self.terms.smtp.hostname);
                return Err(rule::PROXY.reply(text));
            }
        }
        let address = self.guest.client.address;
        match &mut self.seat {
            Some(seat) => seat.move_to(address).map_err(|full| keep::refusal(&self.terms, full)),
            None => Ok(()),
        }
    }

    /// Which of our addresses the client has connected to. Behind a proxy it is the proxy's.
    fn own_address(&self) -> Option<IpAddr> {
        let address = self.stream.own_address().filter(|_| !self.entrance.proxy)?;
        Some(address.ip().to_canonical())
    }

    /// Finds out what the client is called. While most workers are busy nobody waits for the DNS.
    fn look_name_up(&mut self, house: &House) {
        let Some(address) = self.guest.client.address else { return };
        let in_a_hurry = self.is_hurried();
        let client = &mut self.guest.client;
        match house.directory.name_of(address, in_a_hurry) {
            Ok(name) => client.name = name,
            Err(why) => {
                log::debug!("{address}: no name now: {why}");
                client.name_unclear = true;
            }
        }
    }

    /// Why the client can't come in.
    pub(crate) fn obstacle(&self) -> Option<Reply> {
        if let Some(missing) = self.terms.missing() {
            log::warn!("{} is not there; is posta-auth running?", missing.display());
            let text = format!("{} is not ready yet; try again later", self.terms.smtp.hostname);
            return Some(rule::NOT_READY.reply(text));
        }
        match self.terms.policy.connection(&self.guest.client, Instant::now()) {
            Verdict::Accept | Verdict::Discard(_) => None,
            Verdict::Refuse(reply) | Verdict::HangUp(reply) => Some(reply),
        }
    }

    /// The server's part of the handshake, by the session's deadline. `false`: the client's next piece
    /// has not come for a while.
    pub(crate) fn secure(&mut self, house: &House, crowd: Option<&dyn Crowd>) -> Result<bool, Loss> {
        let peer = self.guest.peer();
        let Some(certificates) = house.certificates.current() else {
            log::error!("no TLS for {peer}: there is no certificate any more; see tls.certificate");
            return Err(Loss::Unsecured);
        };
        let until = crowd.map_or(self.deadline, |crowd| self.deadline.min(Instant::now() + stay(crowd)));
        self.stream.set_deadline(Some(until));
        if let Err(fault) = self.stream.secure(&certificates, self.deadline) {
            log::info!("SSL_accept error from {peer}: {}", Said(&fault.to_string()));
            count::NO_TLS.add(1);
            self.flight.note(format_args!("handshake: {fault}"));
            return Err(Loss::Unsecured);
        }
        let Some(tls) = self.stream.security() else { return Ok(false) };
        let encryption = crate::trace::encryption(tls);
        // As Postfix calls them: a client is anonymous, or one whose certificate has been verified.
        let kind = if tls.fingerprint.is_some() { "Trusted" } else { "Anonymous" };
        log::info!("{kind} TLS connection established from {peer}: {encryption}");
        count::TLS.add(1);
        self.flight.note(format_args!("{encryption}"));
        self.guest.client.fingerprint = tls.fingerprint.clone().filter(|_| !self.spoken_for);
        Ok(true)
    }

    /// The client is nobody but who has connected, or whom a proxy or a trusted host has named: what was
    /// learnt since is forgotten (RFC 3207 4.2), and a login too.
    pub(crate) fn forget_guest(&mut self) {
        let submission = self.entrance.submission;
        let reached = self.own_address();
        let mut client = Client { address: self.connected, reached, submission, ..Client::default() };
        if self.guest.client.address == self.connected {
            client.name = self.guest.client.name.take();
            client.name_unclear = self.guest.client.name_unclear;
        }
        self.guest = Guest::new(client);
        self.named = Named::default();
    }
}
