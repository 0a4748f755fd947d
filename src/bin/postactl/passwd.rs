//! `passwd`: sets a user's password in the users file of the domain.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use argon2::{Argon2, PasswordHasher};

use posta::unix::terminal::Hushed;
use posta::unix::{crypt, random, sysexits};

use posta::mail::address::Mailbox;

use posta::sasl::keys::{ITERATIONS, Keys};
use posta::sasl::{LONGEST, prepare};

use posta::config::nearest::did_you_mean;
use posta::config::{Config, DomainFate, Users};

use crate::Refusal;
use crate::explain::router;

/// How a new password is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Argon2id,
    Sha512Crypt,
    ScramSha256,
}

const SCHEMES: [(&str, Scheme); 3] = [
    ("argon2id", Scheme::Argon2id),
    ("sha512-crypt", Scheme::Sha512Crypt),
    ("scram-sha-256", Scheme::ScramSha256),
];

/// Asks for the password, on a terminal twice, else in the first line of the input, and stores it.
pub fn passwd(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let (scheme, user) = options(words)?;
    let address = Mailbox::parse(user, true).map_err(|why| Refusal::usage(format!("\"{user}\": {why}")))?;
    let (local, domain) = (address.local().to_lowercase(), address.domain().to_lowercase());
    if local.contains([':', '"']) || local.contains(char::is_control) || local.starts_with('#') {
        return Err(Refusal::usage(format!("\"{user}\" can't be a name in a users file")));
    }
    let path = users_file(config, &domain)?;
    let password = if io::stdin().is_terminal() { ask_twice(&address.to_string())? } else { first_line()? };
    check(&password)?;
    let field = hash(scheme, &prepare::password(&password))?;
    let io_refusal = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::PermissionDenied {
            sysexits::NOPERM
        } else {
            sysexits::CANTCREAT
        };
        Refusal(code, format!("{}: {error}", path.display()))
    };
    let is_new = store(&path, &local, &domain, &field).map_err(io_refusal)?;
    let what = if is_new { "added with its password" } else { "has a new password" };
    println!("{local}@{domain}: {what} in {}", path.display());
    Ok(sysexits::OK)
}

fn options(words: &[String]) -> Result<(Scheme, &str), Refusal> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [user] if !user.starts_with('-') => Ok((Scheme::Argon2id, user)),
        ["--scheme", name, user] | [user, "--scheme", name] => {
            let known = SCHEMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let (_, scheme) = known.ok_or_else(|| {
                let names = SCHEMES.map(|(name, _)| name);
                let hint =
                    did_you_mean(name, names).unwrap_or_else(|| format!("; known are {}", names.join(", ")));
                Refusal::usage(format!("unknown scheme \"{name}\"{hint}"))
            })?;
            Ok((*scheme, user))
        }
        _ => Err(Refusal::usage("passwd takes one USER@DOMAIN, and perhaps --scheme SCHEME")),
    }
}

/// Where the passwords of a domain are.
fn users_file(config: &Config, domain: &str) -> Result<PathBuf, Refusal> {
    let refusal = |what: String| Err(Refusal(sysexits::CONFIG, what));
    let Some(rule) = config.domains.iter().find(|rule| rule.domain == domain) else {
        // A table may have the domain.
        if let Some(file) =
            router(config).users_file(domain).map_err(|why| Refusal(sysexits::TEMPFAIL, why.to_string()))?
        {
            return Ok(file);
        }
        return refusal(format!(
            "{domain} is no domain of this host; name it under [domains] with users = \"/path/of/a/users/file\""
        ));
    };
    match &rule.fate {
        DomainFate::Users { users: Users::File(path), .. } => Ok(path.clone()),
        DomainFate::Users { users: Users::System, .. } => refusal(format!(
            "the users of {domain} are accounts of this host; passwd(1) sets their passwords"
        )),
        _ => refusal(format!(
            "{domain} has no users file; set users = \"/path/of/a/users/file\" for it under [domains]"
        )),
    }
}

fn ask_twice(user: &str) -> Result<String, Refusal> {
    let unheard = |error: io::Error| Refusal(sysexits::IOERR, format!("the terminal: {error}"));
    let ask = |prompt: String| {
        eprint!("{prompt}");
        let terminal = io::stdin();
        let hushed = Hushed::new(terminal.as_fd()).map_err(unheard)?;
        let line = first_line();
        drop(hushed);
        eprintln!();
        line
    };
    let password = ask(format!("New password of {user}: "))?;
    check(&password)?;
    if ask("The same again: ".to_string())? != password {
        return Err(Refusal(sysexits::DATA, "these were two different ones; nothing is changed".into()));
    }
    Ok(password)
}

