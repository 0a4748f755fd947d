//! A session: `on(event) -> action`. The caller does what the action says and comes back with what
//! happened.
//!
//! ```text
//! Opened ─▶ Await ─▶ … ─▶ Ready ──Deliver──▶ Send, Await, SendContent … ─▶ Finished ──Deliver──▶ …
//!                  └────▶ Failed
//! ```

use crate::mail::address::ReversePath;
use crate::mail::envelope::{BodyKind, Recipient, Ret};
use crate::mail::status::Status;

use super::login;
use super::offer::Offer;
pub use super::phase::{BLOCK_LIMIT, Phase};
use super::reply::Reply;
use super::transaction::{Step, Transaction};
use super::verdict::{Finding, Verdict};

/// Ends a session (RFC 5321 4.1.1.10).
pub const QUIT: &[u8] = b"QUIT\r\n";

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// Whether a session turns to TLS (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Never.
    Plain,
    /// If the server offers it.
    May,
    /// A server that doesn't offer it gets nothing.
    Must,
    /// It has begun with TLS (RFC 8314 3.3).
    Already,
}

/// A message's envelope, as far as the wire needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// MAIL FROM.
    pub sender: ReversePath,
    /// RET, where the server offers DSN.
    pub ret: Option<Ret>,
    /// ENVID in xtext, where the server offers DSN.
    pub envid: Option<String>,
    /// The kind of the body. Only a body with octets above 127 should be called 8BITMIME to a
    /// server without that extension: it is refused then.
    pub body: BodyKind,
    /// The message needs SMTPUTF8.
    pub utf8: bool,
    /// The message may only go to who promises to keep it under TLS (RFC 8689).
    pub require_tls: bool,
    /// Octets of the content, dots not doubled (RFC 1870 5).
    pub size: u64,
    /// RCPT TO, each with its DSN wishes; at least one.
    pub recipients: Vec<Recipient>,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// The connection is there.
    Opened,
    /// What [`Action::Send`] or [`Action::SendContent`] asked for has gone out whole.
    Sent,
    /// So has a chunk, with all before it; it is the last one or not.
    ChunkSent(bool),
    /// The content, or a chunk, has not gone out whole: the server has stopped listening. Its last
    /// words may still be read.
    Halted(Finding),
    /// A reply has come.
    Reply(Reply),
    /// The connection is lost, a deadline has passed, or what came was no reply.
    Broken(Finding),
    /// TLS has begun.
    Secured,
    /// The session is ready and the server wants to know who we are (RFC 4954): a mechanism's name,
    /// and its first words, if it has any before the server's.
    Login(String, Option<Vec<u8>>),
    /// What the mechanism says to [`Action::Challenged`]; `None`: it doesn't trust this server.
    Answer(Option<Vec<u8>>),
    /// The session is ready and this is to be sent.
    Deliver(Mail),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Read one reply.
    Await(Phase),
    /// Write this.
    Send(Vec<u8>),
    /// Write the message in its wire form, up to and with the final dot.
    SendContent,
    /// Write this, and in the same write the next chunk of the message: `BDAT` with its length, and
    /// `LAST` if it is that, and its octets (RFC 3030 2). If nothing is to go before it, and a reply has
    /// come already, that is read first, and no chunk sent.
    SendChunk(Vec<u8>),
    /// Begin TLS, if no octet of the server is left unread: one that came before could be anybody's
    /// (CVE-2021-38371).
    Secure,
    /// Let the mechanism answer this.
    Challenged(Vec<u8>),
    /// Greetings are exchanged, or the login is done: give [`Event::Deliver`], or [`Event::Login`].
    Ready,
    /// The transaction is over: a verdict for each recipient. See [`Client::is_open`].
    Finished(Vec<Verdict>),
    /// There was no session: try another host. Close the connection.
    Failed(Finding),
}

/// A session with one server.
#[derive(Debug)]
pub struct Client {
    language: Language,
    hostname: String,
    cover: Cover,
    /// Messages go in chunks where that is offered.
    chunking: bool,
    /// TLS is on.
    secure: bool,
    state: State,
    offer: Offer,
    /// The last transaction may have left something behind: RSET before the next one.
    dirty: bool,
    heard: bool,
}

