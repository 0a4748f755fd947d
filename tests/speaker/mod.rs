//! A speaker without a socket: does for a session of `smtp::server` what a worker of posta-smtpd
//! does, in memory. The dialogues, the model and the fuzz targets talk to it.
#![allow(dead_code)] // each of them needs another part of it

use std::sync::Arc;

use posta::mail::address::ReversePath;
use posta::mail::id::Id;
use posta::smtp::data::DataReader;
use posta::smtp::line::{Line, LineReader};
use posta::smtp::server::{Action, DataFault, Event, Proof, Question, Server, Settings, Verdict};

/// The queue id of every message here.
pub const ID: &str = "0123456789ABCDE";

/// Stands for the spool's proof.
#[derive(Debug)]
pub struct Stored;

impl Proof for Stored {
    fn id(&self) -> Id {
        Id::parse(ID).unwrap()
    }
}

/// A message that was answered with 250.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub sender: ReversePath,
    /// As on the wire, each with its ORCPT and NOTIFY if given.
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

/// What a speaker is set up with.
pub struct House {
    pub settings: Settings,
    pub max_line: usize,
    pub max_hops: usize,
    /// A client that had to wait and did not is told so.
    pub strict: bool,
    /// What is wrong with the disk: noticed when a draft is opened.
    pub disk: Option<DataFault>,
    /// What a rule says of every message, after its data.
    pub rule: Option<DataFault>,
    pub judge: Box<dyn FnMut(&Question) -> Verdict>,
}

impl Default for House {
    fn default() -> House {
        House {
            settings: Settings {
                hostname: "mx.example.org".to_string(),
                max_message_size: 1000,
                max_recipients: 100,
                max_errors: 20,
            },
            max_line: 512,
            max_hops: 100,
            strict: false,
            disk: None,
            rule: None,
            judge: Box::new(|_| Verdict::Accept(None)),
        }
    }
}

/// One session.
pub struct Speaker {
    house: House,
    server: Server<Stored>,
    lines: LineReader,
    data: Option<(DataReader, Vec<u8>)>,
    /// What the client has been sent.
    pub said: Vec<u8>,
    pub closed: bool,
    pub stored: Vec<Message>,
}

impl Speaker {
    pub fn new(house: House) -> Speaker {
        let server = Server::new(Arc::new(house.settings.clone()));
        let lines = LineReader::new(house.max_line);
        let mut speaker =
            Speaker { house, server, lines, data: None, said: vec![], closed: false, stored: vec![] };
        speaker.tell(Event::Opened);
        speaker
    }

    pub fn server(&self) -> &Server<Stored> {
        &self.server
    }

    /// Octets have come from the client.
    pub fn receive(&mut self, octets: &[u8]) {
        if self.closed {
            return;
        }
        self.lines.push(octets);
        while !self.closed {
            if self.data.is_some() {
                if !self.read_data() {
                    return;
                }
                continue;
            }
            let action = match self.lines.next() {
                None => return,
                Some(Line::Whole(line)) => self.server.on(Event::Line(line)),
                Some(Line::Long) => self.server.on(Event::LongLine),
                Some(Line::BareLineEnd) => self.server.on(Event::BareLineEnd),
            };
            self.act(action);
        }
    }

    /// Something else has happened.
    pub fn tell(&mut self, event: Event<'_, Stored>) {
        let action = self.server.on(event);
        self.act(action);
    }

    fn act(&mut self, action: Action) {
        let action = if self.house.strict && self.server.client_must_wait() && !self.lines.is_empty() {
            self.server.on(Event::TooSoon)
        } else {
            action
        };
        match action {
            Action::Say(reply) => reply.write_to(&mut self.said),
            Action::Judge(question) => {
                let verdict = (self.house.judge)(&question);
                self.tell(Event::Judged(verdict));
            }
            Action::TakeData { go_ahead } => match self.house.disk.clone() {
                Some(fault) => self.tell(Event::Data(Err(fault))),
                None => {
                    go_ahead.write_to(&mut self.said);
                    let reader = DataReader::new(self.house.settings.max_message_size, self.house.max_hops);
                    self.data = Some((reader, Vec::new()));
                }
            },
            Action::HangUp(reply) => {
                reply.write_to(&mut self.said);
                self.closed = true;
            }
        }
    }

    /// Whether the end of data has come.
    fn read_data(&mut self) -> bool {
        let Some((reader, content)) = &mut self.data else { return false };
        let progress = reader.feed(self.lines.unread(), &mut |piece| content.extend_from_slice(piece));
        self.lines.consume(progress.consumed);
        if !progress.done {
            return false;
        }
        let fault = reader.fault().cloned().or(self.house.rule.clone());
        let content = std::mem::take(content);
        self.data = None;
        match fault {
            Some(fault) => self.tell(Event::Data(Err(fault))),
            None => {
                let message = self.message(content);
                self.stored.push(message);
                self.tell(Event::Data(Ok(Stored)));
            }
        }
        true
    }

    fn message(&self, content: Vec<u8>) -> Message {
        let transaction = self.server.transaction().expect("data is taken in a transaction");
        let recipients = transaction.recipients.iter().map(|recipient| {
            let wishes = recipient.notify.keyword().map(|n| format!(" NOTIFY={n}"));
            let original = recipient.original.as_ref().map(|o| format!(" ORCPT={o}"));
            format!("<{}>{}{}", recipient.address, wishes.unwrap_or_default(), original.unwrap_or_default())
        });
        Message { sender: transaction.sender.clone(), recipients: recipients.collect(), content }
    }
}
