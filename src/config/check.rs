//! Contradictions: what each setting may say, but not beside the others or on this host.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::mail::address::parse_domain;

use crate::unix::{privilege, users};

use super::file::Reading;
use super::nearest::quoted;
use super::{Config, DomainFate, DomainRule, Listen, ListenAddress, ListenTls, Users};

/// Notes every contradiction.
pub(super) fn contradictions(config: &Config, reading: &mut Reading<'_>) {
    names(config, reading);
    listeners(config, reading);
    keys(config, reading);
    mailboxes(config, reading);
    routing(config, reading);
    relays(config, reading);
    retries(config, reading);
    logins(config, reading);
    let queue = &config.queue;
    if queue.first_retry > queue.longest_retry {
        let what = format!(
            "first_retry ({} s) is longer than longest_retry ({} s)",
            queue.first_retry.as_secs(),
            queue.longest_retry.as_secs()
        );
        let both = ["queue.first_retry", "queue.longest_retry"];
        let set = both.into_iter().find(|setting| reading.is_set(setting));
        reading.fault_of(set.unwrap_or(both[0]), what);
    }
    let told = queue.double_bounces_to.as_deref();
    if let Some(text) = told.filter(|text| super::address(text, &config.hostname).is_none()) {
        let what = format!("double_bounces_to: {} is no address; \"postmaster\" is one", quoted(text));
        reading.fault_of("queue.double_bounces_to", what);
    }
}

/// What this build can't do, and what nobody could.
fn logins(config: &Config, reading: &mut Reading<'_>) {
    let auth = &config.auth;
    if auth.pam.is_some() && !cfg!(feature = "pam") {
        let what =
            "pam: this posta was built without PAM; build it with \"make FEATURES=pam\", or leave it empty";
        reading.fault_of("auth.pam", what.to_string());
    }
    let with_keys = auth.mechanisms.iter().find(|mechanism| mechanism.needs_keys());
    if let (Some(mechanism), Some(_)) = (with_keys, &auth.dovecot) {
        let what = format!("mechanisms: {mechanism} shows no password, and Dovecot is asked about passwords");
        reading.fault_of("auth.mechanisms", what);
    }
}

fn names(config: &Config, reading: &mut Reading<'_>) {
    if parse_domain(&config.hostname).as_deref() != Ok(&config.hostname) || config.hostname.starts_with('[') {
        let what = format!(
            "hostname: {} is no host name; set it to this host's full name, as \"mail.example.org\"",
            quoted(&config.hostname)
        );
        reading.fault_of("hostname", what);
    }
    let accounts = [
        ("postmaster", &config.postmaster),
        ("user", &config.user),
        ("queue_user", &config.queue_user),
        ("remote_user", &config.remote_user),
        ("drop_group", &config.drop_group),
    ];
    for (setting, name) in accounts {
        if name.is_empty() {
            reading.fault_of(setting, format!("{setting}: a name is wanted here"));
        }
    }
}

/// No address twice: the second could not be bound.
fn listeners(config: &Config, reading: &mut Reading<'_>) {
    for (n, listen) in config.listen.iter().enumerate() {
        let setting = format!("listen.{n}.address");
        let before = config.listen[..n].iter().position(|other| covers(&other.address, &listen.address));
        if let Some(other) = before {
            let line = reading.line_of(&format!("listen.{other}.address"));
            let what = format!("address: {} is taken by the [[listen]] of line {line}", listen.address);
            reading.fault_of(&setting, what);
        }
        if listen.tls == ListenTls::Implicit && config.tls.certificate.is_none() {
            let what = "tls: \"implicit\" needs a certificate: set tls.certificate and tls.key".to_string();
            reading.fault_of(&format!("listen.{n}.tls"), what);
        }
        lmtp(n, listen, reading);
    }
}

/// LMTP has its own places.
fn lmtp(n: usize, listen: &Listen, reading: &mut Reading<'_>) {
    // RFC 2033 5: "The LMTP protocol MUST NOT be used on TCP port 25."
    if listen.lmtp && matches!(&listen.address, ListenAddress::Tcp(address) if address.port() == 25) {
        let what = "lmtp: not on port 25, which is SMTP's (RFC 2033); use another, or unix:/path".to_string();
        reading.fault_of(&format!("listen.{n}.lmtp"), what);
    }
    if listen.lmtp && listen.submission {
        let what = "submission: mail is handed in over SMTP, not over LMTP; take one of both out".to_string();
        reading.fault_of(&format!("listen.{n}.submission"), what);
    }
}

