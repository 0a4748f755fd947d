//! Keys, and the signatures that are made with them: an address that we have written, and that
//! comes back, is known by its signature.
//!
//! A key file has a key in each line, at least 16 characters long. The first one signs; all are good
//! for what comes back, so that a new key can be put before an old one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use openssl::sha::{Sha256, sha256};
use thiserror::Error;

use super::table::TableError;
use super::table::watched::Content;

/// Fewest characters of a key.
const SHORTEST: usize = 16;
/// Bytes of a key that is made here.
const MADE: usize = 32;
/// The digits of signatures and days: mail programs may turn them to capitals or back.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The keys of a file.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Vec<Vec<u8>>,
}

/// Why a key file could not be made.
#[derive(Debug, Error)]
#[error("{path}: no key could be made there ({why}); without it, signed senders wait")]
pub struct KeyError {
    path: String,
    why: String,
}

impl Keys {
    /// Reads a key file.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Keys, TableError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<Vec<u8>> = lines.map(|line| line.as_bytes().to_vec()).collect();
        if keys.is_empty() || keys.iter().any(|key| key.len() < SHORTEST) {
            let why = format!("a key of at least {SHORTEST} characters is wanted in each line");
            return Err(TableError::Line { path: path.to_path_buf(), line: 1, why });
        }
        Ok(Keys { keys })
    }

    /// The signature of a text: so many digits of 5 bits. Case doesn't count.
    pub(super) fn sign(&self, text: &str, digits: usize) -> String {
        signature(&self.keys[0], text, digits)
    }

    /// Whether a signature is one of ours. Takes the same time wherever it differs.
    pub(super) fn verify(&self, text: &str, given: &str) -> bool {
        let given = given.to_ascii_lowercase();
        self.keys.iter().any(|key| {
            let good = signature(key, text, given.len());
            good.len() == given.len() && openssl::memcmp::eq(good.as_bytes(), given.as_bytes())
        })
    }
}

impl Content for Keys {
    fn faults(&self) -> &[TableError] {
        &[]
    }
}

fn signature(key: &[u8], text: &str, digits: usize) -> String {
    let mac = hmac(key, text.to_ascii_lowercase().as_bytes());
    mac.iter().take(digits).map(|byte| char::from(DIGITS[usize::from(byte & 31)])).collect()
}

/// HMAC with SHA-256 (RFC 2104 2).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8| {
        let mut hash = Sha256::new();
        hash.update(&block.map(|byte| byte ^ pad));
        hash
    };
    let mut inner = keyed(0x36);
    inner.update(text);
    let mut outer = keyed(0x5c);
    outer.update(&inner.finish());
    outer.finish()
}

/// A day as two digits: they come again after 1024 days.
pub(super) fn day(day: u64) -> String {
    [day >> 5 & 31, day & 31].map(|digit| char::from(DIGITS[digit as usize])).iter().collect()
}

/// How many days ago a day of [`day`] was. One of tomorrow, by another host's clock, is today.
pub(super) fn days_since(text: &str, today: u64) -> Option<u64> {
    let mut digits = text.bytes().map(|byte| {
        let digit = DIGITS.iter().position(|digit| *digit == byte.to_ascii_lowercase())?;
        Some(digit as u64)
    });
    let then = digits.next()?? << 5 | digits.next()??;
    let age = (today % 1024 + 1024 - then) % 1024;
    digits.next().is_none().then_some(if age == 1023 { 0 } else { age })
}

/// Makes a key file where there is none. It may be read by the group of the folder `readers`, and
/// written by its maker only.
pub fn make_key(path: &Path, readers: &Path) -> Result<(), KeyError> {
    if path.exists() {
        return Ok(());
    }
    made(path, readers).map_err(|why| KeyError { path: path.display().to_string(), why: why.to_string() })
}

fn made(path: &Path, readers: &Path) -> io::Result<()> {
    let mut key = [0; MADE];
    openssl::rand::rand_bytes(&mut key).map_err(io::Error::other)?;
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).create(folder)?;
    }
    let draft = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&draft)?;
    let group = std::fs::metadata(readers)?.gid();
    fchown(&file, None, Some(group))?;
    writeln!(file, "{digits}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn keys(text: &str) -> Keys {
        Keys::parse(Path::new("key"), text).unwrap()
    }

    #[test]
    fn the_mac_is_that_of_rfc_4231() {
        let hex = |mac: [u8; 32]| mac.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn an_old_key_is_good_for_what_comes_back() {
        let old = keys("the old key, long enough\n");
        let both = keys("# two\nthe new key, long enough\nthe old key, long enough\n");
        let signed = old.sign("Text", 6);
        assert!(both.verify("tEXT", &signed.to_uppercase()) && old.verify("text", &signed));
        assert!(!old.verify("texts", &signed));
        assert_ne!(both.sign("text", 6), signed);
        for bad in ["", "short\n", "# only a comment of some length\n"] {
            assert!(Keys::parse(Path::new("key"), bad).is_err());
        }
    }

    #[test]
    fn days_come_round() {
        for today in [0, 5, 1023, 1024, 20_000] {
            assert_eq!(days_since(&day(today).to_uppercase(), today), Some(0));
            assert_eq!(days_since(&day(today), today + 21), Some(21));
            assert_eq!(days_since(&day(today + 1), today), Some(0), "another host's clock");
        }
        assert_eq!(days_since("a", 0), None);
        assert_eq!(days_since("abc", 0), None);
        assert_eq!(days_since("1=", 0), None);
    }

    #[test]
    fn a_key_is_made_once_and_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        make_key(&path, folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(keys(&text).keys[0].len(), 2 * MADE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        make_key(&path, folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert!(make_key(&path.join("x"), folder.path()).is_err());
    }
}
