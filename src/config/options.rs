//! The command line of a daemon: the door to getopts for all of them. Each takes `-c FILE`, `-V` and
//! `-h`, some have an option more, and none takes anything else.
//!
//! The commands that people type (sendmail, postactl, posta-drop) have a grammar of their own, in
//! their main.rs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use getopts::{Matches, Options};

use crate::unix::sysexits;

use super::{Config, load};

/// A daemon, as its command line knows it.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// The program's name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Options that only it has.
    pub own: &'static [Own],
}

/// An option of one daemon.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// A letter after `-`, or a word after `--`.
    pub name: &'static str,
    /// What its value is; `None`: it has none.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// What a command line says.
#[derive(Debug)]
pub struct Given {
    /// `-c`
    pub file: Option<PathBuf>,
    own: Matches,
}

/// What there is to do.
#[derive(Debug)]
enum Asked {
    /// The daemon's work.
    Work(Given),
    /// This is to be printed, and nothing more.
    Print(String),
    /// The command line is wrong, for this reason.
    Wrong(String),
}

impl Daemon {
    /// Reads this process's command line. `Err`: the process ends here, with that code; what was
    /// asked for is printed, or standard error says what is wrong.
    pub fn begin(&self) -> Result<Given, ExitCode> {
        match self.read(std::env::args_os().skip(1)) {
            Asked::Work(given) => Ok(given),
            Asked::Print(text) => {
                print!("{text}");
                Err(ExitCode::SUCCESS)
            }
            Asked::Wrong(why) => {
                eprintln!("{0}: {why}; \"{0} -h\" prints what it takes", self.name);
                Err(ExitCode::from(sysexits::USAGE))
            }
        }
    }

    fn read(&self, words: impl Iterator<Item = OsString>) -> Asked {
        let options = self.options();
        let given = match options.parse(words) {
            Ok(given) => given,
            Err(error) => return Asked::Wrong(error.to_string()),
        };
        if let Some(word) = given.free.first() {
            return Asked::Wrong(format!("unexpected argument \"{word}\""));
        }
        if given.opt_present("h") {
            let head = format!("usage: {} [option ...]\n\n{}", self.name, self.about);
            return Asked::Print(options.usage(&head));
        }
        if given.opt_present("V") {
            return Asked::Print(format!("{} {}\n", self.name, env!("CARGO_PKG_VERSION")));
        }
        Asked::Work(Given { file: given.opt_str("c").map(PathBuf::from), own: given })
    }

    fn options(&self) -> Options {
        let mut options = Options::new();
        options.optopt("c", "", "read the configuration from FILE", "FILE");
        options.optflag("V", "", "print the version");
        options.optflag("h", "", "print this help");
        for Own { name, value, help } in self.own {
            let (letter, word) = if name.len() == 1 { (*name, "") } else { ("", *name) };
            match value {
                Some(value) => options.optopt(letter, word, help, value),
                None => options.optflag(letter, word, help),
            };
        }
        options
    }
}

impl Given {
    /// Whether an option of the daemon's own is there.
    pub fn has(&self, name: &str) -> bool {
        self.own.opt_present(name)
    }

    /// The value of an option of the daemon's own.
    pub fn value(&self, name: &str) -> Option<String> {
        self.own.opt_str(name)
    }

    /// `-c`
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the configuration. `Err`: the process ends here; standard error has every fault of it.
    pub fn config(&self) -> Result<Config, ExitCode> {
        load(self.file()).map_err(|faults| {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            ExitCode::from(sysexits::CONFIG)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: Daemon = Daemon {
        name: "posta-test",
        about: "Tests.",
        own: &[
            Own { name: "1", value: None, help: "once" },
            Own { name: "as-user", value: Some("NAME"), help: "somebody else" },
        ],
    };

    fn read(words: &[&str]) -> Asked {
        DAEMON.read(words.iter().map(OsString::from))
    }

    #[test]
    fn all_daemons_take_the_same_and_their_own() {
        let Asked::Work(given) = read(&["-1", "-c", "x.toml", "--as-user", "bob"]) else { panic!() };
        assert_eq!((given.file(), given.has("1")), (Some(Path::new("x.toml")), true));
        assert_eq!(given.value("as-user").as_deref(), Some("bob"));
        let Asked::Work(given) = read(&[]) else { panic!() };
        assert_eq!((given.file(), given.has("1"), given.value("as-user")), (None, false, None));
    }

    #[test]
    fn help_names_everything_and_the_version_the_program() {
        let Asked::Print(help) = read(&["-h"]) else { panic!() };
        for part in ["usage: posta-test", "Tests.", "-c FILE", "-1", "--as-user NAME"] {
            assert!(help.contains(part), "{part} in {help}");
        }
        let version = concat!("posta-test ", env!("CARGO_PKG_VERSION"), "\n");
        assert!(matches!(read(&["-V"]), Asked::Print(said) if said == version));
    }

    #[test]
    fn anything_else_is_wrong() {
        for words in [&["x"][..], &["-z"], &["-c"], &["-1", "x"]] {
            assert!(matches!(read(words), Asked::Wrong(_)), "{words:?}");
        }
    }
}
