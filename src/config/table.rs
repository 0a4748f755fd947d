//! Every setting, once: its name, its kind, its default and a line of help.
//!
//! From these rows come the structs of the configuration, the reader of posta.toml, what is said
//! of an unknown name, `postactl settings`, and the list in posta.toml(5), which `tests/settings.rs`
//! compares with them. A default is TOML.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::sasl::mechanism::Mechanism;

use super::domain;
use super::file::Entry;
use super::kind::{Choice, Flag, Kind, Lines, MailboxPath, Maybe, Number, Path, Paths, Size, Span, Text};
use super::login;
use super::network::{Address, Fingerprints, Networks, Place, Sources};
use super::source::{self, Sort, Source, Table, Tables};
use super::{DomainRule, ListenAddress, ListenTls, LogTo, Network, RelayTls, SourceAddresses};

/// A setting, as `postactl settings` shows it.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its full name, as `smtpd.max_recipients`. In `listen.` it is said once for each `[[listen]]`,
    /// in `retry.` for each `[[retry]]`, in `domains.NAME.` for each domain.
    pub name: &'static str,
    /// What it is if it is not set, in TOML.
    pub default: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
    kind: fn() -> String,
}

impl Row {
    /// What a value may be, in a few words.
    pub fn kind(&self) -> String {
        (self.kind)()
    }
}

/// All rows.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    let sections = [
        Config::ROWS,
        Listen::ROWS,
        Tls::ROWS,
        Words::ROWS,
        TableWords::ROWS,
        Routing::ROWS,
        Log::ROWS,
        Smtpd::ROWS,
        Local::ROWS,
        Access::ROWS,
        Limits::ROWS,
        Auth::ROWS,
        Queue::ROWS,
        Retry::ROWS,
        Remote::ROWS,
    ];
    sections.into_iter().flatten()
}

