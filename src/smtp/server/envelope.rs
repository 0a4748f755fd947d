//! MAIL and RCPT: from whom a message is and for whom.

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::Recipient;

use crate::smtp::extension::{self, MailParams, ParamError, RcptParams};
use crate::smtp::reply::Reply;
use crate::smtp::rule;

use super::client::Greeted;
use super::{Action, DataFault, Open, Proof, Question, Server, Transaction, Verdict};

impl<P: Proof> Server<P> {
    /// MAIL.
    pub(super) fn mail(&mut self, sender: ReversePath, params: &str) -> Action {
        let Some(greeted) = &self.greeted else {
            let hello = if self.service.lmtp { "say LHLO first" } else { "say EHLO or HELO first" };
            return self.out_of_order(hello);
        };
        if self.transaction.is_some() {
            return self.out_of_order("a sender is given already; RSET drops it");
        }
        let params = match allow(greeted, params).and_then(extension::mail_params) {
            Ok(params) => params,
            Err(error) => return self.wrong(error.reply()),
        };
        if !params.utf8 && sender.mailbox().is_some_and(Mailbox::needs_utf8) {
            return self.wrong(no_utf8("sender"));
        }
        // RFC 8689 4.1: what has come in the clear can't be asked to be kept secret any more.
        if params.require_tls && !self.secure {
            return self.wrong(rule::REQUIRETLS.reply("REQUIRETLS needs a session under TLS"));
        }
        // RFC 1870 6.1: told before its data is sent. This is no client's error.
        if params.size.is_some_and(|size| size > self.settings.max_message_size) {
            return Action::Say(DataFault::TooBig.into_reply());
        }
        self.open = Some(Open::Sender(sender.clone(), params));
        Action::Judge(Question::Sender(sender))
    }

    /// What was judged of the sender.
    pub(super) fn sender_judged(
        &mut self,
        verdict: Verdict,
        sender: ReversePath,
        params: MailParams,
    ) -> Action {
        match verdict {
            Verdict::Accept(_) => {
                self.transaction = Some(Transaction::begin(sender, params));
                self.chunk_refused = false;
                Action::Say(Reply::coded(250, 1, 0, "Ok"))
            }
            Verdict::Refuse(reply) => self.refused(reply),
            Verdict::HangUp(reply) => Action::HangUp(reply),
        }
    }

    /// RCPT.
    pub(super) fn rcpt(&mut self, recipient: Option<Mailbox>, params: &str) -> Action {
        let (Some(greeted), Some(transaction)) = (&self.greeted, &self.transaction) else {
            return self.out_of_order("MAIL first");
        };
        if transaction.chunked.is_some() {
            return self.out_of_order("the message has begun; RSET drops it");
        }
        if !transaction.utf8 && recipient.as_ref().is_some_and(Mailbox::needs_utf8) {
            return self.wrong(no_utf8("recipient"));
        }
        let params = match allow(greeted, params).and_then(extension::rcpt_params) {
            Ok(params) => params,
            Err(error) => return self.wrong(error.reply()),
        };
        // RFC 5321 4.5.3.1.10: those taken stay, the others go into a next transaction.
        if transaction.accepted >= self.settings.max_recipients {
            let text = "too many recipients; send to the rest in a next message";
            return Action::Say(rule::TOO_MANY_RECIPIENTS.reply(text));
        }
        self.open = Some(Open::Recipient(recipient.clone(), params));
        Action::Judge(Question::Recipient(recipient))
    }

