//! The loop: starts what is to run, hears of what has ended, does what it is told by signals.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use log::{error, info, warn};

use posta::unix::child;
use posta::unix::notify;
use posta::unix::signals::{Signals, Told};

use posta::config::{self, Config};
use posta::logbook::sink;

use crate::house::{House, Owners};
use crate::keys::{self, Keys};
use crate::program::{PROGRAMS, Patience, Program, SMTPD};
use crate::sockets::Sockets;

/// posta-smtpd ends first, so that nothing new comes in while the others finish; that long they wait
/// for it.
const DOOR_CLOSES: Duration = Duration::from_secs(20);
/// From SIGTERM to SIGKILL, for all.
const LAST_ORDERS: Duration = Duration::from_secs(40);
/// The door stays shut that long for what a session needs to be there; then it sees for itself.
const MADE_READY: Duration = Duration::from_secs(5);
/// Between two looks whether it is there.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A program of ours, running or about to.
struct Kept {
    program: &'static Program,
    child: Option<Child>,
    started: Instant,
    /// When it starts next, while it does not run.
    due: Instant,
    patience: Patience,
    /// It was sent SIGTERM to be started anew at once.
    renewed: bool,
    /// Not started before these are there, or `MADE_READY` has passed.
    needs: Vec<PathBuf>,
}

/// The keeper.
pub struct Keeper {
    signals: Signals,
    sockets: Sockets,
    keys: Keys,
    owners: Owners,
    /// What `-c` said, to be passed on.
    file: Option<PathBuf>,
    config: Config,
    kept: Vec<Kept>,
    begun: Instant,
    /// Last: the lock is held until everything else is given up.
    _house: House,
}

