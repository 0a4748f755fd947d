//! One transaction: MAIL, RCPT for each recipient, DATA, content (RFC 5321 3.3).
//!
//! Commands stand in two lines: those not yet sent and those not yet answered. Where the server
//! offers PIPELINING all go out in one write and each answer belongs to the oldest command without
//! one (RFC 2920 3.1); else they go one by one.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::mail::envelope::{BodyKind, Recipient, Ret};
use crate::mail::status::Status;

use super::offer::Offer;
use super::reply::Reply;
use super::session::{Action, Language, Mail, Phase};
use super::verdict::{Finding, Verdict};

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Transaction {
    mail: Mail,
    language: Language,
    offer: Offer,
    unsent: VecDeque<Command>,
    unanswered: VecDeque<Command>,
    content: Content,
    /// Numbers of the recipients that the server has said yes to and that are not decided yet.
    accepted: Vec<usize>,
    verdicts: Vec<Option<Verdict>>,
}

/// What can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    Recipient(usize),
    Data,
    /// The final dot: for all accepted recipients, or (LMTP) for this one.
    End(Option<usize>),
    /// The final dot of a message for nobody.
    EndOfNothing,
}

/// How much of the content has left us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Unsent,
    Going,
    Sent,
}

/// What a transaction wants.
#[derive(Debug)]
pub(super) enum Step {
    Do(Action),
    Over {
        verdicts: Vec<Verdict>,
        /// The connection can be used again.
        open: bool,
        /// The server has nothing left of this transaction.
        clean: bool,
    },
}

impl Transaction {
    /// A transaction whose commands have yet to be sent; after `reset` they begin with RSET.
    pub(super) fn new(mail: Mail, language: Language, offer: &Offer, reset: bool) -> Transaction {
        let count = mail.recipients.len();
        let mut unsent = VecDeque::with_capacity(count + 3);
        unsent.extend(reset.then_some(Command::Reset));
        unsent.push_back(Command::Mail);
        unsent.extend((0..count).map(Command::Recipient));
        unsent.push_back(Command::Data);
        Transaction {
            mail,
            language,
            offer: offer.clone(),
            unsent,
            unanswered: VecDeque::new(),
            content: Content::Unsent,
            accepted: Vec::with_capacity(count),
            verdicts: vec![None; count],
        }
    }

    /// The next thing to do: wait for what is not answered, send what is not sent, or end.
    pub(super) fn advance(&mut self) -> Step {
        if let Some(command) = self.unanswered.front() {
            return Step::Do(Action::Await(command.phase()));
        }
        let nobody = self.unsent.front() == Some(&Command::Data) && self.accepted.is_empty();
        if self.unsent.is_empty() || nobody {
            let clean = self.content == Content::Sent;
            return self.over(true, clean);
        }
        let group = if self.offer.pipelining { self.unsent.len() } else { 1 };
        let mut wire = String::new();
        for command in self.unsent.drain(..group) {
            command.write(&self.mail, &self.offer, &mut wire);
            self.unanswered.push_back(command);
        }
        Step::Do(Action::Send(wire.into_bytes()))
    }

    /// What was to be sent has gone out.
    pub(super) fn sent(&mut self) -> Step {
        if self.content == Content::Going {
            self.content = Content::Sent;
        }
        self.advance()
    }

    /// The server has answered the oldest command.
    pub(super) fn reply(&mut self, reply: &Reply) -> Step {
        // RFC 5321 3.8: the server is going; it has not decided about anybody.
        if reply.code == 421 {
            return self.fail(Finding::said(reply));
        }
        let Some(command) = self.unanswered.pop_front() else {
            return self.fail(Finding::protocol(reply));
        };
        match (command, reply.class()) {
            (Command::Reset | Command::Mail, 2) | (Command::EndOfNothing, _) => self.advance(),
            (Command::Mail, 4 | 5) => self.sender_refused(reply),
            (Command::Recipient(n), 2) => {
                if self.verdicts[n].is_none() {
                    self.accepted.push(n);
                }
                self.advance()
            }
            (Command::Recipient(n), 4 | 5) => {
                let verdict = self.refusal(reply);
                self.verdicts[n].get_or_insert(verdict);
                self.advance()
            }
            (Command::Data, 3) => self.go_ahead(),
            (Command::Data, 4 | 5) => {
                self.decide_accepted(reply);
                self.advance()
            }
            (Command::End(who), 2 | 4 | 5) => self.answered_end(who, reply),
            _ => self.fail(Finding::protocol(reply)),
        }
    }

    /// The connection is of no more use. Once the whole content has gone out the server may have
    /// kept it: then nobody else is asked now (RFC 1047).
    pub(super) fn fail(&mut self, finding: Finding) -> Step {
        let finding = finding.for_now();
        let verdict =
            if self.content == Content::Sent { Verdict::Final(finding) } else { Verdict::Open(finding) };
        self.decide_rest(&verdict);
        self.over(false, false)
    }

    /// MAIL: a 5xx is about the sender or the message and holds everywhere; a 4xx is about this host
    /// (no space, too busy), so another one may be asked.
    fn sender_refused(&mut self, reply: &Reply) -> Step {
        let finding = Finding::said(reply);
        let verdict = if reply.class() == 5 { Verdict::Final(finding) } else { Verdict::Open(finding) };
        self.decide_rest(&verdict);
        self.unsent.clear();
        self.advance()
    }

