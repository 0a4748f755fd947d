//! One job: a message, and those of its recipients that one hand can serve together.

use std::net::IpAddr;

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::{BodyKind, Notify, Ret};
use crate::mail::id::Id;
use crate::mail::limit::Limit;

use super::fields::{FieldError, Reader, Writer};
use super::terms::Terms;

/// Most recipients of one request.
pub const MAX_RECIPIENTS: usize = 100;

/// What posta-queue asks of a hand. The open queue file goes along: bytes 0 to `size` are the
/// message; the hand reads them with pread only, the descriptor is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names the job in its answer.
    pub job: u64,
    /// The message's queue id.
    pub id: Id,
    /// Envelope sender.
    pub sender: ReversePath,
    /// RET, to be passed on.
    pub ret: Option<Ret>,
    /// ENVID in xtext, to be passed on.
    pub envid: Option<String>,
    /// What was said of the body.
    pub body: BodyKind,
    /// The message needs SMTPUTF8.
    pub utf8: bool,
    /// The message may only go over TLS.
    pub require_tls: bool,
    /// When it was accepted: microseconds since 1970.
    pub arrived: u64,
    /// Header fields to put on top, each ended by CRLF.
    pub trace: Vec<u8>,
    /// Length of the message in the file, from byte 0.
    pub size: u64,
    /// The message has recipients beside those of this request: a user must not see its envelope.
    pub others: bool,
    /// Where it goes.
    pub target: Target,
    /// posta-remote only: what a row of a table says of the way there.
    pub terms: Terms,
    /// For whom; at least one, at most [`MAX_RECIPIENTS`].
    pub recipients: Vec<Rcpt>,
}

/// A recipient of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// Its number within the message; the answer names it.
    pub n: u32,
    /// The final address, after aliases.
    pub address: Mailbox,
    /// The address that was accepted, before aliases; commands are told of it.
    pub original: Mailbox,
    /// NOTIFY, to be passed on.
    pub notify: Notify,
    /// ORCPT, to be passed on.
    pub orcpt: Option<String>,
    /// posta-local only: where its copy is put.
    pub place: Option<Place>,
    /// posta-local only: what a Maildir there may hold, where it is not as for all.
    pub limit: Option<Limit>,
}

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// To posta-local: mailboxes of this host, all written with the rights of one owner.
    Local(Owner),
    /// To posta-remote: by SMTP to the mail exchangers of a domain.
    Mx(String),
    /// To posta-remote: by SMTP to this host, without MX.
    Smtp(Hop),
    /// To posta-remote: by LMTP to this host or Unix socket.
    Lmtp(Hop),
}

/// A next hop that the administrator named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    /// A host name, and a port.
    Host(String, u16),
    /// An address, and a port.
    Address(IpAddr, u16),
    /// A Unix socket (LMTP).
    Unix(String),
}

/// With whose rights a mailbox is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// An account of this host, by name. Its home is `~` in paths.
    Account(String),
    /// A user and group id, from a users file, and the home given there.
    Ids(u32, u32, String),
}

/// Where a recipient's copy is put.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A Maildir; `~/` stands for the owner's home.
    Maildir(String),
    /// An mbox file.
    Mbox(String),
    /// A command, run by `/bin/sh -c` as the owner.
    Command(String),
    /// What the owner's `.forward` says; where there is none, the place within.
    Home(Box<Place>),
}

/// One final destination of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// The final address.
    pub address: Mailbox,
    /// Which hand it goes to, and where.
    pub target: Target,
    /// posta-local only: where the copy is put.
    pub place: Option<Place>,
    /// The sender that this copy goes out with and is returned to, if it isn't the message's own: a
    /// list's owner, a forwarder.
    pub sender: Option<Mailbox>,
    /// It is a copy of a mailing list, which has an owner: what the poster wants to be told of is no
    /// business of the list's members (RFC 3461 5.2.7.1).
    pub of_list: bool,
}