/// Makes a struct of a section's rows, `name: type = kind, default, help;`. Fields that are no
/// settings of their own, but whole tables, follow with how they are read.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident, $prefix:literal {
            $( $field:ident: $type:ty = $kind:expr, $default:tt, $help:literal; )*
        }
        $( with($entry:ident) {
            $( $(#[$more_doc:meta])* $more:ident: $more_type:ty = $read:expr; )*
        } )?
    ) => {
        $(#[$doc])*
        $vis struct $name {
            $( #[doc = $help] pub $field: $type, )*
            $( $( $(#[$more_doc])* pub $more: $more_type, )* )?
        }

        impl $name {
            pub(super) const ROWS: &[Row] = &[$( Row {
                name: concat!($prefix, stringify!($field)),
                default: stringify!($default),
                help: $help,
                kind: || $kind.word(),
            } ),*];

            /// Reads the section, and notes its faults.
            pub(super) fn read(entry: &mut Entry<'_, '_>) -> $name {
                $( let $field = entry.setting(stringify!($field), &$kind, stringify!($default)); )*
                $( let $entry = entry; $( let $more = $read; )* )?
                $name { $( $field, )* $( $( $more, )* )? }
            }
        }
    };
}
section! {
    /// Everything that is set, after defaults. Only a program's `main.rs` sees it; every room gets
    /// a small struct of plain values.
    #[derive(Debug, Clone)]
    pub struct Config, "" {
        hostname: String = Text, "", "This host's own name. Empty: the system's.";
        postmaster: String = Text, "root", "Who reads mail for postmaster of a domain that has none of its own.";
        spool: PathBuf = Path, "/var/spool/posta", "The folder of the queue.";
        run: PathBuf = Path, "/run/posta", "The folder of sockets, pid files and counters.";
        libexec: PathBuf = Path, "/usr/local/libexec/posta",
            "Where a program that is not beside its caller is looked for.";
        user: String = Text, "posta", "The account that posta-smtpd runs as.";
        queue_user: String = Text, "postaq", "The account that posta-queue runs as.";
        remote_user: String = Text, "postar", "The account that posta-remote runs as.";
        drop_group: String = Text, "postadrop", "The group of posta-drop.";
        drop_privileges: bool = Flag, true, "False: every program keeps the rights of its caller. For tests.";
    }
    with(entry) {
        /// The file it was read from, if there is one.
        file: Option<PathBuf> = None;
        /// `[[listen]]`: where posta-smtpd listens.
        listen: Vec<Listen> = entry.each("listen", Listen::read);
        /// `[tls]`
        tls: Tls = entry.section("tls", Tls::read);
        /// `[domains]`: what becomes of mail for each domain, `*` last.
        domains: Vec<DomainRule> = entry.section("domains", domain::read);
        /// `[tables]`: tables by name. Settings that name one have what it says already.
        tables: Vec<(String, Source)> = entry.section("tables", source::read);
        /// `[routing]`
        routing: Routing = entry.section("routing", Routing::read);
        /// `[log]`
        log: Log = entry.section("log", Log::read);
        /// `[smtpd]`
        smtpd: Smtpd = entry.section("smtpd", Smtpd::read);
        /// `[local]`
        local: Local = entry.section("local", Local::read);
        /// `[access]`
        access: Access = entry.section("access", Access::read);
        /// `[limits]`
        limits: Limits = entry.section("limits", Limits::read);
        /// `[auth]`
        auth: Auth = entry.section("auth", Auth::read);
        /// `[queue]`
        queue: Queue = entry.section("queue", Queue::read);
        /// `[[retry]]`: other times for some domains and errors; the first that fits is in force.
        retry: Vec<Retry> = entry.each_if_any("retry", Retry::read);
        /// `[remote]`
        remote: Remote = entry.section("remote", Remote::read);
    }
}

section! {
    /// One place where posta-smtpd listens.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Listen, "listen." {
        address: ListenAddress = Place, "[::]:25", "An address and a port, or unix:/path.";
        tls: ListenTls = Choice(ListenTls::WORDS), "starttls",
            "Whether sessions may turn to TLS (where there is a certificate), never do, or begin with it.";
        submission: bool = Flag, false, "For mail of this host's users: AUTH wanted, sender completed.";
        trusted: bool = Flag, false, "Nobody reads along here: passwords are taken without TLS too.";
        proxy: bool = Flag, false, "A proxy connects here, and says for whom (PROXY protocol, 1 and 2).";
        lmtp: bool = Flag, false, "LMTP and not SMTP: for other servers that hand mail over. Never on port 25.";
    }
}

section! {
    /// The certificate of this host.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Tls, "tls." {
        certificate: Option<PathBuf> = Maybe(Path), "",
            "A file with the certificate and its chain, or a folder with NAME/cert.pem and NAME/key.pem.";
        key: Option<PathBuf> = Maybe(Path), "", "The file with its key. Empty: it is in the certificate's file.";
        client_ca: Option<PathBuf> = Maybe(Path), "",
            "The authorities whose certificates of clients count. Empty: no client is asked for one.";
    }
}

section! {
    /// What is written of one domain; a [`DomainRule`] is what it means.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Words, "domains.NAME." {
        users: String = Text, "", "Mailboxes of this host, of: \"system\", its accounts; a users file; \"*\", anybody; \"virtual\".";
        mailbox: Option<String> = Maybe(MailboxPath), "", "The mailbox of each user. Empty: as local.mailbox says.";
        owner: String = Text, "", "The account that owns the mailboxes. Empty: each user.";
        quota: Option<u64> = Maybe(Size), "", "Most bytes in one Maildir. Empty and no quota_messages: as local.quota.";
        quota_messages: u64 = Number { least: 0, most: 1_000_000_000 }, 0,
            "Most messages in one Maildir. 0 and no quota: as local.quota_messages.";
        lmtp: String = Text, "", "Mail is handed over by LMTP to this host:port or unix:/path.";
        relay: String = Text, "", "Mail is sent on: to \"mx\", the domain's own servers, or to this host:port.";
        accept: bool = Choice(&[("anyone", false), ("clients", true)]), "anyone",
            "From whom mail for the domain is taken: anyone, or only clients that may relay.";
        tls: Option<RelayTls> = Maybe(Choice(RelayTls::WORDS)), "",
            "Whether the way to the relay may be or must be encrypted, or verified too. Empty: as remote.tls.";
        login: Option<PathBuf> = Maybe(Path), "", "The file with the user name and password for the relay.";
        source: SourceAddresses = Sources, "",
            "The address that connections come from, or one of each family. Empty: as remote.source.";
        messages_per_minute: u32 = Number { least: 0, most: 1_000_000 }, 0,
            "Messages a minute that are sent there. 0: as many as there are.";
    }
}

section! {
    /// What is written of one table; a [`Source`] is what it means.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct TableWords, "tables.NAME." {
        kind: Sort = Choice(Sort::WORDS), "text", "What the table is kept in.";
        file: Option<PathBuf> = Maybe(Path), "", "The file with the table.";
        query: String = Text, "", "Of a database: the query that gives the values of a key, which is ?1.";
    }
}

section! {
    /// Addresses: where they lead, and how they are rewritten.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Routing, "routing." {
        virtual_aliases: Vec<Source> = Tables, [], "Tables that lead an address, in whatever domain, to others.";
        domains: Vec<Source> = Tables, [], "Tables with more domains, and what becomes of their mail.";
        users_files: Vec<PathBuf> = Paths, [], "Users files that entries in tables of domains may name.";
        logins: Option<PathBuf> = Maybe(Path), "",
            "A folder with files for login that entries in tables of domains may name. Empty: none.";
        canonical: Vec<Source> = Tables, [], "Tables that rewrite the sender and the recipients of an envelope.";
        sender_canonical: Vec<Source> = Tables, [], "The same for the sender only, asked before canonical.";
        recipient_canonical: Vec<Source> = Tables, [], "The same for recipients only, asked before canonical.";
        masquerade: Vec<String> = Lines, [], "Domains that hide the hosts below them in the sender's address.";
        masquerade_except: Vec<String> = Lines, ["root"], "Names whose hosts are not hidden.";
        srs_domain: String = Text, "", "The domain of SRS senders, which forwarded mail gets. Empty: none does.";
        verp: Vec<String> = Lines, [], "Lists with an owner whose copies name their recipient in the sender.";
        signed_senders: Vec<String> = Lines, [], "Domains whose senders are signed on the way out (prvs).";
        refuse_unsigned_bounces: bool = Flag, false,
            "Bounces to these domains are refused unless they come to a signed sender.";
        key: Option<PathBuf> = Maybe(Path), "", "The file with the keys that sign senders. Empty: SPOOL/key.";
    }
}

