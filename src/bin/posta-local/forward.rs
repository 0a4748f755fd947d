//! The owner's `.forward`: where he wants his mail in place of his mailbox.
//!
//! The file is read here, in the child, with its owner's rights and no others. It must be a file (no
//! link) of the owner or of root that nobody else can write, in a home that the owner or root has
//! and not everybody can write. What is wrong with it puts the mail off (4.3.5), with the reason in
//! the log: nothing is lost, and nothing goes where the owner no longer wants it. A file that is
//! missing or names nothing means the mailbox.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use posta::mail::address::Mailbox;
use posta::unix::durable::Folder;

use posta::courier::forward::Forward;
use posta::courier::request::Place;

use posta::route::{Member, included};

use crate::extension::{divide, is_harmless};
use crate::refusal::Refusal;

/// A file that was read is read anew after this.
const FRESH: Duration = Duration::from_secs(1);
/// Most files remembered.
const KEPT: usize = 64;
/// Most bytes of a file, and of all that it includes: what it says must fit into a report.
const MOST: u64 = 16 * 1024;
/// Most files that one includes.
const MOST_INCLUDED: usize = 20;

/// What the files are read by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The user id that we have.
    pub uid: u32,
    /// This host's name, which completes an address without a domain.
    pub hostname: String,
    /// What parts a name from an extension.
    pub delimiter: String,
    /// `:include:` is allowed.
    pub includes: bool,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The login name, if it is known.
    pub user: Option<&'a str>,
    /// The home.
    pub home: &'a Path,
    /// The address that the mail came for.
    pub address: &'a Mailbox,
    /// The mailbox that the file stands in place of.
    pub mailbox: &'a Place,
}

type Found = Rc<Result<Vec<Member>, Refusal>>;

/// The files that were read a moment ago.
#[derive(Debug)]
pub struct Forwards {
    rules: Rules,
    known: HashMap<(PathBuf, Option<String>), (Found, Instant)>,
}

impl Forwards {
    /// None yet.
    pub fn new(rules: Rules) -> Forwards {
        Forwards { rules, known: HashMap::new() }
    }

    /// What the owner wants; `None`: nothing but the mailbox.
    pub fn wanted(&mut self, whose: Whose<'_>, now: Instant) -> Result<Option<Forward>, Refusal> {
        let members = self.members(whose, now);
        let members = members.as_ref().as_ref().map_err(Refusal::clone)?;
        if members.is_empty() {
            return Ok(None);
        }
        let wanted = self.resolve(members, whose)?;
        let is_mailbox = wanted.addresses.is_empty() && wanted.places == [whose.mailbox.clone()];
        Ok((!is_mailbox).then_some(wanted))
    }

    fn members(&mut self, whose: Whose<'_>, now: Instant) -> Found {
        let (name, extension) = divide(whose.address, whose.user, &self.rules.delimiter);
        let extension = extension.filter(|extension| is_harmless(extension));
        // With the delimiter that parts it.
        let suffix = extension.map(|_| whose.address.local()[name.len()..].to_lowercase());
        let key = (whose.home.to_path_buf(), suffix);
        self.known.retain(|_, (_, since)| now.duration_since(*since) < FRESH);
        if let Some((found, _)) = self.known.get(&key) {
            return Rc::clone(found);
        }
        let found = Rc::new(self.rules.read(whose.home, key.1.as_deref()));
        if self.known.len() < KEPT {
            self.known.insert(key, (Rc::clone(&found), now));
        }
        found
    }

    /// From members to addresses and places.
    fn resolve(&self, members: &[Member], whose: Whose<'_>) -> Result<Forward, Refusal> {
        let mut wanted = Forward::default();
        for member in members {
            let place = match member {
                Member::Address(text) | Member::Account(text) => match self.address(text, whose)? {
                    None => whose.mailbox.clone(),
                    Some(address) => {
                        if !wanted.addresses.contains(&address) {
                            wanted.addresses.push(address);
                        }
                        continue;
                    }
                },
                Member::Command(command) => Place::Command(command.clone()),
                // What is to be thrown away goes nowhere.
                Member::File(path) if path == "/dev/null" => continue,
                Member::File(path) => file(path, whose.home),
                Member::Include(path) => return Err(wrong(path, "includes are not resolved")),
            };
            if !wanted.places.contains(&place) {
                wanted.places.push(place);
            }
        }
        Ok(wanted)
    }

