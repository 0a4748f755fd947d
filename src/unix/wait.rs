//! Waiting for several descriptors at once, to read or to write.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub enum Watch<'a> {
    /// Until there is something to read, or the other end has gone.
    Read(BorrowedFd<'a>),
    /// Until a write would not block, or the other end has gone.
    Write(BorrowedFd<'a>),
}

impl<'a> Watch<'a> {
    fn poll_fd(self) -> PollFd<'a> {
        match self {
            Watch::Read(fd) => PollFd::new(fd, PollFlags::POLLIN),
            Watch::Write(fd) => PollFd::new(fd, PollFlags::POLLOUT),
        }
    }
}

/// Waits until one of the descriptors is as it is watched for, at most `limit` (`None`: without an
/// end); says of each whether it is. A signal ends the wait early.
pub fn wait_ready(watched: &[Watch<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = watched.iter().map(|w| w.poll_fd()).collect();
    let limit = limit.map_or(PollTimeout::NONE, |limit| {
        // A part of a millisecond counts whole: a poll of 0 would spin until the time has come.
        let millis = limit.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, limit) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|fd| fd.revents().is_some_and(|r| !r.is_empty())).collect())
}

/// Whether this is what a connect that does not block says when it has begun and is not over.
pub fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn each_is_told_apart() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let limit = Some(Duration::from_secs(5));
        let ready = wait_ready(&[Watch::Read(reader.as_fd()), Watch::Write(writer.as_fd())], limit).unwrap();
        assert_eq!(ready, [false, true]);
        writer.write_all(b"x").unwrap();
        assert_eq!(wait_ready(&[Watch::Read(reader.as_fd())], limit).unwrap(), [true]);
        drop(reader);
        assert_eq!(wait_ready(&[Watch::Write(writer.as_fd())], limit).unwrap(), [true]);
        assert_eq!(wait_ready(&[], Some(Duration::from_micros(1))).unwrap(), [false; 0]);
    }
}
