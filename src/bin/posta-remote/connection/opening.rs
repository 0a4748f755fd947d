//! How a connection comes about: TCP, TLS if that is the way, greetings, and a login where the relay
//! wants one.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use posta::mail::id::Id;
use posta::mail::status::Status;
use posta::unix::random;

use posta::sasl::client::{Exchange, Login};
use posta::sasl::mechanism::Binding;
use posta::smtp::client::reply::ReplyReader;
use posta::smtp::client::session::{Action, Client, Cover, Event, Language};
use posta::smtp::client::verdict::Finding;

use posta::net::stream::{self, Stream};
use posta::net::tls_client::{Connector, Demand};

use crate::candidate::Candidate;
use crate::count;
use crate::office::Office;
use crate::recorder::Recorder;
use crate::security::Way;

use super::{Connection, reason};

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(120);

/// How a connection is made.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// What is spoken.
    pub language: Language,
    /// What we call ourselves.
    pub hostname: &'a str,
    /// What the way must be like.
    pub way: &'a Way,
    /// Messages go in chunks where that is offered.
    pub chunking: bool,
    /// Whom we trust.
    pub connector: &'a Connector,
    /// Who we are there.
    pub login: Option<&'a Login>,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Refusal {
    /// What the host said, or what happened.
    pub finding: Finding,
    /// The host was there and would have begun TLS, but it didn't come about.
    pub handshake: bool,
    /// The session that is kept.
    pub session: Option<Id>,
}

impl Refusal {
    /// Without a session that is kept.
    pub fn plain(finding: Finding) -> Refusal {
        Refusal { finding, handshake: false, session: None }
    }

    fn handshake(finding: Finding) -> Refusal {
        Refusal { finding, handshake: true, session: None }
    }
}

/// There is no connection to a host, for this reason.
pub fn unreachable(candidate: &Candidate, why: &io::Error) -> Finding {
    Finding::ours(Status::new(4, 4, 1), format!("connect to {candidate}: {}", reason(why)))
}

/// Tells apart hosts, and ways to one host, whose connections can't take each other's place.
pub fn host_key(candidate: &Candidate, language: Language, way: &Way) -> String {
    format!("{language:?} {candidate} {}", way.key())
}

fn cover(way: &Way) -> Cover {
    match way.tls {
        None => Cover::Plain,
        Some(_) if way.implicit => Cover::Already,
        Some(Demand::Anything) => Cover::May,
        Some(Demand::Encryption | Demand::Certificate) => Cover::Must,
    }
}

impl Connection {
    /// Turns `stream`, which leads to `candidate`, to TLS if that is the way, and exchanges greetings.
    pub fn open(
        candidate: &Candidate,
        stream: Stream,
        manner: &Manner<'_>,
        office: &Office,
    ) -> Result<Connection, Refusal> {
        let Office { flight, sessions, .. } = office;
        let failed = |error| Refusal::plain(unreachable(candidate, &error));
        let line = flight.line(stream.breaker().map_err(failed)?);
        let client = Client::new(manner.language, manner.hostname.to_string(), cover(manner.way));
        let mut connection = Connection {
            stream,
            client: if manner.chunking { client } else { client.without_chunking() },
            peer: candidate.to_string(),
            input: Vec::new(),
            reader: ReplyReader::default(),
            transactions: 0,
            assurance: None,
            host: host_key(candidate, manner.language, manner.way),
            recorder: Recorder::new(&candidate.to_string(), sessions),
            odd: None,
            last_words: None,
            _line: line,
        };
        match connection.introduce(candidate, manner) {
            Ok(()) => Ok(connection),
            Err(refusal) => {
                let recorder = &mut connection.recorder;
                if !refusal.finding.said {
                    recorder.note(&refusal.finding.text);
                }
                Err(Refusal { session: Some(recorder.is_odd()), ..refusal })
            }
        }
    }

