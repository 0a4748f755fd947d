//! Senders with a tag in their local part: VERP for the copies of a list, prvs for mail of our own.

use crate::mail::address::Mailbox;

use super::signature::Keys;

/// Digits of a prvs signature.
const DIGITS: usize = 6;
/// Days that a prvs address is good for.
const GOOD: u64 = 7;
/// The number of the key, which is always the same: a key file may have several.
const KEY_NUMBER: u64 = 0;
/// What a signed sender begins with.
pub(super) const PRVS: &str = "prvs=";

/// VERP: the sender of a list's copy names who it was for, so that a bounce tells whose address is
/// no good. `owner-list` and `bob@x.example` become `owner-list+bob=x.example`. `None`: that is too
/// long for an address.
pub(super) fn verp(owner: &Mailbox, delimiter: char, recipient: &Mailbox) -> Option<Mailbox> {
    let (local, domain) = (recipient.local(), recipient.domain());
    Mailbox::from_parts(&format!("{}{delimiter}{local}={domain}", owner.local()), owner.domain()).ok()
}

/// A signed sender, as draft-levine-smtp-batv 4 has it: `prvs=KDDDSSSSSS=local`, with the number of a
/// key, the last day that it is good for, and a signature. `None`: it is too long for an address.
pub(super) fn sign(sender: &Mailbox, keys: &Keys, today: u64) -> Option<Mailbox> {
    let date = format!("{KEY_NUMBER}{:03}", (today + GOOD) % 1000);
    let signature = keys.sign(&format!("{date}{}@{}", sender.local(), sender.domain()), DIGITS);
    Mailbox::from_parts(&format!("{PRVS}{date}{signature}={}", sender.local()), sender.domain()).ok()
}

/// The sender without its tag. `None`: it has none. An error: the tag is too old, or not ours.
pub(super) fn verify(address: &Mailbox, keys: &Keys, today: u64) -> Option<Result<Mailbox, &'static str>> {
    let head = address.local().get(..PRVS.len())?;
    let rest = head.eq_ignore_ascii_case(PRVS).then(|| &address.local()[PRVS.len()..])?;
    let (tag, local) = rest.split_once('=')?;
    if tag.len() != 4 + DIGITS || !tag.is_ascii() {
        return None;
    }
    let plain = Mailbox::from_parts(local, address.domain()).ok()?;
    let (date, signature) = tag.split_at(4);
    if !keys.verify(&format!("{date}{local}@{}", address.domain()), signature) {
        return Some(Err("the signature of the address is not ours"));
    }
    let left = date[1..].parse::<u64>().ok().map(|day| (day + 1000 - today % 1000) % 1000);
    match left {
        Some(left) if left <= GOOD + 1 => Some(Ok(plain)),
        _ => Some(Err("the signature of the address has run out")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::parse(Path::new("key"), "a key that is long enough").unwrap()
    }

    fn at(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    #[test]
    fn a_copy_of_a_list_names_its_recipient() {
        let owner = at("owner-news@us.example");
        assert_eq!(
            verp(&owner, '+', &at("Bob@x.example")).unwrap().to_string(),
            "owner-news+Bob=x.example@us.example"
        );
        assert_eq!(verp(&owner, '+', &at(&format!("{}@x.example", "b".repeat(60)))), None);
    }

    #[test]
    fn a_signed_sender_is_good_for_a_week() {
        let signed = sign(&at("Ann@us.example"), &keys(), 19_998).unwrap();
        assert!(signed.local().starts_with("prvs=0005") && signed.local().ends_with("=Ann"), "{signed}");
        assert_eq!(verify(&signed, &keys(), 19_998), Some(Ok(at("Ann@us.example"))));
        assert_eq!(verify(&signed, &keys(), 20_005), Some(Ok(at("Ann@us.example"))));
        assert!(matches!(verify(&signed, &keys(), 20_006), Some(Err(why)) if why.contains("run out")));
        let forged = at(&signed.to_string().replace("Ann", "Bob"));
        assert!(matches!(verify(&forged, &keys(), 19_998), Some(Err(why)) if why.contains("not ours")));
        for plain in ["ann@x", "prvs=@x", "prvs=0005=ann@x", "prvs=\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}=ann@x"] {
            assert_eq!(verify(&at(plain), &keys(), 9), None, "{plain}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(local in "(prvs=)?([=0-9a-z]|\\PC){0,20}") {
            if let Ok(address) = Mailbox::from_parts(&local, "x.example") {
                let _ = verify(&address, &keys(), 9);
                let _ = sign(&address, &keys(), 9);
            }
        }
    }
}
