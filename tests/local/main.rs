//! posta-local as posta-queue sees it: the real program, driven over its socket.
//!
//! As root the tests work with accounts that every Debian has; otherwise with the caller's own.

mod confined;
mod folders;
mod forward;
mod hostile;
mod station;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use posta::courier::request::{Owner, Place, Request};

use station::*;

#[test]
fn each_recipient_has_his_copy_byte_for_byte() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let places = [
        ("alice@example.org", maildir(&home.join("alice"))),
        ("bob@example.org", Place::Maildir("~/deep/bob/".into())),
        ("carol@example.org", Place::Home(Box::new(Place::Maildir("~/carol/".into())))),
    ];
    let request = runner.request(&owner_at(&account, &home), &places);
    runner.send(&request);
    let report = runner.report();
    assert_eq!((report.job, report.outcomes.len(), report.unreachable), (request.job, 3, false));
    for outcome in &report.outcomes {
        let said = (outcome.status.to_string(), outcome.relay.as_str(), outcome.text.as_str());
        assert_eq!(said, ("2.0.0".to_string(), "local", "delivered to maildir"));
    }
    for (n, who) in ["alice", "deep/bob", "carol"].iter().enumerate() {
        let name = Path::new(who).file_name().unwrap().to_str().unwrap();
        let content = format!("Return-Path: <sender@x.example>\nDelivered-To: {name}@example.org\n{COPY}");
        let file = format!("1795550000.{}_{n}.host.example,S={}", request.id, content.len());
        assert_eq!(mail(&home.join(who)), [(file, content)]);
    }
}

#[test]
fn a_repeated_delivery_replaces_itself() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let request = runner.request(&owner(&account), &[("a@example.org", maildir(&home.join("box")))]);
    for job in 1..=3 {
        let request = Request { job, ..request.clone() };
        runner.send(&request);
        assert_eq!(runner.outcome(job).status.class, 2);
    }
    assert_eq!(mail(&home.join("box")).len(), 1);
}

#[test]
fn many_messages_go_into_one_mailbox_and_one_into_many() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner(&account);
    for _ in 0..300 {
        let request = runner.request(&owner, &[("a@example.org", maildir(&home.join("box")))]);
        runner.send(&request);
    }
    for n in 0..3 {
        let names: Vec<String> = (0..100).map(|m| format!("box{n}-{m}")).collect();
        let places: Vec<(&str, Place)> =
            names.iter().map(|name| ("a@example.org", maildir(&home.join(name)))).collect();
        let request = runner.request(&owner, &places);
        runner.send(&request);
    }
    for _ in 0..303 {
        assert!(runner.report().outcomes.iter().all(|outcome| outcome.status.class == 2));
    }
    assert_eq!(mail(&home.join("box")).len(), 300);
    assert!((0..3).all(|n| (0..100).all(|m| mail(&home.join(format!("box{n}-{m}"))).len() == 1)));
    assert_eq!(station.children().len(), 1);
}

#[test]
fn what_a_killed_process_leaves_hinders_no_other() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner_at(&account, &home);
    let mut deliver = |count: usize| {
        for _ in 0..count {
            let request = runner.request(&owner, &[("a@example.org", maildir(&home.join("box")))]);
            runner.send(&request);
        }
        for _ in 0..count {
            assert_eq!(runner.report().outcomes[0].status.class, 2);
        }
    };
    deliver(60);
    assert_eq!(mail(&home.join("box")).len(), 60);
    let left = home.join("box/tmp/nursery-1-0");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("half"), "a").unwrap();
    deliver(60);
    assert_eq!(fs::read_dir(home.join("box/new")).unwrap().count(), 120);
    assert!(left.join("half").exists(), "swept after 36 hours, not before");
}

#[test]
fn a_message_longer_than_a_block_is_copied_whole() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let text = format!("A: b\r\n\r\n{}", "a line of some length\r\n".repeat(60_000));
    let mut request = runner.request(&owner(&account), &[("a@example.org", maildir(&home.join("box")))]);
    request.size = text.len() as u64;
    runner.packets.send(&request.encode().unwrap(), Some(queue_file(&text).as_fd())).unwrap();
    assert_eq!(runner.outcome(request.job).status.class, 2);
    assert!(mail(&home.join("box"))[0].1.ends_with(&text.replace("\r\n", "\n")));
}

