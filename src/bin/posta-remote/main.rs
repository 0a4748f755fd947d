//! posta-remote: sends mail to other hosts by SMTP, and by LMTP to where the administrator says.
//!
//! SECURITY
//!   Talks to strangers, so it has nothing to give them: it runs as `remote_user`, opens no file but
//!   its configuration and the certificates of authorities (and Unix sockets of LMTP servers), and
//!   holds no message but those whose open files posta-queue has handed to it, and no password but
//!   those for relays, which the keeper has; of these it reads with pread only. It writes nothing but
//!   counters and the last lines of sessions, in two folders of its own below `run`, and starts no program,
//!   which the kernel sees to. It listens to nobody but posta-queue, on `run/remote`, whose user the kernel
//!   vouches for.
//!   What a server says is bounded in length and time, and goes no further than a report.

mod candidate;
mod connection;
mod count;
mod deliver;
mod family;
mod flight;
mod message;
mod office;
mod recorder;
mod reuse;
mod security;
mod serve;
mod unreachable;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use log::{error, info, warn};

use posta::unix::enclosure::{Enclosure, Files};
use posta::unix::pass::PacketListener;
use posta::unix::seccomp::Power;
use posta::unix::signals::Signals;
use posta::unix::users::{self, Account};
use posta::unix::{listeners, notify, privilege, sysexits};

use posta::config::options::Daemon;
use posta::config::{self, Config, ListenAddress};
use posta::logbook::count::{SENDING, end, keep};
use posta::logbook::sessions::{self, Sessions};
use posta::logbook::sink;
use posta::net::relay_logins::{self, Logins};
use posta::net::tls_client::Connector;

use crate::office::{Office, Settings};
use crate::security::Ways;
use crate::serve::Desk;

/// The rights of `run/remote`: posta-queue's user or group, and nobody else.
const SOCKET_MODE: u32 = 0o660;

/// What ends the program: an exit code, and why.
type Failure = (u8, String);

const DAEMON: Daemon = Daemon { name: "posta-remote", about: "Sends mail to other hosts.", own: &[] };

fn main() -> ExitCode {
    let begun = DAEMON.begin().and_then(|given| Ok((given.config()?, given)));
    begun.map_or_else(|code| code, |(config, given)| run(given.file(), &config))
}

fn run(file: Option<&Path>, config: &Config) -> ExitCode {
    sink::start("posta-remote", config.log.to, config.log.level);
    match start(file, config) {
        Ok(()) => {
            info!("posta-remote ended");
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            error!("{why}");
            ExitCode::from(code)
        }
    }
}

/// Opens what only root may open, gives root's rights up, and serves.
fn start(file: Option<&Path>, config: &Config) -> Result<(), Failure> {
    let system = |what: &str, error| (sysexits::OSERR, format!("{what}: {error}"));
    let signals = Signals::take_over().map_err(|error| system("can't take over signals", error))?;
    if let Err(error) = privilege::raise_open_files() {
        warn!("the limit of open files stays as it is: {error}");
    }
    let queue = users::by_name(&config.queue_user)
        .map_err(|error| system(&format!("can't look up queue_user \"{}\"", config.queue_user), error))?;
    let mut inherited =
        listeners::inherited().map_err(|error| system("sockets that were handed over", error))?;
    let mut handed_over = |name: &str| {
        let place = inherited.iter().position(|(its, _)| its == name)?;
        Some(inherited.swap_remove(place).1)
    };
    let listener = listen(config, queue.as_ref(), handed_over("remote"))?;
    let logins = Logins::open(config.login_files(), handed_over(relay_logins::NAME))
        .map_err(|fault| (sysexits::CONFIG, fault.to_string()))?;
    make_folders(config, queue.as_ref());
    give_up_rights(config)?;
    enclose(config)?;
    let settings = settings(config).map_err(|why| (sysexits::CONFIG, why))?;
    let mut trusted = vec![0, users::current().1];
    trusted.extend(queue.map(|account| account.uid));
    let reload = |office: &Office| reload(file, office);
    let sessions = Sessions::open(config.run.join(sessions::SENDING));
    let office = Arc::new(Office::new(settings, logins, sessions));
    let counters = config.run.join(SENDING).join("posta-remote");
    let flight = office.flight.clone();
    let counted = move || count::text(flight.lines());
    if let Err(error) = keep(counters.clone(), counted.clone()) {
        warn!("{}: {error}; \"postactl metrics\" lacks this program", counters.display());
    }
    let desk = Desk { office, listener, signals: &signals, trusted, reload: &reload };
    info!("posta-remote {} started", env!("CARGO_PKG_VERSION"));
    notify::ready();
    let served = desk.serve(config.remote.max_connections);
    end(&counters, &counted());
    served.map_err(|error| (sysexits::TEMPFAIL, error.to_string()))
}

