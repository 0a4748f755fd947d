//! The PROXY protocol, versions 1 and 2: a proxy in front of us says for whom it connects.
//!
//! The header is the first thing on a connection, and what follows it belongs to somebody else (TLS
//! perhaps), so exactly its octets are taken and not one more. Only a listener that is marked for it
//! may ask for a header: anybody can write one.
//!
//! The law is HAProxy's `doc/proxy-protocol.txt`, version 2.3 of it.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use thiserror::Error;

use super::stream::Stream;

/// The first octets of a version 2 header (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and a length.
const FIXED: usize = 16;
/// Both versions have at least so many: `PROXY UNKNOWN` CR LF is the shortest header of all.
const SHORTEST: usize = 15;
/// The longest line of version 1, its CR LF included (section 2.1).
const LONGEST_LINE: usize = 107;
/// The most that may follow the fixed part of version 2. Addresses take 216 octets at most; the rest is
/// for extensions, of which we read none.
const LONGEST_REST: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy connects for this client.
    Client {
        /// The client.
        from: SocketAddr,
        /// Whom the client has connected to.
        to: SocketAddr,
    },
    /// The proxy does not say for whom it connects, or for a Unix socket's client (`UNKNOWN`): the
    /// client has no address.
    Unknown,
    /// The proxy connects for itself, as health checks do (`LOCAL`): the connection's own addresses
    /// hold.
    Local,
}

