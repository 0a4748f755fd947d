//! The sender of forwarded mail (SRS, the Sender Rewriting Scheme).
//!
//! A receiver asks the sender's domain which hosts may send for it (SPF), and this host is none of
//! them. So mail that is forwarded gets a sender of our own, from which we can tell the way back:
//!
//! ```text
//! bob@a.example         SRS0=hhhhhh=dd=a.example=bob@us.example
//! SRS0=…@b.example      SRS1=hhhhhh=b.example==…@us.example        forwarded to us by b.example
//! SRS1=…@c.example      SRS1=hhhhhh=b.example==…@us.example        past c.example, straight to b.example
//! ```
//!
//! `hhhhhh` is a signature, so that nobody can make us send mail anywhere; `dd` is the day, so that
//! what somebody has seen is worth something for three weeks only.

use thiserror::Error;

use crate::mail::address::Mailbox;

use super::signature::{Keys, day, days_since};

/// Digits of a signature: 30 bits.
const DIGITS: usize = 6;
/// Days that the way back is open.
const OPEN: u64 = 21;
/// What may stand behind `SRS0` and `SRS1`.
const SEPARATORS: [char; 3] = ['=', '+', '-'];

/// Why an address is no way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NoWayBack {
    /// Not written here, or changed since.
    #[error("the signature of the forwarding address is not ours")]
    Forged,
    /// Too old.
    #[error("the forwarding address is older than {OPEN} days")]
    Old,
}

/// The sender that mail of `sender` is forwarded with. `None`: the result would be too long for an
/// address (RFC 5321 4.5.3.1.1).
pub(super) fn forward(sender: &Mailbox, domain: &str, keys: &Keys, today: u64) -> Option<Mailbox> {
    let local = match (tagged(sender.local(), "SRS0"), tagged(sender.local(), "SRS1")) {
        (Some(_), _) => second(sender.domain(), &sender.local()["SRS0".len()..], keys),
        (_, Some(rest)) => {
            let (_, past) = rest.split_once('=')?;
            let (host, back) = past.split_once('=')?;
            second(host, back, keys)
        }
        _ => {
            let said = format!("{}={}={}", day(today), sender.domain(), sender.local());
            format!("SRS0={}={said}", keys.sign(&said, DIGITS))
        }
    };
    Mailbox::from_parts(&local, domain).ok()
}

/// `back` begins with the separator that the first host has put behind `SRS0`.
fn second(host: &str, back: &str, keys: &Keys) -> String {
    let said = format!("{host}={back}");
    format!("SRS1={}={said}", keys.sign(&said, DIGITS))
}

/// Where an address leads back to. `None`: it has not this form.
pub(super) fn back(local: &str, keys: &Keys, today: u64) -> Option<Result<Mailbox, NoWayBack>> {
    if let Some(rest) = tagged(local, "SRS0") {
        let (hash, said) = rest.split_once('=')?;
        let mut parts = said.splitn(3, '=');
        let (date, domain, local) = (parts.next()?, parts.next()?, parts.next()?);
        let sender = Mailbox::from_parts(local, domain).ok()?;
        if !is_signed(hash, said, keys) {
            return Some(Err(NoWayBack::Forged));
        }
        return match days_since(date, today) {
            Some(age) if age <= OPEN => Some(Ok(sender)),
            _ => Some(Err(NoWayBack::Old)),
        };
    }
    let (hash, said) = tagged(local, "SRS1")?.split_once('=')?;
    let (host, back) = said.split_once('=')?;
    let first = Mailbox::from_parts(&format!("SRS0{back}"), host).ok()?;
    Some(if is_signed(hash, said, keys) { Ok(first) } else { Err(NoWayBack::Forged) })
}

fn is_signed(hash: &str, said: &str, keys: &Keys) -> bool {
    hash.len() == DIGITS && keys.verify(said, hash)
}

