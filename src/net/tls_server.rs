//! The server's side of TLS: certificates, which of them a client is shown, and the handshake.
//!
//! TLS 1.2 and 1.3 with the ciphers of Mozilla's "intermediate" profile, the client's preference
//! among them. One context is the door (session tickets, ALPN, and what is asked of clients are its
//! affair); when a client names a server, the certificate's context is put in its place. So the
//! keys of session tickets are the same whatever name a client asks for, and they end with
//! the `Certificates` they came with, after a day at most (see `tls_store`).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, NameType, SniError, Ssl, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod, SslOptions,
    SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion, select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Name};
use thiserror::Error;

use super::carrier::Carrier;
pub use super::tls_files::TlsFiles;
use super::tls_files::{Material, Pair};
use super::tls_layer::Layer;
pub use super::tls_layer::TlsFault;

/// The only protocol spoken here, as ALPN has it: its length, then its name (RFC 7301 3.1).
const SMTP: &[u8] = b"\x04smtp";
/// A certificate that ends so soon is worth a word in the log, in days.
const SOON: u32 = 3;

/// Why a certificate can't be used, or should not be.
#[derive(Debug, Error)]
pub enum CertificateFault {
    /// A file can't be read.
    #[error("{path}: can't be read: {source}; {}", remedy(source))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder has no certificate.
    #[error("{0}: no certificate in this folder; put each into NAME/cert.pem, its key into NAME/key.pem")]
    Empty(PathBuf),
    /// It isn't what it should be.
    #[error("{path}: no {wanted} in PEM form in it ({reason}); it begins with \"-----BEGIN\"")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What the library says.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("{key}: this is not the key of {certificate}; have both been renewed?")]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The library doesn't want it.
    #[error("{path}: can't be used: {reason}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the library says.
        reason: String,
    },
    /// It is used all the same: an encrypted way with an old certificate is better than a plain one.
    #[error("{path}: the certificate has expired on {ended}; renew it")]
    Expired {
        /// Which file.
        path: PathBuf,
        /// Until when it was good.
        ended: String,
    },
    /// It ends within days.
    #[error("{path}: the certificate will expire on {ends}; renew it")]
    ExpiresSoon {
        /// Which file.
        path: PathBuf,
        /// Until when it is good.
        ends: String,
    },
}

impl CertificateFault {
    pub(super) fn unreadable(path: &Path, source: io::Error) -> CertificateFault {
        CertificateFault::Unreadable { path: path.to_path_buf(), source }
    }

    fn not_pem(path: &Path, wanted: &'static str, stack: &ErrorStack) -> CertificateFault {
        CertificateFault::NotPem { path: path.to_path_buf(), wanted, reason: reason(stack) }
    }

    fn unusable(path: &Path, stack: &ErrorStack) -> CertificateFault {
        CertificateFault::Unusable { path: path.to_path_buf(), reason: reason(stack) }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "start posta as root, which hands the keys on, or make it readable for its user"
        }
        io::ErrorKind::NotFound => "set tls.certificate and tls.key to where they are",
        _ => "see tls.certificate in posta.toml(5)",
    }
}

fn reason(stack: &ErrorStack) -> String {
    let last = stack.errors().last().and_then(|error| error.reason());
    last.unwrap_or("it holds nothing of the kind").to_string()
}

/// All certificates, ready for use. Sessions that have begun keep what they began with.
#[derive(Clone)]
pub struct Certificates {
    door: SslContext,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    names: Vec<String>,
    complaints: Vec<CertificateFault>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files. One that is broken is an error, whichever of several it is: who has just
    /// put it there wants to know, and has the old ones in use until it is mended.
    pub fn load(files: &TlsFiles) -> Result<Certificates, CertificateFault> {
        Certificates::from_material(&files.read()?, &files.hostname)
    }

