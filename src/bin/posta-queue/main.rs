//! posta-queue: the queue runner.
//!
//! Takes new mail from the spool, finds where each recipient's copy goes, decides who is next and
//! when again, hands work to posta-local and posta-remote, and tells senders what became of it.
//!
//! RIGHTS
//!   Runs as `postaq` (started as root, it becomes that). Reads and writes the spool; reads the tables
//!   that routing needs. Talks to posta-local, posta-remote and postactl over Unix sockets.
//!   Never listens on the network, never runs a command, never writes a mailbox: the kernel refuses it
//!   programs, and to write anywhere but in the spool.

mod asking;
mod attempt;
mod bench;
mod bounce;
mod clerk;
mod desk;
mod destination;
mod dispatch;
mod elsewhere;
mod expansion;
mod export;
#[cfg(test)]
mod faults;
mod forward;
mod ingest;
mod lines;
mod listed;
mod message;
#[cfg(test)]
mod month;
mod pace;
mod porter;
mod rate;
mod resting;
mod runner;
mod schedule;
mod settings;
#[cfg(test)]
mod stage;
mod strike;
mod turns;
mod verdict;
mod watch;
mod when;
mod wishes;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use posta::unix::durable::Disk;
use posta::unix::enclosure::{Enclosure, Files};
use posta::unix::listeners;
use posta::unix::notify;
use posta::unix::pass::{PacketListener, Packets};
use posta::unix::privilege;
use posta::unix::seccomp::Power;
use posta::unix::signals::{Signals, Told};
use posta::unix::sysexits;
use posta::unix::users;

use posta::courier::order::Order;

use posta::config::options::{Daemon, Given, Own};
use posta::config::{self, Config};
use posta::logbook::history::History;
use posta::logbook::sink;

use posta::net::orders;
use posta::route::{self, Router};
use posta::spool::{Committer, Spool};

use crate::bounce::Bouncer;
use crate::clerk::Clerks;
use crate::desk::Desk;
use crate::destination::Hand;
use crate::ingest::{Ingest, SharedRouter};
use crate::lines::Door;
use crate::porter::Porter;
use crate::runner::{Event, Runner};
use crate::schedule::Schedule;

/// Why the program ends: the exit code, and what is said.
struct Failure(u8, String);

const DAEMON: Daemon = Daemon {
    name: "posta-queue",
    about: "The queue runner.",
    own: &[Own { name: "1", value: None, help: "one pass over the queue, then exit" }],
};

fn main() -> ExitCode {
    let (config, given) = match DAEMON.begin().and_then(|given| Ok((given.config()?, given))) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    match start(config, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            eprintln!("posta-queue: {text}");
            ExitCode::from(code)
        }
    }
}

fn start(config: Config, given: Given) -> Result<(), Failure> {
    let once = given.has("1");
    if once && pass_by_another(&config.run.join("queue"))? {
        return Ok(());
    }
    // First of all threads: they inherit what is blocked here.
    let signals = Signals::take_over().map_err(|e| Failure(sysexits::OSERR, format!("signals: {e}")))?;
    sink::start("posta-queue", config.log.to, config.log.level);
    let sockets = open_sockets(&config)?;
    drop_rights(&config)?;
    run(config, given.file, &signals, sockets, once)
}

/// Asks a posta-queue that runs already to make the pass; `false` if there is none.
fn pass_by_another(socket: &Path) -> Result<bool, Failure> {
    match orders::give(socket, &Order::Pass, None, &mut |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_running() => Ok(false),
        Err(error) => Err(Failure(error.exit_code(), error.to_string())),
    }
}

/// `run/queue` and `run/drop`: handed over by the keeper, or bound here.
struct Sockets {
    queue: PacketListener,
    drop: PacketListener,
}

