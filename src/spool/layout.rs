//! The folders, and the states of a message.
//!
//! | state | unnamed | new | cur | journal | meaning | after a crash |
//! |---|---|---|---|---|---|---|
//! | S1 | + | | | | being received; nothing promised | gone by itself |
//! | S2a | | + | | | linked, not yet synced: not promised | if sound, delivered; if not, to `corrupt/` with an info line |
//! | S2b | | + | | | synced: 250 may be said | routed (again) |
//! | S3 | | + | | + | being put aside | the journal is honoured, the rename done |
//! | S4 | | | + | + | some results known | goes on; a torn last line is dropped; an empty journal means routed again |
//! | S5 | | | | + | finished | journal swept |
//!
//! From S1 to S2a by one link (or rename, where there is no O_TMPFILE: then S1 is `new/.tmp.ID`, swept
//! after a day), to S2b by a sync. A message that is done at the first attempt is unlinked from
//! `new/`. To S3 by making the journal, to S4 by a rename, to S5 by unlinking `cur/ID`; the journal
//! goes last. A message on hold is S4 with `hold/` for `cur/`.
//!
//! ```text
//! spool/           0755 postaq
//!   new/           1770 postaq:posta      ID
//!   cradle/        1770 postaq:posta      00 to 3f, always empty: where drafts are made (`cradle.rs`)
//!   drop/          1730 postaq:postadrop  ID, handed in by posta-drop
//!   cur/           0700 postaq            XX/ID
//!   journal/       0700 postaq            XX/ID
//!   hold/          0700 postaq            ID
//!   corrupt/       0700 postaq            ID, ID.journal
//!   history/       0700 postaq            what became of messages that are gone (`logbook/history.rs`)
//!   key            0640 postaq:posta      keys of signed senders (`route/signature.rs`)
//!   paused         destinations that the administrator has paused, one a line
//!   lock           held by the one posta-queue
//!   trigger        0622, a fifo for hints: "ID\n" in new/, "+ID\n" in drop/
//! ```
//!
//! On a file system without a journal a message stays in `new/` when it is put aside: of a rename the end
//! of the old name may reach the disk before the new one does, and a power cut then leaves neither. There
//! S4 is what is in `new/` and has a journal, and S3 is the same.
//!
//! XX is a hash of the id, so that no folder grows too long to be scanned; these folders are made
//! when they are needed. Files are 0640; whoever opens a spool has set a umask that allows it (027).

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, LazyLock, Mutex, RwLock};

use crate::mail::id::{Id, Mint};
use crate::unix::durable::{Durable, Folder};
use crate::unix::fifo;

use super::SpoolError;
use super::cradle::{CRADLE, Cradle};

/// Rights of a queue file: posta-queue reads it by its group.
pub(super) const FILE_MODE: u32 = 0o640;
/// Rights of the folders that only posta-queue enters.
const OWN_FOLDER_MODE: u32 = 0o700;
/// Anybody who may enter `spool/` may hint; nobody but posta-queue listens.
const TRIGGER_MODE: u32 = 0o622;

/// The top folders: name, mode, and whose group it is.
const TOP_FOLDERS: [(&str, u32, Group); 6] = [
    (NEW, 0o1770, Group::Posta),
    (DROP, 0o1730, Group::Drop),
    ("cur", OWN_FOLDER_MODE, Group::Queue),
    ("journal", OWN_FOLDER_MODE, Group::Queue),
    ("hold", OWN_FOLDER_MODE, Group::Queue),
    ("corrupt", OWN_FOLDER_MODE, Group::Queue),
];
const NEW: &str = "new";
const DROP: &str = "drop";
const TRIGGER: &str = "trigger";
const LOCK: &str = "lock";
/// What a file is called until it is whole, where there is no O_TMPFILE.
pub(super) const TEMPORARY: &str = ".tmp.";

#[derive(Debug, Clone, Copy)]
enum Group {
    Posta,
    Drop,
    Queue,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Posta => "posta",
            Group::Drop => "postadrop",
            Group::Queue => "postaq",
        }
    }
}

/// User and group ids that a spool is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    /// User id of posta-queue (`postaq`).
    pub queue: u32,
    /// Its primary group.
    pub queue_group: u32,
    /// Group of posta-smtpd (`posta`).
    pub posta_group: u32,
    /// Group that posta-drop is setgid to (`postadrop`).
    pub drop_group: u32,
}

