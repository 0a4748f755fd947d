//! The server's side of a session: `on(event) -> action`.
//!
//! ```text
//! Opened ──▶ Say 220
//! Line   ──▶ Say │ Judge ──▶ Judged ──▶ Say                        MAIL, RCPT     (envelope)
//!                │ TakeData ──▶ Data ──▶ Say                       DATA           (message)
//!                │ TakeChunk ──▶ Chunk │ Data ──▶ Say, Swallow     BDAT           (message)
//!                │ Secure ──▶ Secured ──▶ Listen                   STARTTLS       (client)
//!                │ LogIn ──▶ LogIn ──▶ Say 334, Line ──▶ Respond   AUTH           (login)
//!                │ Introduce ──▶ Judged ──▶ Say                    XCLIENT        (client)
//!                └ HangUp                                          QUIT, too many errors, another protocol
//! ```
//!
//! What is kept between two events is what is known of the client, the transaction, the question
//! that is open, and a count of errors: nothing that grows with the number of commands, but for the
//! recipients of one message, which have a limit.

mod client;
mod envelope;
mod login;
mod message;
#[cfg(test)]
mod trial;

use std::marker::PhantomData;
use std::sync::Arc;

use crate::mail::address::{Mailbox, ReversePath, parse_domain};

use super::command::{self, Command};
pub use super::event::{Action, DataFault, Event, LogIn, Proof, Question, Verdict};
use super::extension::{MailParams, RcptParams};
use super::introduction::Introduction;
use super::reply::Reply;
use super::rule::{self, Rule};
pub use super::transaction::Transaction;

use client::Greeted;

/// So many commands that lead to no message are no error. Some clients look with them whether a
/// connection that they keep still lives.
const IDLE_COMMANDS: u32 = 100;

/// What the session is told of its server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names us in the greeting.
    pub hostname: String,
    /// Announced and enforced (RFC 1870), in octets.
    pub max_message_size: u64,
    /// Per transaction; more get 452 4.5.3.
    pub max_recipients: usize,
    /// Wrong commands and refused senders and recipients since the last accepted message, and commands
    /// that lead to none beyond the first hundred; one more ends the session with 421.
    pub max_errors: usize,
}

/// What this client is offered, by where it came in and who it is.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// The session is LMTP (RFC 2033) and not SMTP.
    pub lmtp: bool,
    /// Users hand their mail in (RFC 6409).
    pub submission: bool,
    /// It can be turned to TLS by STARTTLS.
    pub starttls: bool,
    /// It has been under TLS since its first octet.
    pub secure: bool,
    /// How a client may show who it is.
    pub mechanisms: Arc<Mechanisms>,
    /// The client may speak for others with XCLIENT.
    pub xclient: bool,
    /// The client may say with XFORWARD from whom it has a message.
    pub xforward: bool,
}

/// The mechanisms of AUTH (RFC 4954), in the order in which they are offered, in capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// Under TLS.
    pub secure: Vec<String>,
    /// Without it: none, unless whoever reads along is trusted.
    pub plain: Vec<String>,
}

/// A session.
#[derive(Debug)]
pub struct Server<P> {
    settings: Arc<Settings>,
    service: Service,
    /// Under TLS.
    secure: bool,
    greeted: Option<Greeted>,
    login: Option<String>,
    /// What XFORWARD has said, for the next message.
    forwarded: Option<Box<Introduction>>,
    transaction: Option<Transaction>,
    /// A chunk was refused, and those that were sent after it before the client could know go the
    /// same way.
    chunk_refused: bool,
    open: Option<Open>,
    client_must_wait: bool,
    errors: usize,
    /// Commands since the last accepted message that lead to none.
    idle_commands: u32,
    proof: PhantomData<fn(P)>,
}

/// What an action has asked for and an event will answer.
#[derive(Debug)]
enum Open {
    Sender(ReversePath, MailParams),
    Recipient(Option<Mailbox>, RcptParams),
    Introduction(Box<Introduction>),
    Handshake,
    /// The exchange waits for the house.
    LogIn,
    /// The exchange waits for the client.
    Response,
    Data,
    Chunk(u64),
    LastChunk,
}

