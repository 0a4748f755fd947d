//! DATA and BDAT: the message itself.

use crate::mail::envelope::BodyKind;

use crate::smtp::reply::Reply;
use crate::smtp::rule;

use super::{Action, DataFault, Open, Proof, Server};

impl<P: Proof> Server<P> {
    /// DATA.
    pub(super) fn data(&mut self) -> Action {
        let Some(transaction) = &self.transaction else {
            return self.out_of_order("MAIL and RCPT first");
        };
        // RFC 3030 2 and 3: one message comes in one way, and a binary one has no lines to find a
        // dot in.
        if transaction.chunked.is_some() {
            return self.out_of_order("the message has begun with BDAT; go on with it, or RSET");
        }
        if transaction.body == BodyKind::BinaryMime {
            return self.out_of_order("BODY=BINARYMIME is sent with BDAT");
        }
        if let Some(reply) = self.no_recipient() {
            return reply;
        }
        self.open = Some(Open::Data);
        self.client_must_wait = true;
        Action::TakeData { go_ahead: Reply::new(354, None, "go ahead; end with CRLF.CRLF") }
    }

    /// BDAT. Its octets come whatever the answer is, and must not be read as commands.
    pub(super) fn bdat(&mut self, size: u64, last: bool) -> Action {
        let refusal = match &self.transaction {
            // RFC 3030 2: the client may have sent the next chunks before it knew.
            None if self.chunk_refused => {
                Some(Action::Say(Reply::coded(503, 5, 1, "an earlier chunk was refused; say RSET")))
            }
            None => Some(self.out_of_order("MAIL and RCPT first")),
            Some(transaction) => {
                let taken = transaction.chunked.unwrap_or_default();
                if taken.saturating_add(size) > self.settings.max_message_size {
                    Some(self.no_place(DataFault::TooBig, last))
                } else {
                    self.no_recipient()
                }
            }
        };
        if let Some(refusal) = refusal {
            return self.swallow(size, refusal);
        }
        self.open = Some(if last { Open::LastChunk } else { Open::Chunk(size) });
        Action::TakeChunk { size, last }
    }

    /// A chunk has been added to the message, or its fault has been found.
    pub(super) fn chunk_taken(&mut self, outcome: Result<(), DataFault>, size: u64) -> Action {
        let Some(transaction) = &mut self.transaction else {
            return self.out_of_order("MAIL and RCPT first");
        };
        match outcome {
            Ok(()) => {
                transaction.chunked = Some(transaction.chunked.unwrap_or_default().saturating_add(size));
                Action::Say(Reply::coded(250, 0, 0, format!("{size} octets received")))
            }
            Err(fault) => {
                self.drop_message();
                Action::Say(fault.into_reply())
            }
        }
    }

    /// The message is stored, or it is not.
    pub(super) fn message_taken(&mut self, outcome: Result<P, DataFault>) -> Action {
        let reply = match outcome {
            Ok(proof) => {
                (self.errors, self.idle_commands) = (0, 0);
                Reply::coded(250, 0, 0, format!("Ok: queued as {}", proof.id()))
            }
            Err(fault) => fault.into_reply(),
        };
        let answer = self.answer_to_end(reply);
        // RFC 5321 4.1.1.4: the buffers are empty after the end of data, whatever came of it.
        self.reset();
        answer
    }

    /// There is no place for the message: before any of it was asked for, or for this chunk of it.
    pub(super) fn no_place(&mut self, fault: DataFault, last: bool) -> Action {
        let reply = fault.into_reply();
        let answer = if last { self.answer_to_end(reply) } else { Action::Say(reply) };
        self.drop_message();
        answer
    }

    /// What is said when all of a message has come. RFC 2033 4.2: to each recipient that was accepted,
    /// and to the last chunk as to the dot. All have the same fate here.
    fn answer_to_end(&self, reply: Reply) -> Action {
        match self.transaction.as_ref().map(|transaction| transaction.accepted) {
            Some(accepted @ 1..) if self.service.lmtp => Action::SayEach(vec![reply; accepted]),
            _ => Action::Say(reply),
        }
    }

