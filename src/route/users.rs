//! Users files, and what is published of them.
//!
//! A users file is Dovecot's passwd-file: `user@domain:{SCHEME}hash:uid:gid::home::extra`. It has
//! password hashes, so only posta-auth opens it ([`publish`]); all others read `run/users`, where
//! posta-auth puts all users files without the hashes:
//!
//! ```text
//! posta-users 1
//! file    /etc/posta/users
//! user    alice@example.net    5000    5000    /srv/home/alice
//! user    bob@example.net    -    -        1000000S,1000C
//! broken    carl@example.net    the uid is no number
//! file    /etc/posta/more
//! failed    /etc/posta/lost    No such file or directory
//! ```
//!
//! The fields are parted by tabs. The last, which may be missing, is how much the mailbox may hold. What could not be read is said too: mail for it waits, and is not
//! refused as for somebody unknown.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::mail::limit::Limit;

use super::table::TableError;
use super::table::watched::Content;

/// The first line of what is published: it names the format's version.
const HEAD: &str = "posta-users 1";

/// A user, as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// As written in the file, in lower case; with its domain, unless the user is one in every
    /// domain of the file.
    pub(super) name: String,
    /// User and group id, if the file says them.
    pub(super) ids: Option<(u32, u32)>,
    /// The home folder; empty if the file says none.
    pub(super) home: String,
    /// What the mailbox may hold, if the file says it.
    pub(super) limit: Option<Limit>,
}

/// The users of one file; an error is why nobody can say who they are.
type Users = Result<HashMap<String, Result<User, String>>, String>;

/// All users files.
#[derive(Debug, Default)]
pub(super) struct Published {
    files: HashMap<PathBuf, Users>,
}

/// Reads users files and gives their text for `run/users`, without hashes. Says in the log what
/// could not be read.
pub fn publish(files: &[PathBuf]) -> String {
    let mut text = format!("{HEAD}\n");
    for path in files {
        // Writing to a String doesn't fail.
        let _ = match std::fs::read(path) {
            Ok(bytes) => {
                let _ = writeln!(text, "file\t{}", path.display());
                publish_file(&mut text, path, &String::from_utf8_lossy(&bytes))
            }
            Err(why) => {
                log::error!("users file {}: {why}", path.display());
                writeln!(text, "failed\t{}\t{why}", path.display())
            }
        };
    }
    text
}

/// What is wrong with a users file, each as `FILE:LINE: what`; an error: it can't be read.
pub fn faults(path: &Path) -> std::io::Result<Vec<String>> {
    let bytes = std::fs::read(path)?;
    let content = String::from_utf8_lossy(&bytes);
    let lines = (1..).zip(content.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let fault = |(number, line)| {
        let (name, read) = read_line(line);
        let what = match read {
            _ if name.is_empty() || name.contains(char::is_control) => "no user name".to_string(),
            Ok(Said { limit: Some(Err(rule)), .. }) => {
                format!("{name}: the quota {rule:?} is not understood")
            }
            Ok(_) => return None,
            Err(why) => format!("{name}: {why}"),
        };
        Some(format!("{}:{number}: {what}", path.display()))
    };
    Ok(lines.filter_map(fault).collect())
}

fn publish_file(text: &mut String, path: &Path, content: &str) -> std::fmt::Result {
    for (n, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, read) = read_line(line);
        if name.is_empty() || name.contains(char::is_control) {
            log::error!("{}:{}: no user name", path.display(), n + 1);
            continue;
        }
        match read {
            Ok(said) => {
                write!(text, "user\t{name}\t")?;
                match said.ids {
                    Some((uid, gid)) => write!(text, "{uid}\t{gid}")?,
                    None => write!(text, "-\t-")?,
                }
                write!(text, "\t{}", said.home)?;
                match said.limit {
                    Some(Ok(limit)) => writeln!(text, "\t{limit}")?,
                    // The mail need not wait for it.
                    Some(Err(rule)) => {
                        log::error!("{}:{}: the quota {rule:?} is not understood", path.display(), n + 1);
                        writeln!(text)?;
                    }
                    None => writeln!(text)?,
                }
            }
            Err(why) => {
                log::error!("{}:{}: {why}", path.display(), n + 1);
                writeln!(text, "broken\t{name}\t{why}")?;
            }
        }
    }
    Ok(())
}