fn open_sockets(config: &Config) -> Result<Sockets, Failure> {
    let mut given =
        listeners::inherited().map_err(|e| Failure(sysexits::OSERR, format!("LISTEN_FDS: {e}")))?;
    let mut socket = |name: &str| match given.iter().position(|(n, _)| n == name) {
        Some(at) => Ok(PacketListener::from(given.swap_remove(at).1)),
        None => {
            let path = config.run.join(name);
            // Anybody may connect: each order is judged by who gives it (SO_PEERCRED).
            PacketListener::bind(&path, 0o666)
                .map_err(|e| Failure(sysexits::CANTCREAT, format!("{}: {e}", path.display())))
        }
    };
    Ok(Sockets { queue: socket("queue")?, drop: socket("drop")? })
}

fn drop_rights(config: &Config) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure(sysexits::OSERR, format!("{}: {e}", config.queue_user));
    let account = users::by_name(&config.queue_user).map_err(failed)?;
    let (_, own) = users::current();
    match account {
        Some(account) if privilege::is_root() && config.drop_privileges => {
            privilege::become_account(&account).map_err(failed)?;
        }
        None if privilege::is_root() && config.drop_privileges => {
            let why = format!("no user \"{}\" (queue_user); make it, or see posta(7)", config.queue_user);
            return Err(Failure(sysexits::CONFIG, why));
        }
        // The keeper has started us as who we are to be.
        Some(account) if account.uid == own => {}
        Some(_) | None => {
            log::warn!("running with the rights of uid {own}: drop_privileges is off, or this is not root");
        }
    }
    privilege::set_umask(0o027);
    Ok(())
}

/// Keeps to the spool, and to the folder of the key that it makes.
fn enclose(config: &Config) -> std::io::Result<()> {
    let key = route::Settings::of(config).key;
    let folders =
        [Some(&*config.spool), key.parent(), config.queue.metrics_file.as_deref().and_then(Path::parent)];
    let write = folders.into_iter().flatten().map(Path::to_path_buf).collect();
    let files = Files { read: vec!["/".into()], write, network: true };
    log::info!("{}", Enclosure { files: Some(files), without: Power::ALL }.enter()?);
    Ok(())
}

fn run(
    config: Config,
    file: Option<PathBuf>,
    signals: &Signals,
    sockets: Sockets,
    once: bool,
) -> Result<(), Failure> {
    let spool = Spool::for_running(&config.spool, Arc::new(Disk))
        .map_err(|e| Failure(sysexits::CANTCREAT, e.to_string()))?;
    let spool = Arc::new(spool);
    // Before the first thread, and when the trigger has been made.
    enclose(&config).map_err(|e| Failure(sysexits::OSERR, format!("giving up powers: {e}")))?;
    let committer = Arc::new(Committer::new(spool.clone()));
    let (events, heard) = channel();
    let os = |e: std::io::Error| Failure(sysexits::OSERR, e.to_string());

    let router: SharedRouter = Arc::new(RwLock::new(Arc::new(Router::new(route::Settings::of(&config)))));
    make_key(&router, &spool);
    let hostname = config.hostname.clone();
    let bouncer = Bouncer { spool: spool.clone(), committer: committer.clone(), hostname: hostname.clone() };
    let clerks = Clerks::start(&spool, &Arc::new(bouncer), &events).map_err(os)?;
    let ingest = Ingest::start(&spool, &router, &events).map_err(os)?;
    let mut schedule = Schedule::new(settings::schedule(&config));
    for name in spool.paused().map_err(|e| Failure(sysexits::IOERR, e.to_string()))? {
        log::info!("{name} is paused; \"postactl resume\" ends that");
        schedule.resting.pause(&name);
    }
    let keep = settings::history(&config);
    let folder = keep.folder.clone();
    let history = History::start(keep)
        .map_err(|e| Failure(sysexits::CANTCREAT, format!("{}: {e}", folder.display())))?;
    let runner = Runner::new(schedule, settings::rules(&config), ingest, clerks, history);

    for (hand, name) in [(Hand::Local, "local"), (Hand::Remote, "remote")] {
        let path = config.run.join(name);
        if once {
            let absent = |e| {
                Failure(
                    sysexits::UNAVAILABLE,
                    format!("{}: {e}; start {} first", path.display(), dispatch::program(hand)),
                )
            };
            Packets::connect(&path).map_err(absent)?;
        }
        dispatch::keep_up(hand, path, events.clone()).map_err(os)?;
    }
    let most = config.smtpd.max_message_size;
    let porter = Porter { spool: spool.clone(), committer, hostname, most, busy: Arc::new(Mutex::new(())) };
    Door::new(porter.clone()).open(sockets.drop).map_err(os)?;
    let desk = Desk {
        spool: spool.clone(),
        router: router.clone(),
        events: events.clone(),
        busy: Arc::default(),
        history: folder,
    };
    desk.serve(sockets.queue).map_err(os)?;
    watch::start(spool.clone(), &spool.trigger(), porter, events.clone()).map_err(os)?;

    let files = export::start(config.run.clone(), events.clone()).map_err(os)?;
    let export_to = |file: Option<PathBuf>| {
        // The thread goes with the runner only, and then there is nothing to write any more.
        let _ = files.send(file);
    };
    export_to(config.queue.metrics_file.clone());

    let deciding = std::thread::Builder::new().name("runner".into());
    let deciding = deciding.spawn(move || runner.run(&heard)).map_err(os)?;
    if once {
        end_after_pass(&events);
    }
    notify::ready();
    let mut patience = Duration::from_millis(if once { 20 } else { 1000 });
    while !deciding.is_finished() {
        match signals.wait(Some(patience)).map_err(os)? {
            Some(Told::Terminate) => {
                notify::stopping();
                log::info!("told to go: what is known is noted first");
                // A runner that is gone already needs no telling.
                let _ = events.send(Event::Terminate);
                patience = Duration::from_millis(5);
            }
            Some(Told::Reload) => {
                notify::reloading(|| {
                    if let Some(config) = reload(file.as_deref(), &spool, &router, &events) {
                        export_to(config.queue.metrics_file);
                    }
                });
            }
            Some(Told::Louder) => sink::louder(),
            Some(Told::Quieter) => sink::quieter(),
            Some(Told::Level(level)) => sink::set_number(level),
            Some(Told::Child) | None => {}
        }
    }
    deciding.join().map_err(|_| Failure(sysexits::OSERR, "the thread that decides has died".into()))
}

