//! Tables: how they are named, and what `[tables]` says of them.
//!
//! A setting names a table by where it is (`"/path"`, `"cdb:/path"`, `"regex:/path"`) or by its name
//! in `[tables]`, where there is more to say: the query of a database.

use std::fmt;
use std::path::PathBuf;

use toml::de::DeValue;

use super::Config;
use super::file::{Entry, Reading};
use super::kind::{Kind, Text, wanted};
use super::nearest::{did_you_mean, quoted};
use super::table::TableWords;

/// Where the rows of a table are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A text file of rows.
    Text(PathBuf),
    /// A constant database, made by `postactl cdb`.
    Cdb(PathBuf),
    /// A text file of regular expressions.
    Patterns(PathBuf),
    /// A query of a SQLite database, `?1` standing for the key.
    Sqlite {
        /// The database.
        file: PathBuf,
        /// Gives the values in its first column.
        query: String,
    },
    /// A name of `[tables]`. In a configuration that was read, all are replaced by what they name.
    Named(String),
}

impl Source {
    /// Reads how a setting names a table.
    fn parse(text: &str) -> Result<Source, String> {
        if let Some((kind, path)) = text.split_once(':') {
            return match kind {
                "cdb" => absolute(path).map(Source::Cdb),
                "regex" => absolute(path).map(Source::Patterns),
                "sqlite" => {
                    Err("a database needs a query: describe it as [tables.NAME], and write \"NAME\" here"
                        .into())
                }
                _ => {
                    let hint = did_you_mean(kind, ["cdb", "regex"])
                        .unwrap_or_else(|| "; known are \"cdb:/path\" and \"regex:/path\"".into());
                    Err(format!("unknown kind of table {}{hint}", quoted(kind)))
                }
            };
        }
        if text.contains('/') {
            return absolute(text).map(Source::Text);
        }
        if text.is_empty() {
            return Err("the name of a table is wanted here".into());
        }
        Ok(Source::Named(text.to_string()))
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(format!("{} must be a path that begins with \"/\"", quoted(path)))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Text(path) => write!(f, "{}", path.display()),
            Source::Cdb(path) => write!(f, "cdb:{}", path.display()),
            Source::Patterns(path) => write!(f, "regex:{}", path.display()),
            Source::Sqlite { file, .. } => write!(f, "sqlite:{}", file.display()),
            Source::Named(name) => f.write_str(name),
        }
    }
}

/// A table.
pub(super) struct Table;
/// A list of tables that are asked in turn; one may stand alone, without brackets.
pub(super) struct Tables;

impl Kind for Table {
    type Value = Source;

    fn word(&self) -> String {
        "table".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Source, String> {
        Source::parse(&Text.read(value)?)
    }
}

impl Kind for Tables {
    type Value = Vec<Source>;

    fn word(&self) -> String {
        "list of tables".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<Source>, String> {
        match value.as_array() {
            None => Table.read(value).map(|source| vec![source]),
            Some(list) => list.iter().map(|entry| Table.read(entry.get_ref())).collect(),
        }
    }
}

/// Reads all of `[tables]`.
pub(super) fn read(entry: &mut Entry<'_, '_>) -> Vec<(String, Source)> {
    let mut tables = Vec::new();
    for (name, place, value) in entry.all() {
        if name.is_empty() || name.contains(['/', ':']) {
            let what = format!("{} can't be the name of a table: it would look like a path", quoted(name));
            entry.reading.fault(place.start, what);
            continue;
        }
        let Some(table) = value.get_ref().as_table() else {
            let what = wanted("a table such as { kind = \"sqlite\", file = …, query = … }", value.get_ref());
            entry.reading.fault(value.span().start, what);
            continue;
        };
        let faults = entry.reading.count();
        let mut found = entry.entry_of(name, table);
        let words = TableWords::read(&mut found);
        let reading = found.finish();
        match described(words) {
            Ok(source) => tables.push((name.to_string(), source)),
            // A word that could not be read may be the one that is missing.
            Err(_) if reading.count() > faults => (),
            Err(what) => reading.fault(place.start, what.to_string()),
        }
    }
    tables
}

fn described(words: TableWords) -> Result<Source, &'static str> {
    let TableWords { kind, file, query } = words;
    let file = file.ok_or("file must say where the table is")?;
    if (kind == Sort::Sqlite) == query.is_empty() {
        return Err("kind = \"sqlite\" needs a query, and no other kind has one");
    }
    if kind == Sort::Sqlite && !query.contains('?') {
        return Err("query must have ?1 in the place of the key");
    }
    Ok(match kind {
        Sort::Text => Source::Text(file),
        Sort::Cdb => Source::Cdb(file),
        Sort::Patterns => Source::Patterns(file),
        Sort::Sqlite => Source::Sqlite { file, query },
    })
}

/// What `kind` may say of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Text,
    Cdb,
    Patterns,
    Sqlite,
}

