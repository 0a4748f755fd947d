//! Users' `.forward` files, through the real programs.
//!
//! As root the whole house runs as an account that every Debian has, since nothing is forwarded with
//! root's rights; otherwise as the caller.

mod station;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use posta::unix::users;

use station::sink::Sink;
use station::{House, wait_for};

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n";

/// A house whose domain example.net has these users, each with a `.forward` of this text.
fn house(forwards: &[(&str, &str)]) -> House {
    house_with("", forwards)
}

/// The same with more settings.
fn house_with(more: &str, forwards: &[(&str, &str)]) -> House {
    let mut house = House::set_up("");
    let others = format!("[domains]\n\"*\" = {{ relay = \"{}:2526\" }}", house.address);
    let config = fs::read_to_string(house.config()).unwrap().replacen("[domains]", &others, 1);
    let root = house.folder.path().to_path_buf();
    let (own, group) = (users::current().1, users::current_group());
    let daemon = users::by_name("daemon").unwrap().unwrap();
    let (uid, gid) = if own == 0 { (daemon.uid, daemon.gid) } else { (own, group) };
    let domain = format!("[domains]\n\"example.net\" = {{ users = \"{}/users\" }}", root.display());
    fs::write(house.config(), config.replacen("[domains]", &domain, 1) + more).unwrap();
    let mut table = String::new();
    for (user, text) in forwards {
        let home = root.join("home").join(user);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join(".forward"), text).unwrap();
        fs::set_permissions(home.join(".forward"), fs::Permissions::from_mode(0o600)).unwrap();
        table.push_str(&format!("{user}@example.net:x:{uid}:{gid}::{}\n", home.display()));
    }
    fs::write(root.join("users"), table).unwrap();
    if own == 0 {
        let setpriv = format!("setpriv --reuid={uid} --regid={gid} --clear-groups");
        house.wrapper = setpriv.split(' ').map(str::to_string).collect();
        let chown = Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(&root).status();
        assert!(chown.unwrap().success());
    }
    house.run();
    house
}

fn home(house: &House, user: &str) -> PathBuf {
    house.path("home").join(user)
}

fn maildir(house: &House, user: &str) -> Vec<String> {
    let new = home(house, user).join("Maildir/new");
    let Ok(entries) = fs::read_dir(new) else { return Vec::new() };
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn mail_goes_where_its_reader_wants_it() {
    let text = "\\alice, bob@elsewhere.example, carol@example.org\n\"|cat > $HOME/seen; echo $EXTENSION >> $HOME/seen\"\n";
    let house = house(&[("alice", text)]);
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = house.send("a@x.example", &["alice+books@example.net"], MESSAGE);
    let away = &sink.wait_for(1)[0];
    assert_eq!(
        (away.to.as_slice(), away.from.starts_with("<a@x.example>")),
        (&["bob@elsewhere.example".to_string()][..], true)
    );
    // Where it has been stands in its header, above how it came here.
    let delivered = away.data.find("\r\nDelivered-To: alice+books@example.net\r\n").unwrap();
    assert!(away.data[delivered..].contains("Received: from client.example"), "{}", away.data);
    assert!(away.data.ends_with(&MESSAGE.replace('\n', "\r\n")), "{}", away.data);
    let carol = &house.wait_for_mail("carol", 1)[0];
    assert!(carol.starts_with("Return-Path: <a@x.example>\nDelivered-To: carol@example.org\n"), "{carol}");
    house.wait_for_empty_queue();
    let copies = maildir(&house, "alice");
    assert_eq!(copies.len(), 1);
    assert!(copies[0].starts_with("Return-Path: <a@x.example>\nDelivered-To: alice+books@example.net\n"));
    let seen = fs::read_to_string(home(&house, "alice").join("seen")).unwrap();
    assert!(seen.ends_with("\nOne line.\nbooks\n"), "{seen}");
    house.wait_for_log(&[&id, "to=<alice+books@example.net>", "relay=local", "status=sent (forwarded as "]);
    house.wait_for_log(&[&id, "status=sent (delivered to command)"]);
}

#[test]
fn what_goes_on_to_strangers_has_a_way_back() {
    let house = house_with("[routing]\nsrs_domain = \"example.org\"\n", &[("alice", "bob@far.example")]);
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    house.send("a@x.example", &["alice@example.net"], MESSAGE);
    let away = &sink.wait_for(1)[0];
    assert!(
        away.from.starts_with("<SRS0=") && away.from.contains("=x.example=a@example.org>"),
        "{}",
        away.from
    );
    house.wait_for_empty_queue();
}

#[test]
fn a_circle_is_broken_and_its_sender_told() {
    let house = house(&[("alice", "bob@example.net"), ("bob", "alice@example.net")]);
    let id = house.send("carol@example.org", &["alice@example.net"], MESSAGE);
    let report = &house.wait_for_mail("carol", 1)[0];
    assert!(report.contains("Status: 5.4.6") && report.contains("goes in a circle"), "{report}");
    house.wait_for_log(&[&id, "forwarded as"]);
    house.wait_for_empty_queue();
    assert_eq!(house.mailbox("carol").len(), 1);
}

#[test]
fn a_part_that_fails_is_tried_again_and_the_others_are_not_repeated() {
    let text = "bob@elsewhere.example, \"|test -e $HOME/ready || exit 75; cat >> $HOME/seen\"";
    let house = house(&[("alice", text)]);
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    let id = house.send("a@x.example", &["alice@example.net"], MESSAGE);
    sink.wait_for(1);
    house.wait_for_log(&[&id, "dsn=4.3.0", "status=deferred (temporary failure"]);
    // Not even if the runner dies, once it has noted what it did.
    wait_for("the journal", || {
        let journals = house.spooled("journal");
        let noted = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("forwarded as"));
        journals.iter().any(noted).then_some(())
    });
    house.kill("posta-queue");
    fs::write(home(&house, "alice").join("ready"), "").unwrap();
    house.wait_for_empty_queue();
    let seen = fs::read_to_string(home(&house, "alice").join("seen")).unwrap();
    assert_eq!((seen.matches("One line.").count(), sink.attempts("bob@elsewhere.example")), (1, 1));
}

#[test]
fn an_unreadable_wish_keeps_the_mail_until_it_is_mended() {
    let house = house(&[("alice", "this is, no list of addresses")]);
    let id = house.send("a@x.example", &["alice@example.net"], MESSAGE);
    house.wait_for_log(&[&id, "dsn=4.3.5", "status=deferred", "/home/alice/.forward: line 1: "]);
    assert!(maildir(&house, "alice").is_empty());
    fs::write(home(&house, "alice").join(".forward"), "/dev/null\n").unwrap();
    house.wait_for_log(&[&id, "status=sent (thrown away, as .forward says)"]);
    house.wait_for_empty_queue();
}
