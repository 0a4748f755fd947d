//! Lists of regular expressions.
//!
//! ```text
//! # the first that matches counts
//! /^(.*)@old\.example$/        $1@new.example
//! !/@example\.org$/            elsewhere@example.org    where it does not match
//! ```
//!
//! Expressions are those of the crate regex, which take time in proportion to the key, whatever they
//! are. Case doesn't count unless the flag `i` turns that round; `s` lets `.` match a line end, `x`
//! allows spaces and comments within. In the value, `$1`, `${1}` and `$(1)` are what a group matched,
//! and `$$` is a dollar.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::{Captures, Regex, RegexBuilder};

use super::text::logical_lines;
use super::watched::Content;
use super::{Row, TableError};

/// Most memory of one expression.
const MAX_SIZE: usize = 1 << 20;

/// A list.
#[derive(Debug)]
pub(super) struct Patterns {
    path: PathBuf,
    name: Arc<str>,
    rules: Vec<Rule>,
    faults: Vec<TableError>,
}

#[derive(Debug)]
struct Rule {
    line: usize,
    expression: Regex,
    /// It counts where the expression does not match.
    negated: bool,
    value: Vec<Piece>,
}

/// A part of a value.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Patterns {
    /// Reads a list. While it has a line that can't be understood, a key that no line before that one
    /// matches is a failure: nobody knows what was meant.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Patterns, TableError> {
        let name = path.display().to_string().into();
        let mut list = Patterns { path: path.to_path_buf(), name, rules: Vec::new(), faults: Vec::new() };
        for (line, entry) in logical_lines(text) {
            match rule(line, &entry) {
                Ok(rule) => list.rules.push(rule),
                Err(why) => list.faults.push(TableError::Line { path: list.path.clone(), line, why }),
            }
        }
        Ok(list)
    }

    /// The value of the first expression that a key matches.
    pub(super) fn find(&self, key: &str) -> Result<Option<Row>, TableError> {
        let faulty = self.faults.first();
        let until = faulty.map_or(usize::MAX, |fault| match fault {
            TableError::Line { line, .. } => *line,
            _ => 0,
        });
        for rule in self.rules.iter().take_while(|rule| rule.line < until) {
            if let Some(value) = rule.apply(key) {
                return Ok(Some(Row {
                    value: value.into(),
                    table: self.name.clone(),
                    line: Some(rule.line),
                }));
            }
        }
        faulty.map_or(Ok(None), |fault| Err(fault.clone()))
    }
}

impl Content for Patterns {
    fn faults(&self) -> &[TableError] {
        &self.faults
    }
}

impl Rule {
    fn apply(&self, key: &str) -> Option<String> {
        if self.negated {
            return (!self.expression.is_match(key)).then(|| self.value(None));
        }
        let groups = self.expression.captures(key)?;
        Some(self.value(Some(&groups)))
    }

    fn value(&self, groups: Option<&Captures<'_>>) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Group(n) => {
                let group = groups.and_then(|groups| groups.get(*n));
                group.map_or_else(String::new, |group| group.as_str().to_string())
            }
        };
        self.value.iter().map(piece).collect()
    }
}

/// Reads `/expression/flags value`.
fn rule(line: usize, entry: &str) -> Result<Rule, String> {
    let (negated, rest) = match entry.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, entry),
    };
    let rest = rest.strip_prefix('/').ok_or("an expression begins with /")?;
    let end = end_of(rest).ok_or("an expression ends with /")?;
    let (expression, after) = (&rest[..end], &rest[end + 1..]);
    let (flags, value) = after.split_once(char::is_whitespace).ok_or("an expression without a value")?;
    let mut builder = RegexBuilder::new(expression);
    builder.case_insensitive(true).size_limit(MAX_SIZE);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(false),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            other => {
                return Err(format!("unknown flag \"{other}\" behind an expression; known are i, s and x"));
            }
        };
    }
    // The last line of the library's words says what is wrong; those above draw it.
    let in_a_line = |why: regex::Error| why.to_string().lines().last().unwrap_or_default().trim().to_string();
    let expression = builder.build().map_err(in_a_line)?;
    let value = pieces(value.trim())?;
    let groups = if negated { 0 } else { expression.captures_len() };
    for piece in &value {
        if let Piece::Group(n) = piece
            && *n >= groups
        {
            return Err(format!("${n}, but the expression has no such group"));
        }
    }
    Ok(Rule { line, expression, negated, value })
}

/// Where the slash is that ends an expression: one without a backslash before it.
fn end_of(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '/' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end.then_some(at)
    })
}

/// Takes a value apart at its dollars.
fn pieces(value: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        pieces.push(Piece::Text(rest[..at].to_string()));
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$".into()));
            rest = after;
            continue;
        }
        let (number, after) = group(after).ok_or("a $ is followed by a number; $$ is a dollar")?;
        pieces.push(Piece::Group(number));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_string()));
    Ok(pieces)
}

/// The number of a group behind its dollar, and what follows.
fn group(text: &str) -> Option<(usize, &str)> {
    let (inner, closing) = match text.chars().next()? {
        '{' => (&text[1..], "}"),
        '(' => (&text[1..], ")"),
        _ => (text, ""),
    };
    let end = inner.find(|c: char| !c.is_ascii_digit()).unwrap_or(inner.len());
    let number = inner[..end].parse().ok()?;
    Some((number, inner[end..].strip_prefix(closing)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Patterns {
        Patterns::parse(Path::new("list"), text).unwrap()
    }

    fn value(text: &str, key: &str) -> Option<String> {
        list(text).find(key).unwrap().map(|row| row.value.to_string())
    }

    #[test]
    fn the_first_that_matches_counts() {
        let text = "# c\n/^(.+)-(\\d+)@x$/  $2.${1}@y,\n   $$$(1)@z\n/@x$/ any@y\n!/x/ none@y\n";
        assert_eq!(value(text, "bob-12@x").as_deref(), Some("12.bob@y, $bob@z"));
        assert_eq!(value(text, "bob@x").as_deref(), Some("any@y"));
        assert_eq!(value(text, "bob@q").as_deref(), Some("none@y"));
        assert_eq!(value("/x@/ y", "a@b"), None);
        assert_eq!(list(text).find("bob@x").unwrap().unwrap().line, Some(4));
    }

    #[test]
    fn flags_and_slashes() {
        assert_eq!(value("/A\\/b/ y", "a/B").as_deref(), Some("y"));
        assert_eq!(value("/A/i y", "a"), None);
        assert_eq!(value("/a b/x y", "ab").as_deref(), Some("y"));
    }

    #[test]
    fn a_faulty_line_hides_what_stands_below_it() {
        let text = "/a/ one\n/(/ two\n/b/ three\n";
        assert_eq!(value(text, "a").as_deref(), Some("one"));
        let why = list(text).find("b").unwrap_err().to_string();
        assert!(why.starts_with("list:2: ") && why.contains("unclosed group"), "{why}");
        for bad in ["a", "/a", "/a/", "/a/q x", "/a/ $x", "/a/ $1", "/a/ ${0", "!/(a)/ $1", "/a/ $"] {
            assert_eq!(list(bad).faults.len(), 1, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([!/$(){}\\\\^.*+?\\[\\]| \n]|[a-z0-9]|\\PC){0,40}", key in "\\PC{0,10}") {
            let _ = list(&text).find(&key);
        }
    }
}
