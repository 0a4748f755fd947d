//! One stored password: which scheme it is of, and whether another one is the same.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use thiserror::Error;

use posta::unix::crypt;

use posta::sasl::keys::{Cost, ITERATIONS, Keys};
use posta::sasl::{Fault, prepare};

/// Why a field of a users file is no password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadPassword {
    /// A scheme that posta does not know.
    #[error(
        "unknown scheme {{{0}}}; there are ARGON2ID, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, CRYPT, SCRAM-SHA-256 and PLAIN"
    )]
    Scheme(String),
    /// Not what the scheme has it be.
    #[error("not of the form of a {{{0}}} hash")]
    Form(&'static str),
}

/// What is stored of a user's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// `{ARGON2ID}`, `{ARGON2I}`
    Argon2(String),
    /// All that libcrypt knows.
    Crypt(String),
    /// `{SCRAM-SHA-256}`
    Scram(Keys),
    /// `{PLAIN}`
    Plain(String),
}

/// The kinds of [`Password`]; checks of one kind take about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Argon2,
    Crypt,
    Scram,
    Plain,
}

/// A hash that nobody has the password of, for where nobody has one at all.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$cG9zdGEtbm9ib2R5cw$N3wK4lRCB0RKYx1XZcJNUzDUz3OZLwhI0MGL0f9E2HA";

impl Password {
    /// Reads a field of a users file: `{SCHEME}hash`, or without a scheme what libcrypt knows. `None`:
    /// there is none, so none matches.
    pub fn parse(field: &str) -> Result<Option<Password>, BadPassword> {
        let (scheme, hash) = match field.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((scheme, hash)) => (scheme.to_uppercase(), hash),
            None => ("CRYPT".to_string(), field),
        };
        // As passwd(5) and shadow(5) write that somebody can't log in.
        if hash.is_empty() || (scheme != "PLAIN" && scheme != "CLEARTEXT" && hash.starts_with(['!', '*'])) {
            return Ok(None);
        }
        let crypt = |name: &'static str, prefixes: &[&str]| {
            let fits = prefixes.iter().any(|prefix| hash.starts_with(prefix)) && hash.len() >= 13;
            if fits { Ok(Password::Crypt(hash.to_string())) } else { Err(BadPassword::Form(name)) }
        };
        let password = match scheme.as_str() {
            "ARGON2ID" | "ARGON2I" => match PasswordHash::new(hash) {
                Ok(_) if hash.starts_with("$argon2") => Password::Argon2(hash.to_string()),
                _ => return Err(BadPassword::Form("ARGON2ID")),
            },
            "BLF-CRYPT" => crypt("BLF-CRYPT", &["$2"])?,
            "SHA512-CRYPT" => crypt("SHA512-CRYPT", &["$6$"])?,
            "SHA256-CRYPT" => crypt("SHA256-CRYPT", &["$5$"])?,
            "CRYPT" => crypt("CRYPT", &[""])?,
            "SCRAM-SHA-256" => Password::Scram(Keys::parse(hash).ok_or(BadPassword::Form("SCRAM-SHA-256"))?),
            "PLAIN" | "CLEARTEXT" => Password::Plain(hash.to_string()),
            _ => return Err(BadPassword::Scheme(scheme)),
        };
        Ok(Some(password))
    }

    /// Of `/etc/shadow`, which has no schemes.
    pub fn of_shadow(hash: &str) -> Option<Password> {
        let locked = hash.is_empty() || hash.starts_with(['!', '*']);
        (!locked).then(|| Password::Crypt(hash.to_string()))
    }

    /// What is checked where there is nothing to check.
    pub fn nobodys() -> Password {
        Password::Argon2(NOBODYS.to_string())
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Password::Argon2(_) => Kind::Argon2,
            Password::Crypt(_) => Kind::Crypt,
            Password::Scram(_) => Kind::Scram,
            Password::Plain(_) => Kind::Plain,
        }
    }

    /// What the keys cost that SCRAM goes on with, if there are any.
    pub fn cost(&self) -> Option<Cost> {
        match self {
            Password::Scram(keys) => Some(keys.cost()),
            Password::Plain(_) => Some(Cost::default()),
            Password::Argon2(_) | Password::Crypt(_) => None,
        }
    }

    /// Whether `given` is the password. One whose accents or spaces were typed another way is the same
    /// (RFC 8265); an old hash may have been made of exactly what was typed.
    pub fn matches(&self, given: &str) -> Result<bool, Fault> {
        let prepared = prepare::password(given);
        Ok(self.is(&prepared)? || (prepared != given && self.is(given)?))
    }

    fn is(&self, given: &str) -> Result<bool, Fault> {
        Ok(match self {
            Password::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(given.as_bytes(), &hash).is_ok()),
            Password::Crypt(hash) => crypt::hash(given, hash).is_some_and(|made| are_same(&made, hash)),
            Password::Scram(keys) => return keys.check(given),
            Password::Plain(password) => are_same(given, password),
        })
    }

    /// What SCRAM needs of it, if it has that. `salt` is used where only the password is stored.
    pub fn keys(&self, salt: &[u8]) -> Result<Option<Keys>, Fault> {
        match self {
            Password::Scram(keys) => Ok(Some(keys.clone())),
            Password::Plain(password) => Keys::derive(password, salt, ITERATIONS).map(Some),
            Password::Argon2(_) | Password::Crypt(_) => Ok(None),
        }
    }
}

