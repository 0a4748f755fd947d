//! Plays the conversations in `tests/dialogues/`; its README says how they are written.

mod speaker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use posta::mail::address::{Mailbox, ReversePath};
use posta::mail::status::Status;
use posta::smtp::reply::Reply;
use posta::smtp::server::{DataFault, Event, Mechanisms, Question, Verdict};

use speaker::{House, Speaker};

#[test]
fn every_dialogue_goes_as_written() {
    let mut faults = Vec::new();
    for path in dialogues() {
        let text = std::fs::read_to_string(&path).unwrap();
        // Whether a client waited can only be seen of what comes at once.
        let steps: &[usize] = if text.contains("set strict") { &[usize::MAX] } else { &[1, 7, usize::MAX] };
        for &step in steps {
            if let Err(fault) = play(&text, step) {
                faults.push(format!("{}:{fault}", path.display()));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn dialogues_are_numbered_and_say_why_they_are_there() {
    let mut numbers = Vec::new();
    for path in dialogues() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let number = name.split('-').next().and_then(|n| n.parse::<u32>().ok());
        numbers.push(number.unwrap_or_else(|| panic!("{name}: no number")));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# "), "{name}: no word of why");
    }
    assert!(numbers.len() >= 40);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a number is used twice: {numbers:?}");
}

#[test]
fn a_dialogue_that_goes_otherwise_is_noticed() {
    let greeted = "S: 220 mx.example.org ESMTP posta\n";
    assert_eq!(play(greeted, 1), Ok(()));
    for (wrong, line) in [
        ("S: 221 *\n", 1),
        ("C: NOOP\nS: 220 *\nS: 500 *\n", 3),
        ("S: 220 *\nclosed\n", 2),
        ("S: 220 *\nC: QUIT\nS: 221 *\n", 3),
        ("S: 220 *\nC: NOOP\n", 2),
        ("S: 220 *\nM: <a@b> <c@d>\n", 2),
        ("S: 220 *\nS: 250 *\n", 2),
        ("S: 220 *\nC: EHLO a\nR: 500 *\n", 3),
        ("S: 220 *\nR: 250 *\n", 2),
        ("X\n", 1),
    ] {
        let fault = play(wrong, 1).unwrap_err();
        assert!(fault.starts_with(&format!("{line}: ")), "{wrong:?} gave {fault}");
    }
}

fn dialogues() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "dialogue"))
        .collect();
    paths.sort();
    paths
}

/// Plays one, the client's octets in pieces of at most `step`. A fault is `LINE: what`.
fn play(text: &str, step: usize) -> Result<(), String> {
    let lines = || text.lines().enumerate().map(|(n, line)| (n + 1, line));
    let begins = |line: &str| {
        ["C:", "C|", "S:", "R:", "E:", "M:", "closed"].iter().any(|start| line.starts_with(start))
    };
    let mut house = House::default();
    let mut said = Sayings::default();
    for (n, line) in lines().take_while(|(_, line)| !begins(line)) {
        set_up(line, &mut house, &mut said).ok_or(format!("{n}: what is {line:?}?"))?;
    }
    house.judge = Box::new(move |question| said.about(question));
    let mut stage = Stage { speaker: Speaker::new(house), heard: 0, seen: 0, step, last: String::new() };
    let mut ended = false;
    let mut last = 0;
    for (n, line) in lines().skip_while(|(_, line)| !begins(line)) {
        last = n;
        ended |= line == "closed";
        stage.line(line).map_err(|what| format!("{n}: {what}"))?;
    }
    refusals_have_rules(&stage.speaker.said, text).map_err(|what| format!("{last}: {what}"))?;
    stage.end(ended).map_err(|what| format!("{last}: {what}"))
}

/// Every refusal names its rule, but for those of the protocol (500 to 504, 555 for a parameter) and
/// those that the dialogue's own judges say.
fn refusals_have_rules(said: &[u8], dialogue: &str) -> Result<(), String> {
    let said = String::from_utf8_lossy(said);
    let setup = dialogue.split("\nS:").next().unwrap_or_default();
    let own = |line: &str| line.get(4..).is_some_and(|text| setup.contains(text));
    for line in said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')) {
        let code = line[..3].parse().unwrap_or(0);
        let is_refusal = code >= 400 && !matches!(code, 500..=504 | 555);
        if is_refusal && !line.ends_with(']') && !own(line) {
            return Err(format!("a refusal without a rule: {line}"));
        }
    }
    Ok(())
}

