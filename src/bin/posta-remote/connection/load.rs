//! The content of a message on its way into a connection: after DATA, or in chunks.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use posta::mail::envelope::BodyKind;

use posta::smtp::client::content::Stuffer;
use posta::smtp::client::session::{BLOCK_LIMIT, Event, Phase};

use crate::message::{Content, Message};

use super::{Bench, Connection, LAST_WORDS, unreadable};

/// Slowest rate at which a server may take a message, in octets a second, once ten minutes are over.
const SLOWEST: u64 = 4096;
/// A chunk has so many octets and at most a block more, but for the last. Fewer would have more
/// answers than need be; more would be more in memory, and later to be refused.
const CHUNK: usize = 64 * 1024;

/// A message that is being sent.
pub(super) struct Load<'m> {
    trace: &'m [u8],
    content: Content<'m>,
    /// Makes lines of it; `None`: it goes as it is (RFC 3030 3).
    stuffer: Option<Stuffer>,
    bench: &'m mut Bench,
    /// How long the whole may take.
    limit: Duration,
    /// When it has to be out, once it has begun.
    until: Option<Instant>,
}

impl<'m> Load<'m> {
    /// A message of which nothing has gone out. `chunked`: it goes in chunks.
    pub(super) fn new(
        message: &'m Message<'_>,
        body: BodyKind,
        chunked: bool,
        bench: &'m mut Bench,
    ) -> Load<'m> {
        let stuffer = match body {
            BodyKind::BinaryMime => None,
            _ if chunked => Some(Stuffer::without_dots()),
            _ => Some(Stuffer::default()),
        };
        let limit = Duration::from_secs(600 + message.length() / SLOWEST);
        Load { trace: message.trace, content: message.content(), stuffer, bench, limit, until: None }
    }

    /// Puts the next octets into the bench's `octets`, at least so many unless they are the last; says
    /// whether they are. The trace fields go along with the first block, so a small message is one.
    fn fill(&mut self, least: usize) -> io::Result<bool> {
        let Bench { block, octets: out, .. } = &mut *self.bench;
        out.clear();
        match &mut self.stuffer {
            Some(stuffer) => stuffer.push(std::mem::take(&mut self.trace), out),
            None => out.extend_from_slice(std::mem::take(&mut self.trace)),
        }
        loop {
            let (read, is_last) = self.content.next(block)?;
            match &mut self.stuffer {
                Some(stuffer) => stuffer.push(read, out),
                None => out.extend_from_slice(read),
            }
            if is_last && let Some(stuffer) = self.stuffer.take() {
                stuffer.finish(out);
            }
            if is_last || out.len() >= least {
                return Ok(is_last);
            }
        }
    }

    /// The deadline of a write that begins now.
    fn deadline(&mut self) -> Instant {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.limit);
        until.min(now + BLOCK_LIMIT)
    }
}

impl Connection {
    /// Sends all of it, up to and with the final dot.
    pub(super) fn send_content(&mut self, load: &mut Load<'_>) -> Event {
        loop {
            let is_last = match load.fill(0) {
                Ok(is_last) => is_last,
                // The dot must not follow: the connection is of no more use.
                Err(error) => return Event::Broken(unreadable(&error)),
            };
            self.stream.set_deadline(Some(load.deadline()));
            if let Err(error) = self.stream.write_all(&load.bench.octets) {
                return self.halt(&error);
            }
            if is_last {
                self.recorder.note("the message, and the final dot");
                return Event::Sent;
            }
        }
    }

    /// Sends the next chunk (RFC 3030 2), behind these commands. Without any, an answer that has come
    /// to an earlier chunk goes first.
    pub(super) fn send_chunk(&mut self, commands: Vec<u8>, load: &mut Load<'_>) -> Event {
        let has_answer =
            || !self.input.is_empty() || self.stream.readable_within(Duration::ZERO).unwrap_or(true);
        if commands.is_empty() && has_answer() {
            return self.receive(Phase::Chunk);
        }
        let is_last = match load.fill(CHUNK) {
            Ok(is_last) => is_last,
            Err(error) => return Event::Broken(unreadable(&error)),
        };
        let Bench { octets, wire, .. } = &mut *load.bench;
        wire.clear();
        wire.extend_from_slice(&commands);
        let last = if is_last { " LAST" } else { "" };
        wire.extend_from_slice(format!("BDAT {}{last}\r\n", octets.len()).as_bytes());
        self.recorder.said(wire);
        wire.extend_from_slice(octets);
        self.stream.set_deadline(Some(load.deadline()));
        match self.stream.write_all(&load.bench.wire) {
            Ok(()) => Event::ChunkSent(is_last),
            Err(error) => self.halt(&error),
        }
    }

    /// A server that stops listening may have said why before it went.
    fn halt(&mut self, error: &io::Error) -> Event {
        self.last_words = Some(Instant::now() + LAST_WORDS);
        let finding = self.broken(error, "sending the message");
        self.recorder.note(&finding.text);
        Event::Halted(finding)
    }
}
