//! The keeper with stand-ins for what it keeps: shell scripts that note what they hear.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

#[allow(dead_code)]
mod certificates;

const KEPT: [&str; 5] = ["posta-auth", "posta-local", "posta-remote", "posta-queue", "posta-smtpd"];

/// Waits until `there` is true.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !there() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with a keeper's program and stand-ins beside it, and a configuration.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "notes", "spool", "run"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        fs::set_permissions(path.join("notes"), fs::Permissions::from_mode(0o777)).unwrap();
        // What posta-smtpd is kept waiting for.
        fs::write(path.join("run/users"), "").unwrap();
        // Copied by another process: a program that is open for writing here can't be started.
        copy(env!("CARGO_BIN_EXE_posta"), &path.join("bin/posta"));
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keeper/stand-in");
        copy(stand_in, &path.join("bin/stand-in"));
        for name in KEPT {
            symlink("stand-in", path.join("bin").join(name)).unwrap();
        }
        let place = Place { folder };
        place.configure(&[free_port()], "drop_privileges = false");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, ports: &[u16], more: &str) {
        let at = self.folder.path().display();
        let mut text =
            format!("hostname = \"h.example\"\nspool = \"{at}/spool\"\nrun = \"{at}/run\"\n{more}\n");
        for port in ports {
            text += &format!("[[listen]]\naddress = \"127.0.0.1:{port}\"\n");
        }
        fs::write(self.path("posta.toml"), text).unwrap();
    }

    fn start(&self) -> Keeper {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(self.path("bin/posta"))
            .arg("-c")
            .arg(self.path("posta.toml"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Keeper { child }
    }

    /// Starts, and waits until all stand-ins run.
    fn started(&self) -> Keeper {
        let keeper = self.start();
        until("all are started", || KEPT.iter().all(|name| self.notes(name).contains("start")));
        keeper
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn notes(&self, name: &str) -> String {
        self.read(&format!("notes/{name}"))
    }

    fn log(&self) -> String {
        self.read("log")
    }

    /// The process id of the latest run of a stand-in.
    fn pid(&self, name: &str) -> i32 {
        let notes = self.notes(name);
        let last = notes.lines().rfind(|line| line.starts_with("start")).unwrap();
        last.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn starts(&self, name: &str) -> usize {
        self.notes(name).matches("start").count()
    }
}

fn copy(from: &str, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Keeper {
    child: Child,
}

impl Keeper {
    fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the keeper has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_running(pid: i32) -> bool {
    // A zombie is one that has ended.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn all_are_started_with_their_sockets_and_ended_in_order() {
    let place = Place::new();
    let mut keeper = place.started();
    assert_eq!(place.read("run/posta.pid").trim(), keeper.child.id().to_string());
    for (name, fds) in [
        ("posta-auth", "fds=1 names=auth "),
        ("posta-local", "fds=1 names=local "),
        ("posta-remote", "fds=2 names=remote:logins "),
        ("posta-queue", "fds=2 names=queue:drop "),
        ("posta-smtpd", "fds=2 names=smtp:tls "),
    ] {
        let wanted = format!("{fds}-c {}", place.path("posta.toml").display());
        assert!(place.notes(name).contains(&wanted), "{}", place.notes(name));
    }
    for (name, mode) in
        [("queue", 0o666), ("drop", 0o666), ("auth", 0o660), ("local", 0o660), ("remote", 0o660)]
    {
        let found = fs::metadata(place.path("run").join(name)).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }
    keeper.tell(Signal::SIGTERM);
    assert_eq!(keeper.end().code(), Some(0));
    let all = place.notes("all");
    let terms: Vec<&str> = all.lines().filter(|line| line.ends_with(" term")).collect();
    assert_eq!(terms.len(), 5, "{all}");
    assert_eq!(terms[0], "posta-smtpd term");
    for name in ["posta.pid", "queue", "drop", "local", "remote"] {
        assert!(!place.path("run").join(name).exists(), "{name}");
    }
}

#[test]
fn what_ends_is_started_again_and_the_log_says_why() {
    let place = Place::new();
    let _keeper = place.started();
    let pid = place.pid("posta-local");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("it is started again", || place.starts("posta-local") == 2);
    let wanted = format!("posta-local[{pid}] ended with signal 9; starting it again in 0.1 s");
    assert!(place.log().contains(&wanted), "{}", place.log());
    assert_eq!(place.starts("posta-queue"), 1);
}

#[test]
fn who_finds_the_configuration_wrong_is_left_alone_until_a_hup() {
    let place = Place::new();
    fs::write(place.path("notes/posta-queue.exit"), "78").unwrap();
    let keeper = place.started();
    until("its end is logged", || place.log().contains("ended with status 78; starting it again in 60.0 s"));
    fs::remove_file(place.path("notes/posta-queue.exit")).unwrap();
    keeper.tell(Signal::SIGHUP);
    until("it is started again", || place.starts("posta-queue") == 2);
}

#[test]
fn a_hup_is_passed_on_unless_the_configuration_is_bad() {
    let place = Place::new();
    let keeper = place.started();
    let good = place.read("posta.toml");
    fs::write(place.path("posta.toml"), format!("hostnam = \"x\"\nspol = 1\n{good}")).unwrap();
    keeper.tell(Signal::SIGHUP);
    until("the faults are logged", || place.log().contains("stays as it was"));
    let log = place.log();
    assert!(log.contains("posta.toml:1:1: ") && log.contains("posta.toml:2:1: "), "{log}");
    fs::write(place.path("posta.toml"), good).unwrap();
    keeper.tell(Signal::SIGHUP);
    until("all have heard", || KEPT.iter().all(|name| place.notes(name).contains("hup")));
    assert_eq!(place.notes("all").matches(" hup").count(), 5);
}

#[test]
fn a_new_address_is_bound_and_handed_over() {
    let place = Place::new();
    let (old, new) = (free_port(), free_port());
    place.configure(&[old], "drop_privileges = false");
    let keeper = place.started();
    place.configure(&[old, new], "drop_privileges = false");
    keeper.tell(Signal::SIGHUP);
    until("posta-smtpd is started anew", || place.notes("posta-smtpd").contains("fds=3 names=smtp:smtp:tls"));
    std::net::TcpStream::connect(("127.0.0.1", new)).unwrap();
    assert_eq!(place.starts("posta-queue"), 1);
}

#[test]
fn a_second_keeper_is_refused() {
    let place = Place::new();
    let keeper = place.started();
    let mut second = place.start();
    assert_eq!(second.end().code(), Some(69));
    let wanted = format!("another posta (process {})", keeper.child.id());
    assert!(place.log().contains(&wanted), "{}", place.log());
    assert!(place.path("run/queue").exists());
}

#[test]
fn after_a_kill_the_children_are_told_and_the_next_keeper_waits_for_the_port() {
    let place = Place::new();
    fs::write(place.path("notes/posta-smtpd.stays"), "").unwrap();
    let mut keeper = place.started();
    let pids: Vec<i32> = KEPT.iter().map(|name| place.pid(name)).collect();
    keeper.child.kill().unwrap();
    keeper.end();
    until("all others have ended", || pids[..4].iter().all(|pid| !is_running(*pid)));
    until("posta-smtpd was told", || place.notes("posta-smtpd").contains("term"));
    assert!(is_running(pids[4]), "the one that stays holds the port");
    let _next = place.start();
    until("the next keeper waits", || place.log().contains("is still held"));
    kill(Pid::from_raw(pids[4]), Signal::SIGKILL).unwrap();
    until("all are started again", || KEPT.iter().all(|name| place.starts(name) == 2));
    fs::remove_file(place.path("notes/posta-smtpd.stays")).unwrap();
}

#[test]
fn a_start_that_cant_be_says_why_and_what_to_do() {
    let place = Place::new();
    let refused = |more: &str, code: i32, words: &[&str]| {
        place.configure(&[free_port()], more);
        fs::remove_file(place.path("log")).ok();
        assert_eq!(place.start().end().code(), Some(code), "{more}: {}", place.log());
        let log = place.log();
        assert!(words.iter().all(|word| log.contains(word)), "{more}: {log}");
    };
    refused("drop_privilege = false", 78, &["posta.toml:4:1: ", "did you mean \"drop_privileges\"?"]);
    let missing = "drop_privileges = false\n[tls]\ncertificate = \"/no/such/cert.pem\"";
    refused(missing, 78, &["posta.toml:6:15: ", "/no/such/cert.pem"]);
    if nix::unistd::geteuid().is_root() {
        refused("user = \"no-such-user\"", 78, &["no-such-user", "useradd", "drop_privileges"]);
        refused("user = \"root\"", 78, &["that is root"]);
    }
    fs::remove_dir_all(place.path("spool")).unwrap();
    refused("drop_privileges = false", 73, &["/spool: ", "set-permissions"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::create_dir(place.path("spool")).unwrap();
    place.configure(&[taken.local_addr().unwrap().port()], "drop_privileges = false");
    assert_eq!(place.start().end().code(), Some(71));
    assert!(place.log().contains("can't listen on 127.0.0.1:"), "{}", place.log());
}

#[test]
fn a_program_that_is_not_there_is_named_and_the_others_run() {
    let place = Place::new();
    fs::remove_file(place.path("bin/posta-remote")).unwrap();
    let keeper = place.start();
    until("it is named", || place.log().contains("can't start posta-remote"));
    until("another runs", || place.notes("posta-queue").contains("start"));
    drop(keeper);
}

/// As root, each program gets its own user, and a socket its owner.
#[test]
fn each_runs_as_its_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let users = "user = \"nobody\"\nqueue_user = \"daemon\"\nremote_user = \"bin\"\ndrop_group = \"mail\"";
    place.configure(&[free_port()], users);
    let _keeper = place.started();
    let uid_of = |name: &str| {
        let id = Command::new("id").args(["-u", name]).output().unwrap();
        String::from_utf8(id.stdout).unwrap().trim().to_string()
    };
    for (program, user) in [
        ("posta-auth", "root"),
        ("posta-queue", "daemon"),
        ("posta-remote", "bin"),
        ("posta-smtpd", "nobody"),
    ] {
        let wanted = format!(" {} fds", uid_of(user));
        assert!(place.notes(program).contains(&wanted), "{program}: {}", place.notes(program));
    }
    let new = fs::metadata(place.path("spool/new")).unwrap();
    assert_eq!(new.permissions().mode() & 0o7777, 0o1770);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(new.uid().to_string(), uid_of("daemon"));
    let socket = fs::metadata(place.path("run/remote")).unwrap();
    assert_eq!(socket.uid().to_string(), uid_of("bin"));
}

/// The TLS session that posta-smtpd offers on `port`: the name in its certificate.
fn name_shown(port: u16) -> Option<String> {
    use std::io::{BufRead, BufReader, Write};
    let socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap());
    let mut answer = |command: &str| {
        (&socket).write_all(command.as_bytes()).ok()?;
        let mut line = String::new();
        while !line.starts_with("2") || line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    answer("")?;
    answer("EHLO client.example\r\n")?;
    answer("STARTTLS\r\n")?;
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let configuration = connector.build().configure().unwrap().verify_hostname(false);
    let stream = configuration.connect("h.example", socket).ok()?;
    let certificate = stream.ssl().peer_certificate()?;
    let entry = certificate.subject_name().entries().next()?;
    entry.data().to_string().ok()
}

/// The key is root's alone, posta-smtpd runs as nobody, and a renewed certificate needs no restart.
#[test]
fn a_key_that_only_root_can_read_serves_posta_smtpd() {
    let place = Place::new();
    let tls = place.path("tls");
    fs::create_dir(&tls).unwrap();
    fs::set_permissions(&tls, fs::Permissions::from_mode(0o700)).unwrap();
    let renew = |name: &str| {
        let made = certificates::certificate(None, &[name], certificates::ec_key(), 30);
        fs::write(tls.join("new"), [made.certificate_pem(), made.key_pem()].concat()).unwrap();
        fs::rename(tls.join("new"), tls.join("both.pem")).unwrap();
    };
    renew("old.example");
    fs::remove_file(place.path("bin/posta-smtpd")).unwrap();
    copy(env!("CARGO_BIN_EXE_posta-smtpd"), &place.path("bin/posta-smtpd"));
    let users = if nix::unistd::geteuid().is_root() {
        "user = \"nobody\"\nqueue_user = \"daemon\"\nremote_user = \"bin\"\ndrop_group = \"mail\""
    } else {
        "drop_privileges = false"
    };
    let port = free_port();
    let settings = format!("{users}\n[tls]\ncertificate = \"{}\"", tls.join("both.pem").display());
    place.configure(&[port], &settings);
    let keeper = place.start();
    until("TLS is there", || name_shown(port).as_deref() == Some("old.example"));

    renew("new.example");
    keeper.tell(Signal::SIGHUP);
    until("the new certificate is shown", || name_shown(port).as_deref() == Some("new.example"));
    fs::write(tls.join("both.pem"), "rubbish").unwrap();
    keeper.tell(Signal::SIGHUP);
    until("the broken one is reported", || place.log().contains("both.pem: no certificate in PEM form"));
    assert_eq!(name_shown(port).as_deref(), Some("new.example"));
    let starts =
        place.log().lines().filter(|l| l.contains("posta-smtpd[") && l.ends_with("] started")).count();
    assert_eq!(starts, 1, "{}", place.log());
}