#[test]
fn troubles_have_their_codes() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner_at(&account, &home);
    let mut deliver = |place: Place| {
        let outcome = runner.deliver(&owner, place);
        (outcome.status.to_string(), outcome.text)
    };
    assert_eq!(deliver(Place::Maildir("~/box/".into())).0, "2.0.0");
    fs::set_permissions(home.join("box/new"), fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(home.join("box/tmp"), fs::Permissions::from_mode(0o500)).unwrap();
    let (status, text) = deliver(Place::Maildir("~/box/".into()));
    assert_eq!(status, "4.2.1");
    assert!(text.contains("box/tmp") && text.ends_with("Permission denied"), "{text}");
    fs::set_permissions(home.join("box/tmp"), fs::Permissions::from_mode(0o700)).unwrap();
    let (status, text) = deliver(Place::Maildir("~/box/".into()));
    assert_eq!(status, "4.2.1");
    assert!(text.contains("box/new"), "{text}");
    assert_eq!(fs::read_dir(home.join("box/tmp")).unwrap().count(), 0);
    std::os::unix::fs::symlink("box", home.join("link")).unwrap();
    assert_eq!(deliver(Place::Maildir("~/link/".into())).0, "4.2.1");
    assert_eq!(deliver(Place::Maildir("~/../elsewhere/".into())).0, "4.3.0");
    assert_eq!(deliver(Place::Maildir("relative/".into())).0, "4.3.5");
    let gone = owner_at(&account, &home.join("gone"));
    assert_eq!(runner.deliver(&gone, Place::Maildir("~/box/".into())).status.to_string(), "4.2.1");
    let nobody = Owner::Account("no-such-account".into());
    assert_eq!(runner.deliver(&nobody, Place::Maildir("~/box/".into())).status.to_string(), "5.1.1");
    assert_eq!(runner.deliver(&nobody, Place::Maildir("~/box/".into())).status.to_string(), "5.1.1");
}

#[test]
fn mail_that_goes_in_a_circle_is_never_delivered() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let text = "Delivered-To: a@example.org\r\n\r\n";
    let places = [("a@example.org", maildir(&home.join("a"))), ("b@example.org", maildir(&home.join("b")))];
    let mut request = runner.request(&owner(&account), &places);
    request.size = text.len() as u64;
    runner.packets.send(&request.encode().unwrap(), Some(queue_file(text).as_fd())).unwrap();
    let mut outcomes = runner.report().outcomes;
    outcomes.sort_by_key(|outcome| outcome.n);
    let statuses: Vec<String> = outcomes.iter().map(|outcome| outcome.status.to_string()).collect();
    assert_eq!(statuses, ["5.4.6", "2.0.0"]);
    assert!(!home.join("a").exists());
}