    /// An address; `None` if it is the owner himself, who then means his mailbox.
    fn address(&self, text: &str, whose: Whose<'_>) -> Result<Option<Mailbox>, Refusal> {
        let (own, _) = divide(whose.address, whose.user, &self.rules.delimiter);
        let is_own = |name: &str| {
            name.eq_ignore_ascii_case(own) || whose.user.is_some_and(|user| name.eq_ignore_ascii_case(user))
        };
        let bad =
            |_| wrong(&whose.home.join(".forward"), format!("\"{}\" is no address", text.escape_debug()));
        if !text.contains('@') {
            let address = || Mailbox::from_parts(text, &self.rules.hostname).map_err(bad);
            return if is_own(text) { Ok(None) } else { address().map(Some) };
        }
        let address = Mailbox::parse(text, true).map_err(bad)?;
        let mine = address.domain() == whose.address.domain()
            && (is_own(address.local()) || address.local().eq_ignore_ascii_case(whose.address.local()));
        Ok((!mine).then_some(address))
    }
}

impl Rules {
    /// The members of `.forward+extension`, where there is such a file, else of `.forward`; none, if
    /// there is neither. `suffix`: the extension with its delimiter.
    fn read(&self, home: &Path, suffix: Option<&str>) -> Result<Vec<Member>, Refusal> {
        if !home.is_absolute() {
            return Ok(Vec::new());
        }
        let folder = match Folder::reach(home) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(home, &error)),
        };
        let special = suffix.map(|suffix| format!(".forward{suffix}"));
        for name in special.iter().map(String::as_str).chain([".forward"]) {
            let path = home.join(name);
            match folder.read(name) {
                Ok(file) => {
                    self.judge_home(&folder)?;
                    return self.list(&path, file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
        Ok(Vec::new())
    }

    /// Whoever can write into the home can put a `.forward` there.
    fn judge_home(&self, home: &Folder) -> Result<(), Refusal> {
        let found = home.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        let found = found.map_err(|error| unreadable(home.path(), &error))?;
        if found.mode() & 0o002 != 0 {
            return Err(wrong(home.path(), "everybody can write there, so its .forward is not believed"));
        }
        if found.uid() != self.uid && found.uid() != 0 {
            return Err(wrong(home.path(), "belongs to somebody else, so its .forward is not believed"));
        }
        Ok(())
    }

    /// The members of a file, and of those that it includes.
    fn list(&self, path: &Path, file: File) -> Result<Vec<Member>, Refusal> {
        let mut bytes = MOST;
        let mut all = Vec::new();
        let mut included: Vec<PathBuf> = Vec::new();
        for member in self.members(path, file, &mut bytes)? {
            match member {
                Member::Include(list) => included.push(list),
                member => all.push(member),
            }
        }
        let mut next = 0;
        while let Some(list) = included.get(next).cloned() {
            next += 1;
            let file = self.included(path, &list)?;
            for member in self.members(&list, file, &mut bytes)? {
                match member {
                    Member::Include(deeper) if included.contains(&deeper) => {}
                    Member::Include(deeper) => included.push(deeper),
                    Member::Command(_) | Member::File(_) => {
                        return Err(wrong(&list, "an included list can't name commands or files"));
                    }
                    member => all.push(member),
                }
            }
        }
        Ok(all)
    }

    /// Opens a list that is included. It is found by its whole path, so links on the way are
    /// followed; with the owner's rights they lead nowhere that he could not go himself.
    fn included(&self, by: &Path, list: &Path) -> Result<File, Refusal> {
        if !self.includes {
            return Err(wrong(by, ":include: is not allowed (local.forward_includes)"));
        }
        let (Some(folder), Some(name)) = (list.parent(), list.file_name().and_then(|name| name.to_str()))
        else {
            return Err(wrong(by, ":include: of what is no file"));
        };
        Folder::open(folder).and_then(|folder| folder.read(name)).map_err(|error| unreadable(list, &error))
    }

    /// The members of one file. `bytes` is what may still be read.
    fn members(&self, path: &Path, file: File, bytes: &mut u64) -> Result<Vec<Member>, Refusal> {
        let found = file.metadata().map_err(|error| unreadable(path, &error))?;
        if !found.is_file() {
            return Err(wrong(path, "is no file"));
        }
        if found.uid() != self.uid && found.uid() != 0 {
            return Err(wrong(path, "belongs to somebody else"));
        }
        if found.mode() & 0o022 != 0 {
            return Err(wrong(path, "can be written by others than its owner"));
        }
        let mut text = Vec::new();
        file.take(*bytes + 1).read_to_end(&mut text).map_err(|error| unreadable(path, &error))?;
        *bytes = bytes
            .checked_sub(text.len() as u64)
            .ok_or_else(|| wrong(path, format!("more than {MOST} bytes, with all that is included")))?;
        let text = String::from_utf8_lossy(&text);
        if text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace()) {
            return Err(wrong(path, "has control characters in it"));
        }
        let members = included(&text).map_err(|why| wrong(path, why))?;
        let lists = members.iter().filter(|member| matches!(member, Member::Include(_))).count();
        if lists > MOST_INCLUDED { Err(wrong(path, "includes too many lists")) } else { Ok(members) }
    }
}

/// A path that lies in the home is walked from there, without following links.
fn file(path: &str, home: &Path) -> Place {
    let within =
        Path::new(path).strip_prefix(home).ok().and_then(Path::to_str).filter(|rest| !rest.is_empty());
    let slash = if path.ends_with('/') { "/" } else { "" };
    let path =
        within.map_or_else(|| path.to_string(), |rest| format!("~/{}{slash}", rest.trim_end_matches('/')));
    if path.ends_with('/') { Place::Maildir(path) } else { Place::Mbox(path) }
}

/// RFC 3463 3.4, X.3.5: as a system that is not configured rightly; its owner can put it right.
fn wrong(path: &Path, why: impl std::fmt::Display) -> Refusal {
    Refusal::new((4, 3, 5), format!("{}: {why}", path.display()))
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    wrong(path, Refusal::of("can't be read", error).text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use posta::unix::users;

    use super::*;

    struct Home {
        folder: tempfile::TempDir,
        includes: bool,
    }

    fn home(forward: &str) -> Home {
        let home = Home { folder: tempfile::tempdir().unwrap(), includes: true };
        home.put(".forward", forward);
        home
    }

    impl Home {
        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, text.replace("HOME", self.folder.path().to_str().unwrap())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        fn wanted_of(&self, address: &str) -> Result<Option<Forward>, Refusal> {
            let rules = Rules {
                uid: users::current().1,
                hostname: "host.example".into(),
                delimiter: "+".into(),
                includes: self.includes,
            };
            let address = Mailbox::parse(address, false).unwrap();
            let mailbox = Place::Maildir("~/Maildir/".into());
            let whose =
                Whose { user: Some("alice"), home: self.folder.path(), address: &address, mailbox: &mailbox };
            Forwards::new(rules).wanted(whose, Instant::now())
        }

        fn wanted(&self) -> Result<Option<Forward>, Refusal> {
            self.wanted_of("alice@example.org")
        }

        /// Addresses and places in words.
        fn says(&self) -> (Vec<String>, Vec<Place>) {
            let wanted = self.wanted().unwrap().unwrap();
            (wanted.addresses.iter().map(Mailbox::to_string).collect(), wanted.places)
        }

        fn why_not(&self) -> String {
            let refusal = self.wanted().unwrap_err();
            assert_eq!(refusal.status.to_string(), "4.3.5");
            refusal.text
        }
    }

    fn own() -> Place {
        Place::Maildir("~/Maildir/".into())
    }

    #[test]
    fn every_kind_of_member_has_its_way() {
        let text = concat!(
            "# my mail\n\\alice, bob, Carol <carol@example.net>\n",
            "\"|/usr/bin/filter -a, -b\"\n/var/mail/copy, HOME/archive/, HOME/mbox, bob\n",
        );
        let (addresses, places) = home(text).says();
        assert_eq!(addresses, ["bob@host.example", "carol@example.net"]);
        let command = Place::Command("/usr/bin/filter -a, -b".into());
        let mbox = |path: &str| Place::Mbox(path.into());
        let archive = Place::Maildir("~/archive/".into());
        assert_eq!(places, [own(), command, mbox("/var/mail/copy"), archive, mbox("~/mbox")]);
    }

    #[test]
    fn whoever_names_himself_means_his_mailbox() {
        for text in [
            "alice",
            "\\Alice",
            "alice@example.org",
            "\\alice, alice\n",
            "ALICE@Example.ORG",
            "alice+x@example.org",
        ] {
            let wanted = home(text).wanted_of("alice+x@example.org");
            assert_eq!(wanted, Ok(None), "{text}");
        }
        assert_eq!(home("\\alice\nalice@elsewhere.example").says().0, ["alice@elsewhere.example"]);
        for empty in ["", "\n# nothing\n\n", " , "] {
            assert_eq!(home(empty).wanted(), Ok(None));
        }
        let away = home("/dev/null").wanted().unwrap();
        assert_eq!(away, Some(Forward::default()));
    }

    #[test]
    fn an_extension_has_its_own_file() {
        let home = home("bob@x.example");
        home.put(".forward+books", "carol@x.example");
        let first = |address| home.wanted_of(address).unwrap().unwrap().addresses[0].to_string();
        assert_eq!(first("alice+Books@example.org"), "carol@x.example");
        assert_eq!(first("alice+other@example.org"), "bob@x.example");
        assert_eq!(first("\"alice+../.forward+books\"@example.org"), "bob@x.example");
        assert_eq!(first("alice@example.org"), "bob@x.example");
    }

    #[test]
    fn what_is_wrong_puts_the_mail_off() {
        assert!(home("a b@x").why_not().contains("line 1: "));
        assert!(home("x@@y").why_not().contains("is no address"));
        assert!(home("\"|x").why_not().contains("quote"));
        assert!(home("a@b\u{1}c").why_not().contains("control characters"));
        assert!(home(&"x@example.net,\n".repeat(2000)).why_not().contains("bytes"));
    }

    #[test]
    fn a_file_that_others_could_have_written_is_not_believed() {
        let mode = |home: &Home, name: &str, mode: u32| {
            fs::set_permissions(home.folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let open = home("bob");
        mode(&open, ".forward", 0o620);
        assert!(open.why_not().ends_with("can be written by others than its owner"));
        mode(&open, ".forward", 0o644);
        mode(&open, "", 0o1777);
        assert!(open.why_not().contains("everybody can write there"));
        let linked = home("");
        fs::rename(linked.put(".forward", "bob"), linked.folder.path().join("real")).unwrap();
        symlink("real", linked.folder.path().join(".forward")).unwrap();
        assert!(linked.why_not().ends_with("a link"), "{}", linked.why_not());
        let folder = home("");
        fs::remove_file(folder.folder.path().join(".forward")).unwrap();
        fs::create_dir(folder.folder.path().join(".forward")).unwrap();
        assert!(folder.why_not().ends_with("is no file"));
    }

    #[test]
    fn lists_are_included_if_that_is_allowed() {
        let mut home = home(":include:HOME/list, dan@x.example");
        home.put("list", "# friends\nbob@x.example\ncarol@x.example, :include:HOME/list\n\\alice\n");
        let (addresses, places) = home.says();
        assert_eq!(addresses, ["dan@x.example", "bob@x.example", "carol@x.example"]);
        assert_eq!(places, [own()]);
        home.put("list", "|id");
        assert!(home.why_not().ends_with("list: an included list can't name commands or files"));
        fs::remove_file(home.folder.path().join("list")).unwrap();
        assert!(home.why_not().contains("can't be read"));
        home.includes = false;
        assert!(home.why_not().contains("forward_includes"));
    }

    #[test]
    fn no_home_has_no_forward() {
        let home = home("bob");
        fs::remove_dir_all(home.folder.path()).unwrap();
        assert_eq!(home.wanted(), Ok(None));
    }
}