/// `-1`: when everything due has been tried once, the runner goes.
fn end_after_pass(events: &Sender<Event>) {
    let (answers, over) = channel();
    let events = events.clone();
    let waiting = std::thread::Builder::new().name("pass".into()).spawn(move || {
        if events.send(Event::Order(Order::Pass, answers)).is_ok() {
            // Either the pass has ended, or the runner has.
            let _ = over.recv();
            let _ = events.send(Event::Terminate);
        }
    });
    if let Err(error) = waiting {
        log::error!("no thread to wait for the end of the pass: {error}; end it by SIGTERM");
    }
}

/// Makes the key of signed senders where one is needed; posta-smtpd reads it too. Who needs it and
/// finds none waits, and says so.
fn make_key(router: &SharedRouter, spool: &Spool) {
    let router = router.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    if let Some(path) = router.key_file()
        && let Err(error) = route::make_key(path, &spool.path().join("new"))
    {
        log::error!("{error}");
    }
}

/// SIGHUP: the configuration is read again and given back; a bad one is reported, and the old one stays.
fn reload(
    file: Option<&Path>,
    spool: &Spool,
    router: &SharedRouter,
    events: &Sender<Event>,
) -> Option<Config> {
    match config::load(file) {
        Ok(config) => {
            let new = Arc::new(Router::new(route::Settings::of(&config)));
            *router.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = new;
            make_key(router, spool);
            let settings = Box::new(settings::schedule(&config));
            match events.send(Event::Rules(settings::rules(&config), settings)) {
                Ok(()) => log::info!("configuration read again"),
                Err(_) => log::error!("the runner has ended: new rules come with the next start"),
            }
            sink::set(config.log.level);
            Some(config)
        }
        Err(faults) => {
            faults.iter().for_each(|fault| log::error!("{fault}"));
            log::error!("the configuration has {} faults; the old one stays in force", faults.len());
            None
        }
    }
}
