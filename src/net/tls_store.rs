//! The certificates in use, and how they are renewed while a program runs.
//!
//! They come from the keeper, which reads the files as root (see [`handover`](crate::unix::handover)),
//! or, where a program was started alone, from the files themselves. New ones that can't be used are
//! reported, once, and the old ones stay.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::unix::handover::{Taker, garbled};

use super::tls_handover::{Material, Stamp, unpack};
use super::tls_server::{CertificateFault, Certificates, TlsFiles};

/// Between two looks at the files; also how long the thread that watches may be busy with one.
const LOOK: Duration = Duration::from_secs(20);
/// The keys of session tickets last so long: with them, what was recorded before could be read.
const TICKET_KEYS: Duration = Duration::from_secs(24 * 3600);
/// The keeper sends its material before it starts us.
const FIRST: Duration = Duration::from_secs(10);

/// The certificates that new sessions get.
#[derive(Debug)]
pub struct Store {
    current: RwLock<Option<Certificates>>,
    source: Mutex<Source>,
    keeper: Option<Taker>,
}

/// What the current ones were made from.
#[derive(Debug)]
struct Source {
    /// The settings; `None`: no TLS.
    files: Option<TlsFiles>,
    /// Of the files when they were last read.
    stamp: Option<Stamp>,
    /// When the current ones were made.
    made: Instant,
}

impl Store {
    /// The first certificates. `files` are the settings (`None`: no TLS), `keeper` the descriptor named
    /// [`NAME`](super::tls_handover::NAME) if the program was started with it. To be called while the
    /// program still has the rights to read the files. An error: nothing that can be used.
    pub fn open(files: Option<TlsFiles>, keeper: Option<OwnedFd>) -> Result<Arc<Store>, CertificateFault> {
        let source = Source { stamp: None, files, made: Instant::now() };
        let keeper = keeper.map(Taker::new);
        let store = Store { current: RwLock::new(None), source: Mutex::new(source), keeper };
        match &store.keeper {
            Some(keeper) => match take(keeper, FIRST) {
                Ok(Some(material)) => store.adopt(&mut store.source(), material.as_ref())?,
                Ok(None) => {
                    log::warn!("TLS: the keeper has handed nothing over; there is no TLS until it does")
                }
                Err(error) => log::error!("TLS: the keeper's hand-over: {error}; there is no TLS"),
            },
            None => store.read(&mut store.source())?,
        }
        Ok(Arc::new(store))
    }

    /// The certificates for a session that begins now; `None`: there is no TLS.
    pub fn current(&self) -> Option<Certificates> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The settings were read again: from now on these files. What can't be read or used is reported in
    /// the log, and the old certificates stay.
    pub fn change(&self, files: Option<TlsFiles>) {
        let mut source = self.source();
        source.files = files;
        if self.keeper.is_some() {
            // The keeper has read the same settings, and hands over what they name.
            drop(source);
            self.look(Duration::ZERO);
        } else {
            report(self.read(&mut source));
        }
    }

    /// Starts the thread that sees to it that changed files are in use within a minute.
    pub fn watch(self: &Arc<Store>) -> io::Result<()> {
        let store = Arc::clone(self);
        let forever = move || {
            while store.look(LOOK) {}
        };
        std::thread::Builder::new().name("certificates".into()).spawn(forever).map(drop)
    }

    /// Waits up to `limit` for new certificates, and takes them into use. `false`: none will come.
    fn look(&self, limit: Duration) -> bool {
        let Some(keeper) = &self.keeper else {
            std::thread::sleep(limit);
            self.renew(&mut self.source());
            return true;
        };
        match take(keeper, limit) {
            Ok(Some(material)) => {
                let mut source = self.source();
                report(self.adopt(&mut source, material.as_ref()));
            }
            Ok(None) => {}
            // The kernel tells us so too, by SIGTERM.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return false,
            Err(error) => log::error!("TLS: {error}; the old certificates stay"),
        }
        true
    }

    /// Reads the files if they have changed, or if the ticket keys are old.
    fn renew(&self, source: &mut Source) {
        let stamp = source.files.as_ref().map(TlsFiles::stamp);
        if stamp != source.stamp || source.made.elapsed() > TICKET_KEYS {
            report(self.read(source));
        }
    }

