//! The fields that say what an entity is: the door of mailparse.

use super::super::header;
use super::{Encoding, Name, Nature};

/// Longest boundary. RFC 2046 5.1.1 allows 70.
const MAX_BOUNDARY: usize = 255;

/// Which field a header line begins, if it begins one.
pub fn field_name(line: &[u8]) -> Option<Name> {
    let field = header::fields(line).next()?;
    let names = [
        ("Content-Type", Name::ContentType),
        ("Content-Transfer-Encoding", Name::Encoding),
        ("MIME-Version", Name::MimeVersion),
        ("DKIM-Signature", Name::Signature),
    ];
    Some(names.iter().find(|(name, _)| field.is(name)).map_or(Name::Other, |(_, name)| *name))
}

/// What a Content-Type field says.
pub struct ContentType {
    /// As the type alone says.
    pub nature: Nature,
    /// What stands in a multipart's delimiters; empty if there is none that can be used.
    pub boundary: Vec<u8>,
    /// Its parts are messages, unless they say otherwise.
    pub is_digest: bool,
    /// No octet in it may change (RFC 1847).
    pub is_sealed: bool,
}

impl ContentType {
    /// `field` is the whole field, at most `MAX_FIELD` octets.
    pub fn read(field: Option<&[u8]>, is_in_digest: bool) -> ContentType {
        let value = field.map(unfolded).unwrap_or_default();
        let parsed = mailparse::parse_content_type(&value);
        // RFC 2045 5.1: a comment may follow the type.
        let kind = parsed.mimetype.split(['(', ' ', '\t']).next().unwrap_or_default();
        let (kind, subtype) = kind.split_once('/').unwrap_or(("", ""));
        let nature = match (kind, subtype) {
            // RFC 2046 5.1.5
            ("", _) if is_in_digest => Nature::Message,
            ("multipart", _) => Nature::Multipart,
            ("message", "rfc822") => Nature::Message,
            // RFC 2046 5.2.2, 5.2.3: in seven bits, for ever.
            ("message", "partial" | "external-body") => Nature::Fixed,
            ("" | "text" | "message", _) => Nature::Text,
            _ => Nature::Binary,
        };
        let boundary = parsed.params.get("boundary").filter(|b| b.len() <= MAX_BOUNDARY);
        ContentType {
            nature,
            boundary: boundary.map(|b| b.trim_end().as_bytes().to_vec()).unwrap_or_default(),
            is_digest: subtype == "digest",
            // RFC 1847
            is_sealed: kind == "multipart" && matches!(subtype, "signed" | "encrypted"),
        }
    }
}

/// What a whole Content-Transfer-Encoding field says.
pub fn read_encoding(field: Option<&[u8]>) -> Encoding {
    let value = field.map(unfolded).unwrap_or_default().to_ascii_lowercase();
    match value.split(['(', ';']).next().unwrap_or_default().trim() {
        "" | "7bit" => Encoding::SevenBit,
        "8bit" => Encoding::EightBit,
        "binary" => Encoding::Binary,
        "quoted-printable" => Encoding::QuotedPrintable,
        "base64" => Encoding::Base64,
        _ => Encoding::Unknown,
    }
}

/// The value of a field in one line.
fn unfolded(field: &[u8]) -> String {
    header::fields(field).next().map(|field| field.text()).unwrap_or_default()
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;

    /// The contents of all leaves, decoded, as mailparse sees them.
    pub fn leaves(message: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        collect(&mailparse::parse_mail(message).unwrap(), &mut out);
        out
    }

    fn collect(mail: &mailparse::ParsedMail, out: &mut Vec<Vec<u8>>) {
        let content = || mail.get_body_raw().unwrap();
        match mail.ctype.mimetype.as_str() {
            "message/rfc822" => out.extend(leaves(&content())),
            _ if mail.subparts.is_empty() => out.push(content()),
            _ => mail.subparts.iter().for_each(|part| collect(part, out)),
        }
    }

    #[test]
    fn a_comment_or_odd_quoting_hides_nothing() {
        let read =
            |value: &str| ContentType::read(Some(format!("Content-Type: {value}\r\n").as_bytes()), false);
        assert_eq!(read("multipart/mixed (x); boundary=\"a b\"").boundary, b"a b");
        assert_eq!(read("multipart/mixed;\r\n BOUNDARY = x ; charset=y").boundary, b"x");
        assert_eq!(read("multipart/mixed; boundary*0=a; boundary*1=b").boundary, b"ab");
        assert!(read(&format!("multipart/mixed; boundary={}", "x".repeat(300))).boundary.is_empty());
        assert_eq!(read_encoding(Some(b"Content-Transfer-Encoding: Base64 (x)\r\n")), Encoding::Base64);
    }
}
