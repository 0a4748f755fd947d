//! The folder `run/`, the lock that makes one keeper its only owner, and whose programs live there.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use log::{info, warn};
use thiserror::Error;

use posta::unix::child::Rights;
use posta::unix::{privilege, sysexits, users};

use posta::config::Config;
use posta::logbook::sessions;

use posta::spool::{self, Spool};

/// Why the house can't be entered.
#[derive(Debug, Error)]
pub enum HouseError {
    /// The folder or its lock can't be made.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Another keeper is at work here.
    #[error("{path}: another posta (process {pid}) keeps this folder; stop it first, or set another \"run\"")]
    Kept { path: PathBuf, pid: String },
}

impl HouseError {
    pub fn exit_code(&self) -> u8 {
        match self {
            HouseError::Io { .. } => sysexits::CANTCREAT,
            HouseError::Kept { .. } => sysexits::UNAVAILABLE,
        }
    }
}

/// `run/`, ours as long as this value lives.
#[derive(Debug)]
pub struct House {
    run: PathBuf,
    /// `run/posta.pid`; the lock on it is what counts, the number in it is for people.
    _lock: File,
    had_predecessor: bool,
}

impl House {
    /// Makes the folder if it is missing and takes the lock.
    pub fn enter(run: &Path) -> Result<House, HouseError> {
        let pid_file = run.join("posta.pid");
        let fault = |source| HouseError::Io { path: pid_file.clone(), source };
        std::fs::create_dir_all(run).map_err(|source| HouseError::Io { path: run.to_path_buf(), source })?;
        loop {
            let options = File::options().read(true).write(true).create(true).truncate(false).to_owned();
            let mut lock = options.open(&pid_file).map_err(fault)?;
            let mut before = String::new();
            lock.read_to_string(&mut before).map_err(fault)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(HouseError::Kept { path: pid_file, pid: before.trim().to_string() });
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(fault(error)),
            }
            // A keeper that has just ended removed the file after we opened it: the lock is on nothing.
            let ours = lock.metadata().map_err(fault)?.ino();
            if std::fs::metadata(&pid_file).is_ok_and(|there| there.ino() == ours) {
                write_pid(&mut lock).map_err(fault)?;
                let had_predecessor = !before.is_empty();
                return Ok(House { run: run.to_path_buf(), _lock: lock, had_predecessor });
            }
        }
    }

    /// Whether a keeper was here that did not leave in order, so that its children may still be
    /// finishing their work.
    pub fn has_predecessor(&self) -> bool {
        self.had_predecessor
    }
}

impl Drop for House {
    /// Leaves in order: the file goes while the lock is still held.
    fn drop(&mut self) {
        let pid_file = self.run.join("posta.pid");
        if let Err(error) = std::fs::remove_file(&pid_file) {
            warn!("{}: {error}", pid_file.display());
        }
    }
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    use std::io::Seek;
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// With whose rights the programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// All as the caller.
    Caller,
    /// Each as its own user.
    Own {
        /// posta-smtpd
        smtpd: Rights,
        /// posta-queue
        queue: Rights,
        /// posta-remote
        remote: Rights,
        /// The group of posta-drop.
        drop_group: u32,
    },
}

impl Owners {
    /// Looks the users up that the configuration names; says which is missing and what to do.
    pub fn find(config: &Config) -> Result<Owners, String> {
        let caller = users::current().1;
        if !privilege::is_root() {
            warn!("not started as root: every program runs as user {caller}");
            return Ok(Owners::Caller);
        }
        if !config.drop_privileges {
            warn!("drop_privileges is off: every program runs as root; for tests and containers only");
            return Ok(Owners::Caller);
        }
        let smtpd = account("user", &config.user)?;
        let mut queue = account("queue_user", &config.queue_user)?;
        let remote = account("remote_user", &config.remote_user)?;
        let drop_group = users::group_id(&config.drop_group)
            .map_err(|error| format!("group \"{}\": {error}", config.drop_group))?
            .ok_or_else(|| {
                let group = &config.drop_group;
                format!("drop_group = \"{group}\": no such group; make it with \"groupadd -r {group}\"")
            })?;
        // The runner reads what posta-smtpd and posta-drop write; it needs no entry in /etc/group for it.
        for gid in [smtpd.gid, drop_group] {
            if !queue.groups.contains(&gid) {
                queue.groups.push(gid);
            }
        }
        Ok(Owners::Own { smtpd, queue, remote, drop_group })
    }
}

