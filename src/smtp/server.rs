//! The server's side of a session: `on(event) -> action`.
//!
//! ```text
//! Opened ──▶ Say 220
//! Line   ──▶ Say │ Judge ──▶ Judged ──▶ Say           MAIL, RCPT
//!                │ TakeData ──▶ Data ──▶ Say          DATA
//!                └ HangUp                             QUIT, too many errors, another protocol
//! ```
//!
//! What is kept between two events is what the client called itself, the transaction, the question
//! that is open, and a count of errors: nothing that grows with the number of commands, but for the
//! recipients of one message, which have a limit.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::Recipient;

use super::command::{self, Command};
pub use super::event::{Action, DataFault, Event, Proof, Question, Verdict};
use super::extension::{self, MailParams, Offer, ParamError, RcptParams};
use super::reply::Reply;
use super::rule::{self, Rule};
pub use super::transaction::Transaction;

/// What the session is told of its server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names us in the greeting.
    pub hostname: String,
    /// Announced and enforced (RFC 1870), in octets.
    pub max_message_size: u64,
    /// Per transaction; more get 452 4.5.3.
    pub max_recipients: usize,
    /// Wrong commands and refused senders and recipients since the last accepted message; one more
    /// ends the session with 421.
    pub max_errors: usize,
}

/// A session.
#[derive(Debug)]
pub struct Server<P> {
    settings: Arc<Settings>,
    greeted: Option<Greeted>,
    transaction: Option<Transaction>,
    open: Option<Open>,
    client_must_wait: bool,
    errors: usize,
    proof: PhantomData<fn(P)>,
}

#[derive(Debug)]
struct Greeted {
    name: String,
    extended: bool,
}

/// What an action has asked for and an event will answer.
#[derive(Debug)]
enum Open {
    Sender(ReversePath, MailParams),
    Recipient(Option<Mailbox>, RcptParams),
    Data,
}

impl<P: Proof> Server<P> {
    /// A session before its greeting.
    pub fn new(settings: Arc<Settings>) -> Server<P> {
        Server {
            settings,
            greeted: None,
            transaction: None,
            open: None,
            client_must_wait: true,
            errors: 0,
            proof: PhantomData,
        }
    }

    /// What is to be done about `event`.
    pub fn on(&mut self, event: Event<'_, P>) -> Action {
        self.client_must_wait = false;
        match (event, self.open.take()) {
            (Event::Opened, _) => {
                self.client_must_wait = true;
                // RFC 5321 7.5: no version.
                Action::Say(Reply::new(220, None, format!("{} ESMTP posta", self.settings.hostname)))
            }
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
            (Event::Data(outcome), Some(Open::Data)) => self.data_taken(outcome),
            (Event::TimedOut, _) => {
                self.hang_up(&rule::IDLE, "no command came in time; connect again when you have one")
            }
            (Event::Closing, _) => self.hang_up(&rule::CLOSING, "going down; try again later"),
            // An answer that nobody asked for: the speaker is out of step, and a guess could be a
            // message lost.
            (Event::Judged(_) | Event::Data(_), _) => {
                self.hang_up(&rule::FAULT, "internal fault; try again later")
            }
        }
    }

    /// The transaction under way.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// What the client called itself, and whether by EHLO.
    pub fn greeted_as(&self) -> Option<(&str, bool)> {
        self.greeted.as_ref().map(|greeted| (greeted.name.as_str(), greeted.extended))
    }

    /// Whether the client has to wait for our next word before it sends anything: at the beginning
    /// (RFC 5321 3.1) and after HELO, EHLO and DATA (RFC 2920 3.1). See [`Event::TooSoon`].
    pub fn client_must_wait(&self) -> bool {
        self.client_must_wait
    }

