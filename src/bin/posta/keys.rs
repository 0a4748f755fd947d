//! The TLS keys: read here, by root, and handed to posta-smtpd, at its start and whenever they change.

use std::io;
use std::time::{Duration, Instant};

use log::{error, info};

use posta::unix::pass::Packets;

use posta::config::Config;
use posta::net::tls_handover::{self, Giver, Parcel, Stamp, TlsFiles};

/// Between two looks whether the files have changed.
pub const LOOK: Duration = Duration::from_secs(20);

/// What is handed over, and to whom.
#[derive(Debug)]
pub struct Keys {
    /// The settings; `None`: no TLS.
    files: Option<TlsFiles>,
    /// Of the files when they were last read, well or not.
    stamp: Option<Stamp>,
    parcel: Option<Parcel>,
    /// The way to the child that runs.
    giver: Option<Giver>,
    /// The child has not yet been given the parcel.
    owed: bool,
    looked: Instant,
}

impl Keys {
    /// Reads the files that the configuration names. An error says what is wrong with which.
    pub fn read(config: &Config) -> Result<Keys, String> {
        let files = config.tls.certificate.as_ref().map(|certificate| TlsFiles {
            certificate: certificate.clone(),
            key: config.tls.key.clone(),
            client_ca: config.tls.client_ca.clone(),
            hostname: config.hostname.clone(),
        });
        let stamp = files.as_ref().map(TlsFiles::stamp);
        let parcel = files.as_ref().map(parcel_of).transpose()?;
        Ok(Keys { files, stamp, parcel, giver: None, owed: false, looked: Instant::now() })
    }

    /// The end of a new way for a child that is about to start; what it needs lies in it already.
    pub fn for_a_new_child(&mut self) -> io::Result<Packets> {
        let (giver, end) = tls_handover::pair()?;
        giver.give(self.parcel.as_ref())?;
        self.giver = Some(giver);
        self.owed = false;
        Ok(end)
    }

    /// Other settings hold from now on, and the child is given their keys.
    pub fn become_these(&mut self, new: Keys) {
        let giver = self.giver.take();
        *self = Keys { giver, ..new };
        self.give();
    }

    /// Hands the files over anew if they have changed. Those that can't be read are reported once; what
    /// was handed over before stays in use.
    pub fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let stamp = self.files.as_ref().map(TlsFiles::stamp);
        if stamp != self.stamp {
            self.stamp = stamp;
            match self.files.as_ref().map(parcel_of).transpose() {
                Ok(parcel) => {
                    info!("the TLS certificate or key has changed; handed to posta-smtpd");
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
        self.owed = match giver.give(self.parcel.as_ref()) {
            Ok(()) => false,
            // It has ended, and its successor is given everything at the start.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => {
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => {
                error!("the TLS keys can't be handed to posta-smtpd: {error}");
                true
            }
        };
    }
}

fn parcel_of(files: &TlsFiles) -> Result<Parcel, String> {
    let material = files.read().map_err(|fault| format!("[tls]: {fault}"))?;
    Parcel::new(&material).map_err(|error| format!("[tls]: a memory file for the keys: {error}"))
}

#[cfg(test)]
mod tests {
    use posta::net::tls_handover::Taker;

    use super::*;

    fn keys(text: &str) -> Result<Keys, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posta.toml");
        std::fs::write(&file, text).unwrap();
        Keys::read(&posta::config::load(Some(&file)).unwrap())
    }

    /// The key that a child is given; none if it is given no certificate at all.
    fn given(taker: &Taker) -> Option<Vec<u8>> {
        let material = taker.take(Duration::from_secs(5)).unwrap().unwrap();
        material.map(|material| material.pairs[0].key.clone())
    }

    #[test]
    fn a_child_has_what_it_needs_and_gets_what_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.pem");
        std::fs::write(&path, "old").unwrap();
        let setting = format!("[tls]\ncertificate = \"{}\"", path.display());
        let mut keys = keys(&setting).unwrap();
        let taker = Taker::new(keys.for_a_new_child().unwrap().into());
        assert_eq!(given(&taker), Some(b"old".to_vec()));

        std::fs::write(&path, "renewed").unwrap();
        keys.looked -= LOOK;
        keys.look();
        assert_eq!(given(&taker), Some(b"renewed".to_vec()));
        std::fs::remove_file(&path).unwrap();
        keys.looked -= LOOK;
        keys.look();
        assert_eq!(taker.take(Duration::ZERO).unwrap(), None);

        keys.become_these(self::keys("").unwrap());
        assert_eq!(given(&taker), None);
        let next = Taker::new(keys.for_a_new_child().unwrap().into());
        assert_eq!(given(&next), None);
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
    }
}
