//! Secrets of other programs: read here, by root, and handed to them, at their start and whenever the
//! files change.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use log::{error, info};

use posta::unix::handover::{self, Giver, Parcel};
use posta::unix::pass::Packets;

use posta::config::Config;
use posta::net::relay_logins;
use posta::net::tls_handover::{self, Stamp, TlsFiles};

use crate::program::{REMOTE, SMTPD};

/// Between two looks whether the files have changed.
pub const LOOK: Duration = Duration::from_secs(20);

/// The files of one program.
#[derive(Debug)]
enum Files {
    /// None.
    Nothing,
    /// posta-smtpd: certificate and key.
    Tls(TlsFiles),
    /// posta-remote: names and passwords for relays.
    Logins(Vec<PathBuf>),
}

impl Files {
    fn stamp(&self) -> Stamp {
        match self {
            Files::Nothing => Stamp::of(Vec::new()),
            Files::Tls(files) => files.stamp(),
            Files::Logins(paths) => relay_logins::stamp(paths),
        }
    }

    /// Their content; an error says what is wrong with which.
    fn parcel(&self) -> Result<Option<Parcel>, String> {
        let bytes = match self {
            Files::Nothing => return Ok(None),
            Files::Tls(files) => {
                tls_handover::pack(&files.read().map_err(|fault| format!("[tls]: {fault}"))?)
            }
            Files::Logins(paths) => {
                relay_logins::pack(paths).map_err(|fault| format!("[domains]: login: {fault}"))?
            }
        };
        Parcel::new(&bytes).map(Some).map_err(|error| format!("a memory file for secrets: {error}"))
    }
}

/// What one program is handed.
#[derive(Debug)]
struct Handing {
    program: &'static str,
    /// Of the socket, as the program knows it.
    name: &'static str,
    files: Files,
    /// Of the files when they were last read, well or not.
    stamp: Stamp,
    parcel: Option<Parcel>,
    /// The way to the child that runs.
    giver: Option<Giver>,
    /// The child has not yet been given the parcel.
    owed: bool,
}

/// What all programs are handed.
#[derive(Debug)]
pub struct Keys {
    all: [Handing; 2],
    looked: Instant,
}

impl Keys {
    /// Reads the files that the configuration names. An error says what is wrong with which.
    pub fn read(config: &Config) -> Result<Keys, String> {
        let tls = config.tls.certificate.as_ref().map_or(Files::Nothing, |certificate| {
            Files::Tls(TlsFiles {
                certificate: certificate.clone(),
                key: config.tls.key.clone(),
                client_ca: config.tls.client_ca.clone(),
                hostname: config.hostname.clone(),
            })
        });
        let logins = match config.login_files() {
            paths if paths.is_empty() => Files::Nothing,
            paths => Files::Logins(paths),
        };
        let all = [
            Handing::read(SMTPD, tls_handover::NAME, tls)?,
            Handing::read(REMOTE, relay_logins::NAME, logins)?,
        ];
        Ok(Keys { all, looked: Instant::now() })
    }

    /// The end of a new way for a child that is about to start, with its name; what the child needs lies
    /// in it already. None for a program that needs nothing.
    pub fn for_a_new_child(&mut self, program: &str) -> io::Result<Option<(&'static str, Packets)>> {
        let handing = self.all.iter_mut().find(|handing| handing.program == program);
        handing.map(|handing| Ok((handing.name, handing.new_way()?))).transpose()
    }

    /// Other settings hold from now on, and the children are given what they name.
    pub fn become_these(&mut self, new: Keys) {
        let old = std::mem::replace(self, new);
        for (handing, before) in self.all.iter_mut().zip(old.all) {
            handing.giver = before.giver;
            handing.give();
        }
    }

    /// Hands over anew what has changed. Files that can't be read are reported once; what was handed over
    /// before stays in use.
    pub fn look(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.all.iter_mut().for_each(Handing::look);
        }
    }
}

