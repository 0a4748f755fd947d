//! What programs and proxies say to each other.

use std::fmt::Debug;
use std::sync::OnceLock;

use posta::courier::drop::{Dropped, Submission};
use posta::courier::order::{Answer, Order};
use posta::courier::report::FromHand;
use posta::courier::request::{Leaf, Request};
use posta::net::proxy::{self, Progress};
use posta::sasl::dialogue;
use posta::sasl::exchange::{Action, Exchange};
use posta::sasl::keys::{ITERATIONS, Keys};
use posta::sasl::mechanism::{Binding, Mechanism};
use posta::sasl::prepare;
use posta::sasl::scram::Channel;

/// Packets between programs: what is read is written so that it is read again.
pub fn courier(input: &[u8]) {
    let Some((kind, packet)) = input.split_first() else { return };
    match kind % 8 {
        0 => again(Request::decode(packet), Request::encode, Request::decode),
        1 => again(FromHand::decode(packet), FromHand::encode, FromHand::decode),
        2 => again(Order::decode(packet), Order::encode, Order::decode),
        3 => again(Answer::decode(packet), Answer::encode, Answer::decode),
        4 => again(Submission::decode(packet), Submission::encode, Submission::decode),
        5 => again(Dropped::decode(packet), Dropped::encode, Dropped::decode),
        6 => again(Leaf::decode(packet), Leaf::encode, Leaf::decode),
        _ => {
            again(dialogue::Request::decode(packet), dialogue::Request::encode, dialogue::Request::decode);
            again(dialogue::Answer::decode(packet), dialogue::Answer::encode, dialogue::Answer::decode);
        }
    }
}

fn again<T: PartialEq + Debug, E: Debug>(
    read: Result<T, E>,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    let Ok(value) = read else { return };
    // What has numbers in needless digits may be longer when written; a packet has a limit.
    let Ok(written) = encode(&value) else { return };
    assert_eq!(decode(&written).expect("what was written can be read"), value);
}

/// An exchange of SASL with a client that does not know the password: never accepted. Responses are
/// lines.
pub fn sasl(input: &[u8]) {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    let Some((kind, rest)) = input.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(rest)
        && let Ok(prepared) = prepare::saslprep(text)
    {
        assert_eq!(prepare::saslprep(&prepared).as_ref(), Ok(&prepared));
    }
    let mechanism = match kind % 4 {
        0 => Mechanism::Plain,
        1 => Mechanism::Login,
        2 => Mechanism::ScramSha256,
        _ => Mechanism::ScramSha256Plus,
    };
    let channel = Channel { bindings: vec![(Binding::Exporter, vec![7; 32])], plus_offered: kind & 4 != 0 };
    let mut responses = rest.split(|b| *b == b'\n');
    let initial = if kind & 8 != 0 { responses.next() } else { None };
    let (mut exchange, mut action) = Exchange::begin(mechanism, initial, channel);
    loop {
        action = match action {
            Action::Challenge(_) => match responses.next() {
                Some(response) => exchange.respond(response),
                None => return,
            },
            Action::FindKeys(login) => {
                assert!(!login.is_empty());
                let derive = || Keys::derive("pencil", b"salt", ITERATIONS).expect("keys");
                exchange.keys(KEYS.get_or_init(derive).clone(), "nonce")
            }
            Action::Check(credentials) => {
                assert!(!credentials.login.is_empty());
                return;
            }
            Action::Accept(login) => panic!("{login} is taken without a password"),
            Action::Refuse(_) => return,
        };
    }
}

/// A PROXY header: never read beyond its end, and never more wanted than it can have.
pub fn proxy(input: &[u8]) {
    let mut end = 0;
    loop {
        match proxy::parse(&input[..end]) {
            Err(_) => return,
            Ok(Progress::Whole(_, used)) => {
                assert_eq!(used, end, "what follows was read too");
                return;
            }
            Ok(Progress::Needs(more)) => {
                assert!(more > 0 && end + more <= 16 + 4096);
                end += more;
                if end > input.len() {
                    return;
                }
            }
        }
    }
}
