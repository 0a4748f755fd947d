//! Accounts of this host by PAM, with the feature `pam` and `auth.pam`.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use posta::unix::pam::{self, Said};

use crate::sources::Why;

/// Not all of PAM's modules are fit for several threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// `None`: it is the user's password. An error is why nobody can say.
pub fn check(
    service: &str,
    user: &str,
    password: &str,
    client: Option<IpAddr>,
) -> Result<Option<Why>, String> {
    let client = client.map(|client| client.to_canonical().to_string());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match pam::check(service, user, password, client.as_deref()) {
        Said::Right => Ok(None),
        Said::Wrong => Ok(Some(Why::Password)),
        Said::Expired => Ok(Some(Why::Expired)),
        Said::Unable(why) => Err(format!("PAM, as service {service}: {why}")),
    }
}
