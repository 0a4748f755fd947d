//! The names and passwords by which relays know this host: `login = FILE` in `[domains]`, and in the
//! rows of tables, whose files lie in the folder `routing.logins`.
//!
//! The files are root's. The keeper reads them and hands them to posta-remote, as it does with the
//! keys of TLS ([`handover`](crate::unix::handover)); a posta-remote that was started alone reads them
//! itself, while it has the rights. What has changed is seen when it is next wanted.
//!
//! In the keeper's parcel stand netstrings: each path, and the file's content.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use crate::unix::handover::{Taker, garbled};

use crate::mail::address::ReversePath;

use super::netstring::{next, put};
pub use super::tls_files::Stamp;
pub use keyring::{Chosen, Keyring};

mod keyring;

/// The name of the socket among those that posta-remote is started with.
pub const NAME: &str = "logins";

/// Longest file.
const LONGEST: u64 = 64 * 1024;
/// The keeper hands over before it starts us.
const FIRST: Duration = Duration::from_secs(10);

/// Why a file is of no use.
#[derive(Debug, Error)]
pub enum LoginFault {
    /// It can't be read.
    #[error("{path}: can't be read: {source}; set login to where it is, and start posta as root")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too many can read it.
    #[error("{path}: its mode {mode:03o} lets others read the password; \"chmod 600\" mends that")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It has no login, or a line that is none, or two for the same mail.
    #[error(
        "{0}: a line \"name password\" is wanted in it, or one \"<sender> name password\" for each sender"
    )]
    Malformed(PathBuf),
    /// The hand-over.
    #[error("logins of relays: {0}")]
    Keeper(io::Error),
}

/// Reads the files, unparsed: what goes into the keeper's parcel. Of a folder among them each file that
/// is good; one that isn't is reported in the log, and the others are as good as before.
pub fn pack(paths: &[PathBuf]) -> Result<Vec<u8>, LoginFault> {
    let mut out = Vec::new();
    let mut add = |path: &Path, content: &[u8]| {
        put(&mut out, path.as_os_str().as_bytes());
        put(&mut out, content);
    };
    for path in paths {
        if !path.is_dir() {
            add(path, &read(path)?);
            continue;
        }
        for file in files_in(path).map_err(|source| LoginFault::Unreadable { path: path.clone(), source })? {
            match read(&file) {
                Ok(content) if parse(&content).is_some() => add(&file, &content),
                Ok(_) => log::error!("{}; mail that needs it waits", LoginFault::Malformed(file)),
                Err(fault) => log::error!("{fault}; mail that needs it waits"),
            }
        }
    }
    Ok(out)
}

/// The state of the files, and of those in folders among them.
pub fn stamp(paths: &[PathBuf]) -> Stamp {
    // A folder that can't be read has a state too, and is reported by whoever reads it.
    let inside =
        paths.iter().filter(|path| path.is_dir()).flat_map(|path| files_in(path).unwrap_or_default());
    Stamp::of(paths.iter().cloned().chain(inside).collect())
}

/// The files in a folder, without hidden ones and those that editors leave.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b".") && !name.as_bytes().ends_with(b"~") && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn parse(content: &[u8]) -> Option<Keyring> {
    std::str::from_utf8(content).ok().and_then(Keyring::parse)
}

