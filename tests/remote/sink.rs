//! A server on loopback that answers by a script and keeps what it heard.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a script is asked: a command line, `CONNECT` for a new connection, `.` for the end of a
/// message. It is asked about `BDAT` before the octets are read.
pub struct Asked<'a> {
    /// The command, as it came, without its CRLF.
    pub line: &'a str,
    /// Which connection it is, from 0.
    pub connection: usize,
    /// Which of the commands of this verb it is, from 1, over all connections.
    pub times: usize,
}

impl Asked<'_> {
    /// Whether it is the last chunk.
    pub fn is_last(&self) -> bool {
        self.line.starts_with("BDAT") && self.line.ends_with(" LAST")
    }

    /// Whether the command begins so.
    pub fn is(&self, start: &str) -> bool {
        self.line.starts_with(start)
    }
}

/// What a script answers.
pub enum Say {
    /// This, lines separated by newlines.
    Reply(String),
    /// This, and then close.
    Last(String),
    /// Nothing, and close.
    Close,
}

pub fn say(text: &str) -> Say {
    Say::Reply(text.to_string())
}

/// Offers everything, takes everything.
pub fn polite(asked: &Asked<'_>) -> Say {
    let verb = asked.line.split([' ', ':']).next().unwrap_or_default();
    say(match verb {
        "CONNECT" => "220 sink.example ESMTP",
        "EHLO" | "LHLO" => "250-sink.example\n250-PIPELINING\n250-8BITMIME\n250-SIZE 1000000\n250 DSN",
        "DATA" => "354 go ahead",
        "QUIT" => return Say::Last("221 bye".into()),
        _ => "250 2.0.0 ok",
    })
}

/// What was heard on one connection.
#[derive(Default, Clone, Debug)]
pub struct Heard {
    /// Command lines.
    pub commands: Vec<String>,
    /// Messages on the wire, with doubled dots, without the final one.
    pub messages: Vec<Vec<u8>>,
    /// The octets of each chunk.
    pub chunks: Vec<Vec<u8>>,
    /// The connection has ended.
    pub closed: bool,
}

#[derive(Default)]
struct Book {
    heard: Mutex<Vec<Heard>>,
    changed: Condvar,
}

/// A server and what it heard.
#[derive(Clone)]
pub struct Sink {
    book: Arc<Book>,
}

type Script = dyn Fn(&Asked<'_>) -> Say + Send + Sync;

impl Sink {
    pub fn tcp(listener: TcpListener, script: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static) -> Sink {
        let accept = move || {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            Ok((socket.try_clone()?, socket))
        };
        Sink::start(accept, Arc::new(script))
    }

    pub fn unix(listener: UnixListener, script: impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static) -> Sink {
        let accept = move || listener.accept().and_then(|(s, _)| Ok((s.try_clone()?, s)));
        Sink::start(accept, Arc::new(script))
    }

    /// The threads end with the test's process.
    fn start<R: Read + Send + 'static, W: Write + Send + 'static>(
        accept: impl Fn() -> io::Result<(R, W)> + Send + 'static,
        script: Arc<Script>,
    ) -> Sink {
        let sink = Sink { book: Arc::default() };
        let book = sink.book.clone();
        std::thread::spawn(move || {
            for connection in 0.. {
                let Ok((reader, writer)) = accept() else { return };
                let (book, script) = (book.clone(), script.clone());
                book.heard.lock().unwrap().push(Heard::default());
                std::thread::spawn(move || {
                    // A peer that goes without a word is part of the play.
                    let _ = talk(BufReader::new(reader), writer, connection, &book, &*script);
                    book.note(connection, |heard| heard.closed = true);
                });
            }
        });
        sink
    }

    /// What was heard so far, by connection.
    pub fn heard(&self) -> Vec<Heard> {
        self.book.heard.lock().unwrap().clone()
    }

    /// All messages, undone to what was sent.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        self.heard().iter().flat_map(|heard| heard.messages.iter().map(|m| undone(m))).collect()
    }

    /// All that came in chunks, of all messages.
    pub fn chunked(&self) -> Vec<u8> {
        self.heard().into_iter().flat_map(|heard| heard.chunks).flatten().collect()
    }

    /// All commands that begin so.
    pub fn commands(&self, start: &str) -> Vec<String> {
        let all = self.heard().into_iter().flat_map(|heard| heard.commands);
        all.filter(|command| command.starts_with(start)).collect()
    }

    /// Waits until what was heard fits.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&[Heard]) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        let mut heard = self.book.heard.lock().unwrap();
        while !fits(&heard) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waiting for {what}: {heard:?}");
            heard = self.book.changed.wait_timeout(heard, left).unwrap().0;
        }
    }
}

impl Book {
    fn note(&self, connection: usize, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap()[connection]);
        self.changed.notify_all();
    }

    fn times(&self, line: &str) -> usize {
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        let heard = self.heard.lock().unwrap();
        if verb == "." {
            return heard.iter().map(|h| h.messages.len()).sum();
        }
        heard.iter().flat_map(|h| &h.commands).filter(|c| c.starts_with(verb)).count().max(1)
    }
}

fn talk(
    mut reader: impl BufRead,
    mut writer: impl Write,
    connection: usize,
    book: &Book,
    script: &Script,
) -> io::Result<()> {
    let mut line = "CONNECT".to_string();
    loop {
        let asked = Asked { line: &line, connection, times: book.times(&line) };
        let (text, close) = match script(&asked) {
            Say::Reply(text) => (text, false),
            Say::Last(text) => (text, true),
            Say::Close => return Ok(()),
        };
        if let Some(words) = line.strip_prefix("BDAT ") {
            let mut chunk = vec![0; words.trim_end_matches(" LAST").parse().expect("a length")];
            reader.read_exact(&mut chunk)?;
            book.note(connection, |heard| heard.chunks.push(chunk));
        }
        let wire: String = text.lines().map(|line| format!("{line}\r\n")).collect();
        writer.write_all(wire.as_bytes())?;
        if close {
            return Ok(());
        }
        if text.starts_with("354") {
            let message = content(&mut reader)?;
            book.note(connection, |heard| heard.messages.push(message));
            line = ".".into();
            continue;
        }
        let mut bytes = Vec::new();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        line = String::from_utf8(bytes).expect("commands are text");
        assert_eq!(line.pop(), Some('\n'));
        assert_eq!(line.pop(), Some('\r'), "a bare LF after {line:?}");
        book.note(connection, |heard| heard.commands.push(line.clone()));
    }
}

/// Reads up to the final dot, strictly: CR LF dot CR LF.
fn content(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let from = content.len();
        if reader.read_until(b'\n', &mut content)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if &content[from..] == b".\r\n" && (from == 0 || content[..from].ends_with(b"\r\n")) {
            content.truncate(from);
            return Ok(content);
        }
    }
}

/// RFC 5321 4.5.2: the first dot of a line that begins with one is taken off.
fn undone(wire: &[u8]) -> Vec<u8> {
    let lines = wire.split_inclusive(|b| *b == b'\n');
    lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect()
}