#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Securing,
    Login,
    Ready,
    Busy(Box<Transaction>),
    Closed,
}

impl Client {
    /// A session before the server's greeting. `hostname` is what we call ourselves: a domain or an
    /// address literal.
    pub fn new(language: Language, hostname: String, cover: Cover) -> Client {
        Client {
            language,
            hostname,
            cover,
            chunking: language == Language::Smtp,
            secure: cover == Cover::Already,
            state: State::Greeting,
            offer: Offer::default(),
            dirty: false,
            heard: false,
        }
    }

    /// The same, to a server to which messages go by DATA whatever it offers.
    pub fn without_chunking(self) -> Client {
        Client { chunking: false, ..self }
    }

    /// What the server offered, as far as it is used.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether another transaction may follow.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Whether the server has answered anything in the last transaction, other than that it is
    /// closing (421). On a connection that was kept from before, silence says nothing about the
    /// server: the connection was dead.
    pub fn was_heard(&self) -> bool {
        self.heard
    }

    /// What is to be done about `event`.
    pub fn on(&mut self, event: Event) -> Action {
        match (std::mem::replace(&mut self.state, State::Closed), event) {
            (State::Greeting, Event::Opened) => self.enter(State::Greeting, Action::Await(Phase::Greeting)),
            (State::Greeting, Event::Reply(reply)) if reply.class() == 2 => self.say_hello(),
            (State::Greeting, Event::Reply(reply)) => Action::Failed(Finding::unwelcome(&reply)),
            (state @ (State::Ehlo | State::Helo), Event::Sent) => {
                self.enter(state, Action::Await(Phase::Hello))
            }
            (state @ (State::Ehlo | State::Helo), Event::Reply(reply)) => self.greeted(&state, &reply),
            (State::StartTls, Event::Sent) => self.enter(State::StartTls, Action::Await(Phase::StartTls)),
            (State::StartTls, Event::Reply(reply)) => self.may_start_tls(&reply),
            (State::Securing, Event::Secured) => {
                // RFC 3207 4.2: what was learnt before is forgotten.
                (self.secure, self.offer) = (true, Offer::default());
                self.say_hello()
            }
            (State::Ready, Event::Login(mechanism, first)) => self.log_in(&mechanism, first),
            (State::Login, Event::Sent) => self.enter(State::Login, Action::Await(Phase::Login)),
            (State::Login, Event::Reply(reply)) => self.logged_in(&reply),
            (State::Login, Event::Answer(answer)) => self.answer(answer),
            (State::Ready, Event::Deliver(mail)) => self.begin(mail),
            (State::Busy(transaction), event) => self.go_on(transaction, event),
            (_, Event::Broken(finding)) => Action::Failed(finding.for_now()),
            // The caller did not keep to the order: there is nothing left to talk about.
            (_, _) => Action::Failed(Finding::ours(Status::new(4, 3, 0), "session out of order")),
        }
    }

    fn enter(&mut self, state: State, action: Action) -> Action {
        self.state = state;
        action
    }

    fn say_hello(&mut self) -> Action {
        let verb = if self.language == Language::Lmtp { "LHLO" } else { "EHLO" };
        self.enter(State::Ehlo, Action::Send(format!("{verb} {}\r\n", self.hostname).into_bytes()))
    }

    fn greeted(&mut self, state: &State, reply: &Reply) -> Action {
        let asked_for_extensions = matches!(state, State::Ehlo);
        match reply.class() {
            2 => {
                let offer = if asked_for_extensions { Offer::read(reply) } else { Offer::default() };
                self.offer = if self.chunking { offer } else { offer.without_chunking() };
                self.cover_or_go_on()
            }
            // RFC 5321 3.2: a server that does not know EHLO is spoken to without extensions.
            5 if asked_for_extensions && self.language == Language::Smtp => {
                self.enter(State::Helo, Action::Send(format!("HELO {}\r\n", self.hostname).into_bytes()))
            }
            _ => Action::Failed(Finding::said(reply).for_now()),
        }
    }

