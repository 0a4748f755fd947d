//! What must hold for any input. Each target takes arbitrary octets and panics where it does not. Where
//! input is to be split, its first octet says how.

mod client;
mod mail;
mod packets;
mod smtp;
mod spool;
mod told;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by name; corpus/ has a folder for each.
pub const TARGETS: &[(&str, Target)] = &[
    ("line", smtp::line),
    ("command", smtp::command),
    ("parameters", smtp::parameters),
    ("data", smtp::data),
    ("chunk", smtp::chunk),
    ("server", smtp::server),
    ("events", smtp::events),
    ("reply", smtp::reply),
    ("client", client::client),
    ("relay", client::relay),
    ("address", mail::address),
    ("addresses", mail::addresses),
    ("header", mail::header),
    ("complete", mail::complete),
    ("convert", mail::convert),
    ("envelope", spool::envelope),
    ("trailer", spool::trailer),
    ("journal", spool::journal),
    ("packets", packets::courier),
    ("sasl", packets::sasl),
    ("proxy", packets::proxy),
    ("zone", told::zone),
    ("aliases", told::aliases),
    ("config", told::config),
    ("access", told::access),
    ("tables", told::tables),
    ("forward", told::forward),
    ("users", told::users),
    ("past", told::past),
    ("words", told::words),
];

/// The target of that name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// How long the pieces are, and the rest.
fn split(input: &[u8]) -> Option<(usize, &[u8])> {
    input.split_first().map(|(step, rest)| (usize::from(*step % 16) + 1, rest))
}
