//! `queue --totals`: how much waits for each domain, since when, and why.

use std::collections::HashMap;

use serde_json::json;

use posta::courier::order::Row;

use posta::logbook::entry::Printable;

use crate::filter::domain_of;
use crate::show::time;

/// The sums so far.
#[derive(Debug, Default)]
pub struct Totals {
    of: HashMap<String, Total>,
}

/// What waits for one domain.
#[derive(Debug, Default)]
struct Total {
    messages: u64,
    recipients: u64,
    bytes: u64,
    /// When the oldest of them came, in microseconds since 1970, and why it is still here.
    oldest: u64,
    reason: String,
}

impl Totals {
    /// Counts a message, for each domain that it has recipients of.
    pub fn add(&mut self, row: &Row) {
        let mut recipients: HashMap<String, u64> = HashMap::new();
        for to in &row.recipients {
            *recipients.entry(domain_of(to)).or_default() += 1;
        }
        for (domain, count) in recipients {
            let total = self.of.entry(domain).or_default();
            if total.messages == 0 || row.arrived < total.oldest {
                total.oldest = row.arrived;
                total.reason.clone_from(&row.reason);
            }
            total.messages += 1;
            total.recipients += count;
            total.bytes += row.size;
        }
    }

    /// A line for each domain, those that most waits for first.
    pub fn lines(&self, as_json: bool) -> Vec<String> {
        let mut all: Vec<(&String, &Total)> = self.of.iter().collect();
        all.sort_by(|a, b| (b.1.messages, a.0).cmp(&(a.1.messages, b.0)));
        let head = line(["DOMAIN", "MESSAGES", "RECIPIENTS", "BYTES", "OLDEST", "WHY"]);
        let head = (!as_json && !all.is_empty()).then_some(head);
        let one = |(domain, total): (&String, &Total)| {
            if as_json { total.object(domain) } else { total.line(domain) }
        };
        head.into_iter().chain(all.into_iter().map(one)).collect()
    }
}

impl Total {
    fn object(&self, domain: &str) -> String {
        json!({
            "domain": domain,
            "messages": self.messages,
            "recipients": self.recipients,
            "size": self.bytes,
            "oldest": self.oldest / 1_000_000,
            "reason": self.reason,
        })
        .to_string()
    }

    fn line(&self, domain: &str) -> String {
        let [messages, recipients, bytes] =
            [self.messages, self.recipients, self.bytes].map(|n| n.to_string());
        let (domain, reason) = (Printable(domain).to_string(), Printable(&self.reason).to_string());
        line([&domain, &messages, &recipients, &bytes, &time(self.oldest / 1_000_000), &reason])
    }
}

fn line([domain, messages, recipients, bytes, oldest, why]: [&str; 6]) -> String {
    format!("{domain:<30} {messages:>8} {recipients:>10} {bytes:>12} {oldest:<19} {why}")
}

#[cfg(test)]
mod tests {
    use posta::mail::id::Id;

    use super::*;

    fn row(arrived: u64, to: &[&str], reason: &str) -> Row {
        Row {
            id: Id::parse("0123456789ABCDE").unwrap(),
            state: "deferred".into(),
            sender: String::new(),
            recipients: to.iter().map(|to| to.to_string()).collect(),
            size: 100,
            arrived: arrived * 1_000_000,
            next: None,
            reason: reason.into(),
        }
    }

    #[test]
    fn each_domain_has_its_sums_and_the_reason_of_its_oldest() {
        let mut totals = Totals::default();
        totals.add(&row(20, &["a@one.example", "b@One.example", "c@two.example"], "later"));
        totals.add(&row(10, &["a@one.example"], "refused \x1b[31m"));
        totals.add(&row(30, &["a@one.example"], "later"));
        let lines: Vec<serde_json::Value> =
            totals.lines(true).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["domain"], &lines[0]["messages"]), (&"one.example".into(), &3.into()));
        assert_eq!((&lines[0]["recipients"], &lines[0]["size"]), (&4.into(), &300.into()));
        assert_eq!((&lines[0]["oldest"], &lines[1]["oldest"]), (&10.into(), &20.into()));
        let lines = totals.lines(false);
        assert!(lines[0].starts_with("DOMAIN") && lines[1].contains("refused \\x1b"), "{lines:?}");
        assert!(Totals::default().lines(false).is_empty());
    }
}
