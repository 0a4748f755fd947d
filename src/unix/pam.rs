//! PAM (pam(3)), with the feature `pam` only: whether a user may log in with a password.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

// security/_pam_types.h and security/_pam_compat.h of Linux-PAM
const SUCCESS: c_int = 0;
const BUF_ERR: c_int = 5;
const AUTH_ERR: c_int = 7;
const USER_UNKNOWN: c_int = 10;
const MAXTRIES: c_int = 11;
const NEW_AUTHTOK_REQD: c_int = 12;
const ACCT_EXPIRED: c_int = 13;
const PERM_DENIED: c_int = 6;
const CONV_ERR: c_int = 19;
const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
const RHOST: c_int = 4;
const FAIL_DELAY: c_int = 10;
const SILENT: c_int = 0x8000;
const DISALLOW_NULL_AUTHTOK: c_int = 1;
/// Most questions at once (PAM_MAX_NUM_MSG).
const MOST: c_int = 32;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

#[repr(C)]
struct Conversation {
    answer: extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    data: *mut c_void,
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_set_item(handle: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_strerror(handle: *mut c_void, code: c_int) -> *const c_char;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
}

/// What PAM says of a user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is the user, and the user may log in.
    Right,
    /// Another password, or no such user: PAM may not tell which.
    Wrong,
    /// The right password of somebody who may not log in now.
    Expired,
    /// It can't say, and why.
    Unable(String),
}

/// Asks PAM as the service `service`. Not all modules are fit for several threads: to be called by one
/// at a time. It does not wait after a wrong password; that is the caller's affair.
pub fn check(service: &str, user: &str, password: &str, client: Option<&str>) -> Said {
    let texts = [service, user, password, client.unwrap_or_default()].map(CString::new);
    let [Ok(service), Ok(user), Ok(password), Ok(client)] = texts else { return Said::Wrong };
    let conversation =
        Conversation { answer: answer_with_password, data: password.as_ptr().cast_mut().cast() };
    let mut handle = null_mut();
    // SAFETY: strings with a NUL at their end, a conversation and a password that outlive the handle, which
    // is ended below; the items are copied by PAM, but for the delay, which is a function of ours.
    unsafe {
        let code = pam_start(service.as_ptr(), user.as_ptr(), &conversation, &mut handle);
        if code != SUCCESS {
            return Said::Unable(format!("pam_start: error {code}"));
        }
        if !client.is_empty() {
            pam_set_item(handle, RHOST, client.as_ptr().cast());
        }
        pam_set_item(handle, FAIL_DELAY, no_delay as *const c_void);
        let mut code = pam_authenticate(handle, SILENT | DISALLOW_NULL_AUTHTOK);
        let is_right = code == SUCCESS;
        if is_right {
            code = pam_acct_mgmt(handle, SILENT | DISALLOW_NULL_AUTHTOK);
        }
        let said = match code {
            SUCCESS => Said::Right,
            NEW_AUTHTOK_REQD | ACCT_EXPIRED => Said::Expired,
            PERM_DENIED | AUTH_ERR if is_right => Said::Expired,
            AUTH_ERR | USER_UNKNOWN | MAXTRIES | PERM_DENIED => Said::Wrong,
            code => Said::Unable(text_of(pam_strerror(handle, code), code)),
        };
        pam_end(handle, code);
        said
    }
}

/// What pam_strerror gives: a static text.
unsafe fn text_of(text: *const c_char, code: c_int) -> String {
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY: not null, so a static string with a NUL at its end.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// In place of PAM's own waiting.
extern "C" fn no_delay(_status: c_int, _microseconds: u32, _data: *mut c_void) {}

/// Answers every question with the password (`data`), and every message with nothing.
extern "C" fn answer_with_password(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    if !(1..=MOST).contains(&count) || messages.is_null() || responses.is_null() || data.is_null() {
        return CONV_ERR;
    }
    // SAFETY: as pam_conv(3) has it: `count` pointers to messages are there, the responses are allocated
    // here with calloc, one for each, and freed by PAM; `data` is the password with a NUL at its end.
    unsafe {
        let made: *mut Response = libc::calloc(count as usize, size_of::<Response>()).cast();
        if made.is_null() {
            return BUF_ERR;
        }
        for n in 0..count as usize {
            let message = *messages.add(n);
            if matches!((*message).style, PROMPT_ECHO_OFF | PROMPT_ECHO_ON) {
                (*made.add(n)).text = libc::strdup(data.cast());
            }
        }
        *responses = made;
    }
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_in_by_a_wrong_password_or_a_service_that_denies() {
        // Without a file of its own the service "other" counts, which denies or asks pam_unix.
        for user in ["root", "no-such-user-here"] {
            assert_ne!(check("posta-test-no-such-service", user, "wrong", Some("192.0.2.1")), Said::Right);
        }
        assert_eq!(check("posta", "nul\0", "x", None), Said::Wrong);
    }
}