/// Makes the folders in `run/` that posta-smtpd writes to: started as its own user, it may not make them
/// there. Without them it serves mail all the same, so a fault is only logged.
pub fn furnish(run: &Path, owners: &Owners) {
    let owner = match owners {
        Owners::Caller => None,
        Owners::Own { smtpd, .. } => Some((smtpd.uid, smtpd.gid)),
    };
    for (name, mode) in [("counters", 0o755), ("sessions", 0o750)] {
        let folder = run.join(name);
        let made = sessions::make(&folder, owner)
            .and_then(|()| std::fs::set_permissions(&folder, Permissions::from_mode(mode)));
        if let Err(error) = made {
            warn!("{}: {error}; posta-smtpd keeps no {name}", folder.display());
        }
    }
}

/// Fills a spool that is empty, as a package or an administrator makes it. One that lacks some of
/// its folders has lost them, which somebody should look at; the programs say what is missing.
pub fn fill_spool(spool: &Path, owners: &Owners) -> Result<(), String> {
    let fault = |error: &dyn std::fmt::Display| format!("spool: {}: {error}", spool.display());
    let mut entries = std::fs::read_dir(spool)
        .map_err(|error| format!("{}; \"postactl set-permissions\" makes it", fault(&error)))?;
    // ext4 puts its own folder into a file system's root.
    if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lost+found")) {
        return Ok(());
    }
    let owners = match owners {
        Owners::Caller => None,
        Owners::Own { smtpd, queue, drop_group, .. } => Some(spool::Owners {
            queue: queue.uid,
            queue_group: queue.gid,
            posta_group: smtpd.gid,
            drop_group: *drop_group,
        }),
    };
    info!("{}: made the folders of an empty spool", spool.display());
    Spool::make(spool, owners).map_err(|error| fault(&error))
}

fn account(setting: &str, name: &str) -> Result<Rights, String> {
    let fault = |error: io::Error| format!("{setting} = \"{name}\": {error}");
    let account = users::by_name(name).map_err(fault)?.ok_or_else(|| {
        format!(
            "{setting} = \"{name}\": no such user; make it with \"useradd -r -U -s /usr/sbin/nologin {name}\", \
             or set drop_privileges = false"
        )
    })?;
    if account.uid == 0 {
        return Err(format!("{setting} = \"{name}\": that is root, which is what it must not be"));
    }
    let groups = users::groups(&account).map_err(fault)?;
    Ok(Rights { uid: account.uid, gid: account.gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_keeper_at_a_time_and_the_next_one_knows_how_the_last_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("a/run");
        let house = House::enter(&run).unwrap();
        assert!(!house.has_predecessor());
        let told = House::enter(&run).unwrap_err();
        assert!(told.to_string().contains(&std::process::id().to_string()), "{told}");
        assert_eq!(told.exit_code(), sysexits::UNAVAILABLE);
        drop(house);
        assert!(!run.join("posta.pid").exists());
        std::fs::write(run.join("posta.pid"), "4711\n").unwrap();
        assert!(House::enter(&run).unwrap().has_predecessor());
    }

    #[test]
    fn only_an_empty_spool_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool");
        assert!(fill_spool(&spool, &Owners::Caller).unwrap_err().contains("set-permissions"));
        std::fs::create_dir(&spool).unwrap();
        fill_spool(&spool, &Owners::Caller).unwrap();
        std::fs::remove_dir(spool.join("new")).unwrap();
        fill_spool(&spool, &Owners::Caller).unwrap();
        assert!(spool.join("drop").is_dir() && !spool.join("new").exists());
    }
}
