//! What an alias leads to, as sendmail and Postfix write it (aliases(5)).
//!
//! ```text
//! postmaster: root
//! staff:      alice, bob@example.net (Bob),
//!             "|/usr/bin/filter -a, -b"
//! archive:    /var/mail/archive, \alice, :include:/etc/mail/list
//! owner-staff: alice
//! ```
//!
//! A list may be long: its members are read one after the other, never all at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Most bytes of a list that an `:include:` names.
const MAX_LIST: u64 = 64 << 20;
/// Longest line of such a list.
const MAX_LINE: u64 = 1 << 20;

/// One thing that an alias leads to, or a user's `.forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// An address, or a local name.
    Address(String),
    /// `\name`: the account itself, whatever aliases say.
    Account(String),
    /// `|command`
    Command(String),
    /// `/file`, or `/folder/` for a Maildir.
    File(String),
    /// `:include:/file`: the members named there.
    Include(PathBuf),
}

/// How one member is read.
pub(super) type ReadMember = fn(&str) -> Result<Member, String>;

/// The members of a list, parted by commas.
pub(super) fn members(list: &str, read: ReadMember) -> impl Iterator<Item = Result<Member, String>> {
    let items = Items { rest: Some(list) };
    items.filter(|item| item.as_ref().map_or(true, |item| !item.is_empty())).map(move |item| read(item?))
}

/// What is wrong with a list. An empty text: it has no member.
pub(super) fn check(list: &str, read: ReadMember) -> Result<(), String> {
    let mut count = 0_usize;
    for member in members(list, read) {
        member?;
        count += 1;
    }
    if count == 0 { Err(String::new()) } else { Ok(()) }
}

/// The list that an `:include:` names: members parted by commas or newlines, with comments.
pub(super) struct Included {
    lines: BufReader<std::io::Take<File>>,
    number: usize,
}

impl Included {
    /// Opens a list. What is no plain file of bounded length is no list.
    pub(super) fn open(path: &Path) -> Result<Included, String> {
        let metadata = std::fs::metadata(path).map_err(|why| why.to_string())?;
        if !metadata.is_file() || metadata.len() > MAX_LIST {
            return Err(format!("no file of at most {MAX_LIST} bytes"));
        }
        let file = File::open(path).map_err(|why| why.to_string())?;
        Ok(Included { lines: BufReader::new(file.take(MAX_LIST)), number: 0 })
    }

    /// The next line that is no comment, with its number; `None` at the end.
    pub(super) fn next_line(&mut self) -> Result<Option<(usize, String)>, String> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.lines).take(MAX_LINE).read_until(b'\n', &mut line);
            if read.map_err(|why| why.to_string())? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let text = String::from_utf8_lossy(&line);
            if !text.trim_start().starts_with('#') {
                return Ok(Some((self.number, text.into_owned())));
            }
        }
    }
}

/// Reads a list, as that of a user's `.forward`: members parted by commas or newlines, with comments.
/// An error says in which line, and why.
pub fn included(text: &str) -> Result<Vec<Member>, String> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        for found in members(line, member) {
            all.push(found.map_err(|why| format!("line {}: {why}", n + 1))?);
        }
    }
    Ok(all)
}

/// Splits at commas that are not within quotes.
struct Items<'l> {
    rest: Option<&'l str>,
}

impl<'l> Iterator for Items<'l> {
    type Item = Result<&'l str, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, c) in list.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ',' if !quoted => {
                    self.rest = Some(&list[at + 1..]);
                    return Some(Ok(list[..at].trim()));
                }
                _ => (),
            }
        }
        if quoted { Some(Err("a quote without its end".to_string())) } else { Some(Ok(list.trim())) }
    }
}

/// Reads a member that may only be an address: where commands and files are not allowed.
pub(super) fn address_only(item: &str) -> Result<Member, String> {
    match member(item)? {
        address @ Member::Address(_) => Ok(address),
        _ => Err(format!("\"{item}\" is no address, and here only addresses may stand")),
    }
}

/// Reads a member of an alias of this host.
pub(super) fn member(item: &str) -> Result<Member, String> {
    // `"|command"`, `"/file"`: the whole is quoted. `"a b"@example.org` is an address.
    let text = unquoted(item).unwrap_or_else(|| item.to_string());
    if let Some(command) = text.strip_prefix('|') {
        // `|"command"` as sendmail has it
        let command = unquoted(command.trim()).unwrap_or_else(|| command.trim().to_string());
        return if command.is_empty() {
            Err("a | without a command".into())
        } else {
            Ok(Member::Command(command))
        };
    }
    if text.starts_with('/') {
        return Ok(Member::File(text));
    }
    if let Some(path) = strip_prefix_ignoring_case(&text, ":include:") {
        let path = Path::new(path.trim());
        return if path.is_absolute() {
            Ok(Member::Include(path.to_path_buf()))
        } else {
            Err(format!(":include: of \"{}\", which is no path that begins with /", path.display()))
        };
    }
    if let Some(name) = text.strip_prefix('\\') {
        return Ok(Member::Account(name.to_string()));
    }
    address(item, text)
}

