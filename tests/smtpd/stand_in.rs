//! Stands in for posta-auth: knows alice, whose password is `pass word`, and speaks the frames of
//! `run/auth`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use posta::sasl::dialogue::{Answer, MAX_PACKET, Refusal, Request};
use posta::unix::pass::{PacketListener, Packets};

/// Who there is.
pub const LOGIN: &str = "alice@example.org";
/// What PLAIN sends for her.
pub const PLAIN: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHBhc3Mgd29yZA==";
/// And with another password.
pub const WRONG: &str = "AGFsaWNlQGV4YW1wbGUub3JnAHdyb25n";
/// A wrong password costs so much.
pub const PENALTY: Duration = Duration::from_millis(1500);

/// Serves logins in `run` until the test ends.
pub fn stand_in(run: &Path) {
    let listener = PacketListener::bind(&run.join("auth"), 0o666).unwrap();
    std::fs::write(run.join("mechanisms"), "PLAIN\nLOGIN\n").unwrap();
    thread::spawn(move || {
        while let Ok(client) = listener.accept() {
            thread::spawn(move || serve(&client));
        }
    });
}

fn serve(client: &Packets) {
    let (mut mechanism, mut user) = (String::new(), None);
    let mut buffer = [0; MAX_PACKET];
    while let Ok((length @ 1.., _)) = client.receive(&mut buffer) {
        let response = match Request::decode(&buffer[..length]).unwrap() {
            Request::Begin(begin) => {
                mechanism = begin.mechanism;
                begin.initial
            }
            Request::Response(response) => Some(response),
        };
        let answer = answer(&mechanism, &mut user, response);
        if client.send(&answer.encode().unwrap(), None).is_err() {
            return;
        }
    }
}

fn answer(mechanism: &str, user: &mut Option<String>, response: Option<Vec<u8>>) -> Answer {
    let Some(response) = response else {
        let word: &[u8] = if mechanism == "LOGIN" { b"Username:" } else { b"" };
        return Answer::Challenge(word.to_vec());
    };
    let text = String::from_utf8(response).unwrap();
    let said = match (mechanism, user.take()) {
        ("LOGIN", None) => {
            *user = Some(text);
            return Answer::Challenge(b"Password:".to_vec());
        }
        ("LOGIN", Some(user)) => format!("\0{user}\0{text}"),
        _ => text,
    };
    if said == format!("\0{LOGIN}\0pass word") {
        Answer::Done(LOGIN.to_string())
    } else {
        Answer::Refused { why: Refusal::Credentials, wait: PENALTY }
    }
}
