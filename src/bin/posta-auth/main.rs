//! posta-auth: checks passwords, and publishes who the users are, without their password hashes.
//!
//! ```text
//! posta-smtpd ──run/auth──▶ desk ──▶ clerks: sources ──▶ users files, shadow, Dovecot, PAM
//!                            └──▶ guard: waits, lock-out
//! main ──▶ publication: run/users, run/mechanisms
//! ```
//!
//! SECURITY
//!   Security critical: the only program that opens a file with passwords in it. Runs as root, so that
//!   such a file can be closed to everybody else. Once it has begun it has of root's powers only that of
//!   reading any file, reads only the system's folders and those of the configuration and the users
//!   files (Landlock), writes only into `run/`, starts no program, and gives up the way to more rights
//!   (no_new_privs). It hears strangers' words through posta-smtpd alone: of who connects, the kernel
//!   tells the user id.

mod clerks;
mod desk;
mod dovecot;
mod guard;
mod mark;
#[cfg(feature = "pam")]
mod pam;
mod password;
mod publication;
mod quarters;
mod sources;
mod users_file;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use posta::unix::pass::PacketListener;
use posta::unix::signals::{Signals, Told};
use posta::unix::users::{self, Account};
use posta::unix::{listeners, notify, privilege, random, sysexits};

use posta::sasl::keys::hmac;

use posta::config::options::Daemon;
use posta::config::{self, Config};
use posta::logbook::sink;

use crate::desk::Desk;
use crate::guard::Guard;
use crate::publication::Publication;
use crate::quarters::{Needs, Quarters};
use crate::sources::Sources;

/// Between two looks whether a users file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const DAEMON: Daemon =
    Daemon { name: "posta-auth", about: "Checks passwords, and publishes who the users are.", own: &[] };

fn main() -> ExitCode {
    let begun = DAEMON.begin().and_then(|given| Ok((given.config()?, given)));
    begun.map_or_else(|code| code, |(config, given)| run(given.file(), &config))
}

fn run(file: Option<&Path>, config: &Config) -> ExitCode {
    // Before there is any thread.
    let signals = Signals::take_over();
    sink::start("posta-auth", config.log.to, config.log.level);
    privilege::set_umask(0o022);
    match signals.and_then(|signals| serve(&signals, file, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why}");
            ExitCode::from(sysexits::OSERR)
        }
    }
}

/// Serves `run/auth`, and publishes whenever a file has changed, until SIGTERM.
fn serve(signals: &Signals, file: Option<&Path>, config: &Config) -> io::Result<()> {
    let secret = secret()?;
    let smtpd = smtpd_user(config)?;
    privilege::raise_open_files()?;
    let listener = listen(config, smtpd.as_ref())?;
    let sources = Arc::new(Sources::new(config, secret));
    let quarters = quarters::move_in(config, &needs(config, &sources))?;
    let mut peers = vec![0, users::current().1];
    peers.extend(smtpd.map(|account| account.uid));
    let guard = Guard::new(config.auth.lock_out_after, config.auth.lock_out);
    let mut office = Office {
        publication: Publication::new(&config.run, sources.files()),
        desk: Desk::new(listener, peers, Arc::clone(&sources), guard)?,
        sources,
        quarters,
        secret,
    };
    office.serve(signals, file)
}

/// Everything that serves.
struct Office {
    publication: Publication,
    desk: Desk,
    sources: Arc<Sources>,
    quarters: Quarters,
    secret: [u8; 32],
}

impl Office {
    fn serve(&mut self, signals: &Signals, file: Option<&Path>) -> io::Result<()> {
        let mut next_look = Instant::now();
        // posta-smtpd waits for what is published.
        let mut published = false;
        loop {
            if Instant::now() >= next_look {
                self.look();
                next_look = Instant::now() + LOOK_AGAIN;
            }
            if !std::mem::replace(&mut published, true) {
                notify::ready();
            }
            notify::alive();
            let wait = next_look.saturating_duration_since(Instant::now());
            self.desk.turn(signals.as_fd(), notify::at_most(Some(wait)).unwrap_or(wait))?;
            match signals.next()? {
                Some(Told::Terminate) => {
                    notify::stopping();
                    return Ok(());
                }
                Some(Told::Reload) => {
                    if !notify::reloading(|| self.reload(file)) {
                        return Ok(());
                    }
                    next_look = Instant::now();
                }
                Some(Told::Louder) => sink::louder(),
                Some(Told::Quieter) => sink::quieter(),
                Some(Told::Level(level)) => sink::set_number(level),
                Some(Told::Child) | None => {}
            }
        }
    }

    /// Looks whether a users file has changed. Who the users are is published last: that is what
    /// posta-smtpd waits for.
    fn look(&mut self) {
        let mechanisms = self.sources.mechanisms();
        self.publication.mechanisms(&mechanisms);
        self.desk.take_mechanisms(mechanisms);
        self.publication.renew();
    }

    /// Reads the configuration again; a bad one is left alone. `false`: it asks for what we
    /// have given up, so we have to begin anew.
    fn reload(&mut self, file: Option<&Path>) -> bool {
        let config = match config::load(file) {
            Ok(config) => config,
            Err(faults) => {
                faults.iter().for_each(|fault| error!("{fault}"));
                info!("the configuration stays as it was");
                return true;
            }
        };
        let sources = Arc::new(Sources::new(&config, self.secret));
        if let Some(lack) = self.quarters.lack(&needs(&config, &sources)) {
            info!("{lack}: ending, to be started again with it");
            return false;
        }
        self.publication.of(sources.files());
        self.desk.change(Arc::clone(&sources), config.auth.lock_out_after, config.auth.lock_out);
        self.sources = sources;
        sink::set(config.log.level);
        info!("configuration read again");
        true
    }
}

fn needs(config: &Config, sources: &Sources) -> Needs {
    Needs { users_files: sources.files(), network: sources.has_system(), pam: config.auth.pam.is_some() }
}

/// `run/auth`: handed over by the keeper or systemd, or bound here, for posta-smtpd's group.
fn listen(config: &Config, smtpd: Option<&Account>) -> io::Result<PacketListener> {
    let inherited = listeners::inherited()?.into_iter().find(|(name, _)| name == "auth");
    if let Some((_, socket)) = inherited {
        return Ok(PacketListener::from(socket));
    }
    let path = config.run.join("auth");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::create_dir_all(&config.run).map_err(named)?;
    let listener = PacketListener::bind(&path, 0o660).map_err(named)?;
    if let Some(account) = smtpd {
        chown(&path, None, Some(account.gid)).map_err(named)?;
    }
    Ok(listener)
}

/// The account of posta-smtpd, where it is not the caller.
fn smtpd_user(config: &Config) -> io::Result<Option<Account>> {
    if !privilege::is_root() || !config.drop_privileges {
        return Ok(None);
    }
    match users::by_name(&config.user) {
        Ok(Some(account)) => Ok(Some(account)),
        Ok(None) => Err(io::Error::other(format!("user: there is no account {}", config.user))),
        Err(error) => Err(io::Error::other(format!("user: looking up {}: {error}", config.user))),
    }
}

/// What decoys are made of: secret, and the same after a restart (machine-id(5) says how it may be used).
fn secret() -> io::Result<[u8; 32]> {
    match std::fs::read("/etc/machine-id") {
        Ok(id) if id.len() >= 32 => Ok(hmac(&id, b"posta-auth: salts of users that there are not")),
        _ => random::octets(),
    }
}
