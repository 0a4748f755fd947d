//! The rules under which mail is refused and their page say the same.

use std::path::Path;

use posta::smtp::rule;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/posta-rules.7");
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn the_page_has_every_rule_as_it_is() {
    let page = page();
    // A page begins each sentence on a line of its own.
    let lines = |text: &str| text.replace(". ", ".\n");
    for rule in rule::ALL {
        let entry = format!(
            ".It Ic {} No {} Pq {} {}\n{}\n.Pp\nSender: {}\n.Pp\nPostmaster: {}\n",
            rule.id,
            rule.name,
            rule.code,
            rule.enhanced(),
            lines(rule.means),
            lines(rule.sender),
            lines(rule.postmaster)
        );
        assert!(page.contains(&entry), "man/posta-rules.7 does not have this:\n{entry}");
    }
}

#[test]
fn the_page_has_no_other_rule() {
    let on_the_page = page().lines().filter(|line| line.starts_with(".It Ic P")).count();
    assert_eq!(on_the_page, rule::ALL.len());
}
