//! A line into a command (RFC 5321 4.1.1).
//!
//! Verbs are matched whole and in any case. Paths are read strictly: in angle brackets, right after
//! the colon. Nothing but printable characters gets through, so that whatever a command says can be
//! logged, stored and put into a header field.

use thiserror::Error;

use crate::mail::address::{AddressError, MAX_DOMAIN, MAX_PATH, Mailbox, ReversePath, parse_domain};

use super::line::TLS_HANDSHAKE;
use super::reply::Reply;

/// A command and its argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO, EHLO or LHLO: what the client calls itself.
    Hello {
        /// A domain, an address literal, or another word that could name a host.
        name: &'a str,
        /// Which of the three.
        salute: Salute,
    },
    /// STARTTLS (RFC 3207)
    StartTls,
    /// AUTH (RFC 4954)
    Auth {
        /// In capitals.
        mechanism: String,
        /// The initial response, in base64; `=` is an empty one.
        initial: Option<&'a str>,
    },
    /// MAIL
    Mail {
        /// The path after `FROM:`.
        sender: ReversePath,
        /// What follows it, for [`extension::mail_params`](super::extension::mail_params).
        params: &'a str,
    },
    /// RCPT
    Rcpt {
        /// The path after `TO:`; `None` is `<postmaster>` without a domain (RFC 5321 4.5.1).
        recipient: Option<Mailbox>,
        /// What follows it, for [`extension::rcpt_params`](super::extension::rcpt_params).
        params: &'a str,
    },
    /// DATA
    Data,
    /// BDAT (RFC 3030 2)
    Bdat {
        /// In octets; what is more than 64 bits hold is as much as they do.
        size: u64,
        /// It is the message's last chunk.
        last: bool,
    },
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// VRFY
    Vrfy {
        /// The name has octets above 127, and SMTPUTF8 was not said (RFC 6531 3.7.4.2).
        lacks_utf8: bool,
    },
    /// XCLIENT, with its attributes.
    Xclient(&'a str),
    /// XFORWARD, with its attributes.
    Xforward(&'a str),
    /// HELP
    Help,
    /// QUIT
    Quit,
    /// A command that we know and don't do (RFC 5321 4.2.4).
    NotOffered(&'static str),
    /// No SMTP at all: HTTP, a header field, a TLS handshake.
    Foreign,
}

/// How a client names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Salute {
    /// HELO (RFC 5321 4.1.1.1)
    Helo,
    /// EHLO
    Ehlo,
    /// LHLO: LMTP's EHLO (RFC 2033 4.1)
    Lhlo,
}

/// Why a line is no command. As text it says what is wrong and what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CommandError {
    /// No verb that we know.
    #[error("no such command; HELP lists those there are")]
    Unknown,
    /// NUL and other control characters.
    #[error("a command must not contain control characters")]
    Control,
    /// Octets above 127 that are no UTF-8, or not where an address stands.
    #[error("a command must be ASCII")]
    NotAscii,
    /// The argument is missing, or is not what it has to be.
    #[error("write it like this: {0}")]
    Argument(&'static str),
    /// A word of AUTH that is not written as it must be.
    #[error("that is no base64")]
    NotBase64,
    /// There is an argument, where none may be.
    #[error("{0} takes no argument")]
    Unwanted(&'static str),
    /// The path of MAIL.
    #[error("sender: {0}; write MAIL FROM:<user@example.org>")]
    Sender(AddressError),
    /// The path of RCPT.
    #[error("recipient: {0}; write RCPT TO:<user@example.org>")]
    Recipient(AddressError),
}

impl CommandError {
    /// The reply to such a line.
    pub fn reply(&self) -> Reply {
        let (code, subject, detail) = match self {
            CommandError::Unknown => (500, 5, 1),
            CommandError::Control | CommandError::NotAscii => (500, 5, 2),
            CommandError::NotBase64 => (501, 5, 2),
            CommandError::Argument(_) | CommandError::Unwanted(_) => (501, 5, 4),
            CommandError::Sender(_) => (501, 1, 7),
            CommandError::Recipient(_) => (501, 1, 3),
        };
        Reply::coded(code, subject, detail, self.to_string())
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Hello(Salute),
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    StartTls,
    Auth,
    Xclient,
    Xforward,
    Help,
    Quit,
    NotOffered,
}

/// Every verb we know, frequent ones first.
const VERBS: [(&str, Verb); 23] = [
    ("RCPT", Verb::Rcpt),
    ("MAIL", Verb::Mail),
    ("DATA", Verb::Data),
    ("EHLO", Verb::Hello(Salute::Ehlo)),
    ("QUIT", Verb::Quit),
    ("RSET", Verb::Rset),
    ("BDAT", Verb::Bdat),
    ("NOOP", Verb::Noop),
    ("HELO", Verb::Hello(Salute::Helo)),
    ("STARTTLS", Verb::StartTls),
    ("AUTH", Verb::Auth),
    ("LHLO", Verb::Hello(Salute::Lhlo)),
    ("HELP", Verb::Help),
    ("VRFY", Verb::Vrfy),
    ("XCLIENT", Verb::Xclient),
    ("XFORWARD", Verb::Xforward),
    // RFC 5321 7.3: an expanded list tells its members' addresses to anybody.
    ("EXPN", Verb::NotOffered),
    ("ETRN", Verb::NotOffered),
    // RFC 5321 appendix F.1 and F.6: no longer done.
    ("TURN", Verb::NotOffered),
    ("SEND", Verb::NotOffered),
    ("SOML", Verb::NotOffered),
    ("SAML", Verb::NotOffered),
    ("BURL", Verb::NotOffered),
];

/// Reads a line, without its CR LF. An address has to have a domain.
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    parse_completing(line, None)
}

/// Reads a line, without its CR LF. An address that is a local part alone gets this `domain` (RFC 6409
/// 8.1), if there is one.
pub fn parse_completing<'a>(line: &'a [u8], domain: Option<&str>) -> Result<Command<'a>, CommandError> {
    if is_foreign(line) {
        return Ok(Command::Foreign);
    }
    let text = std::str::from_utf8(line).map_err(|_| CommandError::NotAscii)?;
    // RFC 5321 4.1.1: trailing white space is tolerated.
    let text = text.trim_end_matches([' ', '\t']);
    if text.chars().any(char::is_control) {
        return Err(CommandError::Control);
    }
    let (word, argument) = match text.split_once(' ') {
        Some((word, argument)) => (word, Some(argument)),
        None => (text, None),
    };
    let known = VERBS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let &(name, verb) = known.ok_or(CommandError::Unknown)?;
    let bare = |command| match argument {
        None => Ok(command),
        Some(_) => Err(CommandError::Unwanted(name)),
    };
    match verb {
        Verb::Hello(salute) => hello(argument, salute),
        Verb::Mail => mail(argument, domain),
        Verb::Rcpt => rcpt(argument, domain),
        Verb::Data => bare(Command::Data),
        Verb::Rset => bare(Command::Rset),
        Verb::Quit => bare(Command::Quit),
        // RFC 5321 4.1.1.9: "If the parameter is specified, servers SHOULD ignore it."
        Verb::Noop => Ok(Command::Noop),
        Verb::Help => Ok(Command::Help),
        Verb::Vrfy => vrfy(argument),
        Verb::StartTls => bare(Command::StartTls),
        Verb::Auth => auth(argument),
        Verb::Bdat => bdat(argument),
        Verb::Xclient => Ok(Command::Xclient(argument.unwrap_or_default())),
        Verb::Xforward => Ok(Command::Xforward(argument.unwrap_or_default())),
        Verb::NotOffered => Ok(Command::NotOffered(name)),
    }
}

