//! Addresses through the real programs: tables, lists, forwarded mail.

mod station;

use std::fs;
use std::net::SocketAddr;

use station::House;
use station::sink::Sink;

const MESSAGE: &str = "From: a@x.example\nSubject: hello\n\nOne line.\n";

/// A house with tables, and a server at port 2526 that all mail for other domains goes to. What
/// `settings` says is added; `{root}` in it is the house's folder.
fn house(settings: &str, files: &[(&str, &str)]) -> (House, Sink) {
    let mut house = House::set_up("");
    let root = house.folder.path().display().to_string();
    for (name, text) in files {
        fs::write(house.path(name), text.replace("{root}", &root)).unwrap();
    }
    let others = format!(
        "\"*\" = {{ relay = \"{}:2526\" }}\n\"virtual.example\" = {{ users = \"virtual\" }}",
        house.address
    );
    let config = fs::read_to_string(house.config()).unwrap();
    let config = config.replace("[domains]", &format!("[domains]\n{others}"));
    fs::write(house.config(), format!("{config}\n{}", settings.replace("{root}", &root))).unwrap();
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    house.run();
    (house, sink)
}

/// Says lines; each must be answered so.
fn dialogue(house: &House, lines: &[(&str, &str)]) {
    let mut client = house.client();
    for (line, answer) in lines {
        client.expect(line, answer);
    }
}

#[test]
fn a_list_is_sent_by_its_owner_who_gets_its_bounces() {
    let settings = "[local]\naliases = \"{root}/aliases\"\n[routing]\nverp = [\"news\"]\n";
    let aliases = "news: :include:{root}/news\nowner-news: owner@example.org\n";
    let (house, sink) = house(
        settings,
        &[("aliases", aliases), ("news", "good@far.example\nbad@far.example\nnobody-such\n")],
    );
    house.send("alice@example.org", &["news@mail.example.org"], MESSAGE);
    // One for each sender: the copy that was refused has named its recipient there.
    let bounces = house.wait_for_mail("owner", 2).concat();
    for member in ["bad@far.example", "nobody-such@mail.example.org"] {
        assert!(bounces.contains(&format!("Final-Recipient: rfc822; {member}")), "{bounces}");
    }
    let arrived = &sink.wait_for(1)[0];
    assert_eq!(arrived.to, ["good@far.example"]);
    assert!(arrived.from.starts_with("<owner-news+good=far.example@mail.example.org>"), "{}", arrived.from);
    house.wait_for_empty_queue();
    assert!(house.mailbox("alice").is_empty(), "who wrote to the list hears nothing of its members");
}

