//! A posta-local for a test, and posta-queue's end of the connection to it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Notify};
use posta::mail::id::Mint;
use posta::unix::pass::{MAX_PACKET, Packets};
use posta::unix::users;

use posta::courier::report::{FromHand, Outcome, Report};
use posta::courier::request::{Owner, Place, Rcpt, Request, Target};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const MESSAGE: &str = "Return-Path: <old@x.example>\r\nSubject: hello\r\n\r\nFrom here\r\n.\r\nend\r\n";
pub const COPY: &str = "Received: by posta\n\twith love\nSubject: hello\n\nFrom here\n.\nend\n";
pub const ARRIVED: u64 = 1_795_550_000_000_000;

/// A posta-local that is ended with the test.
pub struct Station {
    pub folder: tempfile::TempDir,
    pub process: Child,
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the log:\n{}", self.log());
        }
    }
}

impl Station {
    /// Starts one; `local` is what the configuration says under `[local]`, with FOLDER for its
    /// folder.
    pub fn start(local: &str) -> Station {
        Station::start_with("", local)
    }

    pub fn start_with(top: &str, local: &str) -> Station {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = folder.path().join("posta.toml");
        let run = folder.path().display();
        fs::write(
            &config,
            format!("hostname = \"host.example\"\nrun = \"{run}\"\nqueue_user = \"mail\"\n{top}\n[local]\n{local}\n"),
        )
        .unwrap();
        let text = fs::read_to_string(&config).unwrap().replace("FOLDER", &run.to_string());
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posta-local"));
        command.arg("-c").arg(&config).stdin(Stdio::null()).stderr(log);
        Station { folder, process: command.spawn().unwrap() }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder that belongs to `account`.
    pub fn home(&self, account: &users::Account) -> PathBuf {
        let home = self.path(&account.name);
        fs::create_dir(&home).unwrap();
        chown(&home, Some(account.uid), Some(account.gid)).unwrap();
        home
    }

    pub fn runner(&self) -> Runner {
        let socket = self.path("local");
        let packets = patiently("the socket", || Packets::connect(&socket).ok());
        packets.set_receive_timeout(PATIENCE).unwrap();
        let mut runner = Runner { packets, jobs: 0, mint: Mint::new(7) };
        assert!(matches!(runner.hear(), FromHand::Credits(n) if n >= 100));
        runner
    }

    /// The pids of its children.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.process.id();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// Waits for something to come true.
pub fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// This end of the connection.
pub struct Runner {
    pub packets: Packets,
    jobs: u64,
    mint: Mint,
}

impl Runner {
    pub fn hear(&mut self) -> FromHand {
        let mut buffer = vec![0; MAX_PACKET];
        let (length, _) = self.packets.receive(&mut buffer).unwrap();
        FromHand::decode(&buffer[..length]).unwrap()
    }

    pub fn report(&mut self) -> Report {
        match self.hear() {
            FromHand::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub fn request(&mut self, owner: &Owner, places: &[(&str, Place)]) -> Request {
        self.jobs += 1;
        let recipient = |(n, (address, place)): (usize, &(&str, Place))| Rcpt {
            n: n as u32,
            address: mailbox(address),
            original: mailbox("first@example.org"),
            notify: Notify::default(),
            orcpt: None,
            place: Some(place.clone()),
            limit: None,
        };
        Request {
            job: self.jobs,
            id: self.mint.next(ARRIVED),
            sender: ReversePath::Mailbox(mailbox("sender@x.example")),
            ret: None,
            envid: None,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            arrived: ARRIVED,
            trace: b"Received: by posta\r\n\twith love\r\n".to_vec(),
            size: MESSAGE.len() as u64,
            others: false,
            target: Target::Local(owner.clone()),
            terms: Default::default(),
            recipients: places.iter().enumerate().map(recipient).collect(),
        }
    }

    pub fn send(&self, request: &Request) {
        self.packets.send(&request.encode().unwrap(), Some(queue_file(MESSAGE).as_fd())).unwrap();
    }

    /// Sends one job for one mailbox, and gives its outcome.
    pub fn deliver(&mut self, owner: &Owner, place: Place) -> Outcome {
        let request = self.request(owner, &[("a@example.org", place)]);
        self.send(&request);
        self.outcome(request.job)
    }

    /// The outcome of a job of one recipient, which is the next to be reported.
    pub fn outcome(&mut self, job: u64) -> Outcome {
        let mut report = self.report();
        assert_eq!((report.job, report.outcomes.len()), (job, 1));
        report.outcomes.remove(0)
    }
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text, false).unwrap()
}

pub fn queue_file(message: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    write!(file, "{message}envelope: secret@x.example").unwrap();
    file
}

pub fn maildir(path: &Path) -> Place {
    Place::Maildir(format!("{}/", path.display()))
}

/// The name and content of each file in `new/`; `tmp/` must be empty.
pub fn mail(path: &Path) -> Vec<(String, String)> {
    assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    let mut found: Vec<(String, String)> = fs::read_dir(path.join("new"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

pub fn is_root() -> bool {
    users::current().1 == 0
}

/// Accounts to deliver to: two that every Debian has, as root; else the caller's.
pub fn accounts() -> Vec<users::Account> {
    if is_root() {
        ["daemon", "mail"].map(|name| users::by_name(name).unwrap().unwrap()).into()
    } else {
        users::by_uid(users::current().1).unwrap().into_iter().collect()
    }
}

pub fn account() -> users::Account {
    accounts().remove(0)
}

pub fn owner(account: &users::Account) -> Owner {
    Owner::Account(account.name.clone())
}

/// By their ids, so that `~` is a folder of the test.
pub fn owner_at(account: &users::Account, home: &Path) -> Owner {
    Owner::Ids(account.uid, account.gid, home.display().to_string())
}
