//! What is to be read: made by a grammar with all that mail has, and with faults now and then.

use fastrand::Rng;

use crate::reading::Kind;

/// Something to be read.
#[derive(Clone)]
pub struct Input {
    pub kind: Kind,
    pub octets: Vec<u8>,
    /// It is as the RFCs have it, obsolete forms included: we have to read it.
    pub is_sound: bool,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.octets.escape_ascii())
    }
}

impl Input {
    /// One of that kind.
    pub fn make(kind: Kind, chance: &mut Rng) -> Input {
        let mut octets = match kind {
            Kind::List => list(chance),
            Kind::Header => header(chance),
            Kind::Mime => message(chance, 3),
        };
        // One in four has an octet too many, too few, or another.
        let is_spoilt = chance.u8(..4) == 0 && !octets.is_empty();
        // In a digest what looks like a leaf is a message, and its text a header that is none.
        let is_sound = !is_spoilt && memchr::memmem::find(&octets, b"digest").is_none();
        if is_spoilt {
            let at = chance.usize(..octets.len());
            let other = *pick(chance, b"<>@,;:\"()[]\\. \r\n-=/xX\t\x00\xe4");
            match chance.u8(..3) {
                0 => octets.insert(at, other),
                1 => _ = octets.remove(at),
                _ => octets[at] = other,
            }
        }
        Input { kind, octets, is_sound }
    }
}

fn pick<'a, T>(chance: &mut Rng, from: &'a [T]) -> &'a T {
    &from[chance.usize(..from.len())]
}

fn text(chance: &mut Rng, from: &[&str]) -> Vec<u8> {
    pick(chance, from).as_bytes().to_vec()
}

/// Several of something, with `between` between them.
fn several(chance: &mut Rng, most: usize, between: &[u8], each: impl Fn(&mut Rng) -> Vec<u8>) -> Vec<u8> {
    let count = chance.usize(1..=most);
    (0..count).map(|_| each(chance)).collect::<Vec<_>>().join(between)
}

fn list(chance: &mut Rng) -> Vec<u8> {
    several(chance, 4, b", ", |chance| match chance.u8(..8) {
        0 => {
            let members = several(chance, 3, b",", mailbox);
            [&text(chance, &["friends", "\"a, b\"", "undisclosed recipients"])[..], b": ", &members, b";"]
                .concat()
        }
        1 => text(chance, &["undisclosed-recipients:;", "", "nobody", "<>", " "]),
        _ => mailbox(chance),
    })
}

fn mailbox(chance: &mut Rng) -> Vec<u8> {
    let address = address(chance);
    let route = text(chance, &["", "", "", "", "", "@hop.example,@other.example:"]);
    let around = text(chance, &["", "", "", " ", " (a comment)", "\r\n ", " (one (in one) \\) )"]);
    match chance.u8(..3) {
        0 => [address, around].concat(),
        1 => [b"<".to_vec(), route, address, b">".to_vec(), around].concat(),
        _ => {
            let name = text(
                chance,
                &[
                    "Bob",
                    "John Q. Public",
                    "\"Doe, Jane\"",
                    "\"a \\\"b\\\" c\"",
                    "=?utf-8?q?J=C3=B6rg?=",
                    "J\u{f6}rg",
                ],
            );
            [name, around, b" <".to_vec(), address, b">".to_vec()].concat()
        }
    }
}

fn address(chance: &mut Rng) -> Vec<u8> {
    let local =
        text(chance, &["a", "john.doe", "\"quoted local\"", "x+tag", "\"a@b\"", "o'neil", "a . b", "=x="]);
    let domain =
        text(chance, &["example.org", "x", "[192.0.2.1]", "[IPv6:::1]", "sub.example . org", "EXAMPLE.ORG"]);
    if chance.u8(..8) == 0 { local } else { [local, b"@".to_vec(), domain].concat() }
}