/// What is said to which address.
#[derive(Default)]
struct Sayings {
    senders: HashMap<String, String>,
    recipients: HashMap<String, String>,
}

impl Sayings {
    fn about(&self, question: &Question) -> Verdict {
        let (table, address) = match question {
            Question::Sender(ReversePath::Null) => (&self.senders, "<>".to_string()),
            Question::Sender(sender) => (&self.senders, sender.to_string()),
            Question::Recipient(None) => (&self.recipients, "postmaster".to_string()),
            Question::Recipient(Some(mailbox)) => (&self.recipients, mailbox.to_string()),
        };
        match table.get(&address).or(table.get("*")).map(String::as_str) {
            None | Some("ok") => Verdict::Accept(None),
            Some(said) => match said.strip_prefix("ok ") {
                Some(other) => Verdict::Accept(Some(Mailbox::parse(other, true).unwrap())),
                None if said.starts_with("421") => Verdict::HangUp(reply(said).unwrap()),
                None => Verdict::Refuse(reply(said).unwrap()),
            },
        }
    }
}

fn reply(text: &str) -> Option<Reply> {
    let (code, rest) = text.split_once(' ')?;
    let (status, text) = Status::split(rest)?;
    Some(Reply::new(code.parse().ok()?, Some(status), text))
}

fn set_up(line: &str, house: &mut House, said: &mut Sayings) -> Option<()> {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    match words[..] {
        [""] | ["#", ..] => {}
        ["set", "strict"] => house.strict = true,
        ["listener", "starttls"] => house.service.starttls = true,
        ["listener", "implicit"] => house.service.secure = true,
        ["listener", "lmtp"] => house.service.lmtp = true,
        ["listener", "submission"] => house.service.submission = true,
        ["listener", "trusted"] => mechanisms(house).plain = vec!["PLAIN".to_string(), "LOGIN".to_string()],
        ["client", "xclient"] => house.service.xclient = true,
        ["client", "xforward"] => house.service.xforward = true,
        ["login", user, password] => {
            house.passwords.known.push((user.to_string(), password.to_string()));
            mechanisms(house).secure = vec!["PLAIN".to_string(), "LOGIN".to_string()];
        }
        ["passwords", "broken"] => house.passwords.broken = true,
        ["handshake", "fails"] => house.no_handshake = true,
        ["set", name, value] => {
            let number: usize = value.parse().ok()?;
            match name {
                "max_errors" => house.settings.max_errors = number,
                "max_recipients" => house.settings.max_recipients = number,
                "max_message_size" => house.settings.max_message_size = number as u64,
                "max_line" => house.max_line = number,
                "max_hops" => house.max_hops = number,
                _ => return None,
            }
        }
        ["sender" | "recipient", address, saying] => {
            let table = if words[0] == "sender" { &mut said.senders } else { &mut said.recipients };
            if !saying.starts_with("ok") {
                reply(saying)?;
            }
            table.insert(address.to_string(), saying.to_string());
        }
        ["disk", "full"] => house.disk = Some(DataFault::Full),
        ["disk", "broken"] => house.disk = Some(DataFault::Disk),
        _ => return None,
    }
    Some(())
}

fn mechanisms(house: &mut House) -> &mut Mechanisms {
    Arc::make_mut(&mut house.service.mechanisms)
}

struct Stage {
    speaker: Speaker,
    /// Octets of what was said, and messages of those stored, that the dialogue has mentioned.
    heard: usize,
    seen: usize,
    step: usize,
    /// What is left of the last message's content.
    last: String,
}