fn read(path: &Path) -> Result<Vec<u8>, LoginFault> {
    let unreadable = |source| LoginFault::Unreadable { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(LoginFault::Open { path: path.to_path_buf(), mode });
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// By path.
type Known = HashMap<PathBuf, Keyring>;

fn unpack(mut bytes: &[u8]) -> Result<Known, LoginFault> {
    let mut known = Known::new();
    while !bytes.is_empty() {
        let (Some(path), Some(content)) = (next(&mut bytes), next(&mut bytes)) else {
            return Err(LoginFault::Keeper(garbled()));
        };
        let path = PathBuf::from(OsStr::from_bytes(path));
        let keyring = parse(content).ok_or_else(|| LoginFault::Malformed(path.clone()))?;
        known.insert(path, keyring);
    }
    Ok(known)
}

/// The logins in use.
#[derive(Debug)]
pub struct Logins {
    source: Mutex<Source>,
}

#[derive(Debug)]
struct Source {
    keeper: Option<Taker>,
    paths: Vec<PathBuf>,
    /// Of the files when they were last read, well or not.
    stamp: Option<Stamp>,
    known: Known,
}

impl Logins {
    /// The first logins: what the keeper hands over on `keeper`, the descriptor named [`NAME`], else
    /// what is in the files. To be called while the program has the rights to read them.
    pub fn open(paths: Vec<PathBuf>, keeper: Option<OwnedFd>) -> Result<Logins, LoginFault> {
        let keeper = keeper.map(Taker::new);
        let mut source = Source { keeper, paths, stamp: None, known: Known::new() };
        source.renew(FIRST)?;
        Ok(Logins { source: Mutex::new(source) })
    }

    /// The settings were read again: from now on these files.
    pub fn change(&self, paths: Vec<PathBuf>) {
        self.source().paths = paths;
    }

    /// The login in a file for mail of a sender; `None` if there is none that can be used. A file that
    /// has become useless is reported in the log, once, and what was in it before stays in use.
    pub fn of(&self, path: &Path, sender: &ReversePath) -> Option<Chosen> {
        let mut source = self.source();
        if let Err(fault) = source.renew(Duration::ZERO) {
            log::error!("{fault}; what was read before stays in use");
        }
        source.known.get(path)?.choose(sender)
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Takes what has changed. Without a word of the keeper by `limit` nothing has.
    fn renew(&mut self, limit: Duration) -> Result<(), LoginFault> {
        match &self.keeper {
            Some(keeper) => match keeper.take(limit) {
                Ok(Some(parcel)) => self.known = unpack(&parcel.unwrap_or_default())?,
                Ok(None) => {}
                // We will be told to go too.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(LoginFault::Keeper(error)),
            },
            None => {
                let stamp = Some(stamp(&self.paths));
                if self.stamp != stamp {
                    self.stamp = stamp;
                    self.known = unpack(&pack(&self.paths)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use crate::unix::handover::{self, Parcel};

    use super::*;

    fn put_file(path: &Path, text: &str, mode: u32) {
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn password(logins: &Logins, path: &Path) -> Option<String> {
        logins.of(path, &ReversePath::Null).map(|chosen| chosen.login.password)
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_useless_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("smarthost");
        put_file(&path, "me old\n", 0o600);
        let logins = Logins::open(vec![path.clone()], None).unwrap();
        assert_eq!(password(&logins, &path).as_deref(), Some("old"));
        assert_eq!(password(&logins, Path::new("/other")), None);
        put_file(&path, "me new\n", 0o600);
        assert_eq!(password(&logins, &path).as_deref(), Some("new"));
        put_file(&path, "me open\n", 0o644);
        assert_eq!(password(&logins, &path).as_deref(), Some("new"));
        logins.change(Vec::new());
        assert_eq!(password(&logins, &path), None);

        let told = |paths: &[&Path]| {
            let paths = paths.iter().map(|path| path.to_path_buf()).collect();
            Logins::open(paths, None).unwrap_err().to_string()
        };
        assert!(told(&[&path]).contains("chmod 600"), "{}", told(&[&path]));
        put_file(&path, "me\n", 0o600);
        assert!(told(&[&path]).contains("name password"), "{}", told(&[&path]));
        assert!(told(&[Path::new("/nowhere")]).contains("/nowhere: can't be read"));
    }

    #[test]
    fn a_folder_has_many_and_a_bad_one_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        put_file(&path("a"), "me a\n", 0o600);
        put_file(&path("open"), "me open\n", 0o644);
        put_file(&path("rubbish"), "me\n", 0o600);
        put_file(&path("a~"), "me old\n", 0o600);
        let logins = Logins::open(vec![folder.path().to_path_buf()], None).unwrap();
        assert_eq!(password(&logins, &path("a")).as_deref(), Some("a"));
        for bad in ["open", "rubbish", "a~", "none"] {
            assert_eq!(password(&logins, &path(bad)), None, "{bad}");
        }
        put_file(&path("b"), "me b\n", 0o600);
        assert_eq!(password(&logins, &path("b")).as_deref(), Some("b"));
        std::fs::remove_file(path("a")).unwrap();
        assert_eq!(password(&logins, &path("a")), None);
    }

    #[test]
    fn what_the_keeper_hands_over_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("smarthost");
        let (giver, socket) = handover::pair().unwrap();
        let give = |text: &str| {
            put_file(&path, text, 0o600);
            giver.give(Some(&Parcel::new(&pack(std::slice::from_ref(&path)).unwrap()).unwrap())).unwrap();
        };
        give("me old");
        let logins = Logins::open(vec![path.clone()], Some(socket.into())).unwrap();
        assert_eq!(password(&logins, &path).as_deref(), Some("old"));
        give("me new");
        assert_eq!(password(&logins, &path).as_deref(), Some("new"));
        give("rubbish");
        assert_eq!(password(&logins, &path).as_deref(), Some("new"));
        giver.give(None).unwrap();
        assert_eq!(password(&logins, &path), None);
        drop(giver);
        assert_eq!(password(&logins, &path), None);
    }
}