    /// What was judged of a recipient.
    pub(super) fn recipient_judged(
        &mut self,
        verdict: Verdict,
        asked: Option<Mailbox>,
        params: RcptParams,
    ) -> Action {
        let Some(transaction) = &mut self.transaction else {
            return self.out_of_order("MAIL first");
        };
        match verdict {
            Verdict::Accept(mailbox) => {
                // RFC 5321 4.5.1: <postmaster> is always somebody, also where nobody said who.
                let postmaster = || Mailbox::from_parts("postmaster", &self.settings.hostname).ok();
                let Some(address) = mailbox.or(asked).or_else(postmaster) else {
                    let text = "no postmaster is set up here; try again later";
                    return Action::Say(rule::NO_POSTMASTER.reply(text));
                };
                transaction.add(Recipient { address, notify: params.notify, original: params.original });
                Action::Say(Reply::coded(250, 1, 5, "Ok"))
            }
            Verdict::Refuse(reply) => {
                transaction.refused += 1;
                self.refused(reply)
            }
            Verdict::HangUp(reply) => Action::HangUp(reply),
        }
    }
}

/// RFC 5321 4.1.1.11: parameters are for who said EHLO.
fn allow<'a>(greeted: &Greeted, params: &'a str) -> Result<&'a str, ParamError> {
    if greeted.extended || params.trim().is_empty() { Ok(params) } else { Err(ParamError::NeedEhlo) }
}

/// RFC 6531 3.5: an address that needs SMTPUTF8, without it.
pub(super) fn no_utf8(whose: &str) -> Reply {
    rule::NO_UTF8.reply(format!("{whose}: octets above 127 need the parameter SMTPUTF8"))
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::super::trial::{say, session};
    use super::*;

    #[test]
    fn a_judges_word_ends_the_session() {
        let mut server = session(9);
        say(&mut server, "EHLO client");
        let _ = server.on(Event::Line(b"MAIL FROM:<a@b>"));
        let bye = Reply::coded(421, 7, 0, "no more");
        assert_eq!(server.on(Event::Judged(Verdict::HangUp(bye.clone()))), Action::HangUp(bye));
    }

    #[test]
    fn the_postmaster_is_who_the_judge_says_or_ours() {
        let mut server = session(9);
        for line in ["EHLO client", "MAIL FROM:<>", "RCPT TO:<postmaster>"] {
            assert_eq!(say(&mut server, line), 250);
        }
        let _ = server.on(Event::Line(b"RCPT TO:<Postmaster>"));
        let root = Mailbox::parse("root@example.org", false).unwrap();
        let _ = server.on(Event::Judged(Verdict::Accept(Some(root))));
        let taken: Vec<String> =
            server.transaction().unwrap().recipients.iter().map(|r| r.address.to_string()).collect();
        assert_eq!(taken, ["postmaster@mx.example.org", "root@example.org"]);
    }

    #[test]
    fn octets_above_127_need_their_parameter() {
        let mut server = session(9);
        say(&mut server, "EHLO client");
        assert_eq!(say(&mut server, "MAIL FROM:<jürgen@x>"), 553);
        assert_eq!(say(&mut server, "MAIL FROM:<a@x>"), 250);
        assert_eq!(say(&mut server, "RCPT TO:<jürgen@x>"), 553);
        say(&mut server, "RSET");
        assert_eq!(say(&mut server, "MAIL FROM:<jürgen@x> SMTPUTF8"), 250);
        assert_eq!(say(&mut server, "RCPT TO:<žofie@bücher.example>"), 250);
        assert!(server.transaction().unwrap().utf8);
        assert_eq!(say(&mut server, "VRFY jürgen"), 553);
        assert_eq!(say(&mut server, "VRFY jürgen SMTPUTF8"), 252);
    }

    #[test]
    fn requiretls_needs_tls() {
        let mut server = session(9);
        say(&mut server, "EHLO client");
        assert_eq!(say(&mut server, "MAIL FROM:<a@x> REQUIRETLS"), 530);
        say(&mut server, "STARTTLS");
        let _ = server.on(Event::Secured);
        say(&mut server, "EHLO client");
        assert_eq!(say(&mut server, "MAIL FROM:<a@x> REQUIRETLS"), 250);
        assert!(server.transaction().unwrap().require_tls);
    }
}
