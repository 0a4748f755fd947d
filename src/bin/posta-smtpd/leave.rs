//! How a session ends: after our last word, or without one.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use posta::smtp::reply::Reply;
use posta::smtp::server::Action;

use crate::session::{Loss, Session};

/// After our last word a client that is still talking is listened to for so long, and so much.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 1024 * 1024);

impl Session {
    /// Ends the connection after our last word. A client that is talking still is listened to for a
    /// moment: closing at once would make the last word get lost.
    pub(crate) fn part(&mut self, last_word: &Reply) {
        let (time, mut most) = LINGER;
        self.stream.set_deadline(Some(Instant::now() + time));
        let talks_on = last_word.code >= 400
            && (!self.lines.is_empty() || self.stream.readable_within(Duration::ZERO).unwrap_or_default());
        // Under TLS there is a goodbye to say in any case; who does not hear it has gone.
        let said = (talks_on || self.server.is_secure()).then(|| self.stream.finish_writing());
        if !talks_on || said.is_some_and(|said| said.is_err()) {
            return;
        }
        let mut sink = [0; 4096];
        while most > 0 {
            match self.stream.read(&mut sink) {
                Ok(0) | Err(_) => return,
                Ok(count) => most = most.saturating_sub(count),
            }
        }
    }

    /// The last line but one of a session that was lost.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.flight.note(format_args!("{}", loss.word()));
        self.flight.is_odd();
        let (stage, peer) = (self.tally.stage(), self.guest.peer());
        match loss {
            Loss::Gone | Loss::Unsecured => log::info!("lost connection after {stage} from {peer}"),
            Loss::Deaf => log::info!("replies not taken after {stage} by {peer}"),
            // In the middle of a message, where only the end of data has an answer. RFC 5321 3.8: the
            // client may be told all the same, and is as well off if it can't be.
            Loss::Late => {
                if let Action::HangUp(reply) = self.overdue() {
                    let mut word = Vec::new();
                    reply.write_to(&mut word);
                    self.stream.set_deadline(Some(Instant::now() + LINGER.0));
                    let _ = self.stream.write_all(&word);
                }
            }
        }
    }
}
