//! Text files of rows.
//!
//! ```text
//! # a comment
//! info@example.org    alice@example.org,      a pair: the key, space, the value
//!                     bob@example.net         a line that begins with space goes on
//! staff: alice, bob                           an alias: the key, a colon, the value
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::watched::{Absent, Content, Parse};
use super::{Row, TableError};
use crate::route::alias;

/// How rows are written, and what their values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `name: member, member`, as aliases(5) has it. A file that isn't there is an empty one.
    Aliases,
    /// `address  address, address`
    Addresses,
    /// `domain  words of an entry of [domains]`
    Domains,
}

impl Form {
    /// What the absence of a text file of this form means.
    pub(super) fn absent(self) -> Absent {
        if self == Form::Aliases { Absent::Empty } else { Absent::Failure }
    }

    /// The reader of a text file of this form.
    pub(super) fn parser(self) -> Parse<Rows> {
        match self {
            Form::Aliases => |path, text| Ok(Rows::parse(path, text, Form::Aliases)),
            Form::Addresses => |path, text| Ok(Rows::parse(path, text, Form::Addresses)),
            Form::Domains => |path, text| Ok(Rows::parse(path, text, Form::Domains)),
        }
    }

    /// Splits an entry into its key in lower case and its value.
    fn split(self, entry: &str) -> Result<(String, &str), String> {
        match self {
            Form::Aliases => split_at_colon(entry),
            Form::Addresses | Form::Domains => Ok(split_at_space(entry)),
        }
    }

    /// Whether a row makes sense.
    fn check(self, key: &str, value: &str) -> Result<(), String> {
        match self {
            Form::Aliases if key.contains('@') => {
                Err(format!("an alias is a local name, \"{key}\" has a domain"))
            }
            Form::Aliases => alias::check(value, alias::member),
            Form::Addresses | Form::Domains if key.ends_with(':') => {
                Err("a key that ends with a colon; aliases belong in the table of local.aliases".to_string())
            }
            Form::Addresses => alias::check(value, alias::address_only),
            Form::Domains => crate::config::domain_rule(key, value).map(drop),
        }
        .map_err(|why| if why.is_empty() { format!("\"{key}\" leads nowhere") } else { why })
    }
}

/// A table in memory.
#[derive(Debug)]
pub(in crate::route) struct Rows {
    path: PathBuf,
    name: Arc<str>,
    rows: HashMap<Box<str>, Entry>,
    faults: Vec<TableError>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    /// What is wrong with the row, or its value.
    value: Result<Arc<str>, String>,
}

impl Rows {
    /// Reads a table. A row that makes no sense is a fault, and who asks for its key hears of it; a
    /// line without a key is a fault and left out.
    pub(in crate::route) fn parse(path: &Path, text: &str, form: Form) -> Rows {
        let name = path.display().to_string().into();
        let mut table = Rows { path: path.to_path_buf(), name, rows: HashMap::new(), faults: Vec::new() };
        for (line, entry) in logical_lines(text) {
            if let Err(why) = table.add(line, &entry, form) {
                table.faults.push(TableError::Line { path: table.path.clone(), line, why });
            }
        }
        table
    }

    fn add(&mut self, line: usize, entry: &str, form: Form) -> Result<(), String> {
        let (key, value) = form.split(entry)?;
        if let Some(first) = self.rows.get(key.as_str()) {
            return Err(format!("\"{key}\" is there already, in line {}", first.line));
        }
        let checked = form.check(&key, value);
        let value = checked.clone().map(|()| Arc::from(value));
        self.rows.insert(key.into(), Entry { line, value });
        checked
    }

    /// The row of a key.
    pub(in crate::route) fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        let Some(entry) = self.rows.get(key) else { return Ok(None) };
        match &entry.value {
            Ok(value) => {
                Ok(Some(Row { value: value.clone(), table: self.name.clone(), line: Some(entry.line) }))
            }
            Err(why) => Err(TableError::Line { path: self.path.clone(), line: entry.line, why: why.clone() }),
        }
    }

    /// Shows every good row with its key, in the order of the file.
    pub(super) fn each(&self, show: &mut dyn FnMut(&str, &Row)) {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(_, entry)| entry.line);
        for (key, entry) in rows {
            if let Ok(value) = &entry.value {
                show(key, &Row { value: value.clone(), table: self.name.clone(), line: Some(entry.line) });
            }
        }
    }

    /// Every key with its value, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows.iter().filter_map(|(key, entry)| Some((&**key, &**entry.value.as_ref().ok()?)))
    }
}

