//! One transaction: MAIL, RCPT for each recipient, DATA, content (RFC 5321 3.3).
//!
//! Commands stand in two lines: those not yet sent and those not yet answered. Where the server
//! offers PIPELINING all go out in one write and each answer belongs to the oldest command without
//! one (RFC 2920 3.1); else they go one by one.
//!
//! Where it offers CHUNKING the content goes in chunks, without DATA (RFC 3030 2): with PIPELINING a
//! small message goes out whole in that one write, and of a large one some chunks are under way before
//! the first is answered. After a chunk that is refused no other one is sent.

use std::collections::VecDeque;

use crate::mail::status::Status;

use super::command::Command;
use super::offer::Offer;
use super::reply::Reply;
use super::session::{Action, Language, Mail};
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
    /// The server has refused a chunk.
    chunk_refused: bool,
    /// The server has stopped listening in the middle of the content: only its last words are read.
    halted: Option<Finding>,
    /// Numbers of the recipients that the server has said yes to and that are not decided yet.
    accepted: Vec<usize>,
    verdicts: Vec<Option<Verdict>>,
}

/// A message of so many octets goes out together with its envelope, if it may.
const SMALL: u64 = 32 * 1024;
/// So many chunks may be without an answer. Their answers fit into any buffer on their way.
const UNANSWERED_CHUNKS: usize = 32;

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
        unsent.extend((!offer.chunking).then_some(Command::Data));
        Transaction {
            mail,
            language,
            offer: offer.clone(),
            unsent,
            unanswered: VecDeque::new(),
            content: Content::Unsent,
            chunk_refused: false,
            halted: None,
            accepted: Vec::with_capacity(count),
            verdicts: vec![None; count],
        }
    }

    /// The next thing to do: send what may go before answers have come, wait for what is not answered,
    /// send what is not sent, or end.
    pub(super) fn advance(&mut self) -> Step {
        if self.may_send_chunk() {
            self.content = Content::Going;
            return Step::Do(Action::SendChunk(Vec::new()));
        }
        if let Some(command) = self.unanswered.front() {
            return Step::Do(Action::Await(command.phase()));
        }
        if let Some(finding) = self.halted.take() {
            return self.fail(finding);
        }
        let nobody = self.unsent.front() == Some(&Command::Data) && self.accepted.is_empty();
        if self.unsent.is_empty() || nobody {
            // After a chunk that was refused nobody knows what the server has left (RFC 3030 2).
            let clean = self.content == Content::Sent && !self.chunk_refused;
            return self.over(true, clean);
        }
        Step::Do(self.send_commands())
    }

    /// All that may go in one write, or the next one.
    fn send_commands(&mut self) -> Action {
        let group = if self.offer.pipelining { self.unsent.len() } else { 1 };
        let mut wire = String::new();
        for command in self.unsent.drain(..group) {
            command.write(&self.mail, &self.offer, &mut wire);
            self.unanswered.push_back(command);
        }
        if self.offer.chunking && self.offer.pipelining && self.mail.size <= SMALL {
            // RFC 3030 4.2.
            self.content = Content::Going;
            return Action::SendChunk(wire.into_bytes());
        }
        Action::Send(wire.into_bytes())
    }

    /// Whether the server can be sent a chunk of the content now: it has said yes to somebody, and has
    /// answered all but a few chunks.
    fn may_send_chunk(&self) -> bool {
        let most = if self.offer.pipelining { UNANSWERED_CHUNKS } else { 1 };
        self.offer.chunking
            && self.unsent.is_empty()
            && self.content != Content::Sent
            && !self.chunk_refused
            && self.halted.is_none()
            && !self.accepted.is_empty()
            && self.unanswered.front().is_none_or(|oldest| *oldest == Command::Chunk)
            && self.unanswered.len() < most
    }

    /// What was to be sent has gone out.
    pub(super) fn sent(&mut self) -> Step {
        if self.content == Content::Going && !self.offer.chunking {
            self.content = Content::Sent;
        }
        self.advance()
    }

    /// A chunk has gone out.
    pub(super) fn chunk_sent(&mut self, is_last: bool) -> Step {
        if is_last {
            self.content = Content::Sent;
        }
        self.unanswered.push_back(if is_last { Command::End(None) } else { Command::Chunk });
        self.advance()
    }

    /// Of a piece of the content not all has gone out.
    pub(super) fn halt(&mut self, finding: Finding) -> Step {
        if self.offer.chunking {
            self.unanswered.push_back(Command::Chunk);
        }
        self.halted = Some(finding);
        self.advance()
    }

    /// The server has answered the oldest command.
    pub(super) fn reply(&mut self, reply: &Reply) -> Step {
        // RFC 5321 3.8: the server is going; it has not decided about anybody.
        if reply.code == 421 {
            // What comes before the end has its answer before it.
            let is_end = matches!(self.unanswered.front(), Some(Command::End(_)));
            return self.lose(Finding::said(reply), is_end);
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
            (Command::Chunk, 2) => self.advance(),
            (Command::Chunk, 4 | 5) => {
                self.chunk_refused = true;
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
        self.lose(finding, true)
    }

    /// The same, where it is known whether the server has come to the end of the content, if that was
    /// sent.
    fn lose(&mut self, finding: Finding, may_have_come_to_the_end: bool) -> Step {
        // Why it halted says more than that nothing came after that.
        let finding = self.halted.take().unwrap_or(finding).for_now();
        let may_have_kept = self.content == Content::Sent && may_have_come_to_the_end;
        let verdict = if may_have_kept { Verdict::Final(finding) } else { Verdict::Open(finding) };
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

    /// The final dot, or the last chunk.
    fn answered_end(&mut self, who: Option<usize>, reply: &Reply) -> Step {
        let early = self.content != Content::Sent;
        if early && reply.class() == 2 {
            return self.fail(Finding::protocol(reply)); // it can't have all of it
        }
        match who {
            None => {
                self.chunk_refused |= self.offer.chunking && reply.class() != 2;
                self.decide_accepted(reply);
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::envelope::{BodyKind, Recipient};
    use crate::mail::status::Fate;

    use super::super::reply::ReplyReader;
    use super::super::session::Phase;
    use super::*;

    const GROUP: &str = "MAIL FROM:<> SIZE=10\r\nRCPT TO:<r0@x.example>\r\n";

    fn offer(lines: &str) -> Offer {
        Offer::read(&reply(&format!("250-mx\r\n250-SIZE\r\n{lines}250 CHUNKING\r\n")))
    }

    fn pipelining() -> Offer {
        offer("250-PIPELINING\r\n")
    }

    fn reply(text: &str) -> Reply {
        ReplyReader::default().take(text.as_bytes()).unwrap().1.unwrap()
    }

    fn mail(recipients: usize, size: u64) -> Mail {
        let recipient = |n| Recipient::plain(Mailbox::parse(&format!("r{n}@x.example"), false).unwrap());
        Mail {
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body: BodyKind::SevenBit,
            utf8: false,
            require_tls: false,
            size,
            recipients: (0..recipients).map(recipient).collect(),
        }
    }

    /// Plays a transaction of so many chunks, each wait answered by the next reply; `BROKEN` breaks the
    /// connection, and the chunk of the number `halt` does not go out whole. Tells what was sent, and what
    /// it came to: verdicts, and whether the session goes on and needs no RSET.
    fn play(
        mail: Mail,
        offer: &Offer,
        chunks: usize,
        halt: Option<usize>,
        replies: &[&str],
    ) -> (String, String) {
        let mut replies = replies.iter();
        let (mut sent, mut chunk) = (String::new(), 0);
        let mut transaction = Transaction::new(mail, Language::Smtp, offer, false);
        let lost = || Finding::ours(Status::new(4, 4, 2), "lost");
        let mut step = transaction.advance();
        loop {
            let action = match step {
                Step::Do(action) => action,
                Step::Over { verdicts, open, clean } => {
                    assert_eq!(replies.next(), None, "every reply is read");
                    let verdicts: Vec<String> = verdicts.iter().map(short).collect();
                    return (sent, format!("{} open={open} clean={clean}", verdicts.join(", ")));
                }
            };
            step = match action {
                Action::Send(bytes) => {
                    sent += std::str::from_utf8(&bytes).unwrap();
                    sent.push('|');
                    transaction.sent()
                }
                Action::SendChunk(bytes) => {
                    chunk += 1;
                    assert!(chunk <= chunks, "no more than there are");
                    sent += std::str::from_utf8(&bytes).unwrap();
                    sent += &format!("{chunk}|");
                    match halt {
                        Some(n) if n == chunk => {
                            transaction.halt(Finding::ours(Status::new(4, 4, 2), "halted"))
                        }
                        _ => transaction.chunk_sent(chunk == chunks),
                    }
                }
                Action::Await(_) => match *replies.next().expect("a reply for every wait") {
                    "BROKEN" => transaction.fail(lost()),
                    text => transaction.reply(&reply(&format!("{text}\r\n"))),
                },
                other => panic!("{other:?}"),
            };
        }
    }

    fn short(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Final(f) => format!("F{} {}", f.status.class, f.text),
            Verdict::Open(f) => format!("O{} {}", f.status.class, f.text),
            Verdict::Surplus => "S".to_string(),
        }
    }

    #[test]
    fn a_small_message_goes_out_whole_in_one_write() {
        let (sent, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "250 b", "250 kept"]);
        assert_eq!(sent, format!("{GROUP}1|"));
        assert_eq!(over, "F2 250 kept open=true clean=true");
        // Who has a place of its own keeps it.
        let replies = ["250 a", "250 b", "550 no", "452 enough", "250 kept"];
        let (_, over) = play(mail(3, 10), &pipelining(), 1, None, &replies);
        assert_eq!(over, "F2 250 kept, F5 550 no, S open=true clean=true");
    }

    #[test]
    fn content_that_went_out_for_nobody_is_refused_and_that_is_no_news() {
        for refusal in ["503 5.5.1 no recipients", "554 no valid recipients", "451 what?"] {
            let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "550 no", refusal]);
            assert_eq!(over, "F5 550 no open=true clean=false", "{refusal}");
            let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["550 you", "503 no", refusal]);
            assert_eq!(over, "F5 550 you open=true clean=false", "{refusal}");
        }
    }

    #[test]
    fn a_large_message_waits_for_a_recipient_and_then_for_no_answer() {
        let large = SMALL + 1;
        let group = GROUP.replace("=10", &format!("={large}"));
        let yes = ["250 a", "250 b", "250 one", "250 two", "250 kept"];
        let (sent, over) = play(mail(1, large), &pipelining(), 3, None, &yes);
        assert_eq!(sent, format!("{group}|1|2|3|"));
        assert_eq!(over, "F2 250 kept open=true clean=true");
        let (sent, over) = play(mail(1, large), &pipelining(), 3, None, &["250 a", "550 no"]);
        assert_eq!((sent, over.as_str()), (format!("{group}|"), "F5 550 no open=true clean=false"));
        // Some answers are waited for before all is sent.
        let most = UNANSWERED_CHUNKS;
        let replies = [vec!["250 a", "250 b"], vec!["250 go on"; most + 4], vec!["250 kept"]].concat();
        let (sent, over) = play(mail(1, large), &pipelining(), most + 5, None, &replies);
        assert!(sent.ends_with(&format!("{}|", most + 5)) && over.starts_with("F2 250 kept"));
    }

    #[test]
    fn without_pipelining_each_chunk_waits_for_its_answer() {
        let replies = ["250 a", "250 b", "250 one", "552 5.3.4 too big"];
        let (sent, over) = play(mail(1, 10), &offer(""), 3, None, &replies);
        assert_eq!(sent, "MAIL FROM:<> SIZE=10\r\n|RCPT TO:<r0@x.example>\r\n|1|2|");
        assert_eq!(over, "F5 552 5.3.4 too big open=true clean=false");
    }

    #[test]
    fn a_refused_chunk_is_for_all_and_the_last() {
        let large = mail(2, SMALL + 1);
        let replies = ["250 a", "250 b", "550 no", "552 5.2.3 no more", "503 bad", "503 bad"];
        let (_, over) = play(large.clone(), &pipelining(), 3, None, &replies);
        assert_eq!(over, "F5 552 5.2.3 no more, F5 550 no open=true clean=false");
        let replies = ["250 a", "250 b", "250 c", "250 one", "250 two", "451 4.3.1 disk full"];
        let (_, over) = play(large.clone(), &pipelining(), 3, None, &replies);
        assert_eq!(over, "F4 451 4.3.1 disk full, F4 451 4.3.1 disk full open=true clean=false");
        let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "250 b", "354 go ahead"]);
        assert!(over.starts_with("F4 unexpected reply") && over.contains("open=false"), "{over}");
    }

    #[test]
    fn who_goes_before_all_is_sent_has_not_kept_it() {
        let large = mail(1, SMALL + 1);
        let (_, over) = play(large.clone(), &pipelining(), 3, Some(2), &["250 a", "250 b", "BROKEN"]);
        assert_eq!(over, "O4 halted open=false clean=false");
        let (_, over) =
            play(large.clone(), &pipelining(), 3, Some(2), &["250 a", "250 b", "552 big", "BROKEN"]);
        assert_eq!(over, "F5 552 big open=false clean=false", "its last words count");
        let (_, over) =
            play(large.clone(), &pipelining(), 3, Some(2), &["250 a", "250 b", "250 one", "250 two?"]);
        assert_eq!(over, "O4 halted open=false clean=false", "it can't have the second");
        let (_, over) = play(mail(1, 10), &pipelining(), 1, Some(1), &["250 a", "250 b", "BROKEN"]);
        assert_eq!(over, "O4 halted open=false clean=false");
        // All has gone out: it may have kept it (RFC 1047), unless it says that it is going before that.
        let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "BROKEN"]);
        assert_eq!(over, "F4 lost open=false clean=false");
        let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "421 going"]);
        assert_eq!(over, "O4 421 going open=false clean=false");
        let (_, over) = play(mail(1, 10), &pipelining(), 1, None, &["250 a", "250 b", "421 going"]);
        assert_eq!(over, "F4 421 going open=false clean=false");
    }

    #[test]
    fn binary_content_is_called_by_its_name() {
        let binary = Mail { body: BodyKind::BinaryMime, ..mail(1, 10) };
        let offer = offer("250-PIPELINING\r\n250-BINARYMIME\r\n");
        let (sent, _) = play(binary, &offer, 1, None, &["250 a", "250 b", "250 kept"]);
        assert!(sent.starts_with("MAIL FROM:<> SIZE=10 BODY=BINARYMIME\r\n"), "{sent}");
    }

    const REPLIES: [&str; 8] =
        ["250 y", "250 y", "250 y", "354 g", "450 l", "550 5.1.1 n", "421 c", "BROKEN"];

    proptest! {
        /// Whatever is answered, nobody has a yes whose RCPT and whose last chunk were not answered yes,
        /// and after a refused chunk none is sent.
        #[test]
        fn every_recipient_has_the_verdict_that_was_said(
            count in 1usize..4,
            chunks in 1usize..50,
            is_small in any::<bool>(),
            is_pipelining in any::<bool>(),
            halt in prop::option::of(1usize..50),
            choices in prop::collection::vec(0usize..REPLIES.len(), 1..20),
        ) {
            let offer = offer(if is_pipelining { "250-PIPELINING\r\n" } else { "" });
            let mail = mail(count, if is_small { 10 } else { SMALL + 1 });
            let mut transaction = Transaction::new(mail, Language::Smtp, &offer, false);
            let lost = || Finding::ours(Status::new(4, 4, 2), "lost");
            let mut choices = choices.into_iter().cycle();
            let (mut accepted, mut sent, mut refused, mut kept) = (0, 0, false, false);
            let mut step = transaction.advance();
            let verdicts = loop {
                let action = match step {
                    Step::Do(action) => action,
                    Step::Over { verdicts, .. } => break verdicts,
                };
                step = match action {
                    Action::Send(_) => transaction.sent(),
                    Action::SendChunk(_) => {
                        prop_assert!(sent < chunks && !refused);
                        sent += 1;
                        if halt == Some(sent) { transaction.halt(lost()) } else { transaction.chunk_sent(sent == chunks) }
                    }
                    Action::Await(phase) => match REPLIES[choices.next().unwrap()] {
                        "BROKEN" => transaction.fail(lost()),
                        text => {
                            let yes = text == "250 y";
                            accepted += usize::from(phase == Phase::Recipient && yes);
                            refused |= phase == Phase::Chunk && !yes;
                            kept |= phase == Phase::End && yes;
                            transaction.reply(&reply(&format!("{text}\r\n")))
                        }
                    },
                    other => { prop_assert!(false, "{:?}", other); unreachable!() }
                };
            };
            prop_assert_eq!(verdicts.len(), count);
            let yes = |v: &&Verdict| matches!(v, Verdict::Final(f) if f.status.fate() == Fate::Done);
            let done = verdicts.iter().filter(yes).count();
            prop_assert!(done <= accepted && (done == 0 || (kept && sent == chunks && !refused)));
        }
    }
}
