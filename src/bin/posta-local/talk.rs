//! What the parent and a child say to each other, over a pair of SEQPACKET sockets.
//!
//! A packet carries several words, so that many deliveries cost few system calls. The files of the
//! requests go along in their order; a `sync` carries the folder whose file system is meant.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use posta::mail::status::Status;

use posta::courier::fields::{FieldError, Reader, Writer};
use posta::maildir::quota::Limit;
use posta::unix::pass::MAX_PACKET;

use log::LevelFilter;

/// Most bytes of a packet: the longest request and much beside it.
pub const MAX_TALK: usize = 2 * MAX_PACKET;
/// Where a packet to a child is closed, if more is to be said: one request fits behind it.
pub const ROOM: usize = MAX_PACKET - 1024;

/// What a child must know before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Keep the caller's rights.
    pub keep_rights: bool,
    /// Confine yourself to these folders and your home; `None`: don't.
    pub confined: Option<Vec<PathBuf>>,
    /// This host's name, for the names of files.
    pub hostname: String,
    /// For one delivery.
    pub timeout: Duration,
    /// What parts a user's name from an extension.
    pub delimiter: String,
    /// A `.forward` may include lists.
    pub forward_includes: bool,
    /// An extension names a folder of the Maildir.
    pub folders: bool,
    /// Of each Maildir.
    pub limit: Limit,
    /// Mail for a full mailbox is given back.
    pub full_is_final: bool,
    /// Log to the system's log, not to standard error.
    pub syslog: bool,
    /// What is worth logging.
    pub level: LevelFilter,
}

/// To a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToChild {
    /// The first word.
    Begin(Settings),
    /// A request of posta-queue, word for word, with its file.
    Request(Vec<u8>),
    /// A shared sync has covered what was asked for under this number.
    Synced(u64),
    /// So few wait that the child should sync its files itself.
    Yourself(u64),
}

/// From a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromChild {
    /// It has become who it should be, and takes requests.
    Ready {
        /// Its user id.
        uid: u32,
    },
    /// It can't serve this owner, and goes.
    Refused {
        /// For all that waits.
        status: Status,
        /// Why.
        text: String,
    },
    /// It has not stopped working.
    Alive,
    /// It waits for a sync.
    Sync {
        /// Names what it waits with.
        number: u64,
        /// The file system.
        device: u64,
        /// How many copies wait.
        copies: usize,
    },
    /// It has done the sync of this number itself.
    Synced(u64),
    /// A job is done: its number, and the packet for posta-queue.
    Done {
        /// The request's number.
        job: u64,
        /// An encoded report.
        report: Vec<u8>,
    },
}

/// The length that a request adds to a packet.
pub fn request_length(request: &[u8]) -> usize {
    request.len() + "request 12345:\n".len()
}

