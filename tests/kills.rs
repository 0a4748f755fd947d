//! Programs are killed (kill -9) at random moments while mail comes in on three ways: by SMTP for a
//! mailbox, by SMTP for a next hop, and by the sendmail command. Nothing that was acknowledged is lost, a
//! mailbox has nothing twice, and everything runs again.
//!
//! POSTA_KILLS says how many kills (12), POSTA_SEED repeats a choice of victims and pauses; the moments
//! themselves are as the machine has it.

mod station;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use station::client::Client;
use station::sink::Sink;
use station::{House, PATIENCE, PROGRAMS, program_path, signal, wait_for};

/// Nothing new has arrived for so long: nothing will.
const STILL: Duration = Duration::from_secs(60);
/// A program that is killed again and again waits longer and longer for its next start. A HUP ends that,
/// and comes after so many kills.
const HUP_AFTER: u32 = 6;
/// The longest pause between two kills.
const PAUSE: Duration = Duration::from_millis(300);

const KEEPER: &str = "posta";

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A letter that can be told from all others, and known to be whole.
fn letter(mark: &str) -> String {
    format!("Subject: mark {mark}\n\n{}end of {mark}\n", "a line that is there many times\n".repeat(200))
}

/// How often each mark is there; every copy must be whole.
fn marks<'a>(copies: impl IntoIterator<Item = &'a String>) -> HashMap<String, u32> {
    let mut marks = HashMap::new();
    for copy in copies {
        let text = copy.replace("\r\n", "\n");
        let mark = text.lines().find_map(|line| line.strip_prefix("Subject: mark ")).expect("a mark");
        let body = text.split_once("\n\n").expect("a body").1;
        assert_eq!(Some(body), letter(mark).split_once("\n\n").map(|parts| parts.1), "half of {mark}");
        *marks.entry(mark.to_string()).or_default() += 1;
    }
    marks
}

/// Who hands in mail, one letter after the other, and what was acknowledged.
struct Senders {
    address: SocketAddr,
    config: PathBuf,
    is_over: AtomicBool,
}

impl Senders {
    fn begin<'s>(&'s self, scope: &'s Scope<'s, '_>, way: Way) -> ScopedJoinHandle<'s, Vec<String>> {
        scope.spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if self.is_over.load(Ordering::Relaxed) {
                    break;
                }
                let mark = format!("{}-{n}", way.to());
                let taken = match way {
                    Way::Command => by_command(&self.config, way.to(), &letter(&mark)),
                    Way::Mailbox | Way::NextHop => self.by_smtp(way.to(), &letter(&mark)).is_some(),
                };
                if taken {
                    acknowledged.push(mark);
                } else {
                    // Nobody is there just now.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            acknowledged
        })
    }

    /// `Some` if it was acknowledged.
    fn by_smtp(&self, to: &str, letter: &str) -> Option<()> {
        let mut client = Client::try_connect(self.address)?;
        let expect = |reply: String, code: &str| reply.starts_with(code).then_some(());
        expect(client.greeting.clone(), "220")?;
        let envelope = format!("EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<{to}>\r\n");
        client.try_write(envelope.as_bytes())?;
        for _ in 0..3 {
            expect(client.try_reply()?, "250")?;
        }
        client.try_write(b"DATA\r\n")?;
        expect(client.try_reply()?, "354")?;
        client.try_write(format!("{}.\r\n", letter.replace('\n', "\r\n")).as_bytes())?;
        expect(client.try_reply()?, "250")
    }
}

fn by_command(config: &Path, to: &str, letter: &str) -> bool {
    let mut command = Command::new(program_path("sendmail"));
    command.arg("-c").arg(config).args(["-i", "-f", "cron@example.org", to]);
    let mut sendmail = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Whether it has read all is told by its exit.
    let _ = sendmail.stdin.take().unwrap().write_all(letter.as_bytes());
    sendmail.wait().unwrap().success()
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Mailbox,
    NextHop,
    Command,
}

impl Way {
    fn to(self) -> &'static str {
        match self {
            Way::Mailbox => "alice@example.org",
            Way::NextHop => "rider@elsewhere.example",
            Way::Command => "bob@example.org",
        }
    }
}

