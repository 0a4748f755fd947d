//! Who sends, and handing the mail to posta-drop.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use posta::unix::{child, sysexits, users};

use posta::mail::address::ReversePath;
use posta::mail::envelope::Ret;

use posta::config::Config;

use crate::Refusal;
use crate::compose::{Mail, read_argument};
use crate::input::copy_body;
use crate::options::{Deliver, Options};

/// On whose behalf.
#[derive(Debug)]
pub struct Caller {
    /// This host's name, for addresses without one.
    pub hostname: String,
    /// Who gets the errors.
    pub sender: ReversePath,
    /// For a From that is missing.
    pub full_name: String,
}

impl Caller {
    /// Who runs this program, unless `-f` and `-F` say otherwise. Anybody may say so: the trace of the
    /// message tells which user it was.
    pub fn find(hostname: &str, options: &Options) -> Result<Caller, Refusal> {
        let uid = users::current().0;
        let account = users::by_uid(uid)
            .map_err(|error| Refusal(sysexits::TEMPFAIL, format!("can't look up user {uid}: {error}")))?;
        let sender = match (&options.sender, &account) {
            (Some(said), _) => read_sender(said, hostname)?,
            (None, Some(account)) => read_sender(&account.name, hostname)?,
            (None, None) => {
                let why = format!("user {uid} has no name here; say the sender's address with -f");
                return Err(Refusal(sysexits::OSERR, why));
            }
        };
        let full_name = match (&options.full_name, account) {
            (Some(said), _) if said.chars().any(char::is_control) => {
                return Err(Refusal(sysexits::DATA, "-F: control characters in a name".into()));
            }
            (Some(said), _) => said.clone(),
            (None, Some(account)) if options.sender.is_none() => full_name(&account.gecos, &account.name),
            (None, _) => String::new(),
        };
        Ok(Caller { hostname: hostname.to_string(), sender, full_name })
    }
}

/// An address, or nobody: an empty text or `<>`.
fn read_sender(said: &str, hostname: &str) -> Result<ReversePath, Refusal> {
    let mut found = read_argument(said, hostname)?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Ok(ReversePath::Null),
        (Some(mailbox), true) => Ok(ReversePath::Mailbox(mailbox)),
        (Some(_), false) => Err(Refusal(sysexits::DATA, format!("-f \"{said}\": more than one address"))),
    }
}

/// The full name of passwd(5): up to the first comma; `&` is the login name with a capital.
fn full_name(gecos: &str, login: &str) -> String {
    let name = gecos.split(',').next().unwrap_or_default();
    let mut letters = login.chars();
    let capital = letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>());
    let name = name.replace('&', &capital.unwrap_or_default());
    if name.chars().any(char::is_control) { String::new() } else { name }
}

/// Starts posta-drop, gives it envelope and message, and makes its end ours.
pub fn hand_to_drop(
    mail: Mail,
    input: &mut impl BufRead,
    deliver: &Deliver,
    options: &Options,
    config: &Config,
) -> Result<u8, Refusal> {
    let (path, mut drop) = start_drop(options, config)?;
    let stdin =
        drop.stdin.take().ok_or_else(|| Refusal(sysexits::OSERR, "posta-drop has no stdin".into()))?;
    // Dropped before the wait, so that posta-drop sees the end.
    let written = write_all(mail, input, deliver, BufWriter::with_capacity(64 * 1024, stdin));
    let status = drop.wait().map_err(|error| Refusal(sysexits::OSERR, format!("{path}: {error}")))?;
    match (status.code(), written) {
        (Some(0), Ok(())) => Ok(sysexits::OK),
        // It said why, on the stderr that is ours too.
        (Some(code), _) if code != 0 => Ok(u8::try_from(code).unwrap_or(sysexits::TEMPFAIL)),
        (_, Err(error)) => {
            Err(Refusal(sysexits::IOERR, format!("the message could not be read or handed on: {error}")))
        }
        (_, Ok(())) => Err(Refusal(sysexits::TEMPFAIL, format!("{path} was ended: {status}"))),
    }
}

