//! posta-smtpd in a crowd: strangers who hold all seats, clients that talk before they are greeted.

#[allow(dead_code)]
#[path = "smtpd/daemon.rs"]
mod daemon;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::{Client, Daemon, Ground};

/// Nothing takes so long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

/// Who comes over 127.0.0.9 is ours; all others of 127.0.0.0/8 are strangers.
fn house(settings: &str) -> Daemon {
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    Ground::new(&format!("{listen}[smtpd]\nrelay_from = [\"127.0.0.9\"]\n{settings}")).start()
}

/// Tries until there is a seat; every refusal on the way is an answer in good order.
fn let_in(daemon: &Daemon, source: &str) -> Client {
    let end = Instant::now() + LIMIT;
    loop {
        let mut client = daemon.connect_from(source).unwrap();
        let answer = client.reply();
        if answer.starts_with("220 ") {
            return client;
        }
        assert!(answer.starts_with("421 4.3.2 ") && answer.ends_with("[P0101]"), "{answer}");
        assert!(Instant::now() < end, "no seat in {LIMIT:?}");
        std::thread::yield_now();
    }
}

#[test]
fn strangers_who_hold_all_seats_make_room_for_new_clients() {
    const SEATS: usize = 50;
    let daemon = house(&format!("max_sessions = {SEATS}\nmax_sessions_per_client = {SEATS}\n"));
    let mut ours = daemon.client_from("127.0.0.9");
    let mut idle: Vec<Client> = (1..SEATS).map(|_| daemon.client_from("127.0.0.2")).collect();
    let mut newcomers: Vec<Client> = (0..5).map(|_| let_in(&daemon, "127.0.0.3")).collect();
    for client in &mut newcomers {
        client.send("EHLO newcomer.example\r\n");
        client.expect("250");
    }
    // As many have gone for them, each with a word.
    let shed = || daemon.read_log().matches("[P0103]").count();
    daemon::wait_until("five are shed", || shed() == 5);
    let mut words = 0;
    for stranger in &mut idle {
        stranger.half_close();
        let word = stranger.reply();
        words += usize::from(word.starts_with("421 4.3.2 ") && word.ends_with("[P0103]"));
    }
    assert_eq!(words, 5);
    // Who may relay stays, though nobody was silent for longer.
    ours.send("NOOP\r\n");
    ours.expect("250");
}

#[test]
fn an_octet_now_and_then_keeps_no_seat() {
    const SEATS: usize = 10;
    let daemon = house(&format!("max_sessions = {SEATS}\nmax_sessions_per_client = {SEATS}\n"));
    let mut slow: Vec<Client> = (0..SEATS).map(|_| daemon.client_from("127.0.0.2")).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Who has gone can't be told anything.
                slow.iter_mut().for_each(|client| _ = client.try_send("E"));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let newcomer = std::panic::catch_unwind(|| let_in(&daemon, "127.0.0.3"));
        over.store(true, Ordering::Relaxed);
        newcomer.expect("it comes in").say("EHLO newcomer.example", "250");
    });
}

#[test]
fn who_takes_a_little_of_our_replies_now_and_then_is_not_waited_for_for_ever() {
    let domain = "[domains]\n\"example.org\" = { users = \"*\", mailbox = \"/nowhere/\" }\n";
    let mut daemon = house(&format!("command_timeout = \"3s\"\n{domain}"));
    let mut client = daemon.client_from("127.0.0.2");
    client.say("EHLO slow.example", "250");
    client.say("MAIL FROM:<>", "250");
    let socket = client.into_socket();
    let (over, mut asking) = (AtomicBool::new(false), socket.try_clone().unwrap());
    std::thread::scope(|scope| {
        // More than all buffers hold: it is always waited for.
        scope.spawn(move || _ = asking.write_all("RCPT TO:<x@example.org>\r\n".repeat(1_000_000).as_bytes()));
        scope.spawn(|| {
            let mut little = [0; 8 * 1024];
            while !over.load(Ordering::Relaxed) && (&socket).read(&mut little).is_ok_and(|count| count > 0) {
                std::thread::sleep(Duration::from_millis(20));
            }
            socket.shutdown(Shutdown::Both).unwrap_or_default();
        });
        let ends = || daemon.wait_for_log("replies not taken after RCPT by unknown[127.0.0.2]");
        let line = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ends));
        over.store(true, Ordering::Relaxed);
        line.expect("it is not waited for");
    });
}

/// Everybody who came at once has had a thread and its buffers. What the allocator keeps of them, in an
/// arena of each few threads, is of no use to the few who come later.
#[test]
fn a_crowd_that_has_gone_leaves_no_memory_behind() {
    const CROWD: usize = 400;
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    let domains = "[domains]\n\"example.org\" = { users = \"*\", mailbox = \"/nowhere/\" }\n";
    let limits = format!("[smtpd]\nmax_sessions = {CROWD}\nmax_sessions_per_client = {CROWD}\n");
    let daemon = Ground::new(&format!("{listen}{domains}{limits}")).start();
    let talk = |size: usize| {
        let mut client = daemon.client_from("127.0.0.2");
        client.begin("x@example.org");
        client.send("twenty octets a line\r\n".repeat(size / 22));
        client
    };
    drop(talk(60_000));
    let start = daemon.status("VmRSS");
    let crowd: Vec<Client> = (0..CROWD).map(|_| talk(60_000)).collect();
    let most = daemon.status("VmRSS");
    drop(crowd);
    let few = || daemon.status("Threads") < 12;
    daemon::wait_until("the workers have gone", few);
    let more = || daemon.status("VmRSS").saturating_sub(start);
    println!("{start} KiB before, {most} KiB with all of them, then {} KiB more", more());
    daemon::wait_until("the memory is given back", || more() < (most - start) / 4);
}

#[test]
fn a_client_that_has_its_share_drives_nobody_out() {
    let daemon = house("max_sessions = 2\nmax_sessions_per_client = 1\n");
    let mut one = daemon.client_from("127.0.0.2");
    let _two = let_in(&daemon, "127.0.0.3");
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let answer = daemon.connect_from("127.0.0.3").unwrap().reply();
        assert!(answer.ends_with("[P0102]"), "{answer}");
    }
    one.send("NOOP\r\n");
    one.expect("250");
}

#[test]
fn a_slow_answer_is_not_got_round_by_closing_behind_the_commands() {
    let mut daemon = house("max_errors = 4\n");
    let mut client = daemon.client_from("127.0.0.2");
    client.say("EHLO client.example", "250");
    client.send("FROB\r\n".repeat(4));
    client.half_close();
    // The third wrong command is answered late, and by then its client has gone.
    assert!(client.reply().starts_with("500") && client.reply().starts_with("500"));
    client.expect_end();
    daemon.wait_for_log("lost connection after UNKNOWN from unknown[127.0.0.2]");
}
