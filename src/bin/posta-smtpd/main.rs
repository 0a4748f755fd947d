//! posta-smtpd: receives mail over SMTP (RFC 5321) and puts it into the spool.
//!
//! One thread accepts connections and watches the idle sessions; a pool of threads talks to the
//! clients, each thread to one at a time. A message is streamed into a file in `spool/new/`, and
//! `250` is said when it would survive a power cut. What becomes of it then is posta-queue's affair.
//! With `-i` it serves the one client on its standard input and ends.
//!
//! ```text
//! acceptor (keep) ──▶ worker: session ──▶ enter ──▶ TLS
//!    ▲                           │   └──▶ act ──▶ judge, recipient ──▶ policy, router
//!    │                           │         ├──▶ exchange, login ──▶ posta-auth
//!    └───── parked, resting ─────┘         └──▶ receive ──▶ spool
//! ```
//!
//! RIGHTS
//!   Started by root, it binds its sockets and becomes `user` for good. Otherwise it keeps the
//!   rights of its caller.
//!
//! SECURITY
//!   Security critical: reads from strangers.
//!   Opens: its configuration, `run/users`, the aliases and tables, `run/sessions/`, `run/counters/`, and `spool/new/`,
//!   where it only makes files; and before it gives its rights up the TLS keys, unless the keeper hands them over.
//!   Connects to `run/auth`. Never opens a file with passwords in it, never delivers, and starts no program:
//!   the kernel refuses it that, and to write anywhere but in the spool and `run/`.

mod act;
mod count;
mod discard;
mod enter;
mod exchange;
mod guest;
mod house;
mod judge;
mod keep;
mod leave;
mod listen;
mod login;
mod names;
mod offer;
mod receive;
mod recipient;
mod remark;
mod session;
mod settings;
mod tally;
mod trace;
mod wait;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Arc;

use posta::config::options::{Daemon, Own};
use posta::config::{self, Config, Fault, LogTo};
use posta::logbook::{count as counters, sessions, sink};
use posta::net::acceptor::Acceptor;
use posta::net::pool::Pool;
use posta::net::stream::Stream;
use posta::net::tls_store::Store;
use posta::policy::chain::Client;
use posta::spool::Spool;
use posta::unix::durable::Disk;
use posta::unix::enclosure::{Enclosure, Files};
use posta::unix::seccomp::Power;
use posta::unix::signals::Signals;
use posta::unix::{notify, privilege, users};

use house::{Entrance, House};
use keep::Desk;
use listen::ListenError;
use names::Directory;
use session::{Bench, Cause, Session};

const PROGRAM: &str = "posta-smtpd";

// sysexits(3)
const OS_ERROR: u8 = 71;
const CANNOT_CREATE: u8 = 73;
const CONFIG: u8 = 78;

/// Why the program ends before it has begun: its exit code, and what was to be said.
struct Unable(u8, String);

const DAEMON: Daemon = Daemon {
    name: PROGRAM,
    about: "Receives mail over SMTP.",
    own: &[Own {
        name: "i",
        value: None,
        help: "serve the client on standard input, as inetd starts us, then end",
    }],
};

fn main() -> ExitCode {
    let (given, config) = match DAEMON.begin().and_then(|given| Ok((given.config()?, given))) {
        Ok((config, given)) => (given, config),
        Err(code) => return code,
    };
    let done = if given.has("i") { serve_standard_input(&config) } else { serve(&config) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Unable(code, what)) => {
            log::error!("{what}");
            ExitCode::from(code)
        }
    }
}

/// A fault, as compilers name places.
fn place(fault: &Fault) -> String {
    format!("{}:{}:{}: {}", fault.file.display(), fault.line, fault.column, fault.what)
}

/// Serves all who come, until told to stop.
fn serve(config: &Config) -> Result<(), Unable> {
    let signals = Signals::take_over();
    sink::start(PROGRAM, config.log.to, config.log.level);
    let signals = signals.map_err(os_error("signals"))?;
    let (sockets, keeper) = listen::handed_over().map_err(unable_to_listen)?;
    let listeners = listen::open(&config.listen, sockets).map_err(unable_to_listen)?;
    let certificates = open_certificates(config, keeper)?;
    let places: Vec<String> = listeners.iter().map(listen::place).collect();
    give_rights_up(config)?;
    let files = privilege::raise_open_files().map_err(os_error("limit of open files"))?;
    let wanted = 2 * config.smtpd.max_sessions as u64 + 64;
    if files < wanted {
        log::warn!("{files} open files may be too few for max_sessions: raise the limit to {wanted}");
    }
    let house = Arc::new(house(config, certificates)?);
    house.certificates.watch().map_err(os_error("certificates"))?;
    if let Some(missing) = house.terms().missing() {
        log::warn!("waiting for {}, which posta-auth writes; clients get 421 until then", missing.display());
    }
    let mut acceptor =
        Acceptor::open(listeners, signals, settings::limits(config)).map_err(os_error("acceptor"))?;
    acceptor.expect_proxies(&config.listen.iter().map(|entry| entry.proxy).collect::<Vec<bool>>());
    let desk = Desk { house: Arc::clone(&house), porch: acceptor.porch() };
    let counters_file = config.run.join(counters::RECEIVING).join(PROGRAM);
    if let Err(error) = counters::keep(counters_file.clone(), count::text) {
        log::warn!("{}: {error}; \"postactl metrics\" lacks this program", counters_file.display());
    }
    let pool = Pool::start(keep::size(config.smtpd.max_sessions), desk);
    log::info!("{PROGRAM} {} listens on {}", env!("CARGO_PKG_VERSION"), places.join(", "));
    notify::ready();
    let kept = keep::keep(acceptor, &pool, &house, || reload(config, &house)).map_err(os_error("poll"));
    counters::end(&counters_file, &count::text());
    kept
}