    /// STARTTLS, if it is wanted and offered.
    fn cover_or_go_on(&mut self) -> Action {
        match (self.secure, self.cover) {
            (true, _) | (_, Cover::Plain | Cover::Already) => self.enter(State::Ready, Action::Ready),
            (false, Cover::May | Cover::Must) if self.offer.start_tls => {
                self.enter(State::StartTls, Action::Send(b"STARTTLS\r\n".to_vec()))
            }
            (false, Cover::May) => self.enter(State::Ready, Action::Ready),
            (false, Cover::Must) => {
                let text = "TLS is required here, and the host does not offer it";
                Action::Failed(Finding::ours(Status::new(4, 7, 4), text))
            }
        }
    }

    fn may_start_tls(&mut self, reply: &Reply) -> Action {
        match reply.class() {
            2 => self.enter(State::Securing, Action::Secure),
            // RFC 3207 4: 454 says that it can't now. The session may go on as it is.
            4 | 5 if self.cover == Cover::May && reply.code != 421 => self.enter(State::Ready, Action::Ready),
            4 | 5 => Action::Failed(Finding::said(reply).for_now()),
            _ => Action::Failed(Finding::protocol(reply)),
        }
    }

    fn log_in(&mut self, mechanism: &str, first: Option<Vec<u8>>) -> Action {
        self.enter(State::Login, Action::Send(login::command(mechanism, first)))
    }

    fn logged_in(&mut self, reply: &Reply) -> Action {
        match reply.class() {
            2 => self.enter(State::Ready, Action::Ready),
            3 => match login::challenge(reply) {
                Some(challenge) => self.enter(State::Login, Action::Challenged(challenge)),
                None => self.answer(None),
            },
            // The password may be put right before the mail's time is over.
            4 | 5 => Action::Failed(Finding::said(reply).for_now()),
            _ => Action::Failed(Finding::protocol(reply)),
        }
    }

    fn answer(&mut self, answer: Option<Vec<u8>>) -> Action {
        self.enter(State::Login, Action::Send(login::answer(answer)))
    }

    fn begin(&mut self, mail: Mail) -> Action {
        self.heard = false;
        if mail.require_tls && !(self.secure && self.offer.require_tls) {
            // RFC 8689 4.2.1: another host of the same domain may.
            self.heard = true;
            let finding = Finding::ours(Status::new(5, 7, 30), "the host does not offer REQUIRETLS");
            let verdicts = vec![Verdict::Open(finding); mail.recipients.len()];
            return self.enter(State::Ready, Action::Finished(verdicts));
        }
        if let Some(finding) = unfit(&mail, &self.offer) {
            self.heard = true;
            let verdicts = vec![Verdict::Final(finding); mail.recipients.len()];
            return self.enter(State::Ready, Action::Finished(verdicts));
        }
        let mut transaction = Transaction::new(mail, self.language, &self.offer, self.dirty);
        let step = transaction.advance();
        self.follow(Box::new(transaction), step)
    }

    fn go_on(&mut self, mut transaction: Box<Transaction>, event: Event) -> Action {
        let step = match event {
            Event::Reply(reply) => {
                self.heard |= reply.code != 421;
                transaction.reply(&reply)
            }
            Event::Sent => transaction.sent(),
            Event::ChunkSent(is_last) => transaction.chunk_sent(is_last),
            Event::Halted(finding) => transaction.halt(finding),
            Event::Broken(finding) => transaction.fail(finding),
            Event::Opened | Event::Deliver(_) | Event::Secured | Event::Login(..) | Event::Answer(_) => {
                transaction.fail(Finding::ours(Status::new(4, 3, 0), "session out of order"))
            }
        };
        self.follow(transaction, step)
    }

    fn follow(&mut self, transaction: Box<Transaction>, step: Step) -> Action {
        match step {
            Step::Do(action) => self.enter(State::Busy(transaction), action),
            Step::Over { verdicts, open, clean } => {
                self.dirty = !clean;
                self.enter(if open { State::Ready } else { State::Closed }, Action::Finished(verdicts))
            }
        }
    }
}

