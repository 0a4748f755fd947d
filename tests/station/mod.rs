//! A whole posta for a test: the real programs, on a loopback address and in a folder of its own.

#![allow(dead_code)] // each test file uses a part

pub mod client;
pub mod sink;

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use client::Client;

/// How long anything may take that a test waits for. Far longer than it does take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` gives something, and gives that; fails with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address of 127.0.0.0/8 that no other test has, so that all can use the same ports.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    IpAddr::V4(Ipv4Addr::new(127, (pid >> 8) as u8 | 1, pid as u8, (n % 250 + 2) as u8))
}

/// A posta with its folder.
pub struct House {
    /// Everything it keeps.
    pub folder: tempfile::TempDir,
    /// Where it listens: port 2525.
    pub address: IpAddr,
    keeper: Option<Child>,
    /// Words of a command that programs are started by, as another user or in another place.
    pub wrapper: Vec<String>,
}

impl House {
    /// Writes the configuration and starts posta. `more` is appended to the standard settings, which
    /// know `example.org` with any user in `mail/USER/`, and relay `elsewhere.example` to port 2526 of
    /// the same address.
    pub fn start(more: &str) -> House {
        let mut house = House::set_up(more);
        house.run();
        house
    }

    /// As `start`, but nothing runs yet.
    pub fn set_up(more: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let address = own_address();
        let house = House { folder, address, keeper: None, wrapper: Vec::new() };
        let root = house.folder.path().display().to_string();
        let settings = format!(
            r#"hostname = "mail.example.org"
spool = "{root}/spool"
run = "{root}/run"
drop_privileges = false
[[listen]]
address = "{address}:2525"
tls = "none"
[domains]
"example.org" = {{ users = "*", mailbox = "{root}/mail/{{user}}/" }}
"elsewhere.example" = {{ relay = "{address}:2526", accept = "clients" }}
"dead.example" = {{ relay = "{address}:2599", accept = "clients" }}
[queue]
first_retry = "1s"
longest_retry = "2s"
[smtpd]
relay_from = ["127.0.0.0/8"]
max_sessions_per_client = 500
"#
        );
        // A section that `more` names again takes the place of the standard one.
        fs::write(house.config(), merge(&settings, more)).unwrap();
        house.command("postactl", &["set-permissions"]).output().unwrap();
        house
    }

