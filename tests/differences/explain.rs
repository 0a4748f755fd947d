//! Why readings differ: the categories of contrib/fuzz/DIFFERENCES.

use memchr::memmem;

use posta::mail::header;

use crate::input::Input;
use crate::reading::{Found, Kind, Reader};

/// A difference.
struct Case<'a> {
    input: &'a Input,
    ours: Option<&'a [Vec<u8>]>,
    theirs: Option<&'a [Vec<u8>]>,
}

/// A reason for differences.
pub struct Category {
    pub name: &'static str,
    kinds: &'static [Kind],
    readers: &'static [Reader],
    applies: fn(&Case) -> bool,
}

const BOTH: &[Reader] = &[Reader::Mailparse, Reader::Python];
const MAILPARSE: &[Reader] = &[Reader::Mailparse];
const PYTHON: &[Reader] = &[Reader::Python];

/// In the order in which they are tried.
pub const CATEGORIES: &[Category] = &[
    Category {
        name: "refused",
        kinds: &[Kind::List, Kind::Mime],
        readers: BOTH,
        applies: |case| case.ours.is_none() && !case.input.is_sound,
    },
    Category {
        name: "beyond mailparse's grammar",
        kinds: &[Kind::List],
        readers: MAILPARSE,
        applies: |case| case.has_more_than_mailparse_knows(),
    },
    Category {
        name: "blanks around a dot",
        kinds: &[Kind::List],
        readers: PYTHON,
        applies: |case| case.has_blank_beside(b'.'),
    },
    Category { name: "a route", kinds: &[Kind::List], readers: PYTHON, applies: |case| case.has(b"<@") },
    Category {
        name: "brackets that hold anything else",
        kinds: &[Kind::List],
        readers: PYTHON,
        applies: |case| !case.input.is_sound && case.has(b"["),
    },
    Category {
        name: "a line that is no field",
        kinds: &[Kind::Header],
        readers: MAILPARSE,
        applies: |case| case.theirs_without_lines_that_are_no_fields(),
    },
    Category {
        name: "the header ends early",
        kinds: &[Kind::Header],
        readers: PYTHON,
        applies: |case| case.theirs_is_a_beginning(),
    },
    Category {
        name: "a bare CR or LF",
        kinds: &[Kind::List, Kind::Header, Kind::Mime],
        readers: BOTH,
        applies: |case| case.has_bare_line_end(),
    },
    Category {
        name: "a line that begins like a delimiter",
        kinds: &[Kind::Mime],
        readers: MAILPARSE,
        applies: |case| case.has_line_like_a_delimiter(),
    },
    Category {
        name: "a message of another type",
        kinds: &[Kind::Mime],
        readers: PYTHON,
        applies: |case| case.has_other_message(),
    },
    Category {
        name: "a digest",
        kinds: &[Kind::Mime],
        readers: MAILPARSE,
        applies: |case| case.has(b"digest"),
    },
    Category {
        name: "a blank before a colon",
        kinds: &[Kind::Mime],
        readers: BOTH,
        applies: |case| case.has(b" :") || case.has(b"\t:"),
    },
    Category {
        name: "a type that is none",
        kinds: &[Kind::Mime],
        readers: BOTH,
        applies: |case| case.has_bad_type(),
    },
    Category {
        name: "a boundary that can be none",
        kinds: &[Kind::Mime],
        readers: MAILPARSE,
        applies: |case| case.has_bad_boundary(),
    },
    Category {
        name: "a backslash in a boundary",
        kinds: &[Kind::Mime],
        readers: PYTHON,
        applies: |case| case.has(b"\\"),
    },
    Category {
        name: "an encoded message",
        kinds: &[Kind::Mime],
        readers: PYTHON,
        applies: |case| {
            case.has(b"base64") && (case.has(b"digest") || case.has(b"rfc822")) && !case.input.is_sound
        },
    },
    Category {
        name: "a multipart without parts",
        kinds: &[Kind::Mime],
        readers: BOTH,
        applies: |case| !case.input.is_sound && case.has(b"ultipart") && case.ours_is_among_theirs(),
    },
];

/// The first category that a difference belongs to.
pub fn explain(input: &Input, reader: Reader, ours: &Found, theirs: &Found) -> Option<&'static str> {
    let case = Case { input, ours: ours.0.as_deref(), theirs: theirs.0.as_deref() };
    CATEGORIES
        .iter()
        .filter(|it| it.kinds.contains(&input.kind) && it.readers.contains(&reader))
        .find(|it| (it.applies)(&case))
        .map(|it| it.name)
}

