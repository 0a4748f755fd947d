//! What is known of the client: what it calls itself, whether it is heard under TLS, and what a
//! trusted host says that it is.

use crate::smtp::command::Salute;
use crate::smtp::extension::{self, Offer};
use crate::smtp::introduction::{self, Introduction};
use crate::smtp::reply::Reply;
use crate::smtp::rule;

use super::{Action, Open, Proof, Server, Verdict};

/// A client that has named itself.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) name: String,
    /// By EHLO or LHLO.
    pub(super) extended: bool,
}

impl<P: Proof> Server<P> {
    /// RFC 5321 3.1, and 7.5: no version.
    pub(super) fn greeting(&mut self) -> Action {
        self.client_must_wait = true;
        let protocol = if self.service.lmtp { "LMTP" } else { "ESMTP" };
        Action::Say(Reply::new(220, None, format!("{} {protocol} posta", self.settings.hostname)))
    }

    /// HELO, EHLO and LHLO.
    pub(super) fn hello(&mut self, name: &str, salute: Salute) -> Action {
        // RFC 2033 4.1: LHLO is for LMTP only, and the two others are for SMTP only.
        match (self.service.lmtp, salute) {
            (true, Salute::Helo | Salute::Ehlo) => {
                return self.wrong(Reply::coded(500, 5, 1, "this is LMTP; say LHLO"));
            }
            (false, Salute::Lhlo) => return self.not_offered("LHLO"),
            _ => {}
        }
        // RFC 5321 4.1.4: as if RSET had been said.
        self.reset();
        let extended = salute != Salute::Helo;
        self.greeted = Some(Greeted { name: name.to_string(), extended });
        self.client_must_wait = true;
        let mut reply = Reply::new(250, None, self.settings.hostname.clone());
        if extended {
            let offer = Offer {
                max_message_size: self.settings.max_message_size,
                max_recipients: self.settings.max_recipients,
                secure: self.secure,
                starttls: self.service.starttls && !self.secure,
                mechanisms: self.mechanisms_now(),
                xclient: self.service.xclient,
                xforward: self.service.xforward,
            };
            reply.lines.extend(extension::announcements(&offer));
        }
        Action::Say(reply)
    }

    /// STARTTLS (RFC 3207 4).
    pub(super) fn start_tls(&mut self) -> Action {
        if self.secure {
            return self.out_of_order("the session is under TLS already");
        }
        if !self.service.starttls {
            return self.not_offered("STARTTLS");
        }
        self.open = Some(Open::Handshake);
        self.client_must_wait = true;
        Action::Secure { go_ahead: Reply::coded(220, 0, 0, "begin the TLS handshake") }
    }

    /// RFC 3207 4.2: all that was learnt before is forgotten, since anybody may have said it. Only
    /// the errors stay, which are nobody's gain.
    pub(super) fn secured(&mut self) -> Action {
        self.secure = true;
        self.forget();
        Action::Listen
    }

    /// XCLIENT: the client speaks for another one.
    pub(super) fn xclient(&mut self, attributes: &str) -> Action {
        if !self.service.xclient {
            return self.wrong(not_trusted("XCLIENT"));
        }
        if self.transaction.is_some() {
            return self.out_of_order("not within a message; RSET drops it");
        }
        match Introduction::parse(attributes, introduction::XCLIENT) {
            Err(error) => self.wrong(error.reply()),
            Ok(introduction) => {
                let introduction = Box::new(introduction);
                self.open = Some(Open::Introduction(introduction.clone()));
                self.client_must_wait = true;
                Action::Introduce(introduction)
            }
        }
    }

    /// Whether the client that was introduced may talk to us. If so the session begins anew, with
    /// what was said of it.
    pub(super) fn introduced(&mut self, verdict: Verdict, introduction: Introduction) -> Action {
        match verdict {
            Verdict::Accept(_) => {
                self.forget();
                let extended = introduction.extended.value().copied().unwrap_or_default();
                self.greeted = introduction.helo.value().map(|name| Greeted { name: name.clone(), extended });
                self.login = introduction.login.value().cloned();
                self.greeting()
            }
            Verdict::Refuse(reply) => self.refused(reply),
            Verdict::HangUp(reply) => Action::HangUp(reply),
        }
    }

    /// XFORWARD: from whom the client has the next message. It is noted, and decides nothing.
    pub(super) fn xforward(&mut self, attributes: &str) -> Action {
        if !self.service.xforward {
            return self.wrong(not_trusted("XFORWARD"));
        }
        if self.transaction.is_some() {
            return self.out_of_order("not within a message; RSET drops it");
        }
        match Introduction::parse(attributes, introduction::XFORWARD) {
            Err(error) => self.wrong(error.reply()),
            Ok(introduction) => {
                self.forwarded.get_or_insert_default().update(introduction);
                Action::Say(Reply::coded(250, 0, 0, "Ok"))
            }
        }
    }

    /// The client is another one from now on, which may or may not speak for others in its turn. To be
    /// said before the verdict about it.
    pub fn entrust(&mut self, xclient: bool, xforward: bool) {
        self.service.xclient = xclient;
        self.service.xforward = xforward;
    }

