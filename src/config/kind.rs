//! Kinds of values: how each is written in the file, and what it becomes.
//!
//! A kind is a constant in a row of [`super::table`]. It reads the TOML value of a setting, or says
//! in a few words what it wants instead. Those that name hosts are in [`super::network`].

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::nearest::{did_you_mean, quoted};

/// A kind of value.
pub(super) trait Kind {
    /// What a value becomes.
    type Value;

    /// A few words for `postactl settings` and posta.toml(5).
    fn word(&self) -> String;

    /// Reads a value; an error says what is wrong with it.
    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String>;
}

/// Any text.
pub(super) struct Text;
/// The absolute path of a file or folder.
pub(super) struct Path;
/// The path of a mailbox, in which `{user}` and `{domain}` stand for parts of the address and `~/`
/// for its owner's home.
pub(super) struct MailboxPath;
/// `true` or `false`.
pub(super) struct Flag;
/// A whole number between two bounds.
pub(super) struct Number<T> {
    pub(super) least: T,
    pub(super) most: T,
}
/// A number of bytes: a number, or a text with a unit of 1024, as `"50M"`.
pub(super) struct Size;
/// A time: a text with units, as `"5d"` or `"1h30m"`.
pub(super) struct Span;
/// A list of texts.
pub(super) struct Lines;
/// A list of absolute paths.
pub(super) struct Paths;
/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);
/// Another kind, or an empty text for none.
pub(super) struct Maybe<K>(pub(super) K);

impl Kind for Text {
    type Value = String;

    fn word(&self) -> String {
        "text".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let text = text(value, "a text in quotes")?;
        if text.chars().any(char::is_control) {
            return Err(format!("control characters are not allowed in {}", quoted(text)));
        }
        Ok(text.to_string())
    }
}

impl Kind for Path {
    type Value = PathBuf;

    fn word(&self) -> String {
        "path".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<PathBuf, String> {
        let path = Text.read(value)?;
        // The programs run in different folders: a path must mean the same to all of them.
        if !path.starts_with('/') {
            return Err(format!("{} must be a path that begins with \"/\"", quoted(&path)));
        }
        Ok(path.into())
    }
}

impl Kind for MailboxPath {
    type Value = String;

    fn word(&self) -> String {
        "mailbox path".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, String> {
        let path = Text.read(value)?;
        if !path.starts_with('/') && !path.starts_with("~/") {
            return Err(format!("{} must begin with \"/\" or \"~/\"", quoted(&path)));
        }
        check_words(&path)?;
        Ok(path)
    }
}

/// Every `{word}` of a mailbox path must be known.
fn check_words(path: &str) -> Result<(), String> {
    const WORDS: [&str; 2] = ["{user}", "{domain}"];
    let mut rest = path;
    while let Some(start) = rest.find(['{', '}']) {
        let found = &rest[start..];
        let end = found.find('}').map_or(found.len(), |end| end + 1);
        let (word, after) = found.split_at(end);
        if !WORDS.contains(&word) {
            let hint = did_you_mean(word, WORDS).unwrap_or_else(|| "; known are {user} and {domain}".into());
            return Err(format!("unknown word {} in a mailbox path{hint}", quoted(word)));
        }
        rest = after;
    }
    Ok(())
}

impl Kind for Flag {
    type Value = bool;

    fn word(&self) -> String {
        "true or false".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| wanted("true or false", value))
    }
}

impl<T: Copy + TryFrom<u64> + PartialOrd + std::fmt::Display> Kind for Number<T> {
    type Value = T;

    fn word(&self) -> String {
        format!("number, {} to {}", self.least, self.most)
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let number = value.as_integer().ok_or_else(|| wanted("a number", value))?;
        u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| format!("{number} is not between {} and {}", self.least, self.most))
    }
}

impl Kind for Size {
    type Value = u64;

    fn word(&self) -> String {
        "size".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<u64, String> {
        if value.is_integer() {
            return Number { least: 1, most: i64::MAX as u64 }.read(value);
        }
        let text = text(value, "a size")?;
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" => Some(0),
            "K" | "k" => Some(10),
            "M" | "m" => Some(20),
            "G" | "g" => Some(30),
            _ => None,
        };
        shift
            .and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift))
            .filter(|size| (1..=i64::MAX as u64).contains(size))
            .ok_or_else(|| format!("{} is no size such as \"50M\" (units K, M, G)", quoted(text)))
    }
}

impl Kind for Span {
    type Value = Duration;

