//! What the letters of the command line mean together.

use std::ffi::OsString;
use std::path::PathBuf;

use posta::unix::sysexits;

use posta::mail::address::parse_domain;
use posta::mail::envelope::{Notify, Ret};
use posta::mail::id::Id;

use crate::Refusal;

/// What the command is to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub mode: Mode,
    /// `-f`
    pub sender: Option<String>,
    /// `-F`
    pub full_name: Option<String>,
    /// `-v`
    pub verbose: bool,
    /// `-c`
    pub config: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Mode {
    Deliver(Deliver),
    /// `-bp`
    List,
    /// `-bs`
    Smtp,
    /// `-bv`
    Verify(Vec<String>),
    /// `-bi`
    Aliases,
    /// `-q`
    Flush(Flush),
    /// `-q30m` alone: the queue is run by posta-queue, which needs no telling how often.
    Nothing,
}

/// A message to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deliver {
    /// `-t`
    pub from_header: bool,
    /// `-i`
    pub ignore_dots: bool,
    pub recipients: Vec<String>,
    /// `-N`
    pub notify: Notify,
    /// `-R`
    pub ret: Option<Ret>,
    /// `-V`
    pub envid: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Flush {
    All,
    Domain(String),
    Id(Id),
}

/// Stands for the value that a `-q` or `-d` without one does not have.
pub const NOTHING_ATTACHED: &str = "=";

/// Letters whose value may only stand in the same word: without this, `-q bob` would take bob for a
/// value.
pub fn attach(word: OsString) -> OsString {
    match word.to_str() {
        Some("-q" | "-d") => format!("{}{NOTHING_ATTACHED}", word.to_string_lossy()).into(),
        _ => word,
    }
}

/// Reads the letters: `asked` gives the values of a letter that is there (none for one that stands alone).
pub fn read(
    called: &str,
    asked: &dyn Fn(&str) -> Option<Vec<String>>,
    recipients: Vec<String>,
) -> Result<Options, Refusal> {
    let last = |letter: &str| asked(letter).and_then(|mut values| values.pop());
    let options = |mode| Options {
        mode,
        sender: last("f").or_else(|| last("r")),
        full_name: last("F"),
        verbose: asked("v").is_some(),
        config: last("c").or_else(|| last("C")).map(PathBuf::from),
    };
    let mode = match (called, last("b").as_deref()) {
        ("mailq", _) | (_, Some("p")) => Mode::List,
        ("newaliases", _) | (_, Some("i")) => Mode::Aliases,
        _ if asked("I").is_some() => Mode::Aliases,
        (_, Some("s")) => Mode::Smtp,
        (_, Some("v")) => Mode::Verify(recipients),
        (_, None | Some("m")) => deliver_or_flush(asked, recipients)?,
        (_, Some(mode)) => return Err(unknown_mode(mode)),
    };
    Ok(options(mode))
}

fn unknown_mode(mode: &str) -> Refusal {
    let why = match mode {
        "d" | "D" => "-bd: the servers are started by \"posta\", not by this command".to_string(),
        mode => format!("-b{mode}: no such mode; there are -bm, -bp, -bs, -bv and -bi"),
    };
    Refusal(sysexits::USAGE, why)
}

fn deliver_or_flush(
    asked: &dyn Fn(&str) -> Option<Vec<String>>,
    recipients: Vec<String>,
) -> Result<Mode, Refusal> {
    let from_header = asked("t").is_some();
    if let Some(what) = asked("q")
        && recipients.is_empty()
        && !from_header
    {
        return flush(what.first().map_or("", String::as_str));
    }
    let wrong = |letter: &str, value: &str| {
        Refusal(
            sysexits::USAGE,
            format!("-{letter} {value}: no such value; \"sendmail -h\" prints which are"),
        )
    };
    let last = |letter: &str| asked(letter).and_then(|mut values| values.pop());
    let notify = match last("N") {
        None => Notify::default(),
        Some(wishes) => Notify::parse(&wishes).ok_or_else(|| wrong("N", &wishes))?,
    };
    let ret = match last("R") {
        None => None,
        Some(part) if part.eq_ignore_ascii_case("full") => Some(Ret::Full),
        Some(part) if part.eq_ignore_ascii_case("hdrs") => Some(Ret::Headers),
        Some(part) => return Err(wrong("R", &part)),
    };
    let dotted = asked("o").is_some_and(|values| values.iter().any(|value| value == "i"));
    Ok(Mode::Deliver(Deliver {
        from_header,
        ignore_dots: asked("i").is_some() || dotted,
        recipients,
        notify,
        ret,
        envid: last("V"),
    }))
}