    /// The configuration's path.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("posta.toml")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the keeper and waits for the greeting.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut posta = self.command("posta", &[]);
        let child = posta.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.keeper = Some(child);
        let address = SocketAddr::new(self.address, 2525);
        wait_for(&format!("a greeting; log:\n{}", self.path("log").display()), || {
            let keeper = self.keeper.as_mut().unwrap();
            if let Ok(Some(status)) = keeper.try_wait() {
                panic!(
                    "posta ended with {status}:\n{}",
                    fs::read_to_string(self.folder.path().join("log")).unwrap()
                );
            }
            Client::try_connect(address).filter(|client| client.greeting.starts_with("220"))
        });
    }

    /// One of our programs, with this house's configuration.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = program_path(program);
        let mut words = self.wrapper.iter().map(OsStr::new).chain([path.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("-c").arg(self.config()).args(arguments);
        command
    }

    /// What one of our programs prints; it must succeed.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// A client that has read the greeting.
    pub fn client(&self) -> Client {
        Client::try_connect(SocketAddr::new(self.address, 2525)).expect("no connection")
    }

    /// Sends one message; it must be accepted. Gives its queue id.
    pub fn send(&self, from: &str, to: &[&str], message: &str) -> String {
        let mut client = self.client();
        client.hello();
        let id = client.send(from, to, message);
        client.quit();
        id
    }

    /// The files in the `new/` of a user's Maildir.
    pub fn mailbox(&self, user: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(&format!("mail/{user}/new"))) else { return Vec::new() };
        let mut names: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        names.sort();
        names
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .collect()
    }

    /// Waits until a user's mailbox has `count` messages, and gives them.
    pub fn wait_for_mail(&self, user: &str, count: usize) -> Vec<String> {
        wait_for(&format!("{count} messages for {user}; {}", self.tail()), || {
            Some(self.mailbox(user)).filter(|mail| mail.len() >= count)
        })
    }

    /// Waits until the log has a line with all of these words, and gives it.
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        wait_for(&format!("{words:?} in the log"), || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_string)
        })
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read(self.path("log")).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Names in a folder of the spool, at any depth.
    pub fn spooled(&self, place: &str) -> Vec<PathBuf> {
        files_below(&self.path("spool").join(place))
    }

    /// Waits until nothing is left in the queue.
    pub fn wait_for_empty_queue(&self) {
        wait_for(&format!("an empty queue; {}", self.tail()), || {
            let left = ["new", "cur", "journal"].iter().map(|place| self.spooled(place).len()).sum::<usize>();
            (left == 0).then_some(())
        });
    }

    /// Process ids of this house's running programs of that name.
    pub fn pids(&self, program: &str) -> Vec<u32> {
        let config = self.config().display().to_string();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> =
                line.split(|b| *b == 0).filter_map(|w| std::str::from_utf8(w).ok()).collect();
            let name = words.first().and_then(|w| Path::new(w).file_name()?.to_str());
            name == Some(program) && words.contains(&config.as_str())
        })
        .collect()
    }

    /// kill -9, by pid.
    pub fn kill(&self, program: &str) {
        self.signal(program, "-KILL");
    }

    /// Sends a signal to every running program of that name.
    pub fn signal(&self, program: &str, name: &str) {
        for pid in self.pids(program) {
            signal(name, pid);
        }
    }

    /// Sends a signal to the keeper.
    pub fn signal_keeper(&self, name: &str) {
        signal(name, self.keeper.as_ref().unwrap().id());
    }

    /// The keeper is killed outright; its programs are left to find that out.
    pub fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.kill().unwrap();
            keeper.wait().unwrap();
        }
    }

    /// The same; waits until all its programs are gone.
    pub fn kill_all(&mut self) {
        self.kill_keeper();
        for program in PROGRAMS {
            wait_for(&format!("the end of {program}"), || self.pids(program).is_empty().then_some(()));
        }
    }

    /// SIGTERM, and waits for the end; it must be a clean one.
    pub fn stop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        signal("-TERM", keeper.id());
        let status = wait_for("the keeper's end", || keeper.try_wait().unwrap());
        assert!(status.success(), "posta ended with {status}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            signal("-TERM", keeper.id());
            let begun = Instant::now();
            while matches!(keeper.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the last of the log:\n{}", self.tail());
        }
    }
}

/// Everything that the keeper starts.
pub const PROGRAMS: [&str; 5] = ["posta-smtpd", "posta-queue", "posta-local", "posta-remote", "posta-auth"];

/// kill(1).
pub fn signal(name: &str, pid: u32) {
    // A process that has just gone is as good.
    let _ = Command::new("kill").arg(name).arg(pid.to_string()).stderr(Stdio::null()).status();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

/// Where one of our programs is.
pub fn program_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_posta")).with_file_name(name)
}

/// Appends settings; lines of a section that is there already go into it, and a key that is there
/// already is replaced.
fn merge(settings: &str, more: &str) -> String {
    let mut sections: Vec<(String, Vec<String>)> = vec![(String::new(), Vec::new())];
    for text in [settings, more] {
        let mut at = 0;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if line.starts_with('[') {
                let known = sections.iter().position(|s| s.0 == line && !line.starts_with("[["));
                at = known.unwrap_or_else(|| {
                    sections.push((line.to_string(), Vec::new()));
                    sections.len() - 1
                });
            } else {
                let key = line.split('=').next().unwrap_or_default().trim().to_string();
                sections[at].1.retain(|l| l.split('=').next().unwrap_or_default().trim() != key);
                sections[at].1.push(line.to_string());
            }
        }
    }
    sections.iter().map(|(head, lines)| format!("{head}\n{}\n", lines.join("\n"))).collect()
}
