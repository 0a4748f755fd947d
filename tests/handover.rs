//! Mail that is handed over by LMTP (RFC 2033) to a program of this host, as Dovecot or a list
//! manager, through the real programs. The test is that program.

mod station;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use station::{House, wait_for};

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n.\nend\n";

/// What was taken: the commands of each session, and the data.
type Taken = Arc<Mutex<Vec<String>>>;

/// Serves until the test ends. After the data each recipient has his own reply (RFC 2033 4.2), by his
/// name; `later` is taken at the second attempt.
fn serve(socket: &Path) -> Taken {
    let listener = UnixListener::bind(socket).unwrap();
    let taken = Taken::default();
    let heard = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            // A client that goes in the midst of it has its reasons.
            let _ = session(&stream, &heard);
        }
    });
    taken
}

fn session(stream: &UnixStream, taken: &Taken) -> std::io::Result<()> {
    let mut out = stream;
    out.write_all(b"220 lists.example LMTP\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    let mut recipients: Vec<String> = Vec::new();
    while let Some(line) = lines.next().transpose()? {
        taken.lock().unwrap().push(line.clone());
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "LHLO" => out.write_all(b"250-lists.example\r\n250 ENHANCEDSTATUSCODES\r\n")?,
            "RCPT" => {
                recipients.push(line.clone());
                out.write_all(b"250 2.1.5 ok\r\n")?;
            }
            "DATA" => {
                out.write_all(b"354 go on\r\n")?;
                for line in lines.by_ref() {
                    let line = line?;
                    taken.lock().unwrap().push(line.clone());
                    if line == "." {
                        break;
                    }
                }
                for recipient in recipients.drain(..) {
                    out.write_all(reply(&recipient, taken))?;
                }
            }
            "QUIT" => return out.write_all(b"221 2.0.0 bye\r\n"),
            _ => out.write_all(b"250 2.0.0 ok\r\n")?,
        }
    }
    Ok(())
}

fn reply(recipient: &str, taken: &Taken) -> &'static [u8] {
    let attempts = taken.lock().unwrap().iter().filter(|line| *line == recipient).count();
    match recipient {
        full if full.contains("<full@") => b"552 5.2.2 mailbox full\r\n",
        later if later.contains("<later@") && attempts < 2 => b"451 4.3.0 not now\r\n",
        _ => b"250 2.0.0 saved\r\n",
    }
}

#[test]
fn each_recipient_has_his_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmtp");
    let taken = serve(&socket);
    let domain = format!("\"lists.example\" = {{ lmtp = \"unix:{}\" }}", socket.display());
    let house = House::start(&format!("[domains]\n{domain}"));
    let to = ["good@lists.example", "full@lists.example", "later@lists.example"];
    let id = house.send("alice@example.org", &to, MESSAGE);
    house.wait_for_log(&[&id, "to=<good@lists.example>", "status=sent (250 2.0.0 saved)"]);
    house.wait_for_log(&[&id, "to=<full@lists.example>", "dsn=5.2.2", "status=bounced"]);
    house.wait_for_log(&[&id, "to=<later@lists.example>", "dsn=4.3.0", "status=deferred"]);
    let report = &house.wait_for_mail("alice", 1)[0];
    assert!(
        report.contains("Final-Recipient: rfc822; full@lists.example") && !report.contains("good@"),
        "{report}"
    );
    house.wait_for_empty_queue();
    let taken = taken.lock().unwrap().clone();
    let of = |word: &str| taken.iter().filter(|line| line.contains(word)).count();
    assert_eq!(
        (of("<good@lists.example>"), of("<full@lists.example>"), of("<later@lists.example>")),
        (1, 1, 2)
    );
    // A connection may serve both attempts.
    assert!((1..=2).contains(&of("LHLO ")));
    assert_eq!((of("One line."), of("..")), (2, 2));
}

#[test]
fn mail_waits_for_a_program_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lmtp");
    let domain = format!("\"lists.example\" = {{ lmtp = \"unix:{}\" }}", socket.display());
    let house = House::start(&format!("[domains]\n{domain}"));
    let id = house.send("alice@example.org", &["good@lists.example"], MESSAGE);
    house.wait_for_log(&[&id, "to=<good@lists.example>", "status=deferred"]);
    let taken = serve(&socket);
    house.wait_for_empty_queue();
    wait_for("the mail", || taken.lock().unwrap().iter().any(|line| line == "One line.").then_some(()));
}