/// Where a queue file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// `new/`: nothing is known but what its sender said.
    New,
    /// `cur/`: there is a journal.
    Cur,
    /// `hold/`: as `cur/`, and not to be tried until released.
    Hold,
}

/// The folders, opened. posta-smtpd opens only `new/`, posta-drop only `drop/`; posta-queue all.
#[derive(Debug)]
pub struct Spool {
    pub(super) path: PathBuf,
    pub(super) disk: Arc<dyn Durable>,
    /// Where drafts get their names: `new/` or `drop/`.
    pub(super) entrance: Folder,
    /// Where they are made.
    pub(super) cradle: Cradle,
    /// What is dropped is not new yet: the runner validates it first.
    pub(super) is_drop: bool,
    pub(super) lacks_unnamed: AtomicBool,
    /// What is put aside stays in `new/`: a rename could lose it.
    pub(super) stays_in_new: bool,
    /// How many syncs of new mail have failed: a draft that was begun before such a one ended must
    /// not be acknowledged, since a kernel reports the loss of a page only once.
    pub(super) failed_syncs: AtomicU64,
    rooms: Option<Rooms>,
}

/// What only posta-queue opens.
#[derive(Debug)]
pub(super) struct Rooms {
    pub cur: Folder,
    pub journal: Folder,
    pub hold: Folder,
    pub corrupt: Folder,
    pub drop: Folder,
    /// Read-locked while a message goes from one place to another, so that a scan that finds it in
    /// neither does not take it for finished.
    pub moving: RwLock<()>,
    /// Files of `drop/` that were imported and could not be removed.
    pub undead: Mutex<HashSet<Id>>,
    /// Held as long as the spool is.
    _lock: File,
}

/// One for each process: its ids never meet, whatever is opened.
static MINT: LazyLock<Mint> = LazyLock::new(|| Mint::new(RandomState::new().hash_one(std::process::id())));

impl Spool {
    /// For who writes new mail. A missing folder is an error that says how to make it.
    pub fn for_writing(path: &Path, disk: Arc<dyn Durable>) -> Result<Spool, SpoolError> {
        missing(path, &[NEW])?;
        let entrance = opened(&path.join(NEW), Folder::open)?;
        Ok(Spool::with(path, disk, entrance, None))
    }

    /// For posta-drop, which may write to `drop/` and search it, but not list it.
    pub fn for_dropping(path: &Path, disk: Arc<dyn Durable>) -> Result<Spool, SpoolError> {
        missing(path, &[DROP])?;
        let entrance = opened(&path.join(DROP), Folder::reach)?;
        let spool = Spool::with(path, disk, entrance, None);
        Ok(Spool { is_drop: true, cradle: Cradle::default(), ..spool })
    }

    /// For posta-queue: checks the top folders, takes the lock, makes the trigger.
    pub fn for_running(path: &Path, disk: Arc<dyn Durable>) -> Result<Spool, SpoolError> {
        missing(path, &TOP_FOLDERS.map(|f| f.0))?;
        let open = |name: &str| opened(&path.join(name), Folder::open);
        let rooms = Rooms {
            cur: open("cur")?,
            journal: open("journal")?,
            hold: open("hold")?,
            corrupt: open("corrupt")?,
            drop: open(DROP)?,
            moving: RwLock::new(()),
            undead: Mutex::default(),
            _lock: lock(&path.join(LOCK))?,
        };
        let entrance = open(NEW)?;
        rooms.on_one_device(&entrance)?;
        make_trigger(&path.join(TRIGGER))?;
        let stays_in_new = !disk.keeps_renamed(&entrance);
        Ok(Spool { stays_in_new, ..Spool::with(path, disk, entrance, Some(rooms)) })
    }

    fn with(path: &Path, disk: Arc<dyn Durable>, entrance: Folder, rooms: Option<Rooms>) -> Spool {
        Spool {
            path: path.to_path_buf(),
            disk,
            cradle: Cradle::open(path, &entrance),
            entrance,
            is_drop: false,
            lacks_unnamed: AtomicBool::new(false),
            stays_in_new: false,
            failed_syncs: AtomicU64::new(0),
            rooms,
        }
    }