    fn read(&self, source: &mut Source) -> Result<(), CertificateFault> {
        // Before the files are read: a change in between is seen at the next look.
        source.stamp = source.files.as_ref().map(TlsFiles::stamp);
        let material = source.files.as_ref().map(TlsFiles::read).transpose()?;
        self.adopt(source, material.as_ref())
    }

    fn adopt(&self, source: &mut Source, material: Option<&Material>) -> Result<(), CertificateFault> {
        source.made = Instant::now();
        let hostname = source.files.as_ref().map_or("", |files| &files.hostname);
        let new = material.map(|material| Certificates::from_material(material, hostname)).transpose()?;
        for complaint in new.iter().flat_map(Certificates::complaints) {
            log::warn!("TLS: {complaint}");
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_some() && new.is_some() {
            log::info!("TLS: the certificates have been renewed");
        }
        *current = new;
        Ok(())
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper has handed over, as [`Taker::take`] gives it.
fn take(keeper: &Taker, limit: Duration) -> io::Result<Option<Option<Material>>> {
    let Some(parcel) = keeper.take(limit)? else { return Ok(None) };
    parcel.map(|bytes| unpack(&bytes).ok_or_else(garbled)).transpose().map(Some)
}

fn report(done: Result<(), CertificateFault>) {
    if let Err(fault) = done {
        log::error!("TLS: {fault}; the certificates in use stay as they are");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::path::Path;

    use crate::net::certificates::{certificate, ec_key};

    use crate::unix::handover::{self, Parcel};

    use super::super::tls_handover::pack;
    use super::*;

    fn put(folder: &Path, name: &str) {
        let made = certificate(None, &[name], ec_key(), 30);
        // As those do who renew certificates: the new file takes the old one's name.
        let new = folder.join("new");
        fs::write(&new, [made.certificate_pem(), made.key_pem()].concat()).unwrap();
        fs::rename(new, folder.join("cert.pem")).unwrap();
    }

    fn files(folder: &Path) -> TlsFiles {
        let certificate = folder.join("cert.pem");
        TlsFiles { certificate, key: None, client_ca: None, hostname: "mail.example".into() }
    }

    fn names(store: &Store) -> Vec<String> {
        store.current().map(|certificates| certificates.names().to_vec()).unwrap_or_default()
    }

    #[test]
    fn changed_files_are_used_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "old.example");
        let store = Store::open(Some(files(folder.path())), None).unwrap();
        assert_eq!(names(&store), ["old.example"]);
        assert!(store.look(Duration::ZERO));
        put(folder.path(), "new.example");
        assert!(store.look(Duration::ZERO));
        assert_eq!(names(&store), ["new.example"]);
        fs::write(folder.path().join("cert.pem"), "rubbish").unwrap();
        store.look(Duration::ZERO);
        assert_eq!(names(&store), ["new.example"]);
        store.change(None);
        assert!(store.current().is_none());
        put(folder.path(), "newer.example");
        store.change(Some(files(folder.path())));
        assert_eq!(names(&store), ["newer.example"]);
        assert!(Store::open(Some(files(Path::new("/nowhere"))), None).is_err());
    }

    #[test]
    fn what_the_keeper_hands_over_is_used_whatever_the_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let (giver, socket) = handover::pair().unwrap();
        let give = |name: &str| {
            put(folder.path(), name);
            let material = files(folder.path()).read().unwrap();
            giver.give(Some(&Parcel::new(&pack(&material)).unwrap())).unwrap();
        };
        give("old.example");
        let nowhere = Some(files(Path::new("/nowhere")));
        let store = Store::open(nowhere.clone(), Some(socket.as_fd().try_clone_to_owned().unwrap())).unwrap();
        drop(socket);
        assert_eq!(names(&store), ["old.example"]);
        give("new.example");
        store.change(nowhere);
        assert_eq!(names(&store), ["new.example"]);
        giver.give(None).unwrap();
        assert!(store.look(Duration::from_secs(5)));
        assert!(store.current().is_none());
        drop(giver);
        assert!(!store.look(Duration::from_secs(5)));
    }
}
