//! Follows a message's structure, line by line.

use super::fields::{ContentType, field_name, read_encoding};
use super::{Entity, MAX_DEPTH, MAX_ENTITIES, MAX_FIELD, MAX_PIECE, Name, Nature, Role, Unclear};

/// Follows a message's structure.
#[derive(Debug, Default)]
pub struct Walker {
    state: State,
    levels: Vec<Level>,
    entity: Entity,
    fields: Fields,
    unclear: Option<Unclear>,
    /// A line's beginning that came with the last block.
    held: Vec<u8>,
    /// What is held does not begin its line.
    is_inside_line: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Header,
    Content,
    Around,
}

/// A multipart that is open.
#[derive(Debug)]
struct Level {
    boundary: Vec<u8>,
    is_digest: bool,
    is_sealed: bool,
}

/// What was seen of the header section at hand.
#[derive(Debug, Default)]
struct Fields {
    current: Option<Name>,
    content_type: Option<Vec<u8>>,
    encoding: Option<Vec<u8>>,
}

impl Walker {
    /// Of a message that has not begun yet.
    pub fn new() -> Walker {
        let entity = Entity { is_message: true, ..Entity::default() };
        Walker { entity, ..Walker::default() }
    }

    /// What can't be followed: what was said of roles and entities since is not to be relied on.
    pub fn unclear(&self) -> Option<Unclear> {
        self.unclear
    }

    /// Takes a block, and gives what it has of it piece by piece: whole lines, with CR LF, or parts of
    /// longer ones. A CR LF is never cut in two.
    pub fn feed(&mut self, block: &[u8], visit: &mut impl FnMut(&Entity, Role, &[u8])) {
        let mut rest = block;
        while !rest.is_empty() {
            let line_end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let room = MAX_PIECE - self.held.len();
            let (taken, after) = rest.split_at(line_end.min(room));
            self.held.extend_from_slice(taken);
            rest = after;
            if self.held.ends_with(b"\r\n") {
                self.give(visit, self.held.len(), true);
            } else if self.held.len() == MAX_PIECE {
                // A CR may be half of a line end.
                let length = MAX_PIECE - usize::from(self.held.ends_with(b"\r"));
                self.give(visit, length, false);
            }
        }
    }

    /// The message is over.
    pub fn finish(&mut self, visit: &mut impl FnMut(&Entity, Role, &[u8])) {
        if !self.held.is_empty() {
            self.give(visit, self.held.len(), true);
        }
        if self.state == State::Header {
            self.end_header(b"", visit);
        }
    }

    fn give(&mut self, visit: &mut impl FnMut(&Entity, Role, &[u8]), length: usize, ends_line: bool) {
        let held = std::mem::take(&mut self.held);
        self.piece(&held[..length], ends_line, visit);
        self.is_inside_line = !ends_line;
        self.held = held;
        self.held.drain(..length);
    }

    fn piece(&mut self, piece: &[u8], ends_line: bool, visit: &mut impl FnMut(&Entity, Role, &[u8])) {
        let is_line = ends_line && !self.is_inside_line;
        if is_line && let Some((level, is_last)) = self.delimiter(piece) {
            if self.state == State::Header {
                self.end_header(b"", visit);
            }
            self.levels.truncate(level + 1);
            visit(&self.entity, Role::Delimiter, piece);
            if is_last {
                self.levels.pop();
                self.state = State::Around;
            } else {
                self.begin_entity(false);
            }
            return;
        }
        match self.state {
            State::Header => self.header(piece, visit),
            State::Content => visit(&self.entity, Role::Content, piece),
            State::Around => visit(&self.entity, Role::Around, piece),
        }
    }

