//! AUTH: the client's words go to posta-auth and back (see `login`), and what comes of them into the
//! log.

use posta::net::stream::Binding as Channel;
use posta::sasl::dialogue::Refusal;
use posta::sasl::mechanism::Binding;
use posta::smtp::server::LogIn;

use crate::count;
use crate::login::{Attempt, Login, Step};
use crate::session::Session;

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    login: Login,
    mechanism: String,
}

impl Session {
    /// Begins an exchange.
    pub(crate) fn log_in(&mut self, mechanism: String, initial: Option<&[u8]>) -> LogIn {
        let attempt = Attempt {
            mechanism: &mechanism,
            initial,
            client: self.guest.client.address,
            secure: self.server.is_secure() || self.entrance.trusted,
            binding: self.bindings(),
        };
        let step = Login::begin(&self.terms.auth, &attempt);
        self.take_step(step, mechanism)
    }

    /// The client's next word.
    pub(crate) fn respond(&mut self, response: &[u8]) -> LogIn {
        match self.exchange.take() {
            Some(Exchange { login, mechanism }) => {
                let step = login.answer(response);
                self.take_step(step, mechanism)
            }
            None => LogIn::Later,
        }
    }

    fn take_step(&mut self, step: Step, mechanism: String) -> LogIn {
        match step {
            Step::Challenge(login, challenge) => {
                self.exchange = Some(Exchange { login, mechanism });
                LogIn::Challenge(challenge)
            }
            Step::Done { login } => {
                count::LOGINS.add(1);
                self.guest.log_in(&login, mechanism);
                LogIn::Done(login)
            }
            Step::Refused { why, wait } => {
                count::NO_LOGINS.add(1);
                // As Postfix says it, for the tools that read its log.
                let peer = self.guest.peer();
                log::warn!("{peer}: SASL {mechanism} authentication failed: {}", words(why));
                self.penalty = Some(wait);
                if why == Refusal::LockedOut { LogIn::LockedOut } else { LogIn::Refused }
            }
            Step::Later => LogIn::Later,
        }
    }

    /// What the session's TLS can be bound to.
    fn bindings(&self) -> Vec<(Binding, Vec<u8>)> {
        let kinds =
            [(Binding::Exporter, Channel::Exporter), (Binding::ServerEndPoint, Channel::ServerEndPoint)];
        kinds.into_iter().filter_map(|(name, kind)| Some((name, self.stream.binding(kind)?))).collect()
    }
}

/// A refusal, for the log.
fn words(why: Refusal) -> &'static str {
    match why {
        Refusal::Credentials => "wrong user name or password",
        Refusal::Malformed => "malformed response",
        Refusal::Mechanism => "no such mechanism",
        Refusal::LockedOut => "locked out after too many wrong passwords",
    }
}