impl Sort {
    pub(super) const WORDS: &[(&str, Sort)] =
        &[("text", Sort::Text), ("cdb", Sort::Cdb), ("regex", Sort::Patterns), ("sqlite", Sort::Sqlite)];
}

/// Puts what `[tables]` says in the place of its names, and notes contradictions.
pub(super) fn resolve(config: &mut Config, reading: &mut Reading<'_>) {
    let tables = std::mem::take(&mut config.tables);
    let mut named = |setting: &str, source: &mut Source| {
        let Source::Named(name) = source else { return };
        match tables.iter().find(|(known, _)| known == name) {
            Some((_, found)) => *source = found.clone(),
            None => {
                let hint = did_you_mean(name, tables.iter().map(|(known, _)| known.as_str()))
                    .unwrap_or_else(|| "; a file is named by its whole path".into());
                let what = format!("there is no [tables.{name}]{hint}");
                reading.fault_of(setting, format!("{}: {what}", last_word(setting)));
            }
        }
    };
    named("local.aliases", &mut config.local.aliases);
    let routing = &mut config.routing;
    for (setting, sources) in [
        ("routing.virtual_aliases", &mut routing.virtual_aliases),
        ("routing.canonical", &mut routing.canonical),
        ("routing.sender_canonical", &mut routing.sender_canonical),
        ("routing.recipient_canonical", &mut routing.recipient_canonical),
        ("routing.domains", &mut routing.domains),
    ] {
        sources.iter_mut().for_each(|source| named(setting, source));
    }
    if matches!(config.local.aliases, Source::Patterns(_)) {
        // A stranger's words would become parts of a command.
        let what = "aliases: regular expressions can't be aliases of accounts, since those may run commands";
        reading.fault_of("local.aliases", what.to_string());
    }
    config.tables = tables;
}

fn last_word(setting: &str) -> &str {
    setting.rsplit('.').next().unwrap_or(setting)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::parse;
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        parse(Path::new("posta.toml"), text)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn tables_are_named_by_path_or_by_name() {
        let config = read(
            "[tables.people]\nkind = 'sqlite'\nfile = '/p.db'\nquery = 'SELECT a FROM t WHERE k = ?1'\n\
             [tables]\nbig = { kind = 'cdb', file = '/big.cdb' }\n\
             [local]\naliases = 'cdb:/etc/aliases.cdb'\n\
             [routing]\nvirtual_aliases = ['/v', 'people', 'big', 'regex:/r']\ncanonical = '/c'\n",
        )
        .unwrap();
        assert_eq!(config.local.aliases, Source::Cdb("/etc/aliases.cdb".into()));
        assert_eq!(config.routing.canonical, [Source::Text("/c".into())]);
        let query = "SELECT a FROM t WHERE k = ?1".to_string();
        let sqlite = Source::Sqlite { file: "/p.db".into(), query };
        let wanted = [
            Source::Text("/v".into()),
            sqlite,
            Source::Cdb("/big.cdb".into()),
            Source::Patterns("/r".into()),
        ];
        assert_eq!(config.routing.virtual_aliases, wanted);
    }

    #[test]
    fn faults_have_their_places() {
        for (text, fault) in [
            (
                "[tables]\npeople = { kind = 'cdb', file = '/p' }\n[routing]\ncanonical = 'peple'",
                "posta.toml:4:13: canonical: there is no [tables.peple]; did you mean \"people\"?",
            ),
            (
                "[routing]\ncanonical = 'x'",
                "posta.toml:2:13: canonical: there is no [tables.x]; a file is named by its whole path",
            ),
            (
                "[routing]\ncanonical = 'cdbb:/x'",
                "posta.toml:2:13: canonical: unknown kind of table \"cdbb\"; did you mean \"cdb\"?",
            ),
            (
                "[routing]\ncanonical = ['cdb:x']",
                "posta.toml:2:13: canonical: \"x\" must be a path that begins with \"/\"",
            ),
            ("[local]\naliases = 'regex:/x'", "posta.toml:2:11: aliases: regular expressions"),
            (
                "[tables]\nx = { kind = 'sqlite', file = '/x' }",
                "posta.toml:2:1: kind = \"sqlite\" needs a query",
            ),
            (
                "[tables]\nx = { kind = 'text', file = '/x', query = 'y' }",
                "posta.toml:2:1: kind = \"sqlite\" needs a query",
            ),
            ("[tables]\nx = { kind = 'cdb' }", "posta.toml:2:1: file must say"),
            ("[tables]\nx = { kind = 'csv', file = '/x' }", "posta.toml:2:14: kind: unknown value \"csv\""),
            ("[tables]\nx = 5", "posta.toml:2:5: a table such as"),
            ("[tables]\n'/x' = { file = '/x' }", "posta.toml:2:1: \"/x\" can't be the name of a table"),
        ] {
            let faults = read(text).expect_err(text);
            assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
        }
    }
}