impl Request {
    /// The packet; an error if it grows beyond 64 KiB (the caller then asks with fewer recipients).
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        w.put_text("job", self.job);
        w.put("id", self.id.as_str());
        w.put_text("sender", &self.sender);
        w.put_some("ret", self.ret.map(|r| if r == Ret::Full { "FULL" } else { "HDRS" }));
        w.put_some("envid", self.envid.as_ref());
        w.put("body", body_word(self.body));
        w.put_text(
            "flags",
            format_args!("{}{}{}", flag('u', self.utf8), flag('t', self.require_tls), flag('o', self.others)),
        );
        w.put_text("arrived", self.arrived);
        w.put("trace", &self.trace);
        w.put_text("size", self.size);
        self.target.encode(&mut w);
        self.terms.encode(&mut w);
        for recipient in &self.recipients {
            recipient.encode(&mut w);
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Request, FieldError> {
        let mut r = Reader::new(packet);
        let job = r.value("job")?;
        let id = Id::parse(r.text("id")?).ok_or(FieldError::Value("id"))?;
        let sender = ReversePath::parse(r.text("sender")?, true).map_err(|_| FieldError::Value("sender"))?;
        let ret = match r.optional_text("ret")? {
            None => None,
            Some("FULL") => Some(Ret::Full),
            Some("HDRS") => Some(Ret::Headers),
            Some(_) => return Err(FieldError::Value("ret")),
        };
        let envid = r.optional_text("envid")?.map(str::to_string);
        let body = body_kind(r.text("body")?).ok_or(FieldError::Value("body"))?;
        let flags = r.text("flags")?;
        let (utf8, require_tls, others) = (flags.contains('u'), flags.contains('t'), flags.contains('o'));
        let arrived = r.value("arrived")?;
        let trace = r.bytes("trace")?.to_vec();
        let size = r.value("size")?;
        let target = Target::decode(&mut r)?;
        let terms = Terms::decode(&mut r)?;
        let mut recipients = Vec::new();
        while !r.is_done() {
            recipients.push(Rcpt::decode(&mut r)?);
        }
        if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
            return Err(FieldError::Value("n"));
        }
        let request = Request {
            job,
            id,
            sender,
            ret,
            envid,
            body,
            utf8,
            require_tls,
            arrived,
            trace,
            size,
            others,
            target,
            terms,
            recipients,
        };
        Ok(request)
    }
}

