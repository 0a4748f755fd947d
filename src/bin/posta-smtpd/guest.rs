//! Who the client is, as far as is known: by its connection, by a proxy's or a trusted host's word,
//! by its login.

use std::net::IpAddr;

use posta::logbook::entry::Peer;
use posta::policy::chain::Client;
use posta::smtp::introduction::Introduction;

/// A client.
#[derive(Debug, Clone)]
pub struct Guest {
    /// As the policy sees it.
    pub client: Client,
    /// Its address as the log has it.
    address: String,
    /// The mechanism by which it has logged in.
    pub method: Option<String>,
}

impl Guest {
    /// Somebody who has just come.
    pub fn new(client: Client) -> Guest {
        Guest { address: text_of(client.address), client, method: None }
    }

    /// For the log.
    pub fn peer(&self) -> Peer<'_> {
        Peer { name: self.name(), address: &self.address }
    }

    /// Its name, if the DNS has confirmed it or somebody who should know has told it.
    pub fn name(&self) -> Option<&str> {
        self.client.name.as_deref()
    }

    /// It is at this address.
    pub fn move_to(&mut self, address: Option<IpAddr>) {
        self.client = Client { address, name: None, name_unclear: false, ..self.client.clone() };
        self.address = text_of(address);
    }

    /// It has shown to be this user.
    pub fn log_in(&mut self, login: &str, method: String) {
        self.client.login = Some(login.to_string());
        self.method = Some(method);
    }

    /// The client that this one speaks for. What is not told stays as it was, but for the login, which
    /// is nobody's else.
    pub fn introduced(&self, told: &Introduction) -> Guest {
        let mut guest = self.clone();
        if told.address.is_said() {
            guest.move_to(told.address.value().copied());
            guest.client.fingerprint = None;
        }
        if told.name.is_said() {
            guest.client.name = told.name.value().cloned();
        }
        guest.client.login = told.login.value().cloned();
        guest.method = guest.client.login.as_ref().map(|_| "xclient".to_string());
        guest
    }
}

/// An address as the log has it.
pub fn text_of(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".to_string(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use posta::smtp::introduction::XCLIENT;

    use super::*;

    #[test]
    fn who_is_introduced_is_somebody_else() {
        let client = Client {
            address: Some("127.0.0.1".parse().unwrap()),
            login: Some("proxy".to_string()),
            fingerprint: Some("ff".to_string()),
            ..Client::default()
        };
        let guest = Guest::new(client);
        let told = |text: &str| Introduction::parse(text, XCLIENT).unwrap();
        let other = guest.introduced(&told("ADDR=192.0.2.1 NAME=h.example LOGIN=alice"));
        assert_eq!(other.peer().to_string(), "h.example[192.0.2.1]");
        assert_eq!((other.client.login.as_deref(), other.client.fingerprint.clone()), (Some("alice"), None));
        let nobody = other.introduced(&told("ADDR=[UNAVAILABLE]"));
        assert_eq!(nobody.peer().to_string(), "unknown[unknown]");
        assert_eq!((nobody.client.address, nobody.client.login), (None, None));
    }
}
