//! What is done for every message, piece by piece and N times, for a tool that counts instructions
//! (contrib/bench/count, "make bench-counts"):
//!
//!     hot-paths PIECE N FOLDER
//!
//! PIECE is session, data, spool, copy, route or log; FOLDER is an empty one, to work in.
//!
//! SECURITY: for an empty folder of one's own.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use posta::config;
use posta::logbook::entry::{Client, Delivery, MessageId, Peer, Queued, Removed};
use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::envelope::{BodyKind, Envelope, Origin, Recipient};
use posta::mail::id::{Id, Mint};
use posta::mail::status::Status;
use posta::maildir::copy::{self, Copy, Message};
use posta::maildir::deliver::{self, Maildir};
use posta::maildir::name::Name;
use posta::maildir::place;
use posta::route::{self, Router};
use posta::smtp::data::DataReader;
use posta::smtp::event::Proof;
use posta::smtp::server::{Action, Event, Server, Service, Settings, Verdict};
use posta::spool::{Committer, Draft, Place, Spool};
use posta::unix::durable::Disk;

type Done = Result<(), Box<dyn Error>>;

/// 2026-11-24, in microseconds since 1970.
const NOW: u64 = 1_795_550_000_000_000;
/// What a client sends after DATA: 4 KiB in lines of common length.
const LINES: usize = 60;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [piece, count, folder] = &words[..] else { return usage() };
    let (Ok(count), folder) = (count.parse(), Path::new(folder)) else { return usage() };
    let done = match piece.as_str() {
        "session" => session(count),
        "data" => data(count),
        "spool" => spool(count, folder),
        "copy" => copies(count, folder),
        "route" => route(count, folder),
        "log" => log_lines(count),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot-paths: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: hot-paths session|data|spool|copy|route|log N FOLDER");
    ExitCode::from(64)
}

fn wire() -> String {
    let line = "All work and no play makes a dull queue, and a short benchmark too.\r\n";
    format!(
        "From: a@x.example\r\nSubject: hello\r\nMessage-ID: <1@x.example>\r\n\r\n{}.\r\n",
        line.repeat(LINES)
    )
}

fn mailbox(text: &str) -> Result<Mailbox, Box<dyn Error>> {
    Ok(Mailbox::parse(text, false).map_err(|error| format!("{text}: {error:?}"))?)
}

fn ids() -> impl Iterator<Item = Id> {
    let mint = Mint::new(7);
    (0..).map(move |n| mint.next(NOW + n))
}

/// A message that counts as stored.
struct Stored(Id);

impl Proof for Stored {
    fn id(&self) -> Id {
        self.0
    }
}

/// The commands of a message within a session, and their answers.
fn session(count: usize) -> Done {
    let settings = Settings {
        hostname: "mail.example.org".into(),
        max_message_size: 1 << 25,
        max_recipients: 100,
        max_errors: 10,
    };
    let mut server: Server<Stored> = Server::new(Arc::new(settings), Service::default());
    server.on(Event::Opened);
    server.on(Event::Line(b"EHLO client.example"));
    for id in ids().take(count) {
        for line in [&b"MAIL FROM:<a@x.example> SIZE=4096"[..], b"RCPT TO:<one@example.org>"] {
            black_box(server.on(Event::Line(line)));
            let answer = server.on(Event::Judged(Verdict::Accept(None)));
            black_box(written(answer)?);
        }
        black_box(server.on(Event::Line(b"DATA")));
        black_box(written(server.on(Event::Data(Ok(Stored(id)))))?);
    }
    Ok(())
}

fn written(action: Action) -> Result<Vec<u8>, Box<dyn Error>> {
    let Action::Say(reply) = action else { return Err(format!("{action:?}").into()) };
    let mut out = Vec::new();
    reply.write_to(&mut out);
    if out.starts_with(b"250") { Ok(out) } else { Err(String::from_utf8_lossy(&out).into()) }
}

