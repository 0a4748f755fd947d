//! No stranger sends through us to others, whatever form the address has (RFC 2505 2.1).

mod station;

use station::House;

#[test]
fn no_form_of_an_address_makes_us_relay() {
    let more = "[smtpd]\nrelay_from = []\n[domains]\n\"here.example\" = { users = \"system\" }";
    let house = House::start(more);
    let host = house.address;
    let forms = [
        "<nobody@relay.example>".to_string(),
        "nobody@relay.example".into(),
        "<nobody>".into(),
        "<nobody@localhost>".into(),
        format!("<nobody@[{host}]>"),
        "<nobody%relay.example@here.example>".into(),
        format!("<nobody%relay.example@[{host}]>"),
        "<nobody%relay.example>".into(),
        "<\"nobody%relay.example\">".into(),
        "<\"nobody@relay.example\">".into(),
        "<\"nobody@relay.example\"@here.example>".into(),
        "<\"nobody%relay.example\"@here.example>".into(),
        "<nobody@relay.example@here.example>".into(),
        "<@here.example:nobody@relay.example>".into(),
        format!("<@[{host}]:nobody@relay.example>"),
        "<relay.example!nobody>".into(),
        "<relay.example!nobody@here.example>".into(),
        format!("<relay.example!nobody@[{host}]>"),
        "<nobody@relay.example.>".into(),
        "<nobody@RELAY.example>".into(),
        "<nobody@elsewhere.example>".into(),
    ];
    // Also those who say to be one of us, or nobody. A client that is refused too often has to wait.
    for sender in ["a@x.example", "root@here.example", "root@mail.example.org", ""] {
        for some in forms.chunks(4) {
            let mut client = house.client();
            client.hello();
            client.expect(&format!("MAIL FROM:<{sender}>"), "250");
            for form in some {
                client.expect(&format!("RCPT TO:{form}"), "5");
            }
            client.expect("DATA", "5");
        }
    }
    house.wait_for_empty_queue();
}
