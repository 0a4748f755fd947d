//! Where the message goes: into `drop/`, or to posta-queue over `run/drop`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use posta::unix::durable::{Disk, Durable, Folder};
use posta::unix::pass::{MAX_PACKET, Packets};
use posta::unix::{sysexits, users};

use posta::mail::envelope::{BodyKind, Envelope, Origin};
use posta::mail::id::Id;

use posta::courier::drop::{Dropped, Submission};
use posta::courier::fields::FieldError;

use posta::spool::{Committer, Draft, Spool, SpoolError};

/// posta-queue syncs the message before it answers; a disk that hangs longer than that is a fault.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a message was not stored.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{0}")]
    Spool(#[from] SpoolError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{drop}: permission denied, and {socket}: {source}; install posta-drop set-group-id (\"make install\" as \
         root), or start posta"
    )]
    NoWay { drop: PathBuf, socket: PathBuf, source: io::Error },
    #[error("{0} recipients do not fit into one packet to posta-queue; send to fewer at once")]
    TooMany(usize),
    #[error("posta-queue gave no answer that can be read: {0}")]
    Garbled(#[from] FieldError),
    #[error("posta-queue did not take the message: {0}")]
    Refused(String),
}

impl StoreError {
    /// Nearly everything here may be better a little later.
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::TooMany(_) => sysexits::DATA,
            _ => sysexits::TEMPFAIL,
        }
    }
}

/// A message on its way.
pub enum Store {
    /// Into `drop/`.
    Folder { committer: Box<Committer>, draft: Draft },
    /// To posta-queue, once it is whole.
    Socket { queue: Packets, socket: PathBuf, file: File },
}

impl Store {
    /// Opens the folder, or the socket where the folder is closed to us.
    pub fn begin(spool: &Path, run: &Path) -> Result<Store, StoreError> {
        match open_folder(spool) {
            Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                let socket = run.join("drop");
                let queue = Packets::connect(&socket).map_err(|source| StoreError::NoWay {
                    drop: spool.join("drop"),
                    socket: socket.clone(),
                    source,
                })?;
                let file = unnamed_file()?;
                Ok(Store::Socket { queue, socket, file })
            }
            opened => Ok(opened?),
        }
    }

    /// Adds to the message.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Store::Folder { draft, .. } => Ok(draft.push(bytes)?),
            Store::Socket { file, .. } => Disk.write(file, bytes).map_err(|source| {
                let path = PathBuf::from("temporary file");
                StoreError::Io { path, source }
            }),
        }
    }

    /// The message is whole: stores it durably.
    pub fn finish(self, submission: Submission, eight_bit: bool) -> Result<Id, StoreError> {
        match self {
            Store::Folder { committer, draft } => {
                Ok(committer.commit(draft, &envelope(submission, eight_bit))?.id())
            }
            Store::Socket { queue, socket, file } => hand_over(&queue, &socket, &file, &submission),
        }
    }
}

fn open_folder(spool: &Path) -> Result<Store, SpoolError> {
    let spool = Arc::new(Spool::for_dropping(spool, Arc::new(Disk))?);
    let draft = Draft::begin(&spool)?;
    Ok(Store::Folder { committer: Box::new(Committer::new(spool)), draft })
}

/// A file without a name, where anybody may have one.
fn unnamed_file() -> Result<File, StoreError> {
    let open =
        |path: &str| Folder::open(Path::new(path)).and_then(|folder| Disk.unnamed(&folder, ".", 0o600));
    open("/tmp").or_else(|_| open("/var/tmp")).map_err(|source| {
        let path = PathBuf::from("/var/tmp");
        StoreError::Io { path, source }
    })
}

fn hand_over(queue: &Packets, socket: &Path, file: &File, submission: &Submission) -> Result<Id, StoreError> {
    let packet = submission.encode().map_err(|error| match error {
        FieldError::TooLong(_) => StoreError::TooMany(submission.recipients.len()),
        error => StoreError::Garbled(error),
    })?;
    let mut buffer = vec![0; MAX_PACKET];
    let answer = queue
        .set_receive_timeout(PATIENCE)
        .and_then(|()| queue.send(&packet, Some(file.as_fd())))
        .and_then(|()| queue.receive(&mut buffer));
    let (length, _) = answer.map_err(|source| StoreError::Io { path: socket.to_path_buf(), source })?;
    match Dropped::decode(&buffer[..length])? {
        Dropped::Taken(id) => Ok(id),
        Dropped::Failed(why) => Err(StoreError::Refused(why)),
    }
}

/// What is said of the message. The user is for people to read: posta-queue takes the owner of the
/// file for the truth, and puts the trace fields on top.
fn envelope(submission: Submission, eight_bit: bool) -> Envelope {
    let uid = users::current().0;
    let name = users::by_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |account| account.name);
    let sender_utf8 = submission.sender.mailbox().is_some_and(|mailbox| mailbox.needs_utf8());
    let utf8 = sender_utf8 || submission.recipients.iter().any(|to| to.address.needs_utf8());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Envelope {
        sender: submission.sender,
        ret: submission.ret,
        envid: submission.envid,
        recipients: submission.recipients,
        origin: Origin::User { uid, name },
        arrived: now.as_micros() as u64,
        body: if eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit },
        utf8,
        require_tls: false,
        trace: Vec::new(),
    }
}
