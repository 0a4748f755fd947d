//! What we can do beyond RFC 5321: one table of extensions, each with its line in the answer to EHLO
//! and the parameters that it adds to MAIL and RCPT (RFC 5321 4.1.1.1, 4.1.1.11). A new extension is
//! a new row.

use thiserror::Error;

use crate::mail::envelope::{BodyKind, Notify, Ret, from_xtext};

use super::introduction;
use super::reply::Reply;

/// What the answer to EHLO depends on.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Octets of the largest message.
    pub max_message_size: u64,
    /// Of one message.
    pub max_recipients: usize,
    /// The session is under TLS.
    pub secure: bool,
    /// STARTTLS can be said now.
    pub starttls: bool,
    /// With which AUTH can be said now.
    pub mechanisms: &'a [String],
    /// XCLIENT is for this client.
    pub xclient: bool,
    /// XFORWARD is for this client.
    pub xforward: bool,
}

/// What was said beside the path in MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParams {
    /// SIZE (RFC 1870): octets, by the client's estimate.
    pub size: Option<u64>,
    /// BODY (RFC 6152, RFC 3030 3).
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531 3.4)
    pub utf8: bool,
    /// REQUIRETLS (RFC 8689 2)
    pub require_tls: bool,
    /// RET (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 4.4), in xtext.
    pub envid: Option<String>,
}

/// What was said beside the path in RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// NOTIFY (RFC 3461 4.1).
    pub notify: Notify,
    /// ORCPT (RFC 3461 4.2), as `type;xtext`.
    pub original: Option<String>,
}

struct Extension {
    /// The line in the answer to EHLO; none where it is not offered.
    announce: fn(&Offer<'_>) -> Option<String>,
    mail: &'static [Parameter<MailParams>],
    rcpt: &'static [Parameter<RcptParams>],
}

struct Parameter<P> {
    name: &'static str,
    /// What a right value looks like, for the reply to a wrong one.
    wanted: &'static str,
    /// Takes the value in; `None` if it is wrong.
    read: fn(&mut P, &str) -> Option<()>,
}

const EXTENSIONS: &[Extension] = &[
    // RFC 2920
    Extension { announce: |_| Some("PIPELINING".to_string()), mail: &[], rcpt: &[] },
    // RFC 1870
    Extension {
        announce: |offer| Some(format!("SIZE {}", offer.max_message_size)),
        mail: &[Parameter { name: "SIZE", wanted: "a number of octets", read: size }],
        rcpt: &[],
    },
    // RFC 6152
    Extension {
        announce: |_| Some("8BITMIME".to_string()),
        mail: &[Parameter { name: "BODY", wanted: "7BIT, 8BITMIME or BINARYMIME", read: body }],
        rcpt: &[],
    },
    // RFC 2034
    Extension { announce: |_| Some("ENHANCEDSTATUSCODES".to_string()), mail: &[], rcpt: &[] },
    // RFC 3461
    Extension {
        announce: |_| Some("DSN".to_string()),
        mail: &[
            Parameter { name: "RET", wanted: "FULL or HDRS", read: ret },
            Parameter { name: "ENVID", wanted: "xtext of at most 100 characters", read: envid },
        ],
        rcpt: &[
            Parameter { name: "NOTIFY", wanted: "NEVER, or some of SUCCESS,FAILURE,DELAY", read: notify },
            Parameter { name: "ORCPT", wanted: "type;xtext, as in rfc822;user@example.org", read: orcpt },
        ],
    },
    // RFC 6531 3.1: only beside 8BITMIME.
    Extension {
        announce: |_| Some("SMTPUTF8".to_string()),
        mail: &[Parameter { name: "SMTPUTF8", wanted: NO_VALUE, read: utf8 }],
        rcpt: &[],
    },
    // RFC 3030 2: the command BDAT.
    Extension { announce: |_| Some("CHUNKING".to_string()), mail: &[], rcpt: &[] },
    // RFC 3030 3: only beside CHUNKING; its value of BODY is in the row of 8BITMIME.
    Extension { announce: |_| Some("BINARYMIME".to_string()), mail: &[], rcpt: &[] },
    // RFC 9422: what a client would find out by a refusal.
    Extension {
        announce: |offer| Some(format!("LIMITS RCPTMAX={}", offer.max_recipients)),
        mail: &[],
        rcpt: &[],
    },
    // RFC 3207: the command STARTTLS, which is gone once it has been said.
    Extension { announce: |offer| offer.starttls.then(|| "STARTTLS".to_string()), mail: &[], rcpt: &[] },
    // RFC 4954: the command AUTH. Who first sent a message is not asked for, but may be told (5).
    Extension {
        announce: |offer| {
            (!offer.mechanisms.is_empty()).then(|| format!("AUTH {}", offer.mechanisms.join(" ")))
        },
        mail: &[Parameter { name: "AUTH", wanted: "<> or an address in xtext", read: first_sender }],
        rcpt: &[],
    },
    // RFC 8689 4.1: under TLS only.
    Extension {
        announce: |offer| offer.secure.then(|| "REQUIRETLS".to_string()),
        mail: &[Parameter { name: "REQUIRETLS", wanted: NO_VALUE, read: require_tls }],
        rcpt: &[],
    },
    // Postfix's, for hosts that speak for their clients.
    Extension {
        announce: |offer| offer.xclient.then(|| format!("XCLIENT {}", introduction::XCLIENT.join(" "))),
        mail: &[],
        rcpt: &[],
    },
    Extension {
        announce: |offer| offer.xforward.then(|| format!("XFORWARD {}", introduction::XFORWARD.join(" "))),
        mail: &[],
        rcpt: &[],
    },
];

const NO_VALUE: &str = "a word of its own, without a value";

/// The lines of the answer to EHLO after the first.
pub fn announcements(offer: &Offer<'_>) -> impl Iterator<Item = String> {
    EXTENSIONS.iter().filter_map(|extension| (extension.announce)(offer))
}

/// Reads the parameters of MAIL.
pub fn mail_params(text: &str) -> Result<MailParams, ParamError> {
    read(text, EXTENSIONS.iter().flat_map(|extension| extension.mail))
}

/// Reads the parameters of RCPT.
pub fn rcpt_params(text: &str) -> Result<RcptParams, ParamError> {
    read(text, EXTENSIONS.iter().flat_map(|extension| extension.rcpt))
}

/// Why parameters can't be taken. As text it says what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParamError {
    /// No extension that we offer has it.
    #[error("no parameter {0} here; see the answer to EHLO")]
    Unknown(String),
    /// There it is again.
    #[error("{0} given twice")]
    Twice(&'static str),
    /// Its value is not what it has to be.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
    /// No `KEY` or `KEY=value`.
    #[error("parameters are written KEY=value, in ASCII, with blanks between them")]
    Malformed,
    /// Parameters after HELO (RFC 5321 4.1.1.11: they are for clients that said EHLO).
    #[error("parameters need EHLO, not HELO")]
    NeedEhlo,
}

impl ParamError {
    /// The reply to such a command.
    pub fn reply(&self) -> Reply {
        let code = match self {
            ParamError::Unknown(_) | ParamError::NeedEhlo => 555,
            ParamError::Twice(_) | ParamError::Value(..) | ParamError::Malformed => 501,
        };
        Reply::coded(code, 5, 4, self.to_string())
    }
}

fn read<'t, P: Default + 'static>(
    text: &str,
    table: impl Iterator<Item = &'t Parameter<P>> + Clone,
) -> Result<P, ParamError> {
    let mut params = P::default();
    let mut given = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = keyword(word).ok_or(ParamError::Malformed)?;
        let row = table.clone().find(|row| row.name.eq_ignore_ascii_case(key));
        let row = row.ok_or_else(|| ParamError::Unknown(key.to_ascii_uppercase()))?;
        if given.contains(&row.name) {
            return Err(ParamError::Twice(row.name));
        }
        given.push(row.name);
        (row.read)(&mut params, value).ok_or(ParamError::Value(row.name, row.wanted))?;
    }
    Ok(params)
}

