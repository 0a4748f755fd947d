//! Counters of all programs, brought together: in the text format of Prometheus, and as a file for
//! node_exporter's textfile collector.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::count::{RECEIVING, SENDING};
use super::left;

/// What the queue runner has counted, whether it was there to be asked, and what the others have left in
/// their folders below `run`.
pub fn all(runner: Option<&str>, run: &Path) -> io::Result<String> {
    let up = u8::from(runner.is_some());
    let mut text = runner.unwrap_or_default().to_string();
    text += &format!("# TYPE posta_up gauge\nposta_up{{program=\"posta-queue\"}} {up}\n");
    for folder in [RECEIVING, SENDING] {
        text += &left(&run.join(folder))?;
    }
    Ok(text)
}

/// What the programs have left; nothing if none has.
fn left(folder: &Path) -> io::Result<String> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        listed => listed?,
    };
    let mut text = String::new();
    for entry in listed {
        let name = entry?.file_name();
        // One that is just being written has a dot in its name.
        if let Some(name) = name.to_str().filter(|name| !name.contains('.')) {
            text += &left::read(folder, name)?;
        }
    }
    Ok(text)
}

/// Writes a file in one piece, readable for everybody: the collector never sees half of one. It is written
/// beside its place, under a name that the collector passes over, for it wants `*.prom`.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    written.set_permissions(Permissions::from_mode(0o644))?;
    written.write_all(text.as_bytes())?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_together_and_a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        assert_eq!(all(None, run).unwrap(), "# TYPE posta_up gauge\nposta_up{program=\"posta-queue\"} 0\n");
        for folder in [RECEIVING, SENDING] {
            fs::create_dir(run.join(folder)).unwrap();
        }
        fs::write(run.join(RECEIVING).join("posta-smtpd"), "b 2\n").unwrap();
        fs::write(run.join(RECEIVING).join("posta-smtpd.new"), "half").unwrap();
        fs::write(run.join(SENDING).join("posta-remote"), "c 3\n").unwrap();
        let text = all(Some("a 1\n"), run).unwrap();
        assert_eq!(text, "a 1\n# TYPE posta_up gauge\nposta_up{program=\"posta-queue\"} 1\nb 2\nc 3\n");
        let file = folder.path().join("posta.prom");
        write(&file, "old").unwrap();
        write(&file, &text).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }
    /// What is written for the collector, anybody may read.
    #[test]
    fn a_program_that_was_taken_over_has_nothing_read_to_it() {
        let root = tempfile::tempdir().unwrap();
        let (folder, secret) = (root.path().join("counters"), root.path().join("secret"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("posta-smtpd"), "posta_x 1\n").unwrap();
        assert_eq!(left(&folder).ok().as_deref(), Some("posta_x 1\n"));
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, folder.join("posta-other")).unwrap();
        assert!(left(&folder).is_err_and(|fault| fault.to_string().contains("link")));
    }
}
