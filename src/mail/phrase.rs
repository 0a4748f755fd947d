//! A person's name in front of an address (RFC 5322 3.2.5, a phrase).

use super::address::is_atext;

/// A name as a header field may carry it: as it is, quoted (RFC 5322 3.2.4), or encoded (RFC 2047).
/// It must have no control characters.
pub fn phrase(name: &str) -> String {
    if !name.is_ascii() {
        return encoded_words(name);
    }
    if name.bytes().all(|b| is_atext(b) || b == b' ') {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// RFC 2047 4.2: the Q encoding.
fn encoded_words(name: &str) -> String {
    // RFC 2047 2: at most 75 characters a word, and no character cut in two.
    let mut words = vec![String::new()];
    for c in name.chars() {
        let mut utf8 = [0; 4];
        let coded: String = match c {
            ' ' => "_".into(),
            c if c.is_ascii_alphanumeric() => c.into(),
            c => c.encode_utf8(&mut utf8).bytes().map(|b| format!("={b:02X}")).collect(),
        };
        if words.last().is_some_and(|word| word.len() + coded.len() > 60) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push_str(&coded);
        }
    }
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?Q?{word}?=")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_so_that_they_can_be_read() {
        assert_eq!(phrase("Alice Person"), "Alice Person");
        assert_eq!(phrase("Person, A."), "\"Person, A.\"");
        assert_eq!(phrase("Jörg X"), "=?utf-8?Q?J=C3=B6rg_X?=");
        assert!(phrase(&"ö".repeat(40)).split(' ').all(|word| word.len() <= 75));
    }
}
