//! The programs that are kept, in the order they are started, and when one that ended starts again.

use std::time::Duration;

use posta::unix::child::Rights;
use posta::unix::sysexits;

use crate::house::Owners;

/// One program.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Its file's name.
    pub name: &'static str,
    /// As whom it runs.
    pub user: User,
    /// What it listens on in `run/`: a socket's name and mode, and whose group may connect. posta-smtpd
    /// gets the sockets of `[[listen]]` in their place.
    pub sockets: &'static [(&'static str, u32, User)],
}

/// As whom a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// As the keeper itself, which is root's or the caller's.
    Keeper,
    /// `user`
    Smtpd,
    /// `queue_user`
    Queue,
    /// `remote_user`
    Remote,
}

impl User {
    /// The rights it gets; `None` if it keeps ours.
    pub fn rights(self, owners: &Owners) -> Option<&Rights> {
        let Owners::Own { smtpd, queue, remote, .. } = owners else { return None };
        match self {
            User::Keeper => None,
            User::Smtpd => Some(smtpd),
            User::Queue => Some(queue),
            User::Remote => Some(remote),
        }
    }
}

/// Who is needed first stands first: the users' names and passwords, the hands, the runner, and then the door.
pub const PROGRAMS: [Program; 5] = [
    Program { name: "posta-auth", user: User::Keeper, sockets: &[("auth", 0o660, User::Smtpd)] },
    Program { name: "posta-local", user: User::Keeper, sockets: &[("local", 0o660, User::Queue)] },
    Program { name: "posta-remote", user: User::Remote, sockets: &[("remote", 0o660, User::Queue)] },
    Program {
        name: "posta-queue",
        user: User::Queue,
        sockets: &[("queue", 0o666, User::Queue), ("drop", 0o666, User::Queue)],
    },
    Program { name: SMTPD, user: User::Smtpd, sockets: &[] },
];

/// The one that listens to the network.
pub const SMTPD: &str = "posta-smtpd";

/// The first wait before a program that ended is started again.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// Who ran that long has recovered.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait before the next start. It doubles with each short run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    next: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { next: SHORTEST }
    }
}

impl Patience {
    /// The wait after a run of that length, which ended with that exit code (none: by a signal).
    pub fn after(&mut self, ran: Duration, code: Option<i32>) -> Duration {
        if code == Some(i32::from(sysexits::CONFIG)) {
            // It will say the same until somebody has changed the configuration, and then comes a HUP.
            return LONGEST;
        }
        if ran >= STEADY {
            *self = Patience::default();
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_to_a_minute_and_is_forgotten_after_a_steady_run() {
        let mut patience = Patience::default();
        let short = Duration::from_millis(10);
        let waits: Vec<u128> = (0..12).map(|_| patience.after(short, Some(1)).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[9..], [51_200, 60_000, 60_000]);
        assert_eq!(patience.after(STEADY, None).as_millis(), 100);
        assert_eq!(patience.after(short, None).as_millis(), 200);
    }

    #[test]
    fn a_bad_configuration_is_not_hammered() {
        assert_eq!(Patience::default().after(Duration::ZERO, Some(78)), LONGEST);
    }
}
