//! A speaker without a socket: does for a session of `smtp::server` what a worker of posta-smtpd
//! does, in memory. The dialogues, the model and the fuzz targets talk to it.
#![allow(dead_code)] // each of them needs another part of it

use std::sync::Arc;

use posta::mail::address::ReversePath;
use posta::mail::envelope::BodyKind;
use posta::mail::id::Id;
use posta::smtp::chunk::ChunkReader;
use posta::smtp::data::DataReader;
use posta::smtp::introduction::Introduction;
use posta::smtp::line::{Line, LineReader};
use posta::smtp::server::{
    Action, DataFault, Event, LogIn, Mechanisms, Proof, Question, Server, Service, Settings, Verdict,
};

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

/// Who there is, and how far an exchange of PLAIN or LOGIN has come.
#[derive(Default)]
pub struct Passwords {
    pub known: Vec<(String, String)>,
    /// Passwords can't be checked just now.
    pub broken: bool,
    mechanism: String,
    user: Option<String>,
}

impl Passwords {
    fn begin(&mut self, mechanism: String, initial: Option<Vec<u8>>) -> LogIn {
        (self.mechanism, self.user) = (mechanism, None);
        match (initial, self.mechanism.as_str()) {
            _ if self.broken => LogIn::Later,
            (Some(initial), _) => self.respond(&initial),
            (None, "LOGIN") => LogIn::Challenge(b"Username:".to_vec()),
            (None, _) => LogIn::Challenge(Vec::new()),
        }
    }

    fn respond(&mut self, response: &[u8]) -> LogIn {
        let text = String::from_utf8_lossy(response).into_owned();
        let (user, password) = match (self.mechanism.as_str(), self.user.take()) {
            ("LOGIN", None) => {
                self.user = Some(text);
                return LogIn::Challenge(b"Password:".to_vec());
            }
            ("LOGIN", Some(user)) => (user, text),
            _ => match text.split('\0').collect::<Vec<_>>()[..] {
                [_, user, password] => (user.to_string(), password.to_string()),
                _ => return LogIn::Refused,
            },
        };
        if self.known.iter().any(|known| (&known.0, &known.1) == (&user, &password)) {
            LogIn::Done(user)
        } else {
            LogIn::Refused
        }
    }
}

/// What a speaker is set up with.
pub struct House {
    pub settings: Settings,
    pub service: Service,
    pub passwords: Passwords,
    /// A handshake fails.
    pub no_handshake: bool,
    pub max_line: usize,
    pub max_hops: usize,
    /// A client that had to wait and did not is told so.
    pub strict: bool,
    /// What is wrong with the disk: noticed when a draft is opened.
    pub disk: Option<DataFault>,
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
            service: Service::default(),
            passwords: Passwords::default(),
            no_handshake: false,
            max_line: 512,
            max_hops: 100,
            strict: false,
            disk: None,
            judge: Box::new(|_| Verdict::Accept(None)),
        }
    }
}

/// What the next octets are.
enum Incoming {
    Commands,
    Data(Box<DataReader>, Vec<u8>),
    /// So many octets are still to come.
    Chunk {
        left: u64,
        last: bool,
    },
    Unwanted(u64, Action),
}

/// With STARTTLS, and passwords under TLS.
pub fn full_service() -> Service {
    let secure = vec!["PLAIN".to_string(), "LOGIN".to_string()];
    let mechanisms = Arc::new(Mechanisms { secure, plain: vec![] });
    Service { starttls: true, mechanisms, ..Service::default() }
}

/// One session.
pub struct Speaker {
    house: House,
    server: Server<Stored>,
    lines: LineReader,
    incoming: Incoming,
    /// The draft of a message that comes in chunks.
    chunks: Option<(ChunkReader, Vec<u8>)>,
    /// Whom the client was introduced as.
    pub introduced: Option<Introduction>,
    /// What the client has been sent.
    pub said: Vec<u8>,
    pub closed: bool,
    pub stored: Vec<Message>,
}

impl Speaker {
    pub fn new(house: House) -> Speaker {
        let server = Server::new(Arc::new(house.settings.clone()), house.service.clone());
        let lines = LineReader::new(house.max_line);
        let mut speaker = Speaker {
            house,
            server,
            lines,
            incoming: Incoming::Commands,
            chunks: None,
            introduced: None,
            said: vec![],
            closed: false,
            stored: vec![],
        };
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
        while !self.closed && self.step() {}
    }

    /// Does one thing with what has come. `false`: that has to be more.
    fn step(&mut self) -> bool {
        match std::mem::replace(&mut self.incoming, Incoming::Commands) {
            Incoming::Data(reader, content) => self.read_data(reader, content),
            Incoming::Chunk { left, last } => self.read_chunk(left, last),
            Incoming::Unwanted(left, then) => self.swallow(left, then),
            Incoming::Commands => {
                self.lines.expect_exchange(self.server.is_logging_in());
                let action = match self.lines.next() {
                    None => return false,
                    Some(Line::Whole(line)) => self.server.on(Event::Line(line)),
                    Some(Line::Long) => self.server.on(Event::LongLine),
                    Some(Line::BareLineEnd) => self.server.on(Event::BareLineEnd),
                };
                self.act(action);
                true
            }
        }
    }

