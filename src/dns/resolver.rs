//! The door to the DNS (hickory-resolver, which was trust-dns-resolver, and tokio below it).
//!
//! One thread drives the sockets; any number of threads ask and wait. Timeouts, retries and the
//! change to TCP are the library's; aliases, the cache and what an answer means are ours.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use trust_dns_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query, ResponseCode};
use trust_dns_resolver::proto::rr::{DNSClass, Name, RData, RecordType};
use trust_dns_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::answer::{
    Answer, Data, Kind, LookupError, MAX_ALIASES, Names, Picked, Record, SourceError, pick, wire_name,
};
use super::cache::{Cache, Outcome};

/// Where the system names its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The DNS's port.
const PORT: u16 = 53;
/// Most name servers that are asked (resolv.conf(5): MAXNS).
const MAX_SERVERS: usize = 3;
/// How long one try of one name server may take.
pub(super) const TRY: Duration = Duration::from_secs(5);
/// Tries after the first one.
const RETRIES: usize = 1;
/// The most that one question may take, all tries and servers together, in times of one try.
const MOST: u32 = 4;

/// The DNS.
pub struct Resolver {
    runtime: Handle,
    pool: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    cache: Cache,
    deadline: Duration,
    /// When it is dropped, the thread ends.
    _thread: oneshot::Sender<()>,
}

/// What one question on the wire came to: records, or why not and how long that holds.
type Asked = Result<(Vec<Record>, bool), (LookupError, Option<Duration>)>;

impl Resolver {
    /// Starts the thread. Asks `nameserver`, or those of the system's resolv.conf.
    pub fn start(nameserver: Option<SocketAddr>) -> Result<Resolver, SourceError> {
        Resolver::start_trying(nameserver, TRY)
    }

    /// The same, where one try of one name server may take `each`.
    pub fn start_trying(nameserver: Option<SocketAddr>, each: Duration) -> Result<Resolver, SourceError> {
        let servers = match nameserver {
            Some(address) => vec![address],
            None => system_servers()?,
        };
        Resolver::with(&servers, each)
    }

    fn with(servers: &[SocketAddr], each: Duration) -> Result<Resolver, SourceError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name("dns".into()).spawn(move || runtime.block_on(dropped))?;
        let tls = TlsConfig::new().map_err(|e| SourceError::Start(io::Error::other(e)))?;
        let context = Arc::new(PoolContext::new(options(each), tls));
        let servers = servers.iter().copied().map(server);
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        let pool = RetryDnsHandle::new(pool, RETRIES);
        Ok(Resolver { runtime: handle, pool, deadline: each * MOST, cache: Cache::default(), _thread: alive })
    }

    /// Asks one question and waits for the answer.
    fn ask(&self, name: &str, kind: Kind) -> Asked {
        let full = Name::from_ascii(format!("{name}.")).map_err(|_| (LookupError::BadName, None))?;
        let mut query = Query::query(full, record_type(kind));
        query.query_class = DNSClass::IN;
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        let mut request = DnsRequest::from_query(query, options);
        // RFC 6840 5.7: ask whether the resolver has validated, without wanting the signatures.
        request.metadata.authentic_data = true;
        let (answer, deadline) = (self.pool.send(request).first_answer(), self.deadline);
        let response = self
            .runtime
            .block_on(async move { tokio::time::timeout(deadline, answer).await })
            .map_err(|_| (LookupError::TimedOut, None))?
            .map_err(failure)?;
        let response = DnsError::from_response(response).map_err(|e| failure(NetError::Dns(e)))?;
        let message = response.into_message();
        let records = message.answers.iter();
        let records = records.filter_map(|r| data(&r.data).map(|d| (text(&r.name), r.ttl, d)));
        Ok((records.collect(), message.metadata.authentic_data))
    }

    /// Asks along aliases; the second part is how long a negative answer holds.
    fn follow(&self, name: &str, kind: Kind) -> (Outcome, Option<Duration>) {
        let mut name = name.to_string();
        let (mut least, mut all_secure) = (Duration::MAX, true);
        for _ in 0..=MAX_ALIASES {
            let (records, secure) = match self.ask(&name, kind) {
                Ok(asked) => asked,
                Err((error, holds)) => return (Err(error), holds),
            };
            all_secure &= secure;
            match pick(&records, &name, kind) {
                Ok(Picked::Data(data, ttl)) => {
                    return (Ok(Answer { data, ttl: ttl.min(least), secure: all_secure }), None);
                }
                Ok(Picked::Ask(next)) => {
                    let ttl = records.iter().map(|r| r.1).min().unwrap_or(0);
                    least = least.min(Duration::from_secs(u64::from(ttl)));
                    name = next;
                }
                Err(error) => return (Err(error), None),
            }
        }
        (Err(LookupError::Circle), None)
    }
}

