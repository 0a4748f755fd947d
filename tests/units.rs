//! The systemd units of contrib/systemd: systemd itself finds nothing wrong with them, they are as
//! closed as they claim, and their sockets have the names that the programs look for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// "at most": 2.5 of 10, as "systemd-analyze security" counts, in tenths.
const EXPOSURE: u32 = 25;
/// posta-local's, which starts the users' own commands; its unit says what for.
const EXPOSURE_OF_LOCAL: u32 = 35;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd")
}

fn names(ending: &str) -> Vec<String> {
    let all = fs::read_dir(units()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = all.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn text(name: &str) -> String {
    fs::read_to_string(units().join(name)).unwrap()
}

/// Whether systemd is here; a machine without it can't be asked.
fn has_systemd() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: no systemd-analyze here; the package systemd has it");
    }
    found
}

/// The units as they would be installed, with programs that are there.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_posta")).parent().unwrap().display().to_string();
    for name in names("").iter().filter(|name| name.starts_with("posta")) {
        let text = text(name).replace("/usr/local/sbin", &programs);
        let text = text.replace("/usr/local/libexec/posta", &programs);
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong() {
    if !has_systemd() {
        return;
    }
    let folder = installed();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).env("SYSTEMD_LOG_LEVEL", "warning");
    command.env("SYSTEMD_UNIT_PATH", format!("{}:/usr/lib/systemd/system", folder.path().display()));
    command.args(names("").iter().map(|name| folder.path().join(name)));
    let said = command.output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("posta")).collect();
    assert!(said.status.success() && ours.is_empty(), "{words}");
}

#[test]
fn no_unit_is_more_open_than_it_has_to_be() {
    if !has_systemd() {
        return;
    }
    let folder = installed();
    for name in names(".service") {
        let limit = if name == "posta-local.service" { EXPOSURE_OF_LOCAL } else { EXPOSURE };
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--no-pager", "--offline=yes", &format!("--threshold={limit}")]);
        let said = command.arg(folder.path().join(&name)).output().unwrap();
        let words = String::from_utf8_lossy(&said.stdout);
        assert!(
            words.contains("Overall exposure level"),
            "{name}: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        assert!(said.status.success(), "{name}: {}", words.lines().last().unwrap_or_default());
    }
}

/// posta-smtpd knows its sockets by their address, the others theirs by the name of the file in run/.
#[test]
fn sockets_have_the_names_that_programs_look_for() {
    for name in names(".socket").iter().filter(|name| *name != "posta-smtpd.socket") {
        let wanted = name.trim_start_matches("posta-").trim_end_matches(".socket");
        let text = text(name);
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert_eq!(line("FileDescriptorName="), wanted, "{name}");
        assert_eq!(line("ListenSequentialPacket="), format!("/run/posta/{wanted}"));
        let program = line("Service=").trim_end_matches(".service").to_string();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin").join(program);
        let asked = fs::read_to_string(source.join("main.rs")).unwrap();
        assert!(asked.contains(&format!("\"{wanted}\"")), "{name}: {asked}");
    }
}

/// The target starts all there is; what it would leave out, nobody would miss until it is needed.
#[test]
fn the_target_wants_every_unit() {
    let target = text("posta.target");
    let wanted: Vec<&str> = target
        .lines()
        .filter_map(|line| line.strip_prefix("Wants="))
        .flat_map(str::split_whitespace)
        .collect();
    for name in names("").iter().filter(|name| *name != "posta.target" && !name.contains('@')) {
        assert!(wanted.contains(&name.as_str()), "{name}");
        assert!(text(name).contains("PartOf=posta.target"), "{name}");
    }
}

/// As posta-smtpd@.service and inetd start it: a process for each client, on a real socket of systemd's.
#[test]
fn each_client_can_have_a_process_of_its_own() {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        eprintln!("skipped: no systemd-socket-activate here; the package systemd has it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    fs::create_dir(folder.path().join("run")).unwrap();
    posta::spool::Spool::make(&folder.path().join("spool"), None).unwrap();
    let config = format!(
        "hostname = \"mail.example.org\"\nspool = \"{root}/spool\"\nrun = \"{root}/run\"\n\
         drop_privileges = false\n[domains]\n\"example.org\" = {{ users = \"*\", mailbox = \"{root}/mail/\" }}\n"
    );
    fs::write(folder.path().join("posta.toml"), config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &free.to_string(), "-a", "--inetd", env!("CARGO_BIN_EXE_posta-smtpd"), "-i", "-c"]);
    let mut listener = command.arg(folder.path().join("posta.toml")).spawn().unwrap();
    let begun = Instant::now();
    let connect = || loop {
        match TcpStream::connect(free) {
            Ok(client) => return client,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    for _ in 0..2 {
        let client = connect();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        let mut expect = |start: &str| {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with(start), "{line}");
        };
        expect("220 mail.example.org");
        (&client).write_all(b"NOOP\r\n").unwrap();
        expect("250");
        (&client).write_all(b"QUIT\r\n").unwrap();
        expect("221");
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
}