/// The socket that was handed over, or a new one at `run/remote`.
fn listen(
    config: &Config,
    queue: Option<&Account>,
    handed_over: Option<OwnedFd>,
) -> Result<PacketListener, Failure> {
    if let Some(fd) = handed_over {
        return Ok(PacketListener::from(fd));
    }
    let path = config.run.join("remote");
    let failed = |error| {
        let what = format!("{}: {error}; is the folder there, and no other posta-remote?", path.display());
        (sysexits::CANTCREAT, what)
    };
    let listener = PacketListener::bind(&path, SOCKET_MODE).map_err(failed)?;
    if let Some(queue) = queue.filter(|_| privilege::is_root() && config.drop_privileges) {
        chown(&path, None, Some(queue.gid)).map_err(failed)?;
    }
    Ok(listener)
}

/// Makes the folders of sessions and counters, which posta-queue's group may read. What can't be kept
/// is no reason not to send mail.
fn make_folders(config: &Config, queue: Option<&Account>) {
    let owner = match users::by_name(&config.remote_user) {
        Ok(Some(account)) if privilege::is_root() && config.drop_privileges => {
            Some((account.uid, queue.map_or(account.gid, |queue| queue.gid)))
        }
        _ => None,
    };
    privilege::set_umask(0o027);
    // What is made in them is for that group too; counters are for everybody.
    for (name, mode, lost) in [
        (sessions::SENDING, 0o2750, "sessions are not kept"),
        (SENDING, 0o2755, "postactl metrics lacks this program"),
    ] {
        let folder = config.run.join(name);
        let shared = || fs::set_permissions(&folder, Permissions::from_mode(mode));
        if let Err(error) = sessions::make(&folder, owner).and_then(|()| shared()) {
            warn!("{}: {error}; {lost}", folder.display());
        }
    }
}

/// Becomes `remote_user`, unless there is nothing to give up or nobody wants it.
fn give_up_rights(config: &Config) -> Result<(), Failure> {
    let (name, own) = (&config.remote_user, users::current().1);
    if !config.drop_privileges {
        warn!("drop_privileges is off: running as user {own}");
        return Ok(());
    }
    let account = users::by_name(name)
        .map_err(|error| (sysexits::OSERR, format!("can't look up remote_user \"{name}\": {error}")))?;
    if !privilege::is_root() {
        if account.is_none_or(|account| account.uid != own) {
            warn!("started without root: running as user {own}, not as \"{name}\"");
        }
        return Ok(());
    }
    let account = account
        .ok_or_else(|| (sysexits::CONFIG, format!("remote_user \"{name}\" is no account of this host")))?;
    privilege::become_account(&account)
        .map_err(|error| (sysexits::NOPERM, format!("can't become user \"{name}\": {error}")))
}

/// It writes counters and sessions only.
fn enclose(config: &Config) -> Result<(), Failure> {
    let write = [SENDING, sessions::SENDING].map(|folder| config.run.join(folder)).to_vec();
    let files = Files { read: vec!["/".into()], write, network: true };
    let in_force = Enclosure { files: Some(files), without: Power::ALL }.enter();
    let in_force = in_force.map_err(|error| (sysexits::OSERR, format!("giving up powers: {error}")))?;
    info!("{in_force}");
    Ok(())
}

/// What the rooms need of the configuration.
fn settings(config: &Config) -> Result<Settings, String> {
    let remote = &config.remote;
    let names =
        posta::dns::open(remote.zone.as_deref(), remote.nameserver).map_err(|error| error.to_string())?;
    let connector = Connector::new(remote.ca_file.as_deref()).map_err(|error| error.to_string())?;
    Ok(Settings {
        hostname: config.hostname.clone(),
        own_names: vec![config.hostname.clone()],
        listening: config.listen.iter().filter_map(|listen| tcp(&listen.address)).collect(),
        port: remote.port,
        connect_timeout: remote.connect_timeout,
        max_messages_per_connection: remote.max_messages_per_connection,
        chunking: remote.chunking,
        max_connections: remote.max_connections,
        names,
        ways: Ways::new(&config.domains, remote.tls, remote.source),
        connector: Arc::new(connector),
    })
}

fn tcp(address: &ListenAddress) -> Option<SocketAddr> {
    if let ListenAddress::Tcp(at) = address { Some(*at) } else { None }
}

/// Reads the configuration again. A bad one is reported, and the old one stays.
fn reload(file: Option<&Path>, office: &Office) {
    let read = config::load(file).map_err(|faults| faults.iter().map(ToString::to_string).collect());
    let both = |config: Config| settings(&config).map(|settings| (settings, config)).map_err(|why| vec![why]);
    match read.and_then(both) {
        Ok((settings, config)) => {
            office.set(settings);
            office.logins.change(config.login_files());
            sink::set(config.log.level);
            info!("configuration read again");
        }
        Err(faults) => {
            let faults: Vec<String> = faults;
            faults.iter().for_each(|fault| error!("{fault}"));
            error!("the configuration stays as it was");
        }
    }
}
