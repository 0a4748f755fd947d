//! What attackers and honest clients say.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

/// Reads one reply, all its lines, octet by octet: what follows may be TLS. Gives its code.
pub fn reply(stream: &mut impl Read) -> io::Result<u16> {
    let mut line = Vec::new();
    loop {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        line.push(octet[0]);
        if octet[0] != b'\n' {
            continue;
        }
        if line.get(3) != Some(&b'-') {
            let code =
                std::str::from_utf8(&line[..3.min(line.len())]).ok().and_then(|code| code.parse().ok());
            return code.ok_or_else(|| io::Error::other("no reply"));
        }
        line.clear();
    }
}

/// Says something and hears the answer, which is to have this code.
pub fn say(stream: &mut (impl Read + Write), words: impl AsRef<[u8]>, code: u16) -> io::Result<()> {
    stream.write_all(words.as_ref())?;
    hear(stream, code)
}

/// Hears a reply, which is to have this code.
pub fn hear(stream: &mut impl Read, code: u16) -> io::Result<()> {
    match reply(stream)? {
        heard if heard == code => Ok(()),
        heard => Err(io::Error::other(format!("{heard} and not {code}"))),
    }
}

/// From the greeting to the go-ahead for data.
pub fn begin(stream: &mut (impl Read + Write), to: &str) -> io::Result<()> {
    hear(stream, 220)?;
    say(stream, "EHLO stranger.example\r\n", 250)?;
    say(stream, "MAIL FROM:<a@stranger.example> BODY=8BITMIME\r\n", 250)?;
    say(stream, format!("RCPT TO:<{to}>\r\n"), 250)?;
    say(stream, "DATA\r\n", 354)
}

/// A multipart in a multipart, and so on.
pub fn nested(depth: usize) -> String {
    let mut text = "From: a@stranger.example\r\nMIME-Version: 1.0\r\n".to_string();
    for level in 0..depth {
        let _ = write!(text, "Content-Type: multipart/mixed; boundary=\"b{level}\"\r\n\r\n--b{level}\r\n");
    }
    text + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\u{fc}n\r\n.\r\n"
}

/// A message of very many parts.
pub fn many_parts(count: usize) -> String {
    let head = "From: a@stranger.example\r\nMIME-Version: 1.0\r\n\
                Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let part = "--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\u{fc}\r\n";
    format!("{head}{}--b--\r\n.\r\n", part.repeat(count))
}

/// A message with a header of very many fields, one of which has very many folds.
pub fn many_fields(count: usize) -> String {
    let mut text = String::from("From: a@stranger.example\r\nX-Folded: x\r\n");
    text.push_str(&" y\r\n".repeat(count));
    for number in 0..count {
        let _ = write!(text, "X-{number}: y\r\n");
    }
    text + "\r\n.\r\n"
}