impl<P: Proof> Server<P> {
    /// A session before its greeting.
    pub fn new(settings: Arc<Settings>, service: Service) -> Server<P> {
        Server {
            settings,
            secure: service.secure,
            service,
            greeted: None,
            login: None,
            forwarded: None,
            transaction: None,
            chunk_refused: false,
            open: None,
            client_must_wait: true,
            errors: 0,
            idle_commands: 0,
            proof: PhantomData,
        }
    }

    /// What is to be done about `event`.
    pub fn on(&mut self, event: Event<'_, P>) -> Action {
        self.client_must_wait = false;
        match (event, self.open.take()) {
            (Event::Opened, _) => self.greeting(),
            (Event::Line(line), Some(Open::Response)) => self.response(line),
            (Event::Line(line), _) => self.line(line),
            (Event::LongLine, _) => self.wrong(Reply::coded(500, 5, 2, "line too long")),
            (Event::BareLineEnd, _) => {
                self.wrong(Reply::coded(500, 5, 2, "bare CR or LF in a command; end every line with CR LF"))
            }
            (Event::TooSoon, _) => {
                Action::HangUp(rule::TALKED_FIRST.reply("wait for the reply before you send more"))
            }
            (Event::Judged(verdict), Some(Open::Sender(sender, params))) => {
                self.sender_judged(verdict, sender, params)
            }
            (Event::Judged(verdict), Some(Open::Recipient(recipient, params))) => {
                self.recipient_judged(verdict, recipient, params)
            }
            (Event::Judged(verdict), Some(Open::Introduction(introduction))) => {
                self.introduced(verdict, *introduction)
            }
            (Event::Secured, Some(Open::Handshake)) => self.secured(),
            (Event::LogIn(step), Some(Open::LogIn)) => self.log_in_step(step),
            (Event::NoPlace(fault), Some(Open::Data | Open::Chunk(_))) => self.no_place(fault, false),
            (Event::NoPlace(fault), Some(Open::LastChunk)) => self.no_place(fault, true),
            (Event::Chunk(outcome), Some(Open::Chunk(size))) => self.chunk_taken(outcome, size),
            (Event::Data(outcome), Some(Open::Data | Open::LastChunk)) => self.message_taken(outcome),
            (Event::TimedOut, _) => {
                self.hang_up(&rule::IDLE, "no command came in time; connect again when you have one")
            }
            (Event::Closing, _) => self.hang_up(&rule::CLOSING, "going down; try again later"),
            // An answer that nobody asked for: the speaker is out of step, and a guess could be a
            // message lost.
            _ => self.hang_up(&rule::FAULT, "internal fault; try again later"),
        }
    }

    /// The transaction under way.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// What the client called itself, and whether by EHLO or LHLO.
    pub fn greeted_as(&self) -> Option<(&str, bool)> {
        self.greeted.as_ref().map(|greeted| (greeted.name.as_str(), greeted.extended))
    }

    /// Whether the session is under TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Who the client has shown to be.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// What completes a user's address without a domain (RFC 6409 8.1): the login's domain, or else this
    /// host's own name. None: the client is nobody of ours, and has to write addresses out.
    pub fn domain_of_users(&self) -> Option<&str> {
        let domain = self.login.as_deref().and_then(|login| Some(login.rsplit_once('@')?.1));
        // Where a trusted host has told it, a login's domain may be any word.
        let known = domain.filter(|domain| parse_domain(domain).is_ok());
        let is_user = self.service.submission || self.login.is_some();
        is_user.then(|| known.unwrap_or(&self.settings.hostname))
    }

    /// From whom the client has the message that it is about to send, if it said so.
    pub fn forwarded(&self) -> Option<&Introduction> {
        self.forwarded.as_deref()
    }

    /// Whether an exchange of AUTH is under way: the next line is a word of it.
    pub fn is_logging_in(&self) -> bool {
        matches!(self.open, Some(Open::Response))
    }

