//! What posta-smtpd and posta-auth say to each other over `run/auth`.
//!
//! One connection (SEQPACKET, see `unix/pass`) is one exchange: a packet of fields with the client's
//! choice, then a packet for each challenge and each response, at last an answer that ends it. The
//! client's words go along as they are, without base64.

use std::net::IpAddr;
use std::time::Duration;

use crate::courier::fields::{FieldError, Reader, Writer};

use super::mechanism::Binding;

/// The longest packet. RFC 4954 4: a line has at most 12,288 octets of base64.
pub const MAX_PACKET: usize = 16 * 1024;

/// From posta-smtpd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A client wants to log in.
    Begin(Begin),
    /// Its response to the last challenge.
    Response(Vec<u8>),
}

/// A client's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The mechanism, as the client wrote it.
    pub mechanism: String,
    /// The initial response; an empty one is not none.
    pub initial: Option<Vec<u8>>,
    /// The client's address; none for a Unix socket or a pipe.
    pub client: Option<IpAddr>,
    /// Nobody can listen: encrypted, or a way that the administrator trusts.
    pub secure: bool,
    /// What the connection can be bound to.
    pub bindings: Vec<(Binding, Vec<u8>)>,
}

/// From posta-auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To be said to the client.
    Challenge(Vec<u8>),
    /// The client is this user: its full name, `user@domain`, in lower case.
    Done(String),
    /// It is not.
    Refused {
        /// Why.
        why: Refusal,
        /// How long the client is kept waiting for the answer.
        wait: Duration,
    },
    /// Nobody can say now.
    Later,
}

/// Why a client is refused, as far as it may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such user, or not with that password: which of both is not told.
    Credentials,
    /// Its words were not those of the mechanism.
    Malformed,
    /// The mechanism is not known, or not offered.
    Mechanism,
    /// Too many wrong passwords of this client or for this user; nothing was checked.
    LockedOut,
}

impl Refusal {
    const WORDS: [(Refusal, &str); 4] = [
        (Refusal::Credentials, "credentials"),
        (Refusal::Malformed, "malformed"),
        (Refusal::Mechanism, "mechanism"),
        (Refusal::LockedOut, "locked-out"),
    ];

    fn word(self) -> &'static str {
        Refusal::WORDS.iter().find(|(refusal, _)| *refusal == self).map_or("", |(_, word)| word)
    }

    fn parse(text: &str) -> Option<Refusal> {
        Refusal::WORDS.iter().find(|(_, word)| *word == text).map(|(refusal, _)| *refusal)
    }
}

impl Request {
    /// The packet: `mechanism`, `initial`, `client`, `secure`, then `binding` and `data` for each binding;
    /// or `response`. An error if it grows beyond [`MAX_PACKET`].
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        match self {
            Request::Begin(begin) => {
                w.put("mechanism", &begin.mechanism);
                w.put_some("initial", begin.initial.as_ref());
                w.put_some("client", begin.client.map(|address| address.to_string()));
                w.put("secure", if begin.secure { "yes" } else { "no" });
                for (binding, data) in &begin.bindings {
                    w.put("binding", binding.name());
                    w.put("data", data);
                }
            }
            Request::Response(response) => w.put("response", response),
        }
        w.finish(MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Request, FieldError> {
        let mut r = Reader::new(packet);
        if let Some(response) = r.optional("response")? {
            return Ok(Request::Response(response.to_vec()));
        }
        let mechanism = r.text("mechanism")?.to_string();
        let initial = r.optional("initial")?.map(<[u8]>::to_vec);
        let client = r.optional_text("client")?.map(str::parse).transpose();
        let client = client.map_err(|_| FieldError::Value("client"))?;
        let secure = match r.text("secure")? {
            "yes" => true,
            "no" => false,
            _ => return Err(FieldError::Value("secure")),
        };
        let mut bindings = Vec::new();
        while let Some(name) = r.optional_text("binding")? {
            let binding = Binding::parse(name).ok_or(FieldError::Value("binding"))?;
            bindings.push((binding, r.bytes("data")?.to_vec()));
        }
        Ok(Request::Begin(Begin { mechanism, initial, client, secure, bindings }))
    }
}

impl Answer {
    /// The packet: `challenge`; `done`; `refused` and `wait` in milliseconds; or `later`. An error if it
    /// grows beyond [`MAX_PACKET`].
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut w = Writer::default();
        match self {
            Answer::Challenge(challenge) => w.put("challenge", challenge),
            Answer::Done(login) => w.put("done", login),
            Answer::Refused { why, wait } => {
                w.put("refused", why.word());
                w.put_text("wait", wait.as_millis());
            }
            Answer::Later => w.put("later", ""),
        }
        w.finish(MAX_PACKET)
    }

    /// Reads a packet.
    pub fn decode(packet: &[u8]) -> Result<Answer, FieldError> {
        let mut r = Reader::new(packet);
        if let Some(challenge) = r.optional("challenge")? {
            return Ok(Answer::Challenge(challenge.to_vec()));
        }
        if let Some(login) = r.optional_text("done")? {
            return if login.is_empty() {
                Err(FieldError::Value("done"))
            } else {
                Ok(Answer::Done(login.to_string()))
            };
        }
        if let Some(why) = r.optional_text("refused")? {
            let why = Refusal::parse(why).ok_or(FieldError::Value("refused"))?;
            return Ok(Answer::Refused { why, wait: Duration::from_millis(r.value("wait")?) });
        }
        r.bytes("later").map(|_| Answer::Later)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begin() -> Begin {
        Begin {
            mechanism: "SCRAM-SHA-256-PLUS".into(),
            initial: Some(vec![]),
            client: Some("2001:db8::1".parse().unwrap()),
            secure: true,
            bindings: vec![
                (Binding::Exporter, vec![0, 10, 255]),
                (Binding::ServerEndPoint, b"binding 3:x\n".to_vec()),
            ],
        }
    }

    #[test]
    fn requests_read_back() {
        let bare = Begin { initial: None, client: None, secure: false, bindings: vec![], ..begin() };
        for request in
            [Request::Begin(begin()), Request::Begin(bare), Request::Response(b"\0alice\0x\n".to_vec())]
        {
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        assert!(Request::Response(vec![0; MAX_PACKET]).encode().is_err());
    }

    #[test]
    fn answers_read_back() {
        let wait = Duration::from_millis(1500);
        let mut answers =
            vec![Answer::Challenge(vec![]), Answer::Done("alice@example.org".into()), Answer::Later];
        answers.extend(Refusal::WORDS.map(|(why, _)| Answer::Refused { why, wait }));
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }
        for bad in
            [&b""[..], b"done 0:\n", b"refused 1:x\nwait 1:0\n", b"refused 11:credentials\n", b"x 1:y\n"]
        {
            assert!(Answer::decode(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(packet in "((mechanism|client|secure|binding|data|done|wait) [0-9]{1,2}:.{0,6}\n){0,4}") {
            let _ = (Request::decode(packet.as_bytes()), Answer::decode(packet.as_bytes()));
        }
    }
}
