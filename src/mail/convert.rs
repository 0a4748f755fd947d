//! Makes a message fit for a server that takes seven bits only (RFC 6152 3, RFC 3030 3).
//!
//! It takes two passes. The first, a [`Survey`], finds out what is to be done with each entity, or that
//! it can't be; the second, a [`Converter`], does it:
//!
//! - A leaf with octets above 127, with NUL or with a bare CR or LF is encoded: text as quoted-printable,
//!   anything else as base64. Where quoted-printable has such octets, these are quoted.
//! - A label `8bit` or `binary` of anything else becomes `7bit`.
//! - Everything else stays as it is, byte for byte.
//!
//! It can't be done without losing something, and is therefore not done, where such octets stand in a
//! header, between parts, in content that is encoded otherwise, or below a multipart/signed or
//! multipart/encrypted, whose signature must go on to hold (RFC 1847 2.1). A DKIM signature is no such
//! hindrance: it is a host's and not the author's, RFC 6376 5.3 expects it to break like this, and mail
//! with a broken one is to be taken as mail with none (6.1). [`Plan::breaks_signature`] tells, so that it
//! doesn't happen silently.

use thiserror::Error;

use super::structure::{Encoding, Entity, MAX_ENTITIES, Name, Nature, Role, Unclear, Walker};
use super::transfer::{Base64, QuotedPrintable};

/// Why a message can't be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unfit {
    /// A header section has octets above 127, NUL, or bare CR or LF.
    #[error("a header with octets above 127 can't be converted")]
    Header,
    /// Likewise between the parts of a multipart.
    #[error("octets above 127 between the parts of a multipart can't be converted")]
    Around,
    /// Likewise below a multipart/signed or multipart/encrypted.
    #[error("converting would break its signature")]
    Sealed,
    /// Likewise in content that already has another encoding, or must not have one.
    #[error("a part with octets above 127 says that it has none")]
    Fixed,
    /// Its structure is not clear, or there is too much of it.
    #[error("its MIME structure can't be followed")]
    Structure,
}

/// What is done with an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Keep,
    /// Its label becomes `7bit`.
    Label,
    /// Its octets are quoted where they are to be; the label stays.
    Repair,
    Quote,
    Base64,
}

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    treatments: Vec<Treatment>,
    has_signature: bool,
}

impl Plan {
    /// A DKIM signature will no longer hold.
    pub fn breaks_signature(&self) -> bool {
        self.has_signature && self.treatments.iter().any(|t| *t != Treatment::Keep)
    }
}

/// The first pass.
#[derive(Debug, Default)]
pub struct Survey {
    walker: Walker,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    entities: Vec<Found>,
    has_signature: bool,
    unfit: Option<Unfit>,
}

/// What was found of an entity.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    entity: Entity,
    /// Its content is not fit for seven bits.
    is_unfit: bool,
}

impl Survey {
    /// Of a message that has not begun yet.
    pub fn new() -> Survey {
        Survey { walker: Walker::new(), seen: Seen::default() }
    }

    /// Looks at the next block.
    pub fn feed(&mut self, block: &[u8]) {
        let Survey { walker, seen } = self;
        walker.feed(block, &mut |entity, role, piece| seen.note(entity, role, piece));
    }

    /// The message is over: what is to be done.
    pub fn finish(mut self) -> Result<Plan, Unfit> {
        let Survey { walker, seen } = &mut self;
        walker.finish(&mut |entity, role, piece| seen.note(entity, role, piece));
        if let Some(Unclear::Header | Unclear::TooMuch) = walker.unclear() {
            return Err(Unfit::Structure);
        }
        if let Some(unfit) = seen.unfit {
            return Err(unfit);
        }
        let treatments: Result<_, _> = seen.entities.iter().map(treatment).collect();
        Ok(Plan { treatments: treatments?, has_signature: seen.has_signature })
    }
}

