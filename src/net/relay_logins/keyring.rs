//! The logins that one file has for a relay: one for all mail, and others by the envelope's sender.

use crate::mail::address::ReversePath;

use crate::sasl::client::Login;

/// The logins of one file.
///
/// ```text
/// name password
/// <alice@example.org> alice her password
/// <@example.net> example.net another
/// ```
///
/// A line that begins with an address between `<` and `>` is for mail of that sender, one with
/// `<@domain>` for all senders of that domain; one with neither is for all other mail. A password may
/// have blanks in it. Empty lines, and lines that begin with `#`, are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// `alice@example.org`, `@example.net`, or nothing: for all others.
    whom: String,
    login: Login,
}

/// What a relay is shown for a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Whose it is, as the file has it; empty: everybody's.
    pub whom: String,
    /// Name and password.
    pub login: Login,
}

impl Keyring {
    /// Reads a file's text. `None`: a line is no login, there is none, or two are for the same mail.
    pub fn parse(text: &str) -> Option<Keyring> {
        let mut rows: Vec<Row> = Vec::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let row = Row::parse(line)?;
            if rows.iter().any(|other| other.whom == row.whom) {
                return None;
            }
            rows.push(row);
        }
        (!rows.is_empty()).then_some(Keyring { rows })
    }

    /// The login for mail of this sender: the sender's own, its domain's, else everybody's. A null
    /// sender is nobody's in particular.
    pub fn choose(&self, sender: &ReversePath) -> Option<Chosen> {
        let of = |whom: &str| self.rows.iter().find(|row| row.whom == whom);
        let own = sender.mailbox().and_then(|sender| {
            let address = sender.to_string().to_lowercase();
            of(&address).or_else(|| of(&format!("@{}", sender.domain().to_lowercase())))
        });
        let row = own.or_else(|| of(""))?;
        Some(Chosen { whom: row.whom.clone(), login: row.login.clone() })
    }
}

impl Row {
    fn parse(line: &str) -> Option<Row> {
        let Some(after) = line.strip_prefix('<') else {
            return Some(Row { whom: String::new(), login: Login::parse(line)? });
        };
        // An address with "> " within quotes can't be named; it has its domain's login.
        let (whom, login) = after.split_once("> ").or_else(|| after.split_once(">\t"))?;
        let (_, domain) = whom.rsplit_once('@')?;
        let row = Row { whom: whom.to_lowercase(), login: Login::parse(login.trim_start())? };
        (!domain.is_empty()).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a smarthost\n\n me@x.example  a b \n<Alice@Example.org> alice her own\n\
                        <@example.org> org secret\n<@example.net>\tnet\tsecret\n";

    fn chosen(keyring: &Keyring, sender: &str) -> Option<(String, String, String)> {
        let chosen = keyring.choose(&ReversePath::parse(sender, true).unwrap())?;
        Some((chosen.whom, chosen.login.name, chosen.login.password))
    }

    #[test]
    fn the_sender_s_own_login_comes_first_then_its_domain_s_then_everybody_s() {
        let keyring = Keyring::parse(FILE).unwrap();
        let is = |sender: &str, whom: &str, name: &str, password: &str| {
            assert_eq!(
                chosen(&keyring, sender),
                Some((whom.into(), name.into(), password.into())),
                "{sender}"
            );
        };
        is("alice@example.ORG", "alice@example.org", "alice", "her own");
        is("bob@example.org", "@example.org", "org", "secret");
        is("bob@example.net", "@example.net", "net", "secret");
        is("bob@below.example.net", "", "me@x.example", "a b");
        is("", "", "me@x.example", "a b");
    }

    #[test]
    fn where_nobody_has_everybody_s_login_a_stranger_has_none() {
        let keyring = Keyring::parse("<@example.net> net secret").unwrap();
        assert!(chosen(&keyring, "a@example.net").is_some());
        assert_eq!(chosen(&keyring, "a@example.org"), None);
        assert_eq!(chosen(&keyring, ""), None);
    }

    #[test]
    fn what_is_not_clear_is_no_login() {
        let twice = ["a b\nc d", "<@x> a b\n<@X> c d", "<a@x> a b\n<a@x> a b"];
        let malformed =
            ["", "me", "# me x", "a \0b", "<> a b", "<a> a b", "<a@> a b", "<a@x>", "<a@x> a", "<a@x a b"];
        for bad in twice.into_iter().chain(malformed) {
            assert_eq!(Keyring::parse(bad), None, "{bad:?}");
        }
    }
}
