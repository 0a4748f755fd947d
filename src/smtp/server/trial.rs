//! What the tests of this folder share: a session, and a way to talk to it.

use std::sync::Arc;

use crate::mail::id::Id;

use super::{Action, Event, Mechanisms, Proof, Server, Service, Settings, Verdict};

/// Stands for the spool's proof.
pub(super) struct Stored;

impl Proof for Stored {
    fn id(&self) -> Id {
        Id::parse("0123456789ABCDE").unwrap()
    }
}

/// With a certificate, and passwords under TLS only.
pub(super) fn service() -> Service {
    let secure = vec!["PLAIN".to_string(), "LOGIN".to_string()];
    let mechanisms = Arc::new(Mechanisms { secure, plain: vec![] });
    Service { starttls: true, mechanisms, ..Service::default() }
}

/// A session that has greeted its client.
pub(super) fn on_service(max_errors: usize, service: Service) -> Server<Stored> {
    let hostname = "mx.example.org".to_string();
    let settings = Settings { hostname, max_message_size: 1000, max_recipients: 3, max_errors };
    let mut server = Server::new(Arc::new(settings), service);
    assert!(server.client_must_wait());
    let _ = server.on(Event::Opened);
    server
}

pub(super) fn session(max_errors: usize) -> Server<Stored> {
    on_service(max_errors, service())
}

pub(super) fn code(action: &Action) -> u16 {
    match action {
        Action::Say(reply) | Action::HangUp(reply) => reply.code,
        Action::Swallow { then, .. } => code(then),
        Action::TakeData { go_ahead } | Action::Secure { go_ahead } => go_ahead.code,
        _ => panic!("{action:?}"),
    }
}

/// Says a line; all that is asked about is accepted.
pub(super) fn say(server: &mut Server<Stored>, line: &str) -> u16 {
    let mut action = server.on(Event::Line(line.as_bytes()));
    if matches!(action, Action::Judge(_) | Action::Introduce(_)) {
        action = server.on(Event::Judged(Verdict::Accept(None)));
    }
    code(&action)
}