    /// Makes a whole spool, or sets the rights of one that is there. Without `owners` it belongs to
    /// the caller.
    pub fn make(path: &Path, owners: Option<Owners>) -> Result<(), SpoolError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(|e| SpoolError::io(path, e))?;
        let queue = owners.map(|o| (o.queue, o.queue_group));
        set_rights(path, 0o755, queue).map_err(|e| SpoolError::io(path, e))?;
        for (name, mode, group) in TOP_FOLDERS {
            let folder = path.join(name);
            let owner = owners.map(|o| match group {
                Group::Posta => (o.queue, o.posta_group),
                Group::Drop => (o.queue, o.drop_group),
                Group::Queue => (o.queue, o.queue_group),
            });
            match DirBuilder::new().mode(OWN_FOLDER_MODE).create(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => set_rights(&folder, mode, owner),
            }
            .map_err(|e| SpoolError::io(&folder, e))?;
        }
        let owner = owners.map(|o| (o.queue, o.posta_group));
        Cradle::make(path, owner).map_err(|e| SpoolError::io(path.join(CRADLE), e))
    }

    /// The folder that everything is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The fifo that hints go through: `ID\n` for a message in `new/`, `+ID\n` for one in `drop/`.
    pub fn trigger(&self) -> PathBuf {
        self.path.join(TRIGGER)
    }

    /// What a hint at a message begins with.
    pub(super) fn hint_prefix(&self) -> &'static str {
        if self.is_drop { "+" } else { "" }
    }

    /// The next id; `now` in microseconds since 1970.
    pub(super) fn mint(now: u64) -> Id {
        MINT.next(now)
    }

    /// What only posta-queue has opened.
    pub(super) fn rooms(&self) -> Result<&Rooms, SpoolError> {
        let closed = || SpoolError::Missing(format!("{}: opened for writing only", self.path.display()));
        self.rooms.as_ref().ok_or_else(closed)
    }

    /// The folder of a place, and a message's name in it.
    pub(super) fn lies(&self, id: Id, place: Place) -> Result<(&Folder, String), SpoolError> {
        Ok(match place {
            Place::New => (&self.entrance, id.to_string()),
            Place::Cur if self.stays_in_new => (&self.entrance, id.to_string()),
            Place::Cur => (&self.rooms()?.cur, split(id)),
            Place::Hold => (&self.rooms()?.hold, id.to_string()),
        })
    }

    /// Runs `change`, which puts `name` into `folder`; where the folder in the folder that `name` leads
    /// through is not there yet, makes it and tries again.
    pub(super) fn put<T>(
        &self,
        folder: &Folder,
        name: &str,
        change: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        let missing = match (change(), name.split_once('/')) {
            (Err(error), Some((inner, _))) if error.kind() == io::ErrorKind::NotFound => inner,
            (done, _) => return done,
        };
        match self.disk.make_folder(folder, missing, OWN_FOLDER_MODE) {
            // At most 256 times in the life of a spool: then no later sync has to think of it. It goes
            // first: without a journal its name could else lead to what was there before it.
            Ok(()) => {
                self.disk.sync_folder(&folder.inner(missing)?)?;
                self.disk.sync_folder(folder)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        change()
    }
}

impl Rooms {
    /// Renames lead from one to the other.
    fn on_one_device(&self, new: &Folder) -> Result<(), SpoolError> {
        let device = |f: &Folder| f.device().map_err(|e| SpoolError::io(f.path(), e));
        let first = device(new)?;
        for folder in [&self.cur, &self.hold, &self.corrupt] {
            if device(folder)? != first {
                let apart = "not on the file system of new/: put the whole spool on one".to_string();
                return Err(SpoolError::io(folder.path(), io::Error::other(apart)));
            }
        }
        Ok(())
    }
}

/// The name of a message in `cur/` and `journal/`: `XX/ID`.
pub(super) fn split(id: Id) -> String {
    format!("{:02x}/{id}", crc32c::crc32c(id.as_str().as_bytes()) & 0xff)
}

/// An error that names every folder that is not there, and how to make it.
fn missing(path: &Path, names: &[&str]) -> Result<(), SpoolError> {
    let absent = |(name, ..): &&(&str, u32, Group)| names.contains(name) && !path.join(name).is_dir();
    let absent: Vec<_> = TOP_FOLDERS.iter().filter(absent).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let top = (!path.is_dir()).then(|| ("postaq", 0o755, path.to_path_buf()));
    let below = absent.iter().map(|(name, mode, group)| (group.name(), *mode, path.join(name)));
    let command = |(group, mode, path): (&str, u32, PathBuf)| {
        format!("install -d -o postaq -g {group} -m {mode:o} {}", path.display())
    };
    let fix: Vec<String> = top.into_iter().chain(below).map(command).collect();
    let names: Vec<&str> = absent.iter().map(|f| f.0).collect();
    let (path, names, fix) = (path.display(), names.join(", "), fix.join(" && "));
    Err(SpoolError::Missing(format!("{path}: missing: {names}; to make it: {fix}")))
}

fn opened(path: &Path, open: fn(&Path) -> io::Result<Folder>) -> Result<Folder, SpoolError> {
    open(path).map_err(|e| SpoolError::io(path, e))
}

/// Through a descriptor: a link that postaq has put in the place of a folder is not followed.
fn set_rights(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let parent = Folder::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let folder = File::from(parent.inner(name)?.into_fd());
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&folder, Some(user), Some(group))?;
    }
    folder.set_permissions(PermissionsExt::from_mode(mode))
}

