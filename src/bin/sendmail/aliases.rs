//! `newaliases`: nothing has to be made of the aliases, so it only says whether they can be read.

use posta::unix::sysexits;

use posta::config::Config;

use posta::route;

use crate::Refusal;

/// Reads the table and tells its faults, each with its place.
pub fn check(config: &Config) -> Result<u8, Refusal> {
    let table = &config.local.aliases;
    let faults = route::alias_faults(table).map_err(|error| Refusal(sysexits::IOERR, error.to_string()))?;
    if !faults.is_empty() {
        return Err(Refusal(sysexits::DATA, faults.join("\n")));
    }
    println!("{table}: no faults; changes are noticed without this command");
    Ok(sysexits::OK)
}
