//! The real program in a temporary folder, and a client that is as rude as it is told to be.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posta::net::stream::Stream;
use posta::spool::{Entry, Place, Spool};
use posta::unix::durable::Disk;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_posta-smtpd");
/// Longest wait for anything. Nothing takes so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a spool and a configuration.
#[derive(Clone)]
pub struct Ground {
    folder: Arc<tempfile::TempDir>,
}

impl Ground {
    /// `settings` come after the common ones: sections of the configuration.
    pub fn new(settings: &str) -> Ground {
        let ground = Ground { folder: Arc::new(tempfile::tempdir().unwrap()) };
        Spool::make(&ground.path("spool"), None).unwrap();
        std::fs::create_dir(ground.path("run")).unwrap();
        ground.configure(settings);
        ground
    }

    /// Writes the configuration anew.
    pub fn configure(&self, settings: &str) {
        let place = |name| self.path(name).display().to_string();
        let common = format!(
            "hostname = \"mx.test\"\nspool = \"{}\"\nrun = \"{}\"\ndrop_privileges = false\n",
            place("spool"),
            place("run")
        );
        std::fs::write(self.path("posta.toml"), common + settings).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the program, and waits until it listens.
    pub fn start(self) -> Daemon {
        self.start_as(Command::new(PROGRAM))
    }

    /// Starts the program by a shell that first does something to itself.
    pub fn start_after(self, preparation: &str) -> Daemon {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("{preparation}; exec {PROGRAM} \"$@\"")).arg("sh");
        self.start_as(shell)
    }

    pub fn start_as(self, mut command: Command) -> Daemon {
        let log = self.path("log");
        let file = File::create(&log).unwrap();
        command.arg("-c").arg(self.path("posta.toml")).stderr(file).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let mut daemon = Daemon { ground: self, child, log, addresses: vec![] };
        let line = daemon.wait_for_log("listens on ");
        let listens = line.split("listens on ").nth(1).unwrap();
        daemon.addresses = listens.split(", ").map(|place| place.trim().parse().ok()).collect();
        daemon
    }

    /// Runs the program, which is to end at once: its exit code, and what it said.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let done = Command::new(PROGRAM).args(arguments).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// The only message in `new/`.
    pub fn only_message(&self) -> (Entry, Vec<u8>) {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "messages in the spool");
        messages.remove(0)
    }

    /// All messages in `new/`, oldest first.
    pub fn messages(&self) -> Vec<(Entry, Vec<u8>)> {
        let spool = Spool::for_running(&self.path("spool"), Arc::new(Disk)).unwrap();
        let mut ids = Vec::new();
        spool.scan_new(&mut |id| ids.push(id)).unwrap();
        ids.sort();
        let open = |id| {
            let entry = spool.open(id, Place::New).unwrap();
            let mut content = std::fs::read(self.path("spool/new").join(id.as_str())).unwrap();
            content.truncate(entry.size as usize);
            (entry, content)
        };
        ids.into_iter().map(open).collect()
    }
}

/// The program, running.
pub struct Daemon {
    pub ground: Ground,
    pub child: Child,
    log: PathBuf,
    /// In the order of the listeners; a Unix socket has none.
    addresses: Vec<Option<SocketAddr>>,
}

impl Daemon {
    pub fn client(&self) -> Client {
        self.client_from("127.0.0.1")
    }

    /// A client with that address, which has been greeted.
    pub fn client_from(&self, source: &str) -> Client {
        let mut client = self.connect_from(source).unwrap();
        client.expect("220");
        client
    }

    /// A client that has not read the greeting.
    pub fn connect_from(&self, source: &str) -> std::io::Result<Client> {
        self.connect_to(0, source)
    }

    /// The same, at that listener.
    pub fn connect_to(&self, listener: usize, source: &str) -> std::io::Result<Client> {
        let source: IpAddr = source.parse().unwrap();
        Stream::connect(self.address(listener), Some(source), LIMIT).map(Client::new)
    }

    /// Where that listener listens.
    pub fn address(&self, listener: usize) -> SocketAddr {
        self.addresses[listener].unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the program ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    pub fn read_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The first whole line with `text` in it, once it is there.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let mut found = None;
        wait_until(text, || {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let whole = log.rfind('\n').map_or("", |end| &log[..end]);
            found = whole.lines().find(|line| line.contains(text)).map(str::to_string);
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("ended with {status}; its log:\n{log}");
            }
            found.is_some()
        });
        found.unwrap()
    }

    /// A number out of `/proc/PID/status`.
    pub fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the program's log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client, over a plain connection or over TLS.
pub struct Client<S = Stream> {
    stream: BufReader<S>,
}

impl Client {
    pub fn new(mut stream: Stream) -> Client {
        stream.set_deadline(Some(Instant::now() + LIMIT));
        Client { stream: BufReader::new(stream) }
    }

    pub fn half_close(&mut self) {
        self.stream.get_mut().finish_writing().unwrap();
    }

    /// All that comes from now on.
    pub fn into_reader(self) -> BufReader<Stream> {
        self.stream
    }

    /// The connection itself, of which nothing has been read ahead.
    pub fn into_socket(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty(), "{:?}", self.stream.buffer());
        let socket = TcpStream::from(self.stream.get_ref().as_fd().try_clone_to_owned().unwrap());
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        socket
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Client<S> {
        Client { stream: BufReader::new(stream) }
    }

    /// What it talks over.
    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.try_send(octets).unwrap();
    }

    pub fn try_send(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(octets.as_ref())
    }

    /// The next reply: its last line, or nothing at the end of the connection.
    pub fn reply(&mut self) -> String {
        self.lines().pop().unwrap_or_default()
    }

    /// The lines of the next reply; none at the end of the connection.
    pub fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            assert!(line.is_empty() || line.ends_with("\r\n"), "{line:?}");
            let goes_on = line.as_bytes().get(3) == Some(&b'-');
            if !line.is_empty() {
                lines.push(line.trim_end().to_string());
            }
            if !goes_on {
                return lines;
            }
        }
    }

    /// The next reply, which begins with `start`.
    pub fn expect(&mut self, start: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(start), "expected {start}, got {reply:?}");
        reply
    }

    /// Sends a line and expects a reply.
    pub fn say(&mut self, line: &str, expected: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.expect(expected)
    }

    /// Says EHLO; gives what is offered.
    pub fn greet(&mut self) -> Vec<String> {
        self.send("EHLO client.test\r\n");
        self.lines().into_iter().skip(1).map(|line| line[4..].to_string()).collect()
    }

    /// Greets, and begins a message up to 354.
    pub fn begin(&mut self, recipient: &str) {
        self.say("EHLO client.test", "250");
        self.say("MAIL FROM:<sender@client.test>", "250");
        self.say(&format!("RCPT TO:<{recipient}>"), "250");
        self.say("DATA", "354");
    }

    /// The server has closed the connection.
    pub fn expect_end(&mut self) {
        assert_eq!(self.reply(), "");
    }
}

/// A command with `socket` as its standard input.
pub fn command_on(socket: OwnedFd, configuration: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("-i").arg("-c").arg(configuration);
    command.stdout(Stdio::from(socket.try_clone().unwrap())).stdin(Stdio::from(socket)).stderr(Stdio::null());
    command
}
