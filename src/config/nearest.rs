//! The nearest known word to one that is not known.

/// `; did you mean "WORD"?` with the nearest of the known words, if one is near enough to be meant.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|near| format!("; did you mean {}?", quoted(near)))
}

/// The known word that the fewest slips of the pen lead to: at most one slip for three letters.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.chars().take(64).collect();
    let near = known.into_iter().map(|candidate| (slips(&word, candidate), candidate));
    let (slips, candidate) = near.min()?;
    (slips <= word.len().max(3) / 3).then_some(candidate)
}

/// How many letters must be put in, left out, changed or swapped with their neighbour.
fn slips(word: &[char], other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = last[j] + usize::from(!a.eq_ignore_ascii_case(b));
            let mut best = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && word[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

/// A word of the file in a message: in quotes, on one line and not too long.
pub(super) fn quoted(word: &str) -> String {
    let mut short: String = word.chars().take(80).flat_map(char::escape_debug).collect();
    if word.chars().nth(80).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_seen_and_other_words_are_not() {
        let known = ["max_sessions", "max_sessions_per_client", "hostname", "run"];
        assert_eq!(nearest("max_sesions", known), Some("max_sessions"));
        assert_eq!(nearest("hsotname", known), Some("hostname"));
        assert_eq!(nearest("Hostname", known), Some("hostname"));
        assert_eq!(nearest("rnu", known), Some("run"));
        assert_eq!(nearest("spool", known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_word_stays_on_its_line() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 83);
    }
}
