//! What waits goes out at the administrator's word: for a relay that was dead and is back, or in one pass.

mod station;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use station::House;
use station::sink::Sink;

/// More than the relay may have of the working set, which is a quarter of forty.
const COUNT: usize = 60;

#[test]
fn a_heap_for_a_relay_that_is_back_goes_out_at_once_and_once() {
    let house = House::start("[queue]\nfirst_retry = \"1h\"\nlongest_retry = \"1h\"\nslots = 40");
    let mut client = house.client();
    client.hello();
    for n in 0..COUNT {
        client.send("alice@example.org", &[&format!("u{n}@elsewhere.example")], "Subject: x\n\nx\n");
    }
    let deferred = || house.output("postactl", &["queue", "--json"]).matches("\"deferred\"").count();
    station::wait_for("all of them to be deferred", || (deferred() == COUNT).then_some(()));
    // Twice in vain: the relay is still dead, and what can't be tried waits again.
    for _ in 0..2 {
        house.output("postactl", &["retry", "all"]);
        station::wait_for("all of them to be deferred", || (deferred() == COUNT).then_some(()));
    }
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    house.output("postactl", &["retry", "elsewhere.example"]);
    let arrived = sink.wait_for(COUNT);
    house.wait_for_empty_queue();
    let mut to: Vec<&String> = arrived.iter().flat_map(|mail| &mail.to).collect();
    to.sort();
    to.dedup();
    assert_eq!((to.len(), sink.arrived().len()), (COUNT, COUNT));
    assert!(sink.connections() < COUNT as u32, "each had a connection of its own");
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_pass_without_a_running_queue_tries_all_once_and_ends() {
    let house = House::set_up("");
    let start = |program| {
        let mut command = house.command(program, &[]);
        Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    std::fs::create_dir_all(house.path("run")).unwrap();
    let pass = || house.command("posta-queue", &["-1"]).output().unwrap();
    let absent = pass();
    assert_eq!(absent.status.code(), Some(69), "nobody delivers: {absent:?}");
    let _hands = [start("posta-local"), start("posta-remote")];
    for hand in ["local", "remote"] {
        station::wait_for(hand, || house.path("run").join(hand).exists().then_some(()));
    }
    let arguments = ["-f", "alice@example.org", "carol@example.org", "bob@dead.example"];
    let mut sendmail = house.command("sendmail", &arguments).stdin(Stdio::piped()).spawn().unwrap();
    sendmail.stdin.take().unwrap().write_all(b"Subject: x\n\nx\n").unwrap();
    assert!(sendmail.wait().unwrap().success());
    let output = pass();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert_eq!(house.mailbox("carol").len(), 1, "{log}");
    assert_eq!(log.matches("to=<bob@dead.example>").count(), 1, "{log}");
    // Where the file system has no journal, what waits stays in new/.
    assert_eq!(house.spooled("new").len() + house.spooled("cur").len(), 1, "{log}");
}