impl Rcpt {
    fn encode(&self, w: &mut Writer) {
        w.put_text("n", self.n);
        w.put_text("to", &self.address);
        if self.original != self.address {
            w.put_text("first", &self.original);
        }
        w.put_some("notify", self.notify.keyword());
        w.put_some("orcpt", self.orcpt.as_ref());
        w.put_some("limit", self.limit.map(|limit| limit.to_string()));
        if let Some(place) = &self.place {
            place.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Rcpt, FieldError> {
        let n = r.value("n")?;
        let address = Mailbox::parse(r.text("to")?, true).map_err(|_| FieldError::Value("to"))?;
        let original = match r.optional_text("first")? {
            Some(text) => Mailbox::parse(text, true).map_err(|_| FieldError::Value("first"))?,
            None => address.clone(),
        };
        let notify = match r.optional_text("notify")? {
            Some(text) => Notify::parse(text).ok_or(FieldError::Value("notify"))?,
            None => Notify::default(),
        };
        let orcpt = r.optional_text("orcpt")?.map(str::to_string);
        let limit = match r.optional_text("limit")? {
            Some(text) => Some(Limit::parse(text).ok_or(FieldError::Value("limit"))?),
            None => None,
        };
        Ok(Rcpt { n, address, original, notify, orcpt, place: Place::decode(r)?, limit })
    }
}

impl Leaf {
    /// Its fields, for a journal.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        w.put_text("to", &self.address);
        w.put_some("from", self.sender.as_ref().map(ToString::to_string));
        w.put_some("list", self.of_list.then_some(""));
        self.target.encode(&mut w);
        if let Some(place) = &self.place {
            place.encode(&mut w);
        }
        w.finish(crate::unix::pass::MAX_PACKET)
    }

    /// Reads those fields.
    pub fn decode(bytes: &[u8]) -> Result<Leaf, FieldError> {
        let mut r = Reader::new(bytes);
        let address = Mailbox::parse(r.text("to")?, true).map_err(|_| FieldError::Value("to"))?;
        let sender = match r.optional_text("from")? {
            Some(text) => Some(Mailbox::parse(text, true).map_err(|_| FieldError::Value("from"))?),
            None => None,
        };
        let of_list = r.optional("list")?.is_some();
        let (target, place) = (Target::decode(&mut r)?, Place::decode(&mut r)?);
        let leaf = Leaf { address, target, place, sender, of_list };
        if r.is_done() { Ok(leaf) } else { Err(FieldError::Value("to")) }
    }
}

impl Place {
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Place::Maildir(path) => w.put("maildir", path),
            Place::Mbox(path) => w.put("mbox", path),
            Place::Command(command) => w.put("command", command),
            Place::Home(within) => {
                w.put("home", "");
                within.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Option<Place>, FieldError> {
        if r.optional("home")?.is_some() {
            let within = Place::decode_plain(r)?.ok_or(FieldError::Missing("maildir"))?;
            return Ok(Some(Place::Home(Box::new(within))));
        }
        Place::decode_plain(r)
    }

    pub(super) fn decode_plain(r: &mut Reader<'_>) -> Result<Option<Place>, FieldError> {
        if let Some(path) = r.optional_text("maildir")? {
            return Ok(Some(Place::Maildir(path.to_string())));
        }
        if let Some(path) = r.optional_text("mbox")? {
            return Ok(Some(Place::Mbox(path.to_string())));
        }
        Ok(r.optional_text("command")?.map(|c| Place::Command(c.to_string())))
    }
}

impl Target {
    fn encode(&self, w: &mut Writer) {
        match self {
            Target::Local(Owner::Account(name)) => w.put("account", name),
            Target::Local(Owner::Ids(uid, gid, home)) => {
                w.put_text("uid", uid);
                w.put_text("gid", gid);
                w.put("home", home);
            }
            Target::Mx(domain) => w.put("mx", domain),
            Target::Smtp(hop) => w.put_text("smtp", hop),
            Target::Lmtp(hop) => w.put_text("lmtp", hop),
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Target, FieldError> {
        if let Some(name) = r.optional_text("account")? {
            return Ok(Target::Local(Owner::Account(name.to_string())));
        }
        if let Some(domain) = r.optional_text("mx")? {
            return Ok(Target::Mx(domain.to_string()));
        }
        if let Some(hop) = r.optional_text("smtp")? {
            return Hop::parse(hop, 25).map(Target::Smtp).ok_or(FieldError::Value("smtp"));
        }
        if let Some(hop) = r.optional_text("lmtp")? {
            return Hop::parse(hop, 24).map(Target::Lmtp).ok_or(FieldError::Value("lmtp"));
        }
        let (uid, gid) = (r.value("uid")?, r.value("gid")?);
        Ok(Target::Local(Owner::Ids(uid, gid, r.text("home")?.to_string())))
    }
}

impl Hop {
    /// Reads `host:port`, `host`, `192.0.2.1:25`, `[2001:db8::1]:25` or `unix:/path`.
    pub fn parse(text: &str, default_port: u16) -> Option<Hop> {
        // A host may be called "unix".
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Some(Hop::Unix(path.to_string()));
        }
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Some(Hop::Address(address.ip(), address.port()));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Hop::Address(address, default_port));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|p| *p != 0)?),
            None => (text, default_port),
        };
        let host = crate::mail::address::parse_domain(host).ok().filter(|h| !h.starts_with('['))?;
        // The dot at the end of a name is gone now; what is left may be an address.
        Some(host.parse().map_or(Hop::Host(host, port), |address| Hop::Address(address, port)))
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hop::Host(host, port) => write!(f, "{host}:{port}"),
            Hop::Address(address, port) => write!(f, "{}", std::net::SocketAddr::new(*address, *port)),
            Hop::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

fn flag(letter: char, on: bool) -> String {
    if on { letter.to_string() } else { String::new() }
}

fn body_word(body: BodyKind) -> &'static str {
    match body {
        BodyKind::SevenBit => "7BIT",
        BodyKind::EightBitMime => "8BITMIME",
        BodyKind::BinaryMime => "BINARYMIME",
    }
}

fn body_kind(word: &str) -> Option<BodyKind> {
    [BodyKind::SevenBit, BodyKind::EightBitMime, BodyKind::BinaryMime]
        .into_iter()
        .find(|b| body_word(*b) == word)
}

#[cfg(test)]
mod tests {
    use super::super::terms::{RelayTls, SourceAddresses};
    use super::*;