/// Kills one process that runs now; `false` if there is none of that name at the moment.
fn kill(house: &mut House, victim: &str, random: &mut fastrand::Rng) -> bool {
    if victim == KEEPER {
        let orphans: Vec<u32> = PROGRAMS.iter().flat_map(|program| house.pids(program)).collect();
        house.kill_keeper();
        // At once: its successor waits for what is still held, and has it in the end.
        house.run();
        wait_for("the end of what the dead keeper had started", || {
            let running: Vec<u32> = PROGRAMS.iter().flat_map(|program| house.pids(program)).collect();
            orphans.iter().all(|orphan| !running.contains(orphan)).then_some(())
        });
        return true;
    }
    // Of posta-local one or the other: who talks to posta-queue, or who delivers for a user.
    let pids = house.pids(victim);
    random.choice(&pids).is_some_and(|pid| {
        signal("-KILL", *pid);
        true
    })
}

/// Everything acknowledged is where it belongs, however long that takes while something moves. What was on
/// its way at three deaths of its program is on hold then, and released.
fn wait_for_all(house: &House, sink: &Sink, acknowledged: &HashMap<&str, Vec<String>>) {
    let (mut best, mut moved) = (usize::MAX, Instant::now());
    loop {
        for held in house.spooled("hold") {
            let id = held.file_name().unwrap().to_str().unwrap().to_string();
            // It may be gone by then.
            house.command("postactl", &["release", &id]).output().unwrap();
        }
        let there = arrived(house, sink);
        let is_missing = |(to, mark): &(&str, &String)| !there[to].contains_key(*mark);
        let all = acknowledged.iter().flat_map(|(to, marks)| marks.iter().map(|mark| (*to, mark)));
        let missing: Vec<_> = all.filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        if missing.len() < best {
            (best, moved) = (missing.len(), Instant::now());
        }
        assert!(moved.elapsed() < STILL, "lost: {missing:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn arrived(house: &House, sink: &Sink) -> HashMap<&'static str, HashMap<String, u32>> {
    HashMap::from([
        (Way::Mailbox.to(), marks(&house.mailbox("alice"))),
        (Way::Command.to(), marks(&house.mailbox("bob"))),
        (Way::NextHop.to(), marks(sink.arrived().iter().map(|mail| &mail.data))),
    ])
}

#[test]
fn whoever_is_killed_nothing_is_lost() {
    let (kills, seed) = (number("POSTA_KILLS", 12), number("POSTA_SEED", fastrand::u64(..)));
    println!("POSTA_KILLS={kills} POSTA_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut house = House::start("");
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    let senders = Senders {
        address: SocketAddr::new(house.address, 2525),
        config: house.config(),
        is_over: AtomicBool::new(false),
    };
    let mut killed = HashMap::<&str, u32>::new();
    let acknowledged = std::thread::scope(|scope| {
        let ways = [Way::Mailbox, Way::NextHop, Way::Command];
        let running = ways.map(|way| (way.to(), senders.begin(scope, way)));
        // However this ends, the senders do.
        let end = End(&senders.is_over);
        let victims: Vec<&str> = PROGRAMS.into_iter().chain([KEEPER]).collect();
        let mut count = 0;
        while u64::from(count) < kills {
            std::thread::sleep(PAUSE.mul_f64(random.f64()));
            let victim = random.choice(&victims).copied().unwrap_or(KEEPER);
            let begun = Instant::now();
            let found = wait_for("a process to be killed", || {
                // One that is not there is being started; a keeper that has not been told is patient.
                let done = kill(&mut house, victim, &mut random);
                if !done && begun.elapsed() > PATIENCE / 4 {
                    house.signal_keeper("-HUP");
                }
                done.then_some(true)
            });
            assert!(found);
            *killed.entry(victim).or_default() += 1;
            count += 1;
            if count % HUP_AFTER == 0 {
                house.signal_keeper("-HUP");
            }
        }
        drop(end);
        running.into_iter().map(|(to, sender)| (to, sender.join().unwrap())).collect::<HashMap<_, _>>()
    });
    house.signal_keeper("-HUP");
    wait_for_all(&house, &sink, &acknowledged);
    for program in PROGRAMS {
        wait_for(&format!("a new {program}"), || (!house.pids(program).is_empty()).then_some(()));
    }
    house.wait_for_empty_queue();
    let there = arrived(&house, &sink);
    let twice = |to: &str| there[to].values().filter(|count| **count > 1).count();
    println!("killed: {:?}", killed);
    for (to, marks) in &acknowledged {
        assert!(!marks.is_empty(), "nothing was acknowledged for {to}");
        println!("{to}: {} acknowledged, 0 lost, {} twice", marks.len(), twice(to));
    }
    assert_eq!((twice(Way::Mailbox.to()), twice(Way::Command.to())), (0, 0));
    house.stop();
}

/// Says that it is over when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
