//! Reading posta.toml: every value with its place, every fault with line and column.
//!
//! A [`Reading`] is one file being read. It goes through the file's tables as [`Entry`]s; each
//! setting that a row asks for is taken from there, and what nobody asked for is an unknown
//! setting. A faulty value is reported and its default stands in, so that one reading finds all
//! faults.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::unix::users;

use super::kind::{Kind, wanted};
use super::nearest::{did_you_mean, quoted};
use super::{Config, Fault, check, domain, table};

/// A file being read: its faults so far, and where each setting stands.
pub(super) struct Reading<'f> {
    path: &'f Path,
    text: &'f str,
    faults: Vec<Fault>,
    places: HashMap<String, Range<usize>>,
}

impl<'f> Reading<'f> {
    /// Begins to read `text`, which came from `path`.
    pub(super) fn new(path: &'f Path, text: &'f str) -> Reading<'f> {
        Reading { path, text, faults: Vec::new(), places: HashMap::new() }
    }

    /// Notes a fault at a byte of the text.
    pub(super) fn fault(&mut self, at: usize, what: String) {
        let (line, column) = line_and_column(self.text, at);
        self.faults.push(Fault { file: self.path.to_path_buf(), line, column, what });
    }

    /// Notes a fault of a setting, at its place in the file. One that is not in the file stands at
    /// its start.
    pub(super) fn fault_of(&mut self, setting: &str, what: String) {
        let at = self.places.get(setting).map_or(0, |place| place.start);
        self.fault(at, what);
    }

    /// How many faults there are so far.
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }

    /// Whether a setting is in the file.
    pub(super) fn is_set(&self, setting: &str) -> bool {
        self.places.contains_key(setting)
    }

    /// The line that a setting stands in.
    pub(super) fn line_of(&self, setting: &str) -> usize {
        self.places.get(setting).map_or(1, |place| line_and_column(self.text, place.start).0)
    }

    /// Notes what the parser found. Returns the lines that it could not read.
    pub(super) fn malformed(&mut self, errors: impl IntoIterator<Item = toml::de::Error>) -> Vec<usize> {
        let begin = self.faults.len();
        for error in errors {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            self.fault(at, error.message().replace('\n', ", "));
        }
        self.faults[begin..].iter().map(|fault| fault.line).collect()
    }

    /// All faults in the order of the file, each place once; of lines in `malformed` only what the
    /// parser said, since all else there follows from it.
    pub(super) fn faults(mut self, malformed: &[usize]) -> Vec<Fault> {
        let mut said: Vec<(usize, usize)> = Vec::new();
        let mut left = malformed.len();
        self.faults.retain(|fault| {
            let by_parser = left > 0;
            left = left.saturating_sub(1);
            let place = (fault.line, fault.column);
            let new = if by_parser { !said.contains(&place) } else { !malformed.contains(&fault.line) };
            said.push(place);
            new
        });
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        self.faults
    }
}

/// The line and the column of a byte, both from 1; a column is a character.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A table of the file being read. `name` is its settings' prefix, as `smtpd.`.
pub(super) struct Entry<'r, 'f> {
    pub(super) reading: &'r mut Reading<'f>,
    name: String,
    table: &'r DeTable<'r>,
    asked: Vec<&'static str>,
    /// Its keys are no settings, but names that the administrator gives.
    open: bool,
}

impl<'r, 'f> Entry<'r, 'f> {
    /// The table `table`, whose settings' names begin with `name`.
    pub(super) fn new(reading: &'r mut Reading<'f>, name: String, table: &'r DeTable<'r>) -> Self {
        Entry { reading, name, table, asked: Vec::new(), open: false }
    }

    /// The value of a setting, or its default where it isn't set or is faulty.
    pub(super) fn setting<K: Kind>(&mut self, key: &'static str, kind: &K, default: &str) -> K::Value {
        let read = self.value(key).map(|value| (value.span(), kind.read(value.get_ref())));
        match read {
            Some((_, Ok(value))) => return value,
            Some((span, Err(what))) => self.reading.fault(span.start, format!("{key}: {what}")),
            None => (),
        }
        default_of(kind, default)
    }

    /// A table within this one, read by `read`; an empty one where there is none.
    pub(super) fn section<S>(&mut self, key: &'static str, read: impl FnOnce(&mut Entry<'_, 'f>) -> S) -> S {
        let empty = DeTable::new();
        let name = format!("{}{key}.", self.name);
        let mut table = &empty;
        if let Some(value) = self.value(key) {
            match value.get_ref() {
                DeValue::Table(found) => table = found,
                other => {
                    let what = wanted(&format!("a table [{key}]"), other);
                    self.reading.fault(value.span().start, what);
                }
            }
        }
        let mut entry = Entry::new(self.reading, name, table);
        let section = read(&mut entry);
        entry.finish();
        section
    }