    /// From files that somebody else has read.
    pub fn from_material(material: &Material, hostname: &str) -> Result<Certificates, CertificateFault> {
        let pairs = material.pairs.iter().map(Parsed::read).collect::<Result<Vec<_>, _>>()?;
        let authorities = match &material.client_ca {
            Some((path, bytes)) => Some((path.as_path(), certificates(path, bytes)?)),
            None => None,
        };
        let default = default_of(&pairs, hostname);
        let mut names = HashMap::new();
        for pair in &pairs {
            let context = pair.context(authorities.as_ref())?.build().into_context();
            for name in pair.names() {
                // A folder's own name goes before a name in another's certificate.
                if name == pair.name || !pairs.iter().any(|other| other.name == name) {
                    names.entry(name).or_insert_with(|| context.clone());
                }
            }
        }
        let about = About {
            names: pairs.iter().flat_map(Parsed::names).collect(),
            complaints: pairs.iter().filter_map(Parsed::complaint).collect(),
        };
        let mut door = default.context(authorities.as_ref())?;
        door.set_servername_callback(move |ssl, _| {
            choose(&names, ssl);
            Ok::<(), SniError>(())
        });
        Ok(Certificates { door: door.build().into_context(), about: Arc::new(about) })
    }

    /// Certificates that have expired or soon will: worth a line in the log, and used all the same.
    pub fn complaints(&self) -> &[CertificateFault] {
        &self.about.complaints
    }

    /// The names of folders and in certificates, as they come.
    pub fn names(&self) -> &[String] {
        &self.about.names
    }

    /// What is before the server's handshake.
    pub(super) fn begin(&self, carrier: Carrier) -> Result<Layer, TlsFault> {
        Layer::begin(Ssl::new(&self.door)?, carrier)
    }
}

/// Puts the certificate of the name that the client asked for in place. One that nobody has leaves
/// the default: a mail client that checks names will say so itself, and all others will go on.
fn choose(names: &HashMap<String, SslContext>, ssl: &mut SslRef) {
    let asked = ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
    let Some(asked) = asked else { return };
    let asked = asked.trim_end_matches('.');
    // RFC 9525 6.3: the star stands for the whole first label.
    let wildcard = || asked.split_once('.').and_then(|(_, rest)| names.get(&format!("*.{rest}")));
    if let Some(context) = names.get(asked).or_else(wildcard)
        && let Err(error) = ssl.set_ssl_context(context)
    {
        log::error!("TLS: the certificate of {asked} can't be put in place: {error}");
    }
}

/// The one named `default`, else the host's, else the first.
fn default_of<'p>(pairs: &'p [Parsed], hostname: &str) -> &'p Parsed {
    let hostname = hostname.to_ascii_lowercase();
    let named = |wanted: &str| pairs.iter().find(|pair| pair.name == wanted);
    named("default")
        .or_else(|| named(&hostname))
        .or_else(|| pairs.iter().find(|pair| pair.names().contains(&hostname)))
        .unwrap_or(&pairs[0])
}

/// A certificate with its chain and its key.
struct Parsed {
    name: String,
    path: PathBuf,
    certificate: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
}

impl Parsed {
    fn read(pair: &Pair) -> Result<Parsed, CertificateFault> {
        let path = pair.certificate_file.clone();
        let mut chain = certificates(&path, &pair.certificate)?;
        let certificate = chain.remove(0);
        // A key under a passphrase is none that a server can use; nobody is there to be asked for it.
        let key = PKey::private_key_from_pem_callback(&pair.key, |_| Ok(0))
            .map_err(|stack| CertificateFault::not_pem(&pair.key_file, "private key", &stack))?;
        let public = certificate.public_key().map_err(|stack| CertificateFault::unusable(&path, &stack))?;
        if !public.public_eq(&key) {
            return Err(CertificateFault::Mismatch { key: pair.key_file.clone(), certificate: path });
        }
        Ok(Parsed { name: pair.name.clone(), path, certificate, chain, key })
    }

    /// The folder's name, and the names in the certificate; in lower case.
    fn names(&self) -> Vec<String> {
        let alternatives = self.certificate.subject_alt_names();
        let inside = alternatives.iter().flatten().filter_map(|name| name.dnsname());
        let inside = inside.map(|name| name.to_ascii_lowercase());
        inside.chain([self.name.clone()]).filter(|name| !name.is_empty()).collect()
    }