impl Keeper {
    pub fn new(
        signals: Signals,
        house: House,
        sockets: Sockets,
        keys: Keys,
        owners: Owners,
        file: Option<&Path>,
        config: Config,
    ) -> Keeper {
        let now = Instant::now();
        let kept = |program: &'static Program| Kept {
            program,
            child: None,
            started: now,
            due: now,
            patience: Patience::default(),
            renewed: false,
            needs: if program.name == SMTPD {
                vec![config.run.join("users"), config.spool.join("new")]
            } else {
                Vec::new()
            },
        };
        let kept = PROGRAMS.iter().map(kept).collect();
        let file = file.map(Path::to_path_buf);
        Keeper { signals, sockets, keys, owners, file, config, kept, begun: now, _house: house }
    }

    /// Keeps everything running until SIGTERM, and then ends it.
    pub fn keep(mut self) {
        // The sockets are bound: whoever connects now is served as soon as the program is there.
        notify::ready();
        loop {
            notify::alive();
            let wait = self.start_due().map_or(keys::LOOK, |wait| wait.min(keys::LOOK));
            let wait = notify::at_most(Some(wait)).unwrap_or(wait);
            match self.signals.wait(Some(wait)) {
                Ok(Some(Told::Terminate)) => break,
                Ok(Some(Told::Reload)) => notify::reloading(|| self.reload()),
                Ok(Some(Told::Louder)) => sink::louder(),
                Ok(Some(Told::Quieter)) => sink::quieter(),
                Ok(Some(Told::Level(level))) => sink::set_number(level),
                Ok(Some(Told::Child) | None) => {}
                Err(error) => {
                    error!("can't read signals: {error}; ending");
                    break;
                }
            }
            self.reap();
            self.keys.look();
        }
        self.end();
    }

    /// Starts what is due; how long until the next is, or `None` if all run.
    fn start_due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let mut next: Option<Duration> = None;
        for n in 0..self.kept.len() {
            let kept = &self.kept[n];
            if kept.child.is_some() {
                continue;
            }
            let lacks = now < self.begun + MADE_READY && kept.needs.iter().any(|path| !path.exists());
            let wait = if kept.due > now {
                kept.due - now
            } else if lacks {
                LOOK_AGAIN
            } else if self.start(n) {
                continue;
            } else {
                self.kept[n].due.saturating_duration_since(now)
            };
            next = Some(next.map_or(wait, |soonest| soonest.min(wait)));
        }
        next
    }

    /// Starts one program; one that can't be started is due again after a while.
    fn start(&mut self, n: usize) -> bool {
        let program = self.kept[n].program;
        let started = self.spawn(program);
        let kept = &mut self.kept[n];
        kept.started = Instant::now();
        match started {
            Ok(child) => {
                info!("{}[{}] started", program.name, child.id());
                kept.child = Some(child);
                true
            }
            Err(error) => {
                let wait = kept.patience.after(Duration::ZERO, None);
                error!("can't start {}: {error}; trying again in {} s", program.name, wait.as_secs());
                kept.due = kept.started + wait;
                false
            }
        }
    }

    fn spawn(&mut self, program: &Program) -> io::Result<Child> {
        let path = child::program(program.name, &self.config.libexec)?;
        let rights = program.user.rights(&self.owners).cloned();
        let mut sockets = self.sockets.of(program.name);
        let keys = self.keys.for_a_new_child(program.name)?;
        if let Some((name, way)) = &keys {
            sockets.push((name.to_string(), way.as_fd()));
        }
        let mut command = child::command(&path, &sockets, rights)?;
        if let Some(file) = &self.file {
            command.arg("-c").arg(file);
        }
        let named = |error| io::Error::new(io::Error::kind(&error), format!("{}: {error}", path.display()));
        command.stdin(Stdio::null()).spawn().map_err(named)
    }

    /// Takes note of what has ended.
    fn reap(&mut self) {
        for kept in &mut self.kept {
            let Some((status, pid)) = ended(kept) else { continue };
            let now = Instant::now();
            if std::mem::take(&mut kept.renewed) {
                info!("{}[{pid}] ended with {}; starting it anew", kept.program.name, words(status));
                kept.due = now;
                continue;
            }
            let wait = kept.patience.after(now - kept.started, status.code());
            let name = kept.program.name;
            warn!(
                "{name}[{pid}] ended with {}; starting it again in {:.1} s",
                words(status),
                wait.as_secs_f64()
            );
            kept.due = now + wait;
        }
    }

    /// SIGHUP: reads the configuration again and tells everybody. A bad one changes nothing.
    fn reload(&mut self) {
        let config = match config::load(self.file.as_deref()) {
            Ok(config) => config,
            Err(faults) => {
                faults.iter().for_each(|fault| error!("{fault}"));
                error!("the configuration stays as it was");
                return;
            }
        };
        let keys = match Keys::read(&config) {
            Ok(keys) => keys,
            Err(why) => {
                error!("{why}; the configuration stays as it was");
                return;
            }
        };
        let changed = match self.sockets.rebind(&config.listen, &self.owners) {
            Ok(changed) => changed,
            Err(error) => {
                error!("{error}; the configuration stays as it was");
                return;
            }
        };
        // Before the child hears of it: what it then looks for is there.
        self.keys.become_these(keys);
        warn_of_restart(&self.config, &config);
        self.config = Config { run: self.config.run.clone(), ..config };
        sink::set(self.config.log.level);
        info!("configuration read again");
        for kept in &mut self.kept {
            kept.patience = Patience::default();
            kept.due = Instant::now();
            let Some(child) = &kept.child else { continue };
            kept.renewed = changed && kept.program.name == SMTPD;
            // New sockets are handed over at the start only.
            let told = if kept.renewed { child::terminate(child) } else { child::reload(child) };
            report(kept.program, told);
        }
    }

    /// SIGTERM: the door first, then the others, and at last those who don't hear.
    fn end(&mut self) {
        notify::stopping();
        info!("ending");
        let begun = Instant::now();
        self.tell(|program| program.name == SMTPD);
        self.wait_for(begun + DOOR_CLOSES, |program| program.name == SMTPD);
        self.tell(|program| program.name != SMTPD);
        self.wait_for(begun + LAST_ORDERS, |_| true);
        for kept in &mut self.kept {
            let Some(child) = &mut kept.child else { continue };
            warn!("{}[{}] did not end; killed", kept.program.name, child.id());
            report(kept.program, child.kill());
            report(kept.program, child.wait().map(drop));
        }
    }

    fn tell(&self, whom: impl Fn(&Program) -> bool) {
        for kept in self.kept.iter().filter(|kept| whom(kept.program)) {
            if let Some(child) = &kept.child {
                report(kept.program, child::terminate(child));
            }
        }
    }

    fn wait_for(&mut self, until: Instant, whom: impl Fn(&Program) -> bool) {
        loop {
            for kept in &mut self.kept {
                if let Some((status, pid)) = ended(kept) {
                    info!("{}[{pid}] ended with {}", kept.program.name, words(status));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let running = self.kept.iter().any(|kept| kept.child.is_some() && whom(kept.program));
            if !running || left.is_zero() {
                return;
            }
            if let Err(error) = self.signals.wait(Some(left)) {
                error!("can't read signals: {error}");
                return;
            }
        }
    }
}

/// Whether a child has ended: its status, and the process id it had.
fn ended(kept: &mut Kept) -> Option<(ExitStatus, u32)> {
    let child = kept.child.as_mut()?;
    let pid = child.id();
    match child.try_wait() {
        Ok(status) => {
            let status = status?;
            kept.child = None;
            Some((status, pid))
        }
        Err(error) => {
            report(kept.program, Err(error));
            None
        }
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn report(program: &Program, done: io::Result<()>) {
    if let Err(error) = done {
        error!("{}: {error}", program.name);
    }
}

/// What is decided at the start and can't change under programs that run.
fn warn_of_restart(old: &Config, new: &Config) {
    let changed = [
        ("run", old.run != new.run),
        ("user", old.user != new.user),
        ("queue_user", old.queue_user != new.queue_user),
        ("remote_user", old.remote_user != new.remote_user),
        ("drop_group", old.drop_group != new.drop_group),
        ("drop_privileges", old.drop_privileges != new.drop_privileges),
    ];
    for (setting, _) in changed.iter().filter(|(_, changed)| *changed) {
        warn!("{setting} has changed: that takes effect when posta is started anew");
    }
}
