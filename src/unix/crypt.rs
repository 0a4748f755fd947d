//! Password hashes of the system: libcrypt, which knows every scheme that /etc/shadow may have
//! (yescrypt, bcrypt, SHA-512 and more, see crypt(5)).

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::io;

#[link(name = "crypt")]
unsafe extern "C" {
    fn crypt_ra(
        phrase: *const c_char,
        setting: *const c_char,
        data: *mut *mut c_void,
        size: *mut c_int,
    ) -> *mut c_char;
    fn crypt_gensalt_ra(
        prefix: *const c_char,
        count: c_ulong,
        random: *const c_char,
        length: c_int,
    ) -> *mut c_char;
}

/// The hash of a password with a setting, which may be a whole hash. `None`: libcrypt does not know
/// the scheme, or takes no password like this one (longer than 512 octets, or with a NUL).
pub fn hash(password: &str, setting: &str) -> Option<String> {
    let (phrase, setting) = (CString::new(password).ok()?, CString::new(setting).ok()?);
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: two strings with a NUL at their end, and a null buffer that crypt_ra makes and grows by
    // itself (crypt(3)).
    let made = unsafe { crypt_ra(phrase.as_ptr(), setting.as_ptr(), &mut data, &mut size) };
    // SAFETY: not null, so it points to a string inside `data`, which lives until it is freed below.
    let hash = (!made.is_null()).then(|| unsafe { CStr::from_ptr(made) }.to_string_lossy().into_owned());
    // SAFETY: allocated by crypt_ra with malloc, or null; nobody else has it.
    unsafe { libc::free(data) };
    // A failure may also be a string that begins with "*".
    hash.filter(|hash| hash.len() >= 13 && !hash.starts_with('*'))
}

/// A setting with a salt of its own, for a new hash. `prefix` names the scheme, as `$6$`.
pub fn new_setting(prefix: &str) -> io::Result<String> {
    let prefix = CString::new(prefix)?;
    // SAFETY: a string with a NUL at its end; without random octets of ours it takes the system's.
    let made = unsafe { crypt_gensalt_ra(prefix.as_ptr(), 0, std::ptr::null(), 0) };
    if made.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: not null, so it is a string that was allocated for us.
    let setting = unsafe { CStr::from_ptr(made) }.to_string_lossy().into_owned();
    // SAFETY: allocated by crypt_gensalt_ra with malloc; not used after this.
    unsafe { libc::free(made.cast()) };
    Ok(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_other_programs() {
        // Made by openssl passwd -6 -salt abc posta
        let made =
            "$6$abc$LjS2xoTsdir5sS/M1uEwqdwDr1heBzu5kLkUda5YOSOOVowN.LnFchHDNiRC7EMRN3hfwSgiE4fD1Ox6FxebU0";
        assert_eq!(hash("posta", made).as_deref(), Some(made));
        assert_ne!(hash("postb", made).as_deref(), Some(made));
    }

    #[test]
    fn a_new_hash_has_its_own_salt_and_checks() {
        for prefix in ["$6$", "$5$", "$2b$", "$y$"] {
            let (one, other) = (new_setting(prefix).unwrap(), new_setting(prefix).unwrap());
            assert!(one.starts_with(prefix) && one != other, "{one} {other}");
            let made = hash("x", &one).unwrap();
            assert_eq!(hash("x", &made), Some(made));
        }
    }

    #[test]
    fn what_is_no_hash_matches_nothing() {
        for setting in ["", "*", "!", "*0", "$6", "$nosuch$x$y", "x"] {
            assert_eq!(hash("x", setting), None, "{setting}");
        }
        assert_eq!(hash("nul\0", "$6$abc$"), None);
        assert_eq!(hash(&"x".repeat(600), "$6$abc$"), None);
    }
}
