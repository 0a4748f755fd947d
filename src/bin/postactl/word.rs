//! The words that postactl knows.

use posta::config::nearest::did_you_mean;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Check,
    Settings,
    Queue,
    Show,
    Cat,
    Hold,
    Release,
    Delete,
    Bounce,
    Retry,
    Why,
    Metrics,
    Log,
    Cdb,
    Passwd,
    Pause,
    Resume,
    When,
    SetPermissions,
    Session,
    Audit,
}

/// A word, what it takes and what it does.
pub struct Row {
    pub word: Word,
    pub name: &'static str,
    takes: &'static str,
    help: &'static str,
}

const fn row(word: Word, name: &'static str, takes: &'static str, help: &'static str) -> Row {
    Row { word, name, takes, help }
}

/// All words, in the order of the manual page.
pub const WORDS: [Row; 21] = [
    row(Word::Check, "check", "", "check the configuration"),
    row(Word::Settings, "settings", "[NAME]", "print the settings and their defaults"),
    row(Word::Queue, "queue", "[--json] [--totals] [FILTER ...]", "list the queue"),
    row(Word::Show, "show", "ID", "print what is known of a message"),
    row(Word::Cat, "cat", "ID", "print a message"),
    row(Word::Hold, "hold", "ID...", "leave messages alone until released"),
    row(Word::Release, "release", "ID...", "end a hold"),
    row(Word::Delete, "delete", "ID...", "remove messages without a word to anybody"),
    row(Word::Bounce, "bounce", "ID...", "give messages up and tell their senders"),
    row(Word::Retry, "retry", "[ID|DOMAIN|all]", "try now what waits"),
    row(Word::Pause, "pause", "DOMAIN", "try nothing for a domain until it is resumed"),
    row(Word::Resume, "resume", "DOMAIN", "end a pause, and try now what waits"),
    row(Word::When, "when", "[--json]", "say what waits for what, and until when"),
    row(Word::Why, "why", "[--json] [--from A] [--client IP] ADDRESS", "say where an address leads, and why"),
    row(Word::Session, "session", "ID", "print what was said last in a session that went wrong"),
    row(Word::Audit, "audit", "--since TIME", "see whether every message taken has an end, or is queued"),
    row(Word::Metrics, "metrics", "[--file FILE]", "print counters, for Prometheus"),
    row(Word::Log, "log", "[LEVEL [PROGRAM]]", "say how much the programs log, until a reload"),
    row(Word::Cdb, "cdb", "FILE", "make FILE.cdb of the text file of a table"),
    row(Word::Passwd, "passwd", "[--scheme S] USER@DOMAIN", "set a password in the domain's users file"),
    row(Word::SetPermissions, "set-permissions", "", "make the spool's folders, or set their rights"),
];

/// The row of a word; an unknown one is told the nearest.
pub fn find(name: &str) -> Result<&'static Word, String> {
    if let Some(row) = WORDS.iter().find(|row| row.name == name) {
        return Ok(&row.word);
    }
    let hint = did_you_mean(name, WORDS.iter().map(|row| row.name));
    let hint = hint.unwrap_or_else(|| "; \"postactl -h\" prints which there are".to_string());
    Err(format!("unknown word \"{name}\"{hint}"))
}

/// The head of the usage text.
pub fn help() -> String {
    let mut text = String::from("usage: postactl [-c FILE] WORD ...\n\nWords:\n");
    for row in &WORDS {
        text += &format!("    {:<15} {:<42} {}\n", row.name, row.takes, row.help);
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_and_in_the_help() {
        for row in &WORDS {
            assert_eq!(find(row.name), Ok(&row.word));
            assert!(help().contains(&format!("\n    {} ", row.name)));
        }
    }

    #[test]
    fn an_unknown_word_is_told_the_nearest() {
        assert!(find("qeue").unwrap_err().contains("\"queue\""));
        assert!(find("delet").unwrap_err().contains("\"delete\""));
        assert!(!find("frobnicate").unwrap_err().contains("did you mean"));
    }
}
