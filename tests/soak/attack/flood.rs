//! Too much of something.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::words;

use super::Attacker;

/// Recipients, in one transaction, without waiting for an answer.
pub fn recipients(attacker: &mut Attacker<'_>) -> u64 {
    let many: String = (0..5000).map(|n| format!("RCPT TO:<flood{n}@example.org>\r\n")).collect();
    attacker.repeat(|attacker| {
        let mut stream = attacker.connect(attacker.target.smtp)?;
        words::hear(&mut stream, 220)?;
        words::say(&mut stream, "EHLO flood.example\r\n", 250)?;
        words::say(&mut stream, "MAIL FROM:<a@flood.example>\r\n", 250)?;
        let mut replies = stream.try_clone()?;
        let listener = std::thread::spawn(move || std::io::copy(&mut replies, &mut std::io::sink()));
        let said = stream.write_all(many.as_bytes());
        let _ = stream.shutdown(Shutdown::Both);
        let _ = listener.join();
        said
    })
}

/// Commands by the ten thousand, also such as end a group.
pub fn pipelining(attacker: &mut Attacker<'_>) -> u64 {
    let words = ["NOOP\r\n", "RSET\r\n", "VRFY x\r\n", "EHLO x\r\n", "FROB\r\n", "DATA\r\n"];
    attacker.repeat(|attacker| {
        let mut stream = attacker.connect(attacker.target.smtp)?;
        words::hear(&mut stream, 220)?;
        let word = words[attacker.chance.usize(..words.len())];
        stream.write_all(word.repeat(10_000).as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

/// Clients that say very much and take none of our replies.
pub fn deaf(attacker: &mut Attacker<'_>) -> u64 {
    let mut held = Vec::new();
    let many = "RCPT TO:<deaf@example.org>\r\n".repeat(50_000);
    attacker.repeat(|attacker| {
        let stream = attacker.connect(attacker.target.smtp)?;
        stream.set_write_timeout(Some(Duration::from_millis(50)))?;
        let mut stream = stream;
        words::hear(&mut stream, 220)?;
        words::say(&mut stream, "EHLO deaf.example\r\n", 250)?;
        words::say(&mut stream, "MAIL FROM:<a@deaf.example>\r\n", 250)?;
        let _ = stream.write_all(many.as_bytes());
        held.push(stream);
        if held.len() > 50 {
            held.remove(0);
        }
        Ok(())
    })
}

/// Connections that are reset as soon as they are there, or a moment later.
pub fn resets(attacker: &mut Attacker<'_>) -> u64 {
    attacker.repeat(|attacker| {
        let places = [attacker.target.smtp, attacker.target.implicit, attacker.target.proxied];
        let place = places[attacker.chance.usize(..places.len())];
        let mut stream = attacker.connect(place)?;
        if attacker.chance.bool() {
            stream.write_all(b"EHLO x\r\n")?;
        }
        if attacker.chance.bool() {
            stream.set_read_timeout(Some(Duration::from_millis(5)))?;
            let _ = stream.read(&mut [0; 100]);
        }
        // RFC 9293 3.10.4: with nothing to linger for, closing is a reset.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        std::thread::sleep(Duration::from_micros(200));
        Ok(())
    })
}

/// Wrong passwords under TLS, and exchanges that are never ended.
pub fn passwords(attacker: &mut Attacker<'_>) -> u64 {
    attacker.repeat(|attacker| {
        let mut stream = super::tls::implicit(attacker)?;
        words::hear(&mut stream, 220)?;
        words::say(&mut stream, "EHLO guess.example\r\n", 250)?;
        if attacker.chance.bool() {
            words::say(&mut stream, "AUTH LOGIN\r\n", 334)?;
            return words::say(&mut stream, "ZGF2ZUB1c2Vycy5leGFtcGxl\r\n", 334);
        }
        // dave@users.example, "wrong".
        words::say(&mut stream, "AUTH PLAIN AGRhdmVAdXNlcnMuZXhhbXBsZQB3cm9uZw==\r\n", 535)
    })
}

/// What is no PROXY header, or is one for nothing.
pub fn proxy_garbage(attacker: &mut Attacker<'_>) -> u64 {
    let beginnings: [&[u8]; 5] = [
        b"PROXY TCP4 ",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"",
    ];
    attacker.repeat(|attacker| {
        let mut stream = attacker.connect(attacker.target.proxied)?;
        let mut words = beginnings[attacker.chance.usize(..beginnings.len())].to_vec();
        let length = attacker.chance.usize(..300);
        words.extend((0..length).map(|_| attacker.chance.u8(..)));
        stream.write_all(&words)?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}