    /// RCPT: what a 4xx or 5xx means. RFC 5321 4.5.3.1.10: 452 (and 552, which older servers say)
    /// after accepted recipients means that there are enough of them, unless the enhanced code
    /// speaks of something else, such as a full mailbox.
    fn refusal(&self, reply: &Reply) -> Verdict {
        let about_count = reply.enhanced().is_none_or(|s| s.subject == 5 && s.detail == 3);
        if matches!(reply.code, 452 | 552) && about_count && !self.accepted.is_empty() {
            return Verdict::Surplus;
        }
        Verdict::Final(Finding::said(reply))
    }

    /// 354.
    fn go_ahead(&mut self) -> Step {
        if !self.accepted.is_empty() {
            self.content = Content::Going;
            match self.language {
                Language::Smtp => self.unanswered.push_back(Command::End(None)),
                // RFC 2033 4.2: one reply for each accepted recipient, in their order.
                Language::Lmtp => {
                    self.unanswered.extend(self.accepted.iter().map(|n| Command::End(Some(*n))));
                }
            }
            return Step::Do(Action::SendContent);
        }
        // RFC 2920 3.1: DATA went along with recipients that were all refused. An empty message
        // gets the server out of it, whatever it answers. By LMTP nothing would be answered.
        if self.language == Language::Lmtp {
            return self.over(false, false);
        }
        self.unanswered.push_back(Command::EndOfNothing);
        Step::Do(Action::Send(b".\r\n".to_vec()))
    }

    /// The final dot.
    fn answered_end(&mut self, who: Option<usize>, reply: &Reply) -> Step {
        let early = self.content != Content::Sent;
        if early && reply.class() == 2 {
            return self.fail(Finding::protocol(reply)); // it can't have all of it
        }
        match who {
            None => self.decide_accepted(reply),
            Some(n) => self.verdicts[n] = Some(Verdict::Final(Finding::said(reply))),
        }
        // A server that answered before the end has stopped listening.
        if early { self.fail(Finding::said(reply)) } else { self.advance() }
    }

    fn decide_accepted(&mut self, reply: &Reply) {
        for n in self.accepted.drain(..) {
            self.verdicts[n] = Some(Verdict::Final(Finding::said(reply)));
        }
    }

    fn decide_rest(&mut self, verdict: &Verdict) {
        for open in self.verdicts.iter_mut().filter(|v| v.is_none()) {
            *open = Some(verdict.clone());
        }
    }

    fn over(&mut self, open: bool, clean: bool) -> Step {
        // Every command was answered, so nobody should be left without a verdict.
        let undecided = || Verdict::Open(Finding::ours(Status::new(4, 5, 0), "the host decided nothing"));
        let verdicts = std::mem::take(&mut self.verdicts).into_iter();
        Step::Over { verdicts: verdicts.map(|v| v.unwrap_or_else(undecided)).collect(), open, clean }
    }
}

impl Command {
    fn phase(self) -> Phase {
        match self {
            Command::Reset => Phase::Reset,
            Command::Mail => Phase::Mail,
            Command::Recipient(_) => Phase::Recipient,
            Command::Data => Phase::Data,
            Command::End(_) | Command::EndOfNothing => Phase::End,
        }
    }

    /// Appends the command's wire form. Writing to a string can't fail.
    fn write(self, mail: &Mail, offer: &Offer, wire: &mut String) {
        match self {
            Command::Reset => wire.push_str("RSET"),
            Command::Mail => write_mail(mail, offer, wire),
            Command::Recipient(n) => write_recipient(&mail.recipients[n], offer, wire),
            Command::Data => wire.push_str("DATA"),
            Command::End(_) | Command::EndOfNothing => wire.push('.'),
        }
        wire.push_str("\r\n");
    }
}

fn write_mail(mail: &Mail, offer: &Offer, wire: &mut String) {
    let _ = write!(wire, "MAIL FROM:<{}>", mail.sender);
    if offer.size.is_some() {
        let _ = write!(wire, " SIZE={}", mail.size);
    }
    if mail.body == BodyKind::EightBitMime && offer.eight_bit_mime {
        wire.push_str(" BODY=8BITMIME");
    }
    if mail.utf8 && offer.utf8 {
        wire.push_str(" SMTPUTF8");
    }
    if mail.require_tls && offer.require_tls {
        wire.push_str(" REQUIRETLS");
    }
    if offer.dsn {
        // RFC 3461 5.2.1: passed on as they came.
        match mail.ret {
            Some(Ret::Full) => wire.push_str(" RET=FULL"),
            Some(Ret::Headers) => wire.push_str(" RET=HDRS"),
            None => {}
        }
        write_value("ENVID", mail.envid.as_deref(), wire);
    }
}

fn write_recipient(recipient: &Recipient, offer: &Offer, wire: &mut String) {
    let _ = write!(wire, "RCPT TO:<{}>", recipient.address);
    if offer.dsn {
        write_value("NOTIFY", recipient.notify.keyword().as_deref(), wire);
        write_value("ORCPT", recipient.original.as_deref(), wire);
    }
}

/// A parameter with a value (RFC 5321 4.1.2: esmtp-value); what could not be one is left out.
fn write_value(keyword: &str, value: Option<&str>, wire: &mut String) {
    let fits = |value: &&str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    if let Some(value) = value.filter(fits) {
        let _ = write!(wire, " {keyword}={value}");
    }
}
