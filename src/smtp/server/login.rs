//! AUTH (RFC 4954): the exchange by which a client shows who it is. What is said in it is somebody
//! else's affair; here its words are carried, in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::smtp::command::CommandError;
use crate::smtp::reply::Reply;
use crate::smtp::rule;

use super::{Action, LogIn, Open, Proof, Server};

impl<P: Proof> Server<P> {
    /// The mechanisms that may be used as things stand.
    pub(super) fn mechanisms_now(&self) -> &[String] {
        let mechanisms = &self.service.mechanisms;
        if self.secure { &mechanisms.secure } else { &mechanisms.plain }
    }

    /// AUTH.
    pub(super) fn auth(&mut self, mechanism: String, initial: Option<&str>) -> Action {
        if let Err(reply) = self.may_log_in(&mechanism) {
            return self.wrong(reply);
        }
        let initial = match initial.map(decode) {
            None => None,
            Some(Some(initial)) => Some(initial),
            Some(None) => return self.wrong(CommandError::NotBase64.reply()),
        };
        self.open = Some(Open::LogIn);
        self.client_must_wait = true;
        Action::LogIn { mechanism, initial }
    }

    /// Whether this client may begin to log in now, with this mechanism.
    fn may_log_in(&self, mechanism: &str) -> Result<(), Reply> {
        let mechanisms = &self.service.mechanisms;
        let known = |list: &[String]| list.iter().any(|known| known == mechanism);
        let wrong = |code, subject, detail, text: &str| Err(Reply::coded(code, subject, detail, text));
        if mechanisms.secure.is_empty() && mechanisms.plain.is_empty() {
            return wrong(502, 5, 1, "AUTH is not offered here");
        }
        if !self.greeted.as_ref().is_some_and(|greeted| greeted.extended) {
            return wrong(503, 5, 1, "say EHLO first");
        }
        // RFC 4954 4: once a session, and not within a transaction.
        if self.login.is_some() {
            return wrong(503, 5, 1, "you are logged in already");
        }
        if self.transaction.is_some() {
            return wrong(503, 5, 1, "not within a message; RSET drops it");
        }
        if known(self.mechanisms_now()) {
            return Ok(());
        }
        // RFC 4954 6: who has sent a password now has sent it for all to read.
        if !self.secure && (self.mechanisms_now().is_empty() || known(&mechanisms.secure)) {
            return Err(rule::AUTH_IN_CLEAR.reply("not without encryption; say STARTTLS first"));
        }
        wrong(504, 5, 4, "no such mechanism; see the answer to EHLO")
    }

    /// The client's next word in the exchange.
    pub(super) fn response(&mut self, line: &[u8]) -> Action {
        // RFC 4954 4: this line ends it.
        if line == b"*" {
            return self.wrong(Reply::coded(501, 7, 0, "given up, as you wish"));
        }
        let Some(response) = std::str::from_utf8(line).ok().and_then(|line| STANDARD.decode(line).ok())
        else {
            return self.wrong(CommandError::NotBase64.reply());
        };
        self.open = Some(Open::LogIn);
        self.client_must_wait = true;
        Action::Respond(response)
    }

    /// How the exchange stands.
    pub(super) fn log_in_step(&mut self, step: LogIn) -> Action {
        match step {
            LogIn::Challenge(challenge) => {
                self.open = Some(Open::Response);
                self.client_must_wait = true;
                Action::Say(Reply::new(334, None, STANDARD.encode(challenge)))
            }
            LogIn::Done(login) => {
                self.login = Some(login);
                Action::Say(Reply::coded(235, 7, 0, "welcome"))
            }
            // RFC 4954 9: the same for an unknown user and a wrong password.
            LogIn::Refused => self.wrong(rule::AUTH_FAILED.reply("wrong user name or password")),
            LogIn::LockedOut => {
                self.wrong(rule::LOCKED_OUT.reply("too many wrong passwords; try again later"))
            }
            LogIn::Later => {
                Action::Say(rule::AUTH_LATER.reply("passwords can't be checked now; try again later"))
            }
        }
    }
}

