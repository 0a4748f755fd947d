//! Lists of addresses in header fields and on command lines (RFC 5322 3.4, with the obsolete forms
//! of 4.4 that mail still has).
//!
//! ```text
//! "Public, John Q." <john.q.public@example.com>, bob (the builder), friends: a@x, b@y;
//! ```
//!
//! Only what a list means is found here; whether an address can be one is for
//! [`Mailbox`](super::address::Mailbox) to say.

use thiserror::Error;

use super::address::is_atext;

/// An address of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Local part and, if there is one, `@domain`; without white space, comments and folding.
    pub spec: String,
    /// If there is no domain: the byte of the list after which one belongs.
    pub unqualified_at: Option<usize>,
}

/// Why a list can't be read, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ListError {
    /// A quoted string, comment, bracket or group is never closed.
    #[error("something opened at byte {0} is never closed")]
    Unclosed(usize),
    /// Two words where one address is wanted: a comma or brackets are missing.
    #[error("a comma or angle brackets are missing before byte {0}")]
    Words(usize),
    /// A character that can't stand where it does.
    #[error("unexpected character at byte {0}")]
    Unexpected(usize),
    /// An address that is not UTF-8.
    #[error("an address before byte {0} is not UTF-8")]
    NotText(usize),
}

/// Reads a list. An empty one is no error, nor are empty places between commas.
pub fn parse_list(list: &[u8]) -> Result<Vec<Listed>, ListError> {
    let mut listed = Vec::new();
    Parser { list, at: 0, found: &mut |one| listed.push(one) }.run()?;
    Ok(listed)
}

/// The places where an address of the list lacks its domain; see [`Listed::unqualified_at`]. In
/// ascending order.
pub fn unqualified(list: &[u8]) -> Result<Vec<usize>, ListError> {
    let mut places = Vec::new();
    Parser { list, at: 0, found: &mut |one| places.extend(one.unqualified_at) }.run()?;
    Ok(places)
}

struct Parser<'a> {
    list: &'a [u8],
    at: usize,
    /// Gets each address.
    found: &'a mut dyn FnMut(Listed),
}

/// Words read in a row: a local part, or a name that says nothing.
#[derive(Default)]
struct Words {
    /// As one local part.
    text: Vec<u8>,
    /// How many stood side by side, without a dot between them.
    count: usize,
    /// After the last one.
    end: usize,
}