section! {
    /// Where programs say what they do.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Log, "log." {
        to: LogTo = Choice(&[("stderr", LogTo::Stderr), ("syslog", LogTo::Syslog)]), "stderr",
            "Where the log goes.";
        level: log::LevelFilter = Choice(LEVELS), "info", "How much is logged.";
    }
}

const LEVELS: &[(&str, log::LevelFilter)] = &[
    ("error", log::LevelFilter::Error),
    ("warn", log::LevelFilter::Warn),
    ("info", log::LevelFilter::Info),
    ("debug", log::LevelFilter::Debug),
];

section! {
    /// Sessions with clients.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Smtpd, "smtpd." {
        relay_from: Vec<Network> = Networks, ["127.0.0.0/8", "::1"], "Clients that may relay without a password.";
        max_message_size: u64 = Size, "50M", "The longest message taken, as announced in EHLO.";
        max_recipients: usize = Number { least: 1, most: 100_000 }, 1000, "Recipients of one message.";
        max_sessions: usize = Number { least: 1, most: 1_000_000 }, 1000, "Sessions at once.";
        max_sessions_per_client: usize = Number { least: 1, most: 1_000_000 }, 100,
            "Sessions at once from one client address.";
        max_errors: usize = Number { least: 1, most: 10_000 }, 20,
            "Wrong commands and refused recipients in one session, then it ends with 421.";
        max_hops: usize = Number { least: 1, most: 1000 }, 50, "Received fields in a message; more is a loop.";
        command_timeout: Duration = Span, "5m", "How long a client may take for a whole command line.";
        data_timeout: Duration = Span, "5m", "How long a client may take for each piece of a message.";
        message_timeout: Duration = Span, "1h", "How long a client may take for a whole message.";
        min_data_rate: u64 = Number { least: 0, most: 1_000_000 }, 100,
            "Octets a second that message data has to come at, after the first data_timeout. 0: any.";
        login_senders: Option<PathBuf> = Maybe(Path), "",
            "A table of logins and the senders that are theirs. Empty: each owns the address that it is.";
        hide_client: bool = Flag, false, "Who has logged in is not shown with name and address in Received.";
        xclient_from: Vec<Network> = Networks, [], "Clients that may speak for others (XCLIENT).";
        xforward_from: Vec<Network> = Networks, [], "Clients that may say whom they have mail from (XFORWARD).";
        relay_fingerprints: Vec<String> = Fingerprints, [],
            "SHA-256 fingerprints of client certificates whose owners may relay; see tls.client_ca.";
        reverse_dns: bool = Flag, true, "The DNS is asked for each client's name.";
        greet_pause: Option<Duration> = Maybe(Span), "",
            "Strangers wait so long for their greeting; who talks before is refused. Empty: not at all.";
        refuse_own_name: bool = Flag, true, "Strangers that name themselves by our own name or address are refused.";
        refuse_bad_names: bool = Flag, false, "Strangers whose name in EHLO is no full host name are refused.";
        refuse_null_mx_senders: bool = Flag, true,
            "Strangers' senders are refused whose domain says in the DNS that it takes no mail (null MX).";
    }
}

