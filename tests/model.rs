//! Random sessions of `smtp::server` against a model of a few lines: what must hold whatever a client
//! sends, whoever judges and whatever the disk does.

mod speaker;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use posta::mail::address::Mailbox;
use posta::smtp::reply::Reply;
use posta::smtp::server::{
    Action, DataFault, Event, LogIn, Mechanisms, Question, Server, Service, Settings, Verdict,
};

use speaker::Stored;

const MAX_RECIPIENTS: usize = 3;
const MAX_ERRORS: usize = 5;
const MAX_SIZE: u64 = 1000;
const CHUNK: u64 = 300;

/// What a client and the world may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Hello {
        extended: bool,
    },
    /// `params`: with one that is fine after EHLO.
    Mail {
        params: bool,
        verdict: Judge,
    },
    Rcpt {
        name: u8,
        params: bool,
        verdict: Judge,
    },
    Data(Outcome),
    /// Of 300 octets.
    Chunk {
        last: bool,
        outcome: Outcome,
    },
    StartTls,
    Auth(LoggingIn),
    Rset,
    Noop,
    Wrong(&'static str, u16),
    TooLarge,
    LongLine,
    BareLineEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judge {
    Accept,
    Later,
    Never,
    HangUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    Full,
    TooBig,
}

/// How an exchange of AUTH ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoggingIn {
    Done,
    Refused,
    Later,
    GivenUp,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![3 => Just(Outcome::Stored), 1 => Just(Outcome::Full), 1 => Just(Outcome::TooBig)]
}

fn step() -> impl Strategy<Value = Step> {
    let judge = || prop_oneof![6 => Just(Judge::Accept), 1 => Just(Judge::Later), 1 => Just(Judge::Never)];
    let judge = move || prop_oneof![30 => judge(), 1 => Just(Judge::HangUp)];
    let wrong = prop_oneof![
        Just(Step::Wrong("FROB", 500)),
        Just(Step::Wrong("DATA now", 501)),
        Just(Step::Wrong("EHLO", 501)),
        Just(Step::Wrong("RCPT TO:<>", 501)),
        Just(Step::Wrong("MAIL FROM:a@b", 501)),
        Just(Step::Wrong("EXPN x", 502)),
        Just(Step::LongLine),
        Just(Step::BareLineEnd),
    ];
    prop_oneof![
        3 => any::<bool>().prop_map(|extended| Step::Hello { extended }),
        6 => (any::<bool>(), judge()).prop_map(|(params, verdict)| Step::Mail { params, verdict }),
        12 => (0u8..5, prop::bool::weighted(0.2), judge())
            .prop_map(|(name, params, verdict)| Step::Rcpt { name, params, verdict }),
        5 => outcome().prop_map(Step::Data),
        5 => (any::<bool>(), outcome()).prop_map(|(last, outcome)| Step::Chunk { last, outcome }),
        1 => Just(Step::StartTls),
        3 => prop_oneof![
            Just(LoggingIn::Done),
            Just(LoggingIn::Refused),
            Just(LoggingIn::Later),
            Just(LoggingIn::GivenUp)
        ]
        .prop_map(Step::Auth),
        1 => Just(Step::Rset),
        1 => Just(Step::Noop),
        1 => Just(Step::TooLarge),
        2 => wrong,
    ]
}

/// All that a session has to remember.
#[derive(Debug, Default)]
struct Model {
    extended: Option<bool>,
    secure: bool,
    login: bool,
    transaction: Option<Open>,
    chunk_refused: bool,
    errors: usize,
}

#[derive(Debug, Default)]
struct Open {
    recipients: BTreeSet<u8>,
    accepted: usize,
    refused: usize,
    chunks: Option<u64>,
}

impl Model {
    /// The code that must be answered.
    fn on(&mut self, step: Step) -> u16 {
        // What follows a refused chunk was perhaps sent before the client knew.
        let excused = self.chunk_refused && matches!(step, Step::Chunk { .. });
        let code = self.unlimited(step);
        let no_error = excused
            || matches!(
                (step, code),
                (Step::Data(_) | Step::Chunk { .. }, 554 | 552) | (Step::TooLarge, 552)
            );
        if code / 100 == 5 && !no_error {
            self.errors += 1;
            if self.errors > MAX_ERRORS {
                return 421;
            }
        }
        code
    }