    fn word(&self) -> String {
        "time".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Duration, String> {
        let text = text(value, "a time with its unit, such as \"5m\"")?;
        seconds(text)
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
            .ok_or_else(|| format!("{} is no time such as \"5d\" (units s, m, h, d, w)", quoted(text)))
    }
}

/// The seconds of `5d` or `1h30m`, at most a hundred years of them.
fn seconds(text: &str) -> Option<u64> {
    const MOST: u64 = 100 * 366 * 86_400;
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let mut after = rest[digits..].chars();
        let unit = match after.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = after.as_str();
    }
    Some(total).filter(|total| !text.is_empty() && *total <= MOST)
}

impl Kind for Lines {
    type Value = Vec<String>;

    fn word(&self) -> String {
        "list of texts".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let list = value.as_array().ok_or_else(|| wanted("a list of texts", value))?;
        list.iter().map(|entry| Text.read(entry.get_ref())).collect()
    }
}

impl Kind for Paths {
    type Value = Vec<PathBuf>;

    fn word(&self) -> String {
        "list of paths".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<PathBuf>, String> {
        let list = value.as_array().ok_or_else(|| wanted("a list of paths", value))?;
        list.iter().map(|entry| Path.read(entry.get_ref())).collect()
    }
}

impl<T: Clone> Kind for Choice<T> {
    type Value = T;

    fn word(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        words.join(" | ")
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, String> {
        let text = text(value, &format!("one of {}", self.word()))?;
        let known = self.0.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| value.clone()).ok_or_else(|| {
            let hint = did_you_mean(text, self.0.iter().map(|(word, _)| *word))
                .unwrap_or_else(|| format!("; known are {}", self.word()));
            format!("unknown value {}{hint}", quoted(text))
        })
    }
}

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn word(&self) -> String {
        format!("{}, or empty", self.0.word())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Self::Value, String> {
        if value.as_str() == Some("") { Ok(None) } else { self.0.read(value).map(Some) }
    }
}

/// A text; `what` says which is wanted.
pub(super) fn text<'v>(value: &'v DeValue<'_>, what: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| wanted(what, value))
}

/// Says that a value is of another sort than wanted.
pub(super) fn wanted(what: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("{what} is wanted here, not {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<K: Kind>(kind: K, source: &str) -> Result<K::Value, String> {
        kind.read(DeValue::parse(source).unwrap().get_ref())
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(read(Size, "\"50M\""), Ok(50 << 20));
        assert_eq!(read(Size, "4096"), Ok(4096));
        assert!(read(Size, "\"50 parsecs\"").unwrap_err().contains("no size"));
        assert!(read(Size, "\"99999999999G\"").is_err());
        assert_eq!(read(Span, "\"5d\"").unwrap().as_secs(), 432_000);
        assert_eq!(read(Span, "\"1h30m\"").unwrap().as_secs(), 5400);
        for bad in
            ["\"\"", "\"5\"", "\"d\"", "\"0s\"", "\"5y\"", "\"99999999999999999999s\"", "5", "\"101d5\""]
        {
            assert!(read(Span, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        let port = || Number { least: 1u16, most: 65_535 };
        assert_eq!(read(port(), "0x19"), Ok(25));
        assert_eq!(read(port(), "0").unwrap_err(), "0 is not between 1 and 65535");
        assert_eq!(read(port(), "65536").unwrap_err(), "65536 is not between 1 and 65535");
        assert!(read(port(), "-1").is_err());
        assert_eq!(read(port(), "\"25\"").unwrap_err(), "a number is wanted here, not a text");
    }

    #[test]
    fn choices_and_mailbox_paths_name_the_nearest_word() {
        let choice = || Choice(&[("starttls", 1), ("none", 2)]);
        assert_eq!(read(choice(), "'none'"), Ok(2));
        assert_eq!(
            read(choice(), "'starttl'").unwrap_err(),
            "unknown value \"starttl\"; did you mean \"starttls\"?"
        );
        assert!(read(choice(), "'x'").unwrap_err().ends_with("; known are starttls | none"));
        assert!(read(MailboxPath, "'/srv/{domain}/{user}/'").is_ok());
        assert!(read(MailboxPath, "'/srv/{usr}/'").unwrap_err().contains("did you mean \"{user}\"?"));
        for bad in ["'/srv/{user/'", "'/srv/user}/'", "'Maildir/'", "'~bob/Maildir/'"] {
            assert!(read(MailboxPath, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute() {
        assert!(read(Path, "'run'").is_err());
        assert!(read(Path, r#""/a\nb""#).is_err());
        assert_eq!(read(Maybe(Path), "''"), Ok(None));
    }
}
