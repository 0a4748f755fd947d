//! `session`: what was said last in a session with posta-smtpd, or of posta-remote, in which something
//! went wrong.

use posta::unix::sysexits;

use posta::config::Config;
use posta::logbook::entry::Printable;
use posta::logbook::sessions;

use crate::Refusal;
use crate::show::one_id;

/// Prints the lines of the wire, oldest first.
pub fn session(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let id = one_id("session", words)?;
    let read = |folder| {
        let folder = config.run.join(folder);
        sessions::read(&folder, id)
            .map_err(|error| Refusal(sysexits::NOPERM, format!("{}: {error}", folder.display())))
    };
    let text = match read(sessions::RECEIVING)? {
        None => read(sessions::SENDING)?,
        text => text,
    };
    let Some(text) = text else {
        let why = format!(
            "session {id} is not kept: it went well, goes on still, or is too old; the log names those that are, \
             as session=ID"
        );
        return Err(Refusal(sysexits::DATA, why));
    };
    text.lines().for_each(|line| println!("{}", Printable(line)));
    Ok(sysexits::OK)
}
