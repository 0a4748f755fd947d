//! Passwords of this host's accounts: shadow(5), through the name service switch.
//!
//! As with `unix/users`, a look-up may hang; and only root may make it.

use std::ffi::{CStr, CString, c_char};
use std::io;

/// The longest entry that is read.
const LONGEST: usize = 16 * 1024;

/// What shadow(5) says of an account. Days are counted from 1970.
#[derive(Clone, PartialEq, Eq)]
pub struct Shadow {
    /// The hash, for `unix::crypt`; empty, or with a `!` or `*` in front: none.
    pub hash: String,
    /// When the password was changed last; 0: it must be changed at the next login.
    changed: i64,
    /// For how many days it is good.
    good_for: i64,
    /// For how many more it can still be used.
    grace: i64,
    /// From when on the account is closed.
    closed: i64,
}

/// The shadow entry of an account. No such account is `None`; an error is a name service that can't
/// say, or a caller who may not ask.
pub fn by_name(name: &str) -> io::Result<Option<Shadow>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut entry = std::mem::MaybeUninit::<libc::spwd>::uninit();
    let mut buffer = vec![0 as c_char; LONGEST];
    let mut found = std::ptr::null_mut();
    // SAFETY: a string with a NUL at its end, and buffers of the lengths that are told.
    let code = unsafe {
        libc::getspnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found)
    };
    if found.is_null() {
        // Some name services say "not found" by ENOENT.
        return if code == 0 || code == libc::ENOENT {
            Ok(None)
        } else {
            Err(io::Error::from_raw_os_error(code))
        };
    }
    // SAFETY: found, so the entry is filled in, and its strings lie in the buffer.
    let (entry, hash) = unsafe {
        let entry = entry.assume_init();
        (entry, if entry.sp_pwdp.is_null() { c"" } else { CStr::from_ptr(entry.sp_pwdp) })
    };
    Ok(Some(Shadow {
        hash: hash.to_string_lossy().into_owned(),
        changed: entry.sp_lstchg,
        good_for: entry.sp_max,
        grace: entry.sp_inact,
        closed: entry.sp_expire,
    }))
}

impl Shadow {
    /// Whether the account is closed on the day `today`, or its password can't be used any more without
    /// being changed first, which nobody can do over SMTP.
    pub fn is_expired(&self, today: i64) -> bool {
        let closed = self.closed >= 0 && today >= self.closed;
        let must_change = self.changed == 0;
        // shadow(5): -1 stands for "never"; so do 99999 days, in effect.
        let outlived = self.changed > 0
            && self.good_for >= 0
            && today > self.changed.saturating_add(self.good_for).saturating_add(self.grace.max(0));
        closed || must_change || outlived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(changed: i64, good_for: i64, grace: i64, closed: i64) -> Shadow {
        Shadow { hash: String::new(), changed, good_for, grace, closed }
    }

    #[test]
    fn accounts_expire_by_each_of_their_dates() {
        let today = 20_000;
        for good in [
            shadow(19_000, 99_999, -1, -1),
            shadow(19_999, 1, -1, -1),
            shadow(19_990, 5, 5, -1),
            shadow(-1, -1, -1, 20_001),
        ] {
            assert!(!good.is_expired(today), "{}", good.changed);
        }
        for bad in [
            shadow(0, 99_999, -1, -1),
            shadow(19_998, 1, -1, -1),
            shadow(19_989, 5, 5, -1),
            shadow(19_000, 99_999, -1, 20_000),
            shadow(19_000, 99_999, -1, 0),
        ] {
            assert!(bad.is_expired(today), "{}", bad.changed);
        }
    }

    #[test]
    fn nobody_of_that_name_is_none_for_who_may_ask() {
        if crate::unix::privilege::is_root() {
            assert!(by_name("no-such-user-here").unwrap().is_none());
            assert!(by_name("root").unwrap().is_some());
        }
        assert!(by_name("nul\0root").unwrap().is_none());
    }
}
