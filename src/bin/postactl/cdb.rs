//! `cdb`: a text file of a table becomes a constant database.

use std::path::Path;

use posta::unix::sysexits;

use posta::config::{Config, Source};

use posta::route::{Form, MakeError, build_cdb};

use crate::Refusal;

/// Builds `FILE.cdb` of `FILE`; the old one stays where `FILE` has a fault.
pub fn build(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let [file] = words else { return Err(Refusal::usage("cdb takes the text FILE of a table")) };
    match build_cdb(Path::new(file), form(file, config)) {
        Ok((path, count)) => {
            println!("{}: {count} rows", path.display());
            Ok(sysexits::OK)
        }
        Err(error @ MakeError::File(..)) => Err(Refusal(sysexits::IOERR, error.to_string())),
        Err(MakeError::Text(faults)) => {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(Refusal(sysexits::DATA, lines.join("\n")))
        }
    }
}

/// The form of a text file, by the setting that names it or its database: aliases, domains, or else
/// addresses.
fn form(file: &str, config: &Config) -> Form {
    let database = format!("{file}.cdb");
    let is_named = |source: &Source| match source {
        Source::Text(path) => path == Path::new(file),
        Source::Cdb(path) => path == Path::new(&database),
        _ => false,
    };
    if is_named(&config.local.aliases) {
        Form::Aliases
    } else if config.routing.domains.iter().any(is_named) {
        Form::Domains
    } else {
        Form::Addresses
    }
}
