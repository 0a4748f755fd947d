//! The client's side: how posta-remote shows a relay who it is.
//!
//! The strongest mechanism is taken that the relay offers. In SCRAM the relay has to show that it
//! knows the password too; one that says yes without that is not believed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::sha::sha256;
use thiserror::Error;

use super::keys::{ITERATIONS, LENGTH, hmac};
use super::mechanism::{Binding, Mechanism};
use super::prepare;

/// More is not reckoned for anybody; a thread would be busy for seconds.
const MOST_ITERATIONS: u32 = 1_000_000;

/// A name and a password, as the administrator wrote them.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    /// The password is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.name)
    }
}

impl Login {
    /// Reads a line `name password`; the password may have blanks in it. `None`: it is no such line.
    pub fn parse(line: &str) -> Option<Login> {
        let (name, password) = line.trim().split_once([' ', '\t'])?;
        let login = Login { name: name.to_string(), password: password.trim_start().to_string() };
        (!line.contains(['\0', '\n'])).then_some(login)
    }
}

/// Why the relay is not spoken to any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Distrust {
    /// Its words are not what the mechanism has them be.
    #[error("its challenge is malformed: {0}")]
    Malformed(&'static str),
    /// It wants the password hashed too seldom or too often.
    #[error("it wants the password hashed {0} times, which is too seldom or too often")]
    Iterations(u32),
    /// It has not shown that it knows the password.
    #[error("it has not proved that it knows the password")]
    Unproven,
    /// OpenSSL would not do it.
    #[error("OpenSSL can't do PBKDF2 with SHA-256")]
    Library,
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    login: Login,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Everything has been said.
    Said,
    /// LOGIN: the name is asked for next, or the password.
    Name,
    Password,
    /// SCRAM: the server's first message comes next.
    First {
        gs2: Vec<u8>,
        bare: String,
        nonce: String,
    },
    /// SCRAM: this has to come next.
    Proof(String),
}

impl Exchange {
    /// Begins with the strongest of the mechanisms that the relay `offered`; the first words, if they go
    /// along with the name of the mechanism. `bindings`: what the connection can be bound to, best
    /// first. `nonce`: printable, without commas, never the same. `None`: it offers none that we know.
    pub fn begin(
        login: &Login,
        offered: &[String],
        bindings: &[(Binding, Vec<u8>)],
        nonce: &str,
    ) -> Option<(Exchange, Option<Vec<u8>>)> {
        let fits = |mechanism: &Mechanism| {
            let known = offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism.name()));
            known && (*mechanism != Mechanism::ScramSha256Plus || !bindings.is_empty())
        };
        let mechanism = Mechanism::ALL.into_iter().find(fits)?;
        let (state, first) = match mechanism {
            Mechanism::Plain => {
                // RFC 4616 2, without an authzid.
                (State::Said, Some(format!("\0{}\0{}", login.name, login.password).into_bytes()))
            }
            Mechanism::Login => (State::Name, None),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                scram_first(login, mechanism == Mechanism::ScramSha256Plus, bindings, nonce)
            }
        };
        Some((Exchange { mechanism, login: login.clone(), state }, first))
    }

    /// Which it is.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What is said to a challenge.
    pub fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, Distrust> {
        match std::mem::replace(&mut self.state, State::Said) {
            State::Name => {
                self.state = State::Password;
                Ok(self.login.name.clone().into_bytes())
            }
            State::Password => Ok(self.login.password.clone().into_bytes()),
            State::First { gs2, bare, nonce } => self.prove(challenge, &gs2, &bare, &nonce),
            State::Proof(expected) if challenge == expected.as_bytes() => Ok(Vec::new()),
            State::Proof(_) => Err(Distrust::Unproven),
            State::Said => Err(Distrust::Malformed("everything has been said")),
        }
    }

    /// The relay has said yes: whether that can be believed.
    pub fn is_over(&self) -> Result<(), Distrust> {
        match self.state {
            State::Said => Ok(()),
            _ => Err(Distrust::Unproven),
        }
    }

    /// client-final-message (RFC 5802 3 and 7).
    fn prove(&mut self, challenge: &[u8], gs2: &[u8], bare: &str, nonce: &str) -> Result<Vec<u8>, Distrust> {
        let first = std::str::from_utf8(challenge).map_err(|_| Distrust::Malformed("not UTF-8"))?;
        let (whole_nonce, salt, iterations) = server_first(first)?;
        if !whole_nonce.starts_with(nonce) || whole_nonce.len() == nonce.len() {
            return Err(Distrust::Malformed("another nonce"));
        }
        if !(ITERATIONS..=MOST_ITERATIONS).contains(&iterations) {
            return Err(Distrust::Iterations(iterations));
        }
        let salted = salted(&self.login.password, &salt, iterations)?;
        let without_proof = format!("c={},r={whole_nonce}", STANDARD.encode(gs2));
        let message = format!("{bare},{first},{without_proof}");
        let mut proof = hmac(&salted, b"Client Key");
        let signature = hmac(&sha256(&proof), message.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(octet, other)| *octet ^= other);
        let server = hmac(&hmac(&salted, b"Server Key"), message.as_bytes());
        self.state = State::Proof(format!("v={}", STANDARD.encode(server)));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }
}

