//! Which source knows a login, and what it says.
//!
//! The domain of the login decides, by its entry in `[domains]`: a users file, this host's accounts, or
//! nobody. With `auth.dovecot` all of them are asked of Dovecot. Somebody unknown costs the same work as
//! a wrong password: a password of the usual kind is checked, and the outcome thrown away.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use posta::mail::address::parse_domain;
use posta::unix::shadow;

use posta::sasl::keys::{Keys, hmac};
use posta::sasl::mechanism::Mechanism;
use posta::sasl::{Credentials, Fault};

use posta::config::{Auth, Config, DomainFate, DomainRule, Users};

use crate::dovecot;
use crate::password::Password;
use crate::users_file::{Entry, UsersFile, UsersFiles};

/// What is checked for an account that this host doesn't have, until there was one with a password: a hash
/// as Debian's passwd(1) makes it, of a password that nobody knows.
const NO_ACCOUNT: &str = "$y$j9T$vmRDyL0dNWlCq2vVFVZv8/$V2tsfbQhYBEmMBnBFBUqpnlB5jJyqYcCrSy0wWY/Kj8";

/// All sources, as the configuration has them.
pub struct Sources {
    hostname: String,
    domains: Vec<DomainRule>,
    /// Users files of domains that only tables have.
    more_files: Vec<PathBuf>,
    auth: Auth,
    files: UsersFiles,
    /// Of the account that was looked at last: the others will be hashed likewise.
    usual_account: Mutex<Password>,
    /// Of which the decoys' salts are made.
    secret: [u8; 32],
}

/// Who somebody says to be, and who knows more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `user@domain`, or as the client wrote it where no domain of ours fits.
    pub full: String,
    local: String,
    domain: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    System,
    Dovecot(PathBuf),
    Nowhere,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is this user.
    Right(String),
    /// It is not, and why: for the log alone.
    Wrong(Why),
    /// Nobody can say now, and why.
    Unable(String),
}

/// Why somebody is not who he says to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no such user.
    Unknown,
    /// The password is another one.
    Password,
    /// The user has none, or the account is locked.
    NoPassword,
    /// The account or its password has expired.
    Expired,
    /// The users file forbids it (`nologin`, `allow_nets`).
    Forbidden,
    /// No SCRAM keys are stored.
    NoKeys,
}

/// What SCRAM is to go on with.
pub struct Found {
    /// Those of the user, or decoys.
    pub keys: Keys,
    /// Why they are decoys.
    pub decoy: Option<Why>,
}

impl Why {
    /// For the log.
    pub fn text(self) -> &'static str {
        match self {
            Why::Unknown => "unknown user",
            Why::Password => "wrong password",
            Why::NoPassword => "no password, or locked",
            Why::Expired => "account or password expired",
            Why::Forbidden => "not allowed, or not from there",
            Why::NoKeys => "its password is stored as a hash, which SCRAM can't use",
        }
    }
}

impl Sources {
    /// As the configuration has them. `secret` must be the same after a restart, or an outsider could tell
    /// decoys by their salts.
    pub fn new(config: &Config, secret: [u8; 32]) -> Sources {
        Sources {
            hostname: config.hostname.clone(),
            domains: config.domains.clone(),
            more_files: config.routing.users_files.clone(),
            auth: config.auth.clone(),
            files: UsersFiles::default(),
            usual_account: Mutex::new(Password::Crypt(NO_ACCOUNT.to_string())),
            secret,
        }
    }

