//! Which processes run on this host: what proc(5) says of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

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
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let (parent, takes_usr1) = of_status(&status)?;
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    // Each word ends with a NUL, the last one too.
    words.pop();
    Some(Process { pid, parent, uid, words, takes_usr1 })
}

/// The parent, and whether SIGUSR1 is blocked, which is how it is taken over.
fn of_status(status: &str) -> Option<(u32, bool)> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let blocked = u64::from_str_radix(field("SigBlk")?, 16).ok()?;
    Some((field("PPid")?.parse().ok()?, blocked & (1 << (libc::SIGUSR1 - 1)) != 0))
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

    #[test]
    fn who_blocks_the_signal_takes_it() {
        let status = |blocked: &str| format!("Name:\tx\nPPid:\t7\nSigBlk:\t{blocked}\nSigIgn:\t0\n");
        assert_eq!(of_status(&status("0000000000000200")), Some((7, true)));
        assert_eq!(of_status(&status("0000000000000100")), Some((7, false)));
        assert_eq!(of_status("Name:\tx\n"), None);
    }
}
