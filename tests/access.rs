//! What the administrator's tables do in a session of posta-smtpd.

#[allow(dead_code)]
#[path = "smtpd/daemon.rs"]
mod daemon;

use daemon::{Client, Daemon, Ground};

/// A house that takes mail for x.example, with these tables, of kinds and texts.
fn house(tables: &[(&str, &str)], settings: &str) -> Daemon {
    let ground = Ground::new("");
    let mut access = String::from("[access]\n");
    for (kind, text) in tables {
        std::fs::write(ground.path(kind), text).unwrap();
        access += &format!("{kind} = \"{}\"\n", ground.path(kind).display());
    }
    let zone = "127.0.0.2 PTR mx.good.example\nmx.good.example A 127.0.0.2\n\
                nomail.example MX 0 .\nbroken.example SERVFAIL\n";
    std::fs::write(ground.path("zone"), zone).unwrap();
    ground.configure(&format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[domains]\n\"x.example\" = {{ users = \"*\", mailbox = \"/nowhere/\" }}\n\
         [remote]\nzone = \"{}\"\n{access}[smtpd]\nrelay_from = [\"127.0.0.9\"]\n{settings}",
        ground.path("zone").display()
    ));
    ground.start()
}

/// The answers to lines.
fn answers<const N: usize>(client: &mut Client, lines: [&str; N]) -> [String; N] {
    lines.map(|line| {
        client.send(format!("{line}\r\n"));
        client.reply()
    })
}

#[test]
fn clients_are_kept_out_by_address_and_let_in_by_name() {
    let mut daemon =
        house(&[("clients", ".good.example accept\n127.0.0.3 refuse we had words\n* later\n")], "");
    assert!(daemon.client_from("127.0.0.2").say("EHLO a", "250").starts_with("250"));
    daemon.wait_for_log("connect from mx.good.example[127.0.0.2]");
    let first = |source| daemon.connect_from(source).unwrap().reply();
    assert_eq!(first("127.0.0.3"), "554 5.7.1 [127.0.0.3]: we had words [P0201]");
    assert!(first("127.0.0.4").starts_with("421 4.7.1 ") && first("127.0.0.9").starts_with("220"));
    daemon.wait_for_log("clients:2");
}

#[test]
fn the_confirmed_name_stands_in_the_received_field() {
    let daemon = house(&[], "");
    let mut client = daemon.client_from("127.0.0.2");
    client.begin("a@x.example");
    client.send("Subject: x\r\n\r\n.\r\n");
    client.expect("250");
    let (entry, _) = daemon.ground.only_message();
    let trace = String::from_utf8(entry.envelope.trace).unwrap();
    assert!(trace.contains("(mx.good.example [127.0.0.2])"), "{trace}");
}

#[test]
fn names_and_senders_and_recipients_are_refused_or_put_off() {
    let tables = [
        ("helo", "ylmf-pc refuse\n"),
        ("senders", ".spam.example refuse\nlater@ later\n"),
        ("recipients", "gone@x.example refuse she left us\n"),
    ];
    let daemon = house(&tables, "");
    let mut client = daemon.client_from("127.0.0.3");
    let said = answers(&mut client, ["EHLO ylmf-pc", "MAIL FROM:<a@b.example>"]);
    assert_eq!(said[1], "550 5.7.1 ylmf-pc: refused by a rule of this server [P0203]");
    let said = answers(
        &mut client,
        [
            "EHLO c",
            "MAIL FROM:<a@x.spam.example>",
            "MAIL FROM:<later@b.example>",
            "MAIL FROM:<a@b.example>",
            "RCPT TO:<gone@x.example>",
            "RCPT TO:<here@x.example>",
        ],
    );
    assert!(said[1].ends_with("[P0301]") && said[2].ends_with("[P0302]"), "{said:?}");
    assert_eq!(said[4], "550 5.7.1 <gone@x.example>: she left us [P0401]");
    assert!(said[5].starts_with("250"), "{said:?}");
}

#[test]
fn what_is_discarded_is_accepted_and_logged_and_goes_nowhere() {
    let tables = [("senders", "bulk@ discard\n"), ("recipients", "void@x.example discard\n")];
    let mut daemon = house(&tables, "");
    let mut client = daemon.client_from("127.0.0.3");
    answers(&mut client, ["EHLO c", "MAIL FROM:<bulk@b.example>", "RCPT TO:<a@x.example>", "DATA"]);
    client.send("Subject: buy\r\n\r\n.\r\n");
    let taken = client.expect("250 2.0.0 Ok: taken as ");
    let id = taken.rsplit(' ').next().unwrap().to_string();
    let line = daemon.wait_for_log(&format!("{id}: to=<a@x.example>, "));
    assert!(line.contains("status=discarded (by senders table ") && line.ends_with("senders:1)"), "{line}");
    assert_eq!(daemon.ground.messages().len(), 0);

    // One recipient of two gets the message.
    answers(
        &mut client,
        ["MAIL FROM:<a@b.example>", "RCPT TO:<void@x.example>", "RCPT TO:<b@x.example>", "DATA"],
    );
    client.send("Subject: hello\r\n\r\n.\r\n");
    client.expect("250 2.0.0 Ok: queued as ");
    daemon.wait_for_log("to=<void@x.example>, relay=none");
    let (entry, _) = daemon.ground.only_message();
    let to: Vec<String> = entry.envelope.recipients.iter().map(|to| to.address.to_string()).collect();
    assert_eq!(to, ["b@x.example"]);
}

