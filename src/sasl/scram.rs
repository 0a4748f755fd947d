//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677).
//!
//! ```text
//! C: n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL                        First::read
//! S: r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096     Last::message
//! C: c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=
//! S: v=rmF9pqV8S7suAoZWja4dJRkFsKQ=                              Last::verify
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::keys::Keys;
use super::mechanism::Binding;
use super::{Fault, LONGEST, prepare};

/// What there is to bind to, on this connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channel {
    /// The bindings and their data; none without TLS.
    pub bindings: Vec<(Binding, Vec<u8>)>,
    /// Whether SCRAM-SHA-256-PLUS was among what the client was offered.
    pub plus_offered: bool,
}

/// The client's first message.
#[derive(Clone, PartialEq, Eq)]
pub struct First {
    /// Who the client says to be; prepared, see [`prepare::name`].
    pub login: String,
    /// What `c=` of the client's last message must be: gs2-header, and the channel binding's data.
    bound: Vec<u8>,
    /// client-first-message-bare
    bare: String,
    nonce: String,
}

/// What the client's last message is compared with.
#[derive(Clone, PartialEq, Eq)]
pub struct Last {
    /// Who the client says to be.
    pub login: String,
    bound: Vec<u8>,
    bare: String,
    /// server-first-message
    message: String,
    /// The client's and ours.
    nonce: String,
    keys: Keys,
}

impl First {
    /// Reads it. `plus`: the client has chosen the mechanism that is bound to the channel.
    pub fn read(message: &[u8], plus: bool, channel: &Channel) -> Result<First, Fault> {
        let text = std::str::from_utf8(message).map_err(|_| Fault::Malformed("not UTF-8"))?;
        if text.len() > 4 * LONGEST {
            return Err(Fault::Malformed("first message is too long"));
        }
        // RFC 5802 7: gs2-header = gs2-cbind-flag "," [ authzid ] ","
        let (flag, rest) = text.split_once(',').ok_or(Fault::Malformed("no gs2-header"))?;
        let (authzid, bare) = rest.split_once(',').ok_or(Fault::Malformed("no gs2-header"))?;
        let mut bound = message[..message.len() - bare.len()].to_vec();
        bound.extend_from_slice(binding(flag, plus, channel)?);
        let (login, nonce) = name_and_nonce(bare)?;
        // As in PLAIN: checked and never used (CVE-2023-27582).
        if !authzid.is_empty() && said(authzid, "a=").and_then(decode_name)? != login {
            return Err(Fault::Authzid);
        }
        Ok(First { login, bound, bare: bare.to_string(), nonce: nonce.to_string() })
    }

    /// Our answer, by the user's keys. `nonce` is ours: printable, without commas, and never the same.
    pub fn challenge(self, keys: Keys, nonce: &str) -> Last {
        let First { login, bound, bare, nonce: theirs } = self;
        let nonce = theirs + nonce;
        let message = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        Last { login, bound, bare, message, nonce, keys }
    }
}

impl Last {
    /// server-first-message
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Reads the client's last message, and gives ours, by which the client knows that we have the keys
    /// and are not just anybody.
    pub fn verify(&self, message: &[u8]) -> Result<String, Fault> {
        let text = std::str::from_utf8(message).map_err(|_| Fault::Malformed("not UTF-8"))?;
        // RFC 5802 7: client-final-message = channel-binding "," nonce ["," extensions] "," proof
        let (without_proof, proof) = text.rsplit_once(',').ok_or(Fault::Malformed("no proof"))?;
        let proof =
            STANDARD.decode(said(proof, "p=")?).map_err(|_| Fault::Malformed("proof is no base64"))?;
        let proof = proof.try_into().map_err(|_| Fault::Malformed("proof has not 32 octets"))?;
        let mut parts = without_proof.split(',');
        let mut next = |name| said(parts.next().unwrap_or_default(), name);
        let bound = STANDARD.decode(next("c=")?).map_err(|_| Fault::Malformed("c= is no base64"))?;
        if next("r=")? != self.nonce {
            return Err(Fault::Malformed("not the nonce that was given"));
        }
        if bound != self.bound {
            return Err(Fault::Binding("the client's channel is not ours"));
        }
        let auth_message = format!("{},{},{without_proof}", self.bare, self.message);
        if !self.keys.proves(&proof, auth_message.as_bytes()) {
            return Err(Fault::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(self.keys.sign(auth_message.as_bytes()))))
    }
}

