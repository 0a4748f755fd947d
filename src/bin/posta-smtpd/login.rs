//! A client's login: every mechanism runs in posta-auth, this end carries the words there and back
//! over `run/auth`.
//!
//! One connection is one exchange. Each answer has a deadline: a posta-auth that is down or overrun
//! is `Later` (RFC 4954 6: 454 4.7.0), never a refusal and never a hung session.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use posta::sasl::dialogue::{Answer, Begin, MAX_PACKET, Refusal, Request};
use posta::sasl::mechanism::{Binding, Mechanism};
use posta::unix::pass::Packets;

/// How long posta-auth may take for one answer: a hash takes a part of a second, a queue of them some
/// seconds, and PAM or a directory may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client has asked for.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The mechanism, as the client wrote it.
    pub mechanism: &'a str,
    /// The initial response, without its base64; an empty one (`=`) is not none.
    pub initial: Option<&'a [u8]>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Nobody can listen: the session is encrypted, or its listener is trusted.
    pub secure: bool,
    /// What the session's TLS can be bound to.
    pub binding: Vec<(Binding, Vec<u8>)>,
}

/// A login that waits for the client's response.
#[derive(Debug)]
pub struct Login {
    auth: Packets,
}

/// How a login goes on.
#[derive(Debug)]
pub enum Step {
    /// Say this to the client (334, in base64); its response goes to [`Login::answer`]. A client that
    /// cancels (`*`) is a `Login` that is dropped.
    Challenge(Login, Vec<u8>),
    /// It is this user: the full name, `user@domain`, in lower case.
    Done {
        /// The name.
        login: String,
    },
    /// It is not. The answer is kept back for `wait`, without a worker.
    Refused {
        /// For the reply's code. `Credentials` and `LockedOut` say nothing of whether there is such a user.
        why: Refusal,
        /// How long the answer is kept back.
        wait: Duration,
    },
    /// Nobody can say now (454 4.7.0).
    Later,
}

/// The mechanisms that posta-auth takes, as it has published them in `run/mechanisms`; which of them a
/// session is offered, `sasl::mechanism::offered` says. None while posta-auth has not come up yet.
pub fn mechanisms(run: &Path) -> Vec<Mechanism> {
    let text = std::fs::read_to_string(run.join("mechanisms")).unwrap_or_default();
    text.lines().filter_map(Mechanism::parse).collect()
}

impl Login {
    /// Begins a login with the posta-auth that listens at `socket`.
    pub fn begin(socket: &Path, attempt: &Attempt<'_>) -> Step {
        let begin = Request::Begin(Begin {
            mechanism: attempt.mechanism.to_string(),
            initial: attempt.initial.map(<[u8]>::to_vec),
            client: attempt.client,
            secure: attempt.secure,
            bindings: attempt.binding.clone(),
        });
        let connected = Packets::try_connect(socket).and_then(|auth| {
            auth.set_receive_timeout(PATIENCE)?;
            Ok(Login { auth })
        });
        match connected {
            Ok(login) => login.ask(&begin),
            Err(error) => {
                log::warn!("{}: {error}; is posta-auth running?", socket.display());
                Step::Later
            }
        }
    }

    /// Goes on with the client's response to the last challenge, without its base64.
    pub fn answer(self, response: &[u8]) -> Step {
        self.ask(&Request::Response(response.to_vec()))
    }

    fn ask(self, request: &Request) -> Step {
        // What is too long for a packet is too long for any mechanism.
        let Ok(packet) = request.encode() else {
            return Step::Refused { why: Refusal::Malformed, wait: Duration::ZERO };
        };
        match self.exchange(&packet) {
            Ok(Answer::Challenge(challenge)) => Step::Challenge(self, challenge),
            Ok(Answer::Done(login)) => Step::Done { login },
            Ok(Answer::Refused { why, wait }) => Step::Refused { why, wait },
            Ok(Answer::Later) => Step::Later,
            Err(error) => {
                log::warn!("posta-auth gives no answer: {error}");
                Step::Later
            }
        }
    }