/// An initial response; `=` is an empty one (RFC 4954 4).
fn decode(initial: &str) -> Option<Vec<u8>> {
    if initial == "=" { Some(Vec::new()) } else { STANDARD.decode(initial).ok() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::trial::{Stored, code, on_service, say, service, session};
    use super::super::{Event, Mechanisms, Service};
    use super::*;

    /// A session under TLS.
    fn secured() -> Server<Stored> {
        let mut server = session(9);
        say(&mut server, "STARTTLS");
        let _ = server.on(Event::Secured);
        say(&mut server, "EHLO a");
        server
    }

    fn on_line(server: &mut Server<Stored>, line: &str) -> Action {
        server.on(Event::Line(line.as_bytes()))
    }

    #[test]
    fn an_exchange_goes_to_and_fro() {
        let mut server = secured();
        assert_eq!(
            on_line(&mut server, "AUTH login"),
            Action::LogIn { mechanism: "LOGIN".to_string(), initial: None }
        );
        let challenge = server.on(Event::LogIn(LogIn::Challenge(b"Username:".to_vec())));
        assert_eq!(challenge, Action::Say(Reply::new(334, None, "VXNlcm5hbWU6")));
        assert!(server.is_logging_in() && server.client_must_wait());
        assert_eq!(on_line(&mut server, "YWxpY2U="), Action::Respond(b"alice".to_vec()));
        assert!(!server.is_logging_in());
        assert_eq!(code(&server.on(Event::LogIn(LogIn::Challenge(vec![])))), 334);
        assert_eq!(on_line(&mut server, ""), Action::Respond(vec![]));
        let done = server.on(Event::LogIn(LogIn::Done("alice@example.org".to_string())));
        assert_eq!((code(&done), server.login()), (235, Some("alice@example.org")));
        assert_eq!(say(&mut server, "AUTH PLAIN"), 503);
        assert_eq!(say(&mut server, "EHLO again"), 250);
        assert_eq!(server.login(), Some("alice@example.org"));
    }

    #[test]
    fn initial_responses_are_undone() {
        for (word, octets) in [("=", &b""[..]), ("AGEAYg==", b"\0a\0b")] {
            let action = on_line(&mut secured(), &format!("AUTH PLAIN {word}"));
            let initial = Some(octets.to_vec());
            assert_eq!(action, Action::LogIn { mechanism: "PLAIN".to_string(), initial });
        }
        for word in ["!!", "AGEAYg", "AGEA Yg==", "===="] {
            assert_eq!(code(&on_line(&mut secured(), &format!("AUTH PLAIN {word}"))), 501, "{word}");
        }
    }

    #[test]
    fn what_is_no_response_ends_the_exchange() {
        for word in ["*", "!!not base64!!", "=", "\u{e4}"] {
            let mut server = secured();
            on_line(&mut server, "AUTH PLAIN");
            let _ = server.on(Event::LogIn(LogIn::Challenge(vec![])));
            assert_eq!(code(&on_line(&mut server, word)), 501, "{word}");
            assert!(!server.is_logging_in());
            assert_eq!(say(&mut server, "NOOP"), 250);
        }
        let mut server = secured();
        on_line(&mut server, "AUTH PLAIN");
        let _ = server.on(Event::LogIn(LogIn::Challenge(vec![])));
        assert_eq!(code(&server.on(Event::LongLine)), 500);
        assert_eq!(say(&mut server, "NOOP"), 250);
    }

    #[test]
    fn refusals_are_told_apart_from_troubles() {
        let steps =
            [(LogIn::Refused, "535 5.7.8"), (LogIn::LockedOut, "454 4.7.0"), (LogIn::Later, "454 4.7.0")];
        for (step, code) in steps {
            let mut server = secured();
            on_line(&mut server, "AUTH PLAIN =");
            let Action::Say(reply) = server.on(Event::LogIn(step)) else { panic!() };
            assert_eq!(format!("{} {}", reply.code, reply.status.unwrap()), code);
            assert_eq!(server.login(), None);
            // What is not the client's fault is not held against it.
            assert_eq!(server.errors(), usize::from(!reply.lines[0].contains("checked")));
        }
    }

    #[test]
    fn passwords_are_for_nobody_else_to_read() {
        let mut server = session(9);
        say(&mut server, "EHLO a");
        let Action::Say(reply) = on_line(&mut server, "AUTH PLAIN AGEAYg==") else { panic!() };
        assert_eq!((reply.code, reply.status.unwrap().to_string().as_str()), (538, "5.7.11"));
        let trusted = Mechanisms { secure: vec!["PLAIN".to_string()], plain: vec!["PLAIN".to_string()] };
        let mut server = on_service(9, Service { mechanisms: Arc::new(trusted), ..service() });
        say(&mut server, "EHLO a");
        assert!(matches!(on_line(&mut server, "AUTH PLAIN"), Action::LogIn { .. }));
    }

    #[test]
    fn auth_has_its_place() {
        let mut server = session(9);
        assert_eq!(say(&mut server, "AUTH PLAIN"), 503);
        let mut server = secured();
        assert_eq!(say(&mut server, "AUTH X-NO-SUCH"), 504);
        assert_eq!(say(&mut server, "MAIL FROM:<>"), 250);
        assert_eq!(say(&mut server, "AUTH PLAIN"), 503);
        say(&mut server, "HELO a");
        assert_eq!(say(&mut server, "AUTH PLAIN"), 503);
        let mut server = on_service(9, Service::default());
        say(&mut server, "EHLO a");
        assert_eq!(say(&mut server, "AUTH PLAIN"), 502);
    }

    #[test]
    fn tls_forgets_who_it_was() {
        let trusted = Mechanisms { secure: vec!["PLAIN".to_string()], plain: vec!["PLAIN".to_string()] };
        let mut server = on_service(9, Service { mechanisms: Arc::new(trusted), ..service() });
        say(&mut server, "EHLO a");
        on_line(&mut server, "AUTH PLAIN =");
        let _ = server.on(Event::LogIn(LogIn::Done("alice".to_string())));
        say(&mut server, "STARTTLS");
        let _ = server.on(Event::Secured);
        assert_eq!(server.login(), None);
    }
}