impl Case<'_> {
    fn octets(&self) -> &[u8] {
        &self.input.octets
    }

    fn has(&self, needle: &[u8]) -> bool {
        memmem::find(self.octets(), needle).is_some()
    }

    /// Quoted local parts, comments, addresses without a domain, places without an address, nobody, routes, groups that are not
    /// ended, blanks within an address.
    fn has_more_than_mailparse_knows(&self) -> bool {
        let is_empty = self.ours.is_some_and(<[_]>::is_empty);
        let lacks_domain = self.ours.is_some_and(|ours| ours.iter().any(|spec| !spec.contains(&b'@')));
        let list: Vec<u8> =
            self.octets().iter().copied().filter(|octet| !b" \t\r\n".contains(octet)).collect();
        let has_empty_place =
            list.starts_with(b",") || list.ends_with(b",") || memmem::find(&list, b",,").is_some();
        // Every other piece between quotes is quoted.
        let has_quoted_at =
            list.split(|octet| *octet == b'"').skip(1).step_by(2).any(|it| it.contains(&b'@'));
        let is_text = std::str::from_utf8(self.octets()).is_ok();
        let others =
            ["(", "<@", "<>", ":", "\"@", "["].iter().any(|it| memmem::find(&list, it.as_bytes()).is_some());
        let is_oddly_quoted = !self.input.is_sound && self.has(b"\"");
        is_oddly_quoted || is_empty || lacks_domain || has_empty_place || has_quoted_at || !is_text || others
    }

    /// A comment is as good as a blank.
    fn has_blank_beside(&self, octet: u8) -> bool {
        let is_blank = |octet: &u8| b" \t\r\n()".contains(octet);
        self.octets()
            .windows(2)
            .any(|pair| (pair[0] == octet && is_blank(&pair[1])) || (pair[1] == octet && is_blank(&pair[0])))
    }

    fn has_bare_line_end(&self) -> bool {
        let octets = self.octets();
        octets.iter().enumerate().any(|(at, octet)| match octet {
            b'\n' => at == 0 || octets[at - 1] != b'\r',
            b'\r' => octets.get(at + 1) != Some(&b'\n'),
            _ => false,
        })
    }

    /// What they have beyond ours are lines without a name and a colon.
    fn theirs_without_lines_that_are_no_fields(&self) -> bool {
        if self.octets().starts_with(b" ") || self.octets().starts_with(b"\t") {
            return true;
        }
        let Some(theirs) = self.theirs else { return self.has_line_that_is_no_field() };
        let mut ours = self.ours.unwrap_or_default().iter().peekable();
        let all_extra_are_none = theirs.iter().all(|entry| {
            if ours.next_if_eq(&entry).is_some() {
                return true;
            }
            let colon = memmem::find(entry, b": ").unwrap_or(entry.len());
            let (name, value) = entry.split_at(colon);
            name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || value == b": "
        });
        all_extra_are_none && ours.next().is_none()
    }

    fn has_line_that_is_no_field(&self) -> bool {
        let (section, _) = header::split(self.octets());
        let is_begun = |line: &&[u8]| !matches!(line.first(), Some(b' ' | b'\t'));
        section.split_inclusive(|octet| *octet == b'\n').filter(is_begun).any(|line| !header::is_field(line))
    }

    /// Ours are theirs, in their order, with others between.
    fn ours_is_among_theirs(&self) -> bool {
        let Some((ours, theirs)) = self.ours.zip(self.theirs) else { return false };
        let mut theirs = theirs.iter();
        ours.iter().all(|one| theirs.any(|other| other == one))
    }

    /// `--outer` begins like the delimiter `--out`.
    fn has_line_like_a_delimiter(&self) -> bool {
        let octets = self.octets();
        let name = b"boundary=\"";
        let is_like = |at: usize| {
            let rest = &octets[at + name.len()..];
            let boundary = rest.split(|octet| *octet == b'"').next().unwrap_or_default();
            memmem::find_iter(octets, &[b"\n--", boundary].concat()).any(|at| {
                let rest = &octets[at + 3 + boundary.len()..];
                let rest = rest.split(|octet| *octet == b'\n').next().unwrap_or_default();
                !matches!(rest.trim_ascii_end(), b"" | b"--")
            })
        };
        memmem::find_iter(octets, name).any(is_like)
    }

    /// Not a word, a slash, and another word, or a word that only begins like "multipart".
    fn has_bad_type(&self) -> bool {
        let (octets, name) = (self.octets(), b"ontent-Type:");
        memmem::find_iter(octets, name).any(|at| {
            let rest = &octets[at + name.len()..];
            let kind = rest.split(|octet| b";\r\n".contains(octet)).next().unwrap_or_default().trim_ascii();
            let words: Vec<&[u8]> = kind.split(|octet| *octet == b'/').collect();
            let is_word = |word: &&[u8]| {
                !word.is_empty() && word.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-')
            };
            let is_longer = words[0].starts_with(b"multipart") && words[0] != b"multipart";
            is_longer || words.len() != 2 || !words.iter().all(is_word)
        })
    }

    /// An empty one, or one that ends with a blank.
    fn has_bad_boundary(&self) -> bool {
        let octets = self.octets();
        memmem::find_iter(octets, b"boundary=").any(|at| octets.get(at + 9) != Some(&b'"'))
            || self.has(b" \"\r\n")
            || self.has(b"\t\"\r\n")
    }

    /// Some type of message beside message/rfc822.
    fn has_other_message(&self) -> bool {
        let octets = self.octets();
        memmem::find_iter(octets, b"essage/").any(|at| !octets[at + 7..].starts_with(b"rfc822\r\n"))
    }

    /// They have what we have, up to a certain field.
    fn theirs_is_a_beginning(&self) -> bool {
        self.ours.zip(self.theirs).is_some_and(|(ours, theirs)| ours.starts_with(theirs))
    }
}