/// client-first-message (RFC 5802 7): what is bound, then the name and the nonce.
fn scram_first(
    login: &Login,
    plus: bool,
    bindings: &[(Binding, Vec<u8>)],
    nonce: &str,
) -> (State, Option<Vec<u8>>) {
    let (flag, data) = match bindings.first() {
        Some((binding, data)) if plus => (format!("p={}", binding.name()), &data[..]),
        // "we could, but you do not": if the relay did, somebody has hidden it, and the relay will see.
        Some(_) => ("y".to_string(), &[][..]),
        None => ("n".to_string(), &[][..]),
    };
    let header = format!("{flag},,");
    let bare = format!("n={},r={nonce}", login.name.replace('=', "=3D").replace(',', "=2C"));
    let message = format!("{header}{bare}").into_bytes();
    let gs2 = [header.as_bytes(), data].concat();
    (State::First { gs2, bare, nonce: nonce.to_string() }, Some(message))
}

/// server-first-message: nonce, salt, and how often to hash.
fn server_first(message: &str) -> Result<(&str, Vec<u8>, u32), Distrust> {
    let mut parts = message.split(',');
    let mut next = |name: &str| {
        let part = parts.next().unwrap_or_default();
        part.strip_prefix(name).ok_or(Distrust::Malformed("an attribute is missing or not in its place"))
    };
    let nonce = next("r=")?;
    let salt = STANDARD.decode(next("s=")?).map_err(|_| Distrust::Malformed("salt is no base64"))?;
    let iterations = next("i=")?.parse().map_err(|_| Distrust::Malformed("iterations are no number"))?;
    Ok((nonce, salt, iterations))
}

