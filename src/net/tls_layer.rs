//! TLS on a carrier, as server or client, once the handshake is done: reading and writing, what was
//! agreed on, and the goodbye.

use std::io::{self, Read, Write};
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{ErrorCode, NameType, ShutdownState, Ssl, SslRef, SslStream};
use openssl::x509::{X509Ref, X509VerifyResult};
use thiserror::Error;

use super::carrier::Carrier;

/// Why a connection has not come to TLS.
#[derive(Debug, Error)]
pub enum TlsFault {
    /// It is on already.
    #[error("TLS is on already")]
    Twice,
    /// The library can't even begin.
    #[error("TLS can't begin: {0}")]
    Library(#[from] ErrorStack),
    /// The deadline has come.
    #[error("the TLS handshake has not ended in time")]
    Late,
    /// The peer has closed the connection.
    #[error("the peer has gone in the middle of the TLS handshake")]
    Gone,
    /// The two don't agree, or what came is no TLS.
    #[error("the TLS handshake has failed: {0}")]
    Disagreed(String),
    /// The peer's certificate is not what the policy wants.
    #[error("the certificate is not trusted: {0}")]
    Untrusted(String),
}

/// What was agreed on in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    /// As `TLSv1.3`.
    pub version: String,
    /// OpenSSL's name of the cipher suite, as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The length of the cipher's key.
    pub bits: u32,
    /// The server's name that the client asked for (SNI, RFC 6066 3).
    pub name: Option<String>,
    /// The protocol that was agreed on (ALPN, RFC 7301).
    pub alpn: Option<String>,
    /// On the server's side: SHA-256 of the client's certificate in lower-case hexadecimal, if it has
    /// shown one that an authority of `tls.client_ca` has signed.
    pub fingerprint: Option<String>,
}

/// What names a TLS connection, so that a login can be bound to it (RFC 5056).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// tls-exporter, RFC 9266
    Exporter,
    /// tls-server-end-point, RFC 5929 4
    ServerEndPoint,
}

/// A carrier whose end of time is `WouldBlock`: OpenSSL takes that for a pause, after which it can
/// go on, and every other error for the end.
#[derive(Debug)]
pub(super) struct Pausing(Carrier);

fn pause(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::TimedOut { io::ErrorKind::WouldBlock.into() } else { error }
}

fn end_of_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Pausing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(pause)
    }
}

impl Write for Pausing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(pause)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TLS, established or, on the server's side, about to be.
#[derive(Debug)]
pub(super) struct Layer {
    stream: SslStream<Pausing>,
    /// None before the end of the handshake.
    security: Option<Security>,
}

impl Layer {
    /// Before the server's handshake.
    pub fn begin(ssl: Ssl, carrier: Carrier) -> Result<Layer, TlsFault> {
        Ok(Layer { stream: SslStream::new(ssl, Pausing(carrier))?, security: None })
    }

    /// Goes on with the server's handshake. `false`: the client's next piece has not come by the
    /// carrier's deadline, which is before `latest`. Ours is written by then in any case.
    pub fn accept(&mut self, latest: Instant) -> Result<bool, TlsFault> {
        if self.security.is_some() {
            return Err(TlsFault::Twice);
        }
        while let Err(error) = self.stream.accept() {
            match error.code() {
                ErrorCode::WANT_READ if Instant::now() < latest => return Ok(false),
                ErrorCode::WANT_WRITE if Instant::now() < latest => {
                    self.carrier_mut().set_deadline(Some(latest));
                }
                _ => return Err(fault(error, self.stream.ssl())),
            }
        }
        self.security = Some(security(self.stream.ssl()));
        Ok(true)
    }

    /// The client's handshake.
    pub fn connect(ssl: Ssl, carrier: Carrier) -> Result<Layer, TlsFault> {
        let mut stream = SslStream::new(ssl, Pausing(carrier))?;
        stream.connect().map_err(|error| fault(error, stream.ssl()))?;
        Ok(Layer::established(stream))
    }

    fn established(stream: SslStream<Pausing>) -> Layer {
        let security = Some(security(stream.ssl()));
        Layer { stream, security }
    }