#[test]
fn commands_and_mboxes_are_served() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner_at(&account, &home);
    let command = "cat > $HOME/out; echo \"$SENDER $RECIPIENT $ORIGINAL_RECIPIENT\" >> $HOME/out; pwd >> $HOME/out; id -u >> $HOME/out";
    assert_eq!(runner.deliver(&owner, Place::Command(command.into())).text, "delivered to command");
    let expected = format!(
        "Return-Path: <sender@x.example>\nDelivered-To: a@example.org\n{COPY}sender@x.example a@example.org first@example.org\n{}\n{}\n",
        home.display(),
        account.uid
    );
    assert_eq!(fs::read_to_string(home.join("out")).unwrap(), expected);
    let outcome = runner.deliver(&owner, Place::Command("echo no such list; exit 67".into()));
    assert_eq!(
        (outcome.status.to_string(), outcome.text.as_str()),
        ("5.1.1".into(), "user unknown: no such list")
    );

    for _ in 0..2 {
        assert_eq!(runner.deliver(&owner, Place::Mbox("~/mbox".into())).text, "delivered to mailbox");
    }
    let mbox = fs::read_to_string(home.join("mbox")).unwrap();
    assert_eq!(mbox.matches("From sender@x.example ").count(), 2);
    assert!(mbox.ends_with("\n\n>From here\n.\nend\n\n"), "{mbox}");
    assert_eq!(fs::metadata(home.join("mbox")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_hanging_command_stops_nobody_else() {
    let station = Station::start("timeout = \"2s\"");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner(&account);
    let hanging = runner.request(&owner, &[("a@example.org", Place::Command("sleep 600".into()))]);
    for job in 101..=103 {
        runner.send(&Request { job, ..hanging.clone() });
    }
    assert_eq!(runner.deliver(&owner, maildir(&home.join("box"))).status.class, 2);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let report = runner.report();
        assert_eq!(report.outcomes[0].status.to_string(), "4.4.7");
        jobs.push(report.job);
    }
    jobs.sort_unstable();
    assert_eq!(jobs, [101, 102, 103]);
}

#[test]
fn a_child_that_hangs_is_replaced_and_others_go_on() {
    let station = Station::start("timeout = \"2s\"");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let stuck = owner(&account);
    assert_eq!(runner.deliver(&stuck, maildir(&home.join("box"))).status.class, 2);
    let child = station.children()[0].to_string();
    assert!(Command::new("kill").args(["-STOP", &child]).status().unwrap().success());
    let request = runner.request(&stuck, &[("a@example.org", maildir(&home.join("box")))]);
    runner.send(&request);
    // The same rights under another key are another owner.
    let other = owner_at(&account, &home);
    assert_eq!(runner.deliver(&other, maildir(&home.join("box"))).status.class, 2);
    assert_eq!(runner.outcome(request.job).status.to_string(), "4.4.7");
    assert_eq!(mail(&home.join("box")).len(), 2);
    // Put off for some seconds, so that a hung home does not cost a child for each message.
    assert_eq!(runner.deliver(&stuck, maildir(&home.join("box"))).status.to_string(), "4.4.7");
    assert_eq!(runner.deliver(&other, maildir(&home.join("box"))).status.class, 2);
}

#[test]
fn a_child_that_dies_has_delivered_nothing() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let owner = owner(&account);
    let request = runner.request(&owner, &[("a@example.org", Place::Command("sleep 600".into()))]);
    runner.send(&request);
    let child = patiently("the child", || station.children().first().copied());
    // The command's shell is a child of the child.
    let begun = format!("/proc/{child}/task/{child}/children");
    patiently("the command", || fs::read_to_string(&begun).ok().filter(|text| !text.is_empty()));
    assert!(Command::new("kill").args(["-KILL", &child.to_string()]).status().unwrap().success());
    let outcome = runner.outcome(request.job);
    assert_eq!(
        (outcome.status.to_string(), outcome.text.as_str()),
        ("4.3.0".into(), "the delivery process died")
    );
    assert_eq!(runner.deliver(&owner, maildir(&home.join("box"))).status.class, 2);
}

#[test]
fn the_next_runner_is_served_when_the_last_one_has_gone() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    for n in 1..=3 {
        let mut runner = station.runner();
        assert_eq!(runner.deliver(&owner(&account), maildir(&home.join("box"))).status.class, 2);
        // One that is not waited for.
        let request =
            runner.request(&owner(&account), &[("a@example.org", maildir(&home.join(n.to_string())))]);
        runner.send(&request);
    }
    let mut runner = station.runner();
    assert_eq!(runner.deliver(&owner(&account), maildir(&home.join("box"))).status.class, 2);
}

#[test]
fn a_request_that_is_none_ends_the_connection_only() {
    let station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    runner.packets.send(b"nonsense", None).unwrap();
    assert_eq!(runner.packets.receive(&mut [0; 64]).unwrap().0, 0);
    runner = station.runner();
    assert_eq!(runner.deliver(&owner(&account), maildir(&home.join("box"))).status.class, 2);
}