    /// TLS, greetings, and the login.
    fn introduce(&mut self, candidate: &Candidate, manner: &Manner<'_>) -> Result<(), Refusal> {
        if manner.way.implicit {
            self.secure(candidate, manner).map_err(Refusal::handshake)?;
        }
        self.greet(candidate, manner)?;
        if let Some(login) = manner.login {
            let logged_in = self.log_in(login);
            self.recorder.hide(false);
            if logged_in.is_ok() { &count::LOGINS } else { &count::NO_LOGINS }.add(1);
            if let Err(finding) = logged_in {
                self.say_quit();
                return Err(Refusal::plain(finding));
            }
        }
        Ok(())
    }

    /// Everything before the first message.
    fn greet(&mut self, candidate: &Candidate, manner: &Manner<'_>) -> Result<(), Refusal> {
        let mut event = Event::Opened;
        loop {
            match self.talk(event, None) {
                Action::Secure if !self.input.is_empty() => {
                    // CVE-2021-38371: it would pass for an answer under TLS.
                    let text = format!("{} said more than it was asked before TLS began", self.peer);
                    event = Event::Broken(Finding::ours(Status::new(4, 7, 5), text));
                }
                Action::Secure => match self.secure(candidate, manner) {
                    Ok(()) => event = Event::Secured,
                    Err(finding) => return Err(Refusal::handshake(finding)),
                },
                Action::Failed(finding) => {
                    self.say_quit();
                    return Err(Refusal::plain(finding));
                }
                _ => return Ok(()),
            }
        }
    }

    /// The TLS handshake, whole, within its time.
    fn secure(&mut self, candidate: &Candidate, manner: &Manner<'_>) -> Result<(), Finding> {
        let demand = manner.way.tls.unwrap_or(Demand::Anything);
        self.stream.set_deadline(Some(Instant::now() + HANDSHAKE));
        match self.stream.secure_to(candidate.name(), manner.connector, demand) {
            Ok(assurance) => {
                self.assurance = Some(assurance);
                self.recorder.note(&self.cover());
                count::TLS.add(1);
                Ok(())
            }
            Err(fault) => {
                count::NO_TLS.add(1);
                Err(Finding::ours(Status::new(4, 7, 5), format!("TLS with {}: {fault}", self.peer)))
            }
        }
    }

    /// Shows the host who we are (RFC 4954), only where nobody can listen. That it doesn't come about is
    /// for the administrator to mend: the mail waits.
    fn log_in(&mut self, login: &Login) -> Result<(), Finding> {
        let peer = self.peer.clone();
        let failed = |why: &dyn std::fmt::Display| {
            Finding::ours(Status::new(4, 7, 8), format!("login at {peer}: {why}"))
        };
        let near = self.stream.peer_address().is_none_or(|peer| peer.ip().to_canonical().is_loopback());
        if self.stream.security().is_none() && !near {
            return Err(failed(&"no password goes out without TLS"));
        }
        let kinds = [
            (Binding::Exporter, stream::Binding::Exporter),
            (Binding::ServerEndPoint, stream::Binding::ServerEndPoint),
        ];
        let bindings: Vec<_> =
            kinds.into_iter().filter_map(|(name, kind)| Some((name, self.stream.binding(kind)?))).collect();
        let nonce = STANDARD.encode(random::octets::<18>().map_err(|error| failed(&error))?);
        let (mut exchange, first) = Exchange::begin(login, &self.client.offer().auth, &bindings, &nonce)
            .ok_or_else(|| failed(&"it offers no mechanism that we know"))?;
        let mut event = Event::Login(exchange.mechanism().name().to_string(), first);
        loop {
            let action = self.talk(event, None);
            // After the command all that we say is an answer to a challenge.
            self.recorder.hide(true);
            event = match action {
                Action::Challenged(challenge) => {
                    Event::Answer(Some(exchange.answer(&challenge).map_err(|why| failed(&why))?))
                }
                Action::Failed(finding) => return Err(finding),
                _ => return exchange.is_over().map_err(|why| failed(&why)),
            };
        }
    }
}