fn start_drop(options: &Options, config: &Config) -> Result<(String, Child), Refusal> {
    let path = child::program("posta-drop", &config.libexec)
        .map_err(|error| Refusal(sysexits::OSERR, error.to_string()))?;
    let mut command = Command::new(&path);
    if let Some(file) = &options.config {
        command.arg("-c").arg(file);
    }
    let stdout = if options.verbose { Stdio::inherit() } else { Stdio::null() };
    let started = command.stdin(Stdio::piped()).stdout(stdout).spawn();
    let named =
        |error: io::Error| Refusal(sysexits::TEMPFAIL, format!("can't start {}: {error}", name(&path)));
    Ok((name(&path), started.map_err(named)?))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// An error here leaves the last line, a dot alone, away: posta-drop then submits nothing.
fn write_all(mail: Mail, input: &mut impl BufRead, deliver: &Deliver, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "sender {}", mail.sender)?;
    if let Some(envid) = &deliver.envid {
        writeln!(out, "envid {}", xtext(envid))?;
    }
    if let Some(ret) = deliver.ret {
        writeln!(out, "ret {}", if ret == Ret::Full { "FULL" } else { "HDRS" })?;
    }
    for recipient in &mail.recipients {
        writeln!(out, "to {recipient}")?;
        if let Some(wishes) = deliver.notify.keyword() {
            writeln!(out, "notify {wishes}")?;
        }
    }
    writeln!(out)?;
    // The header through the same door, since a field's line may begin with a dot too.
    let header_only = &mut io::empty();
    if mail.ended {
        copy_body(&mail.header, header_only, true, &mut out)?;
    } else {
        let begins = [mail.header, mail.body_begins].concat();
        copy_body(&begins, input, deliver.ignore_dots, &mut out)?;
    }
    out.flush()
}

/// RFC 3461 4: what is not plain goes as `+` and two digits.
fn xtext(text: &str) -> String {
    let coded = |b: u8| match b {
        b'+' | b'=' => format!("+{b:02X}"),
        b if b.is_ascii_graphic() => char::from(b).to_string(),
        b => format!("+{b:02X}"),
    };
    text.bytes().map(coded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_completed_and_nobody_is_one() {
        let said = |said: &str| read_sender(said, "h.example").map(|path| path.to_string());
        assert_eq!(said("alice").unwrap(), "alice@h.example");
        assert_eq!(said("<a@x>").unwrap(), "a@x");
        assert_eq!(said("").unwrap(), "");
        assert_eq!(said("<>").unwrap(), "");
        assert!(said("a@x, b@x").is_err());
        assert!(said("a@x\nto evil@y").is_err());
    }

    #[test]
    fn the_name_of_an_account_is_read_as_finger_does() {
        assert_eq!(full_name("& Person,room 5,,", "alice"), "Alice Person");
        assert_eq!(full_name("", "alice"), "");
    }

    #[test]
    fn an_envelope_id_cant_end_its_line() {
        assert_eq!(xtext("a b\nto x@y"), "a+20b+0Ato+20x@y");
        assert_eq!(xtext("a+="), "a+2B+3D");
    }

    #[test]
    fn envelope_and_message_are_written_as_posta_drop_reads_them() {
        let mail = Mail {
            sender: ReversePath::Null,
            recipients: read_argument("b@x,c@x", "h").unwrap(),
            header: b"A: 1\n\n".to_vec(),
            body_begins: b".x\n".to_vec(),
            ended: false,
        };
        let deliver =
            Deliver { notify: posta::mail::envelope::Notify::parse("NEVER").unwrap(), ..Deliver::default() };
        let mut out = Vec::new();
        write_all(mail, &mut &b"y\n"[..], &deliver, &mut out).unwrap();
        let wanted = "sender \nto b@x\nnotify NEVER\nto c@x\nnotify NEVER\n\nA: 1\n\n..x\ny\n.\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