fn header(chance: &mut Rng) -> Vec<u8> {
    let mut octets = several(chance, 6, b"", field);
    if chance.bool() {
        octets.extend_from_slice(b"\r\nbody: no field\r\n");
    }
    octets
}

fn field(chance: &mut Rng) -> Vec<u8> {
    let name = text(chance, &["Subject", "X-A", "from", "To", "Received", "X_b.1", "DKIM-Signature"]);
    let colon = text(chance, &[": ", ": ", ": ", ":", " : ", ":\t"]);
    let value =
        text(chance, &["", "text", "a: b", "very long text indeed", "a;b=\"c\"", "gr\u{fc}n", "  blanks  "]);
    let fold = text(chance, &["", "", "", "\r\n folded", "\r\n\tfolded", "\r\n  twice\r\n  over"]);
    [name, colon, value, fold, b"\r\n".to_vec()].concat()
}

fn message(chance: &mut Rng, depth: usize) -> Vec<u8> {
    let mut octets = text(chance, &["From: a@b\r\n", "", "Subject: x\r\nMIME-Version: 1.0\r\n"]);
    octets.extend(entity(chance, depth));
    octets
}

/// A header section that says what it is, and the content.
fn entity(chance: &mut Rng, depth: usize) -> Vec<u8> {
    match chance.u8(..if depth == 0 { 3 } else { 7 }) {
        0 => leaf(chance, "text/plain; charset=utf-8"),
        1 => leaf(chance, "application/octet-stream"),
        2 => [b"\r\n".to_vec(), content(chance)].concat(),
        3 => [b"Content-Type: message/rfc822\r\n\r\n".to_vec(), message(chance, depth - 1)].concat(),
        _ => multipart(chance, depth),
    }
}

fn leaf(chance: &mut Rng, kind: &str) -> Vec<u8> {
    let encoding = text(
        chance,
        &[
            "",
            "Content-Transfer-Encoding: 8bit\r\n",
            "Content-Transfer-Encoding: base64\r\n",
            "X-Y: z\r\n w\r\n",
        ],
    );
    [b"Content-Type: ", kind.as_bytes(), b"\r\n", &encoding[..], b"\r\n", &content(chance)].concat()
}

fn content(chance: &mut Rng) -> Vec<u8> {
    text(
        chance,
        &["", "text\r\n", "two\r\nlines\r\n", "--\r\nsigned\r\n", "aGVsbG8=\r\n", "no end", "\r\n\r\nblank"],
    )
}

fn multipart(chance: &mut Rng, depth: usize) -> Vec<u8> {
    // One that begins like another, one with blanks in it, the usual ones.
    let boundary = text(chance, &["b", "b2", "with blank", "=_x_1", "----=_Part"]);
    let boundary = [&boundary[..], depth.to_string().as_bytes()].concat();
    let kind = text(chance, &["mixed", "alternative", "signed", "MIXED", "digest"]);
    let fold = text(chance, &[" ", "\r\n ", "\r\n\t", ""]);
    let before = text(chance, &["", "a preamble\r\n", "\r\n"]);
    let after = text(chance, &["", "an epilogue\r\n", "\r\n"]);
    let blanks = text(chance, &["", "", "", " ", "\t "]);
    let mut octets = [
        b"Content-Type: multipart/".to_vec(),
        kind,
        b";".to_vec(),
        fold,
        b"boundary=\"".to_vec(),
        boundary.clone(),
        b"\"\r\n\r\n".to_vec(),
        before,
    ]
    .concat();
    for _ in 0..chance.usize(1..4) {
        octets.extend([b"--", &boundary[..], &blanks, b"\r\n", &entity(chance, depth - 1), b"\r\n"].concat());
    }
    // One in eight is cut off.
    if chance.u8(..8) > 0 {
        octets.extend([b"--", &boundary[..], b"--", &blanks, b"\r\n", &after].concat());
    }
    octets
}
