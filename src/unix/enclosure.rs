//! Keeping a process that reads secrets to the files it needs (Landlock, Linux 5.13 and later).

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, path_beneath_rules,
};

/// What is handled: the rights that kernels knew with this version. Later ones are left as they are.
const KNOWN: ABI = ABI::V5;

/// Where a process may go.
#[derive(Debug, Clone, Default)]
pub struct Enclosure {
    /// Files and folders that it may read, with all below them.
    pub read: Vec<PathBuf>,
    /// Folders in which it may also make, change and remove files.
    pub write: Vec<PathBuf>,
    /// Whether it may make TCP connections.
    pub network: bool,
}

impl Enclosure {
    /// From now on this thread, and all that it starts, opens nothing else and runs no program. Paths
    /// that are not there are passed over. Whether the kernel can do it at all: an older one can't.
    pub fn enter(&self) -> io::Result<bool> {
        let status = self.restrict().map_err(io::Error::other)?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    fn restrict(&self) -> Result<RestrictionStatus, landlock::RulesetError> {
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let writing =
            reading | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
        let mut rules = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
        if !self.network {
            rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
        }
        rules
            .create()?
            .add_rules(path_beneath_rules(&self.read, reading))?
            .add_rules(path_beneath_rules(&self.write, writing))?
            .restrict_self()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_else_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        let path = move |name: &str| root.join(name);
        for name in ["read", "write", "other"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("file"), name).unwrap();
        }
        let enclosure = Enclosure {
            read: vec![path("read"), path("missing")],
            write: vec![path("write")],
            network: false,
        };
        // In a thread of its own, which alone is enclosed.
        let inside = std::thread::spawn(move || {
            if !enclosure.enter().unwrap() {
                return; // a kernel without Landlock
            }
            assert_eq!(fs::read_to_string(path("read").join("file")).unwrap(), "read");
            assert!(fs::write(path("read").join("file"), "x").is_err());
            fs::write(path("write").join("new"), "x").unwrap();
            fs::rename(path("write").join("new"), path("write").join("file")).unwrap();
            assert!(fs::read(path("other").join("file")).is_err());
        });
        inside.join().unwrap();
    }
}