impl Seen {
    fn note(&mut self, entity: &Entity, role: Role, piece: &[u8]) {
        if entity.number >= MAX_ENTITIES {
            return;
        }
        if role == Role::HeaderEnd {
            self.entities.resize(entity.number, Found::default());
            self.entities.push(Found { entity: *entity, is_unfit: false });
        }
        self.has_signature |= role == Role::Field(Name::Signature) && entity.number == 0;
        if is_fit(piece) {
            return;
        }
        match role {
            Role::Field(_) | Role::HeaderEnd => _ = self.unfit.get_or_insert(Unfit::Header),
            Role::Around | Role::Delimiter => _ = self.unfit.get_or_insert(Unfit::Around),
            Role::Content => {
                if let Some(found) = self.entities.last_mut() {
                    found.is_unfit = true;
                }
            }
        }
    }
}

/// Seven bits, no NUL, and CR and LF only together.
fn is_fit(piece: &[u8]) -> bool {
    let text = piece.strip_suffix(b"\r\n").unwrap_or(piece);
    text.is_ascii() && memchr::memchr3(b'\r', b'\n', 0, text).is_none()
}

fn treatment(found: &Found) -> Result<Treatment, Unfit> {
    let Entity { nature, encoding, is_sealed, .. } = found.entity;
    if !found.is_unfit {
        let is_mislabelled = matches!(encoding, Encoding::EightBit | Encoding::Binary);
        return Ok(if is_mislabelled && !is_sealed { Treatment::Label } else { Treatment::Keep });
    }
    match (nature, encoding) {
        _ if is_sealed => Err(Unfit::Sealed),
        (Nature::Text | Nature::Binary, Encoding::QuotedPrintable) => Ok(Treatment::Repair),
        (Nature::Text, encoding) if encoding.is_identity() => Ok(Treatment::Quote),
        (Nature::Binary, encoding) if encoding.is_identity() => Ok(Treatment::Base64),
        _ => Err(Unfit::Fixed),
    }
}

/// The second pass.
#[derive(Debug)]
pub struct Converter<'p> {
    walker: Walker,
    writer: Writer<'p>,
}

#[derive(Debug)]
struct Writer<'p> {
    plan: &'p Plan,
    there: There,
    coder: Coder,
}

/// Fields of the header section at hand.
#[derive(Debug, Default)]
struct There {
    mime_version: bool,
    content_type: bool,
    encoding: bool,
    /// The last piece ended in the middle of the encoding's field.
    in_encoding: bool,
}

/// How content is written.
#[derive(Debug, Default)]
enum Coder {
    #[default]
    AsIs,
    Quoted(QuotedPrintable),
    /// With a CR LF that is held back: before a delimiter it is no content (RFC 2046 5.1.1).
    Base64(Base64, bool),
}

impl Converter<'_> {
    /// For the message that the plan was made of.
    pub fn new(plan: &Plan) -> Converter<'_> {
        let writer = Writer { plan, there: There::default(), coder: Coder::AsIs };
        Converter { walker: Walker::new(), writer }
    }

    /// Appends the converted form of the next block to `out`, as far as it is known.
    pub fn feed(&mut self, block: &[u8], out: &mut Vec<u8>) {
        let Converter { walker, writer } = self;
        walker.feed(block, &mut |entity, role, piece| writer.write(entity, role, piece, out));
    }

    /// The message is over: appends what is left.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let Converter { walker, writer } = &mut self;
        walker.finish(&mut |entity, role, piece| writer.write(entity, role, piece, out));
        writer.end_content(false, out);
    }
}

