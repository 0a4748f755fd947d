//! A name server on loopback, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use trust_dns_resolver::proto::op::{Message, ResponseCode};
use trust_dns_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What UDP carries without EDNS (RFC 1035 4.2.1): more is cut off here, whatever was asked for.
const MOST: usize = 512;

/// What it knows: lines of a name and one of `A address`, `AAAA address`, `MX preference name`,
/// `CNAME name`, `SERVFAIL`, `REFUSED`, `NXDOMAIN`. Of a name that no line has there is nothing.
type Lines = Arc<Vec<(String, String)>>;

/// Starts a name server; its threads end with the test's process.
pub fn start(zone: &str) -> SocketAddr {
    let line =
        |line: &str| line.trim().split_once(' ').map(|(name, rest)| (format!("{name}."), rest.to_string()));
    let lines: Lines = Arc::new(zone.lines().filter_map(line).collect());
    let (tcp, udp) = sockets();
    let address = udp.local_addr().unwrap();
    let by_udp = lines.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut packet) {
            let Some(answer) = answer(&packet[..length], &by_udp) else { continue };
            let mut bytes = answer.to_vec().unwrap();
            if bytes.len() > MOST {
                bytes = truncated(answer).to_vec().unwrap();
            }
            let _ = udp.send_to(&bytes, from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = tcp.accept() {
            let lines = lines.clone();
            std::thread::spawn(move || {
                // A client that goes is no fault.
                let mut length = [0; 2];
                while socket.read_exact(&mut length).is_ok() {
                    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
                    if socket.read_exact(&mut packet).is_err() {
                        return;
                    }
                    let Some(answer) = answer(&packet, &lines) else { return };
                    let bytes = answer.to_vec().unwrap();
                    let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
                    if socket.write_all(&framed).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Both on one port.
fn sockets() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

fn answer(packet: &[u8], lines: &[(String, String)]) -> Option<Message> {
    let asked = Message::from_vec(packet).ok()?;
    let query = asked.queries.first()?.clone();
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_available = true;
    let name = query.name().to_ascii().to_ascii_lowercase();
    for (_, what) in lines.iter().filter(|(owner, _)| *owner == name) {
        let words: Vec<&str> = what.split(' ').collect();
        match words[..] {
            ["SERVFAIL"] => reply.metadata.response_code = ResponseCode::ServFail,
            ["REFUSED"] => reply.metadata.response_code = ResponseCode::Refused,
            ["NXDOMAIN"] => reply.metadata.response_code = ResponseCode::NXDomain,
            _ => {
                let (kind, data) = data(&words);
                if kind == query.query_type() || kind == RecordType::CNAME {
                    reply.add_answer(Record::from_rdata(query.name().clone(), 300, data));
                }
            }
        }
    }
    reply.add_query(query);
    Some(reply)
}

fn data(words: &[&str]) -> (RecordType, RData) {
    let named = |name: &str| Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    match words[..] {
        ["MX", preference, host] => {
            (RecordType::MX, RData::MX(MX::new(preference.parse().unwrap(), named(host))))
        }
        ["CNAME", name] => (RecordType::CNAME, RData::CNAME(CNAME(named(name)))),
        [_, address] => match ip(address) {
            IpAddr::V4(ip) => (RecordType::A, RData::A(A(ip))),
            IpAddr::V6(ip) => (RecordType::AAAA, RData::AAAA(AAAA(ip))),
        },
        _ => panic!("{words:?}"),
    }
}

/// RFC 2181 9: the bit says that there is more; what was cut is asked for over TCP.
fn truncated(mut answer: Message) -> Message {
    answer.answers.clear();
    answer.metadata.truncation = true;
    answer
}
