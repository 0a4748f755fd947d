//! The client's side of TLS: how sure we want to be of a server, and how sure we are.
//!
//! Two contexts: a lax one for servers whose mail would else go in the clear, so that any key and
//! any certificate is better than none (RFC 7435), and a strict one for where TLS is a must.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslConnector, SslConnectorBuilder, SslMethod, SslOptions, SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509VerifyResult};
use thiserror::Error;

use crate::unix::tls_sessions::Sessions;

use super::carrier::Carrier;
use super::tls_layer::Layer;
pub use super::tls_layer::TlsFault;

/// What is asked of a server. DANE (RFC 7672) and MTA-STS (RFC 8461) will be further ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// Whatever it has: any certificate, or none.
    Anything,
    /// Strong encryption, with any certificate.
    Encryption,
    /// A certificate for its name, from an authority that we trust.
    Certificate,
}

/// How sure we are of who is at the other end. The words are those of Postfix's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assurance {
    /// It has shown no certificate.
    Anonymous,
    /// It has shown one that nobody we know has signed.
    Untrusted,
    /// It has shown a good one, for another name.
    Trusted,
    /// It has shown a good one for its name.
    Verified,
}

impl Assurance {
    /// As the log has it.
    pub fn word(self) -> &'static str {
        match self {
            Assurance::Anonymous => "Anonymous",
            Assurance::Untrusted => "Untrusted",
            Assurance::Trusted => "Trusted",
            Assurance::Verified => "Verified",
        }
    }
}

/// Makes TLS connections, and remembers sessions with the servers it knows.
#[derive(Debug)]
pub struct Connector {
    lax: Sessions,
    strict: Sessions,
}

/// Why the authorities can't be trusted.
#[derive(Debug, Error)]
pub enum AuthoritiesFault {
    /// The file can't be read.
    #[error("{path}: can't be read: {source}; set remote.ca_file to where it is, and make it readable")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate in it.
    #[error("{0}: no certificate in PEM form in it; it begins with \"-----BEGIN CERTIFICATE\"")]
    Empty(PathBuf),
    /// The library can't.
    #[error("TLS for sending: {0}")]
    Library(#[from] ErrorStack),
}

impl Connector {
    /// Trusts the authorities in the PEM file `authorities`; `None`: those that the system trusts.
    pub fn new(authorities: Option<&Path>) -> Result<Connector, AuthoritiesFault> {
        let mut lax = builder(authorities)?;
        // The library's level 0 lets in short keys, SHA-1, and ciphers without a certificate; these
        // last, as a server that can do better should.
        lax.set_cipher_list("ALL:+aNULL:!eNULL:!PSK:!SRP:!MD5:!RC4:!3DES:!IDEA:!SEED:@SECLEVEL=0")?;
        Ok(Connector { lax: Sessions::new(lax)?, strict: Sessions::new(builder(authorities)?)? })
    }

    /// The client's handshake with `host`, a name or an address, by the carrier's deadline.
    pub(super) fn connect(
        &self,
        host: &str,
        demand: Demand,
        carrier: Carrier,
    ) -> Result<(Layer, Assurance), TlsFault> {
        let host = host.trim_end_matches('.');
        let address = carrier.peer_address().map(|peer| peer.to_string()).unwrap_or_default();
        let peer = format!("{demand:?} {host} {address}");
        let mut ssl = match demand {
            Demand::Anything => self.lax.begin(&peer)?,
            Demand::Encryption | Demand::Certificate => self.strict.begin(&peer)?,
        };
        // Whatever is demanded, the library looks, and says what it thinks of the certificate.
        let verify = demand == Demand::Certificate;
        ssl.set_verify(if verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        expect(&mut ssl, host)?;
        let layer = Layer::connect(ssl, carrier)?;
        let assurance = assurance(&layer);
        if verify && assurance != Assurance::Verified {
            return Err(TlsFault::Untrusted(format!("it is {}", assurance.word().to_ascii_lowercase())));
        }
        Ok((layer, assurance))
    }
}

fn builder(authorities: Option<&Path>) -> Result<SslConnectorBuilder, AuthoritiesFault> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::IGNORE_UNEXPECTED_EOF);
    if let Some(path) = authorities {
        let unreadable = |source| AuthoritiesFault::Unreadable { path: path.to_path_buf(), source };
        let trusted = X509::stack_from_pem(&std::fs::read(path).map_err(unreadable)?)?;
        if trusted.is_empty() {
            return Err(AuthoritiesFault::Empty(path.to_path_buf()));
        }
        let mut store = X509StoreBuilder::new()?;
        for authority in trusted {
            store.add_cert(authority)?;
        }
        builder.set_cert_store(store.build());
    }
    Ok(builder)
}

