//! Which messages `queue` lists: options that leave others out.

use posta::courier::order::Row;

use crate::Refusal;

/// What a message must be to be listed; what is not said is not asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter {
    state: Option<String>,
    sender: Option<String>,
    recipient: Option<String>,
    domain: Option<String>,
    /// In seconds.
    older: Option<u64>,
    younger: Option<u64>,
}

impl Filter {
    /// Takes an option with its value; `false`: there is no such option.
    pub fn take(&mut self, option: &str, value: &str) -> Result<bool, Refusal> {
        let lower = || Some(value.to_lowercase());
        match option {
            "--state" if ["new", "active", "deferred", "held"].contains(&value) => {
                self.state = Some(value.to_string());
            }
            "--state" => {
                let why = format!("--state {value}: there are new, active, deferred and held");
                return Err(Refusal::usage(why));
            }
            "--sender" => self.sender = lower(),
            "--recipient" => self.recipient = lower(),
            "--domain" => self.domain = lower(),
            "--older" => self.older = Some(seconds(option, value)?),
            "--younger" => self.younger = Some(seconds(option, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a message is listed; `now` in microseconds since 1970.
    pub fn wants(&self, row: &Row, now: u64) -> bool {
        let age = now.saturating_sub(row.arrived) / 1_000_000;
        let has =
            |text: &str, part: &Option<String>| part.as_ref().is_none_or(|p| text.to_lowercase().contains(p));
        let sender = if row.sender.is_empty() { "<>" } else { &row.sender };
        let any = |fits: &dyn Fn(&str) -> bool| row.recipients.iter().any(|to| fits(to));
        self.state.as_ref().is_none_or(|state| *state == row.state)
            && has(sender, &self.sender)
            && (self.recipient.is_none() || any(&|to| has(to, &self.recipient)))
            && self.domain.as_ref().is_none_or(|domain| any(&|to| domain_of(to) == *domain))
            && self.older.is_none_or(|older| age >= older)
            && self.younger.is_none_or(|younger| age < younger)
    }
}

/// The domain of an address, in lower case.
pub fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or("", |(_, domain)| domain).to_lowercase()
}

/// A time as `90`, `30m`, `4h` or `2d`.
pub fn seconds(option: &str, value: &str) -> Result<u64, Refusal> {
    let digits = value.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &value[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let count = digits.parse::<u64>().ok();
    let seconds = count.zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    seconds.ok_or_else(|| Refusal::usage(format!("{option} {value}: want a time as 30m, 4h or 2d")))
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;

    use super::*;

    const NOW: u64 = 1_000_000_000_000;

    fn row() -> Row {
        Row {
            id: Id::parse("0123456789ABCDE").unwrap(),
            state: "deferred".into(),
            sender: "Alice@Example.org".into(),
            recipients: vec!["bob@one.example".into(), "eve@Two.example".into()],
            size: 1,
            arrived: NOW - 7200 * 1_000_000,
            next: None,
            reason: String::new(),
        }
    }

    fn wants(words: &[(&str, &str)], row: &Row) -> bool {
        let mut filter = Filter::default();
        words.iter().for_each(|(option, value)| assert!(filter.take(option, value).is_ok_and(|known| known)));
        filter.wants(row, NOW)
    }

    #[test]
    fn all_that_is_said_must_fit() {
        let row = row();
        for fits in [
            &[][..],
            &[("--state", "deferred"), ("--older", "2h"), ("--younger", "121m")],
            &[("--sender", "alice@"), ("--domain", "TWO.example")],
            &[("--recipient", "bob@one")],
        ] {
            assert!(wants(fits, &row), "{fits:?}");
        }
        for other in [
            ("--state", "held"),
            ("--sender", "<>"),
            ("--recipient", "alice"),
            ("--domain", "example"),
            ("--older", "3h"),
            ("--younger", "7200"),
        ] {
            assert!(!wants(&[("--state", "deferred"), other], &row), "{other:?}");
        }
        assert!(wants(&[("--sender", "<>")], &Row { sender: String::new(), ..row }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (option, value) in [("--state", "lost"), ("--older", "2w"), ("--older", ""), ("--younger", "1hd")]
        {
            assert!(Filter::default().take(option, value).is_err(), "{option} {value}");
        }
        assert!(matches!(Filter::default().take("--colour", "red"), Ok(false)));
    }
}
