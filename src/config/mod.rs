//! Floor 3, told: what the administrator says in posta.toml.
//!
//! `table` has every setting, once, as a row; the structs and their reader come from there.
//! `kind` (with `network` and `login`, for `[auth]`) knows how each kind of value is written, `file` where it stands
//! in the file, `domain` what an entry of `[domains]` means, `source` how tables are named, `check` what
//! can't be said together, and `nearest` what a misspelt word was meant to be; [`options`] reads the command
//! line, which says where the file is. All faults of a file are found at once, each
//! with its line and column.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::mail::address::Mailbox;
use crate::mail::limit::Limit;

use crate::courier::request::Hop;

mod check;
mod domain;
mod file;
mod kind;
mod login;
pub mod nearest;
mod network;
pub mod options;
mod source;
mod table;

pub use crate::courier::terms::{RelayTls, SourceAddresses};
pub use domain::domain_rule;
pub use source::Source;
pub use table::{
    Access, Auth, Config, Limits, Listen, Local, Log, Queue, Remote, Retry, Routing, Row, Smtpd, Tls,
};

/// Where posta-smtpd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(std::net::SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// What sessions of a listener do about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenTls {
    /// They may turn to it with STARTTLS, where there is a certificate (RFC 3207).
    StartTls,
    /// They stay plain.
    None,
    /// They begin with it (RFC 8314 3.3).
    Implicit,
}

/// What becomes of mail for one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRule {
    /// In lower case; `*` for all others, and `.example.org` for all below `example.org`.
    pub domain: String,
    /// Where mail goes.
    pub fate: DomainFate,
    /// `accept = "clients"`: only for who may relay. Always so for `*`.
    pub clients_only: bool,
    /// How the way to a relay is encrypted; `None`: as `remote.tls` says.
    pub tls: Option<RelayTls>,
    /// The file with the name and password for a relay.
    pub login: Option<PathBuf>,
    /// Where connections come from. A family without an address: as `remote.source` says.
    pub source: SourceAddresses,
    /// Messages a minute that are sent there; 0: as many as there are.
    pub messages_per_minute: u32,
    /// What a Maildir of its users may hold; `None`: as `[local]` says.
    pub limit: Option<Limit>,
}

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainFate {
    /// Mailboxes of this host. `mailbox` and `owner` as set, or `None` for the defaults of `[local]`.
    Users {
        /// Who exists.
        users: Users,
        /// The path of a mailbox, with `{user}`, `{domain}` and a leading `~/`.
        mailbox: Option<String>,
        /// The account that owns the mailboxes.
        owner: Option<String>,
    },
    /// Handed over by LMTP.
    Lmtp(Hop),
    /// `relay = "mx"`
    RelayMx,
    /// `relay = "host:port"`
    RelayTo(Hop),
}

/// Who exists in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// `"system"`: accounts of this host.
    System,
    /// A users file (passwd-file format).
    File(PathBuf),
    /// `"*"`: any local part.
    Any,
    /// `"virtual"`: only addresses that a table of `routing.virtual_aliases` has.
    Virtual,
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error, as systemd and `make run` want it.
    Stderr,
    /// The system's log.
    Syslog,
}

/// A network: an address and the number of its leading bits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The first address.
    pub address: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    pub bits: u8,
}

/// One fault of a file, at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0 if it is the whole file's fault.
    pub line: usize,
    /// Characters, from 1.
    pub column: usize,
    /// What is wrong, and where it helps, what was perhaps meant.
    pub what: String,
}

/// The address that a setting names: a whole one, or a name of this host. `None`: it is neither.
pub fn address(text: &str, hostname: &str) -> Option<Mailbox> {
    match text.contains('@') {
        true => Mailbox::parse(text, true).ok(),
        false => Mailbox::from_parts(text, hostname).ok(),
    }
}

/// Where posta.toml is unless `-c` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/posta/posta.toml";

