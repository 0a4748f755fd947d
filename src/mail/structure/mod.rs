//! What a message consists of (RFC 2045, 2046): its entities, told apart while it passes through.
//!
//! ```text
//! message            entity 0
//!   multipart        between its delimiters: entities 1, 2, …, which may be multiparts again
//!   message/rfc822   its content is one more entity
//!   anything else    a leaf: content
//! ```
//!
//! A [`Walker`] gives a message on as pieces, each with its [`Role`]. Nothing is held but one line's
//! beginning and the fields that say what an entity is, and everything that could grow has a limit.

mod fields;
mod walker;

pub use walker::Walker;

#[cfg(test)]
pub(super) use fields::tests::leaves;

/// Most octets of a field that is read; a longer one can't be (mailparse takes time that grows with the
/// square).
pub const MAX_FIELD: usize = 16 * 1024;
/// Most multiparts within each other.
pub const MAX_DEPTH: usize = 50;
/// Most entities of a message.
pub const MAX_ENTITIES: usize = 10_000;
/// A longer line comes in several pieces.
pub const MAX_PIECE: usize = 4096;

/// What a piece of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Of a header field, with its line end.
    Field(Name),
    /// The empty line that ends a header section; no octets at all where it is missing. From here on the
    /// entity's nature and encoding are known.
    HeaderEnd,
    /// Of a leaf's content.
    Content,
    /// Before the first or after the last part of a multipart.
    Around,
    /// The line that begins a part or ends the last one. The line end before it is not content.
    Delimiter,
}

/// The fields that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Content-Type.
    ContentType,
    /// Content-Transfer-Encoding.
    Encoding,
    /// MIME-Version.
    MimeVersion,
    /// DKIM-Signature.
    Signature,
    /// Any other.
    Other,
}

/// What an entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nature {
    /// Text, or something else that consists of lines.
    #[default]
    Text,
    /// A leaf of any other kind.
    Binary,
    /// It has parts.
    Multipart,
    /// Its content is a message (message/rfc822).
    Message,
    /// A leaf that RFC 2046 lets nobody encode, or a multipart whose parts can't be found.
    Fixed,
}

/// What Content-Transfer-Encoding says (RFC 2045 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `7bit`, or nothing said.
    #[default]
    SevenBit,
    /// `8bit`
    EightBit,
    /// `binary`
    Binary,
    /// `quoted-printable`
    QuotedPrintable,
    /// `base64`
    Base64,
    /// Something else.
    Unknown,
}

impl Encoding {
    /// The octets are the content itself.
    pub fn is_identity(self) -> bool {
        matches!(self, Encoding::SevenBit | Encoding::EightBit | Encoding::Binary)
    }
}

/// The entity at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entity {
    /// Its number: entities are counted as they begin.
    pub number: usize,
    /// What it is.
    pub nature: Nature,
    /// How its content is encoded.
    pub encoding: Encoding,
    /// It is a whole message, or lies in one directly, not a part of a multipart.
    pub is_message: bool,
    /// It lies in a multipart/signed or multipart/encrypted, or is one: no octet may change.
    pub is_sealed: bool,
}

/// Why a structure can't be followed with certainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclear {
    /// A header section has a line that belongs to no field, or a field twice that says what an entity is,
    /// or such a field longer than [`MAX_FIELD`].
    Header,
    /// More than [`MAX_DEPTH`] or [`MAX_ENTITIES`].
    TooMuch,
}
