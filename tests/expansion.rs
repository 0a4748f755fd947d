//! A list of very many members: what it costs, and what becomes of it when posta-queue dies over it.

mod station;

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;

use station::House;
use station::sink::Sink;

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n";

/// A house with a list of so many members in a domain.
fn house(members: usize, domain: &str) -> House {
    let mut house = House::set_up("");
    let root = house.folder.path().display().to_string();
    let mut list = String::new();
    for n in 0..members {
        writeln!(list, "member{n}@{domain}").unwrap();
    }
    fs::write(house.path("list"), list).unwrap();
    fs::write(house.path("aliases"), format!("crowd: :include:{root}/list\n")).unwrap();
    let config = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), format!("{config}\n[local]\naliases = \"{root}/aliases\"\n")).unwrap();
    house.run();
    house
}

/// The most memory that a program has had, in MiB.
fn peak(house: &House, program: &str) -> usize {
    let pid = house.pids(program)[0];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

/// POSTA_MEMBERS=100000 tries a larger one; with that, posta-queue grew by 87 MiB when this was written.
#[test]
fn a_long_list_takes_little_memory_for_each_member() {
    let members = std::env::var("POSTA_MEMBERS").map_or(20_000, |count| count.parse().unwrap());
    let house = house(members, "dead.example");
    let before = peak(&house, "posta-queue");
    house.send("a@x.example", &["crowd@mail.example.org"], MESSAGE);
    house.wait_for_log(&[&format!("to=<member{}@dead.example>", members - 1), "status=deferred"]);
    let grown = peak(&house, "posta-queue") - before;
    eprintln!("{members} members: posta-queue grew by {grown} MiB");
    let each = grown * 1024 / members;
    assert!(each <= 2, "{each} KiB");
}

#[test]
fn a_crash_amid_a_list_leaves_nobody_out() {
    const MEMBERS: usize = 5000;
    let house = house(MEMBERS, "elsewhere.example");
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    house.send("a@x.example", &["crowd@mail.example.org"], MESSAGE);
    sink.wait_for(5);
    house.kill("posta-queue");
    house.wait_for_empty_queue();
    let mut heard: HashMap<String, usize> = HashMap::new();
    for arrived in sink.arrived() {
        arrived.to.into_iter().for_each(|to| *heard.entry(to).or_default() += 1);
    }
    assert_eq!(heard.len(), MEMBERS);
    // At least once, and twice only whoever was being served just then: 20 connections of 100 members.
    let twice = heard.values().filter(|times| **times > 1).count();
    assert!(twice <= 2000 && heard.values().all(|times| *times <= 2), "{twice}");
}
