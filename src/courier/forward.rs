//! What a user's `.forward` says, as posta-local reports it: where his mail goes in place of his
//! mailbox.

use crate::mail::address::Mailbox;

use super::fields::{FieldError, Reader, Writer};
use super::request::Place;

/// Where the owner of a mailbox wants his mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forward {
    /// To these addresses, as a message of its own.
    pub addresses: Vec<Mailbox>,
    /// Into these places, with the same owner's rights. None is a [`Place::Home`], so that it ends.
    pub places: Vec<Place>,
}

impl Forward {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.put_text("forward", self.addresses.len());
        self.addresses.iter().for_each(|address| w.put_text("to", address));
        self.places.iter().for_each(|place| place.encode(w));
    }

    /// Reads the fields, if they are there.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Option<Forward>, FieldError> {
        let Some(count) = r.optional_text("forward")? else { return Ok(None) };
        let count: usize = count.parse().map_err(|_| FieldError::Value("forward"))?;
        let mut forward = Forward::default();
        for _ in 0..count {
            let address = Mailbox::parse(r.text("to")?, true).map_err(|_| FieldError::Value("to"))?;
            forward.addresses.push(address);
        }
        while let Some(place) = Place::decode_plain(r)? {
            forward.places.push(place);
        }
        Ok(Some(forward))
    }
}
