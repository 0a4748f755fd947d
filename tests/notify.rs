//! Each daemon under a service manager that is played by the test: it says when it is ready, reads its
//! configuration again, and goes, and that it is alive (sd_notify(3)).

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take that a test waits for. Far longer than it does take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with its manager.
struct House {
    folder: TempDir,
    manager: UnixDatagram,
    child: Child,
}

impl House {
    fn start(program: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        fs::create_dir(folder.path().join("run")).unwrap();
        posta::spool::Spool::make(&folder.path().join("spool"), None).unwrap();
        let config = format!(
            "hostname = \"mail.example.org\"\nspool = \"{root}/spool\"\nrun = \"{root}/run\"\n\
             drop_privileges = false\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
             [domains]\n\"example.org\" = {{ users = \"*\", mailbox = \"{root}/mail/\" }}\n\
             [local]\naliases = \"{root}/aliases\"\n"
        );
        fs::write(folder.path().join("posta.toml"), config).unwrap();
        fs::write(folder.path().join("aliases"), "").unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = spawn(program, folder.path());
        House { folder, manager, child }
    }

    /// Reads words until `wanted` comes; all but signs of life that came before it.
    fn until(&self, wanted: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut before = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let length = self.manager.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("no {wanted}: {error}, after {before:?}\n{}", self.log());
            });
            let word = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if word.lines().next() == Some(wanted) {
                return before;
            }
            assert!(begun.elapsed() < PATIENCE, "no {wanted}, but {before:?}");
            if word != "WATCHDOG=1" {
                before.push(word);
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn spawn(program: &str, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("-c").arg(folder.join("posta.toml"));
    command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "1500000");
    command.stdin(Stdio::null()).stderr(fs::File::create(folder.join("log")).unwrap());
    command.spawn().unwrap()
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole life, as its manager hears of it.
fn lives_under_a_manager(program: &str) {
    let mut house = House::start(program);
    assert_eq!(house.until("READY=1"), [""; 0], "{program}");
    for _ in 0..3 {
        assert_eq!(house.until("WATCHDOG=1"), [""; 0], "{program}");
    }
    house.signal("-HUP");
    assert_eq!(house.until("RELOADING=1"), [""; 0], "{program}");
    assert_eq!(house.until("READY=1"), [""; 0], "{program}");
    house.until("WATCHDOG=1");
    house.signal("-TERM");
    assert_eq!(house.until("STOPPING=1"), [""; 0], "{program}");
    let status = house.child.wait().unwrap();
    assert!(status.success(), "{program}: {status}\n{}", house.log());
}

#[test]
fn posta_smtpd() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta-smtpd"));
}

#[test]
fn posta_queue() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta-queue"));
}

#[test]
fn posta_remote() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta-remote"));
}

#[test]
fn posta_local() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta-local"));
}

#[test]
fn posta_auth() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta-auth"));
}

/// What the keeper starts must not speak for it.
#[test]
fn posta_alone_speaks_of_itself() {
    lives_under_a_manager(env!("CARGO_BIN_EXE_posta"));
}

/// A runner that is stopped, and so makes no progress, gives no sign of life.
#[test]
fn who_does_nothing_is_not_alive() {
    let house = House::start(env!("CARGO_BIN_EXE_posta-queue"));
    house.until("READY=1");
    house.signal("-STOP");
    house.manager.set_nonblocking(true).unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", house.child.id())).unwrap();
    let begun = Instant::now();
    while !status().contains("State:\tT") {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let mut buffer = [0; 100];
    while house.manager.recv(&mut buffer).is_ok() {}
    house.manager.set_nonblocking(false).unwrap();
    house.manager.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(house.manager.recv(&mut buffer).is_err());
}
