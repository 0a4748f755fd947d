//! What other sendmails do for whoever asks, and what has been asked in the name of others: a web form whose
//! words end up on the command line writes a log file into the server's documents (`-X`), or names a
//! configuration of its own (`-C`). None of it exists here; who asks for it is told so, and no mail is sent: it
//! is a fault of the caller, or an attack.
//!
//! What is harmless is taken, since old callers give it, and does nothing.

use posta::unix::sysexits;

use crate::Refusal;

/// Letters that name a file to be written, or (Exim) a setting.
const LETTERS: [(&str, &str); 2] =
    [("X", "writes a log of the traffic"), ("D", "writes a log for debugging")];

/// `-o` with one of these sets a file, a folder, a user or an address of sendmail's: aliases, forward files,
/// help, macros, the postmaster's copy, queue, statistics, user database, default user, listening addresses.
const SHORT: &str = "AHJMOPQSUu";

/// `-O NAME=value` sets such a thing if the name ends so.
const ENDINGS: [&str; 10] = [
    "File",
    "Directory",
    "Path",
    "Environment",
    "User",
    "Spec",
    "Copy",
    "Key",
    "SocketName",
    "DaemonPortOptions",
];

/// Refuses what is dangerous. `asked` gives the values of a letter that is there. `is_root`: root alone may
/// name a configuration by `-C`; what nobody here does is refused to root too, with another exit code.
pub fn refuse(asked: &dyn Fn(&str) -> Option<Vec<String>>, is_root: bool) -> Result<(), Refusal> {
    if !is_root && let Some(file) = asked("C").and_then(|files| files.into_iter().next()) {
        let why = format!("-C {file}: only root may name another configuration so; -c is for one's own");
        return Err(Refusal(sysexits::NOPERM, why));
    }
    let no = |option: String, does: &str| {
        let code = if is_root { sysexits::USAGE } else { sysexits::NOPERM };
        Refusal(code, format!("{option}: {does} in other sendmails; refused, and nothing was sent"))
    };
    for (letter, does) in LETTERS {
        if let Some(value) = asked(letter) {
            return Err(no(format!("-{letter} {}", value.join(" ")), does));
        }
    }
    let is_short = |option: &&String| option.starts_with(|letter| SHORT.contains(letter));
    if let Some(option) = asked("o").unwrap_or_default().iter().find(is_short) {
        return Err(no(format!("-o{option}"), "sets where files are, or who one is,"));
    }
    let is_long = |option: &&String| {
        let name = option.split('=').next().unwrap_or_default().trim();
        ENDINGS.iter().any(|ending| {
            let at = name.len().checked_sub(ending.len());
            at.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
        })
    };
    match asked("O").unwrap_or_default().iter().find(is_long) {
        Some(option) => Err(no(format!("-O {option}"), "sets where files are, or who one is,")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code for one letter with its value; 0 if it is taken.
    fn judged(letter: &str, value: &str, is_root: bool) -> u8 {
        let asked = |other: &str| (other == letter).then(|| vec![value.to_string()]);
        refuse(&asked, is_root).map_or_else(|refusal| refusal.0, |()| sysexits::OK)
    }

    #[test]
    fn what_writes_files_or_moves_them_is_refused() {
        let dangerous = [
            ("X", "/var/www/shell.php"),
            ("D", "/tmp/log"),
            ("o", "Q/tmp/queue"),
            ("o", "A/tmp/aliases"),
            ("o", "Ma 192.0.2.1"),
            ("O", "QueueDirectory=/tmp"),
            ("O", "queuedirectory = /tmp"),
            ("O", "AliasFile=/tmp/a"),
            ("O", "RunAsUser=root"),
        ];
        for (letter, value) in dangerous {
            assert_eq!(judged(letter, value, false), sysexits::NOPERM, "-{letter} {value}");
            assert_eq!(judged(letter, value, true), sysexits::USAGE, "-{letter} {value}");
        }
        assert_eq!((judged("C", "/tmp/x", false), judged("C", "/tmp/x", true)), (sysexits::NOPERM, 0));
    }

    #[test]
    fn what_callers_have_always_given_is_taken() {
        let harmless = ["i", "em", "ee", "db", "di", "m", "o", "7", "8", "s", "v", "r10m", "t", ""];
        for value in harmless {
            assert_eq!(judged("o", value, false), sysexits::OK, "-o{value}");
        }
        for value in ["DeliveryMode=b", "ErrorMode=m", "MeToo=True", "LogLevel=9", "ü=ö", "e"] {
            assert_eq!(judged("O", value, false), sysexits::OK, "-O {value}");
        }
        assert_eq!(judged("d", "0.1", false), sysexits::OK);
        assert_eq!(judged("c", "posta.toml", false), sysexits::OK);
    }
}
