//! The house under siege, and ways to it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use posta::net::stream::Stream;

use crate::certificates::{certificate, ec_key};
use crate::seven::Seven;
use crate::station::House;

/// For how long an attacker waits for anything, and so how soon one whose time is over comes to its end.
const LIMIT: Duration = Duration::from_secs(5);

/// May relay; mail of its own goes to a next hop that takes seven bits only.
pub const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 200, 0, 1));
/// Hands in honest mail from outside, and with a password.
pub const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 200, 0, 2));
/// Whose seats are counted one by one: no attacker has an address of these.
pub const PER_CLIENT: usize = 100;

/// A posta, with a listener of each kind.
pub struct Target {
    pub house: House,
    /// SMTP, with STARTTLS.
    pub smtp: SocketAddr,
    /// Submission, with STARTTLS and AUTH.
    pub submission: SocketAddr,
    /// Submission under TLS from the first octet.
    pub implicit: SocketAddr,
    /// Where a proxy says for whom it connects.
    pub proxied: SocketAddr,
    /// Takes what is relayed.
    pub seven: Seven,
}

impl Target {
    /// Starts it, with so many seats.
    pub fn start(seats: usize) -> Target {
        let mut house = House::set_up("");
        let made = certificate(None, &["mail.example.org"], ec_key(), 30);
        fs::write(house.path("cert.pem"), made.certificate_pem()).unwrap();
        fs::write(house.path("key.pem"), made.key_pem()).unwrap();
        let users = ["carol", "dave"].map(|name| format!("{name}@users.example:{{PLAIN}}secret:::::\n"));
        fs::write(house.path("users"), users.concat()).unwrap();
        let at = |port| SocketAddr::new(house.address, port);
        let (smtp, submission, implicit, proxied) = (at(2525), at(2587), at(2465), at(2530));
        let seven = Seven::start(at(2526));
        let root = house.folder.path().display();
        let more = format!(
            "[[listen]]\naddress = \"{submission}\"\ntls = \"starttls\"\nsubmission = true\n\
             [[listen]]\naddress = \"{implicit}\"\ntls = \"implicit\"\nsubmission = true\n\
             [[listen]]\naddress = \"{proxied}\"\nproxy = true\n\
             [tls]\ncertificate = \"{root}/cert.pem\"\nkey = \"{root}/key.pem\"\n\
             [domains.\"users.example\"]\nusers = \"{root}/users\"\nmailbox = \"{root}/mail/{{user}}/\"\n"
        );
        let settings = fs::read_to_string(house.config())
            .unwrap()
            .replace("tls = \"none\"", "tls = \"starttls\"")
            .replace("relay_from = [\"127.0.0.0/8\"]", &format!("relay_from = [\"{TRUSTED}\"]"))
            .replace(
                "max_sessions_per_client = 500",
                &format!("max_sessions_per_client = {PER_CLIENT}\nmax_sessions = {seats}"),
            );
        fs::write(house.config(), settings + &more).unwrap();
        house.run();
        Target { house, smtp, submission, implicit, proxied, seven }
    }

    /// Nothing in the log is a fault of ours, and no program had to be started again.
    pub fn expect_sound_log(&self) {
        let log = self.house.log();
        for words in ["panic", "by a fault of the program", "error: ", "started again", "cannot watch"] {
            let found: Vec<&str> = log.lines().filter(|line| line.contains(words)).take(5).collect();
            assert!(found.is_empty(), "{words:?} in the log:\n{}", found.join("\n"));
        }
    }
}

/// A connection from an address, whose waits are bounded.
pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = Stream::connect(to, Some(from), LIMIT)?;
    let socket = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// One of the addresses of a band of attackers, or of the crowd.
pub fn stranger(band: usize, member: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 201 + band as u8, (member / 250) as u8, (member % 250 + 1) as u8))
}

/// Waits until `done` gives something, for longer than other tests do: after a siege there is a lot to be
/// done, and the machine may have other work.
pub fn wait_long_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    const PATIENCE: Duration = Duration::from_secs(600);
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
