//! What the keeper hands to posta-smtpd: certificates and keys, unparsed. How, is in
//! [`unix::handover`](crate::unix::handover).
//!
//! In the parcel stand netstrings: for each certificate `pair`, its name, the paths of certificate and
//! key, and both contents; then perhaps `client_ca`, its path and its content.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::netstring::{next, put};
pub use super::tls_files::{Material, Pair, Stamp, TlsFiles};

/// The name of the socket among those that posta-smtpd is started with.
pub const NAME: &str = "tls";

/// What goes into the parcel.
pub fn pack(material: &Material) -> Vec<u8> {
    let mut out = Vec::new();
    for pair in &material.pairs {
        put(&mut out, b"pair");
        put(&mut out, pair.name.as_bytes());
        put(&mut out, path_bytes(&pair.certificate_file));
        put(&mut out, path_bytes(&pair.key_file));
        put(&mut out, &pair.certificate);
        put(&mut out, &pair.key);
    }
    if let Some((path, bytes)) = &material.client_ca {
        put(&mut out, b"client_ca");
        put(&mut out, path_bytes(path));
        put(&mut out, bytes);
    }
    out
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// `None` if it isn't what `pack` makes.
pub(super) fn unpack(mut bytes: &[u8]) -> Option<Material> {
    let mut material = Material { pairs: Vec::new(), client_ca: None };
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            b"pair" => material.pairs.push(Pair {
                name: String::from_utf8(next(&mut bytes)?.to_vec()).ok()?,
                certificate_file: path(next(&mut bytes)?),
                key_file: path(next(&mut bytes)?),
                certificate: next(&mut bytes)?.to_vec(),
                key: next(&mut bytes)?.to_vec(),
            }),
            b"client_ca" => material.client_ca = Some((path(next(&mut bytes)?), next(&mut bytes)?.to_vec())),
            _ => return None,
        }
    }
    (!material.pairs.is_empty()).then_some(material)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn material(key: &[u8]) -> Material {
        let pair = |name: &str| Pair {
            name: name.into(),
            certificate_file: format!("/tls/{name}/cert.pem").into(),
            key_file: format!("/tls/{name}/key.pem").into(),
            certificate: b"certificate, \n:".to_vec(),
            key: key.to_vec(),
        };
        Material {
            pairs: vec![pair("a.example"), pair("b.example")],
            client_ca: Some(("/ca".into(), vec![0])),
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let material = material(&key);
            prop_assert_eq!(unpack(&pack(&material)), Some(material));
        }

        #[test]
        fn anything_else_is_garbled_or_well_formed(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(material) = unpack(&bytes) {
                prop_assert_eq!(unpack(&pack(&material)), Some(material));
            }
        }
    }
}
