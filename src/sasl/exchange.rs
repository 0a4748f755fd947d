//! One exchange between a client and us, in whatever mechanism: what is said, and what must be found
//! out in between. Pure: whoever runs it knows the users.

use super::keys::Keys;
use super::mechanism::Mechanism;
use super::scram::{Channel, First, Last};
use super::{Credentials, Fault, login, plain};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this to the client; its response is the next event.
    Challenge(Vec<u8>),
    /// Find out whether this is the user's password; that ends the exchange.
    Check(Credentials),
    /// Find the keys of this user, or decoys if there is none, for [`Exchange::keys`].
    FindKeys(String),
    /// The client has proved to be this user.
    Accept(String),
    /// The client has not.
    Refuse(Fault),
}

/// An exchange that has begun.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    channel: Channel,
    state: State,
}

/// What comes next.
enum State {
    /// The first message of the mechanism.
    First,
    /// LOGIN: the password of this name.
    Password(Vec<u8>),
    /// SCRAM: the keys.
    Keys(First),
    /// SCRAM: the client's proof.
    Proof(Box<Last>),
    /// SCRAM: nothing, as a sign that our own proof has arrived. RFC 4954 4: what a server has to say at
    /// the end is one more challenge.
    Receipt(String),
    /// Nothing more.
    Over,
}

impl std::fmt::Debug for State {
    /// Without names: one may be a password typed into the wrong field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::First => "First",
            State::Password(_) => "Password",
            State::Keys(_) => "Keys",
            State::Proof(_) => "Proof",
            State::Receipt(_) => "Receipt",
            State::Over => "Over",
        })
    }
}

impl Exchange {
    /// Begins. `initial` is what the client said with its choice, if anything: an empty one is not none
    /// (RFC 4954 4).
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>, channel: Channel) -> (Exchange, Action) {
        let mut exchange = Exchange { mechanism, channel, state: State::First };
        let action = match initial {
            Some(initial) => exchange.respond(initial),
            None if mechanism == Mechanism::Login => Action::Challenge(login::NAME.to_vec()),
            None => Action::Challenge(Vec::new()),
        };
        (exchange, action)
    }

    /// The client's response to the last challenge.
    pub fn respond(&mut self, response: &[u8]) -> Action {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.next(state, response).unwrap_or_else(Action::Refuse)
    }

    /// The keys that were asked for, and our nonce: printable, without commas, and never the same.
    pub fn keys(&mut self, keys: Keys, nonce: &str) -> Action {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Keys(first) => {
                let last = first.challenge(keys, nonce);
                let message = last.message().as_bytes().to_vec();
                self.state = State::Proof(Box::new(last));
                Action::Challenge(message)
            }
            _ => Action::Refuse(Fault::Malformed("keys that nobody asked for")),
        }
    }

    fn next(&mut self, state: State, response: &[u8]) -> Result<Action, Fault> {
        match (state, self.mechanism) {
            (State::First, Mechanism::Plain) => plain::read(response).map(Action::Check),
            (State::First, Mechanism::Login) => {
                self.state = State::Password(response.to_vec());
                Ok(Action::Challenge(login::PASSWORD.to_vec()))
            }
            (State::First, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                let plus = self.mechanism == Mechanism::ScramSha256Plus;
                let first = First::read(response, plus, &self.channel)?;
                let login = first.login.clone();
                self.state = State::Keys(first);
                Ok(Action::FindKeys(login))
            }
            (State::Password(name), _) => login::read(&name, response).map(Action::Check),
            (State::Proof(last), _) => {
                let ours = last.verify(response)?;
                self.state = State::Receipt(last.login);
                Ok(Action::Challenge(ours.into_bytes()))
            }
            (State::Receipt(login), _) if response.is_empty() => Ok(Action::Accept(login)),
            _ => Err(Fault::Malformed("a response to nothing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::Cost;
    use super::*;

    fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> (Exchange, Action) {
        Exchange::begin(mechanism, initial, Channel::default())
    }

    fn check(action: Action) -> (String, String) {
        let Action::Check(credentials) = action else { panic!("{action:?}") };
        (credentials.login, credentials.password)
    }

    #[test]
    fn plain_takes_one_message_at_once_or_after_an_empty_challenge() {
        let (_, action) = begin(Mechanism::Plain, Some(b"\0alice\0secret"));
        assert_eq!(check(action), ("alice".into(), "secret".into()));
        let (mut exchange, action) = begin(Mechanism::Plain, None);
        assert_eq!(action, Action::Challenge(vec![]));
        assert_eq!(check(exchange.respond(b"\0alice\0secret")).0, "alice");
        assert!(matches!(exchange.respond(b"\0alice\0secret"), Action::Refuse(_)));
        assert!(matches!(begin(Mechanism::Plain, Some(b"")).1, Action::Refuse(_)));
    }

    #[test]
    fn login_asks_for_both_or_only_for_the_password() {
        let (mut exchange, action) = begin(Mechanism::Login, None);
        assert_eq!(action, Action::Challenge(b"Username:".to_vec()));
        assert_eq!(exchange.respond(b"bob"), Action::Challenge(b"Password:".to_vec()));
        assert_eq!(check(exchange.respond(b"x")), ("bob".into(), "x".into()));
        let (mut exchange, action) = begin(Mechanism::Login, Some(b"bob"));
        assert_eq!(action, Action::Challenge(b"Password:".to_vec()));
        assert_eq!(check(exchange.respond(b"x")).0, "bob");
    }

    #[test]
    fn scram_asks_for_keys_and_accepts_after_its_own_proof() {
        // RFC 7677 3
        let salt =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, "W22ZaJ0SNY7soEsUEjb6gQ==");
        let keys = Keys::derive("pencil", &salt.unwrap(), 4096).unwrap();
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                      p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (mut exchange, action) = begin(Mechanism::ScramSha256, Some(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        assert_eq!(action, Action::FindKeys("user".into()));
        assert!(matches!(exchange.keys(keys.clone(), nonce), Action::Challenge(_)));
        assert_eq!(
            exchange.respond(proof),
            Action::Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec())
        );
        assert_eq!(exchange.respond(b""), Action::Accept("user".into()));
        assert!(matches!(exchange.respond(b""), Action::Refuse(_)));
        assert!(matches!(exchange.keys(keys, nonce), Action::Refuse(_)));
    }

    proptest! {
        #[test]
        fn nobody_is_accepted_by_chance(
            mechanism in prop::sample::select(&Mechanism::ALL[..]),
            responses in prop::collection::vec("(n,,n=[a-c]{0,2},r=x|c=biws,r=xyz,p=[a-z]{0,4}|\0a\0b|)", 0..5),
        ) {
            let (mut exchange, mut action) = begin(mechanism, None);
            for response in responses {
                if let Action::FindKeys(login) = action {
                    action = exchange.keys(Keys::decoy(&login, b"", Cost::default()), "yz");
                } else {
                    action = exchange.respond(response.as_bytes());
                }
                prop_assert!(!matches!(action, Action::Accept(_)), "{exchange:?}");
            }
        }
    }
}
