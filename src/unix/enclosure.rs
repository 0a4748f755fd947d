//! What this program may touch: given up once, after the start, and never to be had again.
//!
//! - No program that it starts gets more rights than it has (no_new_privs).
//! - Files: only in the folders that are named (Landlock, Linux 5.19 and later,
//!   <https://docs.kernel.org/userspace-api/landlock.html>). What is open already stays open.
//! - The kernel: without what it never asks of it ([`seccomp`]).
//!
//! All of it holds for the thread that enters and for what it starts from then on, so a program
//! enters before it has others. An older kernel can't do all; [`InForce`] says what is in force.

use std::fmt;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

use super::privilege;
use super::seccomp::{self, Power};

/// The rights that are taken away: those that Landlock knew in this version, as far as the kernel
/// knows them.
const KNOWN: ABI = ABI::V6;
/// The first version that can allow a rename from one folder into another, which spool and Maildir
/// need.
const WITH_RENAME: libc::c_long = 2;

/// Where a process goes.
#[derive(Debug, Clone)]
pub struct Enclosure {
    /// The files; none: all that its user may.
    pub files: Option<Files>,
    /// What it never asks of the kernel.
    pub without: &'static [Power],
}

/// The files that are left to a process. It runs no program, wherever it lies, and makes no fifos,
/// sockets, devices or links.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Files and folders that it may read, with all below them.
    pub read: Vec<PathBuf>,
    /// Folders in which it may also make, change, rename and remove files, and make and remove folders.
    pub write: Vec<PathBuf>,
    /// Whether it may make TCP connections, and connect to sockets that have no path.
    pub network: bool,
}

/// What the kernel sees to from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// The process keeps to its files.
    pub files: bool,
    /// It is without the powers that it gave up.
    pub calls: bool,
}

impl Enclosure {
    /// Goes in, for good. What this kernel can't do at all is no error; paths that are not there are
    /// passed over, and nothing can be opened there later.
    pub fn enter(&self) -> io::Result<InForce> {
        privilege::no_new_privileges()?;
        let files = match &self.files {
            Some(files) if knows_files() => files.keep_to().map_err(io::Error::other).map(|()| true)?,
            _ => false,
        };
        Ok(InForce { files, calls: seccomp::give_up(self.without)? })
    }
}

/// Whether this kernel can keep a process to folders in which it renames files.
pub fn knows_files() -> bool {
    version() >= WITH_RENAME
}

/// Of Landlock; negative where there is none.
fn version() -> libc::c_long {
    /// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no ruleset, but gives its version as a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) }
}

impl Files {
    fn keep_to(&self) -> Result<(), RulesetError> {
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in self.read.iter().chain(&self.write) {
            // What is mounted when it is first used must be mounted now: the rule is for what is there.
            drop(std::fs::File::open(path));
        }
        self.rules()?
            .add_rules(path_beneath_rules(&self.read, reading))?
            .add_rules(path_beneath_rules(&self.write, reading | writing()))?
            .restrict_self()
            .map(drop)
    }

    fn rules(&self) -> Result<RulesetCreated, RulesetError> {
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .scope(BitFlags::from(Scope::Signal))?;
        if self.network {
            return rules.create();
        }
        rules.handle_access(AccessNet::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?.create()
    }
}

fn writing() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// As it stands in the log.
impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InForce { files: true, calls: true } => "keeping to its own files and system calls",
            InForce { files: true, calls: false } => {
                "keeping to its own files; this kernel has no seccomp, so all system calls are left"
            }
            InForce { files: false, calls: true } => {
                "keeping to its own system calls; the files of its user are left to it"
            }
            InForce { files: false, calls: false } => "not enclosed: all that its user may is left to it",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// In a thread of its own, which alone is enclosed; nothing where the kernel can't.
    fn inside<T: Send>(files: Files, work: impl FnOnce() -> T + Send) -> Option<T> {
        let enclosure = Enclosure { files: Some(files), without: &[] };
        let work = || enclosure.enter().unwrap().files.then(work);
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn outside_of_its_folders_nothing_opens() {
        let [read, write, outside] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let (read, write, outside) = (read.path(), write.path(), outside.path());
        for folder in [read, outside] {
            fs::write(folder.join("file"), "x").unwrap();
        }
        let files = Files {
            read: vec![read.into(), read.join("missing")],
            write: vec![write.into(), write.join("missing")],
            network: false,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let done = inside(files, || {
            assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "x");
            fs::create_dir(write.join("tmp")).unwrap();
            fs::create_dir(write.join("new")).unwrap();
            fs::write(write.join("tmp/file"), "x").unwrap();
            fs::rename(write.join("tmp/file"), write.join("new/file")).unwrap();
            assert_eq!(fs::read_dir(write.join("new")).unwrap().count(), 1);
            fs::remove_file(write.join("new/file")).unwrap();
            fs::remove_dir(write.join("new")).unwrap();
            let refused = [
                fs::write(read.join("file"), "x").unwrap_err(),
                fs::read(outside.join("file")).unwrap_err(),
                fs::write(outside.join("other"), "x").unwrap_err(),
                fs::read("/etc/passwd").unwrap_err(),
                symlink("/etc", write.join("link")).unwrap_err(),
                Command::new("/bin/true").status().unwrap_err(),
            ];
            (refused.map(|error| error.kind()), TcpStream::connect(address).is_err())
        });
        if let Some((refused, unconnected)) = done {
            assert_eq!(refused, [io::ErrorKind::PermissionDenied; 6]);
            // Since version 4.
            assert_eq!(unconnected, version() >= 4);
        }
    }

    #[test]
    fn where_all_is_read_nothing_else_is_written() {
        let outside = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = Files { read: vec![Path::new("/").into()], write: Vec::new(), network: true };
        inside(files, || {
            fs::read("/etc/passwd").unwrap();
            TcpStream::connect(address).unwrap();
            assert!(fs::write(outside.path().join("file"), "x").is_err());
            assert!(Command::new("/bin/true").status().is_err());
        });
    }
}
