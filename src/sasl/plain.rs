//! PLAIN (RFC 4616): `[authzid] NUL authcid NUL password`, in one message.

use super::{Credentials, Fault, prepare};

/// Reads the client's message. Who it wants to act for must be nobody or who logs in: that name is
/// checked and never used (RFC 4616 2, CVE-2023-27582).
pub fn read(message: &[u8]) -> Result<Credentials, Fault> {
    let mut parts = message.split(|octet| *octet == 0);
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::Malformed("not three parts"));
    };
    let credentials = Credentials::new(authcid, password)?;
    if !authzid.is_empty() && prepare::name(authzid)? != credentials.login {
        return Err(Fault::Authzid);
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_and_password_are_read() {
        let read = read(b"\0Alice@Example.org\0x").unwrap();
        assert_eq!((read.login.as_str(), read.password.as_str()), ("alice@example.org", "x"));
        let read = super::read("a@b\0A@b\0gr\u{fc}n".as_bytes()).unwrap();
        assert_eq!(read.password, "grün");
    }

    #[test]
    fn acting_for_somebody_else_is_refused() {
        assert_eq!(read(b"bob@x\0alice@x\0secret"), Err(Fault::Authzid));
        assert_eq!(read(b"admin\0alice\0secret"), Err(Fault::Authzid));
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        let long = [b"\0a\0".as_slice(), &[b'x'; 600]].concat();
        for bad in [&b""[..], b"\0", b"\0a", b"a\0b", b"\0a\0b\0c", b"\0\0x", b"\0a\0", b"\0a\0\xff", &long] {
            assert!(matches!(read(bad), Err(Fault::Malformed(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(message in prop::collection::vec(0u8..=255, 0..40)) {
            let _ = read(&message);
        }
    }
}