    /// What was agreed on, at the end of the handshake.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_ref()
    }

    /// The session as the library has it.
    pub fn ssl(&self) -> &SslRef {
        self.stream.ssl()
    }

    pub fn carrier(&self) -> &Carrier {
        &self.stream.get_ref().0
    }

    pub fn carrier_mut(&mut self) -> &mut Carrier {
        &mut self.stream.get_mut().0
    }

    /// Whether decrypted octets wait to be read. Others can't lie in here unseen: the library reads no
    /// further than to the end of the record that it needs.
    pub fn has_buffered(&self) -> bool {
        self.stream.ssl().pending() > 0
    }

    /// Sends close_notify, by the deadline; the peer's own is not waited for (RFC 8446 6.1).
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        if self.security.is_none() || self.stream.get_shutdown().contains(ShutdownState::SENT) {
            return Ok(());
        }
        let said = self.stream.shutdown().map(drop);
        said.map_err(|error| end_of_time(error.into_io_error().unwrap_or_else(io::Error::other)))
    }

    /// See [`Stream::binding`](super::stream::Stream::binding).
    pub fn binding(&self, kind: Binding) -> Option<Vec<u8>> {
        let ssl = self.stream.ssl();
        match kind {
            Binding::Exporter => exporter(ssl),
            Binding::ServerEndPoint if ssl.is_server() => server_end_point(ssl.certificate()?),
            Binding::ServerEndPoint => server_end_point(&*ssl.peer_certificate()?),
        }
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).map_err(end_of_time)
    }
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).map_err(end_of_time)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn security(ssl: &SslRef) -> Security {
    let cipher = ssl.current_cipher();
    Security {
        version: ssl.version_str().to_string(),
        cipher: cipher.map_or("none", |cipher| cipher.name()).to_string(),
        bits: cipher.map_or(0, |cipher| cipher.bits().secret.unsigned_abs()),
        name: ssl.servername(NameType::HOST_NAME).map(str::to_string),
        alpn: ssl.selected_alpn_protocol().map(|name| name.escape_ascii().to_string()),
        fingerprint: if ssl.is_server() { fingerprint(ssl) } else { None },
    }
}

/// Of the peer's certificate, if it was verified: a session without one is "ok" too.
fn fingerprint(ssl: &SslRef) -> Option<String> {
    let certificate = ssl.peer_certificate()?;
    if ssl.verify_result() != X509VerifyResult::OK {
        return None;
    }
    let digest = certificate.digest(MessageDigest::sha256()).ok()?;
    Some(digest.iter().map(|octet| format!("{octet:02x}")).collect())
}

/// RFC 9266 2 and 4.2: 32 octets under a fixed label; before TLS 1.3 only where the master secret
/// can't be the same in two connections (RFC 7627).
fn exporter(ssl: &SslRef) -> Option<Vec<u8>> {
    if ssl.version_str() != "TLSv1.3" && ssl.extms_support() != Some(true) {
        return None;
    }
    let mut out = vec![0; 32];
    ssl.export_keying_material(&mut out, "EXPORTER-Channel-Binding", Some(&[])).ok()?;
    Some(out)
}

/// RFC 5929 4.1: the certificate's digest, by the hash of its signature, where MD5 and SHA-1 count as
/// SHA-256. Not defined where the signature has none of its own (Ed25519).
fn server_end_point(certificate: &X509Ref) -> Option<Vec<u8>> {
    let algorithms = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithms.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    Some(certificate.digest(digest).ok()?.to_vec())
}

fn fault(error: openssl::ssl::Error, ssl: &SslRef) -> TlsFault {
    match error.code() {
        ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => return TlsFault::Late,
        ErrorCode::ZERO_RETURN => return TlsFault::Gone,
        _ => {}
    }
    if !ssl.is_server() && ssl.verify_result() != X509VerifyResult::OK && is_about_the_certificate(&error) {
        return TlsFault::Untrusted(ssl.verify_result().error_string().to_string());
    }
    match (error.ssl_error(), error.io_error()) {
        (Some(stack), _) => TlsFault::Disagreed(reasons(stack)),
        (None, None) => TlsFault::Gone,
        (None, Some(error)) if error.kind() == io::ErrorKind::ConnectionReset => TlsFault::Gone,
        (None, Some(error)) => TlsFault::Disagreed(error.to_string()),
    }
}

fn is_about_the_certificate(error: &openssl::ssl::Error) -> bool {
    let says_so = |stack: &ErrorStack| {
        stack.errors().iter().any(|error| error.reason() == Some("certificate verify failed"))
    };
    error.ssl_error().is_some_and(says_so)
}

/// What the library says, without its own file names and numbers.
fn reasons(stack: &ErrorStack) -> String {
    let reasons: Vec<&str> = stack.errors().iter().filter_map(|error| error.reason()).collect();
    if reasons.is_empty() { "no reason given".to_string() } else { reasons.join(", ") }
}
