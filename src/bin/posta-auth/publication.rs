//! `run/users` and `run/mechanisms`: written anew when a users file has changed, and each replaced in
//! one step.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use log::{error, info};

use posta::sasl::mechanism::Mechanism;

use posta::route::users;

use crate::mark::Mark;

/// What is published, and of which files.
#[derive(Debug)]
pub struct Publication {
    run: PathBuf,
    files: Vec<PathBuf>,
    /// Of the files when they were last read; none: they must be read.
    marks: Option<Vec<Option<Mark>>>,
    /// What stands in `run/users`, as far as we know.
    text: Option<String>,
    /// What stands in `run/mechanisms`, as far as we know.
    mechanisms: Option<Vec<Mechanism>>,
    /// The last fault of writing, so that it is told once.
    fault: Option<String>,
}

impl Publication {
    pub fn new(run: &Path, files: Vec<PathBuf>) -> Publication {
        Publication { run: run.to_path_buf(), files, marks: None, text: None, mechanisms: None, fault: None }
    }

    /// From now on of these files; they are read at the next [`renew`](Publication::renew) in any case.
    pub fn of(&mut self, files: Vec<PathBuf>) {
        self.files = files;
        self.marks = None;
    }

    /// Publishes if a file has changed, or if it did not work before. A users file that can't be
    /// read is published as such: mail for its users waits.
    pub fn renew(&mut self) {
        // Looked at before the files are read: a change after that is seen the next time.
        let marks: Vec<Option<Mark>> = self.files.iter().map(|file| Mark::of(file)).collect();
        if self.marks.as_ref() == Some(&marks) {
            return;
        }
        let text = users::publish(&self.files);
        let settled = marks.iter().flatten().all(Mark::is_settled);
        self.marks = settled.then_some(marks);
        if self.text.as_ref() == Some(&text) {
            return;
        }
        match self.write("users", &text) {
            Ok(()) => {
                info!("published the users of {} files", self.files.len());
                self.text = Some(text);
                self.fault = None;
            }
            Err(error) => {
                self.note("users", &error);
                self.marks = None;
            }
        }
    }

    /// Publishes the mechanisms that are taken, a name a line, if they are others than before.
    pub fn mechanisms(&mut self, mechanisms: &[Mechanism]) {
        if self.mechanisms.as_deref() == Some(mechanisms) {
            return;
        }
        let text: String = mechanisms.iter().map(|mechanism| format!("{mechanism}\n")).collect();
        match self.write("mechanisms", &text) {
            Ok(()) => self.mechanisms = Some(mechanisms.to_vec()),
            Err(error) => self.note("mechanisms", &error),
        }
    }

    /// Says once that a file can't be written.
    fn note(&mut self, name: &str, error: &io::Error) {
        let fault = format!("{}: {error}; what was published before stays", self.run.join(name).display());
        if self.fault.as_ref() != Some(&fault) {
            error!("{fault}");
        }
        self.fault = Some(fault);
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        std::fs::create_dir_all(&self.run)?;
        let temporary = self.run.join(format!(".{name}.tmp"));
        // Whatever lies there is not followed, and not written into.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::create_new(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&temporary, self.run.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const ALICE: &str = "alice@x.example:{PLAIN}secret:1:1::/home/alice::\n";

    #[test]
    fn users_are_published_without_hashes_and_again_when_a_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (run, file) = (folder.path().join("run"), folder.path().join("passwd"));
        std::fs::write(&file, ALICE).unwrap();
        let mut publication = Publication::new(&run, vec![file.clone()]);
        publication.renew();
        let read = || std::fs::read_to_string(run.join("users")).unwrap();
        assert!(read().contains("alice@x.example") && !read().contains("secret"), "{}", read());
        assert_eq!(std::fs::metadata(run.join("users")).unwrap().permissions().mode() & 0o777, 0o644);
        std::fs::write(&file, ALICE.replace("alice", "carla")).unwrap();
        publication.renew();
        assert!(read().contains("carla@x.example") && !read().contains("alice"), "{}", read());
        assert!(!run.join(".users.tmp").exists());
    }

    #[test]
    fn what_cant_be_written_leaves_the_old_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (run, file) = (folder.path().join("run"), folder.path().join("passwd"));
        std::fs::write(&file, ALICE).unwrap();
        std::fs::write(&run, "in the way").unwrap();
        let mut publication = Publication::new(&run, vec![file]);
        publication.renew();
        assert!(publication.fault.is_some() && publication.text.is_none());
        std::fs::remove_file(&run).unwrap();
        publication.renew();
        assert!(publication.fault.is_none() && run.join("users").exists());
    }

    #[test]
    fn mechanisms_are_published_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mechanisms");
        let mut publication = Publication::new(folder.path(), vec![]);
        publication.mechanisms(&Mechanism::ALL[1..]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "SCRAM-SHA-256\nPLAIN\nLOGIN\n");
        std::fs::remove_file(&path).unwrap();
        publication.mechanisms(&Mechanism::ALL[1..]);
        assert!(!path.exists());
        publication.mechanisms(&[]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (run, file) = (folder.path().join("run"), folder.path().join("passwd"));
        std::fs::write(&file, ALICE).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        File::options().append(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        let mut publication = Publication::new(&run, vec![file]);
        publication.renew();
        std::fs::remove_file(run.join("users")).unwrap();
        publication.renew();
        assert!(!run.join("users").exists());
        publication.of(publication.files.clone());
        assert!(publication.marks.is_none());
    }
}