section! {
    /// Mailboxes of this host.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Local, "local." {
        mailbox: String = MailboxPath, "~/Maildir/", "Each user's mailbox: a Maildir if it ends in /, else an mbox.";
        aliases: Source = Table, "/etc/aliases", "The table of aliases(5). A missing text file is an empty one.";
        delimiter: String = Text, "+", "What parts a user's name from an extension; empty: nothing does.";
        folders: bool = Flag, false, "Mail for name+books goes into the folder .books of the Maildir, if it is there.";
        quota: Option<u64> = Maybe(Size), "", "Most bytes in one Maildir, all its folders together. Empty: no limit.";
        quota_messages: u64 = Number { least: 0, most: 1_000_000_000 }, 0, "Most messages in one Maildir. 0: no limit.";
        over_quota: bool = Choice(&[("later", false), ("never", true)]), "later",
            "What becomes of mail for a full mailbox: it waits, or it is given back.";
        confine: bool = Flag, true, "Whether delivery processes keep to homes and mailboxes (Landlock).";
        forward_includes: bool = Flag, true, "Whether a user's .forward may name lists by :include:.";
        root_mailbox: String = MailboxPath, "/var/mail/root/",
            "Mail for uid 0 that no alias sends elsewhere, delivered as user mail.";
        max_children: usize = Number { least: 1, most: 10_000 }, 100, "Child processes of posta-local at once.";
        timeout: Duration = Span, "5m", "How long one delivery may take.";
    }
}

section! {
    /// Tables of who may do what; see posta-access(5).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Access, "access." {
        clients: Option<PathBuf> = Maybe(Path), "", "The table of clients, by address and name.";
        helo: Option<PathBuf> = Maybe(Path), "", "The table of names that clients give themselves.";
        senders: Option<PathBuf> = Maybe(Path), "", "The table of senders.";
        recipients: Option<PathBuf> = Maybe(Path), "", "The table of recipients.";
    }
}

section! {
    /// Rates of each client. 0 is no limit; clients in `relay_from` have none.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Limits, "limits." {
        connections_per_minute: u32 = Number { least: 0, most: 1_000_000 }, 0, "Connections of one client. 0: no limit.";
        messages_per_minute: u32 = Number { least: 0, most: 1_000_000 }, 0, "Messages of one client. 0: no limit.";
        recipients_per_minute: u32 = Number { least: 0, most: 1_000_000 }, 0, "Recipients of one client. 0: no limit.";
        messages_per_minute_per_sender: u32 = Number { least: 0, most: 1_000_000 }, 0, "Messages of one sender. 0: no limit.";
        recipients_per_minute_per_sender: u32 = Number { least: 0, most: 1_000_000 }, 0,
            "Recipients of one sender. 0: no limit.";
        messages_per_minute_per_login: u32 = Number { least: 0, most: 1_000_000 }, 0, "Messages of one login. 0: no limit.";
        recipients_per_minute_per_login: u32 = Number { least: 0, most: 1_000_000 }, 0,
            "Recipients of one login. 0: no limit.";
        unknown_recipients_per_hour: u32 = Number { least: 0, most: 1_000_000 }, 0,
            "Recipients that do not exist, of one client; one more ends its session. 0: no limit.";
    }
}