    /// A context that shows this certificate.
    fn context(
        &self,
        authorities: Option<&(&Path, Vec<X509>)>,
    ) -> Result<SslAcceptorBuilder, CertificateFault> {
        let unusable = |stack: ErrorStack| CertificateFault::unusable(&self.path, &stack);
        let mut builder = profile().map_err(unusable)?;
        builder.set_certificate(&self.certificate).map_err(unusable)?;
        for link in &self.chain {
            builder.add_extra_chain_cert(link.clone()).map_err(unusable)?;
        }
        builder.set_private_key(&self.key).map_err(unusable)?;
        if let Some((path, authorities)) = authorities {
            ask_clients(&mut builder, authorities)
                .map_err(|stack| CertificateFault::unusable(path, &stack))?;
        }
        Ok(builder)
    }

    /// Whether it has ended, or soon will.
    fn complaint(&self) -> Option<CertificateFault> {
        let end = self.certificate.not_after();
        let ends_before = |days| Asn1Time::days_from_now(days).is_ok_and(|then| *end < *then);
        let (path, ends) = (self.path.clone(), end.to_string());
        if ends_before(0) {
            Some(CertificateFault::Expired { path, ended: ends })
        } else if ends_before(SOON) {
            Some(CertificateFault::ExpiresSoon { path, ends })
        } else {
            None
        }
    }
}

/// The certificates in a PEM file; at least one.
fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<X509>, CertificateFault> {
    let found = X509::stack_from_pem(bytes)
        .map_err(|stack| CertificateFault::not_pem(path, "certificate", &stack))?;
    if found.is_empty() {
        return Err(CertificateFault::not_pem(path, "certificate", &ErrorStack::get()));
    }
    Ok(found)
}