    fn line(&mut self, line: &[u8]) -> Action {
        match command::parse(line) {
            Ok(Command::Hello { name, extended }) => self.hello(name, extended),
            Ok(Command::Mail { sender, params }) => self.mail(sender, params),
            Ok(Command::Rcpt { recipient, params }) => self.rcpt(recipient, params),
            Ok(Command::Data) => self.data(),
            Ok(Command::Rset) => {
                self.transaction = None;
                Action::Say(Reply::coded(250, 0, 0, "Ok"))
            }
            Ok(Command::Noop) => Action::Say(Reply::coded(250, 0, 0, "Ok")),
            // RFC 5321 3.5.3 and 7.3: the same for everybody, so that nobody is found by it.
            Ok(Command::Vrfy) => Action::Say(Reply::coded(252, 0, 0, "not told; send mail and see")),
            Ok(Command::Help) => Action::Say(Reply::coded(
                214,
                0,
                0,
                "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT, as RFC 5321 has them",
            )),
            Ok(Command::Quit) => Action::HangUp(Reply::coded(221, 0, 0, "Bye")),
            Ok(Command::NotOffered(verb)) => {
                self.wrong(Reply::coded(502, 5, 1, format!("{verb} is not offered here")))
            }
            Ok(Command::Foreign) => {
                self.hang_up(&rule::FOREIGN, "this is a mail server: it speaks SMTP only")
            }
            Err(error) => self.wrong(error.reply()),
        }
    }

    fn hello(&mut self, name: &str, extended: bool) -> Action {
        // RFC 5321 4.1.4: as if RSET had been said.
        self.transaction = None;
        self.greeted = Some(Greeted { name: name.to_string(), extended });
        self.client_must_wait = true;
        let mut reply = Reply::new(250, None, self.settings.hostname.clone());
        if extended {
            let offer = Offer { max_message_size: self.settings.max_message_size };
            reply.lines.extend(extension::announcements(&offer));
        }
        Action::Say(reply)
    }

    fn mail(&mut self, sender: ReversePath, params: &str) -> Action {
        let Some(greeted) = &self.greeted else {
            return self.wrong(Reply::coded(503, 5, 1, "say EHLO or HELO first"));
        };
        if self.transaction.is_some() {
            return self.wrong(Reply::coded(503, 5, 1, "a sender is given already; RSET drops it"));
        }
        if sender.mailbox().is_some_and(Mailbox::needs_utf8) {
            return self.wrong(no_utf8("sender"));
        }
        let params = match allow(greeted, params).and_then(extension::mail_params) {
            Ok(params) => params,
            Err(error) => return self.wrong(error.reply()),
        };
        // RFC 1870 6.1: told before its data is sent. This is no client's error.
        if params.size.is_some_and(|size| size > self.settings.max_message_size) {
            return Action::Say(DataFault::TooBig.into_reply());
        }
        self.open = Some(Open::Sender(sender.clone(), params));
        Action::Judge(Question::Sender(sender))
    }

    fn rcpt(&mut self, recipient: Option<Mailbox>, params: &str) -> Action {
        let (Some(greeted), Some(transaction)) = (&self.greeted, &self.transaction) else {
            return self.wrong(Reply::coded(503, 5, 1, "MAIL first"));
        };
        if recipient.as_ref().is_some_and(Mailbox::needs_utf8) {
            return self.wrong(no_utf8("recipient"));
        }
        let params = match allow(greeted, params).and_then(extension::rcpt_params) {
            Ok(params) => params,
            Err(error) => return self.wrong(error.reply()),
        };
        // RFC 5321 4.5.3.1.10: those taken stay, the others go into a next transaction.
        if transaction.accepted >= self.settings.max_recipients {
            let text = "too many recipients; send to the rest in a next message";
            return Action::Say(rule::TOO_MANY_RECIPIENTS.reply(text));
        }
        self.open = Some(Open::Recipient(recipient.clone(), params));
        Action::Judge(Question::Recipient(recipient))
    }

    fn data(&mut self) -> Action {
        let Some(transaction) = &self.transaction else {
            return self.wrong(Reply::coded(503, 5, 1, "MAIL and RCPT first"));
        };
        if transaction.recipients.is_empty() {
            // RFC 2920 3.1: a client that pipelines says DATA before it knows that all were refused.
            return match transaction.refused {
                0 => self.wrong(Reply::coded(503, 5, 1, "RCPT first")),
                _ => Action::Say(Reply::coded(554, 5, 1, "no recipient was accepted")),
            };
        }
        self.open = Some(Open::Data);
        self.client_must_wait = true;
        Action::TakeData { go_ahead: Reply::new(354, None, "go ahead; end with CRLF.CRLF") }
    }