/// What the flag of the gs2-header binds to, or why it can't (RFC 5802 6).
fn binding<'c>(flag: &str, plus: bool, channel: &'c Channel) -> Result<&'c [u8], Fault> {
    match (flag, plus) {
        ("n", false) => Ok(&[]),
        // "the client thinks the server does not": but we do, so somebody has hidden it.
        ("y", false) if channel.plus_offered => {
            Err(Fault::Binding("offered, but the client did not hear of it: downgraded by somebody"))
        }
        ("y", false) => Ok(&[]),
        ("n" | "y", true) => Err(Fault::Binding("-PLUS chosen, but nothing bound")),
        (flag, plus) => {
            let name = flag.strip_prefix("p=").ok_or(Fault::Malformed("unknown gs2-cbind-flag"))?;
            if !plus {
                return Err(Fault::Binding("bound, but -PLUS not chosen"));
            }
            let wanted = Binding::parse(name).ok_or(Fault::Binding("of an unknown type"))?;
            let found = channel.bindings.iter().find(|(kind, _)| *kind == wanted);
            found.map(|(_, data)| &data[..]).ok_or(Fault::Binding("this connection has none of that type"))
        }
    }
}

/// client-first-message-bare: `n=` and `r=`. Extensions that follow are left alone, a mandatory one
/// (`m=`, which would stand first) is not understood.
fn name_and_nonce(bare: &str) -> Result<(String, &str), Fault> {
    let mut parts = bare.split(',');
    let name = said(parts.next().unwrap_or_default(), "n=").and_then(decode_name)?;
    let nonce = said(parts.next().unwrap_or_default(), "r=")?;
    // RFC 5802 7: printable = %x21-2B / %x2D-7E
    if nonce.is_empty() || nonce.len() > LONGEST || !nonce.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(Fault::Malformed("bad nonce"));
    }
    Ok((name, nonce))
}

/// The value of an attribute.
fn said<'a>(part: &'a str, name: &str) -> Result<&'a str, Fault> {
    part.strip_prefix(name).ok_or(Fault::Malformed("an attribute is missing or not in its place"))
}

