//! What SCRAM-SHA-256 stores of a password (RFC 5802 3): enough to check a proof, not to make one.
//!
//! In a users file they stand in Dovecot's form, `iterations,salt,StoredKey,ServerKey`, the last
//! three in base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::sha::{Sha256, sha256};

use super::{Fault, prepare};

/// Octets of SHA-256, and of a key.
pub const LENGTH: usize = 32;
/// Octets that HMAC works on at once (RFC 2104 2).
const BLOCK: usize = 64;
/// RFC 7677 4: at least 4096 iterations. What clients are asked to work is bounded too: some give
/// up when it is much.
pub const ITERATIONS: u32 = 4096;
/// More in a users file is a mistake.
const MOST_ITERATIONS: u32 = 10_000_000;

/// A user's keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// How often the password was hashed.
    pub iterations: u32,
    /// What it was hashed with.
    pub salt: Vec<u8>,
    /// H(ClientKey)
    stored: [u8; LENGTH],
    server: [u8; LENGTH],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} iterations)", self.iterations)
    }
}

/// How much work it is to make keys of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost {
    /// How often the password is hashed.
    pub iterations: u32,
    /// Octets of salt.
    pub salt: usize,
}

impl Default for Cost {
    /// Of the keys that are made here.
    fn default() -> Cost {
        Cost { iterations: ITERATIONS, salt: 16 }
    }
}

impl Keys {
    /// Of a password (RFC 5802 3): SaltedPassword, and of it ClientKey, StoredKey and ServerKey.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Result<Keys, Fault> {
        // RFC 5802 2.2: Normalize; RFC 4013 refuses some strings, which then are hashed as they are.
        let password = prepare::saslprep(password).unwrap_or_else(|_| password.to_string());
        let mut salted = [0; LENGTH];
        openssl::pkcs5::pbkdf2_hmac(
            password.as_bytes(),
            salt,
            iterations as usize,
            MessageDigest::sha256(),
            &mut salted,
        )
        .map_err(|_| Fault::Library)?;
        Ok(Keys {
            iterations,
            salt: salt.to_vec(),
            stored: sha256(&hmac(&salted, b"Client Key")),
            server: hmac(&salted, b"Server Key"),
        })
    }

    /// Keys that nobody has the password of, for users who have none: an outsider can't tell. The same
    /// name has the same salt each time, as `secret` has it.
    pub fn decoy(login: &str, secret: &[u8], cost: Cost) -> Keys {
        let of = |what: &str| hmac(secret, format!("{what} {login}").as_bytes());
        let blocks = std::iter::successors(Some(of("salt")), |block| Some(hmac(secret, block)));
        let salt = blocks.flatten().take(cost.salt).collect();
        Keys { iterations: cost.iterations, salt, stored: of("stored"), server: of("server") }
    }

    /// What everybody is told of them who names the user.
    pub fn cost(&self) -> Cost {
        Cost { iterations: self.iterations, salt: self.salt.len() }
    }

    /// Reads Dovecot's form.
    pub fn parse(text: &str) -> Option<Keys> {
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored, server] = parts[..] else { return None };
        let iterations = iterations.parse().ok().filter(|n| (1..=MOST_ITERATIONS).contains(n))?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Keys { iterations, salt, stored: key(stored)?, server: key(server)? })
    }

    /// Whether this is the password; it takes as long either way.
    pub fn check(&self, password: &str) -> Result<bool, Fault> {
        let derived = Keys::derive(password, &self.salt, self.iterations)?;
        Ok(openssl::memcmp::eq(&derived.stored, &self.stored))
    }

    /// Whether `proof` of `message` was made by who knows the password (RFC 5802 3: ClientProof).
    pub(super) fn proves(&self, proof: &[u8; LENGTH], message: &[u8]) -> bool {
        let mut client_key = hmac(&self.stored, message);
        client_key.iter_mut().zip(proof).for_each(|(octet, proof)| *octet ^= proof);
        openssl::memcmp::eq(&sha256(&client_key), &self.stored)
    }

    /// The server's own proof that it knows the keys (RFC 5802 3: ServerSignature).
    pub(super) fn sign(&self, message: &[u8]) -> [u8; LENGTH] {
        hmac(&self.server, message)
    }
}

impl fmt::Display for Keys {
    /// Dovecot's form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored, &self.server].map(|octets| STANDARD.encode(octets));
        write!(f, "{},{salt},{stored},{server}", self.iterations)
    }
}

/// HMAC-SHA-256 (RFC 2104 2).
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; LENGTH] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..LENGTH].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let hash = |pad: u8, text: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(&block.map(|octet| octet ^ pad));
        hash.update(text);
        hash.finish()
    };
    hash(0x5c, &hash(0x36, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let hex = |octets: &[u8]| octets.iter().map(|o| format!("{o:02x}")).collect::<String>();
        // 4.3 and 4.7
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hmac(b"Jefe", b"what do ya want for nothing?")), expected);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex(&hmac(&[0xaa; 131], message)), expected);
    }

    #[test]
    fn keys_check_their_password_and_read_back() {
        let keys = Keys::derive("grün", b"salt of it", 4096).unwrap();
        assert!(keys.check("gru\u{308}n").unwrap());
        assert!(!keys.check("grun").unwrap());
        assert_eq!(Keys::parse(&keys.to_string()), Some(keys.clone()));
        assert!(!format!("{keys:?}").contains("salt"));
    }

    #[test]
    fn what_are_no_keys_is_none() {
        let good = Keys::derive("x", b"salt", 4096).unwrap().to_string();
        for bad in [
            "",
            "4096",
            "4096,,,",
            &good.replace("4096", "0"),
            &good.replace("4096", "x"),
            &good[..good.len() - 4],
        ] {
            assert_eq!(Keys::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_decoy_stays_the_same_and_has_no_password() {
        let decoy = |login| Keys::decoy(login, b"secret", Cost { iterations: 5000, salt: 40 });
        assert_eq!(decoy("alice"), decoy("alice"));
        assert_ne!(decoy("alice").salt, decoy("bob").salt);
        assert_eq!((decoy("alice").iterations, decoy("alice").salt.len()), (5000, 40));
        let decoy = Keys::decoy("alice", b"secret", Cost::default());
        assert!(!decoy.check("alice").unwrap());
    }
}
