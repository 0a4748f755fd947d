//! posta-smtpd alone: rights by a client's certificate.

use openssl::hash::MessageDigest;
use openssl::ssl::{Ssl, SslSession, SslStream, SslVersion};

use super::certificates::{Made, authority, certificate, ec_key};
use super::daemon::{Client, Daemon};
use super::secure::{SECURE, context, handshake, secure_ground, starttls_by};

/// SHA-256 of a certificate, as `openssl x509 -fingerprint` has it.
fn fingerprint(made: &Made) -> String {
    let digest = made.certificate.digest(MessageDigest::sha256()).unwrap();
    digest.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<String>>().join(":")
}

/// A daemon that lets the owners of the first and the last of these certificates relay, and trusts the
/// authority of the first two alone.
struct Place {
    daemon: Daemon,
    known: Made,
    other: Made,
    strange: Made,
}

fn place() -> Place {
    let ours = authority("ca.test");
    let known = certificate(Some(&ours), &["known.test"], ec_key(), 30);
    let other = certificate(Some(&ours), &["other.test"], ec_key(), 30);
    let strange = certificate(Some(&authority("ca.test")), &["known.test"], ec_key(), 30);
    let listed = format!(
        "relay_from = []\nrelay_fingerprints = [\"{}\", \"{}\"]\n",
        fingerprint(&known),
        fingerprint(&strange)
    );
    let ground = secure_ground("");
    std::fs::write(ground.path("ca.pem"), ours.certificate_pem()).unwrap();
    let place = |name: &str| ground.path(name).display().to_string();
    let with_authority = format!("[tls]\nclient_ca = \"{}\"", place("ca.pem"));
    let settings = SECURE.replace("[tls]", &with_authority).replace("CERTIFICATE", &place("cert.pem"));
    ground.configure(&(settings + &listed));
    Place { daemon: ground.start(), known, other, strange }
}

/// What a client that shows this certificate hears when it wants to relay.
fn relay<S: std::io::Read + std::io::Write>(client: &mut Client<S>) -> String {
    client.say("EHLO client.test", "250");
    client.say("MAIL FROM:<a@b.test>", "250");
    client.send("RCPT TO:<x@elsewhere.test>\r\n");
    client.reply()
}

#[test]
fn a_listed_certificate_of_a_trusted_authority_may_relay() {
    let mut place = place();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (shown, answer) in [
            (Some(&place.known), "250"),
            (Some(&place.other), "554 5.7.1 <x@elsewhere.test>: Relay access denied"),
            (Some(&place.strange), "554 5.7.1 <x@elsewhere.test>: Relay access denied"),
            (None, "554 5.7.1 <x@elsewhere.test>: Relay access denied"),
        ] {
            let by = || {
                let mut builder = context();
                builder.set_max_proto_version(Some(version)).unwrap();
                if let Some(made) = shown {
                    builder.set_certificate(&made.certificate).unwrap();
                    builder.set_private_key(&made.key).unwrap();
                }
                builder
            };
            let mut client = place.daemon.client();
            assert!(relay(&mut client).starts_with("554"), "in the clear there is no certificate");
            let mut client = starttls_by(by(), client);
            let said = relay(&mut client);
            assert!(said.starts_with(answer), "{version:?} {said}");
            let socket = place.daemon.connect_to(1, "127.0.0.1").unwrap().into_socket();
            let mut client = Client::over(handshake(by(), socket).unwrap());
            client.expect("220");
            let said = relay(&mut client);
            assert!(said.starts_with(answer), "{version:?} {said}");
        }
    }
    place.daemon.wait_for_log("Trusted TLS connection established from unknown[127.0.0.1]: TLSv1.3");
    place.daemon.wait_for_log("Anonymous TLS connection established from unknown[127.0.0.1]: TLSv1.3");
}

/// The certificate isn't shown again then: it is in the ticket.
#[test]
fn a_session_that_goes_on_keeps_its_certificate() {
    let place = place();
    for (shown, answer) in [(&place.known, "250"), (&place.other, "554")] {
        let mut builder = context();
        builder.set_certificate(&shown.certificate).unwrap();
        builder.set_private_key(&shown.key).unwrap();
        let context = builder.build();
        let connect = |session: Option<SslSession>| {
            let socket = place.daemon.connect_to(1, "127.0.0.1").unwrap().into_socket();
            let mut ssl = Ssl::new(&context).unwrap();
            if let Some(session) = session {
                resume(&mut ssl, &session);
            }
            let mut stream = SslStream::new(ssl, socket).unwrap();
            stream.connect().unwrap();
            stream
        };
        let mut first = Client::over(connect(None));
        first.expect("220");
        let session = first.stream().ssl().session().unwrap().to_owned();
        let second = connect(Some(session));
        assert!(second.ssl().session_reused());
        let mut second = Client::over(second);
        second.expect("220");
        for client in [&mut first, &mut second] {
            let said = relay(client);
            assert!(said.starts_with(answer), "{said}");
        }
    }
}

#[allow(unsafe_code)]
fn resume(ssl: &mut Ssl, session: &SslSession) {
    // SAFETY: the session was made under the same context.
    unsafe { ssl.set_session(session) }.unwrap();
}
