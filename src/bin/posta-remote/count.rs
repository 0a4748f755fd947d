//! The counters of this program, for `postactl metrics`.

use posta::logbook::count::{Counter, export};

/// Connections that were made.
pub static CONNECTED: Counter =
    Counter::growing("posta_remote_connects_total", "Attempts to connect.").labelled("result=\"done\"");
/// Hosts that could not be reached.
pub static NOT_CONNECTED: Counter =
    Counter::growing("posta_remote_connects_total", "Attempts to connect.").labelled("result=\"failed\"");
/// Sessions in which something went wrong.
pub static ODD: Counter =
    Counter::growing("posta_remote_odd_sessions_total", "Sessions with a refusal or a failure.");
/// Transactions that were begun.
pub static TRANSACTIONS: Counter = Counter::growing("posta_remote_transactions_total", "Transactions begun.");
/// Of them those over a connection that was kept.
pub static REUSED: Counter =
    Counter::growing("posta_remote_reused_total", "Transactions over a connection that was kept.");
/// Handshakes that were done.
pub static TLS: Counter =
    Counter::growing("posta_remote_handshakes_total", "TLS handshakes.").labelled("result=\"done\"");
/// Handshakes that failed.
pub static NO_TLS: Counter =
    Counter::growing("posta_remote_handshakes_total", "TLS handshakes.").labelled("result=\"failed\"");
/// Relays that know us now.
pub static LOGINS: Counter =
    Counter::growing("posta_remote_logins_total", "Logins at relays.").labelled("result=\"done\"");
/// Relays that would not.
pub static NO_LOGINS: Counter =
    Counter::growing("posta_remote_logins_total", "Logins at relays.").labelled("result=\"refused\"");

/// All of them in Prometheus' text format, and how many connections there are.
pub fn text(connections: usize) -> String {
    let now = Counter::gauge("posta_remote_connections", "Connections now, those that are kept among them.");
    now.set(connections as u64);
    let all =
        [&now, &CONNECTED, &NOT_CONNECTED, &ODD, &TRANSACTIONS, &REUSED, &TLS, &NO_TLS, &LOGINS, &NO_LOGINS];
    export(all)
}
