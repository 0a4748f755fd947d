//! An SMTP client that says what it is told and shows what it hears.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// A connection to the server.
pub struct Client {
    stream: BufReader<TcpStream>,
    /// The first reply.
    pub greeting: String,
}

impl Client {
    /// Connects and reads the greeting; `None` if either fails.
    pub fn try_connect(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Client { stream: BufReader::new(stream), greeting: String::new() };
        client.greeting = client.try_reply()?;
        Some(client)
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Writes bytes; `None` if the connection has ended.
    pub fn try_write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(bytes).ok()
    }

    /// Says a line and gives the whole reply.
    pub fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Says a line; the reply must begin with `code`.
    pub fn expect(&mut self, line: &str, code: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(code), "{line:?} was answered {reply:?}");
        reply
    }

    /// The next reply.
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("the connection ended")
    }

    /// The next reply; `None` at the end of the connection.
    pub fn try_reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        loop {
            let from = reply.len();
            if self.stream.read_line(&mut reply).ok()? == 0 {
                return None;
            }
            if reply.as_bytes().get(from + 3) != Some(&b'-') {
                return Some(reply);
            }
        }
    }

    /// Everything until the end of the connection.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// EHLO.
    pub fn hello(&mut self) {
        self.expect("EHLO client.example", "250");
    }

    /// A whole transaction; it must be accepted. `message` has LF line ends. Gives the queue id.
    pub fn send(&mut self, from: &str, to: &[&str], message: &str) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.try_data(message).expect("the message was not accepted")
    }

    /// DATA and the message; the queue id if it was accepted, else the reply.
    pub fn try_data(&mut self, message: &str) -> Result<String, String> {
        self.expect("DATA", "354");
        let mut wire = String::new();
        for line in message.lines() {
            if line.starts_with('.') {
                wire.push('.');
            }
            wire.push_str(line);
            wire.push_str("\r\n");
        }
        wire.push_str(".\r\n");
        self.write(wire.as_bytes());
        let reply = self.try_reply().ok_or("the connection ended")?;
        if !reply.starts_with("250") {
            return Err(reply);
        }
        Ok(reply.trim_end().rsplit(' ').next().unwrap_or_default().to_string())
    }

    /// QUIT.
    pub fn quit(&mut self) {
        self.expect("QUIT", "221");
    }
}