impl Content for Rows {
    fn faults(&self) -> &[TableError] {
        &self.faults
    }
}

/// Lines with those that continue them (they begin with a space), each with its number. Comments
/// and empty lines neither are lines nor end one.
pub(super) fn logical_lines(text: &str) -> Vec<(usize, String)> {
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

/// Splits an alias at its colon: the key in lower case, without quotes, and the rest.
fn split_at_colon(entry: &str) -> Result<(String, &str), String> {
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
    Ok((key.to_lowercase(), rest.trim()))
}

/// Splits a pair at the first space that is not within quotes. A key's quotes are those of an
/// address (`"a b"@example.org`): they are undone, as tables are asked for bare names.
fn split_at_space(entry: &str) -> (String, &str) {
    let mut quoted = false;
    let end = entry.find(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    });
    let (key, value) = entry.split_at(end.unwrap_or(entry.len()));
    (key.replace('"', "").to_lowercase(), value.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str, form: Form) -> Rows {
        Rows::parse(Path::new("table"), text, form)
    }

    fn value(table: &Rows, key: &str) -> Option<String> {
        table.find(key).unwrap().map(|row| format!("{row} {}", row.value))
    }

    fn faulty_lines(table: &Rows) -> Vec<usize> {
        let line = |fault: &TableError| match fault {
            TableError::Line { line, .. } => *line,
            other => panic!("{other}"),
        };
        table.faults.iter().map(line).collect()
    }

    #[test]
    fn aliases_have_comments_and_continuations() {
        let text = "# head\n\nPostMaster: root\nstaff : alice,\n# between\n\n  bob@x.example,\n\tCarl <c@y.example>\n\"odd : name\": root\n";
        let table = table(text, Form::Aliases);
        assert_eq!(value(&table, "postmaster").unwrap(), "table:3 root");
        assert_eq!(value(&table, "staff").unwrap(), "table:4 alice, bob@x.example, Carl <c@y.example>");
        assert_eq!(value(&table, "odd : name").unwrap(), "table:9 root");
        assert_eq!(value(&table, "alice"), None);
        assert!(table.faults.is_empty());
    }

    #[test]
    fn pairs_are_parted_by_space() {
        let text = "# x\nInfo@Example.org\talice@x.example,\n   bob\n@old.example @new.example\n\
                    \"a b\"@x.example c@x.example\n";
        let table = table(text, Form::Addresses);
        assert_eq!(value(&table, "info@example.org").unwrap(), "table:2 alice@x.example, bob");
        assert_eq!(value(&table, "@old.example").unwrap(), "table:4 @new.example");
        assert_eq!(value(&table, "a b@x.example").unwrap(), "table:5 c@x.example");
        assert!(table.faults.is_empty(), "{:?}", table.faults);
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_and_no_absence() {
        let text = "x\ny:\nz@d: a\nq: \"a\nw: a b\n: a\nv: |\ni: :include:l\na: b\nA: c\nf: :fail:\n";
        let bad = table(text, Form::Aliases);
        assert_eq!(faulty_lines(&bad), [1, 2, 3, 4, 5, 6, 7, 8, 10, 11], "{:?}", bad.faults);
        assert_eq!(value(&bad, "a").unwrap(), "table:9 b");
        for key in ["y", "z@d", "q", "w", "v", "i", "f"] {
            assert!(bad.find(key).is_err(), "{key}");
        }
        let pairs =
            table("a@x\nb@x |/bin/false\nc@x /file\nd@x :include:/list\n@y @z\ne: f\n", Form::Addresses);
        assert_eq!(faulty_lines(&pairs), [1, 2, 3, 4, 6], "{:?}", pairs.faults);
        let domains =
            table("x.example relay = \"mx\"\ny.example { lmtp = \"unix:/l\" }\nz x\n", Form::Domains);
        assert_eq!(faulty_lines(&domains), [3], "{:?}", domains.faults);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([a-z]{0,4}|[:,\"\\\\|/<>@# \n\t=]|:include:|\\PC){0,40}") {
            for form in [Form::Aliases, Form::Addresses, Form::Domains] {
                let rows = table(&text, form);
                prop_assert!(rows.all().all(|(_, value)| !value.is_empty()));
            }
        }
    }
}