#[test]
fn forwarded_mail_has_a_way_back() {
    let settings = "[routing]\nvirtual_aliases = \"{root}/virtual\"\nsrs_domain = \"mail.example.org\"\n";
    let text = "gone@virtual.example bad@far.example\n";
    let (house, sink) = house(settings, &[("virtual", text)]);
    house.send("bob@stranger.example", &["gone@virtual.example"], MESSAGE);
    // It is refused there; the report goes to the SRS address, and from there to the stranger.
    let report = &sink.wait_for(1)[0];
    assert_eq!(
        (report.to.as_slice(), report.from.starts_with("<>")),
        (&["bob@stranger.example".to_string()][..], true)
    );
    let log = house.wait_for_log(&["to=<bad@far.example>", "status=bounced"]);
    assert!(log.contains("orig_to=<gone@virtual.example>"), "{log}");
    let key = fs::metadata(house.path("spool/key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o640);
    house.wait_for_empty_queue();
}

#[test]
fn every_kind_of_table_leads_to_a_mailbox() {
    let settings = "[tables.people]\nkind = \"sqlite\"\nfile = \"{root}/people.db\"\n\
                    query = \"SELECT target FROM alias WHERE address = ?1\"\n\
                    [routing]\nvirtual_aliases = [\"{root}/text\", \"cdb:{root}/big.cdb\", \"people\", \"regex:{root}/patterns\"]\n";
    let files = [
        ("text", "text@virtual.example text@example.org\n"),
        ("big", "cdb@virtual.example cdb@example.org\n"),
        ("big.cdb", ""),
        ("patterns", "/^re-(.+)@virtual\\.example$/ $1@example.org\n"),
    ];
    let (house, _sink) = house(settings, &files);
    let database = rusqlite::Connection::open(house.path("people.db")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE alias (address TEXT, target TEXT);
             INSERT INTO alias VALUES ('sql@virtual.example', 'sql@example.org');",
        )
        .unwrap();
    let rcpt = |to: &str| {
        let mut client = house.client();
        client.hello();
        client.say("MAIL FROM:<a@x.example>");
        client.say(&format!("RCPT TO:<{to}>"))
    };
    let broken = rcpt("sql@virtual.example");
    assert!(broken.starts_with("451 4.3.5"), "a broken table: {broken}");
    let built = house.output("postactl", &["cdb", house.path("big").to_str().unwrap()]);
    assert!(built.contains("big.cdb: 1 rows"), "{built}");
    // Within a second the new file is seen.
    station::wait_for("the new database", || rcpt("sql@virtual.example").starts_with("250").then_some(()));
    let unknown = rcpt("nobody@virtual.example");
    assert!(unknown.starts_with("550 5.1.1"), "{unknown}");
    for (address, user) in [("text", "text"), ("cdb", "cdb"), ("sql", "sql"), ("re-ann", "ann")] {
        house.send("a@x.example", &[&format!("{address}@virtual.example")], MESSAGE);
        house.wait_for_mail(user, 1);
    }
    let why = house.output("postactl", &["why", "--json", "cdb@virtual.example"]);
    let why: serde_json::Value = serde_json::from_str(&why).unwrap();
    assert_eq!(why["steps"][0]["key"], "cdb@virtual.example", "{why}");
    assert!(why["leads_to"][0].as_str().unwrap().contains("/mail/cdb/"), "{why}");
}

#[test]
fn a_row_of_a_domains_table_is_as_good_as_an_entry() {
    let settings = "[routing]\ndomains = [\"{root}/domains\", \"rows\"]\nusers_files = [\"{root}/customers\"]\n\
                    [tables.rows]\nkind = \"sqlite\"\nfile = \"{root}/rows.db\"\n\
                    query = \"SELECT words FROM domain WHERE name = ?1\"\n";
    let mut house = House::set_up("");
    let root = house.folder.path().display().to_string();
    let relay = format!("relay = \"{}:2526\"", house.address);
    let domains = |sure: &str| format!("sure.example {relay}, tls = \"{sure}\"\n");
    fs::write(house.path("domains"), domains("verify")).unwrap();
    fs::write(house.path("customers"), "carol@row.example:!:::::\n").unwrap();
    let database = rusqlite::Connection::open(house.path("rows.db")).unwrap();
    database
        .execute_batch(&format!(
            "CREATE TABLE domain (name TEXT, words TEXT);
             INSERT INTO domain VALUES ('row.example',
                 'users = \"{root}/customers\", mailbox = \"{root}/mail/{{user}}/\"');
             INSERT INTO domain VALUES ('sql.example', '{relay}, tls = \"verify\"');"
        ))
        .unwrap();
    let config = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), config + &settings.replace("{root}", &root)).unwrap();
    let sink = Sink::start(SocketAddr::new(house.address, 2526));
    house.run();

    house.send("a@x.example", &["carol@row.example"], MESSAGE);
    house.wait_for_mail("carol", 1);
    let mut client = house.client();
    client.hello();
    client.say("MAIL FROM:<a@x.example>");
    let unknown = client.say("RCPT TO:<dora@row.example>");
    assert!(unknown.starts_with("550 5.1.1"), "{unknown}");

    // The relay has no TLS: mail that must not go without waits, whichever kind of table says so.
    for (domain, to) in [("sure", "b@sure.example"), ("sql", "b@sql.example")] {
        house.send("a@x.example", &[to], MESSAGE);
        house.wait_for_log(&[&format!("to=<{to}>"), "status=deferred", "4.7."]);
        let why = house.output("postactl", &["why", to]);
        assert!(why.contains("under TLS only and with a good certificate"), "{domain}: {why}");
    }
    assert!(sink.arrived().is_empty());
    // A table that is gone says nothing, and so nothing goes either.
    fs::rename(house.path("rows.db"), house.path("away.db")).unwrap();
    house.wait_for_log(&["to=<b@sql.example>", "status=deferred", "4.3.5"]);
    assert!(sink.arrived().is_empty());
    fs::rename(house.path("away.db"), house.path("rows.db")).unwrap();
    fs::write(house.path("domains"), domains("may")).unwrap();
    database.execute("UPDATE domain SET words = ?1 WHERE name = 'sql.example'", [&relay]).unwrap();
    sink.wait_for(2);
    house.wait_for_empty_queue();
}

#[test]
fn a_bounce_of_mail_that_was_never_sent_is_refused() {
    let settings = "[routing]\nsigned_senders = [\"example.org\"]\nrefuse_unsigned_bounces = true\n";
    let (mut house, sink) = house(settings, &[]);
    house.send("ann@example.org", &["bob@elsewhere.example"], MESSAGE);
    // Also on the way to a relay of [domains].
    let from = sink.wait_for(1)[0].from.clone();
    let signed = from.split(['<', '>']).nth(1).unwrap().to_string();
    assert!(signed.starts_with("prvs=") && signed.ends_with("=ann@example.org"), "{from}");
    house.wait_for_empty_queue();

    // Whoever may relay may send in any way.
    dialogue(
        &house,
        &[("EHLO c.example", "250"), ("MAIL FROM:<>", "250"), ("RCPT TO:<ann@example.org>", "250")],
    );
    house.stop();
    let config = fs::read_to_string(house.config()).unwrap();
    fs::write(house.config(), config.replace("relay_from = [\"127.0.0.0/8\"]", "relay_from = []")).unwrap();
    house.run();
    dialogue(
        &house,
        &[
            ("EHLO c.example", "250"),
            ("MAIL FROM:<>", "250"),
            (
                "RCPT TO:<ann@example.org>",
                "550 5.7.1 <ann@example.org>: this bounce answers nothing that was sent from here [P0411]",
            ),
            ("RCPT TO:<postmaster@example.org>", "250"),
            ("RCPT TO:<abuse@example.org>", "250"),
            (&format!("RCPT TO:<{signed}>"), "250"),
            (&format!("RCPT TO:<{}>", signed.replace("=ann@", "=eve@")), "5"),
            ("RSET", "250"),
            ("MAIL FROM:<bob@elsewhere.example>", "250"),
            ("RCPT TO:<ann@example.org>", "250"),
        ],
    );
}