/// What a line says beside its hash.
struct Said<'l> {
    ids: Option<(u32, u32)>,
    home: &'l str,
    /// As Dovecot's `userdb_quota_rule` has it; an error is a rule that can't be read.
    limit: Option<Result<Limit, &'l str>>,
}

/// The user's name in lower case, and what the line says of the user.
fn read_line(line: &str) -> (String, Result<Said<'_>, String>) {
    let mut fields = line.splitn(8, ':').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    let (name, _hash, uid, gid, _gecos, home) = (next(), next(), next(), next(), next(), next());
    let (_shell, extra) = (next(), next());
    let rule = extra.split_whitespace().find_map(|word| word.strip_prefix("userdb_quota_rule="));
    let limit = rule.map(|rule| Limit::of_rule(rule).ok_or(rule));
    let read = || {
        if home.contains(char::is_control) || !(home.is_empty() || home.starts_with('/')) {
            return Err("the home is no path that begins with /".to_string());
        }
        if uid.is_empty() && gid.is_empty() {
            return Ok(Said { ids: None, home, limit });
        }
        let uid = uid.parse().map_err(|_| "the uid is no number".to_string())?;
        let gid = gid.parse().map_err(|_| "the gid is no number".to_string())?;
        Ok(Said { ids: Some((uid, gid)), home, limit })
    };
    (name.to_lowercase(), read())
}

impl Published {
    /// Reads what was published. One wrong line makes all of it doubtful.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Published, TableError> {
        let fault = |line: usize, why: String| TableError::Line { path: path.to_path_buf(), line, why };
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(fault(1, format!("does not begin with \"{HEAD}\"")));
        }
        let mut published = Published::default();
        let mut file = None;
        for (n, line) in lines.enumerate() {
            let read = published.add(&mut file, line);
            read.ok_or_else(|| fault(n + 2, "can't be understood".to_string()))?;
        }
        Ok(published)
    }

    fn add(&mut self, file: &mut Option<PathBuf>, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["file", path] => {
                *file = Some(path.into());
                self.files.insert(path.into(), Ok(HashMap::new()));
            }
            ["failed", path, why] => {
                *file = None;
                self.files.insert(path.into(), Err(why.to_string()));
            }
            ["user", name, uid, gid, home, ref limit @ ..] => {
                let limit = match limit {
                    [] => None,
                    [limit] => Some(Limit::parse(limit)?),
                    _ => return None,
                };
                let ids = match (uid, gid) {
                    ("-", "-") => None,
                    (uid, gid) => Some((uid.parse().ok()?, gid.parse().ok()?)),
                };
                let user = User { name: name.to_string(), ids, home: home.to_string(), limit };
                self.users(file)?.insert(name.to_string(), Ok(user));
            }
            ["broken", name, why] => {
                self.users(file)?.insert(name.to_string(), Err(why.to_string()));
            }
            _ => return None,
        }
        Some(())
    }

    fn users(&mut self, file: &Option<PathBuf>) -> Option<&mut HashMap<String, Result<User, String>>> {
        self.files.get_mut(file.as_ref()?)?.as_mut().ok()
    }

    /// Looks for `local@domain`, then for `local`, in one file. `None`: there is no such user. An
    /// error: nobody can say. Names are compared without regard to case.
    pub(super) fn find(&self, file: &Path, local: &str, domain: &str) -> Result<Option<&User>, String> {
        let users = match self.files.get(file) {
            Some(Ok(users)) => users,
            Some(Err(why)) => return Err(format!("{}: {why}", file.display())),
            None => return Err(format!("{} is not published by posta-auth yet", file.display())),
        };
        let local = local.to_lowercase();
        let found = users.get(&format!("{local}@{domain}")).or_else(|| users.get(&local));
        found
            .map(|user| user.as_ref().map_err(|why| format!("{}: {local}: {why}", file.display())))
            .transpose()
    }

    /// Looks for one name, then for the other.
    pub(super) fn find_either(
        &self,
        file: &Path,
        names: [&str; 2],
        domain: &str,
    ) -> Result<Option<&User>, String> {
        let [first, other] = names;
        match self.find(file, first, domain)? {
            None if other != first => self.find(file, other, domain),
            found => Ok(found),
        }
    }
}