/// `local`, `local@domain`, or `Name <local@domain>`, perhaps with a `(comment)` behind it.
fn address(item: &str, text: String) -> Result<Member, String> {
    if let Some((before, _)) = item.strip_suffix(')').and_then(|item| item.split_once('('))
        && !item.starts_with('"')
    {
        return address(before.trim(), before.trim().to_string());
    }
    let bare = match item.strip_suffix('>').and_then(|item| item.rsplit_once('<')) {
        Some((_, address)) => address.trim().to_string(),
        None if text.contains(char::is_whitespace) && !item.starts_with('"') => {
            return Err(format!("\"{text}\" is no address; members are parted by commas"));
        }
        // The quotes of a local part with a domain belong to the address.
        None if item.contains('@') => item.to_string(),
        None => text,
    };
    if bare.is_empty() || bare.starts_with(':') {
        Err(format!("\"{item}\" is no address"))
    } else {
        Ok(Member::Address(bare))
    }
}

/// The content of a text that is one quoted string from end to end.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?;
    let mut content = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => content.push(chars.next()?),
            '"' => return chars.as_str().is_empty().then_some(content),
            c => content.push(c),
        }
    }
    None
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(list: &str) -> Vec<Member> {
        members(list, member).collect::<Result<_, _>>().unwrap_or_else(|why| panic!("{list}: {why}"))
    }

    fn addresses(list: &[&str]) -> Vec<Member> {
        list.iter().map(|address| Member::Address(address.to_string())).collect()
    }

    #[test]
    fn every_kind_of_member() {
        let command = |text: &str| Member::Command(text.into());
        let file = |text: &str| Member::File(text.into());
        assert_eq!(
            of("\"|/bin/f -a, -b \\\"x\\\"\", |\"/bin/g c\", |/bin/h, /var/mail/x, \"/var/mail/y z\""),
            [
                command("/bin/f -a, -b \"x\""),
                command("/bin/g c"),
                command("/bin/h"),
                file("/var/mail/x"),
                file("/var/mail/y z")
            ]
        );
        assert_eq!(
            of("\\alice, :include:/etc/list, \":Include: /etc/l\", \"a b\"@x.example, \"a b\""),
            [
                Member::Account("alice".into()),
                Member::Include("/etc/list".into()),
                Member::Include("/etc/l".into()),
                Member::Address("\"a b\"@x.example".into()),
                Member::Address("a b".into())
            ]
        );
        let named = "Carl <c@y.example>, \"Last, First\" <l@y.example>";
        assert_eq!(of(named), addresses(&["c@y.example", "l@y.example"]));
        assert_eq!(of("d@y.example (Dan), e (Eve)"), addresses(&["d@y.example", "e"]));
    }

    #[test]
    fn only_addresses_where_only_they_may_stand() {
        assert!(check("a@x, b", address_only).is_ok());
        for bad in ["|/bin/false", "a@x, /file", ":include:/list", "\\a", "\"|/bin/x\""] {
            assert!(check(bad, address_only).is_err(), "{bad}");
        }
        assert_eq!(check(" , ", member), Err(String::new()));
    }

    #[test]
    fn included_lists_are_lines_or_commas() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "# list\na@x, b@x\n\n  c\nb c").unwrap();
        let mut list = Included::open(&path).unwrap();
        let mut found = Vec::new();
        while let Some((number, line)) = list.next_line().unwrap() {
            found.extend(members(&line, member).map(|member| (number, member)));
        }
        let last = found.pop().unwrap();
        assert!(last.0 == 5 && last.1.is_err());
        let found: Vec<Member> = found.into_iter().map(|(_, member)| member.unwrap()).collect();
        assert_eq!(found, addresses(&["a@x", "b@x", "c"]));
        assert!(Included::open(folder.path()).is_err());
        assert!(Included::open(Path::new("/no/such/list")).is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([a-z]{0,4}|[:,\"\\\\|/<>@#() \n\t]|:include:|\\PC){0,40}") {
            let all: Vec<_> = members(&text, member).collect();
            prop_assert_eq!(check(&text, member).is_ok(), !all.is_empty() && all.iter().all(Result::is_ok));
        }
    }
}
