//! What stands behind the delimiter in an address: `books` of `alice+books`.

use posta::mail::address::Mailbox;

/// The account's name in an address, and its extension, if it has one. `user` is the account's login
/// name, where it is known: a delimiter that belongs to it parts nothing.
pub fn divide<'a>(address: &'a Mailbox, user: Option<&str>, delimiter: &str) -> (&'a str, Option<&'a str>) {
    let local = address.local();
    let own = user.and_then(|user| local.get(..user.len()).filter(|own| own.eq_ignore_ascii_case(user)));
    let from = own.map_or(1, str::len);
    let found = local.char_indices().find(|(at, c)| *at >= from && delimiter.contains(*c));
    match found {
        Some((at, c)) => (&local[..at], Some(&local[at + c.len_utf8()..]).filter(|rest| !rest.is_empty())),
        None => (local, None),
    }
}

/// Whether an extension can be a part of a file's name: a stranger wrote it.
pub fn is_harmless(extension: &str) -> bool {
    extension.len() <= 100
        && !extension.starts_with('.')
        && !extension.contains("..")
        && !extension.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_ends_at_the_first_delimiter_behind_it() {
        let divided = |local: &str, user, delimiter: &str| {
            let address = Mailbox::from_parts(local, "x.example").unwrap();
            let (name, extension) = divide(&address, user, delimiter);
            (name.to_string(), extension.map(str::to_string))
        };
        let is = |name: &str, extension: Option<&str>| (name.to_string(), extension.map(str::to_string));
        assert_eq!(divided("alice", Some("alice"), "+"), is("alice", None));
        assert_eq!(divided("Alice+Books+x", Some("alice"), "+"), is("Alice", Some("Books+x")));
        assert_eq!(divided("list-owner-x", Some("list-owner"), "+-"), is("list-owner", Some("x")));
        assert_eq!(divided("alice+", None, "+"), is("alice", None));
        assert_eq!(divided("+x", None, "+"), is("+x", None));
        assert_eq!(divided("ä+x", None, "+"), is("ä", Some("x")));
        assert_eq!(divided("alice+x", Some("alice"), ""), is("alice+x", None));
        // An alias that leads to the account keeps its own name.
        assert_eq!(divided("staff+x", Some("alice"), "+"), is("staff", Some("x")));
    }

    #[test]
    fn what_leads_elsewhere_is_no_part_of_a_name() {
        assert!(is_harmless("books") && is_harmless("a.b") && is_harmless("x+y"));
        assert!(["../x", "a/b", ".x", "a..b", "a\0b"].into_iter().all(|bad| !is_harmless(bad)));
    }
}
