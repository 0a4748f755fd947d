//! Where certificates and keys lie, what is in those files, and whether they have changed.
//!
//! Here nothing is parsed: the keeper, which is root, reads the files and hands them on unseen.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tls_server::CertificateFault;

/// Longest file of a certificate, a key, or authorities. The bundle of all that the Web trusts is
/// shorter.
const LONGEST: u64 = 1024 * 1024;

/// The settings of `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// A file with the certificate and its chain, or a folder with NAME/cert.pem and NAME/key.pem.
    pub certificate: PathBuf,
    /// The file with its key; `None`: it is in the certificate's file.
    pub key: Option<PathBuf>,
    /// The authorities that sign clients' certificates; `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// This host's name: whose certificate is shown to a client that names none.
    pub hostname: String,
}

/// One certificate with its key, as they are in the files.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name of its folder; empty for the only one.
    pub name: String,
    /// Where the certificate was read, for messages.
    pub certificate_file: PathBuf,
    /// Where the key was read.
    pub key_file: PathBuf,
    /// PEM: the certificate and its chain.
    pub certificate: Vec<u8>,
    /// PEM: the key.
    pub key: Vec<u8>,
}

/// The content of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// At least one; in the order of their names.
    pub pairs: Vec<Pair>,
    /// PEM: the authorities that sign clients' certificates, and where they were read.
    pub client_ca: Option<(PathBuf, Vec<u8>)>,
}

/// Tells one state of the files from another, without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<[i64; 5]>)>);

impl Stamp {
    /// Of these files as they are now.
    pub fn of(paths: Vec<PathBuf>) -> Stamp {
        let state = |path: PathBuf| {
            let about = fs::metadata(&path).ok().map(|about| state_of(&about));
            (path, about)
        };
        Stamp(paths.into_iter().map(state).collect())
    }
}

impl std::fmt::Debug for Pair {
    /// The key is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("name", &self.name).field("file", &self.certificate_file).finish()
    }
}

impl TlsFiles {
    /// Reads all of them.
    pub fn read(&self) -> Result<Material, CertificateFault> {
        let mut pairs = Vec::new();
        for (name, certificate_file, key_file) in self.places()? {
            let certificate = read(&certificate_file)?;
            let key = if key_file == certificate_file { certificate.clone() } else { read(&key_file)? };
            pairs.push(Pair { name, certificate_file, key_file, certificate, key });
        }
        let client_ca = match &self.client_ca {
            Some(path) => Some((path.clone(), read(path)?)),
            None => None,
        };
        Ok(Material { pairs, client_ca })
    }

    /// The state of the files now: owner, inode, size and time of each. A file that can't be looked
    /// at has a state too.
    pub fn stamp(&self) -> Stamp {
        let mut paths = vec![self.certificate.clone()];
        for (_, certificate, key) in self.places().unwrap_or_default() {
            paths.extend([certificate, key]);
        }
        paths.extend(self.client_ca.clone());
        Stamp::of(paths)
    }

    /// Each certificate's name, its file and its key's.
    fn places(&self) -> Result<Vec<(String, PathBuf, PathBuf)>, CertificateFault> {
        let unreadable = |source| CertificateFault::unreadable(&self.certificate, source);
        if !fs::metadata(&self.certificate).map_err(unreadable)?.is_dir() {
            let key = self.key.as_ref().unwrap_or(&self.certificate);
            return Ok(vec![(String::new(), self.certificate.clone(), key.clone())]);
        }
        let mut places = Vec::new();
        for entry in fs::read_dir(&self.certificate).map_err(unreadable)? {
            let folder = entry.map_err(unreadable)?.path();
            let name = folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            // "lost+found", ".git", and what certbot keeps beside its folders: a README.
            if folder.is_dir() && !name.starts_with('.') && name != "lost+found" {
                places.push((name, folder.join("cert.pem"), folder.join("key.pem")));
            }
        }
        if places.is_empty() {
            return Err(CertificateFault::Empty(self.certificate.clone()));
        }
        places.sort();
        Ok(places)
    }
}

fn state_of(about: &Metadata) -> [i64; 5] {
    [about.dev() as i64, about.ino() as i64, about.size() as i64, about.mtime(), about.mtime_nsec()]
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateFault> {
    let whole = || {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 1 MiB"));
        }
        Ok(bytes)
    };
    whole().map_err(|source| CertificateFault::unreadable(path, source))
}