/// `esmtp-keyword ["=" esmtp-value]` of RFC 5321 4.1.2; no value is an empty one.
fn keyword(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let is_key = key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_value = value.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
    (is_key && is_value).then_some((key, value))
}

fn size(params: &mut MailParams, value: &str) -> Option<()> {
    // RFC 1870 4: one to twenty digits, which can be more than 64 bits hold.
    if !(1..=20).contains(&value.len()) || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    params.size = Some(value.parse().unwrap_or(u64::MAX));
    Some(())
}

fn body(params: &mut MailParams, value: &str) -> Option<()> {
    params.body = match value.to_ascii_uppercase().as_str() {
        "7BIT" => BodyKind::SevenBit,
        "8BITMIME" => BodyKind::EightBitMime,
        "BINARYMIME" => BodyKind::BinaryMime,
        _ => return None,
    };
    Some(())
}

fn utf8(params: &mut MailParams, value: &str) -> Option<()> {
    params.utf8 = true;
    value.is_empty().then_some(())
}

fn require_tls(params: &mut MailParams, value: &str) -> Option<()> {
    params.require_tls = true;
    value.is_empty().then_some(())
}

/// RFC 4954 5: from somebody who isn't trusted to say so, it is as if it were `<>`; and so we take
/// it from everybody.
fn first_sender(_: &mut MailParams, value: &str) -> Option<()> {
    (value == "<>" || from_xtext(value).is_some_and(|who| !who.is_empty())).then_some(())
}

fn ret(params: &mut MailParams, value: &str) -> Option<()> {
    params.ret = match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Headers),
        _ => return None,
    };
    Some(())
}

fn envid(params: &mut MailParams, value: &str) -> Option<()> {
    // RFC 3461 4.4: printable, and at most 100 characters before it was encoded.
    from_xtext(value).filter(|id| (1..=100).contains(&id.len()) && is_printable(id))?;
    params.envid = Some(value.to_string());
    Some(())
}

fn notify(params: &mut RcptParams, value: &str) -> Option<()> {
    params.notify = Notify::parse(value)?;
    Some(())
}