    fn exchange(&self, packet: &[u8]) -> io::Result<Answer> {
        self.auth.try_send(packet, None)?;
        let mut buffer = vec![0; MAX_PACKET];
        match self.auth.receive(&mut buffer)? {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (length, _) => Answer::decode(&buffer[..length]).map_err(io::Error::other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::thread::JoinHandle;

    use posta::unix::pass::PacketListener;

    use super::*;

    /// A posta-auth that gives these answers to one client, and tells what it was asked. After the last
    /// answer it is gone.
    fn auth(answers: Vec<Answer>) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<Request>>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("auth");
        let listener = PacketListener::bind(&socket, 0o600).unwrap();
        let thread = std::thread::spawn(move || {
            let client = listener.accept().unwrap();
            let mut buffer = [0; MAX_PACKET];
            let answer = |answer: Answer| {
                let (length, _) = client.receive(&mut buffer).unwrap();
                client.send(&answer.encode().unwrap(), None).unwrap();
                Request::decode(&buffer[..length]).unwrap()
            };
            answers.into_iter().map(answer).collect()
        });
        (folder, socket, thread)
    }

    fn attempt(mechanism: &str) -> Attempt<'_> {
        Attempt { mechanism, initial: None, client: None, secure: true, binding: vec![] }
    }

    #[test]
    fn a_dialogue_is_carried_to_its_end() {
        let done = Answer::Done("alice@example.org".into());
        let (_folder, socket, thread) = auth(vec![Answer::Challenge(b"Username:".to_vec()), done]);
        let Step::Challenge(login, challenge) = Login::begin(&socket, &attempt("LOGIN")) else { panic!() };
        assert_eq!(challenge, b"Username:");
        let Step::Done { login } = login.answer(b"alice") else { panic!() };
        assert_eq!(login, "alice@example.org");
        let asked = thread.join().unwrap();
        assert!(matches!(&asked[0], Request::Begin(begin) if begin.mechanism == "LOGIN"));
        assert_eq!(asked[1], Request::Response(b"alice".to_vec()));
    }

    #[test]
    fn nobody_there_and_one_that_goes_away_are_later() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(matches!(Login::begin(&nowhere.path().join("auth"), &attempt("PLAIN")), Step::Later));
        let (_folder, socket, thread) = auth(vec![Answer::Challenge(vec![])]);
        let Step::Challenge(login, _) = Login::begin(&socket, &attempt("PLAIN")) else { panic!() };
        thread.join().unwrap();
        assert!(matches!(login.answer(b"\0a\0b"), Step::Later));
    }

    #[test]
    fn one_that_takes_nobody_in_is_later_and_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("auth");
        let _listener = PacketListener::bind(&socket, 0o600).unwrap();
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let filled = (0..10_000).map_while(|_| Packets::try_connect(&socket).ok()).collect::<Vec<_>>();
            let _ = done.send((filled.len(), Login::begin(&socket, &attempt("PLAIN"))));
        });
        let (filled, step) = outcome.recv_timeout(Duration::from_secs(60)).expect("it does not wait");
        assert!((1..10_000).contains(&filled) && matches!(step, Step::Later));
    }

    #[test]
    fn what_no_packet_can_hold_is_refused() {
        let (_folder, socket, thread) = auth(vec![Answer::Challenge(vec![])]);
        let Step::Challenge(login, _) = Login::begin(&socket, &attempt("PLAIN")) else { panic!() };
        let step = login.answer(&[b'x'; MAX_PACKET]);
        assert!(matches!(step, Step::Refused { why: Refusal::Malformed, .. }));
        thread.join().unwrap();
    }

    #[test]
    fn the_published_mechanisms_are_read() {
        let run = tempfile::tempdir().unwrap();
        assert!(mechanisms(run.path()).is_empty());
        std::fs::write(run.path().join("mechanisms"), "SCRAM-SHA-256\nPLAIN\nOF-THE-FUTURE\n").unwrap();
        assert_eq!(mechanisms(run.path()), [Mechanism::ScramSha256, Mechanism::Plain]);
    }
}
