//! The lines of AUTH (RFC 4954 4): what a mechanism says, in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::reply::Reply;

/// `AUTH`, with the first words, if the mechanism has any before the server's.
pub(super) fn command(mechanism: &str, first: Option<Vec<u8>>) -> Vec<u8> {
    let first = match first.as_deref() {
        None => String::new(),
        // Words of no length are a "=".
        Some([]) => " =".to_string(),
        Some(words) => format!(" {}", STANDARD.encode(words)),
    };
    format!("AUTH {mechanism}{first}\r\n").into_bytes()
}

/// A line of its own; a star ends the exchange, which the server then refuses.
pub(super) fn answer(words: Option<Vec<u8>>) -> Vec<u8> {
    let line = words.map_or("*".to_string(), |words| STANDARD.encode(words));
    format!("{line}\r\n").into_bytes()
}

/// What a 334 asks; `None` if it is no base64.
pub(super) fn challenge(reply: &Reply) -> Option<Vec<u8>> {
    STANDARD.decode(reply.lines.first().map_or("", |line| line.trim())).ok()
}
