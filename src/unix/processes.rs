//! Which processes run on this host: what proc(5) says of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Who started it.
    pub parent: u32,
    /// The user it belongs to.
    pub uid: u32,
    /// Its command line: the program, as it was called, and its arguments.
    pub words: Vec<String>,
    /// Whether SIGUSR1 is something that it reads ([`super::signals::Signals`]), and not its end.
    pub takes_usr1: bool,
}

/// All that this user may see. One that ends meanwhile is left out.
pub fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(read(pid));
        }
    }
    Ok(found)
}

fn read(pid: u32) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let uid = fs::metadata(&folder).ok()?.uid();
    let line = fs::read(format!("{folder}/cmdline")).ok()?;
    let (parent, takes_usr1) = settled(|| fs::read_to_string(format!("{folder}/status")).ok())?;
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    // Each word ends with a NUL, the last one too.
    words.pop();
    Some(Process { pid, parent, uid, words, takes_usr1 })
}

/// How often a process is looked at that blocks everything for the moment.
const LOOKS: usize = 50;

/// The parent, and whether SIGUSR1 is blocked for good, which is how it is taken over. The C library blocks
/// every signal while it starts a thread or a process, so what is seen in that instant says nothing, and the
/// process is looked at again. Whoever is never seen otherwise is taken for one that doesn't read it: the
/// signal could end him.
fn settled(mut status: impl FnMut() -> Option<String>) -> Option<(u32, bool)> {
    let mut seen = of_status(&status()?)?;
    for _ in 1..LOOKS {
        if seen.1.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_micros(100));
        seen = of_status(&status()?)?;
    }
    Some((seen.0, seen.1.unwrap_or(false)))
}

/// The parent, and whether SIGUSR1 is blocked; nothing of that where SIGABRT is blocked too, which no program
/// does by itself.
fn of_status(status: &str) -> Option<(u32, Option<bool>)> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let blocked = u64::from_str_radix(field("SigBlk")?, 16).ok()?;
    let blocks = |signal: libc::c_int| blocked & (1 << (signal - 1)) != 0;
    let takes_usr1 = (!blocks(libc::SIGABRT)).then(|| blocks(libc::SIGUSR1));
    Some((field("PPid")?.parse().ok()?, takes_usr1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let own = std::process::id();
        let found = all().unwrap().into_iter().find(|process| process.pid == own).unwrap();
        let words: Vec<String> = std::env::args().collect();
        assert_eq!((found.words, found.uid), (words, crate::unix::users::current().1));
        assert!(found.parent > 0 && !found.takes_usr1);
    }

    fn status(blocked: &str) -> String {
        format!("Name:\tx\nPPid:\t7\nSigBlk:\t{blocked}\nSigIgn:\t0\n")
    }

    #[test]
    fn who_blocks_the_signal_takes_it() {
        assert_eq!(of_status(&status("0000000000000200")), Some((7, Some(true))));
        assert_eq!(of_status(&status("0000000000000100")), Some((7, Some(false))));
        assert_eq!(of_status("Name:\tx\n"), None);
    }

    #[test]
    fn who_starts_a_thread_is_looked_at_again() {
        const ALL: &str = "fffffffe7ffbfeff";
        let after = |blocked: &'static str| {
            let mut looks = 0;
            settled(move || {
                looks += 1;
                Some(status(if looks < 3 { ALL } else { blocked }))
            })
        };
        assert_eq!(after("0000000000000200"), Some((7, true)));
        assert_eq!(after("0000000000000000"), Some((7, false)));
        assert_eq!(settled(|| Some(status(ALL))), Some((7, false)));
        let mut looks = 0;
        let gone = settled(|| {
            looks += 1;
            (looks < 2).then(|| status(ALL))
        });
        assert_eq!(gone, None);
    }
}