    fn unlimited(&mut self, step: Step) -> u16 {
        match step {
            Step::Hello { extended } => {
                self.reset();
                self.extended = Some(extended);
                250
            }
            Step::Mail { .. } | Step::TooLarge if self.extended.is_none() || self.transaction.is_some() => {
                503
            }
            Step::Mail { params: true, .. } | Step::TooLarge if self.extended == Some(false) => 555,
            Step::TooLarge => 552,
            Step::Mail { verdict, .. } => {
                if verdict == Judge::Accept {
                    self.transaction = Some(Open::default());
                    self.chunk_refused = false;
                }
                verdict.code()
            }
            Step::Rcpt { name, params, verdict } => {
                let Some(open) = &mut self.transaction else { return 503 };
                if open.chunks.is_some() {
                    return 503;
                }
                if params && self.extended == Some(false) {
                    return 555;
                }
                if open.accepted == MAX_RECIPIENTS {
                    return 452;
                }
                match verdict {
                    Judge::Accept => {
                        open.accepted += 1;
                        open.recipients.insert(name);
                    }
                    Judge::Later | Judge::Never => open.refused += 1,
                    Judge::HangUp => {}
                }
                verdict.code()
            }
            Step::StartTls if self.secure => 503,
            Step::StartTls => {
                *self = Model { secure: true, errors: self.errors, ..Model::default() };
                220
            }
            Step::Auth(end) => self.log_in(end),
            Step::Chunk { last, outcome } => self.chunk(last, outcome),
            Step::Data(outcome) => match &self.transaction {
                None => 503,
                Some(open) if open.chunks.is_some() => 503,
                Some(open) if open.accepted > 0 => {
                    self.transaction = None;
                    match outcome {
                        Outcome::Stored => {
                            self.errors = 0;
                            250
                        }
                        Outcome::Full => 452,
                        Outcome::TooBig => 552,
                    }
                }
                Some(open) if open.refused > 0 => 554,
                Some(_) => 503,
            },
            Step::Rset => {
                self.reset();
                250
            }
            Step::Noop => 250,
            Step::Wrong(_, code) => code,
            Step::LongLine | Step::BareLineEnd => 500,
        }
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.chunk_refused = false;
    }

    fn log_in(&mut self, end: LoggingIn) -> u16 {
        if self.extended != Some(true) || self.login || self.transaction.is_some() {
            return 503;
        }
        if !self.secure {
            return 538;
        }
        match end {
            LoggingIn::Done => {
                self.login = true;
                235
            }
            LoggingIn::Refused => 535,
            LoggingIn::Later => 454,
            LoggingIn::GivenUp => 501,
        }
    }

    fn chunk(&mut self, last: bool, outcome: Outcome) -> u16 {
        let Some(open) = &mut self.transaction else { return 503 };
        let size = open.chunks.unwrap_or_default() + CHUNK;
        let code = match outcome {
            _ if size > MAX_SIZE => 552,
            _ if open.accepted == 0 && open.refused > 0 => return 554,
            _ if open.accepted == 0 => return 503,
            Outcome::Stored => 250,
            Outcome::Full => 452,
            Outcome::TooBig => 552,
        };
        if code == 250 && !last {
            open.chunks = Some(size);
            return 250;
        }
        self.reset();
        self.chunk_refused = size > MAX_SIZE || code == 452 || (code == 552 && !last);
        if code == 250 {
            self.errors = 0;
        }
        code
    }
}

impl Judge {
    fn code(self) -> u16 {
        match self {
            Judge::Accept => 250,
            Judge::Later => 450,
            Judge::Never => 550,
            Judge::HangUp => 421,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Judge::Accept => Verdict::Accept(None),
            Judge::Later | Judge::Never => Verdict::Refuse(Reply::coded(self.code(), 1, 1, "no")),
            Judge::HangUp => Verdict::HangUp(Reply::coded(421, 7, 0, "no")),
        }
    }
}

