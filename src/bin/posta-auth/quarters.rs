//! What posta-auth may open, and what it can't do any more.

use std::io;
use std::path::{Path, PathBuf};

use log::{info, warn};

use posta::unix::capabilities::{self, Capability};
use posta::unix::enclosure::Enclosure;
use posta::unix::{privilege, sandbox};

use posta::config::Config;

/// Folders that the C library and the name service switch read, with their libraries and their caches.
const SYSTEM: [&str; 7] = ["/etc", "/usr", "/lib", "/lib64", "/run", "/var/lib/sss", "/dev"];

/// Where it lives from now on.
#[derive(Debug)]
pub struct Quarters {
    /// None: it may read all that its user may.
    readable: Option<Vec<PathBuf>>,
}

/// Gives up all that is not needed, for good. `network`: the name service may be a network away.
pub fn move_in(config: &Config, users_files: &[PathBuf], network: bool) -> io::Result<Quarters> {
    sandbox::no_new_privileges()?;
    if config.auth.pam.is_some() {
        warn!("auth.pam is set: PAM's modules may open and do what root may, and so may this program");
        return Ok(Quarters { readable: None });
    }
    if privilege::is_root() && config.drop_privileges {
        capabilities::keep_only(&[Capability::ReadAnyFile])?;
    }
    // Made now: a folder that is not there can't be allowed.
    std::fs::create_dir_all(&config.run)?;
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    read.extend(config.file.iter().chain(users_files).flat_map(|file| folders_of(file)));
    let enclosure = Enclosure { read: read.clone(), write: vec![config.run.clone()], network };
    if enclosure.enter()? {
        Ok(Quarters { readable: Some(read) })
    } else {
        info!("this kernel has no Landlock: this program could open any file that its user may");
        Ok(Quarters { readable: None })
    }
}

/// The folder in which a file lies, and the one in which it really does: a file that is replaced is
/// another file, so its folder has to be allowed.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(file).ok();
    let files = [Some(file.to_path_buf()), real];
    files.iter().flatten().filter_map(|file| file.parent()).map(Path::to_path_buf).collect()
}

impl Quarters {
    /// The first of these files that lies outside.
    pub fn outside<'f>(&self, files: &'f [PathBuf]) -> Option<&'f PathBuf> {
        let readable = self.readable.as_ref()?;
        let is_inside = |file: &&PathBuf| readable.iter().any(|folder| file.starts_with(folder));
        files.iter().find(|file| !is_inside(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outside_are_told() {
        let quarters = Quarters { readable: Some(vec!["/etc".into(), "/srv/mail".into()]) };
        let files = ["/etc/posta/users", "/srv/mail/users", "/srv/mailbox/users"].map(PathBuf::from);
        assert_eq!(quarters.outside(&files), Some(&files[2]));
        assert_eq!(quarters.outside(&files[..2]), None);
        assert_eq!(Quarters { readable: None }.outside(&files), None);
    }
}