/// SaltedPassword (RFC 5802 3).
fn salted(password: &str, salt: &[u8], iterations: u32) -> Result<[u8; LENGTH], Distrust> {
    let password = prepare::saslprep(password).unwrap_or_else(|_| password.to_string());
    let mut salted = [0; LENGTH];
    let digest = MessageDigest::sha256();
    openssl::pkcs5::pbkdf2_hmac(password.as_bytes(), salt, iterations as usize, digest, &mut salted)
        .map_err(|_| Distrust::Library)?;
    Ok(salted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::Keys;
    use super::super::scram::{Channel, First};
    use super::*;

    fn login(name: &str, password: &str) -> Login {
        Login { name: name.into(), password: password.into() }
    }

    fn begin(offered: &[&str], bindings: &[(Binding, Vec<u8>)]) -> Option<(Exchange, Option<Vec<u8>>)> {
        let offered: Vec<String> = offered.iter().map(|name| name.to_string()).collect();
        Exchange::begin(&login("user", "pencil"), &offered, bindings, "rOprNGfwEbeRWgbNEkqO")
    }

    #[test]
    fn a_line_has_a_name_and_a_password() {
        assert_eq!(Login::parse(" me@x.example  a b "), Some(login("me@x.example", "a b")));
        for bad in ["", "me", " me ", "a b\nc d", "a \0b"] {
            assert_eq!(Login::parse(bad), None, "{bad:?}");
        }
        assert_eq!(format!("{:?}", login("me", "secret")), "Login(me)");
    }

    #[test]
    fn the_strongest_is_taken() {
        let bound = [(Binding::Exporter, b"exported".to_vec())];
        let taken = |offered: &[&str], bindings: &[(Binding, Vec<u8>)]| {
            begin(offered, bindings).map(|(exchange, _)| exchange.mechanism())
        };
        let all = ["LOGIN", "plain", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
        assert_eq!(taken(&all, &bound), Some(Mechanism::ScramSha256Plus));
        assert_eq!(taken(&all, &[]), Some(Mechanism::ScramSha256));
        assert_eq!(taken(&all[..2], &[]), Some(Mechanism::Plain));
        assert_eq!(taken(&["CRAM-MD5"], &bound), None);
    }

    #[test]
    fn plain_is_one_word_and_login_two() {
        let (mut exchange, first) = begin(&["PLAIN"], &[]).unwrap();
        assert_eq!(first.as_deref(), Some(&b"\0user\0pencil"[..]));
        assert_eq!(exchange.is_over(), Ok(()));
        assert!(exchange.answer(b"more?").is_err());
        let (mut exchange, first) = begin(&["LOGIN"], &[]).unwrap();
        assert_eq!((first, exchange.is_over()), (None, Err(Distrust::Unproven)));
        assert_eq!(exchange.answer(b"Username:").unwrap(), b"user");
        assert_eq!(exchange.answer(b"Password:").unwrap(), b"pencil");
        assert_eq!(exchange.is_over(), Ok(()));
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (mut exchange, first) = begin(&["SCRAM-SHA-256"], &[]).unwrap();
        assert_eq!(first.as_deref(), Some(&b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"[..]));
        let challenge =
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(exchange.answer(challenge).unwrap(), answer);
        assert_eq!(exchange.is_over(), Err(Distrust::Unproven), "a yes alone is not believed");
        assert_eq!(exchange.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap(), b"");
        assert_eq!(exchange.is_over(), Ok(()));
    }

    #[test]
    fn our_own_server_is_convinced_and_convinces() {
        let bindings = vec![(Binding::Exporter, b"exported".to_vec())];
        for (plus, name) in [(true, "SCRAM-SHA-256-PLUS"), (false, "SCRAM-SHA-256")] {
            let channel = Channel { bindings: bindings.clone(), plus_offered: plus };
            let who = login("a,=b", "p\u{ad}encil");
            let (mut exchange, first) = Exchange::begin(&who, &[name.into()], &bindings, "abc").unwrap();
            let first = First::read(&first.unwrap(), plus, &channel).unwrap();
            assert_eq!(first.login, "a,=b");
            let last = first.challenge(Keys::derive("pencil", b"salt", ITERATIONS).unwrap(), "xyz");
            let answer = exchange.answer(last.message().as_bytes()).unwrap();
            let proof = last.verify(&answer).unwrap();
            assert!(exchange.answer(proof.as_bytes()).unwrap().is_empty());
        }
    }

    #[test]
    fn a_relay_that_does_not_know_the_password_is_not_believed() {
        let challenge =
            |challenge: &str| begin(&["SCRAM-SHA-256"], &[]).unwrap().0.answer(challenge.as_bytes());
        let good = "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (mut exchange, _) = begin(&["SCRAM-SHA-256"], &[]).unwrap();
        exchange.answer(good.as_bytes()).unwrap();
        assert_eq!(exchange.answer(b"v=AAAA"), Err(Distrust::Unproven));
        assert_eq!(challenge(&good.replace("4096", "1")), Err(Distrust::Iterations(1)));
        assert_eq!(challenge(&good.replace("4096", "2000000000")), Err(Distrust::Iterations(2_000_000_000)));
        for bad in
            [&good.replace("r=r", "r=x"), &good.replace("Ox,", "O,"), "", "r=x", &good.replace("s=", "s=?")]
        {
            assert!(matches!(challenge(bad), Err(Distrust::Malformed(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_challenge_makes_it_panic(words in "(r=abc)?.{0,9},(s=)?.{0,9},(i=)?[0-9]{0,3}") {
            let offered = ["SCRAM-SHA-256".to_string()];
            let (mut exchange, _) = Exchange::begin(&login("u", "p"), &offered, &[], "abc").unwrap();
            prop_assert!(exchange.answer(words.as_bytes()).is_err());
        }
    }
}
