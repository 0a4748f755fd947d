//! `newaliases`: says whether the aliases can be read. Nothing has to be made of them, unless the
//! table is the constant database of a text file: that is built anew.

use std::path::Path;

use posta::unix::sysexits;

use posta::config::{Config, Source};

use posta::route::{self, Form, MakeError};

use crate::Refusal;

/// Reads the table and tells its faults, each with its place.
pub fn check(config: &Config) -> Result<u8, Refusal> {
    let table = &config.local.aliases;
    if let Source::Cdb(path) = table
        && let Some(text) = path.to_str().and_then(|path| path.strip_suffix(".cdb"))
    {
        return build(Path::new(text));
    }
    let faults = route::alias_faults(table).map_err(|error| Refusal(sysexits::IOERR, error.to_string()))?;
    if !faults.is_empty() {
        return Err(Refusal(sysexits::DATA, faults.join("\n")));
    }
    println!("{table}: no faults; changes are noticed without this command");
    Ok(sysexits::OK)
}

fn build(text: &Path) -> Result<u8, Refusal> {
    match route::build_cdb(text, Form::Aliases) {
        Ok((path, count)) => {
            println!("{}: {count} aliases", path.display());
            Ok(sysexits::OK)
        }
        Err(MakeError::Text(faults)) => {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(Refusal(sysexits::DATA, lines.join("\n")))
        }
        Err(error) => Err(Refusal(sysexits::IOERR, error.to_string())),
    }
}
