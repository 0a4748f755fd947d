//! Asking Dovecot, where it has the users: its auth client protocol, version 1, on a Unix socket.
//!
//! ```text
//! us: VERSION 1 1, CPID 4711           it: VERSION 1 2, MECH PLAIN plaintext, …, DONE
//! us: AUTH 1 PLAIN service=smtp secured nologin rip=192.0.2.1 resp=AGFsaWNlAHNlY3JldA==
//! it: OK 1 user=alice@example.org      or FAIL 1 user=…, with "temp" where it can't say
//! ```
//!
//! Words are parted by tabs, lines end with LF.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use posta::net::stream::Stream;

/// How long it may take for all of it. A refusal takes it two seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest line, and the most lines, that are read.
const LONGEST_LINE: usize = 8192;
const MOST_LINES: usize = 100;

/// Why Dovecot's answer is none.
#[derive(Debug, Error)]
pub enum DovecotError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It speaks another version, or something else altogether.
    #[error("not the auth client protocol: {0:?}")]
    Protocol(String),
    /// It can't say by itself.
    #[error("it can't say now: {0}")]
    Temporary(String),
}

/// What a user is asked for.
pub struct Question<'a> {
    pub login: &'a str,
    pub password: &'a str,
    pub client: Option<IpAddr>,
    /// Nobody can listen between the client and us.
    pub secure: bool,
}

/// Whether it is the user's password: the user's name as Dovecot has it, or `None` if it is not.
pub fn ask(socket: &Path, question: &Question<'_>) -> Result<Option<String>, DovecotError> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = Stream::connect_unix(socket, PATIENCE)?;
    stream.set_deadline(Some(deadline));
    let mut lines = Lines { stream, read: Vec::new(), left: MOST_LINES };
    lines.say(&format!("VERSION\t1\t1\nCPID\t{}\n", std::process::id()))?;
    greet(&mut lines)?;
    lines.say(&request(question))?;
    loop {
        let line = lines.next()?;
        let mut words = line.split('\t');
        let (verb, id) = (words.next().unwrap_or_default(), words.next());
        match (verb, id) {
            ("OK", Some("1")) => {
                let user = words.find_map(|word| word.strip_prefix("user="));
                return Ok(Some(user.unwrap_or(question.login).to_lowercase()));
            }
            ("FAIL", Some("1")) => {
                let words: Vec<&str> = words.collect();
                let reason = words.iter().find_map(|word| word.strip_prefix("reason=")).unwrap_or_default();
                return match words.contains(&"temp") {
                    true => Err(DovecotError::Temporary(reason.to_string())),
                    false => Ok(None),
                };
            }
            // PLAIN has nothing to go on with.
            ("CONT", _) => return Err(DovecotError::Protocol(line)),
            // Mechanisms may come and go while we wait.
            _ => {}
        }
    }
}

/// Its side of the greeting, up to DONE.
fn greet(lines: &mut Lines) -> Result<(), DovecotError> {
    let mut has_version = false;
    loop {
        let line = lines.next()?;
        let mut words = line.split('\t');
        match (words.next(), words.next()) {
            (Some("VERSION"), Some("1")) => has_version = true,
            (Some("VERSION"), _) => return Err(DovecotError::Protocol(line)),
            (Some("DONE"), _) if has_version => return Ok(()),
            _ if has_version => {}
            _ => return Err(DovecotError::Protocol(line)),
        }
    }
}

/// The response stands last: it may hold anything that base64 can.
fn request(question: &Question<'_>) -> String {
    let response = STANDARD.encode(format!("\0{}\0{}", question.login, question.password));
    let client = question.client.map(|client| format!("\trip={client}")).unwrap_or_default();
    let secured = if question.secure { "\tsecured" } else { "" };
    format!("AUTH\t1\tPLAIN\tservice=smtp{secured}\tnologin{client}\tresp={response}\n")
}

struct Lines {
    stream: Stream,
    read: Vec<u8>,
    /// How many more lines are taken.
    left: usize,
}

impl Lines {
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    fn next(&mut self) -> io::Result<String> {
        let too_much = || io::Error::new(io::ErrorKind::InvalidData, "it says too much");
        self.left = self.left.checked_sub(1).ok_or_else(too_much)?;
        loop {
            if let Some(end) = self.read.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.read.len() > LONGEST_LINE {
                return Err(too_much());
            }
            let mut piece = [0; 1024];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.read.extend_from_slice(&piece[..length]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::thread::JoinHandle;

    use super::*;

    /// A Dovecot that greets and gives one answer; tells what it was asked.
    fn dovecot(
        greeting: &'static str,
        answer: &'static str,
    ) -> (tempfile::TempDir, PathBuf, JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("auth-client");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "VERSION\t1\t1");
            assert!(lines.next().unwrap().unwrap().starts_with("CPID\t"));
            stream.write_all(greeting.as_bytes()).unwrap();
            let Some(Ok(asked)) = lines.next() else { return String::new() };
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        (folder, socket, thread)
    }

    const GREETING: &str = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\tx\nDONE\n";

    fn question() -> Question<'static> {
        let client = Some("192.0.2.1".parse().unwrap());
        Question { login: "alice", password: "secret", client, secure: true }
    }

    #[test]
    fn yes_no_and_perhaps_are_told_apart() {
        let (_folder, socket, thread) = dovecot(GREETING, "OK\t1\tuser=Alice@example.org\n");
        assert_eq!(ask(&socket, &question()).unwrap().as_deref(), Some("alice@example.org"));
        let asked = thread.join().unwrap();
        assert_eq!(
            asked,
            "AUTH\t1\tPLAIN\tservice=smtp\tsecured\tnologin\trip=192.0.2.1\tresp=AGFsaWNlAHNlY3JldA=="
        );
        let (_folder, socket, thread) = dovecot(GREETING, "MECH\tX\nFAIL\t1\tuser=alice\n");
        assert_eq!(ask(&socket, &question()).unwrap(), None);
        thread.join().unwrap();
        let (_folder, socket, thread) = dovecot(GREETING, "FAIL\t1\tuser=alice\ttemp\treason=no database\n");
        assert!(
            matches!(ask(&socket, &question()), Err(DovecotError::Temporary(why)) if why == "no database")
        );
        thread.join().unwrap();
    }

    #[test]
    fn something_else_on_the_socket_is_an_error() {
        for (greeting, answer) in
            [("220 mail.example.org ESMTP\r\n", ""), ("VERSION\t2\t0\nDONE\n", ""), (GREETING, "")]
        {
            let (_folder, socket, thread) = dovecot(greeting, answer);
            assert!(ask(&socket, &question()).is_err(), "{greeting}");
            thread.join().unwrap();
        }
        assert!(matches!(ask(Path::new("/nowhere/auth"), &question()), Err(DovecotError::Io(_))));
    }
}
