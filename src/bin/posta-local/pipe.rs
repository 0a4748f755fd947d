//! Delivery to a command: `/bin/sh -c`, with the message on its stdin.
//!
//! No address comes near the shell but in the environment, which is made anew. What the command
//! starts is one process group; past the deadline all of it is killed. Nothing here waits: the
//! child's loop polls what [`Running::watched`] names, and calls [`Running::step`].

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use posta::mail::status::{Fate, Status};
use posta::unix::pass::set_nonblocking;
use posta::unix::wait::Watch;
use posta::unix::{child, group};

use posta::courier::report::MAX_TEXT;

use posta::maildir::copy::{Copy, Message};

use crate::refusal::Refusal;

/// Where commands are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a command is told about its message.
#[derive(Debug)]
pub struct Told<'a> {
    /// The owner's login name, if it is known.
    pub user: Option<&'a str>,
    /// The owner's home, which it is started in.
    pub home: &'a Path,
    /// Envelope sender; empty for the null sender.
    pub sender: String,
    /// The final address.
    pub recipient: String,
    /// The address before aliases.
    pub original: String,
    /// The parts of the final address, and what stands behind its delimiter.
    pub local: &'a str,
    /// See there.
    pub domain: &'a str,
    /// See there.
    pub extension: Option<&'a str>,
}

/// A command at work on a copy.
#[derive(Debug)]
pub struct Running {
    process: Child,
    ended: OwnedFd,
    stdin: Option<ChildStdin>,
    output: Option<PipeReader>,
    said: Vec<u8>,
    copy: Copy<Rc<Message>>,
    piece: Vec<u8>,
    /// How much of the piece has been written.
    written: usize,
    deadline: Instant,
    timeout: Duration,
}

impl Running {
    /// Starts `command`.
    pub fn start(
        command: &str,
        told: &Told<'_>,
        copy: Copy<Rc<Message>>,
        timeout: Duration,
    ) -> io::Result<Running> {
        let (output, writer) = io::pipe()?;
        let mut shell = child::command(Path::new("/bin/sh"), &[], None)?;
        shell.arg("-c").arg(command).process_group(0);
        shell.env_clear().env("PATH", PATH).env("SHELL", "/bin/sh").env("LANG", "C").env("HOME", told.home);
        if let Some(user) = told.user {
            shell.env("USER", user).env("LOGNAME", user);
        }
        shell
            .env("SENDER", &told.sender)
            .env("RECIPIENT", &told.recipient)
            .env("ORIGINAL_RECIPIENT", &told.original)
            .env("LOCAL", harmless(told.local))
            .env("DOMAIN", harmless(told.domain))
            .env("EXTENSION", harmless(told.extension.unwrap_or_default()));
        // A home that is missing or closed is no reason not to run it.
        shell.current_dir(if told.home.is_dir() { told.home } else { Path::new("/") });
        shell.stdin(Stdio::piped()).stderr(writer.try_clone()?).stdout(writer);
        set_nonblocking(output.as_fd(), true)?;
        let mut process = shell.spawn()?;
        // The command holds the writing ends now; while we had one, its end would not be seen.
        drop(shell);
        let stdin = process.stdin.take();
        let prepared = stdin.as_ref().map_or(Ok(()), |fd| set_nonblocking(fd.as_fd(), true));
        let ended = match prepared.and_then(|()| group::watch(&process)) {
            Ok(ended) => ended,
            Err(error) => {
                group::kill(&process)?;
                process.wait()?;
                return Err(error);
            }
        };
        Ok(Running {
            process,
            ended,
            stdin,
            output: Some(output),
            said: Vec::new(),
            copy,
            piece: Vec::new(),
            written: 0,
            deadline: Instant::now() + timeout,
            timeout,
        })
    }

