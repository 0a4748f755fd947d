//! A relay that was dead and is back: what waits for it goes out at the administrator's word.

mod station;

use std::net::SocketAddr;

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
