//! Accounts of this host, remembered for a while: the name service may be a network away.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::unix::users::{self, Account};

/// How long an account is remembered.
const KNOWN: Duration = Duration::from_secs(60);
/// How long it is remembered that there is none: so long does a new account wait for its mail.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Most names remembered. Strangers choose what we are asked for.
const MOST: usize = 10_000;

/// What the name service said, and when.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    said: Mutex<HashMap<String, (Instant, Option<Account>)>>,
}

impl Accounts {
    /// The account of that name. An error: the name service can't say.
    pub(super) fn find(&self, name: &str) -> Result<Option<Account>, String> {
        if let Some((since, account)) = self.lock().get(name) {
            let good_for = if account.is_some() { KNOWN } else { UNKNOWN };
            if since.elapsed() < good_for {
                return Ok(account.clone());
            }
        }
        let account = users::by_name(name).map_err(|why| {
            log::warn!("the name service can't say whether there is an account {name}: {why}");
            format!("the name service can't say whether there is an account \"{name}\": {why}")
        })?;
        let mut said = self.lock();
        if said.len() >= MOST {
            said.retain(|_, (since, account)| account.is_some() && since.elapsed() < KNOWN);
        }
        if said.len() >= MOST {
            said.clear();
        }
        said.insert(name.to_string(), (Instant::now(), account.clone()));
        Ok(account)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Option<Account>)>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_and_bounded() {
        let accounts = Accounts::default();
        assert_eq!(accounts.find("root").unwrap().unwrap().uid, 0);
        assert_eq!(accounts.find("no-such-user-here").unwrap(), None);
        assert_eq!(accounts.lock().len(), 2);
        for n in 0..MOST {
            accounts.lock().insert(n.to_string(), (Instant::now(), None));
        }
        accounts.find("nobody").unwrap();
        assert!(accounts.lock().len() <= 3);
    }
}