    /// The users files, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for rule in &self.domains {
            if let DomainFate::Users { users: Users::File(file), .. } = &rule.fate
                && !files.contains(file)
            {
                files.push(file.clone());
            }
        }
        let named = self.more_files.iter().filter(|file| !files.contains(file));
        let more: Vec<PathBuf> = named.cloned().collect();
        files.extend(more);
        files
    }

    /// Whether accounts of this host may log in.
    pub fn has_system(&self) -> bool {
        self.rule(|rule| matches!(rule.fate, DomainFate::Users { users: Users::System, .. })).is_some()
    }

    /// The mechanisms that are taken: those that are set, or else those that work for every user. Looks at
    /// the users files, and says in the log what is wrong with them.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let files: Vec<_> = self.files().iter().map(|file| self.files.get(file)).collect();
        if !self.auth.mechanisms.is_empty() {
            return self.auth.mechanisms.clone();
        }
        let for_all = self.auth.dovecot.is_none()
            && !self.has_system()
            && !files.is_empty()
            && files.iter().all(|file| file.as_ref().is_ok_and(|file| file.has_keys));
        Mechanism::ALL.into_iter().filter(|mechanism| for_all || !mechanism.needs_keys()).collect()
    }

    /// Who a login is. One without a domain is looked for in the domain of this host's name, then in the
    /// domain that the name lies in, then among this host's accounts. One of a domain that only a table
    /// has is looked for by its whole name in the users files of those: this program reads no tables.
    pub fn account(&self, login: &str) -> Account {
        let parted = login.rsplit_once('@').map(|(local, domain)| (local, parse_domain(domain).ok()));
        let (local, rule) = match &parted {
            Some((local, domain)) => (*local, domain.as_ref().and_then(|domain| self.domain(domain))),
            None => (login, self.own_domain()),
        };
        if let (None, Some((local, Some(domain)))) = (rule, &parted)
            && let Some(account) = self.of_more_files(local, domain)
        {
            return account;
        }
        let place = match (&self.auth.dovecot, rule.map(|rule| &rule.fate)) {
            // Who would be found by a part of it had as many names as there are domains, and each its own
            // count of wrong passwords.
            _ if local.contains('@') => Place::Nowhere,
            (Some(socket), _) => Place::Dovecot(socket.clone()),
            (None, Some(DomainFate::Users { users: Users::File(file), .. })) => Place::File(file.clone()),
            (None, Some(DomainFate::Users { users: Users::System, .. })) => Place::System,
            _ => Place::Nowhere,
        };
        let domain = rule.map(|rule| rule.domain.clone()).unwrap_or_default();
        let full = if rule.is_some() { format!("{local}@{domain}") } else { login.to_string() };
        Account { full, local: local.to_string(), domain, place }
    }

    /// The account of that very name in a users file of `routing.users_files`. A domain with an entry in
    /// posta.toml has none there.
    fn of_more_files(&self, local: &str, domain: &str) -> Option<Account> {
        if self.auth.dovecot.is_some() || self.rule(|rule| rule.domain == domain).is_some() {
            return None;
        }
        let has = |path: &&PathBuf| self.files.get(path).is_ok_and(|file| file.has_whole(local, domain));
        // Who is in none may be in the one that can't be read.
        let unable = |path: &&PathBuf| self.files.get(path).is_err();
        let path = self.more_files.iter().find(has).or_else(|| self.more_files.iter().find(unable))?;
        let (local, domain) = (local.to_string(), domain.to_string());
        Some(Account { full: format!("{local}@{domain}"), local, domain, place: Place::File(path.clone()) })
    }

    fn rule(&self, fits: impl Fn(&DomainRule) -> bool) -> Option<&DomainRule> {
        self.domains.iter().find(|rule| fits(rule))
    }

    fn domain(&self, domain: &str) -> Option<&DomainRule> {
        let has_users = |rule: &DomainRule| matches!(rule.fate, DomainFate::Users { .. });
        self.rule(|rule| rule.domain == domain && has_users(rule))
    }

    fn own_domain(&self) -> Option<&DomainRule> {
        let parent = self.hostname.split_once('.').map_or("", |(_, parent)| parent);
        let system = |rule: &DomainRule| matches!(rule.fate, DomainFate::Users { users: Users::System, .. });
        self.domain(&self.hostname).or_else(|| self.domain(parent)).or_else(|| self.rule(system))
    }

    /// Whether the credentials are those of the account. Slow.
    pub fn check(
        &self,
        account: &Account,
        given: &Credentials,
        client: Option<IpAddr>,
        secure: bool,
    ) -> Verdict {
        let checked = match &account.place {
            Place::File(path) => match self.files.get(path) {
                Ok(file) => check_entry(&file, account, &given.password, client),
                Err(why) => return Verdict::Unable(why),
            },
            Place::System => match self.system(account, &given.password, client) {
                Ok(checked) => checked,
                Err(why) => return Verdict::Unable(why),
            },
            Place::Dovecot(socket) => {
                let question =
                    dovecot::Question { login: &given.login, password: &given.password, client, secure };
                return match dovecot::ask(socket, &question) {
                    Ok(Some(user)) => Verdict::Right(user),
                    Ok(None) => Verdict::Wrong(Why::Password),
                    Err(error) => Verdict::Unable(format!("Dovecot at {}: {error}", socket.display())),
                };
            }
            Place::Nowhere => waste(&self.usual(), &given.password, Why::Unknown),
        };
        match checked {
            Ok(None) => Verdict::Right(account.full.clone()),
            Ok(Some(why)) => Verdict::Wrong(why),
            Err(fault) => Verdict::Unable(fault.to_string()),
        }
    }

    /// An account of this host. An error is why nobody can say.
    fn system(
        &self,
        account: &Account,
        password: &str,
        client: Option<IpAddr>,
    ) -> Result<Result<Option<Why>, Fault>, String> {
        #[cfg(feature = "pam")]
        if let Some(service) = &self.auth.pam {
            return crate::pam::check(service, &account.local, password, client).map(Ok);
        }
        #[cfg(not(feature = "pam"))]
        let _ = client;
        let found = shadow::by_name(&account.local).map_err(|why| format!("shadow passwords: {why}"))?;
        let today =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        let decoy = || lock(&self.usual_account).clone();
        let Some(shadow) = found else { return Ok(waste(&decoy(), password, Why::Unknown)) };
        let Some(stored) = Password::of_shadow(&shadow.hash) else {
            return Ok(waste(&decoy(), password, Why::NoPassword));
        };
        *lock(&self.usual_account) = stored.clone();
        let expired = shadow.is_expired(today as i64).then_some(Why::Expired);
        Ok(stored.matches(password).map(|is_right| if is_right { expired } else { Some(Why::Password) }))
    }

    /// A password of the kind that most users have.
    fn usual(&self) -> Password {
        self.any_file().map_or_else(Password::nobodys, |file| file.usual.clone())
    }

    /// The users file by which those are judged who are in none.
    fn any_file(&self) -> Option<Arc<UsersFile>> {
        self.files().iter().find_map(|file| self.files.get(file).ok())
    }

    /// The account's keys, or decoys. An error is why nobody can say.
    pub fn keys(&self, account: &Account, client: Option<IpAddr>) -> Result<Found, String> {
        let (found, file) = match &account.place {
            Place::File(path) => {
                let file = self.files.get(path)?;
                (file.find(&account.local, &account.domain).cloned(), Some(file))
            }
            _ => (None, self.any_file()),
        };
        let salt = &hmac(&self.secret, account.full.as_bytes())[..16];
        let stored = found.as_ref().and_then(|entry| entry.password.as_ref());
        let keys = match stored {
            Some(password) => password.keys(salt),
            // The work that is done for most users is done for all.
            None => match &file {
                Some(file) => file.usual.keys(salt).map(|_| None),
                None => Ok(None),
            },
        };
        let decoy = match &found {
            None => Some(Why::Unknown),
            Some(Entry { password: None, .. }) => Some(Why::NoPassword),
            Some(entry) if !entry.admits(client) => Some(Why::Forbidden),
            Some(_) => None,
        };
        match (keys.map_err(|fault| fault.to_string())?, decoy) {
            (Some(keys), None) => Ok(Found { keys, decoy: None }),
            (_, why) => {
                let cost = file.map(|file| file.cost).unwrap_or_default();
                let keys = Keys::decoy(&account.full, &self.secret, cost);
                Ok(Found { keys, decoy: Some(why.unwrap_or(Why::NoKeys)) })
            }
        }
    }
}