#[test]
fn a_table_is_read_again_and_a_broken_one_changes_nothing() {
    let mut daemon = house(&[("clients", "127.0.0.3 refuse\n")], "");
    let first = |daemon: &Daemon| daemon.connect_from("127.0.0.3").unwrap().reply();
    assert!(first(&daemon).starts_with("554"));
    let write = |daemon: &Daemon, text: &str| {
        std::fs::write(daemon.ground.path("new"), text).unwrap();
        std::fs::rename(daemon.ground.path("new"), daemon.ground.path("clients")).unwrap();
    };
    write(&daemon, "127.0.0.3 refuze\n");
    daemon::wait_until("the fault is told", || {
        assert!(first(&daemon).starts_with("554"));
        daemon.read_log().contains("clients:1:11: unknown action \"refuze\"; did you mean \"refuse\"?")
    });
    write(&daemon, "# nobody\n");
    daemon::wait_until("the new table holds", || first(&daemon).starts_with("220"));
    daemon.wait_for_log("read again");
}

#[test]
fn a_table_with_a_fault_is_told_at_the_start() {
    let ground = Ground::new("");
    std::fs::write(ground.path("clients"), "\n10.0.0.1/8 refuse\n").unwrap();
    ground.configure(&format!("[access]\nclients = \"{}\"\n", ground.path("clients").display()));
    let configuration = ground.path("posta.toml").display().to_string();
    let (code, said) = ground.run(&["-c", &configuration]);
    assert_eq!(code, 78);
    assert!(said.contains("clients:2:1: ") && said.contains("did you mean 10.0.0.0/8?"), "{said}");
}

#[test]
fn a_stranger_who_talks_before_the_greeting_is_refused() {
    let mut daemon = house(&[("clients", "127.0.0.4 accept\n")], "greet_pause = \"1s\"\n");
    let mut hasty = daemon.connect_from("127.0.0.3").unwrap();
    hasty.send("EHLO spam\r\n");
    assert_eq!(hasty.reply(), "554 5.5.0 wait for the greeting before you send anything [P0110]");
    daemon.wait_for_log("[P0110]");
    daemon.client_from("127.0.0.3").say("EHLO patient", "250");
    // Who is known need not wait: it has its answer, though it talks at once. So it is with ours.
    let mut ours = daemon.connect_from("127.0.0.9").unwrap();
    ours.send("EHLO ours\r\n");
    ours.expect("220");
    daemon.client_from("127.0.0.4").say("EHLO accepted", "250");
}

#[test]
fn who_tries_names_out_has_to_go() {
    let ground = Ground::new("");
    ground.configure(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[domains]\n\"y.example\" = { users = \"system\" }\n\
         [smtpd]\nrelay_from = []\n[limits]\nunknown_recipients_per_hour = 2\n",
    );
    let daemon = ground.start();
    let mut client = daemon.client_from("127.0.0.3");
    let said = answers(
        &mut client,
        [
            "EHLO c",
            "MAIL FROM:<>",
            "RCPT TO:<no1-such@y.example>",
            "RCPT TO:<no2-such@y.example>",
            "RCPT TO:<no3-such@y.example>",
        ],
    );
    assert!(said[3].starts_with("550 5.1.1") && said[3].ends_with("[P0403]"), "{said:?}");
    assert!(said[4].starts_with("421 4.7.1") && said[4].ends_with("[P0408]"), "{said:?}");
    client.expect_end();
}

/// RFC 7505 4.2. Who may relay is not asked, and what can't be found out is taken.
#[test]
fn senders_whose_domain_takes_no_mail_are_refused() {
    let daemon = house(&[], "");
    let mut client = daemon.client_from("127.0.0.3");
    client.greet();
    client.say("MAIL FROM:<a@nomail.example>", "550 5.7.27 <a@nomail.example>: ");
    for sender in ["", "a@mx.good.example", "a@broken.example", "a@nowhere.example", "a@[127.0.0.3]"] {
        client.say(&format!("MAIL FROM:<{sender}>"), "250");
        client.say("RSET", "250");
    }
    let mut ours = daemon.client_from("127.0.0.9");
    ours.greet();
    ours.say("MAIL FROM:<a@nomail.example>", "250");
    let daemon = house(&[], "refuse_null_mx_senders = false\n");
    let mut client = daemon.client_from("127.0.0.3");
    client.greet();
    client.say("MAIL FROM:<a@nomail.example>", "250");
}