impl Content for Published {
    fn faults(&self) -> &[TableError] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_are_published_without_hashes_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, lost) =
            (folder.path().join("one"), folder.path().join("two"), folder.path().join("lost"));
        let content = "# users\nAlice@Example.net:{PLAIN}secret:5000:5001::/srv/alice::x=y userdb_quota_rule=*:storage=1G:messages=10\n\
                       bob:{PLAIN}secret::::::userdb_quota_rule=Trash:storage=1\n\
                       carl@example.net:secret:x:1::/srv/carl::\ndan@example.net:secret:1:1::srv::\n";
        std::fs::write(&one, content).unwrap();
        std::fs::write(&two, "").unwrap();
        let text = publish(&[one.clone(), two.clone(), lost.clone()]);
        assert!(!text.contains("secret"), "{text}");
        let published = Published::parse(Path::new("users"), &text).unwrap();
        let limit = Some(Limit { bytes: 1 << 30, messages: 10 });
        let alice = User {
            name: "alice@example.net".into(),
            ids: Some((5000, 5001)),
            home: "/srv/alice".into(),
            limit,
        };
        assert_eq!(published.find(&one, "ALICE", "example.net"), Ok(Some(&alice)));
        assert_eq!(published.find(&one, "alice", "other.example"), Ok(None));
        let bob = User { name: "bob".into(), ids: None, home: String::new(), limit: None };
        assert_eq!(published.find(&one, "bob", "any.example"), Ok(Some(&bob)));
        for broken in ["carl", "dan"] {
            assert!(published.find(&one, broken, "example.net").is_err());
        }
        assert_eq!(published.find(&two, "alice", "example.net"), Ok(None));
        assert!(published.find(&lost, "alice", "example.net").unwrap_err().contains("No such file"));
        assert!(
            published.find(Path::new("/x"), "alice", "example.net").unwrap_err().contains("not published")
        );
    }

    #[test]
    fn faults_are_told_with_their_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# x\na:x:1:1::/srv\nb:x:y:1\n:x\nc:x::::::userdb_quota_rule=*:size=1\n";
        std::fs::write(file.path(), text).unwrap();
        let lines = |fault: &String| {
            fault.strip_prefix(&format!("{}:", file.path().display())).unwrap()[..1].to_string()
        };
        let faults = faults(file.path()).unwrap();
        assert_eq!(faults.iter().map(lines).collect::<Vec<_>>(), ["3", "4", "5"], "{faults:?}");
    }

    #[test]
    fn a_wrong_line_makes_all_doubtful() {
        for bad in [
            "",
            "posta-users 2\n",
            "posta-users 1\nuser\ta\t-\t-\t\n",
            "posta-users 1\nfile\t/x\nuser\ta\t-\n",
            "posta-users 1\nfile\t/x\nuser\ta\tx\t1\t\n",
            "posta-users 1\nfile\t/x\n\n",
            "posta-users 1\nfailed\t/x\twhy\nuser\ta\t-\t-\t\n",
        ] {
            assert!(Published::parse(Path::new("users"), bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_users_file_is_published_as_something_readable(text in "([a-z@:/0-9 \t\n#{}]|\\PC){0,80}") {
            let mut published = format!("{HEAD}\nfile\t/x\n");
            publish_file(&mut published, Path::new("/x"), &text).unwrap();
            prop_assert!(Published::parse(Path::new("users"), &published).is_ok(), "{published}");
        }
    }
}