/// The name, or the address, that the certificate should have, and that the server is told (SNI).
fn expect(ssl: &mut Ssl, host: &str) -> Result<(), ErrorStack> {
    let parameters = ssl.param_mut();
    // RFC 9525 6.3: a star is a whole label.
    parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match host.parse::<IpAddr>() {
        Ok(address) => parameters.set_ip(address),
        Err(_) => {
            parameters.set_host(host)?;
            ssl.set_hostname(host)
        }
    }
}

fn assurance(layer: &Layer) -> Assurance {
    let ssl = layer.ssl();
    if ssl.peer_certificate().is_none() {
        return Assurance::Anonymous;
    }
    match ssl.verify_result() {
        X509VerifyResult::OK => Assurance::Verified,
        other if MISMATCHES.contains(&other.as_raw()) => Assurance::Trusted,
        _ => Assurance::Untrusted,
    }
}

/// X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH: all is well but for the name.
const MISMATCHES: [i32; 2] = [62, 64];

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::{Duration, Instant};

    use crate::net::certificates::{Made, authority, certificate, ec_key};
    use crate::net::stream::{Binding, Stream};
    use crate::net::tls_server::{Certificates, TlsFiles};

    use super::*;

    fn in_a_minute() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(60))
    }

    /// A server for some sessions, each of them one line there and back.
    fn serve(made: &Made, sessions: usize) -> SocketAddr {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.pem");
        std::fs::write(&path, [made.certificate_pem(), made.key_pem()].concat()).unwrap();
        let files = TlsFiles { certificate: path, key: None, client_ca: None, hostname: "mx.example".into() };
        let certificates = Certificates::load(&files).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..sessions {
                let mut stream = Stream::tcp(listener.accept().unwrap().0).unwrap();
                stream.set_deadline(in_a_minute());
                if stream.secure(&certificates, Instant::now() + Duration::from_secs(60)).is_err() {
                    continue;
                }
                let mut line = [0; 4];
                if stream.read_exact(&mut line).is_ok() {
                    stream.write_all(&line).unwrap();
                    // The client goes first.
                    let _ = stream.read(&mut line);
                }
            }
        });
        address
    }

    type Met = Result<(Stream, Assurance), TlsFault>;

    fn meet(connector: &Connector, host: &str, demand: Demand, address: SocketAddr) -> Met {
        let mut stream = Stream::connect(address, None, Duration::from_secs(60)).unwrap();
        stream.set_deadline(in_a_minute());
        let assurance = stream.secure_to(host, connector, demand)?;
        stream.write_all(b"NOOP").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        Ok((stream, assurance))
    }

    /// A connector that trusts that authority and no other.
    fn trusting(authority: &Made) -> Connector {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, authority.certificate_pem()).unwrap();
        Connector::new(Some(&path)).unwrap()
    }

    #[test]
    fn what_is_demanded_is_what_is_taken() {
        use {Assurance::*, Demand::*};
        let (ours, theirs) = (authority("ca.example"), authority("ca.example"));
        let connector = trusting(&ours);
        let names = ["mx.example", "*.wild.example"];
        let good = serve(&certificate(Some(&ours), &names, ec_key(), 30), 15);
        let bad = serve(&certificate(Some(&theirs), &names, ec_key(), 30), 15);
        let own = serve(&certificate(None, &names, ec_key(), 30), 15);
        let old = serve(&certificate(Some(&ours), &names, ec_key(), -1), 15);
        for (address, host, expected) in [
            (good, "mx.example", Verified),
            (good, "MX.example.", Verified),
            (good, "a.wild.example", Verified),
            (good, "b.a.wild.example", Trusted),
            (good, "127.0.0.1", Trusted),
            (bad, "mx.example", Untrusted),
            (own, "mx.example", Untrusted),
            (old, "mx.example", Untrusted),
        ] {
            for demand in [Anything, Encryption] {
                let (stream, assurance) = meet(&connector, host, demand, address).unwrap();
                assert_eq!(assurance, expected, "{host} {demand:?}");
                let security = stream.security().unwrap();
                assert_eq!((security.version.as_str(), &security.fingerprint), ("TLSv1.3", &None));
                assert!(stream.binding(Binding::ServerEndPoint).is_some());
            }
            match meet(&connector, host, Certificate, address) {
                Ok((_, assurance)) => assert_eq!((assurance, expected), (Verified, Verified)),
                Err(TlsFault::Untrusted(why)) => assert!(expected != Verified && !why.is_empty(), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn the_system_s_authorities_have_not_signed_this() {
        let connector = Connector::new(None).unwrap();
        let address = serve(&certificate(None, &["mx.example"], ec_key(), 30), 2);
        assert!(matches!(
            meet(&connector, "mx.example", Demand::Certificate, address),
            Err(TlsFault::Untrusted(_))
        ));
        assert!(meet(&connector, "mx.example", Demand::Anything, address).is_ok());
    }

    #[test]
    fn a_session_is_taken_up_again_with_the_same_peer_and_demand_only() {
        let ours = authority("ca.example");
        let connector = trusting(&ours);
        let address = serve(&certificate(Some(&ours), &["mx.example"], ec_key(), 30), 5);
        let resumed = |demand| {
            let (mut stream, assurance) = meet(&connector, "mx.example", demand, address).unwrap();
            assert_eq!(assurance, Assurance::Verified);
            let resumed = stream.is_resumed();
            stream.finish_writing().unwrap();
            resumed
        };
        assert!(!resumed(Demand::Encryption));
        assert!(resumed(Demand::Encryption));
        assert!(!resumed(Demand::Certificate));
        assert!(resumed(Demand::Certificate));
    }

    #[test]
    fn a_server_that_has_no_tls_or_nothing_to_say_is_a_fault() {
        let connector = Connector::new(None).unwrap();
        let meet = |said: &'static [u8], wait: bool| {
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            theirs.write_all(said).unwrap();
            let kept = wait.then_some(theirs);
            let mut stream = Stream::unix(ours).unwrap();
            stream.set_deadline(Some(Instant::now() + Duration::from_millis(if wait { 50 } else { 60_000 })));
            let fault = stream.secure_to("mx.example", &connector, Demand::Anything).unwrap_err();
            drop(kept);
            fault
        };
        assert!(matches!(meet(b"220 what?\r\n", false), TlsFault::Disagreed(_) | TlsFault::Gone));
        assert!(matches!(meet(b"", true), TlsFault::Late));
        assert!(matches!(meet(b"", false), TlsFault::Gone | TlsFault::Disagreed(_)));
    }

    #[test]
    fn authorities_that_are_none_are_named() {
        let told = |path: &Path| Connector::new(Some(path)).unwrap_err().to_string();
        assert!(told(Path::new("/nowhere")).contains("/nowhere: can't be read"));
        assert!(told(Path::new("/dev/null")).contains("/dev/null: no certificate"));
    }
}