section! {
    /// Logins.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Auth, "auth." {
        lock_out_after: u32 = Number { least: 0, most: 1_000_000 }, 20,
            "Wrong passwords of one client or for one user, then all are refused. 0: never.";
        lock_out: Duration = Span, "10m", "For how long they are refused.";
        mechanisms: Vec<Mechanism> = login::Mechanisms, [], "What is offered. Empty: what works for every user.";
        dovecot: Option<PathBuf> = Maybe(login::Socket), "",
            "Passwords are asked of the Dovecot that listens there. Empty: of the users' own domains.";
        pam: Option<String> = Maybe(Text), "",
            "Accounts of this host are asked of PAM, as this service. Empty: of /etc/shadow.";
    }
}

section! {
    /// The queue.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Queue, "queue." {
        give_up: Duration = Span, "5d", "After this the sender is told that a message could not be delivered.";
        warn_after: Duration = Span, "4h", "After this the sender is told that a message is late.";
        first_retry: Duration = Span, "5m", "The wait after the first attempt.";
        longest_retry: Duration = Span, "4h", "The longest wait between two attempts.";
        slots: usize = Number { least: 1, most: 1_000_000 }, 1000, "Messages worked on at once.";
        double_bounces_to: Option<String> = Maybe(Text), "",
            "Who is told of bounces that can't be delivered, as \"postmaster\". Empty: they are dropped.";
        history: Duration = Span, "14d", "How long what became of a message is kept, for postactl show. \"0s\": not at all.";
        history_size: u64 = Size, "200M", "The most that is kept of it.";
        metrics_file: Option<PathBuf> = Maybe(Path), "",
            "What all programs count is written to this file each minute, for node_exporter. Empty: nowhere.";
    }
}

section! {
    /// Other times than those of the queue, for mail that waits for a domain, or for a kind of error.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Retry, "retry." {
        domain: String = Text, "*", "Of the recipient: a domain, .domain for all below it, or \"*\".";
        status: String = Text, "", "The status of the last attempt, or its beginning, as \"4.2.2\". Empty: any.";
        give_up: Option<Duration> = Maybe(Span), "", "In place of queue.give_up.";
        first_retry: Option<Duration> = Maybe(Span), "", "In place of queue.first_retry.";
        longest_retry: Option<Duration> = Maybe(Span), "", "In place of queue.longest_retry.";
    }
}

section! {
    /// Sending to other servers.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Remote, "remote." {
        port: u16 = Number { least: 1, most: 65_535 }, 25, "The port of a domain's mail exchangers.";
        max_connections: usize = Number { least: 1, most: 10_000 }, 200, "Connections at once.";
        max_connections_per_destination: usize = Number { least: 1, most: 10_000 }, 20,
            "Connections at once to one destination.";
        max_messages_per_connection: usize = Number { least: 1, most: 1_000_000 }, 100,
            "Messages sent over one connection.";
        chunking: bool = Flag, true, "Messages go in chunks (BDAT) to servers that offer CHUNKING.";
        nameserver: Option<SocketAddr> = Maybe(Address), "", "The name server that is asked. Empty: the system's.";
        zone: Option<PathBuf> = Maybe(Path), "", "A text file that answers in place of the DNS, for tests.";
        connect_timeout: Duration = Span, "30s", "How long a server may take to take a connection.";
        tls: RelayTls = Choice(RelayTls::WORDS), "may",
            "Whether the way to a server may be or must be encrypted, or verified too.";
        ca_file: Option<PathBuf> = Maybe(Path), "",
            "The authorities that are trusted where a server is verified. Empty: the system's.";
        source: SourceAddresses = Sources, "",
            "The address that connections come from, or one of each family. Empty: the system chooses.";
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::unset;
    use super::*;

    #[test]
    fn every_row_is_of_its_kind_and_says_what_it_does() {
        // Reading nothing reads every default.
        let config = unset(Config::read);
        assert_eq!(config.smtpd.max_message_size, 50 << 20);
        unset(Words::read);
        for row in rows() {
            assert!(row.help.ends_with('.') && row.help.len() < 100, "{}: {}", row.name, row.help);
            assert!(!row.kind().is_empty());
        }
    }

    #[test]
    fn every_setting_has_one_row() {
        let mut names: Vec<&str> = rows().map(|row| row.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 50);
    }
}