/// Compares in a time that tells nothing of where they differ.
fn are_same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(field: &str) -> Password {
        Password::parse(field).unwrap().unwrap_or_else(|| panic!("{field}"))
    }

    #[test]
    fn each_scheme_knows_its_password() {
        // Made by python3's crypt, by openssl passwd, by argon2(1), and by hand (RFC 7677 3).
        let fields = [
            "{SHA512-CRYPT}$6$abc$LjS2xoTsdir5sS/M1uEwqdwDr1heBzu5kLkUda5YOSOOVowN.LnFchHDNiRC7EMRN3hfwSgiE4fD1Ox6FxebU0".to_string(),
            "{PLAIN}posta".to_string(),
            format!("{{SCRAM-SHA-256}}{}", Keys::derive("posta", b"salt", 4096).unwrap()),
            format!("{{BLF-CRYPT}}{}", crypt::hash("posta", &crypt::new_setting("$2b$").unwrap()).unwrap()),
            format!("{{sha256-crypt}}{}", crypt::hash("posta", "$5$rounds=1000$salt$").unwrap()),
            crypt::hash("posta", &crypt::new_setting("$y$").unwrap()).unwrap(),
        ];
        for field in &fields {
            let password = parse(field);
            assert!(password.matches("posta").unwrap(), "{field}");
            for wrong in ["", "Posta", "post", "posta "] {
                assert!(!password.matches(wrong).unwrap(), "{field}: {wrong:?}");
            }
        }
    }

    #[test]
    fn argon2_hashes_of_others_are_known() {
        // Made by libsodium's crypto_pwhash_str, as Dovecot does: see also tests/auth.rs.
        let hash = argon2::PasswordHasher::hash_password(&Argon2::default(), b"posta").unwrap().to_string();
        let password = parse(&format!("{{ARGON2ID}}{hash}"));
        assert!(password.matches("posta").unwrap() && !password.matches("postb").unwrap());
    }

    #[test]
    fn nobody_s_hash_is_sound_and_nobody_s() {
        assert!(PasswordHash::new(NOBODYS).is_ok());
        assert!(!Password::nobodys().matches("posta").unwrap());
    }

    #[test]
    fn passwords_match_in_any_spelling() {
        let password = parse("{PLAIN}gr\u{fc}n");
        assert!(password.matches("gru\u{308}n").unwrap());
        let as_typed = parse("{PLAIN}gru\u{308}n");
        assert!(as_typed.matches("gru\u{308}n").unwrap());
        assert!(parse("{PLAIN}x").matches("x").unwrap());
        assert!(parse("{PLAIN}!x").matches("!x").unwrap());
    }

    #[test]
    fn no_password_and_a_locked_one_are_none_and_nonsense_is_told() {
        for none in ["", "{PLAIN}", "*", "!", "!$6$abc$x", "{SHA512-CRYPT}!$6$abc$x", "{CRYPT}*LK*"] {
            assert!(Password::parse(none).unwrap().is_none(), "{none}");
        }
        let unknown = Password::parse("{ROT13}cbfgn").err().unwrap();
        assert!(unknown.to_string().contains("{ROT13}") && unknown.to_string().contains("ARGON2ID"));
        for bad in [
            "{SHA512-CRYPT}$5$a$bcdefghijk",
            "{ARGON2ID}$6$x",
            "{SCRAM-SHA-256}x",
            "{BLF-CRYPT}x",
            "{CRYPT}x",
            "x",
        ] {
            assert!(matches!(Password::parse(bad), Err(BadPassword::Form(_))), "{bad}");
        }
    }
}