    /// Something else has happened.
    pub fn tell(&mut self, event: Event<'_, Stored>) {
        let action = self.server.on(event);
        self.act(action);
    }

    fn act(&mut self, action: Action) {
        let is_secure = matches!(action, Action::Secure { .. });
        let too_soon = self.server.client_must_wait() && !self.lines.is_empty();
        let action = if too_soon && (self.house.strict || is_secure) {
            self.server.on(Event::TooSoon)
        } else {
            action
        };
        match action {
            Action::Say(reply) => reply.write_to(&mut self.said),
            Action::SayEach(replies) => replies.iter().for_each(|reply| reply.write_to(&mut self.said)),
            Action::Listen => {}
            Action::Judge(question) => {
                let verdict = (self.house.judge)(&question);
                self.tell(Event::Judged(verdict));
            }
            Action::Introduce(introduction) => {
                self.introduced = Some(*introduction);
                self.tell(Event::Judged(Verdict::Accept(None)));
            }
            Action::Secure { go_ahead } => {
                go_ahead.write_to(&mut self.said);
                if self.house.no_handshake {
                    self.closed = true;
                } else {
                    self.tell(Event::Secured);
                }
            }
            Action::LogIn { mechanism, initial } => {
                let step = self.house.passwords.begin(mechanism, initial);
                self.tell(Event::LogIn(step));
            }
            Action::Respond(response) => {
                let step = self.house.passwords.respond(&response);
                self.tell(Event::LogIn(step));
            }
            Action::TakeData { go_ahead } => match self.house.disk.clone() {
                Some(fault) => self.tell(Event::NoPlace(fault)),
                None => {
                    go_ahead.write_to(&mut self.said);
                    let reader = DataReader::new(self.house.settings.max_message_size, self.house.max_hops);
                    self.incoming = Incoming::Data(Box::new(reader), Vec::new());
                }
            },
            Action::TakeChunk { size, last } => self.incoming = Incoming::Chunk { left: size, last },
            Action::Swallow { size, then } => self.incoming = Incoming::Unwanted(size, *then),
            Action::HangUp(reply) => {
                reply.write_to(&mut self.said);
                self.closed = true;
            }
        }
        if self.server.transaction().is_none() {
            self.chunks = None;
        }
    }

    fn read_data(&mut self, mut reader: Box<DataReader>, mut content: Vec<u8>) -> bool {
        let progress = reader.feed(self.lines.unread(), &mut |piece| content.extend_from_slice(piece));
        self.lines.consume(progress.consumed);
        if !progress.done {
            self.incoming = Incoming::Data(reader, content);
            return false;
        }
        self.finish(reader.fault().cloned(), content);
        true
    }

    fn read_chunk(&mut self, left: u64, last: bool) -> bool {
        let Settings { max_message_size, .. } = self.house.settings;
        let binary = self.server.transaction().is_some_and(|t| t.body == BodyKind::BinaryMime);
        let begin = || (ChunkReader::new(max_message_size, self.house.max_hops, binary), Vec::new());
        let (reader, content) = self.chunks.get_or_insert_with(begin);
        let unread = self.lines.unread();
        let count = unread.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.feed(&unread[..count], &mut |piece| content.extend_from_slice(piece));
        self.lines.consume(count);
        if (count as u64) < left {
            self.incoming = Incoming::Chunk { left: left - count as u64, last };
            return false;
        }
        if let Some(fault) = self.house.disk.clone() {
            self.tell(Event::NoPlace(fault));
        } else if last {
            reader.finish(&mut |piece| content.extend_from_slice(piece));
            let (reader, content) = self.chunks.take().unwrap();
            self.finish(reader.fault().cloned(), content);
        } else {
            let outcome = reader.fault().cloned().map_or(Ok(()), Err);
            self.tell(Event::Chunk(outcome));
        }
        true
    }

    fn swallow(&mut self, left: u64, then: Action) -> bool {
        let count = self.lines.unread().len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.lines.consume(count);
        let done = count as u64 == left;
        if done {
            self.act(then);
        } else {
            self.incoming = Incoming::Unwanted(left - count as u64, then);
        }
        done
    }

    /// The message is there; stores it if nothing is wrong with it.
    fn finish(&mut self, fault: Option<DataFault>, content: Vec<u8>) {
        match fault {
            Some(fault) => self.tell(Event::Data(Err(fault))),
            None => {
                let message = self.message(content);
                self.stored.push(message);
                self.tell(Event::Data(Ok(Stored)));
            }
        }
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
