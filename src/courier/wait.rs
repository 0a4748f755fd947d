//! What waits for one destination: an answer to `Order::When`.

use super::fields::{FieldError, Reader, Writer};

/// A destination that something waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// As posta-queue calls it.
    pub destination: String,
    /// Deferred messages.
    pub deferred: u64,
    /// When the first of them is due: seconds since 1970.
    pub next: Option<u64>,
    /// Jobs in its queue.
    pub queued: u64,
    /// Jobs under way.
    pub running: u64,
    /// The administrator has paused it.
    pub paused: bool,
    /// Until when it is left alone, in seconds since 1970, and why.
    pub rests: Option<(u64, String)>,
}

impl Wait {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.put("wait", &self.destination);
        w.put_text("deferred", self.deferred);
        w.put_some("next", self.next.map(|next| next.to_string()));
        w.put_text("queued", self.queued);
        w.put_text("running", self.running);
        w.put("paused", if self.paused { "yes" } else { "no" });
        if let Some((until, why)) = &self.rests {
            w.put_text("until", until);
            w.put("why", why);
        }
    }

    /// The rest of a packet that has begun with this destination.
    pub(super) fn decode(destination: &str, r: &mut Reader<'_>) -> Result<Wait, FieldError> {
        let seconds =
            |text: Option<&str>, name| text.map(str::parse).transpose().map_err(|_| FieldError::Value(name));
        Ok(Wait {
            destination: destination.to_string(),
            deferred: r.value("deferred")?,
            next: seconds(r.optional_text("next")?, "next")?,
            queued: r.value("queued")?,
            running: r.value("running")?,
            paused: r.text("paused")? == "yes",
            rests: match seconds(r.optional_text("until")?, "until")? {
                Some(until) => Some((until, r.text("why")?.to_string())),
                None => None,
            },
        })
    }
}