/// What follows a tag and its separator; tags are known in any case.
fn tagged<'l>(local: &'l str, tag: &str) -> Option<&'l str> {
    let head = local.get(..tag.len())?;
    head.eq_ignore_ascii_case(tag).then(|| local[tag.len()..].strip_prefix(SEPARATORS))?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn keys(text: &str) -> Keys {
        Keys::parse(Path::new("key"), text).unwrap()
    }

    fn ours() -> Keys {
        keys("a key that is long enough")
    }

    fn at(text: &str) -> Mailbox {
        Mailbox::parse(text, true).unwrap()
    }

    #[test]
    fn the_way_back_is_open_for_three_weeks() {
        let sent = forward(&at("Bob+x=y@a.example"), "us.example", &ours(), 20_000).unwrap();
        let text = sent.to_string();
        assert!(text.starts_with("SRS0=") && text.ends_with("=a.example=Bob+x=y@us.example"), "{text}");
        let back = |local: &str, today: u64| back(local, &ours(), today);
        assert_eq!(back(sent.local(), 20_021), Some(Ok(at("Bob+x=y@a.example"))));
        assert_eq!(back(sent.local(), 20_022), Some(Err(NoWayBack::Old)));
        assert_eq!(back(&sent.local().to_uppercase(), 20_000), Some(Ok(at("BOB+X=Y@a.example"))));
        let other = sent.local().replace("a.example", "b.example");
        assert_eq!(back(&other, 20_000), Some(Err(NoWayBack::Forged)));
        assert_eq!(
            super::back(sent.local(), &keys("another key, long enough"), 20_000),
            Some(Err(NoWayBack::Forged))
        );
        for plain in ["bob", "SRS0", "SRS0=x", "srs0x=1=2=3=4", "SRS2=a=b=c=d", "SRS1=a=b"] {
            assert_eq!(back(plain, 20_000), None, "{plain}");
        }
        assert_eq!(back("SRS0==aa=a.example=bob", 20_000), Some(Err(NoWayBack::Forged)));
    }

    #[test]
    fn a_chain_of_forwarders_grows_no_longer_than_two() {
        let (one, two, three) =
            (ours(), keys("the key of the second host"), keys("the key of the third host"));
        let first = forward(&at("bob@a.example"), "one.example", &one, 9).unwrap();
        let second = forward(&first, "two.example", &two, 9).unwrap();
        assert!(second.local().starts_with("SRS1=") && second.local().contains("=one.example=="), "{second}");
        let third = forward(&second, "three.example", &three, 9).unwrap();
        assert_eq!(third.local().len(), second.local().len());
        // Back from the third straight to the first, which alone knows where it came from.
        assert_eq!(back(third.local(), &three, 9), Some(Ok(first.clone())));
        assert_eq!(back(second.local(), &two, 500), Some(Ok(first.clone())), "the first host judges the age");
        assert_eq!(back(first.local(), &one, 9), Some(Ok(at("bob@a.example"))));
        assert_eq!(back(third.local(), &two, 9), Some(Err(NoWayBack::Forged)));
    }

    #[test]
    fn other_hosts_have_other_separators() {
        let sent = forward(&at("SRS0+abc=de=f.example=g@one.example"), "two.example", &ours(), 9).unwrap();
        assert_eq!(back(sent.local(), &ours(), 9), Some(Ok(at("SRS0+abc=de=f.example=g@one.example"))));
    }

    #[test]
    fn what_would_be_too_long_is_not_rewritten() {
        let long = format!("{}@a.example", "x".repeat(60));
        assert_eq!(forward(&at(&long), "us.example", &ours(), 9), None);
    }

    proptest! {
        #[test]
        fn what_is_forwarded_comes_back(local in "[!-~]{1,30}", domain in "[a-z]{1,6}\\.[a-z]{1,4}") {
            let sender = Mailbox::from_parts(&local, &domain).unwrap();
            if let Some(sent) = forward(&sender, "us.example", &ours(), 77) {
                prop_assert_eq!(back(sent.local(), &ours(), 78), Some(Ok(sender)));
            }
        }

        #[test]
        fn nothing_makes_it_panic(local in "(SRS[012]|[=+-]|[a-z2-7]|\\PC){0,30}") {
            let _ = back(&local, &ours(), 9);
            if let Ok(sender) = Mailbox::from_parts(&local, "x.example") {
                let _ = forward(&sender, "us.example", &ours(), 9);
            }
        }
    }
}
