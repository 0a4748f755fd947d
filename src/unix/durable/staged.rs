//! A disk for tests: the true one, which fails or stops at a call that the test names, and whose
//! power can be cut.
//!
//! The model is harsher than any file system in use: after a power cut, bytes are sure to be there
//! only if their file was synced, names only if their folder was. What else is there is the test's
//! choice: the first few of the other names (a journaling file system keeps their order), and a part
//! of the other bytes ([`Lost`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Disk, Durable, Folder};

/// What happens at the call that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and fails with this errno.
    Fail(i32),
    /// If it writes, half of the bytes are written before it fails with this errno.
    Short(i32),
    /// It does nothing, nor does any later call: as if the process had died.
    Stop,
    /// It does nothing and says that all is well; no later call does anything: the file system has been
    /// shut down in the midst of it. Only for a sync.
    Lie,
}

/// What a power cut takes of the bytes of a file that no sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// All of them: the file is shorter.
    All,
    /// The second half of them: a torn write.
    End,
    /// The first half of them, which are zeros: blocks reach the disk in any order.
    Start,
}

impl Lost {
    fn take(self, file: &File, synced: u64) -> io::Result<()> {
        let unsynced = file.metadata()?.len().saturating_sub(synced);
        match self {
            Lost::All => file.set_len(synced),
            Lost::End => file.set_len(synced + unsynced / 2),
            Lost::Start => {
                // Opened anew: a file opened to append would do so here too.
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                let zeros = vec![0; (unsynced / 2) as usize];
                File::options().write(true).open(path)?.write_all_at(&zeros, synced)
            }
        }
    }
}

/// The staged disk.
#[derive(Debug)]
pub struct Staged {
    attic: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    plan: Option<(u64, Fault)>,
    stopped: bool,
    no_unnamed: bool,
    no_journal: bool,
    /// Changes of names that no sync covers, oldest first.
    names: Vec<Change>,
    /// The files written to, by inode, and how much of each is synced.
    files: HashMap<u64, (File, u64)>,
    /// How many names the attic has given out.
    saved: u64,
}

#[derive(Debug)]
enum Change {
    Appeared(PathBuf),
    Vanished { path: PathBuf, saved: PathBuf },
    Moved { from: PathBuf, to: PathBuf },
}

impl Change {
    /// The folder whose sync covers the change.
    fn folder(&self) -> Option<&Path> {
        match self {
            Change::Appeared(path) | Change::Vanished { path, .. } | Change::Moved { to: path, .. } => {
                path.parent()
            }
        }
    }

    fn undo(self) -> io::Result<()> {
        let done = match &self {
            Change::Appeared(path) if path.is_dir() => fs::remove_dir(path),
            Change::Appeared(path) => fs::remove_file(path),
            Change::Vanished { path, saved } => fs::rename(saved, path),
            Change::Moved { from, to } => fs::rename(to, from),
        };
        match done {
            // A later, synced change has taken the name away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            done => done,
        }
    }
}

impl Staged {
    /// A disk that works. `attic` is a folder on the same file system as all that is changed: it
    /// keeps what was unlinked, so that a power cut can bring it back.
    pub fn new(attic: &Path) -> Staged {
        Staged { attic: attic.to_path_buf(), state: Mutex::default() }
    }

    /// From here on there is no O_TMPFILE.
    pub fn without_unnamed(self) -> Staged {
        self.state().no_unnamed = true;
        self
    }

    /// From here on there is no journal: of a rename into another folder, the end of the old name may survive
    /// a power cut, and the new name not.
    pub fn without_journal(self) -> Staged {
        self.state().no_journal = true;
        self
    }