    /// Whether a line is a delimiter: of which level, and whether it ends the last part. RFC 2046 5.1.1
    /// would let anything follow; `--outer` is taken for no delimiter of `out`, as others do.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let line = line.strip_prefix(b"--")?.trim_ascii_end();
        for (n, level) in self.levels.iter().enumerate().rev() {
            match line.strip_prefix(level.boundary.as_slice()) {
                Some(b"") => return Some((n, false)),
                Some(b"--") => return Some((n, true)),
                _ => {}
            }
        }
        None
    }

    fn begin_entity(&mut self, is_message: bool) {
        let is_sealed = self.levels.last().is_some_and(|level| level.is_sealed);
        let number = self.entity.number + 1;
        if number >= MAX_ENTITIES {
            self.unclear.get_or_insert(Unclear::TooMuch);
        }
        self.entity = Entity { number, is_message, is_sealed, ..Entity::default() };
        self.fields = Fields::default();
        self.state = State::Header;
    }

    fn header(&mut self, piece: &[u8], visit: &mut impl FnMut(&Entity, Role, &[u8])) {
        if !self.is_inside_line {
            if piece == b"\r\n" {
                self.end_header(piece, visit);
                return;
            }
            let continues = matches!(piece[0], b' ' | b'\t') && self.fields.current.is_some();
            if !continues {
                let Some(name) = field_name(piece) else {
                    // RFC 5322 knows no such line; who reads on as header and who reads body is not agreed.
                    self.unclear.get_or_insert(Unclear::Header);
                    self.fields.current = None;
                    visit(&self.entity, Role::Field(Name::Other), piece);
                    return;
                };
                self.begin_field(name);
            }
        }
        let name = self.fields.current.unwrap_or(Name::Other);
        let value = match name {
            Name::ContentType => self.fields.content_type.as_mut(),
            Name::Encoding => self.fields.encoding.as_mut(),
            _ => None,
        };
        if let Some(value) = value {
            value.extend_from_slice(piece);
            if value.len() > MAX_FIELD {
                value.clear();
                self.unclear.get_or_insert(Unclear::Header);
            }
        }
        visit(&self.entity, Role::Field(name), piece);
    }

    fn begin_field(&mut self, name: Name) {
        self.fields.current = Some(name);
        let before = match name {
            Name::ContentType => self.fields.content_type.replace(Vec::new()),
            Name::Encoding => self.fields.encoding.replace(Vec::new()),
            _ => None,
        };
        if before.is_some() {
            self.unclear.get_or_insert(Unclear::Header);
        }
    }

    fn end_header(&mut self, empty_line: &[u8], visit: &mut impl FnMut(&Entity, Role, &[u8])) {
        let is_in_digest = self.levels.last().is_some_and(|level| level.is_digest) && !self.entity.is_message;
        let kind = ContentType::read(self.fields.content_type.as_deref(), is_in_digest);
        self.entity.encoding = read_encoding(self.fields.encoding.as_deref());
        self.entity.nature = match kind.nature {
            // RFC 2045 6.4: these are never encoded as a whole.
            Nature::Multipart | Nature::Message if !self.entity.encoding.is_identity() => Nature::Fixed,
            Nature::Multipart if kind.boundary.is_empty() => Nature::Fixed,
            nature => nature,
        };
        self.entity.is_sealed |= kind.is_sealed;
        visit(&self.entity, Role::HeaderEnd, empty_line);
        match self.entity.nature {
            Nature::Multipart => self.open(kind),
            Nature::Message => self.begin_entity(true),
            _ => self.state = State::Content,
        }
    }

    fn open(&mut self, kind: ContentType) {
        self.state = State::Around;
        if self.levels.len() == MAX_DEPTH {
            self.unclear.get_or_insert(Unclear::TooMuch);
            return;
        }
        let ContentType { boundary, is_digest, .. } = kind;
        self.levels.push(Level { boundary, is_digest, is_sealed: self.entity.is_sealed });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Encoding;
    use super::*;

    /// Each piece as `number, role, text`.
    fn walk(message: &[u8], step: usize) -> (Vec<(usize, Role, String)>, Option<Unclear>) {
        let mut walker = Walker::new();
        let mut pieces = Vec::new();
        let mut visit = |entity: &Entity, role, piece: &[u8]| {
            pieces.push((entity.number, role, String::from_utf8_lossy(piece).into_owned()));
        };
        message.chunks(step).for_each(|block| walker.feed(block, &mut visit));
        walker.finish(&mut visit);
        (pieces, walker.unclear())
    }

    /// The texts of one role, each with its entity's number.
    fn of(role: Role, message: &str) -> Vec<String> {
        let (pieces, unclear) = walk(message.as_bytes(), 7);
        assert_eq!(unclear, None);
        let of_role = pieces.into_iter().filter(|(_, r, _)| *r == role);
        of_role.map(|(n, _, text)| format!("{n} {}", text.trim_end())).collect()
    }

    const NESTED: &str = "Content-Type: multipart/mixed;\r\n boundary=\"=_out\"\r\n\r\npreamble\r\n--=_out\r\n\r\n\
        one\r\n--=_outer\r\n--=_out  \r\nContent-Type: Multipart/Alternative; boundary=in\r\n\r\n--in\r\n\
        Content-Type: text/html\r\n\r\n<two>\r\n--in--\r\nbetween\r\n--=_out\r\nContent-Type: message/rfc822\r\n\
        \r\nSubject: inner\r\n\r\nthree\r\n--=_out--\r\nepilogue\r\n";

    #[test]
    fn parts_are_told_apart() {
        assert_eq!(of(Role::Content, NESTED), ["1 one", "1 --=_outer", "3 <two>", "5 three"]);
        assert_eq!(of(Role::Around, NESTED), ["0 preamble", "3 between", "5 epilogue"]);
        let delimiters = ["0 --=_out", "1 --=_out", "2 --in", "3 --in--", "3 --=_out", "5 --=_out--"];
        assert_eq!(of(Role::Delimiter, NESTED), delimiters);
        assert_eq!(of(Role::HeaderEnd, NESTED).len(), 6);
    }

    #[test]
    fn an_outer_delimiter_ends_what_is_inside() {
        let message = NESTED.replace("--in--\r\nbetween\r\n", "");
        assert_eq!(of(Role::Content, &message), ["1 one", "1 --=_outer", "3 <two>", "5 three"]);
        let message =
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nA: 1\r\n--b\r\n\r\nx\r\n--b--\r\n";
        assert_eq!(of(Role::Content, message), ["2 x"]);
        assert_eq!(of(Role::HeaderEnd, message).len(), 3, "a part without content has a header all the same");
    }

    #[test]
    fn natures_and_encodings_are_read() {
        let of = |header: &str| {
            let mut seen = Entity::default();
            let mut walker = Walker::new();
            let mut visit = |entity: &Entity, role, _: &[u8]| {
                if role == Role::HeaderEnd && entity.number == 0 {
                    seen = *entity;
                }
            };
            walker.feed(format!("{header}\r\n\r\nx\r\n").as_bytes(), &mut visit);
            (seen.nature, seen.encoding, seen.is_sealed)
        };
        let (text, seven) = (Nature::Text, Encoding::SevenBit);
        assert_eq!(of("Subject: x"), (text, seven, false));
        assert_eq!(
            of("content-type: TEXT/PLAIN\r\nCONTENT-transfer-encoding : 8BIT (x)").1,
            Encoding::EightBit
        );
        assert_eq!(
            of("Content-Type: image/png\r\nContent-Transfer-Encoding:\r\n base64").1,
            Encoding::Base64
        );
        assert_eq!(of("Content-Type: image/png").0, Nature::Binary);
        assert_eq!(of("Content-Type: multipart/mixed").0, Nature::Fixed);
        assert_eq!(of("Content-Type: multipart/mixed (x); boundary=a"), (Nature::Multipart, seven, false));
        assert!(of("Content-Type: multipart/signed; boundary=a").2);
        let odd = "Content-Type: multipart/mixed; boundary=a\r\nContent-Transfer-Encoding: base64";
        assert_eq!(of(odd).0, Nature::Fixed);
        assert_eq!(of("Content-Type: message/partial").0, Nature::Fixed);
        assert_eq!(of("Content-Transfer-Encoding: x-uue").1, Encoding::Unknown);
    }

    #[test]
    fn what_is_inside_a_seal_is_sealed_and_a_digests_parts_are_messages() {
        let message = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/signed; boundary=s\r\n\
            \r\n--s\r\n\r\nx\r\n--s--\r\n--a\r\nContent-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\nSubject: y\r\n\r\n\
            y\r\n--d--\r\n--a--\r\n";
        let mut seen = Vec::new();
        let mut walker = Walker::new();
        walker.feed(message.as_bytes(), &mut |entity, role, _| {
            if role == Role::HeaderEnd {
                seen.push((entity.number, entity.is_sealed, entity.is_message));
            }
        });
        let wanted =
            [(0, false, true), (1, true, false), (2, true, false), (3, false, false), (4, false, false)];
        assert_eq!(seen, [&wanted[..], &[(5, false, true)]].concat());
    }

    #[test]
    fn what_is_not_clear_is_said() {
        let unclear = |message: &str| walk(message.as_bytes(), 100).1;
        assert_eq!(unclear("Subject: x\r\n\r\nno field\r\n"), None);
        assert_eq!(unclear("no field\r\n\r\n"), Some(Unclear::Header));
        assert_eq!(unclear("Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n"), Some(Unclear::Header));
        let long = format!("Content-Type: a/b; c={}\r\n\r\n", "x".repeat(MAX_FIELD));
        assert_eq!(unclear(&long), Some(Unclear::Header));
        let part = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n";
        assert_eq!(unclear(&part.repeat(MAX_DEPTH + 1)), Some(Unclear::TooMuch));
        let many = "\r\n--a\r\n".repeat(MAX_ENTITIES);
        assert_eq!(unclear(&format!("{part}{many}")), Some(Unclear::TooMuch));
        assert_eq!(
            unclear(&"Content-Type: message/rfc822\r\n\r\n".repeat(MAX_ENTITIES)),
            Some(Unclear::TooMuch)
        );
    }

    proptest! {
        #[test]
        fn pieces_make_the_message_however_it_is_split(
            message in "(Content-Type: multipart/mixed; boundary=a\r\n\r\n)?(--a|--|\r\n|\r|\n|x|A: b|Content-Type: message/rfc822| ){0,16}",
            step in 1usize..9,
        ) {
            let (pieces, _) = walk(message.as_bytes(), step);
            prop_assert_eq!(&pieces, &walk(message.as_bytes(), usize::MAX).0);
            let joined: String = pieces.into_iter().map(|(.., text)| text).collect();
            prop_assert_eq!(joined, message);
        }

        #[test]
        fn long_lines_come_in_pieces(length in MAX_PIECE - 3..MAX_PIECE * 2 + 3, step in 1usize..3000) {
            let message = format!("\r\n{}\r\nb\r\n", "x".repeat(length));
            let (pieces, _) = walk(message.as_bytes(), step);
            prop_assert!(pieces.iter().all(|(_, _, text)| text.len() <= MAX_PIECE && text != "\r" && text != "\n"));
            let joined: String = pieces.into_iter().map(|(.., text)| text).collect();
            prop_assert_eq!(joined, message);
        }
    }
}
