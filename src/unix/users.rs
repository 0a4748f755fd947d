//! Accounts of this host, through the name service switch.
//!
//! A look-up may ask LDAP and may hang: callers that must not wait do it in a thread or a child of
//! their own.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// What the name service says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
    /// Full name and the like.
    pub gecos: String,
}

/// The account of that name. No such account is `None`; a name service that can't say is an error.
pub fn by_name(name: &str) -> io::Result<Option<Account>> {
    if name.contains('\0') {
        return Ok(None);
    }
    Ok(User::from_name(name)?.map(account))
}

/// The account of that user id.
pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(account))
}

/// The id of a group.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// All groups of an account, its primary one among them.
pub fn groups(account: &Account) -> io::Result<Vec<u32>> {
    let name = CString::new(account.name.as_str())?;
    let groups = getgrouplist(&name, Gid::from_raw(account.gid))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// The real and the effective user id of this process.
pub fn current() -> (u32, u32) {
    (Uid::current().as_raw(), Uid::effective().as_raw())
}

/// Whether this process may write into the file or folder at `path`, with the rights that it has now.
pub fn may_write(path: &std::path::Path) -> bool {
    use nix::unistd::AccessFlags;
    nix::unistd::eaccess(path, AccessFlags::W_OK).is_ok()
}

/// The effective group id of this process.
pub fn current_group() -> u32 {
    Gid::effective().as_raw()
}

/// This host's own name, as the system has it.
pub fn host_name() -> io::Result<String> {
    let name = nix::unistd::gethostname()?;
    name.into_string().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "host name is not UTF-8"))
}

fn account(user: User) -> Account {
    Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
        gecos: user.gecos.into_string().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_nobody_else_of_that_name() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, by_uid(0).unwrap().unwrap().name), (0, "root".to_string()));
        assert!(groups(&root).unwrap().contains(&root.gid));
        assert_eq!(by_name("no-such-user-here").unwrap(), None);
        assert_eq!(by_name("nul\0root").unwrap(), None);
    }
}
