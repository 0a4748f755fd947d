//! What the DNS says of a domain, and what becomes of its mail (RFC 5321 5.1): the whole program and a
//! name server on loopback.

use std::net::TcpListener;

use posta::courier::request::Target;

use crate::house::{House, listeners};
use crate::nameserver;
use crate::sink::{Sink, polite};

/// A house that asks a name server which knows these lines.
fn house(port: u16, zone: &str, more: &str) -> House {
    House::with(port, &format!("nameserver = \"{}\"\n{more}", nameserver::start(zone)))
}

#[test]
fn for_good_and_for_now_are_told_apart() {
    let zone = "null.test MX 0 .\nself.test MX 10 OWN.example\nself.test MX 20 worse.test\n\
                local.test MX 10 localhost\ngone.test NXDOMAIN\nbroken.test SERVFAIL\nclosed.test REFUSED\n\
                nohost.test MX 10 gone.test\nnohost.test A 127.0.0.2\n\
                later.test MX 10 broken.test\nworse.test A 127.0.0.2\n\
                circle.test CNAME round.test\nround.test CNAME circle.test";
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = house(port, zone, "");
    for (domain, status) in [
        ("null.test", "5.1.10"), // RFC 7505 4.2
        ("self.test", "5.4.6"),  // what is no better than we are would only send it back
        ("local.test", "5.4.6"), // whoever asks
        ("gone.test", "5.1.2"),
        ("empty.test", "5.1.2"),  // neither MX nor address
        ("nohost.test", "5.4.4"), // with an MX the domain's own address counts for nothing
        ("broken.test", "4.4.3"),
        ("closed.test", "4.4.3"),
        ("later.test", "4.4.3"),
        ("circle.test", "4.4.3"),
    ] {
        let said = house.deliver_one(domain);
        assert!(said.starts_with(&format!("{status} ")), "{domain}: {said}");
    }
    assert_eq!(sink.heard().len(), 0, "nobody was spoken to");
}

#[test]
fn aliases_are_followed_and_nobody_is_renamed() {
    let zone = "alias.test CNAME real.test\nreal.test MX 10 mx-alias.test\nmx-alias.test CNAME mx.test\n\
                mx.test A 127.0.0.2\nplain.test A 127.0.0.2";
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = house(port, zone, "");
    for domain in ["alias.test", "real.test", "plain.test"] {
        assert_eq!(house.deliver_one(domain), "2.0.0 250 2.0.0 ok", "{domain}");
    }
    let wanted = ["alias", "real", "plain"].map(|name| format!("RCPT TO:<r@{name}.test>"));
    assert_eq!(sink.commands("RCPT"), wanted);
}

#[test]
fn an_answer_too_long_for_udp_comes_over_tcp() {
    // The best of thirty, with long names.
    let mut zone = String::from("big.test MX 1 best.a-rather-long-name-of-a-host.test\n");
    for n in 0..30 {
        zone += &format!("big.test MX {} number-{n}.a-rather-long-name-of-a-host.test\n", n + 2);
    }
    // And a host with many addresses, none but the last of the first eight answering.
    for n in 10..17 {
        zone += &format!("best.a-rather-long-name-of-a-host.test A 127.0.0.{n}\n");
    }
    zone += "best.a-rather-long-name-of-a-host.test A 127.0.0.2\n";
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), polite);
    let house = house(port, &zone, "");
    assert_eq!(house.deliver_one("big.test"), "2.0.0 250 2.0.0 ok");
    assert_eq!(sink.messages().len(), 1);
}

#[test]
fn both_families_are_used() {
    let Ok(six) = TcpListener::bind("[::1]:0") else {
        eprintln!("this host has no IPv6 on loopback: only half is looked at");
        return;
    };
    let port = six.local_addr().unwrap().port();
    let only_six = Sink::tcp(six, polite);
    // An address of RFC 3849 leads nowhere: the next one is taken.
    let zone = "six.test MX 10 six-host.test\nsix-host.test AAAA ::1\n\
                both.test AAAA 2001:db8::1\nboth.test AAAA ::1\n";
    let house = house(port, zone, "connect_timeout = \"1s\"");
    assert_eq!(house.deliver_one("six.test"), "2.0.0 250 2.0.0 ok");
    assert_eq!(house.deliver_one("both.test"), "2.0.0 250 2.0.0 ok");
    assert_eq!(only_six.messages().len(), 2);
}

#[test]
fn a_host_with_our_own_address_and_all_worse_ones_are_left_out() {
    let (port, mut listening) = listeners(&[3, 4]);
    let worse = Sink::tcp(listening.remove(1), polite);
    let us = Sink::tcp(listening.remove(0), polite);
    let zone = "only.test MX 10 us.test\nonly.test MX 20 worse.test\n\
                down.test MX 5 down-host.test\ndown.test MX 10 us.test\ndown.test MX 20 worse.test\n\
                us.test A 127.0.0.3\nworse.test A 127.0.0.4\ndown-host.test A 127.0.0.9\n";
    let listen = format!("[[listen]]\naddress = \"127.0.0.3:{port}\"\n");
    let house = house(port, zone, &listen);
    let only = house.deliver_one("only.test");
    assert!(only.starts_with("5.4.6 ") && only.contains("loops back"), "{only}");
    let down = house.deliver_one("down.test");
    assert!(down.starts_with("4.4.1 "), "the better one may come back: {down}");
    assert_eq!((us.heard().len(), worse.heard().len()), (0, 0));
    // What the administrator has named is taken at its word.
    let hop = posta::courier::request::Hop::Address("127.0.0.3".parse().unwrap(), port);
    assert_eq!(house.deliver(&Target::Smtp(hop), &["r@x.test"], b"x\r\n"), ["2.0.0 250 2.0.0 ok"]);
}