impl Handing {
    fn read(program: &'static str, name: &'static str, files: Files) -> Result<Handing, String> {
        // Before the files are read: a change in between is seen at the next look.
        let stamp = files.stamp();
        let parcel = files.parcel()?;
        Ok(Handing { program, name, files, stamp, parcel, giver: None, owed: false })
    }

    fn new_way(&mut self) -> io::Result<Packets> {
        let (giver, end) = handover::pair()?;
        giver.give(self.parcel.as_ref())?;
        (self.giver, self.owed) = (Some(giver), false);
        Ok(end)
    }

    fn look(&mut self) {
        let stamp = self.files.stamp();
        if stamp != self.stamp {
            self.stamp = stamp;
            match self.files.parcel() {
                Ok(parcel) => {
                    info!("the secrets of {} have changed; handed over anew", self.program);
                    self.parcel = parcel;
                    self.owed = true;
                }
                Err(why) => error!("{why}; what was there before stays in use"),
            }
        }
        if self.owed {
            self.give();
        }
    }

    fn give(&mut self) {
        let Some(giver) = &self.giver else { return };
        self.owed = match giver.give(self.parcel.as_ref()).map_err(|error| (error.kind(), error)) {
            Ok(()) => false,
            // It has ended, and its successor is given everything at the start.
            Err((io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected, _)) => false,
            Err((io::ErrorKind::WouldBlock, _)) => true,
            Err((_, error)) => {
                error!("the secrets of {} can't be handed over: {error}", self.program);
                true
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use posta::unix::handover::Taker;

    use super::*;

    fn keys(text: &str) -> Result<Keys, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posta.toml");
        std::fs::write(&file, text).unwrap();
        Keys::read(&posta::config::load(Some(&file)).unwrap())
    }

    fn child(keys: &mut Keys, program: &str) -> Taker {
        Taker::new(keys.for_a_new_child(program).unwrap().unwrap().1.into())
    }

    /// Whether what a child is given has that text in it; an empty text: it is given nothing.
    fn is_given(taker: &Taker, text: &str) -> bool {
        let parcel = taker.take(Duration::from_secs(5)).unwrap().unwrap();
        parcel.map_or(text.is_empty(), |bytes| String::from_utf8(bytes).unwrap().contains(text))
    }

    #[test]
    fn a_child_has_what_it_needs_and_gets_what_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.pem");
        std::fs::write(&path, "old").unwrap();
        let setting = format!("[tls]\ncertificate = \"{}\"", path.display());
        let mut keys = keys(&setting).unwrap();
        let taker = child(&mut keys, SMTPD);
        assert!(is_given(&taker, "old"));
        assert!(is_given(&child(&mut keys, REMOTE), ""));
        assert!(keys.for_a_new_child("posta-queue").unwrap().is_none());

        std::fs::write(&path, "renewed").unwrap();
        keys.looked -= LOOK;
        keys.look();
        assert!(is_given(&taker, "renewed"));
        std::fs::remove_file(&path).unwrap();
        keys.looked -= LOOK;
        keys.look();
        assert_eq!(taker.take(Duration::ZERO).unwrap(), None);

        keys.become_these(self::keys("").unwrap());
        assert!(is_given(&taker, ""));
        assert!(is_given(&child(&mut keys, SMTPD), ""));
    }

    #[test]
    fn a_key_that_cant_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("mail.example.org");
        std::fs::create_dir(&name).unwrap();
        std::fs::write(name.join("cert.pem"), "x").unwrap();
        let setting = format!("[tls]\ncertificate = \"{}\"", folder.path().display());
        assert!(keys(&setting).unwrap_err().contains("mail.example.org/key.pem"));
        std::fs::write(name.join("key.pem"), "x").unwrap();
        keys(&setting).unwrap();
        let setting = "[domains]\n\"*\" = { relay = \"a:587\", login = \"/nowhere\" }";
        assert!(keys(setting).unwrap_err().contains("login: /nowhere"));
    }
}
