//! How a job comes to its hosts: by connections that were kept, then by new ones. The addresses of
//! a host are raced, so that one that leads nowhere costs nothing.

use std::io;
use std::time::Instant;

use log::info;

use posta::mail::status::Status;

use posta::courier::request::Target;
use posta::smtp::client::session::Language;
use posta::smtp::client::verdict::Finding;

use posta::net::stream::{Race, Runner, Stream};
use posta::net::tls_client::Demand;

use crate::candidate::{self, Candidate, Host, Place};
use crate::connection::{Bench, Connection, Manner, Refusal, host_key, unreachable};
use crate::count;
use crate::office::Settings;
use crate::security::Way;

use super::{Job, Scene};

/// Most connections that one job tries to make.
const MAX_TRIES: usize = 20;

impl Job<'_> {
    pub(super) fn by_kept_connections(&mut self, bench: &mut Bench) {
        let destination = self.destination();
        while let Some(mut connection) = self.office.idle.take(&destination) {
            if self.over(&mut connection, bench) {
                self.release(&destination, connection);
                return;
            }
        }
    }

    pub(super) fn by_new_connections(&mut self, language: Language, bench: &mut Bench) {
        let settings = self.settings;
        let mut random = |below| fastrand::usize(..below);
        let names = settings.names.as_ref();
        let target = &self.request.target;
        let hosts = candidate::hosts(target, names, settings.port, &settings.own_names, &mut random);
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(finding) => return self.note(finding, Scene::default()),
        };
        let mut tries = 0;
        for host in hosts {
            let (candidates, is_ours) = self.candidates(&host);
            tries += candidates.len().max(1);
            if self.by_one_host(candidates, language, bench) {
                return;
            }
            if is_ours {
                return self.note(loops_back(target), Scene::default());
            }
            if tries >= MAX_TRIES {
                return;
            }
        }
    }

    /// The places of a host, and whether our own server stands among them: then it and what comes
    /// after it are left out (RFC 5321 5.1: ourselves, and all that are no better than we are, would
    /// send it back).
    fn candidates(&mut self, host: &Host) -> (Vec<Candidate>, bool) {
        let mut found = match host.candidates(self.settings.names.as_ref()) {
            Ok(found) => found,
            Err(finding) => {
                self.note(finding, Scene::default());
                return (Vec::new(), false);
            }
        };
        let is_mx = matches!(self.request.target, Target::Mx(_));
        let ours = found.iter().position(|c| is_mx && c.is_ours(&self.settings.listening));
        found.truncate(ours.unwrap_or(found.len()));
        (found, ours.is_some())
    }

    /// Tries the places of one host until all is done, or the time has come to stop: `true`.
    fn by_one_host(&mut self, mut open: Vec<Candidate>, language: Language, bench: &mut Bench) -> bool {
        let destination = self.destination();
        self.pass_over_silent(&mut open);
        self.office.families.order(&mut open, Instant::now());
        while !open.is_empty() {
            if self.office.flight.is_stopping() {
                self.cut_short = true;
                self.note(going_down(), Scene::default());
                return true;
            }
            if self.by_connection_of_others(&mut open, language, bench) {
                continue;
            }
            let Some((candidate, stream)) = self.first_to_connect(&mut open) else { break };
            if let Some(mut connection) = self.converse(&candidate, stream, language) {
                let before = self.open().len();
                self.over(&mut connection, bench);
                if connection.is_spent() && self.open().len() < before {
                    // The host takes the others, too, over another connection.
                    open.insert(0, candidate);
                }
                self.release(&destination, connection);
            }
            if self.is_done() {
                return true;
            }
        }
        self.is_done()
    }

    /// A connection to one of the places that was kept for another destination serves as well: it
    /// leads to the same host, by the same way. The place is done with then; `false`: there is none,
    /// or only dead ones.
    fn by_connection_of_others(
        &mut self,
        open: &mut Vec<Candidate>,
        language: Language,
        bench: &mut Bench,
    ) -> bool {
        let hosts: Vec<String> = open.iter().map(|c| host_key(c, language, &self.way)).collect();
        while let Some((place, mut connection)) = self.office.idle.take_from(&hosts) {
            if self.over(&mut connection, bench) {
                self.release(&self.destination(), connection);
                if self.is_done() {
                    open.clear();
                } else {
                    open.remove(place);
                }
                return true;
            }
        }
        false
    }

    /// Leaves out those that are known not to answer.
    fn pass_over_silent(&mut self, open: &mut Vec<Candidate>) {
        let now = Instant::now();
        open.retain(|candidate| {
            let Place::Tcp(address) = candidate.place else { return true };
            let Some(age) = self.office.unreachable.since(address, now) else { return true };
            let text = format!("connect to {candidate}: no answer {} s ago", age.as_secs());
            self.note(Finding::ours(Status::new(4, 4, 1), text), Scene::default());
            false
        });
    }

    /// Takes the place out that connects first, with its connection, and those that fail before
    /// that. Those that were overtaken stay.
    fn first_to_connect(&mut self, open: &mut Vec<Candidate>) -> Option<(Candidate, Stream)> {
        let race = self.race(open);
        count::NOT_CONNECTED.add(race.failed.len() as u64);
        count::CONNECTED.add(u64::from(race.winner.is_some()));
        let (office, now) = (self.office, Instant::now());
        for (place, why, took) in &race.failed {
            if let Place::Tcp(address) = open[*place].place {
                office.unreachable.note(address, *took, now);
                office.families.failed(address.ip(), why, now);
            }
            let finding = unreachable(&open[*place], why);
            self.tell(&finding, &Scene::default());
            self.note(finding, Scene::default());
        }
        let won = race.winner.map(|(place, stream)| (open[place].clone(), stream));
        if let Some((Candidate { place: Place::Tcp(address), .. }, _)) = &won {
            let is_other = |place: &usize| match open[*place].place {
                Place::Tcp(other) if other.is_ipv4() != address.is_ipv4() => Some(other.ip()),
                _ => None,
            };
            race.overtaken.iter().filter_map(is_other).for_each(|ip| office.families.led_nowhere(ip, now));
            office.families.reached(address.ip());
        }
        let is_gone = |c: &Candidate| won.as_ref().is_some_and(|(winner, _)| winner == c);
        let mut place = 0;
        open.retain(|candidate| {
            let has_failed = race.failed.iter().any(|(failed, ..)| *failed == place);
            place += 1;
            !has_failed && !is_gone(candidate)
        });
        won
    }

    /// Connects to whichever place is first.
    fn race(&self, open: &[Candidate]) -> Race {
        let Settings { connect_timeout, max_connections, .. } = *self.settings;
        self.office.make_room(max_connections);
        if let [Candidate { place: Place::Unix(path), .. }] = open {
            let begun = Instant::now();
            return match Stream::connect_unix(path, connect_timeout) {
                Ok(stream) => Race { winner: Some((0, stream)), ..Race::default() },
                Err(error) => Race { failed: vec![(0, error, begun.elapsed())], ..Race::default() },
            };
        }
        let runner = |candidate: &Candidate| match candidate.place {
            Place::Tcp(to) => Some(Runner { to, from: self.way.source.towards(to.ip()) }),
            // A host has one Unix socket, and nothing else.
            Place::Unix(_) => None,
        };
        let runners: Vec<Runner> = open.iter().filter_map(runner).collect();
        Stream::race(&runners, connect_timeout)
    }

    /// Greetings, TLS and login on a new connection.
    fn converse(&mut self, candidate: &Candidate, stream: Stream, language: Language) -> Option<Connection> {
        let begun = Instant::now();
        match self.open_connection(candidate, stream, language) {
            Ok(connection) => {
                self.reached = true;
                if let Some(security) = connection.security() {
                    info!("{}: {security}", self.request.id);
                }
                Some(connection)
            }
            Err(Refusal { finding, session, .. }) => {
                self.reached |= finding.said;
                if let Place::Tcp(address) = candidate.place
                    && !finding.said
                {
                    self.office.unreachable.note(address, begun.elapsed(), Instant::now());
                }
                let relay = if finding.said { candidate.to_string() } else { String::new() };
                let scene = Scene { relay, tls: format!("none (policy {})", self.policy()), session };
                self.tell(&finding, &scene);
                self.note(finding, scene);
                None
            }
        }
    }

    /// A connection as the way must be; where TLS is only nice to have and doesn't come about, a
    /// plain one (RFC 7435 3: better than nothing; the handshake has spoilt the first).
    fn open_connection(
        &mut self,
        candidate: &Candidate,
        stream: Stream,
        language: Language,
    ) -> Result<Connection, Refusal> {
        let &Settings { ref hostname, ref connector, chunking, .. } = self.settings;
        let open = |stream, way: &Way| {
            let manner = Manner { language, hostname, way, chunking, connector, login: self.login.as_ref() };
            Connection::open(candidate, stream, &manner, self.office)
        };
        let mut refusal = match open(stream, &self.way) {
            Ok(connection) => return Ok(connection),
            Err(refusal) => refusal,
        };
        self.reached |= refusal.handshake;
        if refusal.handshake && self.way.tls == Some(Demand::Anything) {
            info!("{}: {}; trying again without TLS", self.request.id, refusal.finding.text);
            let again = self.race(std::slice::from_ref(candidate));
            return match (again.winner, again.failed.first()) {
                (Some((_, stream)), _) => open(stream, &self.way.without_tls()),
                (None, Some((_, why, _))) => Err(Refusal::plain(unreachable(candidate, why))),
                (None, None) => {
                    Err(Refusal::plain(unreachable(candidate, &io::ErrorKind::NotConnected.into())))
                }
            };
        }
        let finding = &refusal.finding;
        if self.request.require_tls && finding.status == Status::new(4, 7, 4) {
            // RFC 8689 4.2.1 and 5: not by this host, and if there is no other, never.
            refusal.finding = Finding::ours(Status::new(5, 7, 30), format!("REQUIRETLS: {}", finding.text));
        }
        Err(refusal)
    }
}

/// Why nobody else is asked where a domain's next best server is this host.
fn loops_back(target: &Target) -> Finding {
    let domain = if let Target::Mx(domain) = target { domain.as_str() } else { "it" };
    Finding::ours(Status::new(5, 4, 6), format!("mail for {domain} loops back to this host"))
}

/// Why nothing new is begun.
fn going_down() -> Finding {
    Finding::ours(Status::new(4, 3, 2), "posta-remote is going down")
}