    /// As it was before the client's first word.
    fn forget(&mut self) {
        self.reset();
        self.greeted = None;
        self.login = None;
    }
}

/// What somebody is told who is not on the list.
fn not_trusted(verb: &str) -> Reply {
    rule::NOT_TRUSTED.reply(format!("{verb} is not for this client"))
}

#[cfg(test)]
mod tests {
    use super::super::trial::{code, on_service, say, service, session};
    use super::super::{Event, Service};
    use super::*;

    #[test]
    fn starttls_forgets_everything() {
        let mut server = session(9);
        for line in ["EHLO a", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
            assert_eq!(say(&mut server, line), 250);
        }
        assert_eq!(say(&mut server, "STARTTLS"), 220);
        assert_eq!(server.on(Event::Secured), Action::Listen);
        assert!(server.is_secure() && server.greeted_as().is_none() && server.transaction().is_none());
        assert_eq!(say(&mut server, "MAIL FROM:<a@b>"), 503);
        let Action::Say(reply) = server.on(Event::Line(b"EHLO a")) else { panic!() };
        assert!(!reply.lines.contains(&"STARTTLS".to_string()), "{reply:?}");
        assert_eq!(say(&mut server, "STARTTLS"), 503);
    }

    #[test]
    fn starttls_is_not_there_without_a_certificate() {
        let mut server = on_service(9, Service { starttls: false, ..service() });
        assert_eq!(say(&mut server, "EHLO a"), 250);
        assert_eq!(say(&mut server, "STARTTLS"), 502);
    }

    #[test]
    fn lmtp_has_a_greeting_of_its_own() {
        let mut server = on_service(9, Service { lmtp: true, ..service() });
        for (line, code) in [("EHLO a", 500), ("HELO a", 500), ("MAIL FROM:<>", 503), ("LHLO a", 250)] {
            assert_eq!(say(&mut server, line), code, "{line}");
        }
        assert_eq!(say(&mut server, "MAIL FROM:<> SIZE=1"), 250);
        assert_eq!(say(&mut session(9), "LHLO a"), 502);
    }

    #[test]
    fn an_introduction_begins_anew() {
        let mut server = on_service(9, Service { xclient: true, ..service() });
        assert_eq!(say(&mut server, "EHLO proxy"), 250);
        assert_eq!(say(&mut server, "XCLIENT ADDR=192.0.2.1 HELO=h PROTO=ESMTP LOGIN=alice"), 220);
        assert_eq!((server.greeted_as(), server.login()), (Some(("h", true)), Some("alice")));
        assert_eq!(say(&mut server, "XCLIENT NAME=x"), 220);
        assert_eq!((server.greeted_as(), server.login()), (None, None));
        assert_eq!(say(&mut server, "EHLO h"), 250);
        assert_eq!(say(&mut server, "MAIL FROM:<>"), 250);
        assert_eq!(say(&mut server, "XCLIENT NAME=x"), 503);
        assert_eq!(say(&mut server, "XFORWARD NAME=x"), 550);
        let mut server = on_service(9, Service { xclient: true, ..service() });
        let _ = server.on(Event::Line(b"XCLIENT ADDR=192.0.2.1"));
        let no = Reply::coded(421, 7, 0, "no more");
        assert_eq!(server.on(Event::Judged(Verdict::HangUp(no.clone()))), Action::HangUp(no));
        assert_eq!(say(&mut session(9), "XCLIENT ADDR=192.0.2.1"), 550);
    }

    #[test]
    fn a_login_that_is_told_completes_addresses_if_it_can() {
        for (login, domain) in [
            ("LOGIN=alice@users.example", Some("users.example")),
            ("LOGIN=alice", Some("mx.example.org")),
            ("LOGIN=alice@a..b", Some("mx.example.org")),
            ("LOGIN=[UNAVAILABLE]", None),
        ] {
            let mut server = on_service(9, Service { xclient: true, ..service() });
            assert_eq!(say(&mut server, &format!("XCLIENT HELO=h PROTO=ESMTP {login}")), 220);
            assert_eq!(server.domain_of_users(), domain, "{login}");
            let answer = if domain.is_some() { 250 } else { 501 };
            assert_eq!(say(&mut server, "MAIL FROM:<alice>"), answer, "{login}");
        }
    }

    #[test]
    fn what_was_forwarded_is_for_one_message() {
        let mut server = on_service(9, Service { xforward: true, ..service() });
        assert_eq!(say(&mut server, "EHLO proxy"), 250);
        assert_eq!(say(&mut server, "XFORWARD NAME=x"), 250);
        assert_eq!(say(&mut server, "XFORWARD ADDR=192.0.2.1 IDENT=1"), 250);
        let told = server.forwarded().unwrap();
        assert!(told.name.is_said() && told.address.is_said() && !told.helo.is_said());
        assert_eq!(say(&mut server, "MAIL FROM:<>"), 250);
        assert_eq!(say(&mut server, "XFORWARD NAME=y"), 503);
        assert!(server.forwarded().is_some());
        assert_eq!(say(&mut server, "RSET"), 250);
        assert!(server.forwarded().is_none());
        assert_eq!(code(&server.on(Event::Line(b"XFORWARD"))), 501);
    }
}