    /// Wrong commands and refused senders and recipients since the last accepted message, and commands
    /// that led to none, beyond the first hundred.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether the client has to wait for our next word before it sends anything: at the beginning
    /// (RFC 5321 3.1), after HELO, EHLO and DATA (RFC 2920 3.1), STARTTLS and AUTH. See
    /// [`Event::TooSoon`].
    pub fn client_must_wait(&self) -> bool {
        self.client_must_wait
    }

    fn line(&mut self, line: &[u8]) -> Action {
        let command = command::parse_completing(line, self.domain_of_users());
        if let Ok(command) = &command
            && leads_nowhere(command)
            && self.is_idle_for_too_long()
        {
            return self.too_many_errors();
        }
        match command {
            Ok(Command::Hello { name, salute }) => self.hello(name, salute),
            Ok(Command::StartTls) => self.start_tls(),
            Ok(Command::Auth { mechanism, initial }) => self.auth(mechanism, initial),
            Ok(Command::Mail { sender, params }) => self.mail(sender, params),
            Ok(Command::Rcpt { recipient, params }) => self.rcpt(recipient, params),
            Ok(Command::Data) => self.data(),
            Ok(Command::Bdat { size, last }) => self.bdat(size, last),
            Ok(Command::Rset) => {
                self.reset();
                Action::Say(Reply::coded(250, 0, 0, "Ok"))
            }
            Ok(Command::Noop) => Action::Say(Reply::coded(250, 0, 0, "Ok")),
            Ok(Command::Vrfy { lacks_utf8: true }) => self.wrong(envelope::no_utf8("user")),
            // RFC 5321 3.5.3 and 7.3: the same for everybody, so that nobody is found by it.
            Ok(Command::Vrfy { .. }) => Action::Say(Reply::coded(252, 0, 0, "not told; send mail and see")),
            Ok(Command::Xclient(attributes)) => self.xclient(attributes),
            Ok(Command::Xforward(attributes)) => self.xforward(attributes),
            Ok(Command::Help) => Action::Say(Reply::coded(214, 0, 0, self.commands())),
            Ok(Command::Quit) => Action::HangUp(Reply::coded(221, 0, 0, "Bye")),
            Ok(Command::NotOffered(verb)) => self.not_offered(verb),
            Ok(Command::Foreign) => {
                self.hang_up(&rule::FOREIGN, "this is a mail server: it speaks SMTP only")
            }
            Err(error) => self.wrong(error.reply()),
        }
    }

    /// What HELP says.
    fn commands(&self) -> String {
        let hello = if self.service.lmtp { "LHLO" } else { "EHLO HELO" };
        format!("{hello} MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS AUTH HELP QUIT, as RFC 5321 has them")
    }

    /// Drops the transaction, and all that was said for it.
    fn reset(&mut self) {
        self.transaction = None;
        self.forwarded = None;
        self.chunk_refused = false;
    }

    /// RFC 5321 4.2.4: a command that we know and don't do here.
    fn not_offered(&mut self, verb: &str) -> Action {
        self.wrong(Reply::coded(502, 5, 1, format!("{verb} is not offered here")))
    }

    /// A command that has its place, which is not here.
    fn out_of_order(&mut self, what: &str) -> Action {
        self.wrong(Reply::coded(503, 5, 1, what))
    }

    /// A refusal counts as an error if it is for good. What may be accepted later is not the
    /// client's fault.
    fn refused(&mut self, reply: Reply) -> Action {
        if reply.is_permanent_failure() { self.wrong(reply) } else { Action::Say(reply) }
    }

    /// An error of the client's. RFC 5321 4.3.2 and 7.8: there must be an end to them.
    fn wrong(&mut self, reply: Reply) -> Action {
        self.errors += 1;
        if self.errors > self.settings.max_errors { self.too_many_errors() } else { Action::Say(reply) }
    }

    /// Counts a command that leads to no message. RFC 5321 7.8: who never comes to the point has no
    /// right to a place.
    fn is_idle_for_too_long(&mut self) -> bool {
        self.idle_commands = self.idle_commands.saturating_add(1);
        self.errors += usize::from(self.idle_commands > IDLE_COMMANDS);
        self.errors > self.settings.max_errors
    }

