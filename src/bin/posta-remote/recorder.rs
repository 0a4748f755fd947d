//! What was said last in a session, kept if something went wrong in it: for `postactl session`.

use std::sync::Arc;

use posta::mail::id::Id;

use posta::smtp::client::reply::Reply;

use posta::logbook::flight::Flight;
use posta::logbook::sessions::Sessions;

use crate::count;

/// Writes a session down, and keeps it at its end if it was odd.
#[derive(Debug)]
pub struct Recorder {
    flight: Flight,
    peer: String,
    sessions: Arc<Sessions>,
    /// What we say now is for the server alone.
    hides: bool,
}

impl Recorder {
    /// For a session with `peer` that begins now.
    pub fn new(peer: &str, sessions: &Arc<Sessions>) -> Recorder {
        Recorder {
            flight: Flight::default(),
            peer: peer.to_string(),
            sessions: Arc::clone(sessions),
            hides: false,
        }
    }

    /// From now on our words are blotted out, or they no longer are. The command AUTH blots its own out.
    pub fn hide(&mut self, hides: bool) {
        self.hides = hides;
    }

    /// We have said these lines.
    pub fn said(&mut self, lines: &[u8]) {
        if self.hides { self.flight.said_secret() } else { self.flight.said(lines) }
    }

    /// The server has said this.
    pub fn heard(&mut self, reply: &Reply) {
        let last = reply.lines.len().saturating_sub(1);
        for (at, line) in reply.lines.iter().enumerate() {
            let mark = if at < last { '-' } else { ' ' };
            self.flight.heard(format!("{}{mark}{line}", reply.code).as_bytes());
        }
    }

    /// Something has happened beside what was said.
    pub fn note(&mut self, what: &str) {
        self.flight.note(format_args!("{what}"));
    }

    /// Something has gone wrong: the session is kept, under this name.
    pub fn is_odd(&mut self) -> Id {
        self.flight.is_odd()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(session) = self.flight.name() {
            count::ODD.add(1);
            let text = format!("session {session} with {}\n{}", self.peer, self.flight.text());
            self.sessions.keep(session, &text);
        }
    }
}