/// Does a step with the true session. Gives the last reply and whether it hangs up.
fn act(server: &mut Server<Stored>, step: Step) -> (Reply, bool) {
    let (line, verdict, outcome) = match step {
        Step::Hello { extended } => (if extended { "EHLO c" } else { "HELO c" }.to_string(), None, None),
        Step::Mail { params, verdict } => {
            (format!("MAIL FROM:<a@b>{}", if params { " SIZE=1" } else { "" }), Some(verdict), None)
        }
        Step::TooLarge => ("MAIL FROM:<> SIZE=1001".to_string(), None, None),
        Step::Rcpt { name, params, verdict } => {
            let params = if params { " NOTIFY=NEVER" } else { "" };
            (format!("RCPT TO:<r{name}@example.org>{params}"), Some(verdict), None)
        }
        Step::Data(outcome) => ("DATA".to_string(), None, Some(outcome)),
        Step::Chunk { last, outcome } => {
            (format!("BDAT {CHUNK}{}", if last { " LAST" } else { "" }), None, Some(outcome))
        }
        Step::StartTls => ("STARTTLS".to_string(), None, None),
        Step::Auth(_) => ("AUTH PLAIN".to_string(), None, None),
        Step::Rset => ("RSET".to_string(), None, None),
        Step::Noop => ("NOOP x".to_string(), None, None),
        Step::Wrong(line, _) => (line.to_string(), None, None),
        Step::LongLine => return done(server.on(Event::LongLine)),
        Step::BareLineEnd => return done(server.on(Event::BareLineEnd)),
    };
    match server.on(Event::Line(line.as_bytes())) {
        Action::Judge(question) => {
            assert_eq!(matches!(question, Question::Sender(_)), matches!(step, Step::Mail { .. }));
            done(server.on(Event::Judged(verdict.expect("nobody asked for a judgement").verdict())))
        }
        Action::TakeData { go_ahead } => {
            assert_eq!((go_ahead.code, go_ahead.status), (354, None));
            let transaction = server.transaction().expect("data without a transaction");
            assert!(!transaction.recipients.is_empty());
            done(server.on(Event::Data(match outcome.expect("data without DATA") {
                Outcome::Stored => Ok(Stored),
                Outcome::Full => Err(DataFault::Full),
                Outcome::TooBig => Err(DataFault::TooBig),
            })))
        }
        Action::TakeChunk { size, last } => {
            assert_eq!(size, CHUNK);
            done(server.on(match (outcome.expect("a chunk without BDAT"), last) {
                (Outcome::Stored, true) => Event::Data(Ok(Stored)),
                (Outcome::Stored, false) => Event::Chunk(Ok(())),
                (Outcome::Full, _) => Event::NoPlace(DataFault::Full),
                (Outcome::TooBig, true) => Event::Data(Err(DataFault::TooBig)),
                (Outcome::TooBig, false) => Event::Chunk(Err(DataFault::TooBig)),
            }))
        }
        Action::Swallow { size, then } => {
            assert_eq!(size, CHUNK);
            done(*then)
        }
        Action::Secure { go_ahead } => {
            assert_eq!(server.on(Event::Secured), Action::Listen);
            (go_ahead, false)
        }
        Action::LogIn { .. } => {
            let Step::Auth(end) = step else { panic!("{step:?}") };
            let (challenge, _) = done(server.on(Event::LogIn(LogIn::Challenge(b"who?".to_vec()))));
            assert_eq!((challenge.code, challenge.status), (334, None));
            log_in(server, end)
        }
        other => done(other),
    }
}

/// The client's answer to a challenge, and what comes of it.
fn log_in(server: &mut Server<Stored>, end: LoggingIn) -> (Reply, bool) {
    if end == LoggingIn::GivenUp {
        return done(server.on(Event::Line(b"*")));
    }
    assert_eq!(server.on(Event::Line(b"bWU=")), Action::Respond(b"me".to_vec()));
    done(server.on(Event::LogIn(match end {
        LoggingIn::Done => LogIn::Done("me".to_string()),
        LoggingIn::Refused => LogIn::Refused,
        LoggingIn::Later | LoggingIn::GivenUp => LogIn::Later,
    })))
}