    /// What to wait for.
    pub fn watched(&self) -> impl Iterator<Item = Watch<'_>> {
        let stdin = self.stdin.iter().map(|fd| Watch::Write(fd.as_fd()));
        let output = self.output.iter().map(|fd| Watch::Read(fd.as_fd()));
        stdin.chain(output).chain([Watch::Read(self.ended.as_fd())])
    }

    /// When it is to be looked at, whatever comes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves what can be moved without waiting; gives the result when the command has ended, or
    /// has had its time.
    pub fn step(&mut self, now: Instant) -> Option<Result<String, Refusal>> {
        if let Err(error) = self.feed() {
            // Half a message must not pass for a whole one.
            self.kill();
            return Some(Err(Refusal::of("reading the message", &error)));
        }
        self.listen();
        match self.process.try_wait() {
            Ok(Some(status)) => {
                self.listen();
                Some(judge(status, &String::from_utf8_lossy(&self.said)))
            }
            Ok(None) if now < self.deadline => None,
            Ok(None) => {
                self.kill();
                let text = format!("command took longer than {} seconds", self.timeout.as_secs());
                Some(Err(Refusal::new((4, 4, 7), text)))
            }
            Err(error) => Some(Err(Refusal::of("command", &error))),
        }
    }

    /// Writes of the copy what the pipe takes. A command that closes its stdin has had enough: its
    /// exit status tells how it went. Errors are those of reading the message.
    fn feed(&mut self) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            if self.written == self.piece.len() {
                self.written = 0;
                if !self.copy.next_piece(&mut self.piece)? {
                    self.stdin = None;
                    break;
                }
            }
            match stdin.write(&self.piece[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.stdin = None,
            }
        }
        Ok(())
    }

    /// Takes what the command says; only the beginning is kept.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        // So much at once that a talkative command does not keep the others waiting.
        for _ in 0..16 {
            let Some(output) = &mut self.output else { return };
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = MAX_TEXT.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }

    fn kill(&mut self) {
        if let Err(error) = group::kill(&self.process).and_then(|()| self.process.wait()) {
            log::warn!("a command past its time could not be killed: {error}");
        }
    }
}

