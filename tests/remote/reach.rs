//! How hosts are reached: addresses that are raced, where connections come from, which are shared.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::house::{House, listeners};
use crate::sink::{Sink, polite};

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
