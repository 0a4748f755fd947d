//! One name or password, however it is spelt: SASLprep (RFC 4013), OpaqueString (RFC 8265 4.2).
//!
//! A letter with an accent may come as one character or as two; a password must match all the same.
//! Left out of SASLprep are the rules about writing from right to left and about characters that
//! Unicode 3.2 did not have: they refuse strings, and make none equal.

use icu_normalizer::ComposingNormalizerBorrowed;

use super::{Fault, LONGEST};

/// A name as a client gives it, in the form that names are compared in: SASLprep, lower case.
pub fn name(given: &[u8]) -> Result<String, Fault> {
    let given = std::str::from_utf8(given).map_err(|_| Fault::Malformed("name is not UTF-8"))?;
    if given.len() > LONGEST {
        return Err(Fault::Malformed("name is too long"));
    }
    let name = saslprep(given)?.to_lowercase();
    if name.is_empty() { Err(Fault::Malformed("no name")) } else { Ok(name) }
}

/// RFC 4013 2: what SCRAM hashes (RFC 5802 2.2).
pub fn saslprep(text: &str) -> Result<String, Fault> {
    // 2.1, mapping: RFC 3454 C.1.2 to a space, B.1 to nothing.
    let mapped: String =
        text.chars().filter(|c| !is_nothing(*c)).map(|c| if is_space(c) { ' ' } else { c }).collect();
    // 2.2, normalization
    let text = ComposingNormalizerBorrowed::new_nfkc().normalize(&mapped);
    // 2.3, prohibited output
    if text.chars().any(is_prohibited) {
        return Err(Fault::Malformed("a character that can't be meant"));
    }
    Ok(text.into_owned())
}

/// RFC 8265 4.2.2: a password as it is hashed where no mechanism says otherwise. ASCII stays as it is.
pub fn password(text: &str) -> String {
    // Of the spaces of RFC 3454 all but the zero-width one are spaces to Unicode still.
    let space = |c: char| is_space(c) && c != '\u{200b}';
    let spaced: String = text.chars().map(|c| if space(c) { ' ' } else { c }).collect();
    ComposingNormalizerBorrowed::new_nfc().normalize(&spaced).into_owned()
}

/// RFC 3454 C.1.2, and so what is a space beside U+0020.
fn is_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// RFC 3454 B.1, commonly mapped to nothing.
fn is_nothing(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200c}' | '\u{200d}'
        | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// RFC 3454 C.2 to C.9: controls, private use, non-characters, what changes display, and tags.
fn is_prohibited(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || is_space(c)
        || matches!(c, '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2063}' | '\u{206a}'..='\u{206f}' | '\u{340}' | '\u{341}' | '\u{2ff0}'..='\u{2ffb}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
        || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}')
        || matches!(c, '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
        || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_4013() {
        // Section 3
        assert_eq!(saslprep("I\u{ad}X").unwrap(), "IX");
        assert_eq!(saslprep("user").unwrap(), "user");
        assert_eq!(saslprep("USER").unwrap(), "USER");
        assert_eq!(saslprep("\u{aa}").unwrap(), "a");
        assert_eq!(saslprep("\u{2168}").unwrap(), "IX");
        assert!(saslprep("\u{7}").is_err());
    }

    #[test]
    fn accents_match_however_they_are_typed() {
        assert_eq!(password("gru\u{308}n"), "gr\u{fc}n");
        assert_eq!(saslprep("gru\u{308}n").unwrap(), "gr\u{fc}n");
        assert_eq!(password("a\u{a0}b"), "a b");
        // RFC 8265 4.3: no compatibility mapping, no case mapping, spaces stay.
        assert_eq!(password(" \u{2168}A "), " \u{2168}A ");
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        assert_eq!(name(b"Alice@Example.ORG").unwrap(), "alice@example.org");
        for bad in [&b""[..], b"\xff", "\u{ad}".as_bytes(), b"a\tb", &[b'a'; LONGEST + 1]] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_prepared_stays_as_it_is(text in "\\PC{0,20}") {
            if let Ok(once) = saslprep(&text) {
                prop_assert_eq!(saslprep(&once), Ok(once));
            }
            let once = password(&text);
            prop_assert_eq!(password(&once), once);
        }
    }
}
