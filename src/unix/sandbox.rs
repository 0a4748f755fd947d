//! What a process can never do again.
//!
//! Landlock (Linux 5.13 and later, <https://docs.kernel.org/userspace-api/landlock.html>) lets a
//! process without any rights of its own keep itself to some folders. What is open already stays
//! open.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// The rights that are taken away: those that Landlock knew in this version, as far as the kernel
/// knows them.
const KNOWN: ABI = ABI::V6;
/// The first version that can allow a rename from one folder into another, which a Maildir needs.
const WITH_RENAME: u32 = 2;

/// No program that this process or its children start gets more rights than they have
/// (PR_SET_NO_NEW_PRIVS).
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain numbers, no pointers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this kernel can confine a process to folders in which it renames files.
pub fn can_confine() -> bool {
    /// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no ruleset, but gives its version as a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    version >= libc::c_long::from(WITH_RENAME)
}

/// Confines this thread, and all that it starts from now on, to the files in these folders: there it
/// may read, make, write, rename and remove files, and make and remove folders; elsewhere it may open nothing,
/// and nowhere run a program. It also gets no TCP port and sends no signal, where the kernel knows
/// how. A folder that is not there is passed over. Where the kernel does not have Landlock at all,
/// that is an error.
pub fn confine(folders: &[impl AsRef<Path>]) -> io::Result<()> {
    let failed = |error: landlock::RulesetError| io::Error::other(error.to_string());
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN)).map_err(failed)?;
    let ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN)).map_err(failed)?;
    let ruleset = ruleset.scope(Scope::from_all(KNOWN)).map_err(failed)?;
    let mut ruleset = ruleset.create().map_err(failed)?;
    for folder in folders {
        // What is mounted when it is first used must be mounted now: the rule is for what is there.
        drop(std::fs::File::open(folder));
        // Nothing can be opened below what can't be found.
        let Ok(folder) = PathFd::new(folder) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(folder, files_and_folders())).map_err(failed)?;
    }
    match ruleset.restrict_self().map_err(failed)?.ruleset {
        RulesetStatus::NotEnforced => Err(io::ErrorKind::Unsupported.into()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// All that is done with plain files: no fifos, sockets, devices or links are made.
fn files_and_folders() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// In a thread of its own, which alone is confined.
    fn confined<T: Send>(folders: &[&Path], work: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| confine(folders).is_ok().then(work));
            thread.join().unwrap()
        })
    }

    #[test]
    fn outside_of_its_folders_nothing_opens() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let gone = inside.path().join("gone");
        fs::write(outside.path().join("file"), "x").unwrap();
        let done = confined(&[inside.path(), &gone], || {
            fs::create_dir(inside.path().join("tmp")).unwrap();
            fs::create_dir(inside.path().join("new")).unwrap();
            fs::write(inside.path().join("tmp/file"), "x").unwrap();
            fs::rename(inside.path().join("tmp/file"), inside.path().join("new/file")).unwrap();
            assert_eq!(fs::read_dir(inside.path().join("new")).unwrap().count(), 1);
            fs::remove_file(inside.path().join("new/file")).unwrap();
            fs::remove_dir(inside.path().join("new")).unwrap();
            let refused = [
                fs::read(outside.path().join("file")).unwrap_err(),
                fs::write(outside.path().join("other"), "x").unwrap_err(),
                fs::read("/etc/passwd").unwrap_err(),
                std::os::unix::fs::symlink("/etc", inside.path().join("link")).unwrap_err(),
                std::process::Command::new("/bin/true").status().unwrap_err(),
            ];
            refused.map(|error| error.kind())
        });
        if can_confine() {
            assert_eq!(done, Some([io::ErrorKind::PermissionDenied; 5]));
        }
    }
}
