//! The rules under which mail is refused, each with an id that never changes its meaning.
//!
//! A refusal ends with the id, as in `550 5.1.1 <x@y>: no such user [P0403]`, so that whoever reads
//! the reply, in a bounce or in a log, finds in posta-rules(7) what it means and what can be done.
//! The page is compared with this table by `tests/rules.rs`. An id that is no longer used stays
//! unused.
//!
//! Errors of syntax and of order (500 to 504, 555) have no rule: the protocol itself is theirs.

use crate::mail::status::Status;

use super::reply::Reply;

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// `P` and four digits; the first two are the theme.
    pub id: &'static str,
    /// A few words.
    pub name: &'static str,
    /// The reply's code.
    pub code: u16,
    /// Subject and detail of the enhanced code (RFC 3463), whose class is the code's first digit. A
    /// refusal may be more exact.
    pub status: (u16, u16),
    /// What has happened.
    pub means: &'static str,
    /// What the sender, or who runs the sending system, can do.
    pub sender: &'static str,
    /// What the postmaster of this server can do.
    pub postmaster: &'static str,
}

impl Rule {
    /// A refusal under this rule, with its codes; the text says what it is about.
    pub fn reply(&self, text: impl Into<String>) -> Reply {
        Reply::coded(self.code, self.status.0, self.status.1, text).under(self)
    }

    /// The enhanced code.
    pub fn enhanced(&self) -> Status {
        Status::new(u8::try_from(self.code / 100).unwrap_or(5), self.status.0, self.status.1)
    }
}

/// Makes the constants, and the table of all of them.
macro_rules! rules {
    ($( $constant:ident = $id:literal $code:literal ($subject:literal, $detail:literal) $name:literal
        $means:literal $sender:literal $postmaster:literal; )*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $means)]
            pub const $constant: Rule = Rule {
                id: $id,
                name: $name,
                code: $code,
                status: ($subject, $detail),
                means: $means,
                sender: $sender,
                postmaster: $postmaster,
            };
        )*

        /// Every rule, in the order of the ids.
        pub const ALL: &[Rule] = &[$( $constant ),*];
    };
}

