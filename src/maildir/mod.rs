//! Floor 4, services: mailboxes.
//!
//! A Maildir (<https://cr.yp.to/proto/maildir.html>) is a folder with `tmp/`, `new/` and `cur/`. A
//! message is written under a name in `tmp/`, made durable, renamed to `new/`, and the rename is
//! made durable: a reader never sees half a message, not even after a power cut. [`deliver`] does
//! that; between its steps the caller may wait for a sync that many deliveries share.
//!
//! | state | tmp | new | meaning | after a crash |
//! |---|---|---|---|---|
//! | M1 | + | | being written ([`deliver::Written`]), in `tmp/` or in a folder there (`nursery`) | swept after 36 hours |
//! | M2 | + | | synced | swept after 36 hours |
//! | M3 | | + | named ([`deliver::Named`]): readers see it, whole | there or not; the same delivery again replaces it |
//! | M4 | | + | synced: "done" may be said | there |
//!
//! [`name`] gives the file its name, the same at every attempt; [`copy`] is what is written: a few
//! fields on top, then the message with LF line ends; [`place`] opens the folders, step by step and
//! without following links where the mailbox's owner may have put them. [`folder`] and [`quota`] are
//! the parts of Maildir++: folders in a Maildir, and how much it may hold.

pub mod copy;
pub mod deliver;
pub mod folder;
pub mod name;
mod nursery;
pub mod place;
pub mod quota;
