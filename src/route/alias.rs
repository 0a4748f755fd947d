//! The aliases table, as sendmail and Postfix write it (aliases(5)).
//!
//! ```text
//! # a comment
//! postmaster: root
//! staff:      alice, bob@example.net,
//!             "|/usr/bin/filter -a, -b"
//! archive:    /var/mail/archive, \alice, :include:/etc/mail/list
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Most bytes of a list that an `:include:` names.
const MAX_LIST: u64 = 4 << 20;

/// A whole table.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    entries: HashMap<String, Alias>,
    /// Lines that could not be understood, and why.
    pub(super) faults: Vec<(usize, String)>,
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alias {
    /// The line that it begins in.
    pub(super) line: usize,
    /// Where it leads.
    pub(super) members: Vec<Member>,
}

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

impl Aliases {
    /// Reads a table. A line that can't be understood is noted and left out.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Aliases, String> {
        let mut aliases = Aliases::default();
        for (line, entry) in logical_lines(text) {
            if let Err(why) = aliases.add(line, &entry) {
                log::warn!("{}:{line}: {why}", path.display());
                aliases.faults.push((line, why));
            }
        }
        Ok(aliases)
    }

    fn add(&mut self, line: usize, entry: &str) -> Result<(), String> {
        let (key, value) = split_key(entry)?;
        if key.contains('@') {
            return Err(format!("an alias is a local name, \"{key}\" has a domain"));
        }
        let members = members(value)?;
        if members.is_empty() {
            return Err(format!("alias \"{key}\" leads nowhere"));
        }
        if let Some(first) = self.entries.get(&key) {
            return Err(format!("alias \"{key}\" is there already, in line {}", first.line));
        }
        self.entries.insert(key, Alias { line, members });
        Ok(())
    }

    /// The entry of a local name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&Alias> {
        self.entries.get(name)
    }
}

/// Lines with those that continue them (they begin with a space), each with its number. Comments
/// and empty lines neither are lines nor end one.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some((_, entry)) if line.starts_with([' ', '\t']) => {
                entry.push(' ');
                entry.push_str(content);
            }
            _ => lines.push((n + 1, content.to_string())),
        }
    }
    lines
}

/// Splits an entry at its colon: the key in lower case, without quotes, and the rest.
fn split_key(entry: &str) -> Result<(String, &str), String> {
    let no_colon = || "no colon after the alias's name".to_string();
    let (key, rest) = match entry.strip_prefix('"') {
        Some(quoted) => {
            let (key, rest) = quoted.split_once('"').ok_or("a quote without its end")?;
            (key, rest.trim_start().strip_prefix(':').ok_or_else(no_colon)?)
        }
        None => entry.split_once(':').ok_or_else(no_colon)?,
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("an alias without a name".to_string());
    }
    Ok((key.to_lowercase(), rest))
}

/// Reads a list of members, parted by commas.
pub(super) fn members(list: &str) -> Result<Vec<Member>, String> {
    let items = items(list)?;
    items.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).map(member).collect()
}

/// Reads the list that an `:include:` names. What is no plain file of bounded length is no list.
pub(super) fn read_list(path: &Path) -> Result<Vec<Member>, String> {
    let metadata = std::fs::metadata(path).map_err(|why| why.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_LIST {
        return Err(format!("no file of at most {MAX_LIST} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|why| why.to_string())?;
    included(&String::from_utf8_lossy(&bytes))
}

/// Reads a list, as that of an `:include:` or a user's `.forward`: members parted by commas or
/// newlines, with comments. An error says in which line, and why.
pub fn included(text: &str) -> Result<Vec<Member>, String> {
    let mut all = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if !line.trim_start().starts_with('#') {
            all.extend(members(line).map_err(|why| format!("line {}: {why}", n + 1))?);
        }
    }
    Ok(all)
}

/// Splits at commas that are not within quotes.
fn items(list: &str) -> Result<Vec<&str>, String> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in list.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => (),
        }
    }
    if quoted {
        return Err("a quote without its end".to_string());
    }
    items.push(&list[start..]);
    Ok(items)
}

fn member(item: &str) -> Result<Member, String> {
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

/// `local`, `local@domain`, or `Name <local@domain>`.
fn address(item: &str, text: String) -> Result<Member, String> {
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

    fn table(text: &str) -> Aliases {
        Aliases::parse(Path::new("aliases"), text).unwrap()
    }

    fn of(text: &str, key: &str) -> Vec<Member> {
        table(text).get(key).unwrap_or_else(|| panic!("{key} in {text}")).members.clone()
    }

    fn addresses(list: &[&str]) -> Vec<Member> {
        list.iter().map(|address| Member::Address(address.to_string())).collect()
    }

    #[test]
    fn entries_comments_and_continuations() {
        let text = "# head\n\nPostMaster: root\nstaff : alice,\n# between\n\n  bob@x.example,\n\tCarl <c@y.example>\n\"odd : name\": root\n";
        assert_eq!(of(text, "postmaster"), addresses(&["root"]));
        assert_eq!(of(text, "staff"), addresses(&["alice", "bob@x.example", "c@y.example"]));
        assert_eq!(of(text, "odd : name"), addresses(&["root"]));
        assert_eq!(table(text).get("staff").unwrap().line, 4);
        assert!(table(text).faults.is_empty());
    }

    #[test]
    fn every_kind_of_member() {
        let text = concat!(
            "a: \"|/bin/f -a, -b \\\"x\\\"\", |\"/bin/g c\", |/bin/h, /var/mail/x, \"/var/mail/y z\"\n",
            "b: \\alice, :include:/etc/list, \":Include: /etc/l\", \"a b\"@x.example, \"a b\"\n"
        );
        let command = |text: &str| Member::Command(text.into());
        let file = |text: &str| Member::File(text.into());
        assert_eq!(
            of(text, "a"),
            [
                command("/bin/f -a, -b \"x\""),
                command("/bin/g c"),
                command("/bin/h"),
                file("/var/mail/x"),
                file("/var/mail/y z")
            ]
        );
        assert_eq!(
            of(text, "b"),
            [
                Member::Account("alice".into()),
                Member::Include("/etc/list".into()),
                Member::Include("/etc/l".into()),
                Member::Address("\"a b\"@x.example".into()),
                Member::Address("a b".into())
            ]
        );
    }

    #[test]
    fn what_can_t_be_understood_is_noted_with_its_line() {
        let bad = table("x\ny:\nz@d: a\nq: \"a\nw: a b\n: a\nv: |\ni: :include:l\na: b\nA: c\nf: :fail:\n");
        let lines: Vec<usize> = bad.faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11], "{:?}", bad.faults);
        assert_eq!(bad.get("a").unwrap().members, addresses(&["b"]));
        assert!(bad.get("w").is_none());
    }

    #[test]
    fn included_lists_are_lines_or_commas() {
        assert_eq!(included("# list\na@x, b@x\n\n  c\n").unwrap(), addresses(&["a@x", "b@x", "c"]));
        assert!(included("a\nb c\n").unwrap_err().starts_with("line 2: "));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([a-z]{0,4}|[:,\"\\\\|/<>@# \n\t]|:include:|\\PC){0,40}") {
            let aliases = table(&text);
            prop_assert!(aliases.entries.values().all(|alias| !alias.members.is_empty()));
            let _ = included(&text);
        }
    }
}