impl Writer<'_> {
    fn write(&mut self, entity: &Entity, role: Role, piece: &[u8], out: &mut Vec<u8>) {
        let treatment = self.plan.treatments.get(entity.number).copied().unwrap_or(Treatment::Keep);
        match role {
            Role::Field(name) => self.field(treatment, name, piece, out),
            Role::HeaderEnd => {
                if !matches!(treatment, Treatment::Keep | Treatment::Label) {
                    self.add_missing(entity, treatment, out);
                }
                out.extend_from_slice(piece);
                self.begin_content(treatment);
            }
            Role::Content => self.content(piece, out),
            Role::Delimiter => {
                self.end_content(true, out);
                out.extend_from_slice(piece);
            }
            Role::Around => out.extend_from_slice(piece),
        }
    }

    fn field(&mut self, treatment: Treatment, name: Name, piece: &[u8], out: &mut Vec<u8>) {
        let there = &mut self.there;
        there.mime_version |= name == Name::MimeVersion;
        there.content_type |= name == Name::ContentType;
        let Some(label) = label(treatment).filter(|_| name == Name::Encoding) else {
            there.in_encoding = false;
            out.extend_from_slice(piece);
            return;
        };
        // The first piece of the field is replaced, further ones are left out.
        if !std::mem::replace(&mut there.in_encoding, true) {
            there.encoding = true;
            put_label(label, out);
        }
    }

    fn add_missing(&mut self, entity: &Entity, treatment: Treatment, out: &mut Vec<u8>) {
        let there = std::mem::take(&mut self.there);
        if !there.mime_version && entity.is_message {
            out.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if !there.content_type && treatment == Treatment::Quote {
            // RFC 1428 3: nobody has said what the octets above 127 mean.
            out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
        }
        if let Some(label) = label(treatment).filter(|_| !there.encoding) {
            put_label(label, out);
        }
    }

    fn begin_content(&mut self, treatment: Treatment) {
        self.there = There::default();
        self.coder = match treatment {
            Treatment::Keep | Treatment::Label => Coder::AsIs,
            Treatment::Repair => Coder::Quoted(QuotedPrintable::repairing()),
            Treatment::Quote => Coder::Quoted(QuotedPrintable::default()),
            Treatment::Base64 => Coder::Base64(Base64::default(), false),
        };
    }

    fn content(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match &mut self.coder {
            Coder::AsIs => out.extend_from_slice(piece),
            Coder::Quoted(coder) => coder.push(piece, out),
            Coder::Base64(coder, has_line_end) => {
                if *has_line_end {
                    coder.push(b"\r\n", out);
                }
                *has_line_end = piece.ends_with(b"\r\n");
                coder.push(piece.strip_suffix(b"\r\n").unwrap_or(piece), out);
            }
        }
    }

    fn end_content(&mut self, before_delimiter: bool, out: &mut Vec<u8>) {
        match std::mem::take(&mut self.coder) {
            Coder::AsIs => {}
            Coder::Quoted(mut coder) => coder.finish(out),
            Coder::Base64(mut coder, has_line_end) => {
                if has_line_end && !before_delimiter {
                    coder.push(b"\r\n", out);
                }
                coder.finish(out);
            }
        }
    }
}

fn label(treatment: Treatment) -> Option<&'static str> {
    match treatment {
        Treatment::Keep | Treatment::Repair => None,
        Treatment::Label => Some("7bit"),
        Treatment::Quote => Some("quoted-printable"),
        Treatment::Base64 => Some("base64"),
    }
}

