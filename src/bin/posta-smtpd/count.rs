//! The counters of this program, for `postactl metrics`. Sessions only add to numbers and wait for nobody.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use posta::logbook::count::{Counter, export};
use posta::smtp::reply::Reply;
use posta::smtp::rule;

/// Sessions that have begun.
pub static SESSIONS: Counter = Counter::growing("posta_smtpd_sessions_total", "Sessions begun.");
/// Those of them in which something went wrong.
pub static ODD: Counter =
    Counter::growing("posta_smtpd_odd_sessions_total", "Sessions with a refusal or a failure.");
/// Messages that we have answered for.
pub static MESSAGES: Counter = Counter::growing("posta_smtpd_messages_total", "Messages accepted.");
/// Handshakes that were done.
pub static TLS: Counter =
    Counter::growing("posta_smtpd_handshakes_total", "TLS handshakes.").labelled("result=\"done\"");
/// Handshakes that failed.
pub static NO_TLS: Counter =
    Counter::growing("posta_smtpd_handshakes_total", "TLS handshakes.").labelled("result=\"failed\"");
/// Users who have logged in.
pub static LOGINS: Counter =
    Counter::growing("posta_smtpd_logins_total", "Logins.").labelled("result=\"done\"");
/// Users who could not.
pub static NO_LOGINS: Counter =
    Counter::growing("posta_smtpd_logins_total", "Logins.").labelled("result=\"refused\"");

/// Refusals, by the place of their rule in the table.
static REFUSALS: [AtomicU64; rule::ALL.len()] = [const { AtomicU64::new(0) }; rule::ALL.len()];
/// Refusals without a rule: errors of syntax and of order.
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// A command was refused: its rule's id stands at the end of the reply.
pub fn refusal(reply: &Reply) {
    let last = reply.lines.last().map_or("", String::as_str);
    let id = last.strip_suffix(']').and_then(|text| text.rsplit_once('[')).map(|(_, id)| id);
    let place = id.and_then(|id| rule::ALL.iter().position(|rule| rule.id == id));
    place.map_or(&ERRORS, |place| &REFUSALS[place]).fetch_add(1, Ordering::Relaxed);
}

/// All counters in Prometheus' text format.
pub fn text() -> String {
    let mut text = export([&SESSIONS, &ODD, &MESSAGES, &TLS, &NO_TLS, &LOGINS, &NO_LOGINS]);
    let name = "posta_smtpd_refusals_total";
    let ids = rule::ALL.iter().map(|rule| rule.id).chain(["none"]);
    // Writing to a String doesn't fail.
    let _ = writeln!(text, "# HELP {name} Commands refused, by rule.\n# TYPE {name} counter");
    for (id, count) in ids.zip(REFUSALS.iter().chain([&ERRORS])) {
        match count.load(Ordering::Relaxed) {
            0 => {}
            count => _ = writeln!(text, "{name}{{rule=\"{id}\"}} {count}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_their_rule() {
        refusal(&rule::RELAYING.reply("no"));
        refusal(&Reply::new(500, None, "no such command [P0000]"));
        let text = text();
        let line = format!("posta_smtpd_refusals_total{{rule=\"{}\"}} 1\n", rule::RELAYING.id);
        assert!(text.contains(&line) && text.contains("{rule=\"none\"} 1\n"), "{text}");
        assert!(text.contains("posta_smtpd_logins_total{result=\"refused\"} 0\n"), "{text}");
    }
}