/// RFC 5802 5.1: a comma is `=2C`, an equals sign `=3D`, and no other `=` may be there.
fn decode_name(coded: &str) -> Result<String, Fault> {
    let mut decoded = String::new();
    let mut parts = coded.split('=');
    decoded += parts.next().unwrap_or_default();
    for part in parts {
        let (sign, rest) = match part.get(..2) {
            Some("2C") => (',', &part[2..]),
            Some("3D") => ('=', &part[2..]),
            _ => return Err(Fault::Malformed("a name with a bare \"=\"")),
        };
        decoded.push(sign);
        decoded += rest;
    }
    prepare::name(decoded.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::{Cost, LENGTH, hmac};
    use super::*;

    /// RFC 7677 3
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";

    fn pencil() -> Keys {
        Keys::derive("pencil", &STANDARD.decode(SALT).unwrap(), 4096).unwrap()
    }

    fn channel() -> Channel {
        let bindings = vec![(Binding::Exporter, b"exported".to_vec())];
        Channel { bindings, plus_offered: true }
    }

    /// What a client sends that knows the password: `c=…,r=…,p=…`.
    fn client(password: &str, bare: &str, server_first: &str, bound: &[u8]) -> String {
        let mut parts = server_first.split(',').map(|part| &part[2..]);
        let (nonce, salt) = (parts.next().unwrap(), STANDARD.decode(parts.next().unwrap()).unwrap());
        let iterations: usize = parts.next().unwrap().parse().unwrap();
        let mut salted = [0; LENGTH];
        let sha = openssl::hash::MessageDigest::sha256();
        openssl::pkcs5::pbkdf2_hmac(password.as_bytes(), &salt, iterations, sha, &mut salted).unwrap();
        let mut proof = hmac(&salted, b"Client Key");
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let message = format!("{bare},{server_first},{without_proof}");
        let signature = hmac(&openssl::sha::sha256(&proof), message.as_bytes());
        proof.iter_mut().zip(signature).for_each(|(octet, other)| *octet ^= other);
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let first = First::read(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", false, &Channel::default()).unwrap();
        assert_eq!(first.login, "user");
        let last = first.challenge(pencil(), NONCE);
        assert_eq!(
            last.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let answer = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last.verify(answer).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = String::from_utf8_lossy(answer).replace("p=d", "p=e");
        assert_eq!(last.verify(wrong.as_bytes()), Err(Fault::Proof));
    }

    #[test]
    fn plus_is_bound_to_the_channel() {
        let (header, bare) = ("p=tls-exporter,,", "n=user,r=abc");
        let first = First::read(format!("{header}{bare}").as_bytes(), true, &channel()).unwrap();
        let last = first.challenge(pencil(), "xyz");
        let bound = |data: &[u8]| [header.as_bytes(), data].concat();
        let good = client("pencil", bare, last.message(), &bound(b"exported"));
        assert!(last.verify(good.as_bytes()).is_ok());
        let elsewhere = client("pencil", bare, last.message(), &bound(b"of another"));
        assert!(matches!(last.verify(elsewhere.as_bytes()), Err(Fault::Binding(_))));
        assert_eq!(
            last.verify(client("eraser", bare, last.message(), &bound(b"exported")).as_bytes()),
            Err(Fault::Proof)
        );
    }

    #[test]
    fn a_hidden_offer_and_mismatched_flags_are_refused() {
        let read = |message: &str, plus: bool, channel: &Channel| {
            First::read(message.as_bytes(), plus, channel).map(|first| first.login)
        };
        let none = Channel::default();
        assert!(matches!(read("y,,n=u,r=1", false, &channel()), Err(Fault::Binding(_))));
        assert_eq!(read("y,,n=u,r=1", false, &none).as_deref(), Ok("u"));
        assert_eq!(read("n,,n=u,r=1", false, &channel()).as_deref(), Ok("u"));
        for (message, plus) in [
            ("n,,n=u,r=1", true),
            ("y,,n=u,r=1", true),
            ("p=tls-exporter,,n=u,r=1", false),
            ("p=tls-unique,,n=u,r=1", true),
            ("p=tls-server-end-point,,n=u,r=1", true),
        ] {
            assert!(matches!(read(message, plus, &channel()), Err(Fault::Binding(_))), "{message}");
        }
    }

    #[test]
    fn names_are_decoded_and_acting_for_others_is_refused() {
        let read = |message: &str| {
            First::read(message.as_bytes(), false, &Channel::default()).map(|first| first.login)
        };
        assert_eq!(read("n,a=a=2Cb,n=A=2Cb,r=1").as_deref(), Ok("a,b"));
        assert_eq!(read("n,,n=a=3Db,r=1,x=extension").as_deref(), Ok("a=b"));
        assert_eq!(read("n,a=bob,n=alice,r=1"), Err(Fault::Authzid));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=u,r=1",
            "n,,m=1,n=u,r=1",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,n==,r=1",
            "n,,n=a=2,r=1",
            "n,,n=a=ü,r=1",
            "n,,r=1,n=u",
            "n,b=u,n=u,r=1",
            "n,,n=u,r=a b",
        ] {
            assert!(matches!(read(bad), Err(Fault::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn last_messages_that_are_none_are_refused() {
        let first = First::read(b"n,,n=user,r=abc", false, &Channel::default()).unwrap();
        let last = first.challenge(pencil(), "xyz");
        let good = client("pencil", "n=user,r=abc", last.message(), b"n,,");
        assert!(last.verify(good.as_bytes()).is_ok());
        let changes = [("c=biws", "c=b"), ("r=abcxyz", "r=abc"), (",p=", ",q="), ("c=", "x=")];
        for (from, to) in changes {
            let bad = good.replace(from, to);
            assert!(matches!(last.verify(bad.as_bytes()), Err(Fault::Malformed(_))), "{bad}");
        }
        assert!(matches!(last.verify(good.replace("biws", "eSws").as_bytes()), Err(Fault::Binding(_))));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(first in "[nyp],(a=)?[a-c=]{0,3},n=[a-z=,23CDü]{0,8},r=.{0,8}", last in "(c=)?[a-z=]{0,8},r=.{0,9},p=.{0,9}") {
            if let Ok(first) = First::read(first.as_bytes(), false, &Channel::default()) {
                prop_assert!(first.challenge(Keys::decoy("x", b"y", Cost::default()), "n").verify(last.as_bytes()).is_err());
            }
        }
    }
}