    /// At the call after `calls` more, `fault` happens.
    pub fn plan(&self, calls: u64, fault: Fault) {
        let mut state = self.state();
        state.plan = Some((state.calls + calls, fault));
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Whether the process counts as dead.
    pub fn has_stopped(&self) -> bool {
        self.state().stopped
    }

    /// How many changes of names no sync covers yet.
    pub fn unsynced_names(&self) -> usize {
        self.state().names.len()
    }

    /// The power goes: all changes of names that no sync covers are undone, but for the first
    /// `kept`, and so much of the bytes that no sync covers is `lost`. The disk has stopped for good.
    pub fn power_cut(&self, kept: usize, lost: Lost) -> io::Result<()> {
        let mut state = self.state();
        state.stopped = true;
        for (file, synced) in state.files.values() {
            lost.take(file, *synced)?;
        }
        let undone = state.names.len().saturating_sub(kept);
        for _ in 0..undone {
            if let Some(change) = state.names.pop() {
                change.undo()?;
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; an error if it is not to be made. A short write is the caller's.
    fn count(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.count_write()? {
            (_, Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
            (state, None) => Ok(state),
        }
    }

    fn count_write(&self) -> io::Result<(MutexGuard<'_, State>, Option<i32>)> {
        let mut state = self.state();
        if state.stopped {
            return Err(io::Error::other("stopped"));
        }
        let now = state.calls;
        state.calls += 1;
        match state.plan {
            Some((at, Fault::Fail(errno))) if at == now => Err(io::Error::from_raw_os_error(errno)),
            Some((at, Fault::Short(errno))) if at == now => Ok((state, Some(errno))),
            Some((at, Fault::Stop)) if at == now => {
                state.stopped = true;
                Err(io::Error::other("stopped"))
            }
            _ => Ok((state, None)),
        }
    }

    /// The same for a sync; `None` if it is to be believed without being done.
    fn count_sync(&self) -> io::Result<Option<MutexGuard<'_, State>>> {
        let mut state = self.count()?;
        if state.plan == Some((state.calls - 1, Fault::Lie)) {
            state.stopped = true;
            return Ok(None);
        }
        Ok(Some(state))
    }

    /// Keeps a file under another name before `path` goes.
    fn save(&self, state: &mut State, path: &Path) -> io::Result<()> {
        let saved = self.attic.join(state.saved.to_string());
        state.saved += 1;
        fs::hard_link(path, &saved)?;
        state.names.push(Change::Vanished { path: path.to_path_buf(), saved });
        Ok(())
    }
}

impl State {
    /// Notes a file before its first change: what is in it by then counts as synced.
    fn note(&mut self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if let Entry::Vacant(place) = self.files.entry(metadata.ino()) {
            place.insert((file.try_clone()?, metadata.len()));
        }
        Ok(())
    }
}

impl Durable for Staged {
    fn unnamed(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        let state = self.count()?;
        if state.no_unnamed {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Disk.unnamed(folder, name, mode)
    }

    fn create(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<File> {
        let mut state = self.count()?;
        let file = Disk.create(folder, name, mode)?;
        state.names.push(Change::Appeared(folder.path().join(name)));
        Ok(file)
    }

    fn append(&self, folder: &Folder, name: &str, create: bool, mode: u32) -> io::Result<File> {
        let mut state = self.count()?;
        let is_new = create && !folder.holds(name)?;
        let file = Disk.append(folder, name, create, mode)?;
        if is_new {
            state.names.push(Change::Appeared(folder.path().join(name)));
        }
        Ok(file)
    }

    fn make_folder(&self, folder: &Folder, name: &str, mode: u32) -> io::Result<()> {
        let mut state = self.count()?;
        Disk.make_folder(folder, name, mode)?;
        state.names.push(Change::Appeared(folder.path().join(name)));
        Ok(())
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let (mut state, short) = self.count_write()?;
        state.note(file)?;
        match short {
            None => Disk.write(file, bytes),
            Some(errno) => {
                Disk.write(file, &bytes[..bytes.len() / 2])?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        let mut state = self.count()?;
        state.note(file)?;
        Disk.truncate(file, length)?;
        // What was cut off would come back on a true disk, as it was or as zeros; here it is gone.
        if let Some((_, synced)) = state.files.get_mut(&file.metadata()?.ino()) {
            *synced = length.min(*synced);
        }
        Ok(())
    }

    fn set_modified(&self, file: &File, seconds: u64, nanoseconds: u32) -> io::Result<()> {
        let _state = self.count()?;
        Disk.set_modified(file, seconds, nanoseconds)
    }

    fn link(&self, file: &File, folder: &Folder, name: &str) -> io::Result<()> {
        let mut state = self.count()?;
        Disk.link(file, folder, name)?;
        state.names.push(Change::Appeared(folder.path().join(name)));
        Ok(())
    }

    fn rename(&self, from: &Folder, name: &str, to: &Folder, new_name: &str) -> io::Result<()> {
        let mut state = self.count()?;
        if to.holds(new_name)? {
            self.save(&mut state, &to.path().join(new_name))?;
        }
        if state.no_journal {
            self.save(&mut state, &from.path().join(name))?;
            Disk.rename(from, name, to, new_name)?;
            state.names.push(Change::Appeared(to.path().join(new_name)));
        } else {
            Disk.rename(from, name, to, new_name)?;
            state.names.push(Change::Moved { from: from.path().join(name), to: to.path().join(new_name) });
        }
        Ok(())
    }

    fn keeps_renamed(&self, _folder: &Folder) -> bool {
        !self.state().no_journal
    }

    fn unlink(&self, folder: &Folder, name: &str) -> io::Result<()> {
        let mut state = self.count()?;
        self.save(&mut state, &folder.path().join(name))?;
        Disk.unlink(folder, name)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        let Some(mut state) = self.count_sync()? else { return Ok(()) };
        let metadata = file.metadata()?;
        if let Some((_, synced)) = state.files.get_mut(&metadata.ino()) {
            *synced = metadata.len();
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Folder) -> io::Result<()> {
        let Some(mut state) = self.count_sync()? else { return Ok(()) };
        state.names.retain(|change| change.folder() != Some(folder.path()));
        Ok(())
    }

    fn still_works(&self, _file: &File) -> io::Result<()> {
        if self.state().stopped { Err(io::Error::other("stopped")) } else { Ok(()) }
    }

    fn sync_file_system(&self, _folder: BorrowedFd<'_>) -> io::Result<()> {
        let Some(mut state) = self.count_sync()? else { return Ok(()) };
        state.names.clear();
        for (file, synced) in state.files.values_mut() {
            *synced = file.metadata()?.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    struct Bench {
        root: tempfile::TempDir,
        folder: Folder,
        disk: Staged,
    }

    fn bench() -> Bench {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("attic")).unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let folder = Folder::open(&root.path().join("a")).unwrap();
        let disk = Staged::new(&root.path().join("attic"));
        Bench { root, folder, disk }
    }

    impl Bench {
        fn content(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.root.path().join("a").join(name)).ok()
        }
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced() {
        let b = bench();
        let file = b.disk.unnamed(&b.folder, ".", 0o600).unwrap();
        b.disk.write(&file, b"kept").unwrap();
        b.disk.link(&file, &b.folder, "named").unwrap();
        b.disk.sync_file_system(file.as_fd()).unwrap();
        b.disk.write(&file, b" and lost").unwrap();
        let other = b.disk.create(&b.folder, "other", 0o600).unwrap();
        b.disk.write(&other, b"x").unwrap();
        b.disk.sync_file(&other).unwrap();
        b.disk.rename(&b.folder, "named", &b.folder, "moved").unwrap();
        b.disk.unlink(&b.folder, "moved").unwrap();
        assert_eq!(b.disk.unsynced_names(), 3);
        b.disk.power_cut(0, Lost::All).unwrap();
        assert_eq!(b.content("named").as_deref(), Some("kept"));
        assert_eq!((b.content("other"), b.content("moved")), (None, None));
        assert!(b.disk.create(&b.folder, "more", 0o600).is_err());
    }

    #[test]
    fn without_a_journal_a_renamed_file_may_have_no_name() {
        for kept in 0..3 {
            let b = bench();
            let b = Bench { disk: b.disk.without_journal(), ..b };
            let file = b.disk.create(&b.folder, "old", 0o600).unwrap();
            b.disk.sync_file_system(file.as_fd()).unwrap();
            b.disk.rename(&b.folder, "old", &b.folder, "new").unwrap();
            b.disk.power_cut(kept, Lost::All).unwrap();
            let left = ["old", "new"].map(|name| b.content(name).is_some());
            assert_eq!(left, [[true, false], [false, false], [false, true]][kept]);
        }
    }

    #[test]
    fn names_can_outlive_their_bytes() {
        let b = bench();
        for name in ["first", "second"] {
            let file = b.disk.create(&b.folder, name, 0o600).unwrap();
            b.disk.write(&file, b"lost").unwrap();
        }
        b.disk.power_cut(1, Lost::All).unwrap();
        assert_eq!((b.content("first").as_deref(), b.content("second")), (Some(""), None));
    }

    #[test]
    fn bytes_can_be_torn() {
        for (lost, left) in [(Lost::All, "kept"), (Lost::End, "keptab"), (Lost::Start, "kept\0\0cd")] {
            let b = bench();
            let file = b.disk.append(&b.folder, "a", true, 0o600).unwrap();
            b.disk.write(&file, b"kept").unwrap();
            b.disk.sync_file(&file).unwrap();
            b.disk.write(&file, b"abcd").unwrap();
            b.disk.power_cut(1, lost).unwrap();
            assert_eq!(b.content("a").as_deref(), Some(left));
        }
    }

    #[test]
    fn a_synced_folder_keeps_its_names() {
        let b = bench();
        let file = b.disk.append(&b.folder, "a", true, 0o600).unwrap();
        b.disk.write(&file, b"1").unwrap();
        b.disk.sync_file(&file).unwrap();
        b.disk.sync_folder(&b.folder).unwrap();
        b.disk.create(&b.folder, "b", 0o600).unwrap();
        b.disk.rename(&b.folder, "b", &b.folder, "a").unwrap();
        b.disk.power_cut(0, Lost::All).unwrap();
        assert_eq!((b.content("a").as_deref(), b.content("b")), (Some("1"), None));
    }

    #[test]
    fn it_fails_once_and_stops_for_good() {
        let b = bench();
        b.disk.plan(1, Fault::Short(libc::ENOSPC));
        let file = b.disk.create(&b.folder, "a", 0o600).unwrap();
        assert_eq!(b.disk.write(&file, b"1234").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(b.content("a").as_deref(), Some("12"));
        b.disk.plan(0, Fault::Fail(libc::EIO));
        assert_eq!(b.disk.sync_file(&file).unwrap_err().raw_os_error(), Some(libc::EIO));
        b.disk.sync_file(&file).unwrap();
        b.disk.plan(0, Fault::Stop);
        assert!(b.disk.sync_file(&file).is_err());
        assert!(b.disk.has_stopped());
        assert!(b.disk.sync_file(&file).is_err());
        assert_eq!(b.disk.calls(), 5);
    }
}
