//! Folders of a Maildir, as Maildir++ has them (Courier, Dovecot): `.books` beside `tmp/`, `new/` and
//! `cur/` is a Maildir of its own, and `.books.old` is a folder in it.

use std::io;

use crate::unix::durable::Folder;

use super::place::Reached;

/// The folder `name` of a Maildir, if there is one; else the Maildir itself. A link in its place is
/// an error: it may lead anywhere.
pub fn inside(top: Reached, name: &str) -> io::Result<Reached> {
    match top.folder.inner(&format!(".{name}")) {
        Ok(folder) => Ok(Reached { folder, changed: top.changed }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(top),
        Err(error) => Err(error),
    }
}

/// All folders of a Maildir, the Maildir itself first, but for the one named `besides`. What is no
/// folder, or a link, is none.
pub(super) fn all(top: &Folder, besides: &str) -> io::Result<Vec<Folder>> {
    let mut found = vec![top.try_clone()?];
    for entry in std::fs::read_dir(top.path())? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('.') && *name != besides) else {
            continue;
        };
        match top.inner(name) {
            Ok(folder) => found.push(folder),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_where_there_is_one() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join(".books")).unwrap();
        std::os::unix::fs::symlink("/tmp", top.path().join(".link")).unwrap();
        let inside = |name: &str| {
            let inside = inside(Folder::open(top.path()).unwrap().into(), name)?;
            Ok::<_, io::Error>(inside.folder.path().to_path_buf())
        };
        assert_eq!(inside("books").unwrap(), top.path().join(".books"));
        assert_eq!(inside("other").unwrap(), top.path());
        assert!(inside("link").is_err());
        std::fs::create_dir(top.path().join(".Trash")).unwrap();
        std::fs::create_dir(top.path().join("cur")).unwrap();
        let found = all(&Folder::open(top.path()).unwrap(), ".Trash").unwrap();
        let found: Vec<_> = found.iter().map(|folder| folder.path().file_name().unwrap()).collect();
        assert_eq!(found, [top.path().file_name().unwrap(), ".books".as_ref()]);
    }
}
