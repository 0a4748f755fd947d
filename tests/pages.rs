//! A program and its manual page can't drift apart.

#[allow(dead_code)]
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::root;

/// Every program, from the folders of `src/bin/`.
fn programs() -> Vec<String> {
    let entries = fs::read_dir(root().join("src/bin")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

fn page(program: &str) -> PathBuf {
    let pages = ["8", "1"].map(|section| root().join(format!("man/{program}.{section}")));
    let found = pages.iter().find(|page| page.exists());
    found.unwrap_or_else(|| panic!("{program} has no page in man/")).clone()
}

fn text(page: &Path) -> String {
    fs::read_to_string(page).unwrap()
}

/// What `-h` prints.
fn help(program: &str) -> String {
    let path = Path::new(env!("CARGO_BIN_EXE_posta")).with_file_name(program);
    let output = Command::new(&path).arg("-h").output().unwrap();
    assert!(output.status.success(), "{program} -h: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The letters and long names of a help text's table of options.
fn options(help: &str) -> Vec<String> {
    // What is deeper goes on with a text.
    let lines = help.lines().filter_map(|line| line.strip_prefix("    -"));
    lines
        .flat_map(|line| line.split("  ").next().unwrap().split(", "))
        .map(|option| option.trim_start_matches('-').split([' ', '[']).next().unwrap().to_string())
        .collect()
}

/// Whether a page's macros name an option.
fn names_option(page: &str, option: &str) -> bool {
    let in_line = |line: &str| {
        let macro_line = line.starts_with(".It Fl") || line.starts_with(".Op Fl") || line.starts_with(".Fl");
        let words = line.split([' ', ',']).any(|word| word == option);
        // "-bp" is a value of -b.
        let valued = option.len() == 1 && line.split(' ').nth(2).is_some_and(|word| word.starts_with(option));
        let gathered = line.split(' ').any(|word| {
            option.len() == 1 && line.starts_with(".Op Fl") && word.len() > 1 && word.contains(option)
        });
        macro_line && (words || valued || gathered)
    };
    page.lines().any(in_line)
}

#[test]
fn every_option_is_in_its_page() {
    for program in programs() {
        let page = text(&page(&program));
        let options = options(&help(&program));
        assert!(options.contains(&"c".to_string()), "{program}: {options:?}");
        for option in options {
            assert!(names_option(&page, &option), "{program}: -{option} is not in its page");
        }
    }
}

#[test]
fn every_word_of_postactl_is_in_its_page() {
    let help = help("postactl");
    let words = help.split("Words:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let page = text(&page("postactl"));
    let mut count = 0;
    for word in words.lines().map(|line| line.split_whitespace().next().unwrap()) {
        assert!(page.contains(&format!(".It Cm {word}")), "{word} is not in postactl(8)");
        count += 1;
    }
    assert!(count >= 12, "{help}");
}

#[test]
fn every_page_has_its_sections() {
    for program in programs() {
        let page = page(&program);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SECURITY", "EXIT STATUS", "SEE ALSO"] {
            assert!(text(&page).contains(&format!(".Sh {section}\n")), "{}: {section}", page.display());
        }
    }
}

#[test]
fn pages_are_well_formed() {
    if Command::new("mandoc").arg("-T").arg("lint").arg("/dev/null").output().is_err() {
        eprintln!("mandoc is not installed: the pages are not looked at");
        return;
    }
    let mut count = 0;
    for entry in fs::read_dir(root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        if text(&path).starts_with(".so ") {
            continue;
        }
        let output =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}");
        count += 1;
    }
    assert!(count >= 6, "only {count} pages");
}

#[test]
fn what_is_lacking_is_told_with_its_test() {
    let text = text(&root().join("man/posta.7"));
    let table = text.split(".Ss When something is lacking").nth(1).unwrap().split("\n.El\n").next().unwrap();
    let rows: Vec<&str> = table.split("\n.It ").skip(1).collect();
    assert!(rows.len() >= 10, "{rows:?}");
    rows.iter().for_each(|row| has_its_tests(row));
}

#[test]
fn what_is_promised_is_told_with_its_test() {
    let text = text(&root().join("man/posta-security.7"));
    let programs = text.split(".Ss What each program may do").nth(1).unwrap();
    let (programs, promises) = programs.split_once(".Ss What is promised").unwrap();
    for program in self::programs().iter().filter(|name| !["postactl", "sendmail"].contains(&name.as_str())) {
        assert!(
            programs.contains(&format!(".It Xr {program} 8")),
            "{program}: nothing is said of its rights"
        );
    }
    has_its_tests(programs);
    let promises: Vec<&str> = promises.split("\n.El\n").next().unwrap().split("\n.It\n").skip(1).collect();
    assert!(promises.len() >= 10, "{promises:?}");
    promises.iter().for_each(|promise| has_its_tests(promise));
}

/// A promise of a page names the tests that hold us to it, in lines of comment, and they are there.
fn has_its_tests(promise: &str) {
    let tests: Vec<&str> = promise.lines().filter_map(|line| line.strip_prefix(".\\\" test: ")).collect();
    assert!(!tests.is_empty(), "no test is named: {promise}");
    for test in tests {
        let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}"));
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(source.contains(&format!("fn {name}(")), "{file}: no {name}");
    }
}

/// Every piece of posta.toml that the tutorial shows is one that posta takes.
#[test]
fn the_tutorials_configurations_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("posta.toml");
    let page = text(&root().join("man/posta-tutorial.7"));
    let blocks = page.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.map(|block| block.split(".Ed\n").next().unwrap());
    for name in ["cert.pem", "key.pem", "users", "smarthost"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let (mut count, mut whole) = (0, String::new());
    for block in blocks.filter(|block| block.starts_with('[') || block.starts_with("hostname")) {
        // Each step adds to the file; the last one shows another [domains].
        whole = if block.starts_with("[domains]") { block.to_string() } else { format!("{whole}\n{block}") };
        fs::write(&file, whole.replace("/etc/posta", &folder.path().display().to_string())).unwrap();
        let faults = posta::config::load(Some(&file)).err().unwrap_or_default();
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{whole}: {faults:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}

/// The user of the tutorial's step 4 gets a password by the command that it shows.
#[test]
fn the_tutorials_user_gets_a_password() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let page = text(&root().join("man/posta-tutorial.7"));
    let line = page.lines().find_map(|line| line.strip_prefix("echo \"")?.split('"').next()).unwrap();
    let line = line.replace("$(id -u vmail)", "1001").replace("$(id -g vmail)", "1001");
    fs::write(path("users"), format!("{line}\n")).unwrap();
    let domain = format!("[domains]\n\"example.org\" = {{ users = \"{}\" }}\n", path("users").display());
    fs::write(path("posta.toml"), format!("hostname = \"mail.example.org\"\n{domain}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postactl"));
    command.arg("-c").arg(path("posta.toml")).args(["passwd", "alice@example.org"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a long enough secret\n").unwrap();
    assert!(child.wait().unwrap().success());
    let users = fs::read_to_string(path("users")).unwrap();
    assert!(users.starts_with("alice@example.org:{") && users.contains(":1001:1001:"), "{users}");
}