fn done(action: Action) -> (Reply, bool) {
    match action {
        Action::Say(reply) => (reply, false),
        Action::HangUp(reply) => (reply, true),
        other => panic!("{other:?}"),
    }
}

fn settings() -> Settings {
    Settings {
        hostname: "mx.example.org".to_string(),
        max_message_size: MAX_SIZE,
        max_recipients: MAX_RECIPIENTS,
        max_errors: MAX_ERRORS,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_session_is_as_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let mut server: Server<Stored> = Server::new(Arc::new(settings()), speaker::full_service());
        let (greeting, _) = done(server.on(Event::Opened));
        prop_assert_eq!(greeting.code, 220);
        let mut model = Model::default();
        for step in steps {
            let code = model.on(step);
            let (reply, hung_up) = act(&mut server, step);
            prop_assert_eq!(reply.code, code, "{:?} with {:?}", step, model);
            prop_assert_eq!(hung_up, code == 421);
            // RFC 2034 4: the code's class is the reply's; no code in the answers to HELO and EHLO.
            let class = reply.status.map(|s| u16::from(s.class));
            let greeted = matches!(step, Step::Hello { .. });
            prop_assert_eq!(class, if greeted { None } else { Some(code / 100) });
            if hung_up {
                break;
            }
            reset_is_whole(&server, &model)?;
        }
    }

    #[test]
    fn no_octets_make_it_panic_or_store_what_was_not_sent(
        pieces in prop::collection::vec(piece(), 0..40),
        step in 1usize..50,
    ) {
        let octets: Vec<u8> = pieces.concat();
        let mut once = speaker::Speaker::new(house());
        once.receive(&octets);
        let mut piecewise = speaker::Speaker::new(house());
        for piece in octets.chunks(step) {
            piecewise.receive(piece);
        }
        prop_assert_eq!(&once.said, &piecewise.said);
        prop_assert_eq!(&once.stored, &piecewise.stored);
        let queued = b"250 2.0.0 Ok: queued as";
        let promises = once.said.windows(queued.len()).filter(|w| w == queued).count();
        prop_assert_eq!(promises, once.stored.len());
        for message in &once.stored {
            let text: Vec<u8> = message.content.clone();
            prop_assert!(text.is_empty() || text.ends_with(b"\r\n"));
        }
    }
}

/// A house where alice may log in without TLS.
fn house() -> speaker::House {
    let mut house = speaker::House::default();
    house.passwords.known.push(("alice".to_string(), "secret".to_string()));
    let plain = vec!["PLAIN".to_string()];
    let mechanisms = Arc::new(Mechanisms { secure: plain.clone(), plain });
    house.service = Service { mechanisms, ..Service::default() };
    house
}

/// Sender and recipients come and go together.
fn reset_is_whole(server: &Server<Stored>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(server.greeted_as().map(|(_, extended)| extended), model.extended);
    prop_assert_eq!((server.is_secure(), server.login().is_some()), (model.secure, model.login));
    prop_assert!(!server.is_logging_in());
    let taken =
        server.transaction().map(|t| t.recipients.iter().map(|r| r.address.clone()).collect::<BTreeSet<_>>());
    let address = |name: &u8| Mailbox::parse(&format!("r{name}@example.org"), false).unwrap();
    let wanted =
        model.transaction.as_ref().map(|t| t.recipients.iter().map(address).collect::<BTreeSet<_>>());
    prop_assert_eq!(taken, wanted);
    Ok(())
}

/// Something that a client may send, in or out of place.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = |text: &'static str| Just(text.as_bytes().to_vec());
    prop_oneof![
        word("EHLO client\r\n"),
        word("MAIL FROM:<a@b>\r\n"),
        word("RCPT TO:<c@d>\r\n"),
        word("DATA\r\n"),
        word("text\r\n"),
        word(".\r\n"),
        word("..\r\n"),
        word("\r\n.\r\n"),
        word("BDAT 6\r\nab\r\ncd"),
        word("BDAT 6 LAST\r\nab\r\ncd"),
        word("BDAT 1001\r\n"),
        word("AUTH PLAIN\r\n"),
        word("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"),
        word("*\r\n"),
        word("\n.\r\n"),
        word("RSET\r\n"),
        word("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
        word("\r"),
        word("\n"),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}
