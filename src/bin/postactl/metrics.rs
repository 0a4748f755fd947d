//! `metrics`: the counters of all programs, in the text format of Prometheus.
//!
//! posta-queue is asked; posta-smtpd leaves its own in `run/counters/`, which costs its sessions nothing.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order};

use posta::config::Config;
use posta::logbook::left;

use posta::net::orders;

use crate::{PATIENCE, Refusal, refusal};

/// Prints them, or writes them to the file that `--file` names, at once and whole: where node_exporter's
/// textfile collector looks. What can't be asked is said after the others.
pub fn metrics(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let file = match words {
        [] => None,
        [option, file] if option == "--file" => Some(Path::new(file)),
        _ => return Err(Refusal::usage("metrics takes nothing, or --file FILE")),
    };
    let mut text = String::new();
    let mut each = |answer, _| {
        if let Answer::Text(counters) = answer {
            text += &counters;
        }
    };
    let asked = orders::give(&config.run.join("queue"), &Order::Metrics, Some(PATIENCE), &mut each);
    text +=
        &format!("# TYPE posta_up gauge\nposta_up{{program=\"posta-queue\"}} {}\n", u8::from(asked.is_ok()));
    text += &left(&config.run.join("counters"))?;
    match file {
        None => print!("{text}"),
        Some(file) => write(file, &text)
            .map_err(|error| Refusal(sysexits::CANTCREAT, format!("{}: {error}", file.display())))?,
    }
    asked.map_err(refusal)?;
    Ok(sysexits::OK)
}

/// What the programs have left; nothing if none has.
fn left(folder: &Path) -> Result<String, Refusal> {
    let fault = |error: io::Error| Refusal(sysexits::NOPERM, format!("{}: {error}", folder.display()));
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        listed => listed.map_err(fault)?,
    };
    let mut text = String::new();
    for entry in listed {
        let name = entry.map_err(fault)?.file_name();
        // One that is just being written has a dot in its name.
        if let Some(name) = name.to_str().filter(|name| !name.contains('.')) {
            text += &left::read(folder, name).map_err(fault)?;
        }
    }
    Ok(text)
}

/// The collector never sees half a file.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = fs::File::create(&new)?;
    written.write_all(text.as_bytes())?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is written for the collector, anybody may read.
    #[test]
    fn a_program_that_was_taken_over_has_nothing_read_to_it() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("counters"), root.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("posta-smtpd"), "posta_x 1\n").unwrap();
        assert_eq!(left(&folder).ok().as_deref(), Some("posta_x 1\n"));
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, folder.join("posta-other")).unwrap();
        assert!(left(&folder).is_err_and(|refusal| refusal.1.contains("link")));
    }
}