/// Whether this is the beginning of another protocol. A browser can be made to send SMTP commands in
/// the body of an HTTP request (CVE-2021-3618); they must never be reached.
fn is_foreign(line: &[u8]) -> bool {
    const HTTP: [&[u8]; 9] =
        [b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"PRI"];
    if line.starts_with(&TLS_HANDSHAKE) {
        return true;
    }
    let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let word = &line[..end];
    let is_field_name = match word {
        [name @ .., b':'] => !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-'),
        _ => false,
    };
    is_field_name || HTTP.iter().any(|method| method.eq_ignore_ascii_case(word))
}

fn hello(argument: Option<&str>, salute: Salute) -> Result<Command<'_>, CommandError> {
    let wanted = CommandError::Argument(match salute {
        Salute::Helo => "HELO host.example.org",
        Salute::Ehlo => "EHLO host.example.org",
        Salute::Lhlo => "LHLO host.example.org",
    });
    let name = argument.unwrap_or_default().trim_start_matches(' ');
    if name.is_empty() || name.len() > MAX_DOMAIN {
        return Err(wanted);
    }
    if !name.is_ascii() {
        return Err(CommandError::NotAscii);
    }
    // RFC 5321 4.1.4: a name must not be refused because it can't be verified, and many hosts have
    // names that are no domains. But one that could end a comment, a word or a field of the trace
    // is no name.
    let is_hostish = |b: u8| b.is_ascii_graphic() && !b"()<>,;@\\\"".contains(&b);
    if parse_domain(name).is_err() && !name.bytes().all(is_hostish) {
        return Err(wanted);
    }
    Ok(Command::Hello { name, salute })
}