impl Drop for Running {
    /// A command whose delivery is abandoned is not left behind.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// A part of an address for the environment. These are often used on command lines without quotes:
/// whatever means something to a shell or could be an option becomes `_`, as in Postfix
/// (`command_expansion_filter`). The whole addresses stay as they are.
fn harmless(part: &str) -> String {
    let safe = |(at, c): (usize, char)| match c {
        '-' if at == 0 => '_',
        c if c.is_ascii_alphanumeric() || "!@%-_=+:,./".contains(c) => c,
        _ => '_',
    };
    part.chars().enumerate().map(safe).collect()
}

/// What an exit status means (sysexits.h, as sendmail and Postfix read it), with what was said.
fn judge(status: ExitStatus, said: &str) -> Result<String, Refusal> {
    let code = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok("delivered to command".to_string()),
        (Some(code), _) => code,
        (None, signal) => {
            let text = format!("command died with signal {}", signal.unwrap_or_default());
            return Err(Refusal::new((4, 3, 0), text));
        }
    };
    let (status, meaning) = match code {
        64 => ((5, 3, 0), "command line usage error"),
        65 => ((5, 6, 0), "data format error"),
        66 => ((5, 3, 0), "cannot open input"),
        67 => ((5, 1, 1), "user unknown"),
        68 => ((5, 1, 2), "host name unknown"),
        69 => ((5, 3, 0), "service unavailable"),
        70 => ((5, 3, 0), "internal software error"),
        71 => ((4, 3, 0), "system resource problem"),
        72 => ((5, 3, 0), "critical system file missing"),
        73 => ((5, 2, 0), "cannot create output file"),
        74 => ((4, 3, 0), "input/output error"),
        75 => ((4, 3, 0), "temporary failure"),
        76 => ((5, 5, 0), "remote error in protocol"),
        77 => ((5, 7, 0), "permission denied"),
        // A mistake of the administrator or of the home's owner is no reason to send mail back.
        78 => ((4, 3, 5), "configuration error"),
        111 => ((4, 3, 0), "temporary failure"),
        126 | 127 => ((4, 3, 5), "command not found or not executable"),
        _ => ((5, 3, 0), "command failed"),
    };
    let refusal = Refusal::new(status, said.trim());
    Err(match Status::split(&refusal.text) {
        // The command knows better which failure it is, but not whether it is one.
        Some((better, _)) if better.fate() == refusal.status.fate() && better.fate() != Fate::Done => {
            Refusal { status: better, text: refusal.text }
        }
        _ if refusal.text.is_empty() => {
            Refusal { text: format!("{meaning} (exit status {code})"), ..refusal }
        }
        _ => Refusal { text: format!("{meaning}: {}", refusal.text), ..refusal },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use posta::unix::wait::wait_ready;

    use super::*;

    fn start(command: &str, message: &[u8], timeout: Duration) -> Running {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(message).unwrap();
        let message = Rc::new(Message::open(file, message.len() as u64).unwrap());
        let told = Told {
            user: Some("alice"),
            home: Path::new("/"),
            sender: "a@b".into(),
            recipient: "\"$(touch x)\"@c".into(),
            original: "d@e".into(),
            local: "-a;`id` *+x",
            domain: "c",
            extension: Some("x $y"),
        };
        Running::start(command, &told, Copy::new(message, b"Top: x\n".to_vec()), timeout).unwrap()
    }

    fn run(command: &str, message: &[u8], timeout: Duration) -> Result<String, Refusal> {
        let mut running = start(command, message, timeout);
        loop {
            if let Some(result) = running.step(Instant::now()) {
                return result;
            }
            let watched: Vec<Watch<'_>> = running.watched().collect();
            wait_ready(&watched, Some(running.deadline().saturating_duration_since(Instant::now()))).unwrap();
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_message_and_the_addresses_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let command = format!(
            "(cat; echo \"$SENDER $RECIPIENT $ORIGINAL_RECIPIENT $USER\"; echo \"$LOCAL $DOMAIN $EXTENSION\"; env; ls /proc/self/fd) > {}",
            out.display()
        );
        run(&command, b"A: b\r\n\r\nc\r\n", LONG).unwrap();
        let got = fs::read_to_string(out).unwrap();
        assert!(
            got.starts_with("Top: x\nA: b\n\nc\na@b \"$(touch x)\"@c d@e alice\n_a__id___+x c x__y\n"),
            "{got}"
        );
        assert!(!got.contains("CARGO"), "{got}");
        // Nothing is open but the three that it is given, and the folder that ls reads.
        assert!(got.ends_with("\n0\n1\n2\n3\n"), "{got}");
    }

    #[test]
    fn a_long_message_and_a_talkative_command_do_not_block_each_other() {
        let message = "a line of some length\r\n".repeat(50_000);
        let refusal = run("cat; exit 75", message.as_bytes(), LONG).unwrap_err();
        assert_eq!(refusal.status, Status::new(4, 3, 0));
        assert!(refusal.text.starts_with("temporary failure: Top: x\na line"), "{}", refusal.text);
        assert!(refusal.text.len() < 2 * MAX_TEXT);
        assert!(run("exec 0<&-; exit 0", message.as_bytes(), LONG).is_ok());
    }

    #[test]
    fn exit_statuses_have_their_meaning() {
        let status = |command: &str| run(command, b"x", LONG).unwrap_err().status.to_string();
        assert_eq!(status("exit 67"), "5.1.1");
        assert_eq!(status("exit 77"), "5.7.0");
        assert_eq!(status("exit 1"), "5.3.0");
        assert_eq!(status("kill -9 $$"), "4.3.0");
        assert_eq!(status("/no/such/command"), "4.3.5");
        assert_eq!(status("echo 5.7.26 forged; exit 77"), "5.7.26");
        assert_eq!(status("echo 2.0.0 fine; exit 75"), "4.3.0");
    }

    #[test]
    fn every_exit_status_has_one() {
        let status = |code: i32| match judge(ExitStatus::from_raw(code << 8), "") {
            Ok(_) => "done".to_string(),
            Err(refusal) => refusal.status.to_string(),
        };
        assert_eq!(status(0), "done");
        let later: Vec<i32> = (1..256).filter(|code| status(*code).starts_with("4.")).collect();
        assert_eq!(later, [71, 74, 75, 78, 111, 126, 127]);
        assert_eq!(
            (64..79).map(status).collect::<Vec<_>>().join(" "),
            "5.3.0 5.6.0 5.3.0 5.1.1 5.1.2 5.3.0 5.3.0 4.3.0 5.3.0 5.2.0 4.3.0 4.3.0 5.5.0 5.7.0 4.3.5"
        );
    }

    #[test]
    fn past_its_time_all_of_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let command = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let refusal = run(&command, b"x", Duration::from_millis(300)).unwrap_err();
        assert_eq!(refusal.status, Status::new(4, 4, 7));
        let stat = format!("/proc/{}/stat", fs::read_to_string(pid).unwrap().trim());
        let gone = || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "));
        assert!((0..500).any(|_| gone() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
    }
}
