//! How hosts are reached: addresses that are raced, where connections come from, which are shared.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use posta::courier::request::Target;

use crate::house::{House, listeners};
use crate::sink::{Sink, polite, say};

/// Fills the queue of a listener that nobody accepts from: the next connect gets no answer. Gives
/// what fills it.
fn silence(listener: &TcpListener) -> Vec<TcpStream> {
    socket2::SockRef::from(listener).listen(0).unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(socket) = TcpStream::connect_timeout(&at, Duration::from_millis(300)) {
        queue.push(socket);
        assert!(queue.len() < 10, "the queue of {at} does not fill");
    }
    queue
}

#[test]
fn an_address_that_does_not_answer_holds_nothing_up() {
    let (port, mut listening) = listeners(&[2, 3]);
    let sink = Sink::tcp(listening.remove(1), polite);
    let _queue = silence(&listening[0]);
    let zone = "d.example A 127.0.0.2\nd.example A 127.0.0.3";
    // Longer than the test would wait for the report.
    let house = House::start(port, zone, "connect_timeout = \"10m\"");
    assert_eq!(house.deliver_one("d.example"), "2.0.0 250 2.0.0 ok");
    assert_eq!(sink.messages().len(), 1);
}

/// The peer's address of the first connection to a listener.
fn first_peer(listener: TcpListener) -> std::sync::mpsc::Receiver<std::net::IpAddr> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || listener.accept().map(|(_, peer)| tell.send(peer.ip())));
    told
}

#[test]
fn a_connection_comes_from_the_address_that_is_said() {
    let (port, mut listening) = listeners(&[2, 3]);
    let [second, first] = [listening.remove(1), listening.remove(0)].map(first_peer);
    let zone = "d.example A 127.0.0.2\ne.example A 127.0.0.3";
    let more = "source = \"127.0.0.8\"\n[domains]\n\"e.example\" = { relay = \"mx\", source = [\"127.0.0.9\", \"::1\"] }";
    let house = House::start(port, zone, more);
    for (domain, peer, from) in [("d.example", first, "127.0.0.8"), ("e.example", second, "127.0.0.9")] {
        assert!(house.deliver_one(domain).starts_with("4.4.2"), "the connection is closed at once");
        assert_eq!(peer.recv().unwrap().to_string(), from);
    }
}

#[test]
fn domains_with_the_same_host_and_policy_share_a_connection() {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let domains = ["a.example", "b.example", "c.example", "e.example"];
    let zone =
        domains.map(|domain| format!("{domain} MX 10 mx.example\n")).concat() + "mx.example A 127.0.0.2";
    let more = "[domains]\n\"c.example\" = { relay = \"mx\", tls = \"none\" }\n\
                \"e.example\" = { relay = \"mx\", source = \"127.0.0.9\" }";
    let house = House::start(port, &zone, more);
    for (domain, connections) in domains.into_iter().zip([1, 1, 2, 3]) {
        assert_eq!(house.deliver_one(domain), "2.0.0 250 2.0.0 ok");
        assert_eq!(sink.heard().len(), connections, "{domain}");
    }
}

#[test]
fn a_host_gets_no_more_at_once_than_it_says_it_takes() {
    let (port, mut listening) = listeners(&[2]);
    let limited = |asked: &crate::sink::Asked<'_>| match asked.line {
        line if line.starts_with("EHLO") => say("250-sink\n250-PIPELINING\n250 LIMITS RCPTMAX=2 MAILMAX=2"),
        _ => polite(asked),
    };
    let sink = Sink::tcp(listening.remove(0), limited);
    let house = House::start(port, "d.example A 127.0.0.2", "");
    let recipients = ["a", "b", "c", "e", "f"].map(|name| format!("{name}@d.example"));
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let target = Target::Mx("d.example".into());
    assert_eq!(house.deliver(&target, &recipients, b"x\r\n"), ["2.0.0 250 2.0.0 ok"; 5]);
    let transactions: Vec<usize> = sink.heard().iter().map(|heard| heard.messages.len()).collect();
    assert_eq!((transactions, sink.commands("RCPT").len()), (vec![2, 1], 5));
}