fn orcpt(params: &mut RcptParams, value: &str) -> Option<()> {
    // RFC 3461 4.2: an atom for the type of address, and at most 500 characters in all.
    let (kind, address) = value.split_once(';')?;
    let is_kind = !kind.is_empty() && kind.bytes().all(crate::mail::address::is_atext);
    from_xtext(address).filter(|address| !address.is_empty() && is_printable(address))?;
    if !is_kind || value.len() > 500 {
        return None;
    }
    params.original = Some(value.to_string());
    Some(())
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mail_code(text: &str) -> Result<MailParams, u16> {
        mail_params(text).map_err(|e| e.reply().code)
    }

    fn rcpt_code(text: &str) -> Result<RcptParams, u16> {
        rcpt_params(text).map_err(|e| e.reply().code)
    }

    #[test]
    fn what_is_announced() {
        let mut offer = Offer {
            max_message_size: 1000,
            max_recipients: 7,
            secure: false,
            starttls: false,
            mechanisms: &[],
            xclient: false,
            xforward: false,
        };
        let always = [
            "PIPELINING",
            "SIZE 1000",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "LIMITS RCPTMAX=7",
        ];
        assert_eq!(announcements(&offer).collect::<Vec<_>>(), always);
        let mechanisms = ["PLAIN".to_string(), "LOGIN".to_string()];
        offer = Offer { secure: true, mechanisms: &mechanisms, xclient: true, xforward: true, ..offer };
        let more = announcements(&offer).skip(always.len()).collect::<Vec<_>>();
        let words: Vec<&str> = more.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(words, ["AUTH", "REQUIRETLS", "XCLIENT", "XFORWARD"]);
        assert_eq!(more[0], "AUTH PLAIN LOGIN");
        offer = Offer { secure: false, starttls: true, mechanisms: &[], ..offer };
        assert_eq!(announcements(&offer).nth(always.len()).as_deref(), Some("STARTTLS"));
    }

    #[test]
    fn words_without_a_value_have_none() {
        let params = mail_code("smtputf8 REQUIRETLS BODY=BinaryMime AUTH=<>").unwrap();
        assert!(params.utf8 && params.require_tls && params.body == BodyKind::BinaryMime);
        assert!(mail_code("AUTH=a+2Bb@x").is_ok());
        for text in ["SMTPUTF8=1", "REQUIRETLS=YES", "SMTPUTF8 SMTPUTF8", "AUTH=", "AUTH=a+"] {
            assert_eq!(mail_code(text), Err(501), "{text}");
        }
    }

    #[test]
    fn parameters_of_mail_are_read() {
        let params = mail_code(" size=10 BODY=8bitmime  RET=hdrs ENVID=QQ+20314").unwrap();
        assert_eq!(
            (params.size, params.body, params.ret),
            (Some(10), BodyKind::EightBitMime, Some(Ret::Headers))
        );
        assert_eq!(params.envid.as_deref(), Some("QQ+20314"));
        assert_eq!(mail_code("").unwrap(), MailParams::default());
        assert_eq!(mail_code("SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn wrong_values_are_refused() {
        let long = format!("ENVID={}", "x".repeat(101));
        for text in [
            "SIZE=abc",
            "SIZE=-1",
            "SIZE=",
            "SIZE",
            "SIZE=1x",
            "SIZE=1 SIZE=1",
            "BODY=BINARY",
            "BODY=",
            "RET=SOME",
            "RET=FULL ret=HDRS",
            "ENVID=",
            "ENVID=a+2",
            "ENVID=a+2g",
            "ENVID=a+0A",
            "ENVID=a=b",
            "=x",
            "-A=b",
            &long,
        ] {
            assert_eq!(mail_code(text), Err(501), "{text}");
        }
        for text in [
            "NOTIFY=",
            "NOTIFY=MAYBE",
            "NOTIFY=NEVER,FAILURE",
            "NOTIFY=DELAY NOTIFY=DELAY",
            "ORCPT=a@b",
            "ORCPT=rfc822;",
            "ORCPT=;a@b",
            "ORCPT=rfc822;a+0D+0Ab",
            "ORCPT=rf c;x",
        ] {
            assert_eq!(rcpt_code(text), Err(501), "{text}");
        }
    }

    #[test]
    fn unknown_parameters_are_told_apart_from_wrong_ones() {
        assert_eq!(mail_code("XFROB=1"), Err(555));
        assert_eq!(rcpt_code("SMTPUTF8"), Err(555));
        assert_eq!(rcpt_code("SIZE=1"), Err(555));
        assert_eq!(mail_code("NOTIFY=NEVER"), Err(555));
    }

    #[test]
    fn parameters_of_rcpt_are_read() {
        let params = rcpt_code("ORCPT=rfc822;a+2Bb@x NOTIFY=SUCCESS,delay").unwrap();
        assert_eq!(params.original.as_deref(), Some("rfc822;a+2Bb@x"));
        assert_eq!(params.notify.keyword().as_deref(), Some("SUCCESS,DELAY"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "( ?(SIZE|BODY|ENVID|ORCPT|NOTIFY|RET)=?)?\\PC{0,20}") {
            let _ = (mail_params(&text), rcpt_params(&text));
        }
    }
}