/// The data of a message, as it comes.
fn data(count: usize) -> Done {
    let wire = wire();
    for _ in 0..count {
        let mut kept = Vec::with_capacity(wire.len());
        let mut reader = DataReader::new(1 << 25, 100);
        reader.feed(wire.as_bytes(), &mut |piece| kept.extend_from_slice(piece));
        black_box(kept);
    }
    Ok(())
}

fn envelope() -> Result<Envelope, Box<dyn Error>> {
    Ok(Envelope {
        sender: ReversePath::Mailbox(mailbox("a@x.example")?),
        ret: None,
        envid: None,
        recipients: vec![Recipient::plain(mailbox("one@example.org")?)],
        origin: Origin::Posta,
        arrived: NOW,
        body: BodyKind::SevenBit,
        utf8: false,
        require_tls: false,
        trace: b"Received: from client.example by mail.example.org id x; now\r\n".to_vec(),
    })
}

/// Into the spool, opened again, and removed.
fn spool(count: usize, folder: &Path) -> Done {
    let path = folder.join("spool");
    Spool::make(&path, None)?;
    let spool = Arc::new(Spool::for_running(&path, Arc::new(Disk))?);
    let committer = Committer::new(spool.clone());
    let (wire, envelope) = (wire(), envelope()?);
    for _ in 0..count {
        let mut draft = Draft::begin(&spool)?;
        draft.push(wire.as_bytes())?;
        let id = committer.commit(draft, &envelope)?.id();
        black_box(spool.open(id, Place::New)?);
        spool.finish(id, Place::New)?;
    }
    Ok(())
}

/// Into a Maildir.
fn copies(count: usize, folder: &Path) -> Done {
    let maildir = Rc::new(Maildir::open(&Disk, place::at(&Disk, &folder.join("box"))?)?);
    let queue_file = folder.join("message");
    let wire = wire();
    std::fs::write(&queue_file, &wire)?;
    let (address, sender) = (mailbox("one@example.org")?, ReversePath::Mailbox(mailbox("a@x.example")?));
    for id in ids().take(count) {
        let message = Message::open(std::fs::File::open(&queue_file)?, wire.len() as u64)?;
        black_box(message.was_delivered_to(&address));
        let mut copy =
            Copy::new(&message, copy::top(&sender, &address, b"Received: by x\r\n\tid y; now\r\n"));
        let name = Name::new(NOW, id, 0, "mail.example.org");
        deliver::deliver(&Disk, &maildir, &name, &mut copy)?;
    }
    Ok(())
}

/// Where an address leads: may it come in, and where does it go.
fn route(count: usize, folder: &Path) -> Done {
    let file = folder.join("posta.toml");
    std::fs::write(
        &file,
        "hostname = \"mail.example.org\"\n[domains]\n\"example.org\" = { users = \"*\", mailbox = \"/mail/{user}/\" }\n",
    )?;
    let config = config::load(Some(&file)).map_err(|faults| format!("{faults:?}"))?;
    let router = Router::new(route::Settings::of(&config));
    let address = mailbox("one@example.org")?;
    for _ in 0..count {
        black_box(router.judge(&address));
        black_box(router.expand(&address).map_err(|why| format!("{why:?}"))?);
    }
    Ok(())
}

/// The log lines of a message.
fn log_lines(count: usize) -> Done {
    let peer = Peer { name: Some("client.example"), address: "192.0.2.1" };
    for id in ids().take(count) {
        black_box(Client { id, peer, login: None, original: None }.to_string());
        black_box(MessageId { id, message_id: "<1234567890@x.example>" }.to_string());
        black_box(Queued { id, from: "a@x.example", size: 4096, recipients: 1 }.to_string());
        let delivery = Delivery {
            id,
            to: "one@example.org",
            orig_to: "one@example.org",
            relay: "local",
            delay: Duration::from_millis(12),
            delays: Some([Duration::from_millis(3); 4]),
            status: Status::new(2, 0, 0),
            text: "delivered to maildir",
        };
        black_box(delivery.to_string());
        black_box(Removed(id).to_string());
    }
    Ok(())
}
