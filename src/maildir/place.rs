//! Opening the folders of a Maildir, and making those that are missing.
//!
//! A path in a home is walked step by step, and no link on the way is followed: whoever owns the
//! home chooses what lies there. A path that the administrator wrote is opened as it is.

use std::io;
use std::path::{Component, Path};

use crate::unix::durable::{Durable, Folder};

/// Rights of a folder made here: its owner's alone.
pub(super) const PRIVATE: u32 = 0o700;

/// A folder that was walked to, and those on the way that got new names. These names are durable
/// only when a sync has covered them, as with anything that is put into the folder.
#[derive(Debug)]
pub struct Reached {
    /// The folder.
    pub folder: Folder,
    /// Folders in which one was made.
    pub changed: Vec<Folder>,
}

impl From<Folder> for Reached {
    fn from(folder: Folder) -> Reached {
        Reached { folder, changed: Vec::new() }
    }
}

/// A folder below `home`, walked to without following links; what is missing is made.
pub fn below(disk: &dyn Durable, home: &Path, path: &Path) -> io::Result<Reached> {
    descend(disk, Folder::open(home)?, path)
}

/// The folder that the administrator named; what is missing is made.
pub fn at(disk: &dyn Durable, path: &Path) -> io::Result<Reached> {
    for there in path.ancestors() {
        match Folder::open(there) {
            Ok(folder) => return descend(disk, folder, path.strip_prefix(there).unwrap_or(Path::new(""))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Goes down from `folder` name by name.
fn descend(disk: &dyn Durable, folder: Folder, path: &Path) -> io::Result<Reached> {
    let mut reached = Reached::from(folder);
    for step in path.components() {
        let name = match step {
            Component::Normal(name) => name.to_str().ok_or(io::ErrorKind::InvalidFilename)?,
            Component::CurDir => continue,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leads out of its folder")),
        };
        let (inner, made) = inner_or_made(disk, &reached.folder, name)?;
        let outer = std::mem::replace(&mut reached.folder, inner);
        if made {
            reached.changed.push(outer);
        }
    }
    Ok(reached)
}

/// A folder inside another one, and whether it had to be made.
pub(super) fn inner_or_made(disk: &dyn Durable, folder: &Folder, name: &str) -> io::Result<(Folder, bool)> {
    match folder.inner(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map(|inner| (inner, false)),
    }
    match disk.make_folder(folder, name, PRIVATE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    folder.inner(name).map(|inner| (inner, true))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::unix::durable::Disk;

    use super::*;

    #[test]
    fn missing_folders_are_made_private() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a/b");
        let reached = at(&Disk, &path).unwrap();
        assert_eq!(reached.folder.path(), path);
        let changed: Vec<&Path> = reached.changed.iter().map(Folder::path).collect();
        assert_eq!(changed, [top.path(), &top.path().join("a")]);
        assert!(at(&Disk, &path).unwrap().changed.is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        below(&Disk, top.path(), Path::new("./c/d")).unwrap();
        assert!(top.path().join("c/d").is_dir());
        assert_eq!(
            below(&Disk, &top.path().join("gone"), Path::new("c")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_link_is_followed_only_where_the_administrator_put_it() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("real")).unwrap();
        symlink("real", top.path().join("link")).unwrap();
        assert!(below(&Disk, top.path(), Path::new("link")).is_err());
        assert!(below(&Disk, top.path(), Path::new("link/x")).is_err());
        assert!(below(&Disk, top.path(), Path::new("real/../../x")).is_err());
        assert!(!top.path().join("real/x").exists());
        at(&Disk, &top.path().join("link/x")).unwrap();
        assert!(top.path().join("real/x").is_dir());
    }
}