/// Why this server can't be given the message at all.
fn unfit(mail: &Mail, offer: &Offer) -> Option<Finding> {
    let needs_utf8 = mail.utf8
        || mail.sender.mailbox().is_some_and(|sender| sender.needs_utf8())
        || mail.recipients.iter().any(|recipient| recipient.address.needs_utf8());
    if let Some(Some(most)) = offer.size.filter(|most| most.is_some_and(|most| mail.size > most)) {
        // RFC 1870 6.1: no need to try.
        let text = format!("the message has {} octets, the host takes at most {most}", mail.size);
        return Some(Finding::ours(Status::new(5, 3, 4), text));
    }
    if needs_utf8 && !offer.utf8 {
        // RFC 6531 3.5
        return Some(Finding::ours(Status::new(5, 6, 7), "the host does not offer SMTPUTF8"));
    }
    match mail.body {
        // RFC 6152 3: 8-bit text is not sent to who has not said that he takes it.
        BodyKind::EightBitMime if !offer.eight_bit_mime => {
            Some(Finding::ours(Status::new(5, 6, 3), "the host does not offer 8BITMIME"))
        }
        BodyKind::BinaryMime if !offer.binary_mime => {
            Some(Finding::ours(Status::new(5, 6, 3), "the host does not offer BINARYMIME"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::mail::address::Mailbox;
    use crate::mail::envelope::Notify;
    use crate::mail::status::Fate;

    use super::super::reply::ReplyReader;
    use super::*;

    const FULL: &str = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 1000\r\n250 DSN\r\n";

    fn reply(text: &str) -> Reply {
        ReplyReader::default().take(text.as_bytes()).unwrap().1.unwrap()
    }

    fn mail(recipients: usize) -> Mail {
        let recipient = |n| Recipient::plain(Mailbox::parse(&format!("r{n}@x.example"), false).unwrap());
        Mail {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            size: 10,
            recipients: (0..recipients).map(recipient).collect(),
        }
    }

    /// A session that has been greeted with `ehlo`, whole.
    fn greeted(language: Language, ehlo: &str) -> Client {
        let mut client = Client::new(language, "own.example".into(), Cover::May);
        assert_eq!(client.on(Event::Opened), Action::Await(Phase::Greeting));
        assert!(matches!(client.on(Event::Reply(reply("220 mx\r\n"))), Action::Send(_)));
        assert_eq!(client.on(Event::Sent), Action::Await(Phase::Hello));
        assert_eq!(client.on(Event::Reply(reply(ehlo))), Action::Ready);
        client
    }

    /// What was sent, and what it came to.
    type Played = (String, Action);

    /// Plays a transaction: each wait is answered by the next of `replies`, `BROKEN` breaks the
    /// connection.
    fn play(client: &mut Client, mail: Mail, replies: &[&str]) -> Played {
        let mut replies = replies.iter();
        let mut sent = String::new();
        let mut action = client.on(Event::Deliver(mail));
        loop {
            let event = match action {
                Action::Send(bytes) => {
                    sent.push_str(std::str::from_utf8(&bytes).unwrap());
                    sent.push('|');
                    Event::Sent
                }
                Action::SendContent => {
                    sent.push_str("CONTENT|");
                    Event::Sent
                }
                Action::Await(_) => match *replies.next().expect("a reply for every wait") {
                    "BROKEN" => Event::Broken(Finding::ours(Status::new(4, 4, 2), "lost")),
                    text => Event::Reply(reply(&format!("{text}\r\n"))),
                },
                over => {
                    assert_eq!(replies.next(), None, "every reply is read");
                    return (sent, over);
                }
            };
            action = client.on(event);
        }
    }

    /// A verdict in a few letters: `F250`, `O421`, `S`.
    fn short(action: &Action) -> Vec<String> {
        let Action::Finished(verdicts) = action else { panic!("{action:?}") };
        let letters = |verdict: &Verdict| match verdict {
            Verdict::Final(f) => format!("F{} {}", f.status.class, f.text),
            Verdict::Open(f) => format!("O{} {}", f.status.class, f.text),
            Verdict::Surplus => "S".to_string(),
        };
        verdicts.iter().map(letters).collect()
    }

    #[test]
    fn a_message_takes_one_write_before_its_content_where_pipelining_is_offered() {
        let mut client = greeted(Language::Smtp, FULL);
        let (sent, over) =
            play(&mut client, mail(2), &["250 a", "250 b", "550 5.1.1 no", "354 go", "250 kept"]);
        let group = "MAIL FROM:<> SIZE=10\r\nRCPT TO:<r0@x.example>\r\nRCPT TO:<r1@x.example>\r\nDATA\r\n";
        assert_eq!(sent, format!("{group}|CONTENT|"));
        assert_eq!(short(&over), ["F2 250 kept", "F5 550 5.1.1 no"]);
        assert!(client.is_open() && client.was_heard());
        let (sent, _) = play(&mut client, mail(1), &["250 a", "250 b", "354 go", "250 kept"]);
        assert!(sent.starts_with("MAIL"), "no RSET after a whole transaction: {sent}");
    }

    #[test]
    fn a_server_without_extensions_is_spoken_to_step_by_step() {
        let mut client = Client::new(Language::Smtp, "own.example".into(), Cover::May);
        client.on(Event::Opened);
        client.on(Event::Reply(reply("220 mx\r\n")));
        client.on(Event::Sent);
        let helo = client.on(Event::Reply(reply("502 what\r\n")));
        assert_eq!(helo, Action::Send(b"HELO own.example\r\n".to_vec()));
        client.on(Event::Sent);
        assert_eq!(client.on(Event::Reply(reply("250-mx\r\n250 PIPELINING\r\n"))), Action::Ready);
        let (sent, over) = play(&mut client, mail(1), &["250 a", "250 b", "354 go", "250 kept"]);
        assert_eq!(sent, "MAIL FROM:<>\r\n|RCPT TO:<r0@x.example>\r\n|DATA\r\n|CONTENT|");
        assert_eq!(short(&over), ["F2 250 kept"]);
        let (sent, over) = play(&mut client, mail(1), &["250 a", "450 later"]);
        assert!(!sent.contains("DATA"), "nobody to send to");
        assert_eq!(short(&over), ["F4 450 later"]);
        let (sent, _) = play(&mut client, mail(1), &["250 reset", "550 not you"]);
        assert_eq!(sent, "RSET\r\n|MAIL FROM:<>\r\n|");
    }

    const EHLO: &[u8] = b"EHLO own.example\r\n";
    const STARTTLS: &[u8] = b"STARTTLS\r\n";

    /// What follows an answer to EHLO with these lines.
    fn after_ehlo(cover: Cover, ehlo: &str) -> (Client, Action) {
        let mut client = Client::new(Language::Smtp, "own.example".into(), cover);
        client.on(Event::Opened);
        assert_eq!(client.on(Event::Reply(reply("220 mx\r\n"))), Action::Send(EHLO.into()));
        client.on(Event::Sent);
        let action = client.on(Event::Reply(reply(ehlo)));
        (client, action)
    }

    #[test]
    fn tls_is_begun_where_it_is_offered_and_wanted() {
        let offer = "250-mx\r\n250-SIZE 5\r\n250 STARTTLS\r\n";
        for cover in [Cover::May, Cover::Must] {
            let (mut client, action) = after_ehlo(cover, offer);
            assert_eq!(action, Action::Send(STARTTLS.into()));
            assert_eq!(client.on(Event::Sent), Action::Await(Phase::StartTls));
            assert_eq!(client.on(Event::Reply(reply("220 go\r\n"))), Action::Secure);
            assert_eq!(client.on(Event::Secured), Action::Send(EHLO.into()));
            assert_eq!(client.offer(), &Offer::default(), "what was learnt before is forgotten");
            client.on(Event::Sent);
            // Whatever it offers now, TLS is on.
            assert_eq!(client.on(Event::Reply(reply(offer))), Action::Ready);
        }
        for cover in [Cover::Plain, Cover::Already] {
            assert_eq!(after_ehlo(cover, offer).1, Action::Ready);
        }
        assert_eq!(after_ehlo(Cover::May, FULL).1, Action::Ready);
        let Action::Failed(finding) = after_ehlo(Cover::Must, FULL).1 else { panic!() };
        assert_eq!(finding.status, Status::new(4, 7, 4));
    }

    #[test]
    fn a_server_that_cant_begin_tls_now_may_go_on_without_or_not() {
        for (cover, answer, goes_on) in [
            (Cover::May, "454 not now\r\n", true),
            (Cover::May, "502 what\r\n", true),
            (Cover::May, "421 going\r\n", false),
            (Cover::May, "354 what\r\n", false),
            (Cover::Must, "454 not now\r\n", false),
        ] {
            let (mut client, _) = after_ehlo(cover, "250-mx\r\n250 STARTTLS\r\n");
            client.on(Event::Sent);
            match client.on(Event::Reply(reply(answer))) {
                Action::Ready => assert!(goes_on, "{answer}"),
                Action::Failed(finding) => {
                    assert!(!goes_on && finding.status.fate() == Fate::Later, "{answer}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_login_is_carried_in_base64() {
        let mut client = greeted(Language::Smtp, FULL);
        let first = client.on(Event::Login("PLAIN".into(), Some(b"\0a\0b".into())));
        assert_eq!(first, Action::Send(b"AUTH PLAIN AGEAYg==\r\n".into()));
        assert_eq!(client.on(Event::Sent), Action::Await(Phase::Login));
        assert_eq!(client.on(Event::Reply(reply("235 welcome\r\n"))), Action::Ready);

        let mut client = greeted(Language::Smtp, FULL);
        assert_eq!(client.on(Event::Login("X".into(), Some(vec![]))), Action::Send(b"AUTH X =\r\n".into()));
        let mut client = greeted(Language::Smtp, FULL);
        assert_eq!(client.on(Event::Login("LOGIN".into(), None)), Action::Send(b"AUTH LOGIN\r\n".into()));
        client.on(Event::Sent);
        assert_eq!(client.on(Event::Reply(reply("334 VXNlcg==\r\n"))), Action::Challenged(b"User".into()));
        assert_eq!(client.on(Event::Answer(Some(b"me".into()))), Action::Send(b"bWU=\r\n".into()));
        client.on(Event::Sent);
        assert_eq!(client.on(Event::Reply(reply("334 no base64\r\n"))), Action::Send(b"*\r\n".into()));
        client.on(Event::Sent);
        let Action::Failed(finding) = client.on(Event::Reply(reply("535 5.7.8 no\r\n"))) else { panic!() };
        assert_eq!((finding.status, finding.said), (Status::new(4, 7, 8), true), "the mail waits");
    }

    #[test]
    fn chunks_go_to_who_offers_them_unless_that_is_not_wanted() {
        let chunking = "250-mx\r\n250-BINARYMIME\r\n250 CHUNKING\r\n";
        let uses = |client: Client| {
            let mut client = client;
            client.on(Event::Opened);
            client.on(Event::Reply(reply("220 mx\r\n")));
            client.on(Event::Sent);
            client.on(Event::Reply(reply(chunking)));
            client.offer().chunking && client.offer().binary_mime
        };
        let client = |language| Client::new(language, "own.example".into(), Cover::May);
        assert!(uses(client(Language::Smtp)));
        assert!(!uses(client(Language::Smtp).without_chunking()));
        // RFC 3030 does not say how many answers the last chunk has by LMTP.
        assert!(!uses(client(Language::Lmtp)));
    }

    #[test]
    fn data_for_nobody_ends_with_an_empty_message() {
        let mut client = greeted(Language::Smtp, FULL);
        let (sent, over) = play(&mut client, mail(1), &["250 a", "550 no", "354 go", "250 kept?"]);
        assert!(sent.ends_with("DATA\r\n|.\r\n|"), "{sent}");
        assert_eq!(short(&over), ["F5 550 no"]);
        let (sent, over) = play(&mut client, mail(1), &["250 reset", "550 you", "503 no", "503 no"]);
        assert!(sent.starts_with("RSET\r\nMAIL"), "{sent}");
        assert_eq!(short(&over), ["F5 550 you"]);
    }

    #[test]
    fn a_421_decides_about_nobody() {
        let mut client = greeted(Language::Smtp, FULL);
        let (_, over) = play(&mut client, mail(3), &["250 a", "250 b", "550 no", "421 closing"]);
        assert_eq!(short(&over), ["O4 421 closing", "F5 550 no", "O4 421 closing"]);
        assert!(!client.is_open());
        let mut client = greeted(Language::Smtp, FULL);
        let (_, over) = play(&mut client, mail(1), &["421 idle too long"]);
        assert_eq!(short(&over), ["O4 421 idle too long"]);
        assert!(!client.was_heard());
    }

    #[test]
    fn after_the_dot_silence_is_nobody_elses_turn() {
        let mut client = greeted(Language::Smtp, FULL);
        let (_, over) = play(&mut client, mail(1), &["250 a", "250 b", "354 go", "BROKEN"]);
        assert_eq!(short(&over), ["F4 lost"]);
        let mut client = greeted(Language::Smtp, FULL);
        let (_, over) = play(&mut client, mail(1), &["250 a", "250 b", "BROKEN"]);
        assert_eq!(short(&over), ["O4 lost"]);
    }

    #[test]
    fn an_early_no_while_content_is_going_counts() {
        for (early, verdict) in
            [("552 too big", "F5 552 too big"), ("250 thanks", "O4 unexpected reply: 250 thanks")]
        {
            let mut client = greeted(Language::Smtp, FULL);
            client.on(Event::Deliver(mail(1)));
            client.on(Event::Sent);
            client.on(Event::Reply(reply("250 a\r\n")));
            client.on(Event::Reply(reply("250 b\r\n")));
            assert_eq!(client.on(Event::Reply(reply("354 go\r\n"))), Action::SendContent);
            let over = client.on(Event::Reply(reply(&format!("{early}\r\n"))));
            assert_eq!(short(&over), [verdict]);
            assert!(!client.is_open());
        }
    }

    #[test]
    fn too_many_recipients_are_sent_in_the_next_transaction() {
        let mut client = greeted(Language::Smtp, FULL);
        let replies = [
            "250 a",
            "250 b",
            "452 enough",
            "552 5.5.3 enough",
            "452 4.2.2 full",
            "552 5.2.2 full",
            "354 go",
            "250 ok",
        ];
        let (_, over) = play(&mut client, mail(5), &replies);
        assert_eq!(short(&over), ["F2 250 ok", "S", "S", "F4 452 4.2.2 full", "F5 552 5.2.2 full"]);
        let (_, over) = play(&mut client, mail(1), &["250 a", "452 enough", "503 no"]);
        assert_eq!(short(&over), ["F4 452 enough"], "the first one can't be too many");
    }

    #[test]
    fn lmtp_answers_for_each_accepted_recipient() {
        let mut client = greeted(Language::Lmtp, FULL);
        let replies = [
            "250 a",
            "250 r0",
            "550 r1",
            "250 r2",
            "250 r3",
            "354 go",
            "250 kept",
            "550 5.2.2 full",
            "BROKEN",
        ];
        let (_, over) = play(&mut client, mail(4), &replies);
        assert_eq!(short(&over), ["F2 250 kept", "F5 550 r1", "F5 550 5.2.2 full", "F4 lost"]);
        let mut client = greeted(Language::Lmtp, FULL);
        let (_, over) = play(&mut client, mail(1), &["250 a", "550 r0", "354 go"]);
        assert_eq!(short(&over), ["F5 550 r0"]);
        assert!(!client.is_open(), "by LMTP an empty message for nobody has no answer");
    }

    #[test]
    fn what_a_server_can_not_take_is_not_tried() {
        let cases = [
            (Mail { size: 1001, ..mail(2) }, FULL, "5.3.4"),
            (Mail { body: BodyKind::EightBitMime, ..mail(2) }, "250 mx\r\n", "5.6.3"),
            (Mail { body: BodyKind::BinaryMime, ..mail(2) }, FULL, "5.6.3"),
            (Mail { body: BodyKind::BinaryMime, ..mail(2) }, "250-mx\r\n250 BINARYMIME\r\n", "5.6.3"),
            (Mail { utf8: true, ..mail(2) }, FULL, "5.6.7"),
        ];
        for (mail, ehlo, status) in cases {
            let mut client = greeted(Language::Smtp, ehlo);
            let Action::Finished(verdicts) = client.on(Event::Deliver(mail)) else { panic!() };
            assert_eq!(verdicts.len(), 2);
            let said = |v: &Verdict| matches!(v, Verdict::Final(f) if f.status.to_string() == status);
            assert!(verdicts.iter().all(said), "{verdicts:?}");
            assert!(client.is_open());
        }
    }

    #[test]
    fn parameters_go_to_who_offers_them() {
        let mut wishes = mail(1);
        wishes.ret = Some(Ret::Headers);
        wishes.envid = Some("a+20b".into());
        wishes.body = BodyKind::EightBitMime;
        wishes.recipients[0].notify = Notify::parse("SUCCESS,FAILURE").unwrap();
        wishes.recipients[0].original = Some("rfc822;o@x".into());
        let mut client = greeted(Language::Smtp, FULL);
        let (sent, _) = play(&mut client, wishes.clone(), &["550 a", "503 b", "503 c"]);
        assert!(sent.contains("MAIL FROM:<> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+20b\r\n"), "{sent}");
        assert!(sent.contains("<r0@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@x\r\n"), "{sent}");
        wishes.envid = Some("a b\r\nQUIT".into());
        let mut client = greeted(Language::Smtp, "250-mx\r\n250-8BITMIME\r\n250 DSN\r\n");
        let (sent, _) = play(&mut client, wishes, &["550 a"]);
        assert_eq!(sent, "MAIL FROM:<> BODY=8BITMIME RET=HDRS\r\n|");
    }

    #[test]
    fn a_host_that_does_not_welcome_us_is_left() {
        for (greeting, class) in [("421 busy", 4), ("554 go away", 4), ("521 no mail here", 5), ("354 ?", 4)]
        {
            let mut client = Client::new(Language::Smtp, "own.example".into(), Cover::May);
            client.on(Event::Opened);
            let action = client.on(Event::Reply(reply(&format!("{greeting}\r\n"))));
            let Action::Failed(finding) = action else { panic!("{action:?}") };
            assert_eq!((finding.status.class, finding.text.as_str()), (class, greeting));
        }
    }

    #[test]
    fn deadlines_are_those_of_the_law() {
        // RFC 5321 4.5.3.2.1 to .6
        let minutes = |phase: Phase| phase.limit().as_secs() / 60;
        for phase in [Phase::Greeting, Phase::Hello, Phase::Mail, Phase::Recipient] {
            assert_eq!(minutes(phase), 5, "{phase:?}");
        }
        assert_eq!((minutes(Phase::Data), minutes(Phase::End)), (2, 10));
        assert_eq!(BLOCK_LIMIT.as_secs(), 180);
    }

    const REPLIES: [&str; 8] =
        ["250 y", "250 y", "354 g", "450 l", "550 5.1.1 n", "452 m", "421 c", "BROKEN"];

    proptest! {
        /// Whatever is answered, each recipient has one verdict, and it is a yes only if its RCPT
        /// and the final dot were answered yes.
        #[test]
        fn every_recipient_has_the_verdict_that_was_said(
            count in 1usize..5,
            pipelining in any::<bool>(),
            lmtp in any::<bool>(),
            choices in prop::collection::vec(0usize..REPLIES.len(), 20),
        ) {
            let language = if lmtp { Language::Lmtp } else { Language::Smtp };
            let mut client = greeted(language, if pipelining { FULL } else { "250 mx\r\n" });
            let mut choices = choices.into_iter().cycle();
            let (mut accepted, mut content, mut waits) = (0, false, 0);
            let mut action = client.on(Event::Deliver(mail(count)));
            let verdicts = loop {
                let event = match action {
                    Action::Send(_) => Event::Sent,
                    Action::SendContent => { content = true; Event::Sent }
                    Action::Await(phase) => {
                        waits += 1;
                        prop_assert!(waits < 20, "it comes to an end");
                        match REPLIES[choices.next().unwrap()] {
                            "BROKEN" => Event::Broken(Finding::ours(Status::new(4, 4, 2), "lost")),
                            text => {
                                accepted += usize::from(phase == Phase::Recipient && text == "250 y");
                                Event::Reply(reply(&format!("{text}\r\n")))
                            }
                        }
                    }
                    Action::Finished(verdicts) => break verdicts,
                    other => { prop_assert!(false, "{:?}", other); unreachable!() }
                };
                action = client.on(event);
            };
            prop_assert_eq!(verdicts.len(), count);
            let yes = |v: &&Verdict| matches!(v, Verdict::Final(f) if f.status.fate() == Fate::Done);
            let done = verdicts.iter().filter(yes).count();
            prop_assert!(done <= accepted && (done == 0 || content));
            for verdict in &verdicts {
                if let Verdict::Open(finding) = verdict {
                    prop_assert_eq!(finding.status.fate(), Fate::Later);
                }
            }
        }
    }
}
