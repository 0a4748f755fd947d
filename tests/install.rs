//! `make install` into a temporary root, and `make uninstall`; completion of postactl's words; and
//! what other tools make of the files that are installed for them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Scripts that need root and a Debian to be tried in: at least their shell understands them.
#[test]
fn the_scripts_of_the_package_are_well_formed() {
    for name in ["build", "try", "walk", "boot", "postinst", "postrm", "prerm"] {
        let script = project().join("contrib/debian").join(name);
        let said = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// A root to install into, and programs that stand for those of a release: each runs the real one.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> Root {
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("built");
        fs::create_dir(&built).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_posta")).parent().unwrap();
        for program in fs::read_dir(project().join("src/bin")).unwrap() {
            let name = program.unwrap().file_name().into_string().unwrap();
            let text = format!("#!/bin/sh\nexec {}/{name} \"$@\"\n", programs.display());
            fs::write(built.join(name), text).unwrap();
        }
        Root { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn make(&self, target: &str) -> Output {
        let mut command = Command::new("make");
        command.args(["-C"]).arg(project()).arg(target).args(["CARGO=true", "PREFIX=/usr"]);
        command.arg(format!("built={}/built", self.folder.path().display()));
        command.arg(format!("DESTDIR={}", self.folder.path().join("root").display()));
        // A make that runs this test would hand its own variables down.
        command.env_remove("MAKEFLAGS").env_remove("MAKEOVERRIDES").env_remove("MFLAGS");
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done
    }

    /// All files, by their path below the root.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let root = self.path("");
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    found.insert(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        found
    }
}

#[test]
fn what_install_puts_there_uninstall_removes() {
    let root = Root::new();
    root.make("install");
    let files = root.files();
    for wanted in [
        "usr/sbin/posta",
        "usr/sbin/sendmail",
        "usr/bin/mailq",
        "usr/bin/newaliases",
        "usr/libexec/posta/posta-drop",
        "usr/share/man/man7/posta.7",
        "usr/lib/systemd/system/posta.target",
        "usr/lib/systemd/system/posta-smtpd@.service",
        "usr/lib/sysusers.d/posta.conf",
        "usr/lib/tmpfiles.d/posta.conf",
        "usr/share/bash-completion/completions/postactl",
        "usr/share/zsh/site-functions/_postactl",
        "usr/share/posta/sysv",
        "usr/share/posta/apparmor",
        "etc/posta/posta.toml",
        "etc/pam.d/posta",
        "etc/fail2ban/filter.d/posta.conf",
    ] {
        assert!(files.contains(wanted), "{wanted} is missing in {files:#?}");
    }
    for program in fs::read_dir(project().join("src/bin")).unwrap() {
        let name = program.unwrap().file_name().into_string().unwrap();
        let places = [format!("usr/sbin/{name}"), format!("usr/libexec/posta/{name}")];
        let there: Vec<&String> = places.iter().filter(|place| files.contains(*place)).collect();
        assert_eq!(there.len(), 1, "{name}: {there:?}");
        let mode = root.path(there[0]).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o755, 0o755, "{name}");
    }
    // Only the configuration was there to stay.
    root.make("uninstall");
    assert_eq!(root.files(), BTreeSet::from(["etc/posta/posta.toml".to_string()]));
    root.make("uninstall");
}

#[test]
fn what_is_installed_knows_where_it_is() {
    let root = Root::new();
    root.make("install");
    for name in root.files().iter().filter(|name| !name.contains("/man/")) {
        let text = fs::read(root.path(name)).unwrap();
        // The sample says what the default is.
        let sample = name == "etc/posta/posta.toml";
        assert!(sample || !String::from_utf8_lossy(&text).contains("/usr/local"), "{name}");
    }
    let check = |file: &Path| {
        let mut command = Command::new(root.path("usr/sbin/postactl"));
        command.arg("-c").arg(file).arg("settings").output().unwrap()
    };
    let said = check(&root.path("etc/posta/posta.toml"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let sample = fs::read_to_string(root.path("etc/posta/posta.toml")).unwrap();
    assert!(sample.contains("\nlibexec = \"/usr/libexec/posta\""), "{sample}");
}

#[test]
fn what_the_administrator_has_changed_stays() {
    let root = Root::new();
    root.make("install");
    let own = "auth required pam_deny.so\n";
    for name in ["etc/pam.d/posta", "etc/posta/posta.toml"] {
        fs::write(root.path(name), own).unwrap();
    }
    root.make("install");
    root.make("uninstall");
    for name in ["etc/pam.d/posta", "etc/posta/posta.toml"] {
        assert_eq!(fs::read_to_string(root.path(name)).unwrap(), own, "{name}");
    }
}

fn completed(line: &[&str]) -> Vec<String> {
    let script = project().join("contrib/host/completion.bash");
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let text = format!(
        "complete() {{ :; }}; . '{}'; COMP_WORDS=({}); COMP_CWORD={}; _postactl; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        line.len() - 1
    );
    let said = Command::new("bash").args(["--norc", "-c", &text]).output().unwrap();
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn shells_complete_the_words_of_postactl() {
    let help = Command::new(env!("CARGO_BIN_EXE_postactl")).arg("-h").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split("Words:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let words: BTreeSet<String> =
        words.lines().map(|line| line.split_whitespace().next().unwrap().to_string()).collect();
    let offered = completed(&["postactl", ""]);
    let offered: BTreeSet<String> = offered.into_iter().filter(|word| !word.starts_with('-')).collect();
    assert_eq!(offered, words);
    let zsh = fs::read_to_string(project().join("contrib/host/completion.zsh")).unwrap();
    let lines = zsh.lines().filter_map(|line| line.strip_prefix("        '")?.split_once(':'));
    let offered: BTreeSet<String> =
        lines.map(|(word, _)| word.to_string()).filter(|word| !word.starts_with('-')).collect();
    assert_eq!(offered, words);
    assert_eq!(completed(&["postactl", "-c", "x", "que"]), ["queue"]);
    assert_eq!(completed(&["postactl", "queue", "--tot"]), ["--totals"]);
}

/// Scripts of shells are at least scripts, and the tools that have a check find nothing wrong.
#[test]
fn other_programs_can_read_what_is_for_them() {
    let host = |name: &str| project().join("contrib/host").join(name).display().to_string();
    let checks: [(&str, Vec<String>); 4] = [
        ("sh", vec!["-n".into(), host("sysv")]),
        ("sh", vec!["-n".into(), host("openrc")]),
        ("apparmor_parser", vec!["-Q".into(), "-K".into(), host("apparmor")]),
        ("systemd-sysusers", vec!["--dry-run".into(), host("sysusers.conf")]),
    ];
    for (program, arguments) in checks {
        match Command::new(program).args(&arguments).output() {
            Err(error) => eprintln!("skipped: {program}: {error}"),
            Ok(said) => {
                assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
            }
        }
    }
}

/// The package's scripts, as far as they can be looked at without installing it: they are scripts, and the
/// sample has the lines that the first configuration is made from.
#[test]
fn the_packages_first_configuration_has_a_certificate() {
    let debian = project().join("contrib/debian");
    for script in ["postinst", "prerm", "postrm", "build"] {
        let said = Command::new("sh").arg("-n").arg(debian.join(script)).output().unwrap();
        assert!(said.status.success(), "{script}: {}", String::from_utf8_lossy(&said.stderr));
    }
    let text = fs::read_to_string(debian.join("postinst")).unwrap();
    let made = text.split("    sed -e").nth(1).unwrap().split(" > /etc").next().unwrap();
    let sample = project().join("contrib/posta.toml").display().to_string();
    let made = format!("sed -e{}", made.replace("/usr/share/posta/posta.toml", &sample));
    let made = Command::new("sh").args(["-c", &made]).output().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("posta.toml");
    let tls = folder.path().display().to_string();
    let text = String::from_utf8(made.stdout).unwrap().replace("/etc/posta/tls", &tls);
    fs::write(&file, text).unwrap();
    for name in ["cert.pem", "key.pem"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let config = posta::config::load(Some(&file)).unwrap();
    assert_eq!(config.tls.certificate, Some(folder.path().join("cert.pem")));
    assert_eq!(config.tls.key, Some(folder.path().join("key.pem")));
}