/// Whether two addresses can't be listened on at once. `[::]` takes IPv4 too; port 0 is always
/// another one.
fn covers(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => {
            let all = |ip: std::net::IpAddr| ip.is_unspecified();
            let one_family = a.is_ipv4() == b.is_ipv4();
            let both = |v6: &std::net::SocketAddr| v6.is_ipv6() && all(v6.ip());
            let meet = a.ip() == b.ip() || (one_family && (all(a.ip()) || all(b.ip()))) || both(a) || both(b);
            a.port() == b.port() && a.port() != 0 && meet
        }
        _ => false,
    }
}

/// The certificate's files must be readable by who opens them.
fn keys(config: &Config, reading: &mut Reading<'_>) {
    if config.tls.key.is_some() && config.tls.certificate.is_none() {
        reading.fault_of("tls.key", "key: a key without a certificate: set tls.certificate too".into());
    }
    if config.tls.client_ca.is_some() && config.tls.certificate.is_none() {
        reading.fault_of("tls.client_ca", "client_ca: there is no TLS without tls.certificate".into());
    }
    let tls = &config.tls;
    for (setting, path) in
        [("certificate", &tls.certificate), ("key", &tls.key), ("client_ca", &tls.client_ca)]
    {
        let Some(path) = path else { continue };
        if let Err(why) = readable(path, setting == "certificate") {
            // The keeper opens the keys, as root, and hands them on: the programs that run as
            // another user need not be able to.
            let left_to_keeper =
                why.kind() == ErrorKind::PermissionDenied && config.drop_privileges && !privilege::is_root();
            if !left_to_keeper {
                let what =
                    format!("{setting}: {} can't be read: {why}; {}", path.display(), remedy(setting, &why));
                reading.fault_of(&format!("tls.{setting}"), what);
            }
        }
    }
}

/// Whether a file can be opened, or a folder where one is allowed.
fn readable(path: &Path, folder: bool) -> io::Result<()> {
    let file = File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || (folder && kind.is_dir()) { Ok(()) } else { Err(io::Error::other("it is no file")) }
}

fn remedy(setting: &str, why: &io::Error) -> String {
    match why.kind() {
        ErrorKind::PermissionDenied => "make it readable for the user who starts posta".to_string(),
        _ => format!("set tls.{setting} to where it is"),
    }
}

/// The way to a relay is the relay's, whichever domain's mail goes there.
fn relays(config: &Config, reading: &mut Reading<'_>) {
    let hop = |rule: &DomainRule| match &rule.fate {
        DomainFate::RelayTo(hop) | DomainFate::Lmtp(hop) => Some(hop.clone()),
        _ => None,
    };
    let way = |rule: &DomainRule| {
        let tls = rule.tls.unwrap_or(config.remote.tls);
        (tls, rule.login.clone(), rule.source, rule.messages_per_minute)
    };
    for (n, rule) in config.domains.iter().enumerate() {
        let Some(to) = hop(rule) else { continue };
        let other = config.domains[..n].iter().find(|other| hop(other).as_ref() == Some(&to));
        if let Some(other) = other.filter(|other| way(other) != way(rule)) {
            let word = match () {
                () if rule.login != other.login => "login",
                () if rule.source != other.source => "source",
                () if rule.messages_per_minute != other.messages_per_minute => "messages_per_minute",
                () => "tls",
            };
            let what = format!(
                "{word}: mail for {} goes to {to} too, in another way; say the same in both",
                other.domain
            );
            reading.fault_of(&format!("domains.{}.{word}", rule.domain), what);
        }
    }
}

/// Owners must exist, and paths must be what they are used for.
fn mailboxes(config: &Config, reading: &mut Reading<'_>) {
    for rule in &config.domains {
        let DomainFate::Users { owner: Some(owner), .. } = &rule.fate else { continue };
        // A name service that can't say now may say later: the mail waits then.
        if let Ok(None) = users::by_name(owner) {
            let what = format!("owner: there is no account {} on this host", quoted(owner));
            reading.fault_of(&format!("domains.{}.owner", rule.domain), what);
        }
    }
    let root = &config.local.root_mailbox;
    if root.starts_with('~') || root.contains('{') {
        let what = "root_mailbox: a fixed path that begins with \"/\" is wanted here".to_string();
        reading.fault_of("local.root_mailbox", what);
    }
    let delimiter = &config.local.delimiter;
    if delimiter.chars().any(|c| !c.is_ascii_punctuation() || "@./\"\\".contains(c)) {
        let what = format!("delimiter: {} can't part a user's name from an extension", quoted(delimiter));
        reading.fault_of("local.delimiter", what);
    }
}