#[test]
fn each_user_has_a_limit_of_his_own() {
    let settings = "[local]\nover_quota = \"never\"\n[domains.\"users.example\"]\nusers = \"{root}/users\"\n\
                    mailbox = \"{root}/mail/{user}/\"\nquota_messages = 1\n";
    let users = "two@users.example:!::::::userdb_quota_rule=*:messages=2\n\
                 small@users.example:!::::::userdb_quota_rule=*:bytes=10\n\
                 free@users.example:!::::::userdb_quota_rule=*:ignore\none@users.example:!\n";
    let (house, _sink) = house(settings, &[("users", users)]);
    let [free, two, one, small] = ["free", "two", "one", "small"].map(|name| format!("{name}@users.example"));
    for _ in 0..3 {
        house.send("ann@example.org", &[&free, &two, &one, &small], MESSAGE);
        // One after the other: what is under way is in no count.
        house.wait_for_empty_queue();
    }
    let held = ["free", "two", "one", "small"].map(|user| house.mailbox(user).len());
    assert_eq!(held, [3, 2, 1, 0]);
    let bounces = house.wait_for_mail("ann", 3).concat();
    for (user, count) in [(&free, 0), (&two, 1), (&one, 2), (&small, 3)] {
        assert_eq!(bounces.matches(&format!("Final-Recipient: rfc822; {user}")).count(), count, "{user}");
    }
    assert_eq!(bounces.matches("Status: 5.2.2").count(), 6, "{bounces}");
}

#[test]
fn a_dead_table_is_a_later_wherever_it_is_asked() {
    let settings = "[tables.people]\nkind = \"sqlite\"\nfile = \"{root}/people.db\"\n\
                    query = \"SELECT target FROM alias WHERE address = ?1\"\n\
                    [routing]\nvirtual_aliases = [\"{root}/text\", \"cdb:{root}/big.cdb\", \"people\"]\n\
                    domains = \"{root}/domains\"\n[local]\naliases = \"{root}/aliases\"\n\
                    [domains.\"users.example\"]\nusers = \"{root}/users\"\nmailbox = \"{root}/mail/{user}/\"\n";
    let (house, _sink) = house(
        settings,
        &[
            ("text", "text@virtual.example text@example.org\n"),
            ("big.cdb", ""),
            ("domains", "row.example users = \"*\", mailbox = \"{root}/mail/{user}/\"\n"),
            ("aliases", "staff: staff@example.org\n"),
            ("users", "carol@users.example:!\n"),
            ("big", "cdb@virtual.example cdb@example.org\n"),
        ],
    );
    let database = rusqlite::Connection::open(house.path("people.db")).unwrap();
    database.execute_batch("CREATE TABLE alias (address TEXT, target TEXT)").unwrap();
    drop(database);
    house.output("postactl", &["cdb", house.path("big").to_str().unwrap()]);
    let rcpt = |to: &str| {
        let mut client = house.client();
        client.hello();
        client.say("MAIL FROM:<a@x.example>");
        client.say(&format!("RCPT TO:<{to}>"))
    };
    for (table, address, user) in [
        ("text", "text@virtual.example", "text"),
        ("big.cdb", "cdb@virtual.example", "cdb"),
        ("people.db", "dan@example.org", "dan"),
        ("domains", "eve@row.example", "eve"),
        ("aliases", "staff@mail.example.org", "staff"),
        ("users", "carol@users.example", "carol"),
    ] {
        let taken = || rcpt(address).starts_with("250").then_some(());
        station::wait_for(&format!("{address} to be taken"), taken);
        // posta-queue routes it when the table is gone.
        house.signal("posta-queue", "-STOP");
        house.send("a@x.example", &[address], MESSAGE);
        let away = house.path("away");
        fs::rename(house.path(table), &away).unwrap();
        // A missing table of aliases is an empty one.
        fs::create_dir(house.path(table)).unwrap();
        let later = || rcpt(address).starts_with("451 4.3.5").then_some(());
        station::wait_for(&format!("a later for {address} without {table}"), later);
        house.signal("posta-queue", "-CONT");
        house.wait_for_log(&[&format!("to=<{address}>"), "status=deferred", "4.3.5"]);
        assert!(house.mailbox(user).is_empty(), "{table}");
        fs::remove_dir(house.path(table)).unwrap();
        fs::rename(&away, house.path(table)).unwrap();
        house.wait_for_mail(user, 1);
    }
    assert!(!house.log().contains("status=bounced"));
}