rules! {
    // P01: the session, and what the server has to give.
    HOUSE_FULL = "P0101" 421 (3, 2) "house full"
        "All sessions that the server may have are taken."
        "Nothing: the sending system tries again by itself."
        "Raise smtpd.max_sessions if this is not an attack.";
    CLIENT_FULL = "P0102" 421 (7, 0) "too many sessions of a client"
        "This client has as many sessions at once as one client may have."
        "Use fewer connections at once; the sending system tries again by itself."
        "Raise smtpd.max_sessions_per_client.";
    SHED = "P0103" 421 (3, 2) "idle session ended"
        "The house is full, and this session was silent for longer than all others."
        "Nothing: the sending system tries again by itself."
        "Raise smtpd.max_sessions if this is not an attack.";
    NOT_READY = "P0104" 421 (3, 0) "server not ready"
        "Something that every session needs is not there yet."
        "Nothing: the sending system tries again by itself."
        "See the log; most often posta-auth is not running.";
    IDLE = "P0105" 421 (4, 2) "no command in time"
        "No whole command, or no more of a message, came in time."
        "Look for a slow or broken network, or a sending system that keeps idle connections."
        "See smtpd.command_timeout, smtpd.data_timeout and smtpd.message_timeout.";
    CLOSING = "P0106" 421 (3, 2) "server closing"
        "The server is being stopped or started again."
        "Nothing: the sending system tries again by itself."
        "Nothing.";
    ERRORS = "P0107" 421 (7, 0) "too many errors"
        "The session had more wrong or idle commands, refused senders and refused recipients than allowed."
        "See the refusals before this one: they name what was wrong."
        "See smtpd.max_errors.";
    FAULT = "P0108" 421 (3, 0) "internal fault"
        "The server found itself in a state that should not be, and promises nothing."
        "Nothing: the sending system tries again by itself."
        "Report it with the log lines around it.";
    FOREIGN = "P0109" 421 (7, 0) "not SMTP"
        "The client speaks another protocol, such as HTTP."
        "Connect with a mail program."
        "Nothing: somebody tries to make another program send mail.";
    TALKED_FIRST = "P0110" 554 (5, 0) "talked first"
        "The client sent something before it had the reply that it must wait for (RFC 5321 3.1, RFC 2920 3.1)."
        "Repair the sending program: mail servers wait for the greeting."
        "Empty smtpd.greet_pause, or name the client in the clients table with accept.";
    PROXY = "P0111" 421 (3, 0) "no address from the proxy"
        "The connection did not begin with a sound PROXY header."
        "Nothing: the proxy in front of the server is at fault."
        "Let the proxy send the header, or take the mark from the listener.";

    // P02: the client.
    CLIENT_REFUSED = "P0201" 554 (7, 1) "client refused"
        "The clients table refuses this client."
        "Write to the postmaster over another way; the text may say why."
        "See the row of the table that the log names.";
    CLIENT_LATER = "P0202" 421 (7, 1) "client put off"
        "The clients table puts this client off."
        "Nothing: the sending system tries again by itself."
        "See the row of the table that the log names.";
    HELO_REFUSED = "P0203" 550 (7, 1) "name refused"
        "The helo table refuses the name that the client gave in EHLO or HELO."
        "Let the sending system name itself by its own host name."
        "See the row of the table that the log names.";
    HELO_LATER = "P0204" 450 (7, 1) "name put off"
        "The helo table puts clients with this name off."
        "Nothing: the sending system tries again by itself."
        "See the row of the table that the log names.";
    HELO_OURS = "P0205" 550 (7, 1) "our own name"
        "The client gave this server's own name or address as its name in EHLO or HELO."
        "Let the sending system name itself by its own host name."
        "Put the client into smtpd.relay_from if it is yours, or set smtpd.refuse_own_name to false.";
    HELO_SYNTAX = "P0206" 550 (7, 1) "no host name"
        "The name in EHLO or HELO is neither a domain name with a dot nor an address in brackets."
        "Let the sending system name itself by its own full host name (RFC 5321 4.1.1.1)."
        "Set smtpd.refuse_bad_names to false.";
    NOT_TRUSTED = "P0207" 550 (7, 0) "not for this client"
        "XCLIENT and XFORWARD are for hosts that are trusted to speak for others."
        "Send mail without them."
        "See smtpd.xclient_from and smtpd.xforward_from.";
    CONNECTIONS = "P0210" 421 (7, 0) "too many connections"
        "This client connects too often."
        "Send more messages in each connection; the sending system tries again by itself."
        "See limits.connections_per_minute.";
    MESSAGES = "P0211" 450 (7, 1) "too many messages of a client"
        "This client sends too many messages in a minute."
        "Nothing: the sending system tries again by itself."
        "See limits.messages_per_minute.";
    RECIPIENTS = "P0212" 450 (7, 1) "too many recipients of a client"
        "This client names too many recipients in a minute."
        "Nothing: the sending system tries again by itself."
        "See limits.recipients_per_minute.";

    // P03: the sender.
    SENDER_REFUSED = "P0301" 550 (7, 1) "sender refused"
        "The senders table refuses this sender."
        "Write to the postmaster from another address; the text may say why."
        "See the row of the table that the log names.";
    SENDER_LATER = "P0302" 450 (7, 1) "sender put off"
        "The senders table puts this sender off."
        "Nothing: the sending system tries again by itself."
        "See the row of the table that the log names.";
    SENDER_NOT_YOURS = "P0303" 553 (7, 1) "sender of somebody else"
        "Who has logged in may not send under this address."
        "Set the sender in the mail program to an address of this account."
        "Let the address belong to the login, see smtpd.login_senders.";
    NULL_MX_SENDER = "P0304" 550 (7, 27) "sender without mail"
        "The sender's domain says in the DNS that it takes no mail (null MX, RFC 7505 4.2)."
        "Send from an address that can be answered."
        "Set smtpd.refuse_null_mx_senders to false.";
    MESSAGES_OF_SENDER = "P0310" 450 (7, 1) "too many messages of a sender"
        "There are too many messages of this sender in a minute."
        "Wait a minute."
        "See limits.messages_per_minute_per_sender.";
    RECIPIENTS_OF_SENDER = "P0311" 450 (7, 1) "too many recipients of a sender"
        "This sender writes to too many recipients in a minute."
        "Wait a minute; send to many recipients through a mailing list."
        "See limits.recipients_per_minute_per_sender.";
    MESSAGES_OF_LOGIN = "P0312" 450 (7, 1) "too many messages of a login"
        "Who has logged in sends too many messages in a minute."
        "Wait a minute. If these are not yours, somebody knows your password."
        "See limits.messages_per_minute_per_login; look for a stolen password.";
    RECIPIENTS_OF_LOGIN = "P0313" 450 (7, 1) "too many recipients of a login"
        "Who has logged in writes to too many recipients in a minute."
        "Wait a minute. If these are not yours, somebody knows your password."
        "See limits.recipients_per_minute_per_login; look for a stolen password.";

    // P04: the recipient.
    RECIPIENT_REFUSED = "P0401" 550 (7, 1) "recipient refused"
        "The recipients table refuses mail for this recipient."
        "Write to the postmaster; the text may say why."
        "See the row of the table that the log names.";
    RECIPIENT_LATER = "P0402" 450 (7, 1) "recipient put off"
        "The recipients table puts mail for this recipient off."
        "Nothing: the sending system tries again by itself."
        "See the row of the table that the log names.";
    NO_RECIPIENT = "P0403" 550 (1, 1) "no such recipient"
        "There is no such address here."
        "Look at the address again."
        "Ask posta why: postactl why ADDRESS.";
    RELAYING = "P0404" 554 (7, 1) "relay access denied"
        "The address is not one of this server's, and the client may not send to others through it."
        "Log in, or use the server of your own provider."
        "See smtpd.relay_from, and [domains] for what is this server's.";
    NO_ROUTE = "P0405" 554 (4, 0) "no way to the recipient"
        "Mail for this address can't be delivered from here."
        "Write to the postmaster."
        "Ask posta why: postactl why ADDRESS.";
    LOOK_UP = "P0406" 451 (3, 0) "recipient not known now"
        "It could not be found out whether the address exists."
        "Nothing: the sending system tries again by itself."
        "See the log; a table or a users file can't be read.";
    TOO_MANY_RECIPIENTS = "P0407" 452 (5, 3) "too many recipients of one message"
        "The message has more recipients than one message may have."
        "Nothing: the sending system sends to the others in a next message."
        "See smtpd.max_recipients.";
    UNKNOWN_RECIPIENTS = "P0408" 421 (7, 1) "too many unknown recipients"
        "The client has named too many addresses that do not exist."
        "Take addresses that were refused out of your lists."
        "See limits.unknown_recipients_per_hour.";
    NO_POSTMASTER = "P0409" 451 (3, 5) "no postmaster"
        "Nobody is set up who reads mail for postmaster."
        "Nothing: the sending system tries again by itself."
        "Set postmaster and hostname.";
    NO_RECIPIENTS = "P0410" 554 (5, 1) "nobody to send to"
        "All recipients of the message were refused."
        "See the refusals before this one: each says why."
        "Nothing.";
    UNSIGNED_BOUNCE = "P0411" 550 (7, 1) "bounce of nothing"
        "A bounce came to an address whose mail goes out with signed senders, and not to a signed one."
        "Nothing: somebody has forged the address. Answers of people and programs need a sender of their own."
        "Set routing.refuse_unsigned_bounces to false, if mail of this domain is sent from elsewhere too.";

    // P05: the message.
    TOO_BIG = "P0501" 552 (3, 4) "message too big"
        "The message is larger than the server takes, as it says in the answer to EHLO (RFC 1870)."
        "Send less at once, or a link."
        "See smtpd.max_message_size.";
    BARE_LINE_END = "P0502" 550 (6, 0) "bare line end"
        "The message has a CR or LF alone, which could hide a second message (RFC 5321 2.3.8)."
        "Repair the sending program: every line ends in CR LF."
        "Nothing.";
    LOOP = "P0503" 554 (4, 6) "mail loop"
        "The message has too many Received fields: it goes round in a loop."
        "Look for a forwarding that leads back."
        "See smtpd.max_hops; look for a domain that is routed back here.";
    NO_SPACE = "P0504" 452 (3, 1) "no space"
        "There is no space for the message now."
        "Nothing: the sending system tries again by itself."
        "Make room in the spool.";
    NOT_STORED = "P0505" 451 (3, 0) "not stored"
        "The message could not be stored safely."
        "Nothing: the sending system tries again by itself."
        "See the log for what the disk said.";
    NO_UTF8 = "P0506" 553 (6, 7) "octets above 127"
        "An address has octets above 127, and the message was not announced as SMTPUTF8 (RFC 6531 3.5)."
        "Use a mail program that knows SMTPUTF8, or an address in ASCII."
        "Nothing.";

    // P06: passwords and encryption.
    AUTH_WANTED = "P0601" 530 (7, 0) "login wanted"
        "Mail is taken on this port only from who has logged in (RFC 6409 4.3)."
        "Set user name and password in the mail program."
        "Nothing, or put the client into smtpd.relay_from.";
    AUTH_FAILED = "P0602" 535 (7, 8) "login failed"
        "User name and password do not belong together."
        "Look at user name and password again."
        "Nothing; see posta-auth(8) for where passwords come from.";
    AUTH_LATER = "P0603" 454 (7, 0) "login not possible now"
        "The password could not be checked now."
        "Try again later."
        "See the log of posta-auth.";
    LOCKED_OUT = "P0604" 454 (7, 0) "locked out"
        "There were too many wrong passwords of this client or for this user."
        "Wait, and look at the passwords of all your devices."
        "See auth.lock_out_after and auth.lock_out.";
    TLS_WANTED = "P0605" 530 (7, 0) "encryption wanted"
        "This is taken only over an encrypted connection."
        "Turn STARTTLS or TLS on in the mail program."
        "See tls in [[listen]].";
    AUTH_IN_CLEAR = "P0606" 538 (7, 11) "login without encryption"
        "A password would be sent for all on the way to read (RFC 4954 6)."
        "Turn STARTTLS or TLS on in the mail program. If it had sent the password, change it."
        "See tls and trusted in [[listen]].";
    REQUIRETLS = "P0607" 530 (7, 10) "REQUIRETLS without encryption"
        "What has come in the clear cannot be asked to be kept secret any more (RFC 8689 4.1)."
        "Turn STARTTLS or TLS on in the mail program."
        "See tls in [[listen]].";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_sentences_are_whole() {
        for pair in ALL.windows(2) {
            assert!(pair[0].id < pair[1].id, "{} before {}", pair[0].id, pair[1].id);
        }
        for rule in ALL {
            let digits = rule.id.strip_prefix('P').unwrap();
            assert!(digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit()), "{}", rule.id);
            assert!((400..600).contains(&rule.code), "{}", rule.id);
            assert!(!rule.name.is_empty() && !rule.name.ends_with('.'), "{}", rule.id);
            for sentence in [rule.means, rule.sender, rule.postmaster] {
                assert!(sentence.ends_with('.'), "{}: {sentence}", rule.id);
            }
        }
    }

    #[test]
    fn a_refusal_ends_with_its_rule() {
        let reply = RELAYING.reply("<x@y.example>: relaying denied");
        assert_eq!((reply.code, reply.status), (554, Some(RELAYING.enhanced())));
        assert_eq!(reply.lines, ["<x@y.example>: relaying denied [P0404]"]);
    }
}