impl Names for Resolver {
    fn look_up(&self, name: &str, kind: Kind) -> Outcome {
        let name = wire_name(name)?;
        if let Some(kept) = self.cache.get(&name, kind, Instant::now()) {
            return kept;
        }
        let (outcome, negative) = self.follow(&name, kind);
        self.cache.put(&name, kind, &outcome, negative, Instant::now());
        outcome
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = address.port();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

/// The system's name servers; without any the one of this host (resolv.conf(5)).
fn system_servers() -> Result<Vec<SocketAddr>, SourceError> {
    let text = match std::fs::read_to_string(RESOLV_CONF) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| SourceError::File(RESOLV_CONF.into(), error))?,
    };
    let named = named_servers(&text);
    Ok(if named.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { named })
}

/// The name servers of a resolv.conf. An address with a zone (`fe80::1%eth0`) is passed over.
fn named_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, PORT))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

fn options(each: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = each;
    options.attempts = RETRIES;
    options.edns0 = true;
    options
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Mx => RecordType::MX,
        Kind::Ptr => RecordType::PTR,
        Kind::Txt => RecordType::TXT,
    }
}

/// A name as the rest of posta has it.
fn text(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn data(data: &RData) -> Option<Data> {
    Some(match data {
        RData::A(a) => Data::A(a.0),
        RData::AAAA(a) => Data::Aaaa(a.0),
        RData::MX(mx) => Data::Mx(mx.preference, text(&mx.exchange)),
        RData::PTR(name) => Data::Ptr(text(&name.0)),
        RData::CNAME(name) => Data::Cname(text(&name.0)),
        RData::TXT(txt) => Data::Txt(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()),
        _ => return None,
    })
}

/// The library's error as one of ours, and how long a negative one holds.
fn failure(error: NetError) -> (LookupError, Option<Duration>) {
    match error {
        NetError::Timeout => (LookupError::TimedOut, None),
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let holds = none.negative_ttl.map(|seconds| Duration::from_secs(u64::from(seconds)));
            match none.response_code {
                ResponseCode::NXDomain => (LookupError::NoName, holds),
                ResponseCode::NoError => (LookupError::NoData, holds),
                code => (LookupError::Refused(code.to_str().into()), None),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => (LookupError::Refused(code.to_str().into()), None),
        // Its own words, "no connections available", say nothing to who reads them in a log or a notice.
        NetError::NoConnections => (LookupError::Trouble("no name server can be reached".into()), None),
        other => (LookupError::Trouble(other.to_string()), None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use trust_dns_resolver::proto::op::Message;
    use trust_dns_resolver::proto::rr::Record;
    use trust_dns_resolver::proto::rr::rdata::{A, CNAME, MX, SOA};

    use super::*;

    fn named(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn a_network_that_is_down_is_told_in_plain_words() {
        let (error, holds) = failure(NetError::NoConnections);
        assert_eq!((error.to_string().as_str(), holds), ("no name server can be reached", None));
    }

    /// A name server on loopback: how it answers, and a count of what it was asked.
    fn nameserver() -> (SocketAddr, Arc<AtomicUsize>) {
        let (socket, listener) = sockets();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&buffer[..length], false) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        thread::spawn(move || while serve_one(&listener).is_ok() {});
        (address, asked)
    }

    /// Of both kinds, on one port.
    fn sockets() -> (UdpSocket, TcpListener) {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                return (socket, listener);
            }
        }
    }

    /// RFC 1035 4.2.2: over TCP a message has its length before it.
    fn serve_one(listener: &TcpListener) -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut packet)?;
            let answer = answer(&packet, true).ok_or(io::ErrorKind::InvalidData)?;
            stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes())?;
            stream.write_all(&answer)?;
        }
        Ok(())
    }

    fn answer(packet: &[u8], has_room: bool) -> Option<Vec<u8>> {
        let asked = Message::from_vec(packet).ok()?;
        let query = asked.queries.first()?.clone();
        let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
        reply.add_query(query.clone());
        let name = query.name().to_ascii().to_ascii_lowercase();
        let mut put = |owner: &str, data| {
            reply.add_answer(Record::from_rdata(named(owner), 300, data));
        };
        match (name.as_str(), query.query_type()) {
            ("d.test.", RecordType::MX) => put("d.test.", RData::MX(MX::new(10, named("MX.d.test.")))),
            ("mx.d.test.", RecordType::A) => put("mx.d.test.", RData::A(A::new(127, 0, 0, 5))),
            ("alias.test.", _) => put("alias.test.", RData::CNAME(CNAME(named("d.test.")))),
            ("large.test.", RecordType::MX) if has_room => {
                (0..100).for_each(|n| put("large.test.", RData::MX(MX::new(n, named("mx.d.test.")))));
            }
            ("large.test.", RecordType::MX) => reply.metadata.truncation = true,
            ("broken.test.", _) => reply.metadata.response_code = ResponseCode::ServFail,
            _ => {
                let soa = SOA::new(named("ns.test."), named("host.test."), 1, 3600, 600, 86400, 60);
                reply.add_authority(Record::from_rdata(named("test."), 77, RData::SOA(soa)));
                if name.starts_with("no.") {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
            }
        }
        reply.to_vec().ok()
    }

    #[test]
    fn answers_of_a_name_server_are_told_apart_and_kept() {
        let (address, asked) = nameserver();
        let dns = Resolver::start(Some(address)).unwrap();
        let mx = vec![Data::Mx(10, "mx.d.test".into())];
        assert_eq!(dns.look_up("D.test.", Kind::Mx).unwrap().data, mx);
        assert_eq!(dns.look_up("mx.d.test", Kind::A).unwrap().ttl, Duration::from_secs(300));
        assert_eq!(dns.look_up("mx.d.test", Kind::Aaaa), Err(LookupError::NoData));
        assert_eq!(dns.look_up("no.test", Kind::Mx), Err(LookupError::NoName));
        assert_eq!(dns.look_up("alias.test", Kind::Mx).unwrap().data, mx, "the alias is asked for again");
        assert!(dns.look_up("broken.test", Kind::Mx).unwrap_err().is_temporary());
        let before = asked.load(Ordering::SeqCst);
        for name in ["d.test", "no.test", "alias.test", "broken.test"] {
            let _ = dns.look_up(name, Kind::Mx);
        }
        assert_eq!(asked.load(Ordering::SeqCst), before, "kept answers cost no question");
    }

    #[test]
    fn an_answer_that_is_cut_short_is_asked_for_again_over_tcp() {
        let (address, _) = nameserver();
        let dns = Resolver::start(Some(address)).unwrap();
        assert_eq!(dns.look_up("large.test", Kind::Mx).unwrap().data.len(), 100);
    }

    #[test]
    fn the_systems_name_servers_are_read() {
        let text =
            "# c\nsearch x\nnameserver 192.0.2.1\n nameserver\t::1 \nnameserver fe80::1%eth0\noptions a\n";
        assert_eq!(named_servers(text), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert!(named_servers("").is_empty());
    }

    #[test]
    fn a_port_without_a_name_server_is_trouble_not_absence() {
        let unused = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dns = Resolver::with(&[unused], Duration::from_millis(50)).unwrap();
        assert!(dns.look_up("d.test", Kind::Mx).unwrap_err().is_temporary());
    }
}