fn put_label(label: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Transfer-Encoding: ");
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::mail::structure::leaves;

    use super::*;

    fn plan(message: &[u8], step: usize) -> Result<Plan, Unfit> {
        let mut survey = Survey::new();
        message.chunks(step).for_each(|block| survey.feed(block));
        survey.finish()
    }

    fn convert(message: &[u8], step: usize) -> Result<Vec<u8>, Unfit> {
        let plan = plan(message, step)?;
        let mut converter = Converter::new(&plan);
        let mut out = Vec::new();
        message.chunks(step).for_each(|block| converter.feed(block, &mut out));
        converter.finish(&mut out);
        Ok(out)
    }

    fn converted(message: &[u8]) -> String {
        let whole = convert(message, usize::MAX).unwrap();
        assert_eq!(convert(message, 5).unwrap(), whole);
        assert_eq!(leaves(&whole), leaves(message), "{}", String::from_utf8_lossy(&whole));
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn text_becomes_quoted_printable_and_the_label_says_so() {
        let message = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding:\r\n 8bit\r\n\
                       Subject: s\r\n\r\nä b \r\n.\r\n";
        assert_eq!(
            converted(message.as_bytes()),
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\
             Subject: s\r\n\r\n=C3=A4 b=20\r\n.\r\n"
        );
        assert_eq!(
            converted(b"Subject: s\r\n\r\n\xe4\r\n"),
            "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n"
        );
    }

    #[test]
    fn each_part_is_treated_by_itself() {
        let message = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\
            Content-Transfer-Encoding: 8bit\r\n\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\
            \x89PNG\r\n\x00\r\n--b\r\n\r\nplain\r\n--b\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: message/rfc822\r\n\r\n\
            Content-Type: text/plain\r\n\r\n\xfc\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\nascii\r\n--b--\r\n";
        let text = converted(message);
        for piece in [
            "boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b",
            "image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KAA==\r\n--b\r\n\r\nplain\r\n--b\r\n",
            "Content-Transfer-Encoding: 7bit\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: text/plain\r\n\
             MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=FC\r\n--b\r\n",
            "--b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nascii\r\n--b--\r\n",
        ] {
            assert!(text.contains(piece), "{piece}\nin\n{text}");
        }
    }

    #[test]
    fn what_needs_nothing_stays_as_it_is() {
        let message = "Subject: s\r\nContent-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\
                       Content-Transfer-Encoding: 8bit\r\n\r\nascii \r\n--b--\r\n";
        assert_eq!(converted(message.as_bytes()), message);
        assert!(!plan(b"DKIM-Signature: x\r\n\r\nascii\r\n", 9).unwrap().breaks_signature());
        assert!(plan(b"DKIM-Signature: x\r\n\r\n\xe4\r\n", 9).unwrap().breaks_signature());
    }

    #[test]
    fn what_would_be_lost_is_not_converted() {
        let part = |kind: &str, encoding: &str| {
            format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n\u{e4}\r\n")
        };
        let multi = |kind: &str, part: &str| {
            format!("Content-Type: multipart/{kind}; boundary=b\r\n\r\n--b\r\n{part}\r\n--b--\r\n")
        };
        let text = part("text/plain", "8bit");
        let cases = [
            ("Subject: \u{e4}\r\n\r\nx\r\n".to_string(), Unfit::Header),
            (multi("mixed", "X: \u{e4}\r\n\r\nx"), Unfit::Header),
            (multi("mixed", &text) + "epil\u{f6}gue\r\n", Unfit::Around),
            (multi("signed", &text), Unfit::Sealed),
            (
                multi("signed", &multi("mixed", &text).replace("=b", "=c").replace("--b", "--c")),
                Unfit::Sealed,
            ),
            (part("image/png", "base64"), Unfit::Fixed),
            (part("text/plain", "x-uuencode"), Unfit::Fixed),
            (part("message/partial", "8bit"), Unfit::Fixed),
            (part("multipart/mixed", "8bit"), Unfit::Fixed),
            ("no field\r\n\r\n\u{e4}\r\n".to_string(), Unfit::Structure),
        ];
        for (message, unfit) in cases {
            assert_eq!(plan(message.as_bytes(), 7), Err(unfit), "{message}");
        }
    }

    #[test]
    fn quoted_printable_with_octets_above_127_is_repaired() {
        let message = "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A4 \u{e4}=\r\n\r\n";
        let text = String::from_utf8(convert(message.as_bytes(), 3).unwrap()).unwrap();
        assert!(text.ends_with("\r\n\r\n=C3=A4 =C3=A4=\r\n\r\n"), "{text}");
        assert_eq!(text.matches("quoted-printable").count(), 1, "{text}");
    }

    proptest! {
        #[test]
        fn seven_bits_come_out_with_the_same_content(
            body in prop::collection::vec(any::<u8>(), 0..300),
            kind in prop::sample::select(vec!["text/plain", "image/png", "multipart/mixed; boundary=x"]),
            step in 1usize..80,
        ) {
            let part = [b"Content-Type: application/octet-stream\r\n\r\n", &body[..], b"\r\n"].concat();
            let around = match kind.starts_with("multipart") {
                true => [b"--x\r\n", &part[..], b"--x\r\n\r\n", &body[..], b"\r\n--x--\r\n"].concat(),
                false => [&body[..], b"\r\n"].concat(),
            };
            let head = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: binary\r\n\r\n");
            let message = [head.as_bytes(), &around].concat();
            let out = convert(&message, step).unwrap();
            prop_assert!(is_fit(&String::from_utf8(out.clone()).unwrap().replace("\r\n", "").into_bytes()));
            prop_assert_eq!(leaves(&out), leaves(&message));
            prop_assert_eq!(convert(&out, step).unwrap(), out, "nothing is left to be done");
        }
    }
}