#[test]
fn sigterm_finishes_what_is_begun() {
    let mut station = Station::start("");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    let wait = format!("touch {0}/begun; until test -e {0}/go; do sleep 0.02; done", home.display());
    let request = runner.request(&owner(&account), &[("a@example.org", Place::Command(wait))]);
    runner.send(&request);
    patiently("the command", || home.join("begun").exists().then_some(()));
    let pid = station.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    fs::write(home.join("go"), "").unwrap();
    assert_eq!(runner.outcome(request.job).status.class, 2);
    let status = patiently("the end", || station.process.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn more_owners_than_children_take_turns() {
    let station = Station::start("max_children = 1");
    let account = account();
    let home = station.home(&account);
    let mut runner = station.runner();
    // By name and by ids: two owners for one place.
    let owners = [owner(&account), owner_at(&account, &home)];
    for n in 0..40 {
        let request = runner.request(&owners[n % 2], &[("a@example.org", maildir(&home.join("box")))]);
        runner.send(&request);
    }
    for _ in 0..40 {
        assert_eq!(runner.report().outcomes[0].status.class, 2);
    }
    assert_eq!(mail(&home.join("box")).len(), 40);
}

#[test]
fn each_owner_writes_with_his_own_rights() {
    if !is_root() {
        return; // only root can become others
    }
    let station = Station::start("");
    let mut runner = station.runner();
    let accounts = accounts();
    for account in &accounts {
        let home = station.home(account);
        let places =
            [("a@example.org", maildir(&home.join("box"))), ("b@example.org", Place::Mbox("~/mbox".into()))];
        let request = Request { others: true, ..runner.request(&owner_at(account, &home), &places) };
        runner.send(&request);
        let outcomes = runner.report().outcomes;
        assert!(outcomes.iter().all(|outcome| outcome.status.class == 2), "{outcomes:?}");
        let (name, content) = mail(&home.join("box")).remove(0);
        assert!(content.ends_with(COPY));
        for path in [home.join("box"), home.join("box/new").join(name), home.join("mbox")] {
            let found = fs::metadata(&path).unwrap();
            assert_eq!(
                (found.uid(), found.gid(), found.mode() & 0o077),
                (account.uid, account.gid, 0),
                "{path:?}"
            );
        }
    }
    // Nobody writes into another's mailbox, and root has none.
    let home = station.path(&accounts[0].name);
    assert_eq!(runner.deliver(&owner(&accounts[1]), maildir(&home.join("box"))).status.to_string(), "4.2.1");
    for root in [Owner::Account("root".into()), Owner::Ids(0, 0, "/root".into())] {
        assert_eq!(runner.deliver(&root, maildir(&home.join("root"))).status.to_string(), "4.3.5");
    }
    let mut seen = Vec::new();
    for child in station.children() {
        // One that was refused root's mailbox may end between the list and this look at it.
        let Ok(status) = fs::read_to_string(format!("/proc/{child}/status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_string).collect::<Vec<_>>()
        };
        let Some(user) = accounts.iter().find(|account| field("Uid:").contains(&account.uid.to_string()))
        else {
            continue; // still on its way
        };
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        seen.push(user.uid);
    }
    assert!(accounts.iter().all(|account| seen.contains(&account.uid)), "{seen:?}");
}

#[test]
fn kept_rights_of_root_serve_no_commands() {
    if !is_root() {
        return;
    }
    let station = Station::start_with("drop_privileges = false", "");
    let mut runner = station.runner();
    let root = Owner::Ids(0, 0, "/".into());
    assert_eq!(runner.deliver(&root, maildir(&station.path("box"))).status.class, 2);
    for place in [Place::Command("true".into()), Place::Mbox(station.path("mbox").display().to_string())] {
        assert_eq!(runner.deliver(&root, place).status.to_string(), "4.3.5");
    }
    assert_eq!(mail(&station.path("box")).len(), 1);
    assert!(!station.path("mbox").exists());
}

#[test]
fn a_broken_configuration_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("posta.toml");
    fs::write(&config, "[local]\nmailbux = \"x\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_posta-local")).arg("-c").arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with(&format!("{}:2:1: ", config.display())), "{text}");
    let code = |argument: &str| {
        Command::new(env!("CARGO_BIN_EXE_posta-local")).arg(argument).output().unwrap().status.code()
    };
    assert_eq!(
        [code("-x"), code("word"), code("--owner=root"), code("-V")],
        [Some(64), Some(64), Some(64), Some(0)]
    );
}
