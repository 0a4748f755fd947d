//! TLS that is begun and not ended, that is none, or that is begun again and again.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream};

use crate::words;

use super::Attacker;

/// A client of TLS that believes anybody.
pub fn client() -> Ssl {
    Ssl::new(&SslContext::builder(SslMethod::tls_client()).unwrap().build()).unwrap()
}

/// A handshake over a stream.
pub fn shake<S: Read + Write>(stream: S) -> io::Result<SslStream<S>> {
    let mut stream = SslStream::new(client(), stream).map_err(io::Error::other)?;
    stream.connect().map_err(io::Error::other)?;
    Ok(stream)
}

/// A connection to the port that is under TLS from the first octet.
pub fn implicit(attacker: &mut Attacker<'_>) -> io::Result<SslStream<TcpStream>> {
    shake(attacker.connect(attacker.target.implicit)?)
}

/// Takes what a client says first, and never answers.
struct Mute(Vec<u8>);

impl Read for Mute {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Mute {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A ClientHello, all of it.
fn hello() -> Vec<u8> {
    let mut stream = SslStream::new(client(), Mute(Vec::new())).unwrap();
    assert!(stream.connect().is_err(), "nobody has answered");
    std::mem::take(&mut stream.get_mut().0)
}

/// To where a handshake is expected, by either way.
fn to_the_handshake(attacker: &mut Attacker<'_>) -> io::Result<TcpStream> {
    if attacker.chance.bool() {
        return attacker.connect(attacker.target.implicit);
    }
    let mut stream = attacker.connect(attacker.target.submission)?;
    words::hear(&mut stream, 220)?;
    words::say(&mut stream, "EHLO half.example\r\n", 250)?;
    words::say(&mut stream, "STARTTLS\r\n", 220)?;
    Ok(stream)
}

/// A piece of a ClientHello, or all of it, and then silence.
pub fn half_handshakes(attacker: &mut Attacker<'_>) -> u64 {
    const MANY: usize = 150;
    let hello = hello();
    let mut held = Vec::new();
    attacker.repeat(|attacker| {
        let mut stream = to_the_handshake(attacker)?;
        let end = if attacker.chance.bool() { hello.len() } else { attacker.chance.usize(..hello.len()) };
        stream.write_all(&hello[..end])?;
        held.push(stream);
        if held.len() > MANY {
            held.remove(attacker.chance.usize(..MANY));
        }
        Ok(())
    })
}

/// What is no TLS at all, or no longer after its beginning.
pub fn garbage(attacker: &mut Attacker<'_>) -> u64 {
    let hello = hello();
    attacker.repeat(|attacker| {
        let mut stream = to_the_handshake(attacker)?;
        let mut words = hello[..attacker.chance.usize(..hello.len())].to_vec();
        let length = attacker.chance.usize(..2000);
        words.extend((0..length).map(|_| attacker.chance.u8(..)));
        stream.write_all(&words)?;
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
}

/// TLS 1.2 renegotiated by the client, again and again, as openssl's own client does for an `R`.
pub fn renegotiation(attacker: &mut Attacker<'_>) -> u64 {
    attacker.repeat(|attacker| {
        let mut client = Command::new("openssl")
            .args(["s_client", "-tls1_2", "-connect", &attacker.target.implicit.to_string()])
            .args(["-bind", &format!("{}:0", attacker.address())])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut input) = client.stdin.take() {
            // It ends at the first one that is refused; what is left of them is then nobody's.
            for _ in 0..20 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                if input.write_all(b"R\n").is_err() {
                    break;
                }
            }
        }
        client.kill()?;
        client.wait().map(drop)
    })
}
