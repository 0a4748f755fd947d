//! Replies (RFC 5321 4.2), with enhanced status codes (RFC 2034).

use crate::mail::status::Status;

use super::rule::Rule;

/// Most octets of a reply line, its CR LF included (RFC 5321 4.5.3.1.5).
pub const MAX_LINE: usize = 512;

/// A reply of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Not in greetings, in the answer to EHLO, and in 3xx replies.
    pub status: Option<Status>,
    /// At least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line.
    pub fn new(code: u16, status: Option<Status>, text: impl Into<String>) -> Reply {
        Reply { code, status, lines: vec![text.into()] }
    }

    /// A reply of one line with the enhanced status code `class.subject.detail`, where the class is
    /// the reply code's first digit, as RFC 2034 4 wants it.
    pub fn coded(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Reply {
        let class = u8::try_from(code / 100).unwrap_or(5);
        Reply::new(code, Some(Status::new(class, subject, detail)), text)
    }

    /// The same reply, said under a rule: its text ends with the rule's id, as ` [P0404]`.
    #[must_use]
    pub fn under(mut self, rule: &Rule) -> Reply {
        match self.lines.last_mut() {
            Some(last) => *last = format!("{last} [{}]", rule.id),
            None => self.lines.push(format!("[{}]", rule.id)),
        }
        self
    }

    /// Whether it says no for good.
    pub fn is_permanent_failure(&self) -> bool {
        self.code / 100 == 5
    }

    /// Appends the reply's wire form. No text can break out of it: control characters, line ends
    /// among them, become blanks, other characters outside ASCII question marks, and what is longer
    /// than a line goes on in the next one.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let prefix = match self.status {
            Some(status) => format!("{status} "),
            None => String::new(),
        };
        let room = MAX_LINE - "250-".len() - prefix.len() - "\r\n".len();
        let mut pieces = self.lines.iter().flat_map(|line| pieces(line, room)).peekable();
        let mut next = pieces.next().or(Some(""));
        while let Some(piece) = next {
            next = pieces.next();
            // RFC 5321 4.2.1: a hyphen after the code says that another line follows.
            let separator = if next.is_some() { '-' } else { ' ' };
            out.extend_from_slice(format!("{}{separator}{prefix}", self.code).as_bytes());
            out.extend(piece.chars().map(printable));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Cuts a text into pieces of at most `room` octets, at blanks where there are some.
fn pieces(text: &str, room: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= room {
            return rest.take();
        }
        let end = text.floor_char_boundary(room);
        let end = text[..end].rfind(' ').map_or(end, |blank| blank + 1);
        rest = Some(&text[end..]);
        Some(&text[..end])
    })
}

fn printable(c: char) -> u8 {
    match c {
        ' '..='~' => c as u8,
        _ if c.is_control() => b' ',
        _ => b'?',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_carry_code_and_status() {
        assert_eq!(wire(&Reply::coded(250, 1, 0, "Ok")), "250 2.1.0 Ok\r\n");
        assert_eq!(wire(&Reply::new(354, None, "go ahead")), "354 go ahead\r\n");
        let lines = vec!["one".to_string(), "two".to_string()];
        assert_eq!(
            wire(&Reply { lines, ..Reply::coded(550, 7, 1, "") }),
            "550-5.7.1 one\r\n550 5.7.1 two\r\n"
        );
        assert_eq!(wire(&Reply { lines: vec![], ..Reply::new(250, None, "") }), "250 \r\n");
    }

    #[test]
    fn the_rule_stands_at_the_end() {
        let rule = &crate::smtp::rule::NO_RECIPIENT;
        let lines = vec!["one".to_string(), "two".to_string()];
        let reply = Reply { lines, ..Reply::coded(550, 7, 1, "") }.under(rule);
        assert_eq!(wire(&reply), "550-5.7.1 one\r\n550 5.7.1 two [P0403]\r\n");
        assert_eq!(wire(&Reply { lines: vec![], ..reply }.under(rule)), "550 5.7.1 [P0403]\r\n");
    }

    #[test]
    fn a_text_cannot_break_out() {
        assert_eq!(wire(&Reply::coded(550, 7, 1, "a\r\n250 b\0é")), "550 5.7.1 a  250 b ?\r\n");
    }

    #[test]
    fn long_texts_go_on_in_the_next_line() {
        let wire = wire(&Reply::coded(550, 7, 1, "word ".repeat(200)));
        let lines: Vec<&str> = wire.split_terminator("\r\n").collect();
        assert!(lines.len() > 1 && lines.iter().all(|l| l.len() + 2 <= MAX_LINE));
        assert!(
            lines[0].starts_with("550-5.7.1 word") && lines[lines.len() - 1].starts_with("550 5.7.1 word")
        );
        assert_eq!(wire.matches("word").count(), 200);
    }

    proptest! {
        #[test]
        fn every_line_is_in_form(lines in proptest::collection::vec("\\PC{0,700}|[\\x00-\\x7f]{0,50}", 0..4)) {
            let wire = wire(&Reply { lines, ..Reply::coded(451, 3, 0, "") });
            prop_assert!(wire.ends_with("\r\n"));
            let count = wire.matches("\r\n").count();
            for (n, line) in wire.split_terminator("\r\n").enumerate() {
                let start = if n + 1 == count { "451 4.3.0 " } else { "451-4.3.0 " };
                prop_assert!(line.starts_with(start) && line.len() <= MAX_LINE - 2, "{}", line);
                prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
        }
    }
}