/// Takes the lock, and writes our process id into it for who comes too late.
fn lock(path: &Path) -> Result<File, SpoolError> {
    let failed = |e| SpoolError::io(path, e);
    let options = OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
    let mut file = options.open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(20).read_to_string(&mut holder).map_err(failed)?;
            let holder = format!("process {}", holder.trim());
            return Err(SpoolError::Locked { path: path.display().to_string(), holder });
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// Makes the fifo; its mode is set apart, since the umask has no say in it.
fn make_trigger(path: &Path) -> Result<(), SpoolError> {
    let failed = |e| SpoolError::io(path, e);
    fifo::make(path, TRIGGER_MODE).map_err(failed)?;
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.file_type().is_fifo() {
        return Err(failed(io::Error::other("is in the way of the trigger; remove it")));
    }
    if found.permissions().mode() & 0o7777 == TRIGGER_MODE {
        return Ok(());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(TRIGGER_MODE)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unix::durable::Disk;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        Spool::make(&path, None).unwrap();
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_spool_is_made_with_its_rights_and_can_be_made_again() {
        let (_folder, path) = made();
        std::fs::set_permissions(path.join("cur"), PermissionsExt::from_mode(0o755)).unwrap();
        Spool::make(&path, None).unwrap();
        for (name, right, _) in TOP_FOLDERS {
            assert_eq!(mode(&path.join(name)), right, "{name}");
        }
        let _spool = Spool::for_running(&path, Arc::new(Disk)).unwrap();
        assert_eq!(mode(&path.join("trigger")), 0o622);
    }

    #[test]
    fn rights_are_not_set_through_a_link() {
        let (_folder, path) = made();
        let stranger = path.join("stranger");
        std::fs::create_dir(&stranger).unwrap();
        std::fs::remove_dir(path.join("cur")).unwrap();
        std::os::unix::fs::symlink(&stranger, path.join("cur")).unwrap();
        assert!(Spool::make(&path, None).is_err());
        assert_ne!(mode(&stranger), 0o700);
    }

    #[test]
    fn a_missing_folder_is_named_with_its_fix() {
        let (_folder, path) = made();
        std::fs::remove_dir(path.join("new")).unwrap();
        std::fs::remove_dir(path.join("hold")).unwrap();
        let error = Spool::for_running(&path, Arc::new(Disk)).unwrap_err().to_string();
        let fix = format!("install -d -o postaq -g posta -m 1770 {}/new", path.display());
        assert!(error.contains(&fix) && error.contains("-m 700") && error.contains("/hold"), "{error}");
        let error = Spool::for_writing(&path, Arc::new(Disk)).unwrap_err().to_string();
        assert!(error.contains(&fix) && !error.contains("/hold"), "{error}");
        assert!(Spool::for_dropping(&path, Arc::new(Disk)).is_ok());
    }

    #[test]
    fn there_is_one_runner_at_a_time() {
        let (_folder, path) = made();
        let first = Spool::for_running(&path, Arc::new(Disk)).unwrap();
        let error = Spool::for_running(&path, Arc::new(Disk)).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Spool::for_running(&path, Arc::new(Disk)).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_trigger_is_an_error() {
        let (_folder, path) = made();
        std::fs::write(path.join("trigger"), b"").unwrap();
        assert!(Spool::for_running(&path, Arc::new(Disk)).unwrap_err().to_string().contains("trigger"));
    }

    #[test]
    fn ids_are_spread_over_the_folders() {
        let names: std::collections::HashSet<String> =
            (0..10_000).map(|n| split(Spool::mint(n))[..2].to_string()).collect();
        assert_eq!(names.len(), 256);
    }
}