/// Domains of `[routing]` must be some.
fn routing(config: &Config, reading: &mut Reading<'_>) {
    let routing = &config.routing;
    let mut domain = |setting: &str, name: &str| {
        if parse_domain(name).is_err() || name.starts_with('[') {
            let word = setting.trim_start_matches("routing.");
            reading.fault_of(setting, format!("{word}: {} is no domain", quoted(name)));
        }
    };
    routing.masquerade.iter().for_each(|name| domain("routing.masquerade", name));
    routing.signed_senders.iter().for_each(|name| domain("routing.signed_senders", name));
    if !routing.srs_domain.is_empty() {
        domain("routing.srs_domain", &routing.srs_domain);
    }
    if routing.refuse_unsigned_bounces && routing.signed_senders.is_empty() {
        let what = "refuse_unsigned_bounces: no sender is signed; name domains in signed_senders".to_string();
        reading.fault_of("routing.refuse_unsigned_bounces", what);
    }
}

/// What a `[[retry]]` is for must be a domain and the beginning of a status.
fn retries(config: &Config, reading: &mut Reading<'_>) {
    for (n, retry) in config.retry.iter().enumerate() {
        let domain = retry.domain.strip_prefix('.').unwrap_or(&retry.domain);
        if retry.domain != "*" && parse_domain(domain).is_err() {
            let what = format!("domain: {} is no domain", quoted(&retry.domain));
            reading.fault_of(&format!("retry.{n}.domain"), what);
        }
        let parts: Vec<&str> = retry.status.split('.').collect();
        let is_number = |part: &&str| part.len() <= 3 && part.parse::<u16>().is_ok();
        let fits = parts.len() <= 3 && parts.iter().all(is_number) && parts[0] == "4";
        if !retry.status.is_empty() && !fits {
            let what = format!("status: {} is no beginning of a status as \"4.2.2\"", quoted(&retry.status));
            reading.fault_of(&format!("retry.{n}.status"), what);
        }
    }
}

impl Config {
    /// The files with names and passwords for relays, each once, and the folder with more of them.
    pub fn login_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.domains.iter().filter_map(|rule| rule.login.clone()).collect();
        files.extend(self.routing.logins.clone());
        files.sort();
        files.dedup();
        files
    }

    /// What the administrator should know, but what doesn't stop a start. What only the tables can
    /// tell, the router warns of.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.drop_privileges {
            warnings
                .push("drop_privileges is false: every program keeps the rights of its caller".to_string());
        }
        if !self.hostname.contains('.') && self.hostname != "localhost" {
            warnings.push(format!("hostname {} has no domain: other servers may refuse it", self.hostname));
        }
        for network in self.smtpd.relay_from.iter().filter(|network| network.bits == 0) {
            warnings.push(format!("smtpd.relay_from has {network}: everybody may relay"));
        }
        if self.queue.warn_after >= self.queue.give_up {
            warnings.push(
                "queue.warn_after is not before give_up: no sender hears that mail is late".to_string(),
            );
        }
        self.warn_of_accounts(&mut warnings);
        self.warn_of_users_files(&mut warnings);
        warnings
    }

    fn warn_of_accounts(&self, warnings: &mut Vec<String>) {
        if !self.drop_privileges || !privilege::is_root() {
            return;
        }
        for (setting, name) in
            [("user", &self.user), ("queue_user", &self.queue_user), ("remote_user", &self.remote_user)]
        {
            if let Ok(None) = users::by_name(name) {
                warnings.push(format!("{setting}: there is no account {name}: make it, or name another"));
            }
        }
        if let Ok(None) = users::group_id(&self.drop_group) {
            warnings
                .push(format!("drop_group: there is no group {}: make it, or name another", self.drop_group));
        }
    }

    fn warn_of_users_files(&self, warnings: &mut Vec<String>) {
        for path in &self.routing.users_files {
            if path.try_exists().is_ok_and(|exists| !exists) {
                let path = path.display();
                warnings.push(format!("there is no users file {path} (routing.users_files)"));
            }
        }
        for rule in &self.domains {
            if let DomainFate::Users { users: Users::File(path), .. } = &rule.fate
                && path.try_exists().is_ok_and(|exists| !exists)
            {
                let (path, domain) = (path.display(), &rule.domain);
                warnings.push(format!("there is no users file {path}: mail for {domain} has to wait"));
            }
        }
    }
}
