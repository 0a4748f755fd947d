//! A next hop that takes mail, or refuses it as the recipient's name says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// MAIL FROM, with its parameters.
    pub from: String,
    /// RCPT TO.
    pub to: Vec<String>,
    /// The data, dots undone, CRLF.
    pub data: String,
}

/// The next hop. What it says to a recipient follows from the local part: `bad…` gets 550, `later…`
/// gets 451 the first time it is named, all others are taken.
#[derive(Clone)]
pub struct Sink {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    named: Arc<Mutex<HashMap<String, u32>>>,
    connections: Arc<AtomicU32>,
    /// What EHLO is answered with besides the usual.
    more: &'static str,
}

impl Sink {
    /// Listens at `address` until the test ends.
    pub fn start(address: SocketAddr) -> Sink {
        Sink::offering(address, "")
    }

    /// One that offers DSN too: what is wished stands behind sender and recipients.
    pub fn with_dsn(address: SocketAddr) -> Sink {
        Sink::offering(address, "250-DSN\r\n")
    }

    fn offering(address: SocketAddr, more: &'static str) -> Sink {
        let listener = TcpListener::bind(address).unwrap();
        let sink = Sink { arrived: Arc::default(), named: Arc::default(), connections: Arc::default(), more };
        let serving = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sink = serving.clone();
                let Ok(stream) = stream else { return };
                sink.connections.fetch_add(1, Ordering::Relaxed);
                // A client that goes away in the middle is its own business.
                std::thread::spawn(move || sink.serve(stream).unwrap_or_default());
            }
        });
        sink
    }

    /// What arrived so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// Waits for `count` messages.
    pub fn wait_for(&self, count: usize) -> Vec<Arrived> {
        super::wait_for(&format!("{count} messages at the next hop"), || {
            Some(self.arrived()).filter(|arrived| arrived.len() >= count)
        })
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often a recipient was named.
    pub fn attempts(&self, recipient: &str) -> u32 {
        self.named.lock().unwrap().get(recipient).copied().unwrap_or_default()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut out = stream;
        out.write_all(b"220 sink.example ESMTP\r\n")?;
        let mut mail = Arrived { from: String::new(), to: Vec::new(), data: String::new() };
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let usual = "250-PIPELINING\r\n250-SIZE 100000000\r\n250 8BITMIME\r\n";
                    write!(out, "250-sink.example\r\n{}{usual}", self.more)?;
                }
                "MAIL" => {
                    mail.from = line[10..].trim_end().to_string();
                    mail.to.clear();
                    out.write_all(b"250 2.1.0 ok\r\n")?;
                }
                "RCPT" => {
                    let to = line[8..].trim_end().trim_matches(['<', '>']).to_string();
                    let times = self.count(&to);
                    if to.starts_with("bad") {
                        out.write_all(b"550 5.1.1 no such user here\r\n")?;
                    } else if to.starts_with("later") && times == 1 {
                        out.write_all(b"451 4.7.1 come again\r\n")?;
                    } else {
                        mail.to.push(to);
                        out.write_all(b"250 2.1.5 ok\r\n")?;
                    }
                }
                "DATA" if mail.to.is_empty() => out.write_all(b"554 5.5.1 no valid recipients\r\n")?,
                "DATA" => {
                    out.write_all(b"354 go ahead\r\n")?;
                    mail.data = read_data(&mut lines)?;
                    self.arrived.lock().unwrap().push(mail.clone());
                    out.write_all(b"250 2.0.0 taken\r\n")?;
                }
                "QUIT" => return out.write_all(b"221 2.0.0 bye\r\n"),
                _ => out.write_all(b"250 2.0.0 ok\r\n")?,
            }
        }
    }

    fn count(&self, recipient: &str) -> u32 {
        let mut named = self.named.lock().unwrap();
        let count = named.entry(recipient.to_string()).or_default();
        *count += 1;
        *count
    }
}

fn read_data(lines: &mut impl BufRead) -> std::io::Result<String> {
    let mut data = Vec::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(String::from_utf8_lossy(&data).into_owned());
        }
        data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
