//! The destinations that the administrator has paused, one a line in the file `paused` of the spool:
//! a pause outlives the runner. Without such a file nothing is paused.

use std::io::{self, ErrorKind};
use std::sync::{Mutex, PoisonError};

use crate::unix::durable::Folder;

use super::{Spool, SpoolError, line};

const NAME: &str = "paused";
const TEMPORARY: &str = ".paused.tmp";
const MODE: u32 = 0o600;

/// One change at a time.
static CHANGING: Mutex<()> = Mutex::new(());

/// For posta-queue only.
impl Spool {
    /// The names of the destinations that are paused.
    pub fn paused(&self) -> Result<Vec<String>, SpoolError> {
        let path = self.path().join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SpoolError::io(path, error)),
        };
        let name = |text: &[u8]| Some(String::from_utf8_lossy(&line::read(text)?).into_owned());
        Ok(text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).filter_map(name).collect())
    }

    /// Adds a destination to them, or takes it out; durable when it returns. `false`: it was so already.
    pub fn set_paused(&self, destination: &str, paused: bool) -> Result<bool, SpoolError> {
        let _one_at_a_time = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = self.paused()?;
        let before = names.len();
        names.retain(|name| name != destination);
        if paused == (names.len() < before) {
            return Ok(false);
        }
        if paused {
            names.push(destination.to_string());
        }
        self.write_paused(&names).map_err(|e| SpoolError::io(self.path().join(NAME), e))?;
        Ok(true)
    }

    /// The new file takes the old one's place whole.
    fn write_paused(&self, names: &[String]) -> io::Result<()> {
        let mut text = Vec::new();
        for name in names {
            line::put_rest(&mut text, name.as_bytes());
            text.push(b'\n');
        }
        let (disk, folder) = (&self.disk, Folder::open(self.path())?);
        match disk.unlink(&folder, TEMPORARY) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&folder, TEMPORARY, MODE)?;
        disk.write(&file, &text)?;
        disk.sync_file(&file)?;
        disk.rename(&folder, TEMPORARY, &folder, NAME)?;
        disk.sync_folder(&folder)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::unix::durable::Disk;

    use super::super::journal::tests::spool;

    #[test]
    fn what_is_paused_stays_so_until_it_is_resumed() {
        let (_root, spool) = spool(Arc::new(Disk));
        assert!(spool.paused().unwrap().is_empty());
        for name in ["smtp:[2001:db8::1]:25", "example.net", "strange\nname"] {
            assert!(spool.set_paused(name, true).unwrap());
            assert!(!spool.set_paused(name, true).unwrap());
        }
        assert!(spool.set_paused("example.net", false).unwrap());
        assert!(!spool.set_paused("example.net", false).unwrap());
        assert_eq!(spool.paused().unwrap(), ["smtp:[2001:db8::1]:25", "strange\nname"]);
    }
}
