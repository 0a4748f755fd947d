//! The real posta-auth, with a posta-smtpd played by the test: every scheme, wrong and unknown, locked
//! out, killed and started again; and `postactl passwd`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use posta::sasl::dialogue::{Answer, Begin, MAX_PACKET, Refusal, Request};
use posta::sasl::keys::{Keys, hmac};
use posta::unix::pass::Packets;
use posta::unix::{crypt, privilege};
use tempfile::TempDir;

/// How long anything may take that a test waits for. Far longer than it does take.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A posta-auth with its folder.
struct House {
    folder: TempDir,
    child: Option<Child>,
}

impl House {
    /// `users` is the users file of example.org; `more` is appended to the configuration.
    fn start(users: &str, more: &str) -> House {
        let mut house = House::set_up(users, more, "drop_privileges = false");
        house.run();
        house
    }

    fn set_up(users: &str, more: &str, privileges: &str) -> House {
        let house = House { folder: tempfile::tempdir().unwrap(), child: None };
        let root = house.folder.path().display().to_string();
        fs::create_dir(house.path("users.d")).unwrap();
        fs::write(house.path("users.d/users"), users).unwrap();
        let config = format!(
            "hostname = \"mail.example.org\"\nspool = \"{root}/spool\"\nrun = \"{root}/run\"\n{privileges}\n\
             [domains]\n\"example.org\" = {{ users = \"{root}/users.d/users\" }}\n{more}\n"
        );
        fs::write(house.path("posta.toml"), config).unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posta-auth"));
        command.arg("-c").arg(self.path("posta.toml")).stdin(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_for("run/users", || self.path("run/users").exists().then_some(()));
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(self.path("run/users")).unwrap();
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").arg(name).arg(self.pid().to_string()).status().unwrap().success());
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    fn wait_for_log(&self, words: &str) {
        wait_for(&format!("{words} in the log:\n{}", self.log()), || {
            self.log().contains(words).then_some(())
        });
    }

    fn connect(&self) -> Dialogue {
        let packets = Packets::connect(&self.path("run/auth")).unwrap();
        packets.set_receive_timeout(PATIENCE).unwrap();
        Dialogue { packets }
    }

    fn begin(&self, mechanism: &str, initial: Option<&[u8]>, client: &str) -> (Dialogue, Answer) {
        let mut begin = plain_begin(mechanism, initial);
        begin.client = Some(client.parse().unwrap());
        let dialogue = self.connect();
        let answer = dialogue.ask(&Request::Begin(begin));
        (dialogue, answer)
    }

    fn plain_from(&self, client: &str, login: &str, password: &str) -> Answer {
        self.begin("PLAIN", Some(format!("\0{login}\0{password}").as_bytes()), client).1
    }

    fn plain(&self, login: &str, password: &str) -> Answer {
        self.plain_from("192.0.2.1", login, password)
    }

    fn passwd(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postactl"));
        command.arg("-c").arg(self.path("posta.toml")).arg("passwd").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn users(&self) -> String {
        fs::read_to_string(self.path("users.d/users")).unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log:\n{}", self.log());
        }
    }
}

struct Dialogue {
    packets: Packets,
}

impl Dialogue {
    fn ask(&self, request: &Request) -> Answer {
        self.packets.send(&request.encode().unwrap(), None).unwrap();
        let mut buffer = [0; MAX_PACKET];
        let (length, _) = self.packets.receive(&mut buffer).unwrap();
        Answer::decode(&buffer[..length]).unwrap()
    }

    fn respond(&self, response: &[u8]) -> Answer {
        self.ask(&Request::Response(response.to_vec()))
    }

    /// Whether the other end has gone.
    fn is_over(&self) -> bool {
        self.packets.receive(&mut [0; 16]).is_ok_and(|(length, _)| length == 0)
    }
}

fn plain_begin(mechanism: &str, initial: Option<&[u8]>) -> Begin {
    Begin {
        mechanism: mechanism.into(),
        initial: initial.map(<[u8]>::to_vec),
        client: None,
        secure: true,
        bindings: vec![],
    }
}

fn done(user: &str) -> Answer {
    Answer::Done(user.to_string())
}

fn refused(why: Refusal, seconds: u64) -> Answer {
    Answer::Refused { why, wait: Duration::from_secs(seconds) }
}

fn wrong(seconds: u64) -> Answer {
    refused(Refusal::Credentials, seconds)
}

const CRYPTED: &str = "{SHA512-CRYPT}$6$abc$LjS2xoTsdir5sS/M1uEwqdwDr1heBzu5kLkUda5YOSOOVowN.LnFchHDNiRC7EMRN3hfwSgiE4fD1Ox6FxebU0";

#[test]
fn every_scheme_takes_its_password_and_no_other() {
    let crypt = |setting: &str| crypt::hash("posta", setting).unwrap();
    let fields = [
        // By openssl passwd -6, by hand (RFC 7677), by libcrypt, and by libsodium as Dovecot does it.
        CRYPTED.to_string(),
        "{PLAIN}posta".into(),
        format!("{{SCRAM-SHA-256}}{}", Keys::derive("posta", b"salt", 4096).unwrap()),
        format!("{{SHA256-CRYPT}}{}", crypt("$5$salt$")),
        format!("{{BLF-CRYPT}}{}", crypt(&crypt::new_setting("$2b$").unwrap())),
        format!("{{CRYPT}}{}", crypt(&crypt::new_setting("$y$").unwrap())),
    ];
    let line = |(n, field): (usize, &String)| format!("user{n}@example.org:{field}:1:1::/home/x::\n");
    let text: String = fields.iter().enumerate().map(line).collect();
    let house = House::start(&text, "[auth]\nlock_out_after = 0");
    let stored = house.passwd(&["user6@example.org"], "posta\n");
    assert!(stored.status.success(), "{stored:?}");
    assert!(house.users().contains("\nuser6@example.org:{ARGON2ID}$argon2id$"), "{}", house.users());
    for n in 0..7 {
        let user = format!("user{n}@example.org");
        let client = format!("198.51.100.{n}");
        assert_eq!(house.plain_from(&client, &user, "posta"), done(&user));
        assert_eq!(house.plain_from(&client, &user, "Posta"), wrong(1));
    }
    assert!(!house.log().contains("Posta"), "no password is logged");
}

#[test]
fn login_in_two_steps_and_names_without_a_domain() {
    let house = House::start(&format!("alice@example.org:{CRYPTED}\nbob:{{PLAIN}}b\n"), "");
    let (dialogue, answer) = house.begin("login", None, "192.0.2.1");
    assert_eq!(answer, Answer::Challenge(b"Username:".to_vec()));
    assert_eq!(dialogue.respond(b"ALICE"), Answer::Challenge(b"Password:".to_vec()));
    assert_eq!(dialogue.respond(b"posta"), done("alice@example.org"));
    assert!(dialogue.is_over());
    assert_eq!(house.plain("bob", "b"), done("bob@example.org"));
    let (_, answer) = house.begin("PLAIN", Some(b"alice\0bob\0b"), "192.0.2.1");
    assert_eq!(answer, wrong(1), "acting for somebody else");
    let (_, answer) = house.begin("PLAIN", Some(b"bob\0bob\0b"), "192.0.2.1");
    assert_eq!(answer, done("bob@example.org"));
}

#[test]
fn wrong_and_unknown_are_told_alike_and_a_name_that_nobody_has_is_not_logged() {
    let house = House::start(&format!("alice@example.org:{CRYPTED}\nlocked@example.org:!:1:1\n"), "");
    let answers: Vec<Answer> = ["alice", "nobody", "locked", "x@elsewhere.example"]
        .iter()
        .enumerate()
        .map(|(n, user)| house.plain_from(&format!("192.0.2.{n}"), user, "wrong"))
        .collect();
    assert!(answers.iter().all(|answer| *answer == wrong(1)), "{answers:?}");
    assert_eq!(house.plain("my secret typed as a name", "x"), wrong(2), "the same client");
    let log = house.log();
    assert!(log.contains(
        "login=alice@example.org, client=192.0.2.0, mechanism=PLAIN, status=refused (wrong password)"
    ));
    assert!(
        log.contains("login=?, client=192.0.2.1, mechanism=PLAIN, status=refused (unknown user)"),
        "{log}"
    );
    assert!(!log.contains("my secret"), "{log}");
}

#[test]
fn waits_grow_and_then_nothing_is_checked() {
    let house =
        House::start("alice@example.org:{PLAIN}a\nbob@example.org:{PLAIN}b\n", "[auth]\nlock_out_after = 3");
    let waits: Vec<Answer> = (0..3).map(|_| house.plain("alice", "x")).collect();
    assert_eq!(waits, [wrong(1), wrong(2), wrong(4)]);
    let locked = refused(Refusal::LockedOut, 4);
    assert_eq!(house.plain("alice", "a"), locked, "the client and the user");
    assert_eq!(house.plain("bob", "b"), locked, "the client");
    assert_eq!(house.plain_from("192.0.2.9", "alice", "a"), locked, "the user");
    assert_eq!(house.plain_from("192.0.2.9", "bob", "b"), done("bob@example.org"));
    for network in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
        house.plain_from(network, "nobody", "x");
    }
    let another = house.plain_from("2001:db8::4", "bob", "b");
    assert!(
        matches!(another, Answer::Refused { why: Refusal::LockedOut, .. }),
        "one /64 is one client: {another:?}"
    );
}

/// The proof of who knows the password, for a server's first message.
fn scram_answer(password: &str, bare: &str, server_first: &str, bound: &[u8]) -> String {
    let parts: Vec<&str> = server_first.split(',').map(|part| &part[2..]).collect();
    let (salt, rounds): (Vec<u8>, u32) = (STANDARD.decode(parts[1]).unwrap(), parts[2].parse().unwrap());
    // RFC 5802 2.2: Hi(), as written there.
    let mut salted = hmac(password.as_bytes(), &[&salt[..], &[0, 0, 0, 1]].concat());
    let mut round = salted;
    for _ in 1..rounds {
        round = hmac(password.as_bytes(), &round);
        salted.iter_mut().zip(round).for_each(|(octet, other)| *octet ^= other);
    }
    let mut proof = hmac(&salted, b"Client Key");
    let without_proof = format!("c={},r={}", STANDARD.encode(bound), parts[0]);
    let message = format!("{bare},{server_first},{without_proof}");
    let signature = hmac(&openssl::sha::sha256(&proof), message.as_bytes());
    proof.iter_mut().zip(signature).for_each(|(octet, other)| *octet ^= other);
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

fn scram(house: &House, mechanism: &str, header: &str, user: &str, password: &str, bound: &[u8]) -> Answer {
    let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
    let mut begin = plain_begin(mechanism, Some(format!("{header}{bare}").as_bytes()));
    begin.bindings = vec![(posta::sasl::mechanism::Binding::Exporter, b"this connection".to_vec())];
    let dialogue = house.connect();
    let answer = dialogue.ask(&Request::Begin(begin));
    let Answer::Challenge(first) = answer else { return answer };
    let bound = [header.as_bytes(), bound].concat();
    let answer = dialogue
        .respond(scram_answer(password, &bare, std::str::from_utf8(&first).unwrap(), &bound).as_bytes());
    let Answer::Challenge(last) = &answer else { return answer };
    assert!(last.starts_with(b"v="));
    dialogue.respond(b"")
}

#[test]
fn scram_with_stored_keys_and_bound_to_the_channel() {
    let house = House::start("bob@example.org:{PLAIN}b\n", "");
    let stored = house.passwd(&["--scheme", "scram-sha-256", "alice@example.org"], "pencil\n");
    assert!(stored.status.success(), "{stored:?}");
    wait_for("all mechanisms", || {
        let offered = fs::read_to_string(house.path("run/mechanisms")).unwrap();
        (offered == "SCRAM-SHA-256-PLUS\nSCRAM-SHA-256\nPLAIN\nLOGIN\n").then_some(())
    });
    let (plain, plus) = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS");
    assert_eq!(scram(&house, plain, "n,,", "alice", "pencil", b""), done("alice@example.org"));
    assert_eq!(scram(&house, plain, "n,,", "bob@example.org", "b", b""), done("bob@example.org"));
    assert_eq!(scram(&house, plain, "n,,", "alice", "eraser", b""), wrong(1));
    assert_eq!(scram(&house, plain, "n,,", "nobody", "pencil", b""), wrong(1));
    let bound = "p=tls-exporter,,";
    assert_eq!(scram(&house, plus, bound, "alice", "pencil", b"this connection"), done("alice@example.org"));
    assert_eq!(scram(&house, plus, bound, "alice", "pencil", b"another one"), wrong(1));
    assert_eq!(scram(&house, plain, "y,,", "alice", "pencil", b""), wrong(1), "somebody hid -PLUS");
}

#[test]
fn a_mechanism_that_is_not_offered_is_not_taken() {
    let house = House::start(&format!("alice@example.org:{CRYPTED}\n"), "");
    assert_eq!(fs::read_to_string(house.path("run/mechanisms")).unwrap(), "PLAIN\nLOGIN\n");
    let (_, answer) = house.begin("SCRAM-SHA-256", Some(b"n,,n=alice,r=x"), "192.0.2.1");
    assert_eq!(answer, refused(Refusal::Mechanism, 0));
    let (_, answer) = house.begin("CRAM-MD5", None, "192.0.2.1");
    assert_eq!(answer, refused(Refusal::Mechanism, 0));
    let open = Begin { secure: false, ..plain_begin("PLAIN", Some(b"\0alice\0posta")) };
    assert_eq!(
        house.connect().ask(&Request::Begin(open)),
        refused(Refusal::Mechanism, 0),
        "somebody may listen"
    );
    let (_, answer) = house.begin("PLAIN", Some(b"nonsense"), "192.0.2.1");
    assert_eq!(answer, refused(Refusal::Malformed, 0));
}

#[test]
fn a_changed_users_file_counts_at_once_and_bad_lines_are_named() {
    let house = House::start("alice@example.org:{PLAIN}old\n", "");
    assert_eq!(house.plain("alice", "old"), done("alice@example.org"));
    fs::write(house.path("users.d/users"), "# x\nalice@example.org:{PLAIN}new\ncarl@example.org:{ROT13}x\n")
        .unwrap();
    assert_eq!(house.plain("alice", "new"), done("alice@example.org"));
    assert_eq!(house.plain("carl", "x"), wrong(1));
    house.wait_for_log("users.d/users:3: carl@example.org: unknown scheme {ROT13}");
    fs::remove_file(house.path("users.d/users")).unwrap();
    assert_eq!(house.plain("alice", "new"), Answer::Later);
}

#[test]
fn killed_and_started_again_it_serves_again() {
    let mut house = House::start("alice@example.org:{PLAIN}a\n", "");
    let (dialogue, _) = house.begin("LOGIN", None, "192.0.2.1");
    house.kill();
    assert!(dialogue.is_over());
    assert!(Packets::connect(&house.path("run/auth")).is_err());
    house.run();
    assert_eq!(house.plain("alice", "a"), done("alice@example.org"));
}

#[test]
fn a_reload_brings_new_rules() {
    let house = House::start("alice@example.org:{PLAIN}a\n", "");
    let config = fs::read_to_string(house.path("posta.toml")).unwrap();
    let reloaded = config.replace("\"example.org\"", "\"example.net\"");
    fs::write(house.path("posta.toml"), reloaded).unwrap();
    house.signal("-HUP");
    house.wait_for_log("configuration read again");
    fs::write(house.path("users.d/users"), "alice:{PLAIN}a\n").unwrap();
    assert_eq!(house.plain("alice@example.net", "a"), done("alice@example.net"));
    assert_eq!(house.plain("alice@example.org", "a"), wrong(1));
}

#[test]
fn a_users_file_in_another_folder_is_read_after_a_new_start() {
    let mut house = House::start("alice@example.org:{PLAIN}a\n", "");
    let elsewhere = tempfile::tempdir().unwrap();
    let users = elsewhere.path().join("users");
    fs::write(&users, "bob:{PLAIN}b\n").unwrap();
    let config = fs::read_to_string(house.path("posta.toml")).unwrap();
    let old = house.path("users.d/users").display().to_string();
    fs::write(house.path("posta.toml"), config.replace(&old, &users.display().to_string())).unwrap();
    house.signal("-HUP");
    // Where the kernel has Landlock it has to begin anew; the keeper would start it.
    let ended = wait_for("the reload", || {
        let ended = house.child.as_mut().unwrap().try_wait().unwrap();
        (ended.is_some() || house.log().contains("configuration read again")).then_some(ended)
    });
    if let Some(status) = ended {
        assert!(status.success(), "{status}");
        house.child = None;
        fs::remove_file(house.path("run/users")).unwrap();
        house.run();
    }
    assert_eq!(house.plain("bob", "b"), done("bob@example.org"));
}

#[test]
fn garbage_and_idle_peers_disturb_nobody() {
    let house = House::start("alice@example.org:{PLAIN}a\n", "");
    let idle: Vec<Dialogue> = (0..40).map(|_| house.connect()).collect();
    for garbage in [&b"x"[..], b"response 1:x\n", b"mechanism 5:PLAIN\n", &[b'x'; 20_000]] {
        let dialogue = house.connect();
        dialogue.packets.send(garbage, None).unwrap();
        assert!(dialogue.is_over(), "{garbage:?}");
    }
    let (twice, _) = house.begin("PLAIN", None, "192.0.2.1");
    twice.packets.send(&Request::Begin(plain_begin("PLAIN", None)).encode().unwrap(), None).unwrap();
    assert!(twice.is_over());
    assert_eq!(house.plain("alice", "a"), done("alice@example.org"));
    drop(idle);
}

#[test]
fn one_client_has_so_many_logins_at_once() {
    let house = House::start("alice@example.org:{PLAIN}a\n", "");
    let begun: Vec<(Dialogue, Answer)> = (0..40).map(|_| house.begin("LOGIN", None, "192.0.2.1")).collect();
    let put_off = begun.iter().filter(|(_, answer)| *answer == Answer::Later).count();
    assert_eq!(put_off, 8);
    assert_eq!(house.plain_from("192.0.2.2", "alice", "a"), done("alice@example.org"));
}

#[test]
fn dovecot_is_asked_where_it_has_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("auth-client");
    let listener = UnixListener::bind(&socket).unwrap();
    let house = House::start(
        "alice@example.org:{PLAIN}ours\n",
        &format!("[auth]\ndovecot = \"unix:{}\"", socket.display()),
    );
    let dovecot = std::thread::spawn(move || {
        for answer in
            ["OK\t1\tuser=alice@example.org\n", "FAIL\t1\tuser=alice\n", "FAIL\t1\tuser=alice\ttemp\n"]
        {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nDONE\n").unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let asked = lines.into_iter().find(|line| line.starts_with("AUTH\t")).unwrap();
            assert!(asked.contains("\tsecured\t") && asked.contains("\trip=192.0.2.1\t"), "{asked}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    assert_eq!(house.plain("alice", "theirs"), done("alice@example.org"));
    assert_eq!(house.plain("alice", "ours"), wrong(1));
    assert_eq!(house.plain("alice", "theirs"), Answer::Later);
    dovecot.join().unwrap();
    assert_eq!(house.plain("alice", "theirs"), Answer::Later, "it has gone");
}

#[test]
fn accounts_of_this_host() {
    if !privilege::is_root() {
        return; // shadow passwords are for root
    }
    let house = House::start("", "\"shell.example\" = { users = \"system\" }");
    assert_eq!(house.plain_from("192.0.2.1", "no-such-user-here@shell.example", "x"), wrong(1));
    assert_eq!(house.plain_from("192.0.2.2", "nobody@shell.example", "x"), wrong(1));
    assert!(house.log().contains("status=refused (unknown user)"), "{}", house.log());
    assert!(house.log().contains("login=nobody@shell.example, client=192.0.2.2"), "{}", house.log());
}

#[test]
fn root_keeps_nothing_but_reading() {
    if !privilege::is_root() {
        return; // nothing to give up
    }
    let mut house = House::set_up("alice@example.org:{PLAIN}a\n", "", "user = \"nobody\"");
    // As a users file may be: of somebody else, closed to all others.
    std::os::unix::fs::chown(house.path("users.d/users"), Some(1234), None).unwrap();
    fs::set_permissions(house.path("users.d/users"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    house.run();
    assert_eq!(house.plain("alice", "a"), done("alice@example.org"));
    let threads = fs::read_dir(format!("/proc/{}/task", house.pid())).unwrap();
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let says = |line: &str| status.lines().any(|said| said == line);
        // CAP_DAC_READ_SEARCH alone
        for line in [
            "NoNewPrivs:\t1",
            "CapEff:\t0000000000000004",
            "CapPrm:\t0000000000000004",
            "CapBnd:\t0000000000000004",
        ] {
            assert!(says(line), "{line}\n{status}");
        }
    }
    let socket = fs::metadata(house.path("run/auth")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o660);
}

#[test]
fn passwd_says_what_it_can_t_do() {
    let more = "\"shell.example\" = { users = \"system\" }\n\"relay.example\" = { relay = \"mx\" }";
    let mut house =
        House::set_up("# ours\nalice@example.org:{PLAIN}old:7:8::/h::x=y\n", more, "drop_privileges = false");
    for (arguments, input, words) in [
        (&["alice@shell.example"][..], "x\n", "passwd(1)"),
        (&["alice@relay.example"], "x\n", "users ="),
        (&["alice@unknown.example"], "x\n", "[domains]"),
        (&["alice@example.org"], "\n", "no password"),
        (&["--scheme", "rot13", "alice@example.org"], "x\n", "unknown scheme"),
        (&["alice"], "x\n", "alice"),
        (&[], "x\n", "USER@DOMAIN"),
    ] {
        let said = house.passwd(arguments, input);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(words), "{arguments:?}: {text}");
    }
    assert!(house.users().contains("{PLAIN}old"));
    let said = house.passwd(&["--scheme", "sha512-crypt", "Alice@Example.org"], "new one\n");
    assert!(said.status.success(), "{said:?}");
    let users = house.users();
    assert!(
        users.starts_with("# ours\nalice@example.org:{SHA512-CRYPT}$6$")
            && users.ends_with(":7:8::/h::x=y\n"),
        "{users}"
    );
    house.run();
    assert_eq!(house.plain("alice", "new one"), done("alice@example.org"));
}
