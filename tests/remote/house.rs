//! A running posta-remote, and a posta-queue played by the test.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use posta::courier::report::{FromHand, Outcome, Report};
use posta::courier::request::{Rcpt, Request, Target};
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Notify};
use posta::mail::id::Id;
use posta::unix::pass::{MAX_PACKET, Packets};
use tempfile::TempDir;

/// The program, its folder, its end of `run/remote`.
pub struct House {
    folder: TempDir,
    child: Child,
    pub runner: Packets,
    pub credits: u32,
}

/// Listeners on some addresses of loopback (`127.0.0.N`), all on one port.
pub fn listeners(last_octets: &[u8]) -> (u16, Vec<TcpListener>) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let bind = |octet: &u8| TcpListener::bind(SocketAddr::from(([127, 0, 0, *octet], port)));
        drop(first);
        if let Ok(all) = last_octets.iter().map(bind).collect() {
            return (port, all);
        }
    }
    panic!("no port is free on all of {last_octets:?}");
}

impl House {
    /// Starts the program with a zone file. `more` goes into the section `[remote]`.
    pub fn start(port: u16, zone: &str, more: &str) -> House {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zone");
        std::fs::write(&file, zone).unwrap();
        House::enter(folder, port, &format!("zone = \"{}\"\n{more}", file.display()))
    }

    /// Starts the program without a zone file.
    pub fn with(port: u16, more: &str) -> House {
        House::enter(tempfile::tempdir().unwrap(), port, more)
    }

    fn enter(folder: TempDir, port: u16, remote: &str) -> House {
        let path = folder.path();
        let config = format!(
            "hostname = \"own.example\"\nspool = \"{0}/spool\"\nrun = \"{0}\"\ndrop_privileges = false\n\
             [remote]\nport = {port}\n{remote}\n",
            path.display()
        );
        let file = path.join("posta.toml");
        std::fs::write(&file, config).unwrap();
        let log = File::create(path.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posta-remote"));
        let child = command.arg("-c").arg(&file).stderr(log).spawn().unwrap();
        let (runner, credits) = greet(&path.join("remote"));
        House { folder, child, runner, credits }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Hands out a job without waiting for its report.
    pub fn hand_out(&self, request: &Request, message: &[u8]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(message).unwrap();
        file.write_all(b"sender here\nand more of the envelope\n").unwrap();
        self.runner.send(&request.encode().unwrap(), Some(file.as_fd())).unwrap();
    }

    /// The next report.
    pub fn report(&self) -> Report {
        match receive(&self.runner) {
            FromHand::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// Delivers: what became of each recipient, as [`short`] says it.
    pub fn deliver(&self, target: &Target, recipients: &[&str], message: &[u8]) -> Vec<String> {
        self.hand_out(&request(target.clone(), recipients, message), message);
        self.report().outcomes.iter().map(short).collect()
    }

    /// Delivers one small message to one recipient.
    pub fn deliver_one(&self, domain: &str) -> String {
        self.deliver(&Target::Mx(domain.into()), &[&format!("r@{domain}")], b"text\r\n").remove(0)
    }

    /// The runner goes; another one comes.
    pub fn new_runner(&mut self) {
        self.runner.shut_down().unwrap();
        (self.runner, self.credits) = greet(&self.path("remote"));
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for the program's end.
    pub fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "posta-remote does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn greet(path: &Path) -> (Packets, u32) {
    let until = Instant::now() + Duration::from_secs(30);
    let runner = loop {
        match Packets::connect(path) {
            Ok(runner) => break runner,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    runner.set_receive_timeout(Duration::from_secs(60)).unwrap();
    match receive(&runner) {
        FromHand::Credits(credits) => (runner, credits),
        other => panic!("{other:?}"),
    }
}

fn receive(runner: &Packets) -> FromHand {
    let mut buffer = vec![0; MAX_PACKET];
    let (length, _) = runner.receive(&mut buffer).expect("an answer of posta-remote");
    FromHand::decode(&buffer[..length]).unwrap()
}

/// A request with plain wishes.
pub fn request(target: Target, recipients: &[&str], message: &[u8]) -> Request {
    let rcpt = |(n, address): (u32, &&str)| {
        let address = Mailbox::parse(address, false).unwrap();
        Rcpt {
            n,
            original: address.clone(),
            address,
            notify: Notify::default(),
            orcpt: None,
            place: None,
            limit: None,
        }
    };
    Request {
        job: 7,
        id: Id::parse("0123456789ABCDE").unwrap(),
        sender: ReversePath::parse("s@own.example", false).unwrap(),
        ret: None,
        envid: None,
        body: BodyKind::SevenBit,
        utf8: false,
        require_tls: false,
        arrived: 0,
        trace: b"Received: from test\r\n".to_vec(),
        size: message.len() as u64,
        others: false,
        target,
        terms: Default::default(),
        recipients: (10..).zip(recipients).map(rcpt).collect(),
    }
}

/// `2.0.0 250 2.0.0 ok`: the status, and the text.
pub fn short(outcome: &Outcome) -> String {
    format!("{} {}", outcome.status, outcome.text)
}
