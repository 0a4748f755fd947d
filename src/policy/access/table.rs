//! A table of rules. Pure: a text goes in, rows or faults come out.
//!
//! Each line is `pattern action text`, separated by blanks; a line that begins with `#` is a remark.
//! The first row that fits decides.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use crate::config::nearest::did_you_mean;

use super::pattern::{Kind, Pattern, Subject};

/// Most faults that are told of at once.
const MOST_FAULTS: usize = 20;

/// What is to be done about whom a row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// This table has nothing against it; a client is also spared the checks of its name.
    Accept,
    /// As accept, and this client may send to any address.
    Relay,
    /// Refused for now (450).
    Later,
    /// Refused for good (550, 554).
    Refuse,
    /// Accepted, and thrown away.
    Discard,
}

const WORDS: [(&str, Action); 5] = [
    ("accept", Action::Accept),
    ("relay", Action::Relay),
    ("later", Action::Later),
    ("refuse", Action::Refuse),
    ("discard", Action::Discard),
];

impl Action {
    /// As it stands in a table.
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(_, action)| *action == self).map_or("", |(word, _)| word)
    }
}

/// A row that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// What is to be done.
    pub action: Action,
    /// The administrator's words.
    pub text: &'a str,
    /// From 1.
    pub line: usize,
}

/// A table.
#[derive(Debug, Default)]
pub struct Table {
    rows: HashMap<Pattern, Row>,
    /// Which lengths of networks there are, for IPv4 and for IPv6.
    bits: [Vec<u8>; 2],
    first_name: Option<usize>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    action: Action,
    text: Box<str>,
}

/// A fault: line and column, from 1, and what is wrong.
pub type Misread = (usize, usize, String);

impl Table {
    /// Reads a table of that kind; an error is all faults, but no more than can be read.
    pub fn parse(kind: Kind, text: &str) -> Result<Table, Vec<Misread>> {
        let (mut table, mut faults) = (Table::default(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if let Err((column, what)) = table.read_row(kind, index + 1, line) {
                faults.push((index + 1, column, what));
                if faults.len() == MOST_FAULTS {
                    break;
                }
            }
        }
        if faults.is_empty() { Ok(table) } else { Err(faults) }
    }

    fn read_row(&mut self, kind: Kind, number: usize, line: &str) -> Result<(), (usize, String)> {
        let column = |rest: &str| line[..line.len() - rest.len()].chars().count() + 1;
        let start = line.trim_start();
        let (pattern, rest) = word(start);
        let pattern = Pattern::parse(kind, pattern).map_err(|what| (column(start), what))?;
        let (action, text) = word(rest);
        let action = read_action(kind, action).map_err(|what| (column(rest), what))?;
        if let Some(odd) = text.find(char::is_control) {
            return Err((column(&text[odd..]), "control characters are not allowed".to_string()));
        }
        if pattern.is_of_a_name() {
            self.first_name = self.first_name.or(Some(number));
        }
        if let Pattern::Network(address, bits) = pattern {
            let lengths = &mut self.bits[usize::from(address.is_ipv6())];
            if !lengths.contains(&bits) {
                lengths.push(bits);
            }
        }
        match self.rows.entry(pattern) {
            Entry::Occupied(before) => {
                Err((1, format!("this pattern stands in line {} already, which decides", before.get().line)))
            }
            Entry::Vacant(place) => {
                place.insert(Row { line: number, action, text: text.trim_end().into() });
                Ok(())
            }
        }
    }

    /// The first row that means this one.
    pub fn find(&self, subject: &Subject<'_>) -> Option<Found<'_>> {
        let bits = |address: IpAddr| self.bits[usize::from(address.is_ipv6())].clone();
        let rows = subject.patterns(bits).into_iter().filter_map(|pattern| self.rows.get(&pattern));
        let row = rows.min_by_key(|row| row.line)?;
        Some(Found { action: row.action, text: &row.text, line: row.line })
    }

    /// The first line that is about a client's name.
    pub fn first_name(&self) -> Option<usize> {
        self.first_name
    }
}

/// The first word, and what follows it, without the blanks between.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn read_action(kind: Kind, word: &str) -> Result<Action, String> {
    let known = || WORDS.iter().filter(|(_, action)| kind == Kind::Clients || *action != Action::Relay);
    if let Some((_, action)) = known().find(|(known, _)| *known == word) {
        return Ok(*action);
    }
    let names = known().map(|(known, _)| *known);
    let hint = did_you_mean(word, names.clone())
        .unwrap_or_else(|| format!("; known are {}", names.collect::<Vec<_>>().join(", ")));
    Err(if word.is_empty() { format!("no action{hint}") } else { format!("unknown action \"{word}\"{hint}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Subject<'static> {
        Subject::Client { address: Some(address.parse().unwrap()), name: None }
    }

    #[test]
    fn the_first_row_that_fits_decides() {
        let text = "# who may what\n\n192.0.2.7  accept\n 192.0.2.0/24\trefuse   go  away \n10.0.0.0/8 relay\n* later\n";
        let table = Table::parse(Kind::Clients, text).unwrap();
        let found =
            |address| table.find(&client(address)).map(|found| (found.line, found.action, found.text));
        assert_eq!(found("192.0.2.7"), Some((3, Action::Accept, "")));
        assert_eq!(found("192.0.2.8"), Some((4, Action::Refuse, "go  away")));
        assert_eq!(found("10.1.1.1"), Some((5, Action::Relay, "")));
        assert_eq!(found("2001:db8::1"), Some((6, Action::Later, "")));
        assert_eq!(table.first_name(), None);
    }

    #[test]
    fn faults_have_their_places() {
        let text =
            "192.0.2.1/24 refuse\nok.example\n  ok2.example refuze x\n10.0.0.1 accept\n10.0.0.1 refuse\n";
        let faults = Table::parse(Kind::Clients, text).unwrap_err();
        let places: Vec<(usize, usize)> = faults.iter().map(|(line, column, _)| (*line, *column)).collect();
        assert_eq!(places, [(1, 1), (2, 11), (3, 15), (5, 1)]);
        assert_eq!(faults[2].2, "unknown action \"refuze\"; did you mean \"refuse\"?");
        assert!(faults[3].2.contains("line 4"));
        assert!(Table::parse(Kind::Senders, "a@b.example relay").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([a-z0-9.@/*#]{0,6}|[ \t\n]|accept|refuse|\\PC){0,40}") {
            for kind in [Kind::Clients, Kind::Helo, Kind::Senders, Kind::Recipients] {
                let _ = Table::parse(kind, &text);
            }
        }

        /// As a reader of the page would do it: from the top, row by row.
        #[test]
        fn it_finds_what_a_reader_finds(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 1..20),
            asked in any::<u32>(), at in 0usize..20, shared in 0u8..=32,
        ) {
            let mask = |bits: u8| u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let mut rows: Vec<(u32, u8)> = Vec::new();
            for (address, bits) in networks {
                let row = (address & mask(bits), bits);
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
            let near = rows[at % rows.len()].0 & mask(shared) | asked & !mask(shared);
            let text: String = rows
                .iter()
                .map(|(address, bits)| format!("{}/{bits} refuse\n", std::net::Ipv4Addr::from(*address)))
                .collect();
            let table = Table::parse(Kind::Clients, &text).unwrap();
            let expected = rows.iter().position(|(address, bits)| near & mask(*bits) == *address);
            let address = Some(IpAddr::from(std::net::Ipv4Addr::from(near)));
            let found = table.find(&Subject::Client { address, name: None }).map(|found| found.line - 1);
            prop_assert_eq!(found, expected);
        }
    }
}
