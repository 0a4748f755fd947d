//! posta-local: puts mail into the mailboxes of this host.
//!
//! posta-queue connects to `run/local` and hands over open messages, each with the mailboxes that
//! one owner has of its recipients. For each owner there is a child process with his rights; the
//! parent only passes jobs, reports and the syncs that all of them share.
//!
//! RIGHTS
//!   The parent runs as root (or as its caller) and parses neither messages nor what is in homes:
//!   only the requests of posta-queue, whose user it checks. A child looks its owner up, becomes him
//!   for good (groups, ids, no_new_privs, umask 077), confines itself to his home and to mailboxes
//!   (Landlock) unless it is there for commands, and only then reads its first job. Mail is never
//!   delivered as root, unless all of posta keeps root's rights (`drop_privileges = false`); commands,
//!   mbox files and .forward are then refused.
//! OPENS
//!   The parent: the configuration, `run/local`. A child: its owner's `.forward` and mailboxes; it starts
//!   commands for him.
//! NEVER
//!   Writes the spool, opens a network socket, lets an address near a shell but in the environment.
//!
//! Where to read on: `parent` is the parent's loop, `lines` its owners, `seat` who gets which child,
//! `syncs` the shared syncs; `child` is the child's loop, `desk` its jobs, `forward` what the owner
//! wants of them; `talk` is what the two say to each other.

mod answer;
mod bare;
mod batches;
mod child;
mod desk;
mod extension;
mod forward;
mod home;
mod lines;
mod mbox;
mod parent;
mod pipe;
mod process;
mod refusal;
mod rounds;
mod runner;
mod seat;
mod syncer;
mod syncs;
mod talk;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use posta::unix::enclosure::{self, Enclosure};
use posta::unix::pass::PacketListener;
use posta::unix::seccomp::Power;
use posta::unix::signals::Signals;
use posta::unix::{listeners, privilege, users};

use posta::courier::request::Owner;

use posta::config::options::{Daemon, Given, Own};
use posta::config::{self, Config, DomainFate, DomainRule};
use posta::logbook;
use posta::maildir::quota::Limit;

use crate::parent::{Parent, Settings};
use crate::process::{IDS_OPTION, OWNER_OPTION};

/// Exit codes of sysexits.h.
const EX_USAGE: u8 = 64;
const EX_OSERR: u8 = 71;

/// Most jobs that posta-queue may have under way.
const CREDITS: u64 = 1000;

const DAEMON: Daemon = Daemon {
    name: "posta-local",
    about: "Puts mail into the mailboxes of this host.",
    own: &[
        Own { name: OWNER_OPTION, value: Some("NAME"), help: "(posta-local itself) serve an account" },
        Own { name: IDS_OPTION, value: Some("UID:GID"), help: "(posta-local itself) serve a user id" },
    ],
};

fn main() -> ExitCode {
    let signals = match Signals::take_over() {
        Ok(signals) => signals,
        Err(error) => return fail(EX_OSERR, &format!("signals: {error}")),
    };
    let given = match DAEMON.begin() {
        Ok(given) => given,
        Err(code) => return code,
    };
    let inherited = match listeners::inherited() {
        Ok(inherited) => inherited,
        Err(error) => return fail(EX_OSERR, &format!("sockets handed over: {error}")),
    };
    match child_of(&given) {
        Ok(None) => begin_parent(given, signals, inherited),
        Ok(Some(owner)) => match inherited.into_iter().find(|(name, _)| name == "parent") {
            Some((_, socket)) => child::run(&owner, socket),
            None => fail(EX_USAGE, "only posta-local itself starts a child"),
        },
        Err(why) => fail(EX_USAGE, &why),
    }
}

/// The owner, if this is a child.
fn child_of(given: &Given) -> Result<Option<Owner>, String> {
    if let Some(name) = given.value(OWNER_OPTION) {
        return Ok(Some(Owner::Account(name)));
    }
    let Some(ids) = given.value(IDS_OPTION) else { return Ok(None) };
    let parse = |(uid, gid): (&str, &str)| Some((uid.parse().ok()?, gid.parse().ok()?));
    match ids.split_once(':').and_then(parse) {
        Some((uid, gid)) => Ok(Some(Owner::Ids(uid, gid, String::new()))),
        None => Err(format!("\"{ids}\" is not UID:GID")),
    }
}

fn begin_parent(given: Given, signals: Signals, inherited: Vec<(String, OwnedFd)>) -> ExitCode {
    let config = match given.config() {
        Ok(config) => config,
        Err(code) => return code,
    };
    logbook::sink::start("posta-local", config.log.to, config.log.level);
    match serve(given.file, &config, signals, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(EX_OSERR)
        }
    }
}