impl Stage {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line == "closed" {
            return if self.speaker.closed { Ok(()) } else { Err("the session is still open".into()) };
        }
        let (kind, text) = line.split_at_checked(2).ok_or(format!("what is {line:?}?"))?;
        let text = text.strip_prefix(' ').unwrap_or(text);
        if kind != "M|" && !self.last.is_empty() {
            return Err(format!("the message goes on: {:?}", self.last));
        }
        match kind {
            "C:" => self.send(format!("{text}\\r\\n")),
            "C|" => self.send(text.to_string()),
            "S:" => self.hear(text).map(|_| ()),
            "R:" => self.hear_all(text),
            "M:" => self.envelope(text),
            "M|" => self.content(text),
            "E:" => self.happen(text),
            _ => Err(format!("what is {line:?}?")),
        }
    }

    fn send(&mut self, text: String) -> Result<(), String> {
        if self.speaker.closed {
            return Err("the session is closed".into());
        }
        let octets = octets(&text)?;
        for piece in octets.chunks(self.step.min(octets.len()).max(1)) {
            self.speaker.receive(piece);
        }
        Ok(())
    }

    fn happen(&mut self, what: &str) -> Result<(), String> {
        let event = match what {
            "timed out" => Event::TimedOut,
            "closing" => Event::Closing,
            _ => return Err(format!("{what:?} does not happen")),
        };
        self.speaker.tell(event);
        Ok(())
    }

    /// All lines of a reply, of which the last is as `pattern` says.
    fn hear_all(&mut self, pattern: &str) -> Result<(), String> {
        loop {
            let line = self.hear("*")?;
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            return if matches(pattern, &line) {
                Ok(())
            } else {
                Err(format!("wanted {pattern:?}, heard {line:?}"))
            };
        }
    }

    fn hear(&mut self, pattern: &str) -> Result<String, String> {
        let rest = &self.speaker.said[self.heard..];
        let end = rest.windows(2).position(|w| w == b"\r\n").ok_or("the server has said no more")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        if !matches(pattern, &line) {
            return Err(format!("wanted {pattern:?}, heard {line:?}"));
        }
        self.heard += end + 2;
        Ok(line)
    }

    fn envelope(&mut self, wanted: &str) -> Result<(), String> {
        let message = self.speaker.stored.get(self.seen).ok_or("no message was stored")?;
        let envelope = format!("<{}> {}", message.sender, message.recipients.join(" "));
        if envelope != wanted {
            return Err(format!("the envelope is {envelope}"));
        }
        // One char for each octet, so that nothing is lost.
        self.last = message.content.iter().map(|b| char::from(*b)).collect();
        self.seen += 1;
        Ok(())
    }

    fn content(&mut self, text: &str) -> Result<(), String> {
        let line: String = octets(&format!("{text}\\r\\n"))?.iter().map(|b| char::from(*b)).collect();
        self.last =
            self.last.strip_prefix(&line).ok_or(format!("the message has {:?}", self.last))?.to_string();
        Ok(())
    }

    fn end(&self, closed: bool) -> Result<(), String> {
        if self.heard != self.speaker.said.len() {
            let rest = String::from_utf8_lossy(&self.speaker.said[self.heard..]);
            return Err(format!("the server also said {rest:?}"));
        }
        if self.seen != self.speaker.stored.len() || !self.last.is_empty() {
            return Err(format!("also stored: {:?} {:?}", self.last, &self.speaker.stored[self.seen..]));
        }
        if closed != self.speaker.closed {
            return Err(format!("closed: {}", self.speaker.closed));
        }
        Ok(())
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

/// Undoes the escapes of C and M lines.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, after)) = rest.split_first() {
        rest = after;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let (&escape, after) = rest.split_first().ok_or("a lone \\ at the end")?;
        rest = after;
        match escape {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'\\' => out.push(b'\\'),
            b'x' => {
                let hex = std::str::from_utf8(rest.get(..2).ok_or("\\x wants two digits")?)
                    .map_err(|e| e.to_string())?;
                out.push(u8::from_str_radix(hex, 16).map_err(|e| e.to_string())?);
                rest = &rest[2..];
            }
            b'(' => {
                let end = rest.iter().position(|b| *b == b')').ok_or("\\( wants )")?;
                let inner = std::str::from_utf8(&rest[..end]).map_err(|e| e.to_string())?;
                let (count, what) = inner.split_once('*').ok_or("\\( wants N*text")?;
                let count: usize = count.parse().map_err(|_| format!("{count} is no number"))?;
                out.extend(octets(what)?.repeat(count));
                rest = &rest[end + 1..];
            }
            other => return Err(format!("what is \\{}?", char::from(other))),
        }
    }
    Ok(out)
}
