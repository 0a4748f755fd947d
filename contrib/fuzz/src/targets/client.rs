//! Our own side of SMTP and SASL, against whatever a server says.

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Notify, Recipient, Ret};
use posta::mail::status::{Fate, Status};
use posta::sasl::client::{Exchange, Login};
use posta::sasl::mechanism::{Binding, Mechanism};
use posta::smtp::client::reply::{Reply, ReplyReader};
use posta::smtp::client::session::{Action, Client, Cover, Event, Language, Mail};
use posta::smtp::client::verdict::{Finding, Verdict};

/// Transactions of one session.
const MOST: usize = 3;

/// What a server says, reply by reply; none at its end, or when it is none.
struct Server<'a> {
    octets: &'a [u8],
    reader: ReplyReader,
}

impl Server<'_> {
    fn next(&mut self) -> Option<Reply> {
        let (used, reply) = self.reader.take(self.octets).ok()?;
        self.octets = &self.octets[used..];
        reply
    }

    fn event(&mut self) -> Event {
        let finding = || Finding::ours(Status::new(4, 4, 2), "lost");
        self.next().map_or_else(|| Event::Broken(finding()), Event::Reply)
    }
}

/// A session in which a server says anything: each line that we say is one, a message is only given to who
/// has taken a recipient, and every recipient gets a verdict.
pub fn client(input: &[u8]) {
    let Some((&kind, octets)) = input.split_first() else { return };
    let language = if kind & 1 == 0 { Language::Smtp } else { Language::Lmtp };
    let cover = [Cover::Plain, Cover::May, Cover::Must, Cover::Already][usize::from(kind >> 1 & 3)];
    let mut server = Server { octets, reader: ReplyReader::default() };
    let mut client = Client::new(language, "client.example".into(), cover);
    let mail = mail(kind);
    let (mut event, mut transactions, mut logged_in, mut chunks) = (Event::Opened, 0, kind & 8 == 0, 0_u32);
    loop {
        event = match client.on(event) {
            Action::Await(_) => server.event(),
            Action::Send(words) => {
                let text = words.strip_suffix(b"\r\n").expect("whole lines");
                assert!(
                    text.split(|b| *b == b'\n').rev().skip(1).all(|line| line.ends_with(b"\r")),
                    "{text:?}"
                );
                Event::Sent
            }
            Action::SendContent => Event::Sent,
            // Where nothing goes before it, a reply that has come already is read first.
            Action::SendChunk(words) if words.is_empty() && kind & 64 != 0 && chunks % 2 == 1 => {
                chunks += 1;
                server.event()
            }
            Action::SendChunk(_) => {
                chunks += 1;
                Event::ChunkSent(chunks % 3 == 0)
            }
            Action::Secure => Event::Secured,
            Action::Challenged(challenge) => Event::Answer((challenge.len() % 2 == 0).then_some(challenge)),
            Action::Ready if !logged_in => {
                logged_in = true;
                Event::Login("PLAIN".into(), Some(b"\0u\0p".to_vec()))
            }
            Action::Ready if transactions == MOST => return,
            Action::Ready => {
                transactions += 1;
                Event::Deliver(mail.clone())
            }
            Action::Finished(verdicts) => {
                assert_eq!(verdicts.len(), mail.recipients.len());
                let is_taken = |verdict: &Verdict| match verdict {
                    Verdict::Final(finding) => finding.status.fate() == Fate::Done,
                    _ => false,
                };
                // Nobody has taken a message of a server that has said nothing.
                assert!(octets.contains(&b'2') || !verdicts.iter().any(is_taken));
                if !client.is_open() || transactions == MOST {
                    return;
                }
                transactions += 1;
                Event::Deliver(mail.clone())
            }
            Action::Failed(_) => return,
        };
    }
}

fn mail(kind: u8) -> Mail {
    let recipient = |name: &str| Recipient {
        address: Mailbox::parse(&format!("{name}@b.example"), true).expect("an address"),
        notify: if kind & 32 != 0 {
            Notify::parse("SUCCESS,DELAY").expect("words")
        } else {
            Notify::default()
        },
        original: (kind & 32 != 0).then(|| "rfc822;x@b.example".to_string()),
    };
    Mail {
        sender: ReversePath::parse("<a@a.example>", true).unwrap_or(ReversePath::Null),
        ret: (kind & 32 != 0).then_some(Ret::Headers),
        envid: (kind & 32 != 0).then(|| "id".to_string()),
        body: if kind & 64 != 0 { BodyKind::BinaryMime } else { BodyKind::EightBitMime },
        utf8: kind & 128 != 0,
        require_tls: kind & 16 != 0,
        size: 100,
        recipients: ["one", "two", "three"].map(recipient).to_vec(),
    }
}

/// Our login at a relay that does not know the password: no words of its make us believe that it does.
pub fn relay(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let login = Login::parse("user pencil").expect("a login");
    let offered = [Mechanism::ALL[usize::from(kind & 3) % Mechanism::ALL.len()].name().to_string()];
    let bindings = [(Binding::Exporter, vec![7; 32])];
    let Some((mut exchange, _)) = Exchange::begin(&login, &offered, &bindings, "nonce") else { return };
    let is_scram = matches!(exchange.mechanism(), Mechanism::ScramSha256 | Mechanism::ScramSha256Plus);
    for challenge in rest.split(|b| *b == b'\n') {
        if exchange.answer(challenge).is_err() {
            return;
        }
    }
    assert!(!is_scram || exchange.is_over().is_err(), "a stranger is believed");
}
