//! The door to env_logger: where lines go, and in what dress.
//!
//! - standard error: `2026-11-24T20:15:02.123456Z posta-smtpd[123]: text`
//! - standard error under systemd: `<6>text`, since the journal knows the rest
//! - the system's log: `<22>posta-smtpd[123]: text`, a datagram to `/dev/log`
//!
//! A record is one write of at most [`MAX_RECORD`] bytes, so that programs which share a pipe don't
//! mix their lines. Control characters come out escaped: no peer can forge a line.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::{Level, LevelFilter, Record};

use crate::config::LogTo;

use super::entry::Line;
use super::together::Stderr;

/// Most bytes of a record with its dress: what a pipe takes in one piece (pipe(7)).
pub const MAX_RECORD: usize = 4096;
/// Where the system's log listens.
const DEV_LOG: &str = "/dev/log";
/// The facility `mail` of the system's log (RFC 5424 6.2.1).
const FACILITY_MAIL: u8 = 2;

/// Starts logging for a program. Called once, early in `main`; a second call only sets the level.
/// If the system's log can't be reached, lines go to standard error until it can.
pub fn start(program: &str, to: LogTo, level: LevelFilter) {
    let dress = match to {
        LogTo::Syslog => Dress::Syslog,
        LogTo::Stderr if std::env::var_os("JOURNAL_STREAM").is_some() => Dress::Journal,
        LogTo::Stderr => Dress::Plain,
    };
    let door: Box<dyn Write + Send> = match to {
        LogTo::Syslog => Box::new(Syslog::new(DEV_LOG.into())),
        LogTo::Stderr => Box::new(Stderr),
    };
    let name = format!("{program}[{}]", std::process::id());
    let _already_started = env_logger::Builder::new()
        // Our own words at every level, so that the level can change while we run; of others only
        // what is wrong.
        .filter_level(LevelFilter::Warn)
        .filter_module("posta", LevelFilter::Trace)
        .filter_module("sendmail", LevelFilter::Trace)
        .target(env_logger::Target::Pipe(door))
        .format(move |out, record| out.write_all(dress.line(&name, record).as_bytes()))
        .try_init();
    log::set_max_level(level);
}

/// Says one level more from now on, at most all there is.
pub fn louder() {
    step(1);
}

/// Says one level less from now on, at least what is wrong.
pub fn quieter() {
    step(-1);
}

/// Says so much from now on: a number that stands for a level, see [`number`]. One that stands for none
/// changes nothing.
pub fn set_number(number: i32) {
    if let Some(level) = usize::try_from(number).ok().and_then(|n| LEVELS.get(n)) {
        change(*level);
    }
}

/// The number of a level, for [`set_number`] in another process.
pub fn number(level: LevelFilter) -> i32 {
    let at = LEVELS.iter().position(|known| *known == level);
    at.and_then(|at| i32::try_from(at).ok()).unwrap_or(-1)
}

/// Says what the configuration wants said from now on. Silent if that is as it was.
pub fn set(level: LevelFilter) {
    if log::max_level() != level {
        change(level);
    }
}

const LEVELS: [LevelFilter; 5] =
    [LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info, LevelFilter::Debug, LevelFilter::Trace];

fn step(by: isize) {
    let at = LEVELS.iter().position(|level| *level == log::max_level()).unwrap_or(0);
    change(LEVELS[at.saturating_add_signed(by).min(LEVELS.len() - 1)]);
}

fn change(level: LevelFilter) {
    let now = log::max_level();
    // The word about it is heard at both levels, or it would be missing where less is said from now on.
    log::set_max_level(level.max(now).max(LevelFilter::Info));
    log::info!("log level is now {level}");
    log::set_max_level(level);
}

/// What stands before a record's text.
#[derive(Debug, Clone, Copy)]
enum Dress {
    Plain,
    Journal,
    Syslog,
}

impl Dress {
    /// The whole line of a record, with its newline.
    fn line(self, name: &str, record: &Record<'_>) -> String {
        let mut line = String::with_capacity(256);
        // Writing to a String doesn't fail.
        let _ = self.write(&mut line, name, record);
        let end = line.floor_char_boundary(MAX_RECORD - 1);
        line.truncate(end);
        line.push('\n');
        line
    }

    fn write(self, line: &mut String, name: &str, record: &Record<'_>) -> fmt::Result {
        let severity = severity(record.level());
        match self {
            Dress::Plain => write!(line, "{:.6} {name}: ", jiff::Timestamp::now())?,
            Dress::Journal => write!(line, "<{severity}>")?,
            Dress::Syslog => write!(line, "<{}>{name}: ", FACILITY_MAIL * 8 + severity)?,
        }
        line.push_str(match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        });
        write!(Line(line), "{}", record.args())
    }
}

/// The severity of a level (RFC 5424 6.2.1).
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The system's log: a datagram for each record. Connects again when the log's daemon was started
/// anew.
struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn new(path: PathBuf) -> Syslog {
        let socket = connect(&path).ok();
        Syslog { path, socket }
    }

    fn send(&mut self, record: &[u8]) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            match socket.send(record) {
                // A log that doesn't keep up loses lines to standard error, it doesn't stop the mail.
                Ok(_) => return Ok(()),
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Err(why),
                Err(_) => self.socket = None,
            }
        }
        let socket = connect(&self.path)?;
        socket.send(record)?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Write for Syslog {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.send(record.trim_ascii_end()).is_err() {
            io::stderr().write_all(record)?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(dress: Dress, level: Level, text: &str) -> String {
        dress.line("posta-smtpd[7]", &Record::builder().level(level).args(format_args!("{text}")).build())
    }

    #[test]
    fn each_dress_is_as_its_reader_wants_it() {
        assert_eq!(line(Dress::Journal, Level::Info, "hello"), "<6>hello\n");
        assert_eq!(line(Dress::Syslog, Level::Warn, "hello"), "<20>posta-smtpd[7]: warning: hello\n");
        let plain = line(Dress::Plain, Level::Error, "hello");
        let (time, rest) = plain.split_once(' ').unwrap();
        assert_eq!(rest, "posta-smtpd[7]: error: hello\n");
        assert_eq!((time.len(), time.as_bytes()[10], time.as_bytes()[19]), (27, b'T', b'.'), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn no_text_makes_a_second_line_or_an_endless_one() {
        assert_eq!(line(Dress::Journal, Level::Info, "a\r\n<6>b\u{7}"), "<6>a\\r\\n<6>b\\x07\n");
        let long = line(Dress::Plain, Level::Info, &"ä".repeat(10_000));
        assert!(long.len() <= MAX_RECORD && long.ends_with("ä\n"));
    }

    #[test]
    fn syslog_gets_a_datagram_a_record_and_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut log = Syslog::new(path.clone());
        let mut buffer = [0; 64];
        log.write_all(b"<22>one\n").unwrap();
        let n = daemon.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"<22>one");
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        log.write_all(b"<22>nobody listens: this goes to standard error\n").unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        log.write_all(b"<22>two\n").unwrap();
        let n = daemon.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"<22>two");
    }
}