    /// Why there is nobody to send to, if there is nobody.
    fn no_recipient(&mut self) -> Option<Action> {
        let transaction =
            self.transaction.as_ref().filter(|transaction| transaction.recipients.is_empty())?;
        // RFC 2920 3.1: a client that pipelines says DATA before it knows that all were refused.
        Some(match transaction.refused {
            0 => self.out_of_order("RCPT first"),
            _ => Action::Say(rule::NO_RECIPIENTS.reply("no recipient was accepted")),
        })
    }

    /// The transaction is over, and so is what is on its way of it.
    fn drop_message(&mut self) {
        self.reset();
        self.chunk_refused = true;
    }

    /// A chunk that is refused is read all the same; but one that is far too large for any message
    /// here costs less if the session ends.
    fn swallow(&self, size: u64, refusal: Action) -> Action {
        let is_ocean = size / 2 > self.settings.max_message_size;
        match refusal {
            Action::Say(reply) if is_ocean => Action::HangUp(reply),
            Action::SayEach(mut replies) if is_ocean => Action::HangUp(replies.swap_remove(0)),
            Action::Say(_) | Action::SayEach(_) => Action::Swallow { size, then: Box::new(refusal) },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{Stored, code, on_service, say, service, session};
    use super::super::{Event, Service, Verdict};
    use super::*;

    fn begun(params: &str) -> Server<Stored> {
        let mut server = session(3);
        for line in ["EHLO client", &format!("MAIL FROM:<a@b>{params}"), "RCPT TO:<c@d>"] {
            assert_eq!(say(&mut server, line), 250);
        }
        server
    }

    fn on_line(server: &mut Server<Stored>, line: &str) -> Action {
        server.on(Event::Line(line.as_bytes()))
    }

    #[test]
    fn a_message_and_then_another() {
        let mut server = session(9);
        assert_eq!(say(&mut server, "EHLO client"), 250);
        for _ in 0..2 {
            assert_eq!(say(&mut server, "MAIL FROM:<a@b> SIZE=10"), 250);
            assert_eq!(say(&mut server, "RCPT TO:<c@d>"), 250);
            assert_eq!(say(&mut server, "DATA"), 354);
            let transaction = server.transaction().unwrap();
            assert_eq!((transaction.size, transaction.recipients.len()), (Some(10), 1));
            let Action::Say(reply) = server.on(Event::Data(Ok(Stored))) else { panic!() };
            assert_eq!(reply, Reply::coded(250, 0, 0, "Ok: queued as 0123456789ABCDE"));
            assert_eq!(server.transaction(), None);
        }
        assert_eq!(server.greeted_as(), Some(("client", true)));
    }

    #[test]
    fn faults_of_data_have_their_replies() {
        let faults = [
            (DataFault::TooBig, "552 5.3.4"),
            (DataFault::BareLineEnd, "550 5.6.0"),
            (DataFault::Loop, "554 5.4.6"),
            (DataFault::Full, "452 4.3.1"),
            (DataFault::Disk, "451 4.3.0"),
        ];
        let mut server = session(0);
        say(&mut server, "HELO client");
        for (fault, start) in faults {
            for (event, opening) in [
                (Event::Data(Err(fault.clone())), "DATA"),
                (Event::NoPlace(fault.clone()), "DATA"),
                (Event::Chunk(Err(fault.clone())), "BDAT 3"),
                (Event::Data(Err(fault.clone())), "BDAT 3 LAST"),
            ] {
                for line in ["MAIL FROM:<>", "RCPT TO:<c@d>"] {
                    assert_eq!(say(&mut server, line), 250);
                }
                let _ = on_line(&mut server, opening);
                let Action::Say(reply) = server.on(event) else { panic!() };
                assert_eq!(format!("{} {}", reply.code, reply.status.unwrap()), start);
                assert_eq!(server.transaction(), None);
            }
        }
    }

    #[test]
    fn chunks_make_a_message() {
        let mut server = begun(" BODY=BINARYMIME");
        assert_eq!(on_line(&mut server, "BDAT 3"), Action::TakeChunk { size: 3, last: false });
        assert!(!server.client_must_wait(), "chunks may be pipelined");
        assert_eq!(code(&server.on(Event::Chunk(Ok(())))), 250);
        for line in ["DATA", "RCPT TO:<e@f>", "MAIL FROM:<>"] {
            assert_eq!(say(&mut server, line), 503, "{line}");
        }
        assert_eq!(on_line(&mut server, "BDAT 0 LAST"), Action::TakeChunk { size: 0, last: true });
        assert_eq!(code(&server.on(Event::Data(Ok(Stored)))), 250);
        assert_eq!(say(&mut begun(" BODY=BINARYMIME"), "DATA"), 503);
    }

    #[test]
    fn chunks_that_are_not_wanted_are_swallowed() {
        let swallowed = |action: Action| match action {
            Action::Swallow { size, then } => (size, code(&then)),
            other => panic!("{other:?}"),
        };
        let mut server = session(9);
        assert_eq!(swallowed(on_line(&mut server, "BDAT 12 LAST")), (12, 503));
        for line in ["EHLO client", "MAIL FROM:<a@b>"] {
            say(&mut server, line);
        }
        assert_eq!(swallowed(on_line(&mut server, "BDAT 12")), (12, 503));
        let _ = on_line(&mut server, "RCPT TO:<c@d>");
        let _ = server.on(Event::Judged(Verdict::Refuse(Reply::coded(550, 1, 1, "no"))));
        assert_eq!(swallowed(on_line(&mut server, "BDAT 12 LAST")), (12, 554));
        // What went before a refusal goes with it, and what was pipelined behind it too, for free.
        let mut server = begun("");
        let _ = on_line(&mut server, "BDAT 900");
        let _ = server.on(Event::Chunk(Ok(())));
        assert_eq!(swallowed(on_line(&mut server, "BDAT 101")), (101, 552));
        for _ in 0..50 {
            assert_eq!(swallowed(on_line(&mut server, "BDAT 5")), (5, 503));
        }
        assert_eq!(say(&mut server, "RSET"), 250);
        assert_eq!((swallowed(on_line(&mut server, "BDAT 5")), server.errors()), ((5, 503), 1));
        // But nobody sends us the ocean.
        for line in ["BDAT 18446744073709551615", "BDAT 99999999999999999999 LAST"] {
            assert!(matches!(on_line(&mut begun(""), line), Action::HangUp(Reply { code: 552, .. })));
        }
    }

    #[test]
    fn lmtp_answers_for_each_recipient() {
        let mut server = on_service(9, Service { lmtp: true, ..service() });
        let begin = |server: &mut Server<Stored>| {
            for line in ["MAIL FROM:<>", "RCPT TO:<a@b>", "RCPT TO:<a@b>", "RCPT TO:<c@d>"] {
                assert_eq!(say(server, line), 250);
            }
        };
        say(&mut server, "LHLO a");
        begin(&mut server);
        assert_eq!(say(&mut server, "DATA"), 354);
        let Action::SayEach(replies) = server.on(Event::Data(Ok(Stored))) else { panic!() };
        assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 250, 250]);
        begin(&mut server);
        let _ = on_line(&mut server, "DATA");
        assert_eq!(code(&server.on(Event::NoPlace(DataFault::Full))), 452);
        begin(&mut server);
        let _ = on_line(&mut server, "BDAT 1");
        assert_eq!(code(&server.on(Event::Chunk(Ok(())))), 250);
        let _ = on_line(&mut server, "BDAT 1 LAST");
        let Action::SayEach(replies) = server.on(Event::Data(Err(DataFault::Disk))) else { panic!() };
        assert_eq!(replies.len(), 3);
        // A last chunk that there is no room for is the end of a message all the same.
        begin(&mut server);
        let _ = on_line(&mut server, "BDAT 1 LAST");
        let Action::SayEach(replies) = server.on(Event::NoPlace(DataFault::Full)) else { panic!() };
        assert_eq!(replies.len(), 3);
        for (chunk, answers) in [("BDAT 1001", 1), ("BDAT 1001 LAST", 3)] {
            begin(&mut server);
            let Action::Swallow { size: 1001, then } = on_line(&mut server, chunk) else { panic!() };
            match *then {
                Action::Say(reply) => assert_eq!((reply.code, answers), (552, 1)),
                Action::SayEach(replies) => assert_eq!((replies[0].code, replies.len()), (552, answers)),
                other => panic!("{other:?}"),
            }
            assert_eq!(say(&mut server, "RSET"), 250);
        }
        begin(&mut server);
        assert!(matches!(on_line(&mut server, "BDAT 9999 LAST"), Action::HangUp(Reply { code: 552, .. })));
    }
}