    fn too_many_errors(&self) -> Action {
        self.hang_up(&rule::ERRORS, "too many errors; put them right and connect again")
    }

    /// RFC 5321 3.8: 421 can be said at any time.
    fn hang_up(&self, rule: &Rule, text: &str) -> Action {
        Action::HangUp(rule.reply(format!("{} {text}", self.settings.hostname)))
    }
}

/// Whether a command is one with which a client can go on for ever, without a message or an error.
fn leads_nowhere(command: &Command) -> bool {
    matches!(
        command,
        Command::Hello { .. }
            | Command::Rset
            | Command::Noop
            | Command::Vrfy { .. }
            | Command::Help
            | Command::Xforward(_)
    )
}

#[cfg(test)]
mod tests {
    use super::trial::{Stored, code, say, session};
    use super::*;

    #[test]
    fn errors_come_to_an_end_and_a_message_wipes_them_out() {
        let mut server = session(2);
        let errors = |server: &mut Server<Stored>| [say(server, "FROB"), say(server, "DATA now")];
        assert_eq!(errors(&mut server), [500, 501]);
        for line in ["EHLO client", "MAIL FROM:<>", "RCPT TO:<a@b>", "DATA"] {
            say(&mut server, line);
        }
        let _ = server.on(Event::Data(Ok(Stored)));
        assert_eq!(errors(&mut server), [500, 501]);
        assert_eq!(server.errors(), 2);
        let action = server.on(Event::BareLineEnd);
        assert!(matches!(action, Action::HangUp(Reply { code: 421, .. })));
    }

    #[test]
    fn who_never_comes_to_the_point_is_sent_away() {
        let mut server = session(2);
        let idle = ["NOOP", "RSET", "VRFY a", "HELP", "EHLO client"];
        for round in 0..2 {
            for line in idle.iter().cycle().take(IDLE_COMMANDS as usize + 2) {
                assert!(say(&mut server, line) < 300, "{round} {line}");
            }
            for line in ["MAIL FROM:<>", "RCPT TO:<a@b>", "DATA"] {
                say(&mut server, line);
            }
            let _ = server.on(Event::Data(Ok(Stored)));
        }
        for _ in 0..IDLE_COMMANDS + 2 {
            say(&mut server, "RSET");
        }
        assert!(matches!(server.on(Event::Line(b"NOOP")), Action::HangUp(Reply { code: 421, .. })));
    }

    #[test]
    fn the_client_has_to_wait_where_the_law_says_so() {
        let mut server = session(9);
        for (line, waits) in
            [("EHLO a", true), ("MAIL FROM:<>", false), ("RCPT TO:<a@b>", false), ("DATA", true)]
        {
            say(&mut server, line);
            assert_eq!(server.client_must_wait(), waits, "{line}");
        }
        assert!(matches!(server.on(Event::TooSoon), Action::HangUp(Reply { code: 554, .. })));
        let mut server = session(9);
        let _ = server.on(Event::Line(b"STARTTLS"));
        assert!(server.client_must_wait());
    }

    #[test]
    fn an_answer_without_a_question_promises_nothing() {
        let answers: [fn() -> Event<'static, Stored>; 7] = [
            || Event::Data(Ok(Stored)),
            || Event::Chunk(Ok(())),
            || Event::NoPlace(DataFault::Full),
            || Event::Judged(Verdict::Accept(None)),
            || Event::Secured,
            || Event::LogIn(LogIn::Done("alice".to_string())),
            || Event::LogIn(LogIn::Challenge(vec![])),
        ];
        for answer in answers {
            let mut server = session(9);
            say(&mut server, "EHLO a");
            assert_eq!(code(&server.on(answer())), 421);
            assert!(server.login().is_none() && !server.is_secure());
            // Nor does one to another question.
            let mut server = session(9);
            for line in ["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b>"] {
                say(&mut server, line);
            }
            let _ = server.on(Event::Line(b"BDAT 3"));
            if !matches!(answer(), Event::Chunk(_) | Event::NoPlace(_)) {
                assert_eq!(code(&server.on(answer())), 421);
            }
        }
    }
}
