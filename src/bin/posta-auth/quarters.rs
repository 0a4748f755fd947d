//! What posta-auth may open, and what it can't do any more.

use std::io;
use std::path::{Path, PathBuf};

use log::{info, warn};

use posta::unix::capabilities::{self, Capability};
use posta::unix::enclosure::{Enclosure, Files};
use posta::unix::privilege;
use posta::unix::seccomp::Power;

use posta::config::Config;

/// Folders that the C library and the name service switch read, with their libraries and their caches.
const SYSTEM: [&str; 7] = ["/etc", "/usr", "/lib", "/lib64", "/run", "/var/lib/sss", "/dev"];

/// What the configuration asks for.
#[derive(Debug)]
pub struct Needs {
    /// Files with users in them.
    pub users_files: Vec<PathBuf>,
    /// The accounts of this host may be a network away.
    pub network: bool,
    /// PAM's modules may need anything.
    pub pam: bool,
}

/// Where it lives from now on.
#[derive(Debug)]
pub enum Quarters {
    /// It may do all that its user may.
    Open,
    /// It has given up root's powers, where it had them.
    Closed {
        /// What it may read; none: all that its user may.
        readable: Option<Vec<PathBuf>>,
        network: bool,
    },
}

/// Gives up all that is not needed, for good.
pub fn move_in(config: &Config, needs: &Needs) -> io::Result<Quarters> {
    if needs.pam {
        Enclosure { files: None, without: &[Power::Machine] }.enter()?;
        warn!("auth.pam is set: PAM's modules may open and do what root may, and so may this program");
        return Ok(Quarters::Open);
    }
    if privilege::is_root() && config.drop_privileges {
        capabilities::keep_only(&[Capability::ReadAnyFile])?;
    }
    // Made now: a folder that is not there can't be allowed.
    std::fs::create_dir_all(&config.run)?;
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    read.extend(config.file.iter().chain(&needs.users_files).flat_map(|file| folders_of(file)));
    let network = needs.network;
    let files = Files { read: read.clone(), write: vec![config.run.clone()], network };
    let in_force = Enclosure { files: Some(files), without: Power::ALL }.enter()?;
    info!("{in_force}");
    Ok(Quarters::Closed { readable: in_force.files.then_some(read), network: network || !in_force.files })
}

/// The folder in which a file lies, and the one in which it really does: a file that is replaced is
/// another file, so its folder has to be allowed.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = std::fs::canonicalize(file).ok();
    let files = [Some(file.to_path_buf()), real];
    files.iter().flatten().filter_map(|file| file.parent()).map(Path::to_path_buf).collect()
}

impl Quarters {
    /// What of these needs can't be had in here.
    pub fn lack(&self, needs: &Needs) -> Option<String> {
        let Quarters::Closed { readable, network } = self else { return None };
        if needs.pam {
            return Some("auth.pam wants the powers of root".to_string());
        }
        if needs.network && !network {
            return Some("accounts of this host may be a network away".to_string());
        }
        let readable = readable.as_ref()?;
        let is_inside = |file: &&PathBuf| readable.iter().any(|folder| file.starts_with(folder));
        let outside = needs.users_files.iter().find(|file| !is_inside(file))?;
        Some(format!("{} lies in a folder that was not named at the start", outside.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_told() {
        let readable = Some(vec!["/etc".into(), "/srv/mail".into()]);
        let quarters = Quarters::Closed { readable, network: false };
        let needs = |files: &[&str], network, pam| {
            let users_files = files.iter().map(PathBuf::from).collect();
            Needs { users_files, network, pam }
        };
        assert_eq!(quarters.lack(&needs(&["/etc/posta/users", "/srv/mail/users"], false, false)), None);
        let lack = quarters.lack(&needs(&["/etc/posta/users", "/srv/mailbox/users"], false, false));
        assert!(lack.unwrap().contains("/srv/mailbox/users"));
        assert!(quarters.lack(&needs(&[], true, false)).unwrap().contains("network"));
        assert!(quarters.lack(&needs(&[], false, true)).unwrap().contains("auth.pam"));
        assert_eq!(Quarters::Open.lack(&needs(&["/x"], true, true)), None);
    }
}