/// `None`: it is the user's password.
fn check_entry(
    file: &UsersFile,
    account: &Account,
    given: &str,
    client: Option<IpAddr>,
) -> Result<Option<Why>, Fault> {
    let Some(entry) = file.find(&account.local, &account.domain) else {
        return waste(&file.usual, given, Why::Unknown);
    };
    let Some(password) = &entry.password else { return waste(&file.usual, given, Why::NoPassword) };
    let why = match (password.matches(given)?, entry.admits(client)) {
        (true, true) => return Ok(None),
        (true, false) => Why::Forbidden,
        (false, _) => Why::Password,
    };
    Ok(Some(why))
}

fn lock(usual: &Mutex<Password>) -> MutexGuard<'_, Password> {
    usual.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks what can't match, since it takes as long as what could.
fn waste(decoy: &Password, given: &str, why: Why) -> Result<Option<Why>, Fault> {
    std::hint::black_box(decoy.matches(given)?);
    Ok(Some(why))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLIENT: Option<IpAddr> = None;

    fn auth() -> Auth {
        Auth {
            lock_out_after: 20,
            lock_out: Duration::from_secs(600),
            mechanisms: vec![],
            dovecot: None,
            pam: None,
        }
    }

    fn users(domain: &str, users: Users) -> DomainRule {
        DomainRule::new(domain, DomainFate::Users { users, mailbox: None, owner: None })
    }

    fn sources_of(domains: &[DomainRule], auth: &Auth, more_files: Vec<PathBuf>) -> Sources {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut config = posta::config::load(Some(file.path())).unwrap();
        (config.hostname, config.domains) = ("mail.example.org".into(), domains.to_vec());
        (config.auth, config.routing.users_files) = (auth.clone(), more_files);
        Sources::new(&config, [7; 32])
    }

    fn sources(text: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, text).unwrap();
        let rules = [
            users("example.org", Users::File(file)),
            users("shell.example", Users::System),
            users("any.example", Users::Any),
            DomainRule::new("*", DomainFate::RelayMx),
        ];
        (folder, sources_of(&rules, &auth(), vec![]))
    }

    fn check(sources: &Sources, login: &str, password: &str) -> Verdict {
        let given = Credentials { login: login.into(), password: password.into() };
        sources.check(&sources.account(login), &given, CLIENT, true)
    }

    #[test]
    fn the_domain_of_a_login_says_who_knows_it() {
        let (_folder, sources) = sources("");
        let account = |login: &str| sources.account(login);
        assert!(matches!(account("a@example.org").place, Place::File(_)));
        assert_eq!(account("a").full, "a@example.org");
        assert_eq!(account("a@shell.example").place, Place::System);
        for nowhere in ["a@any.example", "a@elsewhere.example", "a@*", "a@", "a@example.org@example.org"] {
            assert_eq!(account(nowhere).place, Place::Nowhere, "{nowhere}");
        }
        let only_system = [users("other.example", Users::System)];
        let sources = sources_of(&only_system, &auth(), vec![]);
        assert_eq!(sources.account("a").full, "a@other.example");
    }

    #[test]
    fn users_of_domains_that_only_tables_have_are_known_by_their_whole_names() {
        let (folder, file) = (tempfile::tempdir().unwrap(), |name: &str| PathBuf::from(name));
        let path = folder.path().join("customers");
        std::fs::write(&path, "a@row.example:{PLAIN}x\nb:{PLAIN}y\na@shell.example:{PLAIN}x\n").unwrap();
        let rules = [users("shell.example", Users::System)];
        let sources = sources_of(&rules, &auth(), vec![path.clone()]);
        assert_eq!(sources.files(), std::slice::from_ref(&path));
        assert_eq!(check(&sources, "a@row.example", "x"), Verdict::Right("a@row.example".into()));
        assert_eq!(check(&sources, "a@row.example", "y"), Verdict::Wrong(Why::Password));
        for nobody in ["b@row.example", "a@other.example", "a@a@row.example"] {
            assert_eq!(check(&sources, nobody, "y"), Verdict::Wrong(Why::Unknown), "{nobody}");
        }
        assert_eq!(sources.account("a@shell.example").place, Place::System);
        let lost = sources_of(&rules, &auth(), vec![path, file("/no/such")]);
        assert_eq!(check(&lost, "a@row.example", "x"), Verdict::Right("a@row.example".into()));
        assert!(matches!(check(&lost, "c@row.example", "x"), Verdict::Unable(_)));
    }

    #[test]
    fn right_wrong_and_why() {
        let (_folder, sources) = sources(
            "alice@example.org:{PLAIN}x\nbob:{PLAIN}y\ncarl@example.org:!\ndan@example.org:{PLAIN}x::::::nologin\n",
        );
        assert_eq!(check(&sources, "alice@example.org", "x"), Verdict::Right("alice@example.org".into()));
        assert_eq!(check(&sources, "alice", "x"), Verdict::Right("alice@example.org".into()));
        assert_eq!(check(&sources, "bob@example.org", "y"), Verdict::Right("bob@example.org".into()));
        for (login, password, why) in [
            ("alice", "y", Why::Password),
            ("nobody", "x", Why::Unknown),
            ("carl", "x", Why::NoPassword),
            ("dan", "x", Why::Forbidden),
            ("alice@elsewhere.example", "x", Why::Unknown),
            ("alice@example.org@example.org", "x", Why::Unknown),
        ] {
            assert_eq!(check(&sources, login, password), Verdict::Wrong(why), "{login}");
        }
    }

    #[test]
    fn keys_are_those_stored_or_decoys_that_stay_the_same() {
        let keys = Keys::derive("x", b"salt", 4096).unwrap();
        let text = format!(
            "a@example.org:{{SCRAM-SHA-256}}{keys}\nb:{{PLAIN}}y\nc:$6$abc$LjS2xoTsdir5sS/M1uEwqdwDr1\n"
        );
        let (_folder, sources) = sources(&text);
        let find = |login: &str| sources.keys(&sources.account(login), CLIENT).unwrap();
        let a = find("a");
        assert!(a.keys == keys && a.decoy.is_none());
        assert!(find("b").keys.check("y").unwrap() && find("b").keys == find("b").keys);
        assert_eq!(find("c").decoy, Some(Why::NoKeys));
        assert_eq!(find("nobody").decoy, Some(Why::Unknown));
        assert!(find("nobody").keys == find("nobody").keys);
        assert_eq!(find("a@elsewhere.example").decoy, Some(Why::Unknown));
    }

    #[test]
    fn decoys_are_of_the_kind_that_most_keys_are() {
        let [many, more] = [9000, 9001].map(|n| Keys::derive("x", b"twelve octet", n).unwrap());
        let (_folder, sources) = sources(&format!(
            "a:{{SCRAM-SHA-256}}{more}\nb:{{SCRAM-SHA-256}}{many}\nc:{{SCRAM-SHA-256}}{many}\nd:{{PLAIN}}x\n"
        ));
        for nobody in ["nobody", "nobody@elsewhere.example", "a@example.org@example.org"] {
            let found = sources.keys(&sources.account(nobody), CLIENT).unwrap();
            assert_eq!(found.decoy, Some(Why::Unknown));
            assert_eq!((found.keys.iterations, found.keys.salt.len()), (9000, 12), "{nobody}");
        }
    }

    #[test]
    fn the_decoy_of_accounts_is_a_hash_that_libcrypt_works_on() {
        let made = posta::unix::crypt::hash("x", NO_ACCOUNT).unwrap();
        assert!(made != NO_ACCOUNT && made.len() == NO_ACCOUNT.len());
    }

    #[test]
    fn scram_is_taken_where_it_works_for_all() {
        let with = |domains: &[DomainRule], auth: &Auth| sources_of(domains, auth, vec![]).mechanisms();
        let (_folder, all_keys) = sources("a:{PLAIN}x\n");
        let file = users("example.org", Users::File(all_keys.files().remove(0)));
        let simple = [Mechanism::Plain, Mechanism::Login];
        assert_eq!(with(std::slice::from_ref(&file), &auth()), Mechanism::ALL);
        assert_eq!(with(&[file.clone(), users("x.example", Users::System)], &auth()), simple);
        assert_eq!(with(&[], &auth()), simple);
        let set = Auth { mechanisms: vec![Mechanism::ScramSha256], ..auth() };
        assert_eq!(with(&[], &set), [Mechanism::ScramSha256]);
        let dovecot = Auth { dovecot: Some("/run/dovecot/auth-client".into()), ..auth() };
        assert_eq!(with(&[file], &dovecot), simple);
    }

    #[test]
    fn a_file_that_can_t_be_read_is_nobody_s_fault() {
        let (folder, sources) = sources("");
        std::fs::remove_file(folder.path().join("users")).unwrap();
        assert!(matches!(check(&sources, "a", "x"), Verdict::Unable(why) if why.contains("users file")));
        assert!(sources.keys(&sources.account("a"), CLIENT).is_err());
    }
}