/// What all contexts have in common: versions, ciphers, what is refused.
fn profile() -> Result<SslAcceptorBuilder, ErrorStack> {
    // RELEASE_BUFFERS, which the builder sets, gives an idle session's 34 KiB back.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_options(
        // A client that closes without a goodbye is no error: in SMTP, what is whole has its own end.
        SslOptions::NO_RENEGOTIATION | SslOptions::IGNORE_UNEXPECTED_EOF,
    );
    // Sessions live in the tickets; the server remembers none. What a session of another program
    // was for is not taken for ours.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_session_id_context(b"posta")?;
    builder.set_alpn_select_callback(|_, offered| {
        // RFC 7301 3.2: who names protocols and ours is not among them wants somebody else. A browser
        // that was led here by a third party is one of those (ALPACA, CVE-2021-3618).
        select_next_proto(SMTP, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    Ok(builder)
}

/// Asks clients for a certificate. One without, or with one that nobody here has signed, is welcome
/// all the same: it gets no rights by it.
fn ask_clients(builder: &mut SslAcceptorBuilder, authorities: &[X509]) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    let mut names: Stack<X509Name> = Stack::new()?;
    for authority in authorities {
        store.add_cert(authority.clone())?;
        names.push(authority.subject_name().to_owned()?)?;
    }
    builder.set_verify_cert_store(store.build())?;
    builder.set_client_ca_list(names);
    builder.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use openssl::ssl::{SslConnector, SslConnectorBuilder, SslStream};
    use proptest::prelude::*;

    use crate::net::certificates::{Made, authority, certificate, ec_key, rsa_key};
    use crate::net::stream::{Binding, Security, Stream};

    use super::*;

    fn files(folder: &Path) -> TlsFiles {
        TlsFiles {
            certificate: folder.to_path_buf(),
            key: None,
            client_ca: None,
            hostname: "mail.example".into(),
        }
    }

    fn put(folder: &Path, name: &str, made: &Made) {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("cert.pem"), made.certificate_pem()).unwrap();
        fs::write(folder.join(name).join("key.pem"), made.key_pem()).unwrap();
    }

    fn one(names: &[&str]) -> Made {
        certificate(None, names, ec_key(), 30)
    }

    /// The certificates of a server that has but one.
    fn single(made: &Made) -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "default", made);
        Certificates::load(&files(folder.path())).unwrap()
    }

    /// What the server knows of a session: what was agreed on, and both bindings.
    type Known = Result<(Security, [Option<Vec<u8>>; 2]), TlsFault>;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// A server that takes one client, and says back what it hears until the client has finished.
    fn serve(certificates: &Certificates) -> (std::net::SocketAddr, JoinHandle<Known>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let certificates = certificates.clone();
        let server = std::thread::spawn(move || {
            let mut stream = Stream::tcp(listener.accept().unwrap().0).unwrap();
            stream.set_deadline(Some(Instant::now() + Duration::from_secs(60)));
            stream.secure(&certificates, far())?;
            let mut heard = [0; 4096];
            loop {
                match stream.read(&mut heard) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => stream.write_all(&heard[..count]).unwrap(),
                }
            }
            let _ = stream.finish_writing();
            let bindings = [Binding::Exporter, Binding::ServerEndPoint].map(|kind| stream.binding(kind));
            Ok((stream.security().unwrap().clone(), bindings))
        });
        (address, server)
    }

    fn client() -> SslConnectorBuilder {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder
    }

    type Talk = Result<SslStream<TcpStream>, openssl::ssl::HandshakeError<TcpStream>>;

    fn connect(builder: SslConnectorBuilder, name: Option<&str>, address: std::net::SocketAddr) -> Talk {
        let configuration = builder.build().configure().unwrap();
        let configuration = configuration.verify_hostname(false).use_server_name_indication(name.is_some());
        configuration.connect(name.unwrap_or("unnamed"), TcpStream::connect(address).unwrap())
    }

    /// A whole session: a word there and back, goodbyes; what the client saw, and what the server knew.
    fn session(
        certificates: &Certificates,
        builder: SslConnectorBuilder,
        name: Option<&str>,
    ) -> (SslStream<TcpStream>, Known) {
        let (address, server) = serve(certificates);
        let mut stream = connect(builder, name, address).unwrap();
        stream.write_all(b"EHLO").unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"EHLO");
        stream.shutdown().unwrap();
        assert_eq!(stream.read(&mut word).unwrap(), 0);
        (stream, server.join().unwrap())
    }

    fn common_name(stream: &SslStream<TcpStream>) -> String {
        let certificate = stream.ssl().peer_certificate().unwrap();
        let entry = certificate.subject_name().entries().next().unwrap();
        entry.data().to_string().unwrap()
    }

    #[test]
    fn both_versions_are_spoken_and_named() {
        let certificates = single(&one(&["mail.example"]));
        for (version, name) in [(SslVersion::TLS1_2, "TLSv1.2"), (SslVersion::TLS1_3, "TLSv1.3")] {
            let mut builder = client();
            builder.set_max_proto_version(Some(version)).unwrap();
            builder.set_alpn_protos(b"\x05dummy\x04smtp").unwrap();
            let (stream, known) = session(&certificates, builder, Some("Mail.Example"));
            let (security, [exporter, end_point]) = known.unwrap();
            let cipher = stream.ssl().current_cipher().unwrap();
            assert_eq!((security.version.as_str(), security.cipher.as_str()), (name, cipher.name()));
            assert!(security.bits == 128 || security.bits == 256);
            assert_eq!(security.alpn.as_deref(), Some("smtp"));
            assert_eq!(security.name.as_deref(), Some("Mail.Example"));
            assert_eq!(security.fingerprint, None);
            let mut same = vec![0; 32];
            stream.ssl().export_keying_material(&mut same, "EXPORTER-Channel-Binding", Some(&[])).unwrap();
            assert_eq!(exporter, Some(same));
            let shown = stream.ssl().peer_certificate().unwrap();
            assert_eq!(
                end_point.as_deref(),
                Some(&*shown.digest(openssl::hash::MessageDigest::sha256()).unwrap())
            );
        }
    }

    #[test]
    fn what_is_older_than_tls_1_2_is_refused() {
        let certificates = single(&one(&["mail.example"]));
        let (address, server) = serve(&certificates);
        let mut builder = client();
        builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
        builder.set_min_proto_version(Some(SslVersion::TLS1)).unwrap();
        builder.set_max_proto_version(Some(SslVersion::TLS1_1)).unwrap();
        assert!(connect(builder, None, address).is_err());
        let fault = server.join().unwrap().unwrap_err();
        assert!(matches!(&fault, TlsFault::Disagreed(why) if why.contains("protocol")), "{fault}");
    }

    #[test]
    fn who_wants_another_protocol_is_told_so() {
        let certificates = single(&one(&["mail.example"]));
        let (address, server) = serve(&certificates);
        let mut builder = client();
        builder.set_alpn_protos(b"\x02h2\x08http/1.1").unwrap();
        let error = connect(builder, None, address).unwrap_err().to_string();
        assert!(error.contains("no application protocol"), "{error}");
        assert!(matches!(server.join().unwrap(), Err(TlsFault::Disagreed(_))));
    }

    #[test]
    fn a_name_chooses_the_certificate() {
        let folder = tempfile::tempdir().unwrap();
        for (name, names) in [
            ("mail.example", vec!["mail.example"]),
            ("other.example", vec!["other.example", "second.example", "mail.example"]),
            ("many", vec!["*.many.example"]),
            ("a.many.example", vec!["a.many.example"]),
        ] {
            put(folder.path(), name, &one(&names));
        }
        fs::write(folder.path().join("README"), "from certbot").unwrap();
        let certificates = Certificates::load(&files(folder.path())).unwrap();
        for (asked, shown) in [
            (None, "mail.example"),
            (Some("nobody.example"), "mail.example"),
            (Some("mail.example"), "mail.example"),
            (Some("OTHER.example"), "other.example"),
            (Some("second.example"), "other.example"),
            (Some("b.many.example"), "*.many.example"),
            (Some("a.many.example"), "a.many.example"),
            (Some("c.b.many.example"), "mail.example"),
            (Some("many.example"), "mail.example"),
        ] {
            let (stream, known) = session(&certificates, client(), asked);
            assert_eq!(common_name(&stream), shown, "{asked:?}");
            assert_eq!(known.unwrap().0.name.as_deref(), asked);
        }
    }

    #[test]
    fn a_folder_named_default_goes_before_the_host_s_name() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "default", &one(&["first.example"]));
        put(folder.path(), "mail.example", &one(&["mail.example"]));
        let certificates = Certificates::load(&files(folder.path())).unwrap();
        assert_eq!(common_name(&session(&certificates, client(), None).0), "first.example");
    }

    /// All kinds of keys, in a file of their own and behind the certificate.
    #[test]
    fn keys_of_every_kind_are_read() {
        let ed25519 = PKey::generate_ed25519().unwrap();
        let (rsa, ec) = (rsa_key(), ec_key());
        let old_rsa = rsa.rsa().unwrap().private_key_to_pem().unwrap();
        let old_ec = ec.ec_key().unwrap();
        let parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let old_ec = [&parameters[..], &old_ec.private_key_to_pem().unwrap()].concat();
        let new = |key: &PKey<Private>| key.private_key_to_pem_pkcs8().unwrap();
        let authority = authority("authority.example");
        for (key, pem) in [
            (ed25519.clone(), new(&ed25519)),
            (rsa.clone(), new(&rsa)),
            (rsa, old_rsa),
            (ec.clone(), new(&ec)),
            (ec, old_ec),
        ] {
            let made = certificate(Some(&authority), &["mail.example"], key, 30);
            let chain = [made.certificate_pem(), authority.certificate_pem()].concat();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cert.pem");
            for (certificate, key) in [
                (chain.clone(), Some(pem.clone())),
                ([chain.clone(), pem.clone()].concat(), None),
                ([pem.clone(), chain.clone()].concat(), None),
            ] {
                fs::write(&path, certificate).unwrap();
                let key = key.map(|pem| {
                    fs::write(folder.path().join("key.pem"), pem).unwrap();
                    folder.path().join("key.pem")
                });
                let files = TlsFiles { key, ..files(&path) };
                let (stream, known) = session(&Certificates::load(&files).unwrap(), client(), None);
                assert_eq!(stream.ssl().peer_cert_chain().unwrap().len(), 2);
                known.unwrap();
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("a/cert.pem"), folder.path().join("a/key.pem"));
        let told = || Certificates::load(&files(folder.path())).unwrap_err().to_string();
        assert!(told().contains("no certificate in this folder"), "{}", told());
        put(folder.path(), "a", &one(&["a.example"]));
        fs::write(&cert, one(&["b.example"]).certificate_pem()).unwrap();
        assert!(told().contains("not the key of") && told().contains("a/key.pem"), "{}", told());
        fs::write(&key, "certificate").unwrap();
        assert!(told().contains("a/key.pem: no private key"), "{}", told());
        let secret = ec_key()
            .private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret")
            .unwrap();
        fs::write(&key, secret).unwrap();
        assert!(told().contains("a/key.pem: no private key"), "{}", told());
        fs::write(&cert, "").unwrap();
        assert!(told().contains("a/cert.pem: no certificate"), "{}", told());
        fs::remove_file(&key).unwrap();
        assert!(told().contains("a/key.pem: can't be read") && told().contains("set tls."), "{}", told());
    }

    #[test]
    fn an_old_certificate_is_used_with_a_complaint() {
        let old = single(&certificate(None, &["mail.example"], ec_key(), -1));
        assert!(old.complaints()[0].to_string().contains("default/cert.pem: the certificate has expired"));
        session(&old, client(), None).1.unwrap();
        let soon = single(&certificate(None, &["mail.example"], ec_key(), 3));
        assert!(soon.complaints()[0].to_string().contains("will expire on"));
        assert!(single(&one(&["mail.example"])).complaints().is_empty());
    }

    #[test]
    fn a_client_s_certificate_counts_if_an_authority_has_signed_it() {
        let folder = tempfile::tempdir().unwrap();
        let known_authority = authority("ca.example");
        put(folder.path(), "tls/default", &one(&["mail.example"]));
        let ca = folder.path().join("ca.pem");
        fs::write(&ca, known_authority.certificate_pem()).unwrap();
        let files = TlsFiles { client_ca: Some(ca), ..files(&folder.path().join("tls")) };
        let certificates = Certificates::load(&files).unwrap();
        let good = certificate(Some(&known_authority), &["client.example"], ec_key(), 30);
        let digest = good.certificate.digest(openssl::hash::MessageDigest::sha256()).unwrap();
        let good_one: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        let strange = one(&["client.example"]);
        let cases = [(Some(&good), Some(good_one)), (Some(&strange), None), (None, None)];
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            for (shown, expected) in &cases {
                let mut builder = client();
                builder.set_max_proto_version(Some(version)).unwrap();
                if let Some(made) = shown {
                    builder.set_certificate(&made.certificate).unwrap();
                    builder.set_private_key(&made.key).unwrap();
                }
                let (_, known) = session(&certificates, builder, None);
                assert_eq!(known.unwrap().0.fingerprint, *expected);
            }
        }
    }

    /// A ticket that can't be opened any more costs a whole handshake and nothing else.
    #[test]
    fn sessions_are_resumed_while_their_keys_last() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "default", &one(&["mail.example"]));
        put(folder.path(), "other.example", &one(&["other.example"]));
        let certificates = Certificates::load(&files(folder.path())).unwrap();
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
            let session_of = |certificates: &Certificates, name: &str| {
                let mut builder = client();
                builder.set_max_proto_version(Some(version)).unwrap();
                builder
                    .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
                let keep = std::sync::Arc::clone(&kept);
                let (address, server) = serve(certificates);
                builder.set_new_session_callback(move |_, session| *keep.lock().unwrap() = Some(session));
                let connector = builder.build();
                let mut ssl = connector.configure().unwrap().verify_hostname(false).into_ssl(name).unwrap();
                if let Some(session) = kept.lock().unwrap().take() {
                    resume(&mut ssl, &session);
                }
                let mut stream = SslStream::new(ssl, TcpStream::connect(address).unwrap()).unwrap();
                stream.connect().unwrap();
                stream.write_all(b"EHLO").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
                stream.shutdown().unwrap();
                server.join().unwrap().unwrap();
                assert_eq!(common_name(&stream), name);
                stream.ssl().session_reused()
            };
            assert!(!session_of(&certificates, "mail.example"));
            assert!(session_of(&certificates, "mail.example"));
            kept.lock().unwrap().take();
            assert!(!session_of(&certificates, "other.example"));
            assert!(session_of(&certificates, "other.example"));
            let renewed = Certificates::load(&files(folder.path())).unwrap();
            assert!(!session_of(&renewed, "other.example"));
        }
    }

    #[allow(unsafe_code)]
    fn resume(ssl: &mut Ssl, session: &openssl::ssl::SslSession) {
        // SAFETY: contexts of one library; the test's sessions are not used with any other.
        unsafe { ssl.set_session(session) }.unwrap();
    }

    /// The deadline is for the whole handshake, however its octets trickle.
    #[test]
    fn a_trickle_does_not_hold_the_handshake_up() {
        let certificates = single(&one(&["mail.example"]));
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut stream = Stream::unix(ours).unwrap();
        let trickle = std::thread::spawn(move || {
            let hello = [22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3];
            for octet in hello.into_iter().chain(std::iter::repeat(0)) {
                if theirs.write_all(&[octet]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let latest = Instant::now() + Duration::from_millis(300);
        stream.set_deadline(Some(latest));
        assert!(matches!(stream.secure(&certificates, latest), Err(TlsFault::Late)));
        drop(stream);
        trickle.join().unwrap();
    }

    #[test]
    fn a_pause_in_the_middle_of_a_record_loses_nothing() {
        let certificates = single(&one(&["mail.example"]));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let client = std::thread::spawn(move || {
            let ssl = client().build().configure().unwrap().verify_hostname(false).into_ssl("mail.example");
            let mut stream = SslStream::new(ssl.unwrap(), theirs).unwrap();
            stream.connect().unwrap();
            stream
        });
        let mut stream = Stream::unix(ours).unwrap();
        let in_a_minute = || Some(Instant::now() + Duration::from_secs(60));
        stream.set_deadline(in_a_minute());
        assert!(stream.secure(&certificates, far()).unwrap());
        let mut client = client.join().unwrap();
        assert!(!stream.has_buffered() && !stream.readable_within(Duration::ZERO).unwrap());
        stream.set_deadline(Some(Instant::now() + Duration::from_millis(20)));
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);

        client.write_all(b"NOOP").unwrap();
        stream.set_deadline(in_a_minute());
        let mut word = [0; 4];
        stream.read_exact(&mut word[..1]).unwrap();
        assert!(stream.has_buffered() && stream.readable_within(Duration::ZERO).unwrap());
        stream.read_exact(&mut word[1..]).unwrap();
        assert!(!stream.has_buffered());
        assert!(matches!(stream.secure(&certificates, far()), Err(TlsFault::Twice)));

        // A client that goes without a goodbye has simply gone.
        client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut word).unwrap(), 0);
    }

    #[test]
    fn a_client_that_leaves_in_the_handshake_has_gone() {
        let certificates = single(&one(&["mail.example"]));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        assert!(matches!(Stream::unix(ours).unwrap().secure(&certificates, far()), Err(TlsFault::Gone)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_no_tls_is_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..200), tls in any::<bool>()) {
            static CERTIFICATES: std::sync::OnceLock<Certificates> = std::sync::OnceLock::new();
            let certificates = CERTIFICATES.get_or_init(|| single(&one(&["mail.example"])));
            let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let head: &[u8] = if tls { &[22, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3] } else { b"" };
            theirs.write_all(&[head, &bytes].concat()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let mut stream = Stream::unix(ours).unwrap();
            stream.set_deadline(Some(Instant::now() + Duration::from_secs(60)));
            prop_assert!(stream.secure(certificates, far()).is_err());
        }
    }
}