fn first_line() -> Result<String, Refusal> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Refusal(sysexits::DATA, format!("the password can't be read: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}

/// What no login could bring, or what was a ^C meant to stop us.
fn check(password: &str) -> Result<(), Refusal> {
    let refusal = |what: String| Err(Refusal(sysexits::DATA, format!("{what}; nothing is changed")));
    match password {
        "" => refusal("no password".into()),
        _ if password.contains(char::is_control) => refusal("a password has no control characters".into()),
        _ if password.len() > LONGEST => refusal(format!("a password has at most {LONGEST} octets")),
        _ => Ok(()),
    }
}

/// The field for the users file.
fn hash(scheme: Scheme, password: &str) -> Result<String, Refusal> {
    let refusal = |what: String| Refusal(sysexits::OSERR, format!("hashing: {what}"));
    let io_refusal = |error: io::Error| refusal(error.to_string());
    Ok(match scheme {
        Scheme::Argon2id => {
            let salt = random::octets::<16>().map_err(io_refusal)?;
            let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
            format!("{{ARGON2ID}}{}", hash.map_err(|error| refusal(error.to_string()))?)
        }
        Scheme::Sha512Crypt => {
            let setting = crypt::new_setting("$6$").map_err(io_refusal)?;
            let hash = crypt::hash(password, &setting).ok_or_else(|| refusal("libcrypt refuses".into()))?;
            format!("{{SHA512-CRYPT}}{hash}")
        }
        Scheme::ScramSha256 => {
            let salt = random::octets::<16>().map_err(io_refusal)?;
            let keys =
                Keys::derive(password, &salt, ITERATIONS).map_err(|fault| refusal(fault.to_string()))?;
            format!("{{SCRAM-SHA-256}}{keys}")
        }
    })
}

/// Puts the field into the file, which is replaced in one step and keeps its owner and mode; whether the
/// user is new. Two who do this at once take turns.
fn store(path: &Path, local: &str, domain: &str, field: &str) -> io::Result<bool> {
    // What a symbolic link leads to is replaced, not the link.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let old = lock(&path)?;
    let content = std::fs::read(&path)?;
    let (content, is_new) = changed(&content, local, domain, field);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    // Left by somebody who died over it: whoever lives has the lock, and that is us.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let replaced = replace(&temporary, &path, &content, &old);
    if replaced.is_err() {
        // The first fault is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced?;
    File::open(folder)?.sync_all()?;
    Ok(is_new)
}

fn replace(temporary: &Path, path: &Path, content: &[u8], old: &File) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let was = old.metadata()?;
    let is = file.metadata()?;
    if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
        fchown(&file, Some(was.uid()), Some(was.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(was.mode() & 0o7777))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

/// The file, locked; made if it is not there. One that was replaced while we waited is opened again.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.lock()?;
        let (ours, there) = (file.metadata()?, std::fs::metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// The content with the user's new field, and whether the user is new. The line that counts is changed:
/// the last one with the domain, else the last one of that name in every domain; all others stay as
/// they are, octet by octet.
fn changed(content: &[u8], local: &str, domain: &str, field: &str) -> (Vec<u8>, bool) {
    let mut lines: Vec<Vec<u8>> =
        content.split_inclusive(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
    let full = format!("{local}@{domain}");
    let of = |name: &str| lines.iter().rposition(|line| name_of(line).as_deref() == Some(name));
    let Some(found) = of(&full).or_else(|| of(local)) else {
        let mut content = content.to_vec();
        if !content.is_empty() && !content.ends_with(b"\n") {
            content.push(b'\n');
        }
        content.extend_from_slice(format!("{full}:{field}::::::\n").as_bytes());
        return (content, true);
    };
    let line = &lines[found];
    let end = line.iter().rposition(|octet| !b"\r\n".contains(octet)).map_or(0, |last| last + 1);
    let colons: Vec<usize> = (0..end).filter(|at| line[*at] == b':').collect();
    let name_end = colons.first().copied().unwrap_or(end);
    let field_end = colons.get(1).copied().unwrap_or(end);
    lines[found] = [&line[..name_end], b":", field.as_bytes(), &line[field_end..]].concat();
    (lines.concat(), false)
}

/// Whose line it is, in lower case.
fn name_of(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let name = line.split(':').next()?.trim().to_lowercase();
    (!line.starts_with('#') && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(content: &str) -> (String, bool) {
        let (content, is_new) = changed(content.as_bytes(), "alice", "example.org", "{X}new");
        (String::from_utf8(content).unwrap(), is_new)
    }

    #[test]
    fn the_line_that_counts_is_changed_and_no_other() {
        let before = "# alice@example.org:x\r\n\n Alice@Example.org : {X}old :1:1::/h::a=b:c\r\nbob:{X}b\n";
        let after = "# alice@example.org:x\r\n\n Alice@Example.org :{X}new:1:1::/h::a=b:c\r\nbob:{X}b\n";
        assert_eq!(change(before), (after.into(), false));
        assert_eq!(change("alice:{X}a\nbob:{X}b\n"), ("alice:{X}new\nbob:{X}b\n".into(), false));
        let both = "alice:{X}a\nalice@example.org:{X}b";
        assert_eq!(change(both), ("alice:{X}a\nalice@example.org:{X}new".into(), false));
        assert_eq!(change("alice@example.org\n"), ("alice@example.org:{X}new\n".into(), false));
    }

    #[test]
    fn who_is_missing_is_added() {
        let line = "alice@example.org:{X}new::::::\n";
        assert_eq!(change(""), (line.into(), true));
        assert_eq!(change("bob:{X}b"), (format!("bob:{{X}}b\n{line}"), true));
    }

    #[test]
    fn a_file_keeps_its_mode_and_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(store(&path, "alice", "example.org", "{X}1").unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::fs::write(folder.path().join(".users.tmp"), "left over").unwrap();
        assert!(!store(&link, "alice", "example.org", "{X}2").unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "alice@example.org:{X}2::::::\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(link.is_symlink() && !folder.path().join(".users.tmp").exists());
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || store(path, &format!("user{n}"), "x", "{X}1").unwrap());
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 8);
    }

    #[test]
    fn passwords_that_could_not_come_in_are_refused() {
        assert!(check("x").is_ok() && check("grün und blau").is_ok());
        for bad in ["", "a\u{3}", &"x".repeat(LONGEST + 1)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