    fn sender_judged(&mut self, verdict: Verdict, sender: ReversePath, params: MailParams) -> Action {
        match verdict {
            Verdict::Accept(_) => {
                self.transaction = Some(Transaction::begin(sender, params));
                Action::Say(Reply::coded(250, 1, 0, "Ok"))
            }
            Verdict::Refuse(reply) => self.refused(reply),
            Verdict::HangUp(reply) => Action::HangUp(reply),
        }
    }

    fn recipient_judged(&mut self, verdict: Verdict, asked: Option<Mailbox>, params: RcptParams) -> Action {
        let Some(transaction) = &mut self.transaction else {
            return self.wrong(Reply::coded(503, 5, 1, "MAIL first"));
        };
        match verdict {
            Verdict::Accept(mailbox) => {
                // RFC 5321 4.5.1: <postmaster> is always somebody, also where nobody said who.
                let postmaster = || Mailbox::from_parts("postmaster", &self.settings.hostname).ok();
                let Some(address) = mailbox.or(asked).or_else(postmaster) else {
                    let text = "no postmaster is set up here; try again later";
                    return Action::Say(rule::NO_POSTMASTER.reply(text));
                };
                transaction.add(Recipient { address, notify: params.notify, original: params.original });
                Action::Say(Reply::coded(250, 1, 5, "Ok"))
            }
            Verdict::Refuse(reply) => {
                transaction.refused += 1;
                self.refused(reply)
            }
            Verdict::HangUp(reply) => Action::HangUp(reply),
        }
    }

    fn data_taken(&mut self, outcome: Result<P, DataFault>) -> Action {
        // RFC 5321 4.1.1.4: the buffers are empty after the end of data, whatever came of it.
        self.transaction = None;
        match outcome {
            Ok(proof) => {
                self.errors = 0;
                Action::Say(Reply::coded(250, 0, 0, format!("Ok: queued as {}", proof.id())))
            }
            Err(fault) => Action::Say(fault.into_reply()),
        }
    }

    /// A refusal counts as an error if it is for good. What may be accepted later is not the
    /// client's fault.
    fn refused(&mut self, reply: Reply) -> Action {
        if reply.is_permanent_failure() { self.wrong(reply) } else { Action::Say(reply) }
    }

    /// An error of the client's. RFC 5321 4.3.2 and 7.8: there must be an end to them.
    fn wrong(&mut self, reply: Reply) -> Action {
        self.errors += 1;
        if self.errors > self.settings.max_errors {
            return self.hang_up(&rule::ERRORS, "too many errors; put them right and connect again");
        }
        Action::Say(reply)
    }

    /// RFC 5321 3.8: 421 can be said at any time.
    fn hang_up(&self, rule: &Rule, text: &str) -> Action {
        Action::HangUp(rule.reply(format!("{} {text}", self.settings.hostname)))
    }
}

/// RFC 5321 4.1.1.11: parameters are for who said EHLO.
fn allow<'a>(greeted: &Greeted, params: &'a str) -> Result<&'a str, ParamError> {
    if greeted.extended || params.trim().is_empty() { Ok(params) } else { Err(ParamError::NeedEhlo) }
}

/// RFC 6531 3.5: an address that needs SMTPUTF8, without it.
fn no_utf8(whose: &str) -> Reply {
    Reply::coded(553, 6, 7, format!("{whose}: octets above 127 need SMTPUTF8, which is not offered here"))
}

#[cfg(test)]
mod tests {
    use crate::mail::id::Id;

    use super::*;

    struct Stored;

    impl Proof for Stored {
        fn id(&self) -> Id {
            Id::parse("0123456789ABCDE").unwrap()
        }
    }

    fn session(max_errors: usize) -> Server<Stored> {
        let hostname = "mx.example.org".to_string();
        let settings = Settings { hostname, max_message_size: 1000, max_recipients: 3, max_errors };
        let mut server = Server::new(Arc::new(settings));
        assert!(server.client_must_wait());
        let _ = server.on(Event::Opened);
        server
    }