fn serve(
    file: Option<PathBuf>,
    config: &Config,
    signals: Signals,
    inherited: Vec<(String, OwnedFd)>,
) -> Result<(), String> {
    let is_root = privilege::is_root();
    if !is_root || !config.drop_privileges {
        let why = if is_root { "drop_privileges is off" } else { "not started by root" };
        log::warn!("{why}: all mailboxes are written with the rights of uid {}", users::current().1);
    }
    let open_files = privilege::raise_open_files().map_err(|error| format!("raising open files: {error}"))?;
    // Its children inherit it, and so do their commands: nothing that a user's program may want.
    let enclosure = Enclosure { files: None, without: &[Power::Machine] };
    enclosure.enter().map_err(|error| format!("giving up powers: {error}"))?;
    if config.local.confine && !enclosure::knows_files() {
        log::warn!("this kernel has no Landlock: delivery processes are not confined to mailboxes");
    }
    let queue_user = queue_user(config, is_root)?;
    let settings = settings(config, open_files, &queue_user);
    let listener = match inherited.into_iter().find(|(name, _)| name == "local") {
        Some((_, socket)) => PacketListener::from(socket),
        None => bind(&config.run.join("local"), queue_user.as_ref().map(|user| user.gid))?,
    };
    let reload = || match config::load(file.as_deref()) {
        Ok(config) => {
            logbook::sink::set(config.log.level);
            log::info!("configuration read again");
            Some(crate::settings(&config, open_files, &queue_user))
        }
        Err(faults) => {
            faults.iter().for_each(|fault| log::error!("{fault}"));
            log::error!("the configuration is left as it was");
            None
        }
    };
    let run = Parent::new(settings, signals, listener).and_then(|mut parent| parent.run(&reload));
    run.map_err(|error| error.to_string())
}

/// The account of posta-queue, where it is not the caller.
fn queue_user(config: &Config, is_root: bool) -> Result<Option<users::Account>, String> {
    if !is_root || !config.drop_privileges {
        return Ok(None);
    }
    match users::by_name(&config.queue_user) {
        Ok(Some(account)) => Ok(Some(account)),
        Ok(None) => Err(format!("queue_user: there is no account {}", config.queue_user)),
        Err(error) => Err(format!("queue_user: looking up {}: {error}", config.queue_user)),
    }
}

fn settings(config: &Config, open_files: u64, queue_user: &Option<users::Account>) -> Settings {
    // Each job holds a file here, each child a socket; a little more is needed beside them.
    let credits = CREDITS.min(open_files / 2).max(1);
    let most_children = usize::try_from(open_files / 4).unwrap_or(usize::MAX);
    let mut peers = vec![0, users::current().1];
    peers.extend(queue_user.as_ref().map(|user| user.uid));
    Settings {
        child: talk::Settings {
            confined: None,
            keep_rights: !privilege::is_root() || !config.drop_privileges,
            hostname: config.hostname.clone(),
            timeout: config.local.timeout,
            delimiter: config.local.delimiter.clone(),
            forward_includes: config.local.forward_includes,
            folders: config.local.folders,
            limit: Limit {
                bytes: config.local.quota.unwrap_or_default(),
                messages: config.local.quota_messages,
            },
            full_is_final: config.local.over_quota,
            syslog: config.log.to == config::LogTo::Syslog,
            level: config.log.level,
        },
        folders: folders(config),
        max_children: config.local.max_children.min(most_children),
        credits: u32::try_from(credits).unwrap_or(u32::MAX),
        peers,
    }
}

/// The folders that mailboxes lie in, if children are to confine themselves.
fn folders(config: &Config) -> Option<Vec<PathBuf>> {
    if !config.local.confine {
        return None;
    }
    let of_domain = |rule: &DomainRule| match &rule.fate {
        DomainFate::Users { mailbox, .. } => mailbox.clone(),
        _ => None,
    };
    let of_domains = config.domains.iter().filter_map(of_domain);
    let all = of_domains.chain([config.local.mailbox.clone(), config.local.root_mailbox.clone()]);
    let mut folders: Vec<PathBuf> = all.filter_map(|path| seat::folder_of(&path)).collect();
    folders.sort();
    folders.dedup();
    Some(folders)
}

/// Binds `run/local`; as root, for posta-queue's group.
fn bind(path: &Path, group: Option<u32>) -> Result<PacketListener, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let listener = PacketListener::bind(path, 0o660).map_err(named)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(named)?;
    }
    Ok(listener)
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("posta-local: {text}");
    ExitCode::from(code)
}