fn mail<'a>(argument: Option<&'a str>, domain: Option<&str>) -> Result<Command<'a>, CommandError> {
    let wanted = CommandError::Argument("MAIL FROM:<user@example.org>");
    let text = argument.and_then(|a| after_keyword(a, "FROM:")).ok_or(wanted)?;
    let (path, params) = bracketed(text).map_err(CommandError::Sender)?;
    let sender = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(mailbox(path, domain).map_err(CommandError::Sender)?),
    };
    Ok(Command::Mail { sender, params })
}

fn rcpt<'a>(argument: Option<&'a str>, domain: Option<&str>) -> Result<Command<'a>, CommandError> {
    let wanted = CommandError::Argument("RCPT TO:<user@example.org>");
    let text = argument.and_then(|a| after_keyword(a, "TO:")).ok_or(wanted)?;
    let (path, params) = bracketed(text).map_err(CommandError::Recipient)?;
    let recipient = if path.eq_ignore_ascii_case("postmaster") {
        None
    } else {
        Some(mailbox(path, domain).map_err(CommandError::Recipient)?)
    };
    Ok(Command::Rcpt { recipient, params })
}

/// `VRFY string [SMTPUTF8]` (RFC 6531 3.7.4.2).
fn vrfy(argument: Option<&str>) -> Result<Command<'_>, CommandError> {
    let name = argument.ok_or(CommandError::Argument("VRFY user"))?;
    let utf8 = name.rsplit(' ').next().is_some_and(|word| word.eq_ignore_ascii_case("SMTPUTF8"));
    Ok(Command::Vrfy { lacks_utf8: !name.is_ascii() && !utf8 })
}

/// `AUTH mechanism [initial-response]` (RFC 4954 4, 8).
fn auth(argument: Option<&str>) -> Result<Command<'_>, CommandError> {
    let wanted = CommandError::Argument("AUTH MECHANISM, or AUTH MECHANISM initial-response-in-base64");
    let mut words = argument.unwrap_or_default().split(' ').filter(|word| !word.is_empty());
    let (mechanism, initial) = (words.next().ok_or(wanted)?, words.next());
    // RFC 4422 3.1: one to twenty letters, digits, hyphens and underscores.
    let is_mechanism = mechanism.len() <= 20
        && mechanism.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_mechanism || words.next().is_some() {
        return Err(wanted);
    }
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial })
}

/// `BDAT chunk-size [LAST]` (RFC 3030 2).
fn bdat(argument: Option<&str>) -> Result<Command<'_>, CommandError> {
    let wanted = CommandError::Argument("BDAT size, or BDAT size LAST");
    let mut words = argument.unwrap_or_default().split(' ').filter(|word| !word.is_empty());
    let size = words.next().filter(|size| size.bytes().all(|b| b.is_ascii_digit())).ok_or(wanted)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(wanted),
    };
    if words.next().is_some() {
        return Err(wanted);
    }
    Ok(Command::Bdat { size: size.parse().unwrap_or(u64::MAX), last })
}

fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let start = argument.get(..keyword.len())?;
    start.eq_ignore_ascii_case(keyword).then(|| &argument[keyword.len()..])
}

