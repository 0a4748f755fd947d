//! Giving an order to posta-queue over `run/queue`, and reading its answers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::unix::pass::{MAX_PACKET, Packets};
use crate::unix::sysexits;

use crate::courier::fields::FieldError;
use crate::courier::order::{Answer, Failure, Order};

/// Why an order came to nothing.
#[derive(Debug, Error)]
pub enum OrderError {
    /// Nobody listens at `run/queue`.
    #[error("{socket}: posta-queue is not running ({source}); start it with \"posta\"")]
    NotRunning {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// We may not connect.
    #[error("{socket}: {source}")]
    Connect {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// posta-queue went away, or said nothing for too long.
    #[error("posta-queue gave no full answer: {0}")]
    Lost(io::Error),
    /// A packet that is none of ours.
    #[error("posta-queue gave an answer that can't be read: {0}")]
    Garbled(#[from] FieldError),
    /// posta-queue refused.
    #[error("{1}")]
    Refused(Failure, String),
}

impl OrderError {
    /// What a command that gave the order exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            OrderError::Refused(Failure::Wrong, _) => sysexits::DATA,
            OrderError::Refused(Failure::Denied, _) | OrderError::Connect { .. } => sysexits::NOPERM,
            OrderError::Refused(Failure::Later, _) => sysexits::TEMPFAIL,
            OrderError::NotRunning { .. } | OrderError::Lost(_) | OrderError::Garbled(_) => {
                sysexits::UNAVAILABLE
            }
        }
    }

    /// Whether posta-queue is simply not there.
    pub fn is_not_running(&self) -> bool {
        matches!(self, OrderError::NotRunning { .. })
    }
}

/// Gives `order` to the posta-queue that listens at `socket`, and each answer but the last to
/// `each`, with the file that came with it. `patience` is the longest wait for one answer; `None`
/// waits as long as posta-queue lives (a pass over the queue takes what it takes).
pub fn give(
    socket: &Path,
    order: &Order,
    patience: Option<Duration>,
    each: &mut dyn FnMut(Answer, Option<OwnedFd>),
) -> Result<(), OrderError> {
    let queue = Packets::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            OrderError::NotRunning { socket: socket.to_path_buf(), source }
        }
        _ => OrderError::Connect { socket: socket.to_path_buf(), source },
    })?;
    if let Some(patience) = patience {
        queue.set_receive_timeout(patience).map_err(OrderError::Lost)?;
    }
    queue.send(&order.encode()?, None).map_err(OrderError::Lost)?;
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let (length, attached) = queue.receive(&mut buffer).map_err(OrderError::Lost)?;
        if length == 0 {
            return Err(OrderError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        match Answer::decode(&buffer[..length])? {
            Answer::End => return Ok(()),
            Answer::Failed(failure, why) => return Err(OrderError::Refused(failure, why)),
            answer => each(answer, attached),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::unix::pass::PacketListener;

    use super::*;

    /// Someone who answers one order.
    fn queue(answers: Vec<Answer>) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<Order>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("queue");
        let listener = PacketListener::bind(&socket, 0o600).unwrap();
        let thread = std::thread::spawn(move || {
            let client = listener.accept().unwrap();
            let mut buffer = [0; 512];
            let (length, _) = client.receive(&mut buffer).unwrap();
            for answer in answers {
                client.send(&answer.encode().unwrap(), None).unwrap();
            }
            Order::decode(&buffer[..length]).unwrap()
        });
        (folder, socket, thread)
    }

    #[test]
    fn answers_are_read_up_to_the_last_one() {
        let said = vec![Answer::Text("one".into()), Answer::Text("two".into()), Answer::End];
        let (_folder, socket, thread) = queue(said);
        let mut heard = Vec::new();
        give(&socket, &Order::Metrics, None, &mut |answer, _| heard.push(answer)).unwrap();
        assert_eq!(heard, [Answer::Text("one".into()), Answer::Text("two".into())]);
        assert_eq!(thread.join().unwrap(), Order::Metrics);
    }

    #[test]
    fn refusals_lost_answers_and_nobody_there_are_told_apart() {
        let (_folder, socket, thread) = queue(vec![Answer::Failed(Failure::Denied, "no".into())]);
        let told = give(&socket, &Order::RetryAll, None, &mut |_, _| {}).unwrap_err();
        assert!(matches!(told, OrderError::Refused(Failure::Denied, _)), "{told:?}");
        assert_eq!((told.to_string().as_str(), told.exit_code()), ("no", sysexits::NOPERM));
        thread.join().unwrap();
        let told = give(&socket, &Order::List, None, &mut |_, _| {}).unwrap_err();
        assert!(told.is_not_running(), "{told}");
        let (_folder, socket, thread) = queue(vec![Answer::Text("half".into())]);
        let told = give(&socket, &Order::List, None, &mut |_, _| {}).unwrap_err();
        assert!(matches!(told, OrderError::Lost(_)), "{told}");
        thread.join().unwrap();
    }
}