/// Why there is no header.
#[derive(Debug, Error)]
pub enum ProxyFault {
    /// What came is no PROXY header.
    #[error("no PROXY header: {0}")]
    Malformed(&'static str),
    /// The connection ended, or the time was over, before the header was whole.
    #[error("no whole PROXY header: {0}")]
    Lost(#[from] io::Error),
}

/// How far a header is read.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// At least so many octets more belong to it.
    Needs(usize),
    /// It is whole, and so long.
    Whole(Header, usize),
}

/// Takes the header from a new connection, all of it by `deadline`.
pub fn take(stream: &mut Stream, deadline: Instant) -> Result<Header, ProxyFault> {
    stream.set_deadline(Some(deadline));
    read(stream)
}

/// Takes exactly the header's octets.
fn read(source: &mut impl Read) -> Result<Header, ProxyFault> {
    let mut octets = Vec::with_capacity(LONGEST_LINE);
    loop {
        match parse(&octets)? {
            Progress::Whole(header, _) => return Ok(header),
            Progress::Needs(more) => {
                let have = octets.len();
                octets.resize(have + more, 0);
                source.read_exact(&mut octets[have..])?;
            }
        }
    }
}

/// Reads a header from the beginning of `octets`.
pub fn parse(octets: &[u8]) -> Result<Progress, ProxyFault> {
    let begins = |whole: &[u8]| {
        let both = whole.len().min(octets.len());
        whole[..both] == octets[..both]
    };
    if begins(b"PROXY ") {
        parse_line(octets)
    } else if begins(SIGNATURE) {
        parse_binary(octets)
    } else {
        Err(ProxyFault::Malformed("it begins otherwise"))
    }
}

/// Version 1 (section 2.1): `PROXY TCP4 192.0.2.1 192.0.2.2 56324 25` CR LF.
fn parse_line(octets: &[u8]) -> Result<Progress, ProxyFault> {
    let octets = &octets[..octets.len().min(LONGEST_LINE)];
    let Some(end) = octets.windows(2).position(|pair| pair == b"\r\n") else {
        return match (octets.len(), octets.last()) {
            (LONGEST_LINE, _) => Err(ProxyFault::Malformed("the line is too long")),
            (have, _) if have < SHORTEST => Ok(Progress::Needs(SHORTEST - have)),
            (have, last) if last == Some(&b'\r') || have + 1 == LONGEST_LINE => Ok(Progress::Needs(1)),
            _ => Ok(Progress::Needs(2)),
        };
    };
    let line =
        std::str::from_utf8(&octets[..end]).map_err(|_| ProxyFault::Malformed("the line is no text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let header = match words[..] {
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            client((address::<Ipv4Addr>(from)?, port(from_port)?), (address::<Ipv4Addr>(to)?, port(to_port)?))
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            client((address::<Ipv6Addr>(from)?, port(from_port)?), (address::<Ipv6Addr>(to)?, port(to_port)?))
        }
        // What else the line says then is to be ignored.
        ["PROXY", "UNKNOWN", ..] => Header::Unknown,
        _ => return Err(ProxyFault::Malformed("the line has other words")),
    };
    Ok(Progress::Whole(header, end + 2))
}

fn address<A: std::str::FromStr>(word: &str) -> Result<A, ProxyFault> {
    word.parse().map_err(|_| ProxyFault::Malformed("an address is none of its family"))
}

/// A port in decimal digits without leading zeros.
fn port(word: &str) -> Result<u16, ProxyFault> {
    let canonical = word == "0" || word.starts_with(|digit: char| ('1'..='9').contains(&digit));
    let port = if canonical { word.parse().ok() } else { None };
    port.ok_or(ProxyFault::Malformed("a port is no number"))
}

/// Version 2 (section 2.2).
fn parse_binary(octets: &[u8]) -> Result<Progress, ProxyFault> {
    let Some(fixed) = octets.first_chunk::<FIXED>() else {
        let least = if octets.len() < SHORTEST { SHORTEST } else { FIXED };
        return Ok(Progress::Needs(least - octets.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > LONGEST_REST {
        return Err(ProxyFault::Malformed("it is too long"));
    }
    let whole = FIXED + rest;
    let Some(body) = octets.get(FIXED..whole) else { return Ok(Progress::Needs(whole - octets.len())) };
    let header = match (command, family) {
        (0x20, _) => Header::Local,
        (0x21, 0x11) => binary_client::<4>(body)?,
        (0x21, 0x21) => binary_client::<16>(body)?,
        // Unspecified, or a stream over a Unix socket.
        (0x21, 0x00 | 0x31) => Header::Unknown,
        (0x21, _) => return Err(ProxyFault::Malformed("it is not for TCP")),
        _ => return Err(ProxyFault::Malformed("unknown version or command")),
    };
    Ok(Progress::Whole(header, whole))
}

/// Two addresses of `N` octets each, then two ports; extensions may follow.
fn binary_client<const N: usize>(body: &[u8]) -> Result<Header, ProxyFault>
where
    [u8; N]: Into<std::net::IpAddr>,
{
    let cut = || ProxyFault::Malformed("it is too short for its addresses");
    let (from, body) = body.split_first_chunk::<N>().ok_or_else(cut)?;
    let (to, body) = body.split_first_chunk::<N>().ok_or_else(cut)?;
    let (from_port, body) = body.split_first_chunk::<2>().ok_or_else(cut)?;
    let to_port = body.first_chunk::<2>().ok_or_else(cut)?;
    Ok(client((*from, u16::from_be_bytes(*from_port)), (*to, u16::from_be_bytes(*to_port))))
}

/// IPv4 addresses that were written as IPv6 count as themselves.
fn client<A: Into<std::net::IpAddr>>(from: (A, u16), to: (A, u16)) -> Header {
    let socket = |(address, port): (A, u16)| SocketAddr::new(address.into().to_canonical(), port);
    Header::Client { from: socket(from), to: socket(to) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn client_of(from: &str, to: &str) -> Header {
        Header::Client { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    /// The header, and that what follows is left.
    fn taken(header: &[u8]) -> Result<Header, ProxyFault> {
        let mut source = &[header, b"EHLO x"][..].concat()[..];
        let header = read(&mut source)?;
        assert_eq!(source, b"EHLO x");
        Ok(header)
    }

    #[test]
    fn lines_are_read() {
        let four = taken(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n").unwrap();
        assert_eq!(four, client_of("192.0.2.1:56324", "198.51.100.2:25"));
        let six = taken(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n").unwrap();
        assert_eq!(six, client_of("[2001:db8::1]:0", "[::1]:65535"));
        let mapped = taken(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n").unwrap();
        assert_eq!(mapped, client_of("192.0.2.1:1", "[::1]:2"));
        assert_eq!(taken(b"PROXY UNKNOWN\r\n").unwrap(), Header::Unknown);
        assert_eq!(taken(b"PROXY UNKNOWN whatever is said\r\n").unwrap(), Header::Unknown);
        let f = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {f} {f} 65535 65535\r\n");
        assert_eq!((longest.len(), taken(longest.as_bytes()).unwrap()), (LONGEST_LINE, Header::Unknown));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 25 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 56324 25\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 056324 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 25\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "EHLO client.example\r\n",
            "\u{16}\u{3}\u{1}\r\n         ",
        ] {
            assert!(matches!(taken(line.as_bytes()), Err(ProxyFault::Malformed(_))), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST_LINE - 15));
        assert!(matches!(taken(long.as_bytes()), Err(ProxyFault::Malformed("the line is too long"))));
        assert!(matches!(read(&mut &b"PROXY TCP4 1.2"[..]), Err(ProxyFault::Lost(_))));
    }

    #[test]
    fn binary_headers_are_read() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 4, 0, 25];
        let expected = client_of("192.0.2.1:56324", "198.51.100.2:25");
        assert_eq!(taken(&binary(0x21, 0x11, &four)).unwrap(), expected);
        let extended = [&four[..], &[4, 0, 1, 0]].concat();
        assert_eq!(taken(&binary(0x21, 0x11, &extended)).unwrap(), expected);
        let (from, to): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "::1".parse().unwrap());
        let six = [&from.octets()[..], &to.octets(), &[0, 1, 0, 25]].concat();
        assert_eq!(taken(&binary(0x21, 0x21, &six)).unwrap(), client_of("[2001:db8::1]:1", "[::1]:25"));
        for (command, family, body, header) in [
            (0x20, 0x00, &b""[..], Header::Local),
            (0x20, 0x11, b"xyz", Header::Local),
            (0x21, 0x00, b"", Header::Unknown),
            (0x21, 0x31, &[0; 216], Header::Unknown),
        ] {
            assert_eq!(taken(&binary(command, family, body)).unwrap(), header);
        }
    }

    #[test]
    fn wrong_binary_headers_are_refused() {
        for (command, family, body) in [
            (0x21, 0x11, &[0; 11][..]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x12, &[0; 12]),
            (0x21, 0x41, &[0; 12]),
            (0x22, 0x11, &[0; 12]),
            (0x11, 0x11, &[0; 12]),
            (0x20, 0x00, &[0; LONGEST_REST + 1]),
        ] {
            let taken = taken(&binary(command, family, body));
            assert!(matches!(taken, Err(ProxyFault::Malformed(_))), "{command:x} {family:x}: {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_read_on_for_ever(
            start in prop_oneof![
                Just(b"PROXY ".to_vec()), Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
                Just(SIGNATURE.to_vec()), Just([&SIGNATURE[..], &[0x21, 0x11, 0]].concat()), Just(vec![]),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let all = [start, rest].concat();
            match parse(&all) {
                Ok(Progress::Whole(_, length)) => {
                    prop_assert!(length <= all.len() && length >= SHORTEST);
                    // Not an octet less would have done, and none more is looked at.
                    for cut in 0..length {
                        let Ok(Progress::Needs(more)) = parse(&all[..cut]) else { panic!("whole at {cut}") };
                        prop_assert!(more > 0 && cut + more <= length);
                    }
                    prop_assert_eq!(parse(&all[..length]).unwrap(), parse(&all).unwrap());
                }
                Ok(Progress::Needs(more)) => prop_assert!(all.len() + more <= FIXED + LONGEST_REST),
                Err(_) => {}
            }
        }

        #[test]
        fn what_a_proxy_writes_is_read(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) {
            let header = Header::Client {
                from: SocketAddr::new(IpAddr::from(from), ports.0),
                to: SocketAddr::new(IpAddr::from(to), ports.1),
            };
            let line = format!(
                "PROXY TCP4 {} {} {} {}\r\n", Ipv4Addr::from(from), Ipv4Addr::from(to), ports.0, ports.1
            );
            prop_assert_eq!(taken(line.as_bytes()).unwrap(), header);
            let body = [&from[..], &to, &ports.0.to_be_bytes(), &ports.1.to_be_bytes()].concat();
            prop_assert_eq!(taken(&binary(0x21, 0x11, &body)).unwrap(), header);
        }
    }
}