/// Takes `<…>` off the front: what is within, and what follows. A `>` in a quoted string ends
/// nothing.
fn bracketed(text: &str) -> Result<(&str, &str), AddressError> {
    let inner = text.strip_prefix('<').ok_or(AddressError::Path)?;
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.bytes().position(|b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' => return !quoted,
            _ => {}
        }
        false
    });
    let end = end.ok_or(AddressError::Path)?;
    if end + 2 > MAX_PATH {
        return Err(AddressError::TooLong);
    }
    let params = &inner[end + 1..];
    if !params.is_empty() && !params.starts_with(' ') {
        return Err(AddressError::Path);
    }
    Ok((&inner[..end], params))
}

/// A mailbox, without the source route that may stand before it. RFC 5321 4.1.1.3, appendix C: a
/// route is accepted, and ignored. `domain` is for a local part that has none.
fn mailbox(path: &str, domain: Option<&str>) -> Result<Mailbox, AddressError> {
    let mut rest = path;
    while let Some(hop) = rest.strip_prefix('@') {
        // The colons of an address literal (`[IPv6:…]`) end no hop.
        let literal = if hop.starts_with('[') { hop.find(']').ok_or(AddressError::Path)? } else { 0 };
        let end = literal + hop[literal..].find([',', ':']).ok_or(AddressError::Path)?;
        parse_domain(&hop[..end])?;
        rest = &hop[end + 1..];
        if hop.as_bytes()[end] == b':' {
            break;
        }
        if !rest.starts_with('@') {
            return Err(AddressError::Path);
        }
    }
    // Octets above 127 are let through here: whether SMTPUTF8 was asked for is in the parameters.
    match (Mailbox::parse(rest, true), domain) {
        (Err(AddressError::NoDomain), Some(domain)) => Mailbox::parse(&format!("{rest}@{domain}"), true),
        (read, _) => read,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(line: &str) -> (u16, String) {
        let reply = parse(line.as_bytes()).unwrap_err().reply();
        (reply.code, reply.status.unwrap().to_string())
    }

    fn recipient(path: &str) -> Result<String, u16> {
        match parse(format!("RCPT TO:{path}").as_bytes()) {
            Ok(Command::Rcpt { recipient: Some(mailbox), .. }) => Ok(mailbox.to_string()),
            Ok(Command::Rcpt { recipient: None, .. }) => Ok("postmaster".to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.reply().code),
        }
    }

    #[test]
    fn verbs_are_matched_whole_and_in_any_case() {
        assert_eq!(parse(b"noop hello there"), Ok(Command::Noop));
        assert_eq!(parse(b"DaTa \t "), Ok(Command::Data));
        for line in ["DATAX", "DAT", "QUITX", "FROB", "", " NOOP", "XFROB a b"] {
            assert_eq!(code(line), (500, "5.5.1".into()), "{line}");
        }
        for line in
            ["DATA now", "RSET x", "QUIT x", "VRFY", "MAIL", "MAIL FROM", "MAIL TO:<>", "RCPT", "EHLO"]
        {
            assert_eq!(code(line), (501, "5.5.4".into()), "{line}");
        }
        assert_eq!(parse(b"send FROM:<a@b>"), Ok(Command::NotOffered("SEND")));
    }

    #[test]
    fn words_of_auth_and_bdat_are_read() {
        let plain = |initial| Ok(Command::Auth { mechanism: "PLAIN".to_string(), initial });
        assert_eq!(parse(b"AUTH plain"), plain(None));
        assert_eq!(parse(b"auth PLAIN ="), plain(Some("=")));
        let bdat = |size, last| Ok(Command::Bdat { size, last });
        assert_eq!(parse(b"BDAT 0 last"), bdat(0, true));
        assert_eq!(parse(b"BDAT 99999999999999999999999"), bdat(u64::MAX, false));
        let long = format!("AUTH {}", "X".repeat(21));
        for line in [
            "AUTH",
            "AUTH  ",
            &long,
            "AUTH A B C",
            "AUTH (",
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT 1 X",
            "BDAT 1 LAST 2",
        ] {
            assert_eq!(code(line), (501, "5.5.4".into()), "{line}");
        }
        assert_eq!(parse("VRFY jürgen".as_bytes()), Ok(Command::Vrfy { lacks_utf8: true }));
        assert_eq!(parse("VRFY jürgen smtputf8".as_bytes()), Ok(Command::Vrfy { lacks_utf8: false }));
    }

    #[test]
    fn only_printable_text_is_a_command() {
        for line in [&b"NO\0OP"[..], b"MAIL FROM:<a\0b@example.org>", b"EHLO a\tb\x01", b"RCPT TO:<a\xef@b>"]
        {
            assert_eq!(parse(line).unwrap_err().reply().code, 500);
        }
    }

    #[test]
    fn hosts_name_themselves_as_they_can() {
        for name in
            ["a", "[127.0.0.1]", "[IPv6:::1]", "my_pc", "x.example.", "host/1", "localhost.localdomain"]
        {
            let line = format!("EHLO {name}  ");
            assert_eq!(parse(line.as_bytes()), Ok(Command::Hello { name, salute: Salute::Ehlo }));
        }
        let long = "a".repeat(256);
        for name in ["", "a b", "(x)", "a;b", "\"a\"", "ä", &long] {
            assert!(parse(format!("HELO {name}").as_bytes()).is_err(), "{name}");
        }
    }

    #[test]
    fn paths_stand_in_brackets() {
        let ok = |sender: &str, params| {
            Ok(Command::Mail { sender: ReversePath::parse(sender, false).unwrap(), params })
        };
        assert_eq!(parse(b"mail from:<>"), ok("", ""));
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=1 X"), ok("a@b", " SIZE=1 X"));
        assert_eq!(parse(br#"MAIL FROM:<"a>\"b"@c>"#), ok(r#""a>\"b"@c"#, ""));
        let bad = [
            "a@b", " <a@b>", "<a@b", "a@b>", "<<a@b>>", "<a@b>X", "<a>", "<a@b >", "< >", "<@>", "<@b>",
            "<\"a@b>",
        ];
        for path in bad {
            assert_eq!(code(&format!("MAIL FROM:{path}")), (501, "5.1.7".into()), "{path}");
            assert_eq!(code(&format!("RCPT TO:{path}")), (501, "5.1.3".into()), "{path}");
        }
        assert_eq!(code("RCPT TO:<>").0, 501);
    }

    #[test]
    fn postmaster_needs_no_domain() {
        assert_eq!(recipient("<postmaster>"), Ok("postmaster".into()));
        assert_eq!(recipient("<PostMaster>"), Ok("postmaster".into()));
        assert_eq!(recipient("<hostmaster>"), Err(501));
    }

    #[test]
    fn source_routes_are_stripped() {
        assert_eq!(recipient("<@a.example,@b:c@d>"), Ok("c@d".into()));
        assert_eq!(recipient("<@[IPv6:::1]:c@d>"), Ok("c@d".into()));
        for path in ["<@a:c>", "<@a,c@d>", "<@a,@:c@d>", "<@a:>", "<@a:@b:c@d>", "<@[a:c@d>", "<a,c@d>"] {
            assert_eq!(recipient(path), Err(501), "{path}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_law() {
        let domain = format!("{}.{}.{}.org", "d".repeat(63), "e".repeat(63), "f".repeat(57));
        assert!(recipient(&format!("<{}@{domain}>", "l".repeat(64))).is_ok());
        for path in [
            format!("<{}@b>", "l".repeat(65)),
            format!("<a@{}>", "d".repeat(64)),
            format!("<{}@x{domain}>", "l".repeat(64)),
            format!("<@a.example:{}@{domain}>", "l".repeat(64)),
        ] {
            assert_eq!(recipient(&path), Err(501), "{path}");
        }
    }

    #[test]
    fn other_protocols_are_told_apart() {
        for line in ["GET / HTTP/1.1", "post /", "Host: mail:25", "PRI * HTTP/2.0", "\x16\x03\x01"] {
            assert_eq!(parse(line.as_bytes()), Ok(Command::Foreign), "{line}");
        }
        assert!(parse(b"GETX").is_err() && parse(b":").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test]
        fn what_gets_through_is_printable(line in "(EHLO |MAIL FROM:|RCPT TO:)<?[ -~\\x00-\\x1f\u{7f}-\u{a0}]{0,20}>?") {
            match parse(line.as_bytes()) {
                Ok(Command::Hello { name, .. }) => prop_assert!(name.bytes().all(|b| b.is_ascii_graphic())),
                Ok(Command::Rcpt { recipient: Some(m), .. }) => {
                    prop_assert!(!m.to_string().chars().any(char::is_control));
                }
                _ => {}
            }
        }
    }
}
