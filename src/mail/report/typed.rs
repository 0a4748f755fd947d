//! Addresses as a report names them: with their type (RFC 3464 2.1.2, RFC 6533 3).

use std::fmt::Write;

use super::super::address::Mailbox;
use super::super::envelope::from_xtext;

/// The final address, for a Final-Recipient field. `utf8`: the report may have UTF-8 in it.
pub fn final_recipient(address: &Mailbox, utf8: bool) -> String {
    match address.needs_utf8() {
        false => format!("rfc822; {address}"),
        true => format!("utf-8; {}", if utf8 { address.to_string() } else { embedded(&address.to_string()) }),
    }
}

/// What ORCPT said, `type;address`, for an Original-Recipient field. Nothing if it is not of that form.
pub fn original_recipient(orcpt: &str, utf8: bool) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        let address = unembedded(address);
        if utf8 { address } else { embedded(&address) }
    } else {
        from_xtext(address).unwrap_or_else(|| address.to_string())
    };
    Some(format!("{}; {}", plain(kind, utf8), plain(&address, utf8)))
}

/// A text without controls, so that nothing a peer said starts a new line or field; and where the report
/// may have no UTF-8 in it, without that.
pub fn plain(text: &str, utf8: bool) -> String {
    let tame = |c: char| match c {
        c if c.is_control() => ' ',
        c if !utf8 && !c.is_ascii() => '?',
        c => c,
    };
    text.chars().map(tame).collect()
}

/// RFC 6533 3: `\x{E4}` stands for a character above 127, and for those that mean something here.
fn embedded(address: &str) -> String {
    let mut out = String::new();
    for c in address.chars() {
        if c.is_ascii_graphic() && !r"\+=".contains(c) {
            out.push(c);
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
    }
    out
}

/// Undoes [`embedded`]; what stands for no character stays as it is.
fn unembedded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = rest[3..].split('}').next().unwrap_or_default();
        let c =
            (code.len() <= 6).then(|| u32::from_str_radix(code, 16).ok().and_then(char::from_u32)).flatten();
        match c.filter(|_| rest[3 + code.len()..].starts_with('}')) {
            Some(c) => {
                out.push(c);
                rest = &rest[4 + code.len()..];
            }
            None => {
                out.push_str("\\x{");
                rest = &rest[3..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_have_their_type() {
        let jörg = Mailbox::parse("jörg@x.example", true).unwrap();
        assert_eq!(final_recipient(&jörg, true), "utf-8; jörg@x.example");
        assert_eq!(final_recipient(&jörg, false), r"utf-8; j\x{F6}rg@x.example");
        let bob = Mailbox::parse("bob+1@x.example", true).unwrap();
        assert_eq!(final_recipient(&bob, false), "rfc822; bob+1@x.example");
    }

    #[test]
    fn original_addresses_are_decoded() {
        let original = |text: &str| original_recipient(text, false).unwrap();
        assert_eq!(original("rfc822;Bob+2B1@x"), "rfc822; Bob+1@x");
        assert_eq!(original("rfc822;a+zz"), "rfc822; a+zz");
        assert_eq!(original("rfc822;a+0D+0AX: y"), "rfc822; a+0D+0AX: y");
        assert_eq!(original("x;a+C3+A4"), "x; a?");
        assert_eq!(original(r"utf-8;j\x{F6}rg@x"), r"utf-8; j\x{F6}rg@x");
        assert_eq!(original_recipient(r"UTF-8;j\x{F6}rg@x", true).unwrap(), "UTF-8; jörg@x");
        assert_eq!(original_recipient(r"utf-8;j\x{D800}\x{F6", true).unwrap(), r"utf-8; j\x{D800}\x{F6");
        assert_eq!(original_recipient(r"utf-8;a\x{D}\x{A}X", true).unwrap(), "utf-8; a  X");
        assert_eq!(original_recipient("no type", true), None);
    }

    proptest! {
        #[test]
        fn what_is_embedded_is_had_again(address in "\\PC{0,20}") {
            prop_assert!(embedded(&address).is_ascii());
            prop_assert_eq!(unembedded(&embedded(&address)), address);
        }

        #[test]
        fn nothing_makes_it_panic(text in "(\\\\x|\\{|\\}|[0-9A-F]{0,7}|;|ä){0,12}", utf8 in any::<bool>()) {
            let _ = original_recipient(&text, utf8);
        }
    }
}
