//! LOGIN (draft-murchison-sasl-login-00): name and password, each asked for.
//!
//! Obsolete, but old clients know nothing else. The name may come as the initial response.

use super::{Credentials, Fault};

/// What the client is asked first. Clients know the words by heart.
pub const NAME: &[u8] = b"Username:";
/// What it is asked then.
pub const PASSWORD: &[u8] = b"Password:";

/// The two answers together.
pub fn read(name: &[u8], password: &[u8]) -> Result<Credentials, Fault> {
    Credentials::new(name, password)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn two_answers_make_credentials() {
        let both = read(b"Bob", b"secret word").unwrap();
        assert_eq!((both.login.as_str(), both.password.as_str()), ("bob", "secret word"));
        for (name, password) in [(&b""[..], &b"x"[..]), (b"bob", b""), (b"bob", b"a\0b"), (b"\xff", b"x")] {
            assert!(read(name, password).is_err());
        }
    }
}