fn flush(what: &str) -> Result<Mode, Refusal> {
    let wrong = || Refusal(sysexits::USAGE, format!("-q{what}: want -q, -qRDOMAIN or -qIID"));
    match what.as_bytes().first() {
        None => Ok(Mode::Flush(Flush::All)),
        Some(b'R') => parse_domain(&what[1..]).map(|d| Mode::Flush(Flush::Domain(d))).map_err(|_| wrong()),
        Some(b'I') => Id::parse(&what[1..]).map(|id| Mode::Flush(Flush::Id(id))).ok_or_else(wrong),
        Some(digit) if digit.is_ascii_digit() => Ok(Mode::Nothing),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads letters as `("t", "")`.
    fn read_all(called: &str, letters: &[(&str, &str)], to: &[&str]) -> Result<Options, Refusal> {
        let asked = |letter: &str| {
            let of: Vec<_> = letters.iter().filter(|(l, _)| *l == letter).collect();
            let values = || of.iter().map(|(_, v)| v.to_string()).filter(|v| !v.is_empty()).collect();
            (!of.is_empty()).then(values)
        };
        read(called, &asked, to.iter().map(|t| t.to_string()).collect())
    }

    fn mode(called: &str, letters: &[(&str, &str)], to: &[&str]) -> Mode {
        read_all(called, letters, to).unwrap().mode
    }

    #[test]
    fn the_name_and_b_choose_the_mode() {
        assert_eq!(mode("mailq", &[], &[]), Mode::List);
        assert_eq!(mode("newaliases", &[], &[]), Mode::Aliases);
        assert_eq!(mode("sendmail", &[("b", "p")], &[]), Mode::List);
        assert_eq!(mode("sendmail", &[("b", "s")], &[]), Mode::Smtp);
        assert_eq!(mode("sendmail", &[("b", "i")], &[]), Mode::Aliases);
        assert_eq!(mode("sendmail", &[("I", "")], &[]), Mode::Aliases);
        assert_eq!(mode("sendmail", &[("b", "v")], &["a"]), Mode::Verify(vec!["a".into()]));
        assert!(matches!(mode("sendmail", &[("b", "m")], &["a"]), Mode::Deliver(_)));
        for (refused, hint) in [("d", "posta"), ("x", "no such mode")] {
            let Err(Refusal(code, why)) = read_all("sendmail", &[("b", refused)], &[]) else { panic!() };
            assert_eq!(code, 64);
            assert!(why.contains(hint), "{why}");
        }
    }

    #[test]
    fn q_is_an_order_only_without_a_message() {
        assert_eq!(mode("sendmail", &[("q", "")], &[]), Mode::Flush(Flush::All));
        assert_eq!(mode("sendmail", &[("q", "30m")], &[]), Mode::Nothing);
        assert_eq!(
            mode("sendmail", &[("q", "RX.example")], &[]),
            Mode::Flush(Flush::Domain("x.example".into()))
        );
        assert!(matches!(mode("sendmail", &[("q", "")], &["bob"]), Mode::Deliver(_)));
        assert!(read_all("sendmail", &[("q", "Iabc")], &[]).is_err());
        assert_eq!(attach("-q".into()), "-q=");
        assert_eq!(attach("-q5m".into()), "-q5m");
    }

    #[test]
    fn letters_of_a_message() {
        let letters = [("t", ""), ("o", "db"), ("o", "i"), ("N", "success,delay"), ("R", "HDRS"), ("V", "x")];
        let Mode::Deliver(deliver) = mode("sendmail", &letters, &["bob"]) else { panic!() };
        assert!(deliver.from_header && deliver.ignore_dots && deliver.notify.success);
        assert_eq!((deliver.ret, deliver.envid.as_deref()), (Some(Ret::Headers), Some("x")));
        assert!(read_all("sendmail", &[("N", "sometimes")], &["a"]).is_err());
        assert!(read_all("sendmail", &[("R", "some")], &["a"]).is_err());
        let options = read_all("sendmail", &[("f", "a@x"), ("F", "A"), ("v", "")], &["b"]).unwrap();
        assert_eq!((options.sender.as_deref(), options.verbose), (Some("a@x"), true));
        let options = read_all("sendmail", &[("r", "a@x")], &["b"]).unwrap();
        assert_eq!(options.sender.as_deref(), Some("a@x"));
    }
}