/// Reads a file; `None` is the default one, which may be absent: then all is as by default. All
/// faults at once, in the order of the file.
pub fn load(file: Option<&Path>) -> Result<Config, Vec<Fault>> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let fault = |line, column, what| Fault { file: path.to_path_buf(), line, column, what };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == ErrorKind::NotFound && file.is_none() => return file::parse(path, ""),
        Err(why) => return Err(vec![fault(0, 0, format!("can't be read: {why}"))]),
    };
    let text = String::from_utf8(bytes).map_err(|why| {
        let good = String::from_utf8_lossy(&why.as_bytes()[..why.utf8_error().valid_up_to()]);
        let (line, column) = file::line_and_column(&good, good.len());
        vec![fault(line, column, "not UTF-8 text".to_string())]
    })?;
    let config = file::parse(path, &text)?;
    Ok(Config { file: Some(path.to_path_buf()), ..config })
}

/// Every setting there is.
pub fn settings() -> impl Iterator<Item = &'static Row> {
    table::rows()
}

impl DomainRule {
    /// A rule with nothing more said than where mail goes.
    pub fn new(domain: &str, fate: DomainFate) -> DomainRule {
        let clients_only = domain == "*";
        let (domain, source) = (domain.to_string(), SourceAddresses::default());
        let (tls, login, messages_per_minute, limit) = (None, None, 0, None);
        DomainRule { domain, fate, clients_only, tls, login, source, messages_per_minute, limit }
    }
}

impl ListenTls {
    const WORDS: &[(&str, ListenTls)] =
        &[("starttls", ListenTls::StartTls), ("none", ListenTls::None), ("implicit", ListenTls::Implicit)];
}

