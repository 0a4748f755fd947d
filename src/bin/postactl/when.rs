//! `when`: what waits for what, and until when.

use serde_json::{Value, json};

use posta::unix::sysexits;

use posta::courier::order::{Answer, Order};
use posta::courier::wait::Wait;

use posta::config::Config;
use posta::logbook::entry::Printable;

use posta::net::orders;

use crate::show::time;
use crate::{PATIENCE, Refusal, refusal};

/// A line for each destination, for people or as an object for programs.
pub fn when(words: &[String], config: &Config) -> Result<u8, Refusal> {
    let as_json = match words {
        [] => false,
        [option] if option == "--json" => true,
        _ => return Err(Refusal::usage("when takes nothing, or --json")),
    };
    let mut each = |answer, _| match answer {
        Answer::Wait(wait) if as_json => println!("{}", object(&wait)),
        Answer::Wait(wait) => println!("{}", Printable(&line(&wait))),
        _ => {}
    };
    orders::give(&config.run.join("queue"), &Order::When, Some(PATIENCE), &mut each).map_err(refusal)?;
    Ok(sysexits::OK)
}

fn line(wait: &Wait) -> String {
    let Wait { destination, deferred, queued, running, .. } = wait;
    let mut text = format!("{destination}: {deferred} deferred, {queued} queued, {running} under way");
    if let Some(next) = wait.next {
        text += &format!("; next: {}", time(next));
    }
    if wait.paused {
        text += "; paused";
    }
    if let Some((until, why)) = &wait.rests {
        text += &format!("; rests until {}: {why}", time(*until));
    }
    text
}

/// Times are seconds since 1970.
fn object(wait: &Wait) -> Value {
    json!({
        "destination": wait.destination,
        "deferred": wait.deferred,
        "next": wait.next,
        "queued": wait.queued,
        "running": wait.running,
        "paused": wait.paused,
        "rests_until": wait.rests.as_ref().map(|(until, _)| until),
        "reason": wait.rests.as_ref().map(|(_, why)| why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_an_object_say_the_same() {
        let mut wait = Wait {
            destination: "dead.example".into(),
            deferred: 3,
            next: Some(7),
            queued: 1,
            running: 0,
            paused: true,
            rests: Some((9, "connection refused".into())),
        };
        let text = line(&wait);
        assert!(text.starts_with("dead.example: 3 deferred, 1 queued, 0 under way; next: 1970"), "{text}");
        assert!(text.contains("; paused; rests until ") && text.ends_with(": connection refused"), "{text}");
        let told = object(&wait);
        assert_eq!(
            (&told["next"], &told["paused"], &told["rests_until"]),
            (&7.into(), &true.into(), &9.into())
        );
        (wait.next, wait.paused, wait.rests) = (None, false, None);
        assert_eq!(line(&wait), "dead.example: 3 deferred, 1 queued, 0 under way");
        assert!(object(&wait)["reason"].is_null());
    }
}