    fn sample(target: Target, place: Option<Place>) -> Request {
        let address = Mailbox::parse("alice@example.org", false).unwrap();
        let first = Rcpt {
            n: 3,
            address: address.clone(),
            original: Mailbox::parse("\"all of us\"@example.org", false).unwrap(),
            notify: Notify::parse("NEVER").unwrap(),
            orcpt: Some("rfc822;a+20b@c".into()),
            place: place.clone(),
            limit: Some(Limit { bytes: 500, messages: 0 }),
        };
        let second = Rcpt {
            n: 4,
            original: address.clone(),
            address,
            notify: Notify::default(),
            orcpt: None,
            place,
            limit: None,
        };
        Request {
            job: 7,
            id: Id::parse("0123456789ABCDE").unwrap(),
            sender: ReversePath::Null,
            ret: Some(Ret::Headers),
            envid: Some("x+20y".into()),
            body: BodyKind::EightBitMime,
            utf8: true,
            require_tls: false,
            arrived: 1_795_550_000_000_000,
            trace: b"Received: from x\r\n\tby y\r\n".to_vec(),
            size: 4096,
            others: true,
            target,
            terms: Terms::default(),
            recipients: vec![first, second],
        }
    }

    #[test]
    fn every_kind_of_request_reads_back() {
        let maildir = || Some(Place::Maildir("~/Maildir/".into()));
        let cases = [
            sample(Target::Local(Owner::Account("alice".into())), maildir()),
            sample(
                Target::Local(Owner::Account("alice".into())),
                maildir().map(|p| Place::Home(Box::new(p))),
            ),
            sample(
                Target::Local(Owner::Ids(1000, 100, "/home/a".into())),
                Some(Place::Mbox("/var/mail/a".into())),
            ),
            sample(Target::Local(Owner::Account("bob".into())), Some(Place::Command("cat >> log".into()))),
            sample(Target::Mx("example.net".into()), None),
            sample(Target::Smtp(Hop::parse("[2001:db8::1]:26", 25).unwrap()), None),
            sample(Target::Lmtp(Hop::parse("unix:/run/lmtp", 24).unwrap()), None),
        ];
        let mut on_terms = sample(Target::Smtp(Hop::parse("relay.example:587", 25).unwrap()), None);
        on_terms.terms = Terms {
            tls: Some(RelayTls::Verify),
            login: Some("/etc/posta/logins/a".into()),
            source: SourceAddresses { four: "192.0.2.7".parse().ok(), six: "2001:db8::7".parse().ok() },
        };
        for request in cases.into_iter().chain([on_terms]) {
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
    }

    #[test]
    fn a_leaf_reads_back() {
        let address = Mailbox::parse("alice@example.org", false).unwrap();
        let place = Some(Place::Home(Box::new(Place::Mbox("/var/mail/a".into()))));
        let owner = Owner::Ids(1000, 100, "/home/a".into());
        for leaf in [
            Leaf {
                address: address.clone(),
                target: Target::Local(owner),
                place,
                sender: None,
                of_list: false,
            },
            Leaf {
                sender: Some(address.clone()),
                address,
                target: Target::Mx("example.net".into()),
                place: None,
                of_list: true,
            },
        ] {
            assert_eq!(Leaf::decode(&leaf.encode().unwrap()), Ok(leaf));
        }
        assert!(Leaf::decode(b"to 3:a@b\n").is_err());
    }

    #[test]
    fn hops_are_read() {
        assert_eq!(Hop::parse("mx.example:26", 25), Some(Hop::Host("mx.example".into(), 26)));
        assert_eq!(Hop::parse("mx.example", 25), Some(Hop::Host("mx.example".into(), 25)));
        assert_eq!(Hop::parse("127.0.0.1", 25), Some(Hop::Address("127.0.0.1".parse().unwrap(), 25)));
        for bad in ["", "mx.example:", "mx.example:0", "mx.example:99999", "unix:x", "a b:25"] {
            assert_eq!(Hop::parse(bad, 25), None, "{bad}");
        }
    }

    #[test]
    fn a_request_too_long_for_a_packet_is_an_error() {
        let mut request = sample(Target::Mx("x".into()), None);
        request.trace = vec![b'x'; crate::unix::pass::MAX_PACKET];
        assert!(matches!(request.encode(), Err(FieldError::TooLong(_))));
    }
}
