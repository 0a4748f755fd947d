//! What a service manager is told of us (sd_notify(3)): that we are ready, read the configuration
//! again, are going, and that we are alive.
//!
//! The manager names a socket in NOTIFY_SOCKET, and in WATCHDOG_USEC how long it waits for a sign of
//! life. Without the first, all of this does nothing. Nothing here waits or fails: a manager that does
//! not read misses a word, no mail.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What a process that this one starts must not inherit: the manager watches this one.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The manager of this process. Opened at the first word, which a daemon says before it has locked
/// itself in or at least could still reach the socket.
static MANAGER: LazyLock<Option<Manager>> = LazyLock::new(|| Manager::of(|name| std::env::var_os(name)));

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    /// A sign of life is due so often.
    beat: Option<Duration>,
    last_beat: Mutex<Option<Instant>>,
}

/// The daemon does its work from now on.
pub fn ready() {
    say("READY=1");
}

/// Reads the configuration again, by `work`, and says when that begins and ends.
pub fn reloading<T>(work: impl FnOnce() -> T) -> T {
    if MANAGER.is_some() {
        // Without the time of systemd 253's notify-reload, the word is an older systemd's.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }
    let done = work();
    ready();
    done
}

/// The daemon was told to go and finishes what is begun.
pub fn stopping() {
    say("STOPPING=1");
}

/// The loop that calls this has come round once more. It is passed on no more often than necessary.
pub fn alive() {
    if let Some(manager) = &*MANAGER {
        manager.alive(Instant::now());
    }
}

/// How long a loop may wait before it calls [`alive`] again: the shorter of that and `wait`.
pub fn at_most(wait: Option<Duration>) -> Option<Duration> {
    let beat = MANAGER.as_ref().and_then(|manager| manager.beat);
    [wait, beat].into_iter().flatten().min()
}

fn say(word: &str) {
    if let Some(manager) = &*MANAGER {
        manager.say(word);
    }
}

impl Manager {
    /// As these variables have it; none if there is none that can be reached.
    fn of(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<Manager> {
        let name = variable("NOTIFY_SOCKET")?;
        let socket = match connect(name.as_bytes()) {
            Ok(socket) => socket,
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: {}: {error}; nobody is told that we are ready", name.display());
                return None;
            }
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        // sd_watchdog_enabled(3): half of the time is the longest that is safe.
        let beat = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0);
        let beat = beat.map(|limit| Duration::from_micros(limit) / 3);
        Some(Manager { socket, beat, last_beat: Mutex::new(None) })
    }

    fn alive(&self, now: Instant) {
        let Some(beat) = self.beat else { return };
        let mut last = self.last_beat.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A little early is in time; a loop that woke a moment too early would be late.
        if last.is_none_or(|last| now.duration_since(last) >= beat / 2) {
            *last = Some(now);
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, word: &str) {
        if let Err(error) = self.socket.send(word.as_bytes()) {
            log::debug!("the service manager misses {word}: {error}");
        }
    }
}

/// A path, or a name of the abstract kind, which begins with `@`.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 100];
        while let Ok(length) = manager.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn signs_of_life_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into_os_string()),
            "WATCHDOG_USEC" => Some("3000000".into()),
            _ => None,
        };
        let manager = Manager::of(variable).unwrap();
        assert_eq!(manager.beat, Some(Duration::from_secs(1)));
        let begun = Instant::now();
        (0..1000).for_each(|n| manager.alive(begun + Duration::from_millis(n)));
        assert_eq!(heard(&listener), ["WATCHDOG=1", "WATCHDOG=1"]);
        manager.say("READY=1");
        assert_eq!(heard(&listener), ["READY=1"]);
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let listener =
            SocketAddr::from_abstract_name(format!("posta-notify-{}", std::process::id())).unwrap();
        let _listener = UnixDatagram::bind_addr(&listener).unwrap();
        let of = |pid: &'static str| {
            Manager::of(move |name| match name {
                "NOTIFY_SOCKET" => Some(format!("@posta-notify-{}", std::process::id()).into()),
                "WATCHDOG_USEC" => Some("3000000".into()),
                "WATCHDOG_PID" => Some(pid.into()),
                _ => None,
            })
        };
        assert_eq!(of("1").unwrap().beat, None);
        assert!(Manager::of(|_| None).is_none());
        assert!(Manager::of(|name| (name == "NOTIFY_SOCKET").then(|| "/nowhere/at/all".into())).is_none());
    }
}