/// Serves the one client on standard input.
fn serve_standard_input(config: &Config) -> Result<(), Unable> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(os_error("standard input"))?;
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(os_error("standard output"))?;
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    // inetd makes standard error the client's connection too; the log is not for the client.
    let log_to = match stderr {
        Ok(stderr) if is_same(&stdin, &stderr) => LogTo::Syslog,
        _ => config.log.to,
    };
    sink::start(PROGRAM, log_to, config.log.level);
    let certificates = open_certificates(config, None)?;
    give_rights_up(config)?;
    let house = house(config, certificates)?;
    let stream = Stream::standard(stdin, stdout).map_err(os_error("standard input"))?;
    let address = stream.peer_address().map(|address| address.ip().to_canonical());
    let client = Client { address, ..Client::default() };
    let entrance = Entrance { starttls: true, ..Entrance::default() };
    let mut session = Session::new(stream, client, entrance, house.terms(), None);
    session.attend(Cause::Opened, &house, &mut Bench::default(), None);
    Ok(())
}

/// Whether two descriptors are of the same file or socket.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let inode = |fd: &OwnedFd| {
        let file = File::from(fd.try_clone()?);
        file.metadata().map(|about| (about.dev(), about.ino()))
    };
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

/// Becomes the user of the configuration, if we are root and may.
fn give_rights_up(config: &Config) -> Result<(), Unable> {
    privilege::set_umask(0o027);
    let make_folders = |owner| {
        for (name, lost) in
            [(sessions::RECEIVING, "sessions are not kept"), (counters::RECEIVING, "nothing is counted")]
        {
            let folder = config.run.join(name);
            if let Err(error) = sessions::make(&folder, owner) {
                log::warn!("{}: {error}; {lost}", folder.display());
            }
        }
    };
    if !privilege::is_root() {
        log::debug!("not started by root: keeping the rights of user id {}", users::current().1);
        make_folders(None);
    } else if config.drop_privileges {
        let user = &config.user;
        let account = users::by_name(user).map_err(os_error(user))?.ok_or_else(|| {
            Unable(
                CONFIG,
                format!("user = \"{user}\": no such account; make it, or set drop_privileges = false"),
            )
        })?;
        make_folders(Some((account.uid, account.gid)));
        privilege::become_account(&account).map_err(os_error(user))?;
    } else {
        make_folders(None);
        log::warn!("drop_privileges = false: this program reads from strangers and is still root");
    }
    // Tables may lie anywhere, and which ones there are may change while it runs.
    let write = vec![config.spool.clone(), config.run.clone()];
    let files = Files { read: vec!["/".into()], write, network: true };
    let in_force = Enclosure { files: Some(files), without: Power::ALL }.enter();
    log::info!("{}", in_force.map_err(os_error("enclosure"))?);
    Ok(())
}

fn unable_to_listen(error: ListenError) -> Unable {
    Unable(OS_ERROR, error.to_string())
}

/// The certificates, from the keeper or from their files.
fn open_certificates(config: &Config, keeper: Option<OwnedFd>) -> Result<Arc<Store>, Unable> {
    Store::open(settings::tls_files(config), keeper).map_err(|error| Unable(CONFIG, error.to_string()))
}

fn house(config: &Config, certificates: Arc<Store>) -> Result<House, Unable> {
    let terms = settings::terms(config).map_err(|error| Unable(CONFIG, error.to_string()))?;
    let directory = Directory::open(config.remote.zone.as_deref(), config.remote.nameserver);
    Ok(House::new(terms, open_spool(config)?, certificates, config.run.clone(), directory))
}

fn open_spool(config: &Config) -> Result<Spool, Unable> {
    Spool::for_writing(&config.spool, Arc::new(Disk))
        .map_err(|error| Unable(CANNOT_CREATE, error.to_string()))
}

fn os_error(what: &str) -> impl Fn(io::Error) -> Unable {
    let what = what.to_string();
    move |error| Unable(OS_ERROR, format!("{what}: {error}"))
}

/// Reads the configuration again. A bad one is reported, and the old one stays.
fn reload(began_with: &Config, house: &House) -> bool {
    match config::load(began_with.file.as_deref()) {
        Err(faults) => {
            faults.iter().for_each(|fault| log::error!("{}", place(fault)));
            log::error!("the configuration is not changed; mend the faults and send SIGHUP again");
            false
        }
        Ok(mut config) => {
            for entry in config.listen.iter().filter(|entry| !began_with.listen.contains(entry)) {
                log::warn!(
                    "{}: listeners are opened at the start only; restart",
                    listen::name(&entry.address)
                );
            }
            let most = keep::room(began_with.smtpd.max_sessions);
            if config.smtpd.max_sessions > most {
                log::warn!("max_sessions is {most} until the next start");
                config.smtpd.max_sessions = most;
            }
            config.listen.clone_from(&began_with.listen);
            // All or nothing: what may still fail is done first.
            match settings::terms(&config) {
                Ok(terms) => {
                    house.certificates.change(settings::tls_files(&config));
                    house.change(terms);
                }
                Err(error) => {
                    log::error!("{error}");
                    log::error!("the configuration is not changed; mend the fault and send SIGHUP again");
                    return false;
                }
            }
            sink::set(config.log.level);
            log::info!("configuration read again");
            true
        }
    }
}