impl Network {
    /// Reads `192.0.2.0/24`, or a lone address, all bits of which count. Bits beyond the mask stay.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Network { address, bits })
    }

    /// Whether an address lies in the network. An IPv4 address that a listener on `[::]` shows as
    /// an IPv6 one counts as itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && Network { address, bits: self.bits }.first() == self.first()
    }

    /// The first address: the others are 0.
    pub fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits.min(32))).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128))).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Fault {
    /// `FILE:LINE:COLUMN: what`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            line => write!(f, "{}:{line}:{}: {}", self.file.display(), self.column, self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let faults = |faults: Vec<Fault>| faults.iter().map(|fault| fault.to_string()).collect();
        file::parse(Path::new("posta.toml"), text).map_err(faults)
    }

    /// The one fault of a text.
    fn fault(text: &str) -> String {
        let mut faults = parse(text).expect_err(text);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults.remove(0)
    }

    #[test]
    fn logins_that_can_t_work_are_told() {
        let told = fault("[auth]\ndovecot = 'unix:/x'\nmechanisms = ['PLAIN', 'SCRAM-SHA-256']");
        assert!(told.contains(":3:") && told.contains("SCRAM-SHA-256 shows no password"), "{told}");
        if !cfg!(feature = "pam") {
            let told = fault("[auth]\npam = 'posta'");
            assert!(told.contains(":2:") && told.contains("FEATURES=pam"), "{told}");
        }
    }

    #[test]
    fn an_empty_file_is_a_working_server() {
        let config = parse("").unwrap();
        assert!(!config.hostname.is_empty());
        assert_eq!(
            config.listen,
            [Listen {
                address: ListenAddress::Tcp("[::]:25".parse().unwrap()),
                tls: ListenTls::StartTls,
                submission: false,
                trusted: false,
                proxy: false,
                lmtp: false,
            }]
        );
        let system = DomainFate::Users { users: Users::System, mailbox: None, owner: None };
        assert_eq!(config.domains[0], DomainRule::new(&config.hostname, system));
        assert_eq!(config.domains.last().unwrap(), &DomainRule::new("*", DomainFate::RelayMx));
        assert!(config.domains.last().unwrap().clients_only);
        assert_eq!(config.queue.give_up, Duration::from_secs(5 * 86_400));
        assert!(config.smtpd.relay_from[0].contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_design_s_own_domains_are_read() {
        let config = parse(
            r#"
            hostname = "Mail.Example.org."
            listen = []
            [domains]
            "*" = { relay = "smtp.isp.example:587", tls = "verify", login = "/etc/posta/smarthost" }
            "Example.org" = { users = "system" }
            "example.net" = { users = "/etc/posta/users", mailbox = "/srv/mail/{domain}/{user}/", owner = "root" }
            "lists.example" = { lmtp = "unix:/run/lists/lmtp" }
            "backup.example" = { relay = "primary.example" }
            "partner.example" = { relay = "10.1.1.1:2525", accept = "clients" }
            [domains."catch.example"]
            users = "*"
            mailbox = "/srv/mail/catch/"
            "#,
        )
        .unwrap();
        assert_eq!(config.hostname, "mail.example.org");
        assert_eq!(config.listen, []);
        let names: Vec<&str> = config.domains.iter().map(|rule| rule.domain.as_str()).collect();
        let order = ["example.org", "example.net", "lists.example", "backup.example", "partner.example"];
        assert_eq!(names, [&order[..], &["catch.example", "*"]].concat());
        let fate = |n: usize| config.domains[n].fate.clone();
        assert_eq!(
            fate(1),
            DomainFate::Users {
                users: Users::File("/etc/posta/users".into()),
                mailbox: Some("/srv/mail/{domain}/{user}/".into()),
                owner: Some("root".into())
            }
        );
        assert_eq!(fate(2), DomainFate::Lmtp(Hop::Unix("/run/lists/lmtp".into())));
        assert_eq!(fate(3), DomainFate::RelayTo(Hop::Host("primary.example".into(), 25)));
        assert!(!config.domains[3].clients_only && config.domains[4].clients_only);
        let all = config.domains.last().unwrap();
        assert!(all.clients_only && all.tls == Some(RelayTls::Verify));
        assert_eq!(all.login.as_deref(), Some(Path::new("/etc/posta/smarthost")));
    }

    #[test]
    fn unknown_words_name_the_nearest_known_one() {
        assert_eq!(
            fault("\n[smtpd]\n  max_sesions = 3\n"),
            "posta.toml:3:3: unknown setting \"max_sesions\"; did you mean \"max_sessions\"?"
        );
        assert!(fault("max_sessions = 3").ends_with("; it belongs under [smtpd]"));
        assert!(fault("[queue]\nhostname = 'x'").ends_with("; it belongs above all tables"));
        assert!(fault("[smptd]\nmax_hops = 20").ends_with("; did you mean \"smtpd\"?"));
        assert_eq!(
            fault("[tls]\n[[listen]]\ntls = 'starttl'"),
            "posta.toml:3:7: tls: unknown value \"starttl\"; did you mean \"starttls\"?"
        );
        assert_eq!(
            fault("[domains]\n'x.example' = { user = 'system', users = 'system' }"),
            "posta.toml:2:17: unknown setting \"user\"; did you mean \"users\"?"
        );
        assert!(fault("[domains]\n'x' = { users = 'sytem' }").contains("did you mean \"system\"?"));
        let unquoted = parse("[domains]\nexample.org = { users = 'system' }").unwrap_err();
        assert!(unquoted[0].contains("a domain is written in quotes: \"example.org\""), "{unquoted:?}");
    }

    #[test]
    fn all_faults_come_at_once_in_the_order_of_the_file() {
        let faults =
            parse("[smtpd]\nmax_recipients = 'many'\nx y\n[queue]\ngive_up = '5 days'\nsloots = 3\n[local\n")
                .unwrap_err();
        let starts: Vec<&str> =
            faults.iter().map(|f| &f[..f.match_indices(": ").next().unwrap().0]).collect();
        assert!(starts.is_sorted(), "{faults:#?}");
        for place in
            ["posta.toml:2:18", "posta.toml:3:", "posta.toml:5:11", "posta.toml:6:1", "posta.toml:7:"]
        {
            assert_eq!(
                starts.iter().filter(|start| start.starts_with(place)).count(),
                1,
                "{place} {faults:#?}"
            );
        }
        assert_eq!(faults.len(), 5, "{faults:#?}");
    }

    #[test]
    fn contradictions_are_found() {
        let cases = [
            (
                "[[listen]]\naddress = '[::]:25'\n[[listen]]\naddress = '0.0.0.0:25'",
                4,
                "taken by the [[listen]] of line 2",
            ),
            ("[[listen]]\ntls = 'implicit'", 2, "needs a certificate"),
            ("[[listen]]\naddress = '[::1]:25'\nlmtp = true", 3, "not on port 25"),
            ("[[listen]]\naddress = '[::1]:24'\nlmtp = true\nsubmission = true", 4, "not over LMTP"),
            ("[queue]\nfirst_retry = '1d'", 2, "longer than longest_retry"),
            ("[queue]\nlongest_retry = '1m'", 2, "longer than longest_retry"),
            ("[queue]\ndouble_bounces_to = 'a@b@'", 2, "is no address"),
            (
                "[domains]\n'a.example' = { users = 'system' }\n'A.Example.' = { relay = 'mx' }",
                3,
                "named twice",
            ),
            (
                "[domains]\n'a' = { users = 'system', owner = 'no-such-account' }",
                2,
                "no account \"no-such-account\"",
            ),
            ("[domains]\n'a' = { users = '*' }", 2, "needs a mailbox"),
            ("[domains]\n'a' = { users = 'system', mailbox = '/m/{usr}' }", 2, "did you mean \"{user}\"?"),
            ("[domains]\n'a' = { users = 'system', relay = 'mx' }", 2, "only one of"),
            ("[domains]\n'a' = { accept = 'clients' }", 2, "must say where"),
            ("[domains]\n'a' = { relay = 'mx', owner = 'root' }", 2, "of a domain with users"),
            ("[domains]\n'a' = { users = 'system', login = '/x' }", 2, "words of a relay"),
            ("[domains]\n'a' = { relay = 'unix:/x' }", 2, "is for lmtp"),
            ("[domains]\n'a' = { relay = 'x:y' }", 2, "is not \"mx\", host:port"),
            ("[domains]\n'*' = { users = 'system' }", 2, "all other domains"),
            ("[domains]\n'a b' = { relay = 'mx' }", 2, "no domain"),
            ("[domains]\n'a' = 'system'", 2, "a table such as"),
            ("[tls]\ncertificate = '/no/such/file'", 2, "can't be read"),
            (
                "[tls]\ncertificate = '/etc/passwd'\nkey = '/etc'",
                3,
                "key: /etc can't be read: it is no file; set tls.key",
            ),
            ("[tls]\nkey = '/etc/passwd'", 2, "without a certificate"),
            ("[local]\ndelimiter = 'a'", 2, "can't part"),
            ("[local]\nroot_mailbox = '~/Maildir/'", 2, "fixed path"),
            ("hostname = 'no host'", 1, "no host name"),
            ("user = ''", 1, "a name is wanted"),
            ("smtpd = 3", 1, "a table [smtpd] is wanted here, not a number"),
            ("[[retry]]\ndomain = 'a b'", 2, "is no domain"),
            ("[[retry]]\nstatus = '5.1'", 2, "no beginning of a status"),
            ("listen = 3", 1, "[[listen]] is wanted here"),
            ("listen = [3]", 1, "a table of [[listen]]"),
        ];
        for (text, line, what) in cases {
            let fault = fault(text);
            assert!(
                fault.starts_with(&format!("posta.toml:{line}:")) && fault.contains(what),
                "{text}: {fault}"
            );
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_be_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("posta.toml");
        let faults = load(Some(&path)).unwrap_err();
        assert!(faults[0].to_string().starts_with(&format!("{}: can't be read", path.display())));
        std::fs::write(&path, b"# \xc3\xa9\n# \xff\n").unwrap();
        assert_eq!(
            (load(Some(&path)).unwrap_err()[0].line, load(Some(&path)).unwrap_err()[0].column),
            (2, 3)
        );
        std::fs::write(&path, "drop_privileges = false\n").unwrap();
        let config = load(Some(&path)).unwrap();
        assert_eq!(config.file, Some(path));
        assert!(config.warnings()[0].starts_with("drop_privileges is false"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "([a-z.]{0,8}|[\\[\\]\"'{}=,\\n ]|hostname|listen|domains|\\PC){0,30}") {
            let _ = parse(&text);
        }
    }
}