impl Parser<'_> {
    fn run(mut self) -> Result<(), ListError> {
        let mut group: Option<usize> = None;
        loop {
            self.skip_white()?;
            match self.peek() {
                None => break,
                Some(b',') => self.at += 1,
                Some(b';') if group.take().is_some() => self.at += 1,
                Some(_) => {
                    let start = self.at;
                    let words = self.words()?;
                    if self.peek() == Some(b':') && group.is_none() {
                        self.at += 1;
                        group = Some(start);
                        continue;
                    }
                    self.address(words)?;
                    self.skip_white()?;
                    if !matches!(self.peek(), None | Some(b',' | b';')) {
                        return Err(ListError::Words(self.at));
                    }
                }
            }
        }
        // RFC 5322 3.4: a group ends with a semicolon; "undisclosed-recipients:" without one is common.
        Ok(())
    }

    /// An address of which `words` are the beginning: a name before brackets, or its local part.
    fn address(&mut self, words: Words) -> Result<(), ListError> {
        match self.peek() {
            Some(b'<') => self.bracketed(),
            Some(b'@') => self.with_domain(words),
            _ => self.without_domain(words),
        }
    }

    fn bracketed(&mut self) -> Result<(), ListError> {
        let opened = self.at;
        self.at += 1;
        self.skip_white()?;
        if self.peek() == Some(b'@') {
            self.skip_route(opened)?;
        }
        let words = self.words()?;
        match self.peek() {
            // RFC 5321 4.5.5: "<>" is nobody.
            Some(b'>') if words.count == 0 => {}
            Some(b'@') => self.with_domain(words)?,
            _ => self.without_domain(words)?,
        }
        self.skip_white()?;
        match self.peek() {
            Some(b'>') => self.at += 1,
            None => return Err(ListError::Unclosed(opened)),
            Some(_) => return Err(ListError::Unexpected(self.at)),
        }
        Ok(())
    }

    /// RFC 5322 4.4: a route before the address, `@a,@b:`, is read and ignored.
    fn skip_route(&mut self, opened: usize) -> Result<(), ListError> {
        let rest = &self.list[self.at..];
        let colon = memchr::memchr(b':', rest).ok_or(ListError::Unclosed(opened))?;
        if memchr::memchr(b'>', &rest[..colon]).is_some() {
            return Err(ListError::Unexpected(self.at));
        }
        self.at += colon + 1;
        self.skip_white()
    }

    fn with_domain(&mut self, words: Words) -> Result<(), ListError> {
        if words.count != 1 {
            return Err(ListError::Words(self.at));
        }
        self.at += 1;
        self.skip_white()?;
        let mut spec = words.text;
        spec.push(b'@');
        if self.peek() == Some(b'[') {
            let close = memchr::memchr(b']', &self.list[self.at..]).ok_or(ListError::Unclosed(self.at))?;
            spec.extend_from_slice(&self.list[self.at..=self.at + close]);
            self.at += close + 1;
        } else {
            let domain = self.words()?;
            match domain.count {
                0 => return Err(ListError::Unexpected(self.at)),
                1 => {}
                _ => return Err(ListError::Words(self.at)),
            }
            spec.extend_from_slice(&domain.text);
        }
        self.push(spec, None)
    }

    fn without_domain(&mut self, words: Words) -> Result<(), ListError> {
        match words.count {
            0 => Err(ListError::Unexpected(self.at)),
            1 => self.push(words.text, Some(words.end)),
            _ => Err(ListError::Words(words.end)),
        }
    }

    fn push(&mut self, spec: Vec<u8>, unqualified_at: Option<usize>) -> Result<(), ListError> {
        let spec = String::from_utf8(spec).map_err(|_| ListError::NotText(self.at))?;
        (self.found)(Listed { spec, unqualified_at });
        Ok(())
    }

    /// Atoms, quoted strings and dots, with white space and comments between them.
    fn words(&mut self) -> Result<Words, ListError> {
        let mut words = Words { end: self.at, ..Words::default() };
        let mut dotted = false;
        loop {
            self.skip_white()?;
            match self.peek() {
                Some(b'.') => {
                    words.text.push(b'.');
                    self.at += 1;
                    dotted = true;
                    words.count = words.count.max(1);
                }
                Some(b'"') => {
                    words.count += usize::from(!dotted || words.count == 0);
                    dotted = false;
                    self.quoted(&mut words.text)?;
                }
                Some(b) if is_atext(b) => {
                    words.count += usize::from(!dotted || words.count == 0);
                    dotted = false;
                    let rest = &self.list[self.at..];
                    let length = rest.iter().position(|&b| !is_atext(b)).unwrap_or(rest.len());
                    words.text.extend_from_slice(&rest[..length]);
                    self.at += length;
                }
                _ => return Ok(words),
            }
            words.end = self.at;
        }
    }

    /// Copies a quoted string with its quotes, without the line ends of folding (RFC 5322 3.2.4).
    fn quoted(&mut self, out: &mut Vec<u8>) -> Result<(), ListError> {
        let opened = self.at;
        out.push(b'"');
        self.at += 1;
        loop {
            let b = self.peek().ok_or(ListError::Unclosed(opened))?;
            self.at += 1;
            match b {
                b'\r' | b'\n' => continue,
                b'\\' => {
                    let next = self.peek().ok_or(ListError::Unclosed(opened))?;
                    self.at += 1;
                    out.extend_from_slice(&[b'\\', next]);
                }
                _ => out.push(b),
            }
            if b == b'"' {
                return Ok(());
            }
        }
    }

    /// White space, line ends and comments, which nest (RFC 5322 3.2.2).
    fn skip_white(&mut self) -> Result<(), ListError> {
        let mut depth = 0;
        let mut opened = self.at;
        while let Some(b) = self.peek() {
            match b {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'(' => {
                    if depth == 0 {
                        opened = self.at;
                    }
                    depth += 1;
                }
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => self.at += 1,
                _ if depth > 0 => {}
                _ => break,
            }
            self.at += 1;
        }
        if depth > 0 { Err(ListError::Unclosed(opened)) } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.list.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn specs(list: &str) -> Vec<String> {
        parse_list(list.as_bytes()).unwrap().into_iter().map(|found| found.spec).collect()
    }

    #[test]
    fn all_forms_of_an_address_are_found() {
        assert_eq!(specs("a@x.example"), ["a@x.example"]);
        assert_eq!(specs("\"Public, John Q.\" <john.q@x>, b@y"), ["john.q@x", "b@y"]);
        assert_eq!(specs("John Q. Public <a@x> (home)"), ["a@x"]);
        assert_eq!(specs("bob (the (inner) \\) builder)"), ["bob"]);
        assert_eq!(specs("friends: a@x, B <b@y>;, c"), ["a@x", "b@y", "c"]);
        assert_eq!(specs("undisclosed-recipients:;"), Vec::<String>::new());
        assert_eq!(specs("recipient list not shown:"), Vec::<String>::new());
        assert_eq!(specs("<@relay.x,@other.y:a@x>"), ["a@x"]);
        assert_eq!(specs("\"a b\"@x, a . b @ x . y"), ["\"a b\"@x", "a.b@x.y"]);
        assert_eq!(specs("a@[192.0.2.1],\r\n\tb@y"), ["a@[192.0.2.1]", "b@y"]);
        assert_eq!(specs("Ä <ä@x>, =?utf-8?q?x?= <b@y>"), ["ä@x", "b@y"]);
        assert_eq!(specs(" , ,a@x,, "), ["a@x"]);
        assert_eq!(specs("<>"), Vec::<String>::new());
        assert_eq!(specs(""), Vec::<String>::new());
    }

    #[test]
    fn where_a_domain_belongs_is_told() {
        let found = parse_list(b"Alice <alice> (x), bob (y), c@z").unwrap();
        let places: Vec<_> = found.iter().map(|found| found.unqualified_at).collect();
        assert_eq!(places, [Some(12), Some(22), None]);
        assert_eq!(unqualified(b"Alice <alice> (x), bob (y), c@z"), Ok(vec![12, 22]));
    }

    #[test]
    fn what_is_no_list_is_told_apart() {
        assert_eq!(parse_list(b"a@x b@y"), Err(ListError::Words(5)));
        assert_eq!(parse_list(b"alice bob"), Err(ListError::Words(9)));
        assert_eq!(parse_list(b"<a@x"), Err(ListError::Unclosed(0)));
        assert_eq!(parse_list(b"a (x"), Err(ListError::Unclosed(2)));
        assert_eq!(parse_list(b"\"a"), Err(ListError::Unclosed(0)));
        assert_eq!(parse_list(b"a@b@c"), Err(ListError::Words(3)));
        assert_eq!(parse_list(b"a@"), Err(ListError::Unexpected(2)));
        assert_eq!(parse_list(b"<a@x\x00>"), Err(ListError::Unexpected(4)));
        assert_eq!(parse_list(b"a@\xff"), Err(ListError::NotText(3)));
        assert_eq!(parse_list(b"a@x;"), Err(ListError::Unexpected(3)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_hang(list in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_list(&list);
        }

        #[test]
        fn every_address_of_a_list_is_found(names in prop::collection::vec("[a-z]{1,8}", 0..20)) {
            let list: Vec<String> = names.iter().map(|n| format!("\"{n}, x\" (c) <{n}@x.y>")).collect();
            let wanted: Vec<String> = names.iter().map(|n| format!("{n}@x.y")).collect();
            prop_assert_eq!(specs(&list.join(",\n ")), wanted);
        }
    }
}