impl ToChild {
    fn put(&self, w: &mut Writer) {
        match self {
            ToChild::Begin(settings) => {
                w.put("begin", if settings.keep_rights { "keep" } else { "drop" });
                if let Some(folders) = &settings.confined {
                    w.put("confined", "");
                    folders.iter().for_each(|folder| w.put("folder", folder.as_os_str().as_bytes()));
                }
                w.put("hostname", &settings.hostname);
                w.put_text("timeout", settings.timeout.as_millis());
                w.put("delimiter", &settings.delimiter);
                w.put_text("includes", settings.forward_includes);
                w.put_text("folders", settings.folders);
                w.put_text("bytes", settings.limit.bytes);
                w.put_text("messages", settings.limit.messages);
                w.put_text("final", settings.full_is_final);
                w.put("log", if settings.syslog { "syslog" } else { "stderr" });
                w.put_text("level", settings.level);
            }
            ToChild::Request(packet) => w.put("request", packet),
            ToChild::Synced(number) => w.put_text("synced", number),
            ToChild::Yourself(number) => w.put_text("yourself", number),
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<ToChild, FieldError> {
        if let Some(packet) = r.optional("request")? {
            return Ok(ToChild::Request(packet.to_vec()));
        }
        if let Some(number) = r.optional_text("synced")? {
            return Ok(ToChild::Synced(number.parse().map_err(|_| FieldError::Value("synced"))?));
        }
        if let Some(number) = r.optional_text("yourself")? {
            return Ok(ToChild::Yourself(number.parse().map_err(|_| FieldError::Value("yourself"))?));
        }
        // The fields are read in the order they were written.
        Ok(ToChild::Begin(Settings {
            keep_rights: r.bytes("begin")? == b"keep",
            confined: folders(r)?,
            hostname: r.text("hostname")?.to_string(),
            timeout: Duration::from_millis(r.value("timeout")?),
            delimiter: r.text("delimiter")?.to_string(),
            forward_includes: r.value("includes")?,
            folders: r.value("folders")?,
            limit: Limit { bytes: r.value("bytes")?, messages: r.value("messages")? },
            full_is_final: r.value("final")?,
            syslog: r.bytes("log")? == b"syslog",
            level: r.value("level")?,
        }))
    }
}

impl FromChild {
    fn put(&self, w: &mut Writer) {
        match self {
            FromChild::Ready { uid } => w.put_text("ready", uid),
            FromChild::Refused { status, text } => {
                w.put_text("refused", status);
                w.put("text", text);
            }
            FromChild::Alive => w.put("alive", ""),
            FromChild::Sync { number, device, copies } => {
                w.put_text("sync", number);
                w.put_text("device", device);
                w.put_text("copies", copies);
            }
            FromChild::Synced(number) => w.put_text("synced", number),
            FromChild::Done { job, report } => {
                w.put_text("done", job);
                w.put("report", report);
            }
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<FromChild, FieldError> {
        if let Some(job) = r.optional_text("done")? {
            let job = job.parse().map_err(|_| FieldError::Value("done"))?;
            return Ok(FromChild::Done { job, report: r.bytes("report")?.to_vec() });
        }
        if let Some(number) = r.optional_text("sync")? {
            let number = number.parse().map_err(|_| FieldError::Value("sync"))?;
            return Ok(FromChild::Sync { number, device: r.value("device")?, copies: r.value("copies")? });
        }
        if let Some(number) = r.optional_text("synced")? {
            return Ok(FromChild::Synced(number.parse().map_err(|_| FieldError::Value("synced"))?));
        }
        if r.optional("alive")?.is_some() {
            return Ok(FromChild::Alive);
        }
        if let Some(status) = r.optional_text("refused")? {
            let status = Status::parse(status).ok_or(FieldError::Value("refused"))?;
            return Ok(FromChild::Refused { status, text: r.text("text")?.to_string() });
        }
        Ok(FromChild::Ready { uid: r.value("ready")? })
    }
}

/// The folders that a child confines itself to, if it does.
fn folders(r: &mut Reader<'_>) -> Result<Option<Vec<PathBuf>>, FieldError> {
    if r.optional("confined")?.is_none() {
        return Ok(None);
    }
    let mut folders = Vec::new();
    while let Some(folder) = r.optional("folder")? {
        folders.push(PathBuf::from(OsStr::from_bytes(folder)));
    }
    Ok(Some(folders))
}

/// A packet to a child.
pub fn to_child(words: &[ToChild]) -> Result<Vec<u8>, FieldError> {
    let mut w = Writer::default();
    words.iter().for_each(|word| word.put(&mut w));
    w.finish(MAX_TALK)
}

/// A packet from a child.
pub fn from_child(words: &[FromChild]) -> Result<Vec<u8>, FieldError> {
    let mut w = Writer::default();
    words.iter().for_each(|word| word.put(&mut w));
    w.finish(MAX_TALK)
}

/// The words of a packet from the parent.
pub fn read_as_child(packet: &[u8]) -> Result<Vec<ToChild>, FieldError> {
    let mut r = Reader::new(packet);
    let mut words = Vec::new();
    while !r.is_done() {
        words.push(ToChild::take(&mut r)?);
    }
    Ok(words)
}

/// The words of a packet from a child.
pub fn read_as_parent(packet: &[u8]) -> Result<Vec<FromChild>, FieldError> {
    let mut r = Reader::new(packet);
    let mut words = Vec::new();
    while !r.is_done() {
        words.push(FromChild::take(&mut r)?);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        let settings = Settings {
            keep_rights: true,
            confined: Some(vec!["/srv/mail".into(), "/home".into()]),
            hostname: "h".into(),
            timeout: Duration::from_millis(7),
            delimiter: "+-".into(),
            forward_includes: true,
            folders: true,
            limit: Limit { bytes: 5, messages: 6 },
            full_is_final: true,
            syslog: true,
            level: LevelFilter::Info,
        };
        let words = [
            ToChild::Begin(Settings { confined: None, ..settings.clone() }),
            ToChild::Begin(settings),
            ToChild::Request(b"job 1:7\n".to_vec()),
            ToChild::Synced(1),
            ToChild::Yourself(2),
        ];
        assert_eq!(read_as_child(&to_child(&words).unwrap()).unwrap(), words);
        let words = [
            FromChild::Ready { uid: 8 },
            FromChild::Refused { status: Status::new(5, 1, 1), text: "gone".into() },
            FromChild::Alive,
            FromChild::Sync { number: 1, device: 2, copies: 3 },
            FromChild::Synced(4),
            FromChild::Done { job: 5, report: b"x\n".to_vec() },
        ];
        assert_eq!(read_as_parent(&from_child(&words).unwrap()).unwrap(), words);
        assert!(read_as_parent(b"nonsense 0:\n").is_err());
        assert!(read_as_child(b"request 9:x\n").is_err());
    }

    #[test]
    fn the_longest_request_fits_behind_a_full_packet() {
        let request = ToChild::Request(vec![b'x'; MAX_PACKET]);
        let before = ToChild::Request(vec![b'x'; ROOM - request_length(&[])]);
        assert!(to_child(&[before, request]).is_ok());
    }
}