    fn code(action: &Action) -> u16 {
        match action {
            Action::Say(reply) | Action::HangUp(reply) => reply.code,
            Action::TakeData { go_ahead } => go_ahead.code,
            Action::Judge(_) => panic!("{action:?}"),
        }
    }

    /// Says a line; all that is asked about is accepted.
    fn say(server: &mut Server<Stored>, line: &str) -> u16 {
        let mut action = server.on(Event::Line(line.as_bytes()));
        if matches!(action, Action::Judge(_)) {
            action = server.on(Event::Judged(Verdict::Accept(None)));
        }
        code(&action)
    }

    #[test]
    fn a_message_and_then_another() {
        let mut server = session(9);
        assert_eq!(say(&mut server, "EHLO client"), 250);
        for _ in 0..2 {
            assert_eq!(say(&mut server, "MAIL FROM:<a@b> SIZE=10"), 250);
            assert_eq!(say(&mut server, "RCPT TO:<c@d>"), 250);
            assert_eq!(say(&mut server, "DATA"), 354);
            let transaction = server.transaction().unwrap();
            assert_eq!((transaction.size, transaction.recipients.len()), (Some(10), 1));
            let Action::Say(reply) = server.on(Event::Data(Ok(Stored))) else { panic!() };
            assert_eq!(reply, Reply::coded(250, 0, 0, "Ok: queued as 0123456789ABCDE"));
            assert_eq!(server.transaction(), None);
        }
        assert_eq!(server.greeted_as(), Some(("client", true)));
    }

    #[test]
    fn faults_of_data_have_their_replies() {
        let refusal = Reply::coded(550, 7, 1, "no");
        let faults = [
            (DataFault::TooBig, "552 5.3.4"),
            (DataFault::BareLineEnd, "550 5.6.0"),
            (DataFault::Loop, "554 5.4.6"),
            (DataFault::Full, "452 4.3.1"),
            (DataFault::Disk, "451 4.3.0"),
            (DataFault::Refused(refusal), "550 5.7.1"),
        ];
        let mut server = session(0);
        say(&mut server, "HELO client");
        for (fault, start) in faults {
            for line in ["MAIL FROM:<>", "RCPT TO:<c@d>", "DATA"] {
                say(&mut server, line);
            }
            let Action::Say(reply) = server.on(Event::Data(Err(fault))) else { panic!() };
            assert_eq!(format!("{} {}", reply.code, reply.status.unwrap()), start);
            assert_eq!(server.transaction(), None);
        }
    }

    #[test]
    fn a_judges_word_ends_the_session() {
        let mut server = session(9);
        say(&mut server, "EHLO client");
        let _ = server.on(Event::Line(b"MAIL FROM:<a@b>"));
        let bye = Reply::coded(421, 7, 0, "no more");
        assert_eq!(server.on(Event::Judged(Verdict::HangUp(bye.clone()))), Action::HangUp(bye));
    }

    #[test]
    fn the_postmaster_is_who_the_judge_says_or_ours() {
        let mut server = session(9);
        for line in ["EHLO client", "MAIL FROM:<>", "RCPT TO:<postmaster>"] {
            assert_eq!(say(&mut server, line), 250);
        }
        let _ = server.on(Event::Line(b"RCPT TO:<Postmaster>"));
        let root = Mailbox::parse("root@example.org", false).unwrap();
        let _ = server.on(Event::Judged(Verdict::Accept(Some(root))));
        let taken: Vec<String> =
            server.transaction().unwrap().recipients.iter().map(|r| r.address.to_string()).collect();
        assert_eq!(taken, ["postmaster@mx.example.org", "root@example.org"]);
    }

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
        let action = server.on(Event::BareLineEnd);
        assert!(matches!(action, Action::HangUp(Reply { code: 421, .. })));
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
    }

    #[test]
    fn an_answer_without_a_question_promises_nothing() {
        let mut server = session(9);
        assert_eq!(code(&server.on(Event::Data(Ok(Stored)))), 421);
        assert_eq!(code(&server.on(Event::Judged(Verdict::Accept(None)))), 421);
    }
}