    /// The tables `[[key]]`, each read by `read`; one empty one where there are none.
    pub(super) fn each<S>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Entry<'_, 'f>) -> S,
    ) -> Vec<S> {
        let Some(value) = self.value(key) else {
            return vec![self.section(key, read)];
        };
        let DeValue::Array(list) = value.get_ref() else {
            let what = wanted(&format!("[[{key}]]"), value.get_ref());
            self.reading.fault(value.span().start, what);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (n, value) in list.iter().enumerate() {
            let name = format!("{}{key}.{n}.", self.name);
            let Some(table) = value.get_ref().as_table() else {
                let what = wanted(&format!("a table of [[{key}]]"), value.get_ref());
                self.reading.fault(value.span().start, what);
                continue;
            };
            let mut entry = Entry::new(self.reading, name, table);
            sections.push(read(&mut entry));
            entry.finish();
        }
        sections
    }

    /// Every key of this table with its value, in the order of the file: for a table whose keys are
    /// names that the administrator gives.
    pub(super) fn all(&mut self) -> Vec<(&'r str, Range<usize>, &'r Spanned<DeValue<'r>>)> {
        self.open = true;
        let mut all: Vec<_> =
            self.table.iter().map(|(key, value)| (&**key.get_ref(), key.span(), value)).collect();
        all.sort_by_key(|(_, span, _)| span.start);
        all
    }

    /// The entry of a table found by [`Entry::all`].
    pub(super) fn entry_of<'s>(&'s mut self, key: &str, table: &'s DeTable<'s>) -> Entry<'s, 'f> {
        let name = format!("{}{key}.", self.name);
        Entry::new(self.reading, name, table)
    }

    /// Every key that nobody asked for is unknown. Gives the reading back.
    pub(super) fn finish(self) -> &'r mut Reading<'f> {
        for (key, value) in self.table.iter().filter(|_| !self.open) {
            let word = &**key.get_ref();
            if self.asked.contains(&word) {
                continue;
            }
            let mut what = format!("unknown setting {}", quoted(word));
            what += &match did_you_mean(word, self.asked.iter().copied()) {
                Some(hint) => hint,
                None => self.elsewhere(word, value.get_ref()),
            };
            self.reading.fault(key.span().start, what);
        }
        self.reading
    }

    /// What an unknown word that is near to none here may have been meant for.
    fn elsewhere(&self, word: &str, value: &DeValue<'_>) -> String {
        if self.name.starts_with("domains.") && value.is_table() {
            let name = self.name.trim_start_matches("domains.");
            return format!("; a domain is written in quotes: {}", quoted(&format!("{name}{word}")));
        }
        let row = table::rows().find(|row| row.name.rsplit('.').next() == Some(word));
        match row.and_then(|row| row.name.split_once('.')) {
            Some(("listen", _)) => "; it belongs under [[listen]]".to_string(),
            Some((section, _)) => format!("; it belongs under [{section}]"),
            None if row.is_some() => "; it belongs above all tables".to_string(),
            None => format!("; known here are {}", self.asked.join(", ")),
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.asked.push(key);
        let value = self.table.get(key)?;
        self.reading.places.insert(format!("{}{key}", self.name), value.span());
        Some(value)
    }
}

/// Everything that `read` reads, where nothing is set.
#[cfg(test)]
pub(super) fn unset<S>(read: impl FnOnce(&mut Entry<'_, '_>) -> S) -> S {
    let mut reading = Reading::new(Path::new(""), "");
    read(&mut Entry::new(&mut reading, String::new(), &DeTable::new()))
}

/// Reads the default of a row.
fn default_of<K: Kind>(kind: &K, default: &str) -> K::Value {
    let value = DeValue::parse(default).expect("a row's default is TOML: see the test of all rows");
    kind.read(value.get_ref()).expect("a row's default is of its kind: see the test of all rows")
}

/// Reads a whole file: its text, which came from `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Vec<Fault>> {
    let mut reading = Reading::new(path, text);
    let (readable, lone) = without_lone_words(text);
    let (document, errors) = DeTable::parse_recoverable(&readable);
    let malformed = reading.malformed(lone.into_iter().chain(errors));
    let mut entry = Entry::new(&mut reading, String::new(), document.get_ref());
    let mut config = Config::read(&mut entry);
    entry.finish();
    complete(&mut config, &mut reading);
    check::contradictions(&config, &mut reading);
    let faults = reading.faults(&malformed);
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// The parser goes on after most errors, but not after a word that is no setting: it takes the rest
/// of the file for the word's. So lines with such words are made blank, and their errors given too.
fn without_lone_words(text: &str) -> (String, Vec<toml::de::Error>) {
    const MOST: usize = 50;
    let mut readable = text.to_string();
    let mut found = Vec::new();
    while found.len() < MOST {
        let (_, errors) = DeTable::parse_recoverable(&readable);
        let lone = errors.into_iter().find_map(|error| {
            let at = readable.floor_char_boundary(error.span()?.start);
            let start = readable[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let end = readable[at..].find('\n').map_or(readable.len(), |newline| at + newline);
            let line = &readable[start..end];
            let is_lone =
                !line.contains('=') && !line.trim_start().starts_with('[') && !line.trim().is_empty();
            is_lone.then_some((error, start..end))
        });
        let Some((error, line)) = lone else { break };
        let blank = " ".repeat(line.len());
        readable.replace_range(line, &blank);
        found.push(error);
    }
    (readable, found)
}

/// Puts in what the system knows where nothing is set.
fn complete(config: &mut Config, reading: &mut Reading<'_>) {
    if config.hostname.is_empty() {
        match users::host_name() {
            Ok(name) => config.hostname = name,
            Err(why) => {
                let what = format!("hostname: the system doesn't say its name ({why}); set it here");
                reading.fault_of("hostname", what);
            }
        }
    }
    let name = config.hostname.trim_end_matches('.').to_lowercase();
    domain::complete(&mut config.domains, &name);
    config.hostname = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters() {
        let text = "a = 1\nä = \"ü\" # x";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, 5), (1, 6));
        assert_eq!(line_and_column(text, 6), (2, 1));
        assert_eq!(line_and_column(text, text.find('#').unwrap()), (2, 9));
        assert_eq!(line_and_column(text, 9999).0, 2);
    }
}
