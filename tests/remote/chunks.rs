//! Messages in chunks (RFC 3030), and what becomes of them where a server refuses one or goes.

use std::net::TcpListener;

use posta::courier::request::Target;
use posta::mail::envelope::BodyKind;

use crate::house::{House, listeners, request, short};
use crate::sink::{Asked, Say, Sink, polite, say};
use crate::{d, one_host, two_hosts};

const SENT: &str = "2.0.0 250 2.0.0 ok";
const TRACE: &[u8] = b"Received: from test\r\n";

/// Takes chunks, and everything.
fn modern(asked: &Asked<'_>) -> Say {
    match asked.line {
        line if line.starts_with("EHLO") => {
            say("250-sink\n250-PIPELINING\n250-8BITMIME\n250-SIZE 10000000\n250-BINARYMIME\n250 CHUNKING")
        }
        _ => polite(asked),
    }
}

/// Several chunks' worth.
fn large() -> Vec<u8> {
    b"a line of text, and more of it\r\n.\r\n..dots\r\n\r\n".repeat(10_000)
}

#[test]
fn a_message_goes_in_chunks_to_who_takes_them() {
    let (house, sink) = one_host(modern);
    assert_eq!(house.deliver(&d(), &["a@d.example", "b@d.example"], b".one\r\nno end"), [SENT; 2]);
    assert_eq!(sink.chunked(), [TRACE, b".one\r\nno end\r\n"].concat(), "dots are no matter");
    assert_eq!(sink.commands("BDAT"), ["BDAT 35 LAST"]);
    assert_eq!(sink.commands("DATA").len() + sink.commands("RSET").len(), 0);

    let (house, sink) = one_host(modern);
    for _ in 0..2 {
        assert_eq!(house.deliver(&d(), &["a@d.example"], &large()), [SENT]);
    }
    let chunks = sink.commands("BDAT");
    assert!(
        chunks.len() > 4 && chunks.iter().filter(|chunk| chunk.ends_with(" LAST")).count() == 2,
        "{chunks:?}"
    );
    assert!(sink.chunked() == [TRACE, &large(), TRACE, &large()].concat());
    assert_eq!(sink.heard().len(), 1);
}

#[test]
fn one_who_does_not_pipeline_gets_one_chunk_after_the_other() {
    let (house, sink) = one_host(|asked| match asked.line {
        line if line.starts_with("EHLO") => say("250-sink\n250 CHUNKING"),
        _ => polite(asked),
    });
    assert_eq!(house.deliver(&d(), &["a@d.example"], &large()), [SENT]);
    assert!(sink.chunked() == [TRACE, &large()].concat());
}

#[test]
fn it_can_be_turned_off() {
    let (port, mut listening) = listeners(&[2]);
    let sink = Sink::tcp(listening.remove(0), modern);
    let house = House::start(port, "d.example A 127.0.0.2", "chunking = false");
    assert_eq!(house.deliver_one("d.example"), SENT);
    assert_eq!((sink.messages().len(), sink.commands("BDAT").len()), (1, 0));
}

#[test]
fn refused_recipients_leave_the_session_good_for_the_next_message() {
    let (house, sink) = one_host(|asked| match asked.line {
        line if line.contains("<no@") => say("550 5.1.1 no"),
        line if line.starts_with("BDAT") && asked.times == 1 => say("503 5.5.1 no valid recipients"),
        _ => modern(asked),
    });
    assert_eq!(house.deliver(&d(), &["no@d.example"], b"x\r\n"), ["5.1.1 550 5.1.1 no"]);
    assert_eq!(house.deliver(&d(), &["a@d.example"], b"x\r\n"), [SENT]);
    let heard = sink.heard();
    let verbs: Vec<&str> = heard[0].commands.iter().map(|line| &line[..4]).collect();
    assert_eq!(verbs, ["EHLO", "MAIL", "RCPT", "BDAT", "RSET", "MAIL", "RCPT", "BDAT"]);
}

#[test]
fn a_chunk_that_is_refused_first_or_last_is_for_all() {
    for (refused, answer) in [(1, "552 5.3.4 too big"), (1, "451 4.3.1 disk full"), (0, "554 5.6.0 bad")] {
        let (house, sink) = one_host(move |asked| match asked.line {
            line if line.starts_with("BDAT")
                && (asked.times == refused || (refused == 0 && asked.is_last())) =>
            {
                say(answer)
            }
            line if line.starts_with("BDAT") && refused > 0 && asked.times < 12 => say("503 5.5.1 no more"),
            _ => modern(asked),
        });
        let expected = format!("{} {answer}", &answer[4..9]);
        let outcomes = house.deliver(&d(), &["a@d.example", "b@d.example"], &large());
        assert_eq!(outcomes, [expected.clone(), expected]);
        assert_eq!(sink.heard().len(), 1, "nothing is wrong with the session");
    }
}

#[test]
fn a_host_that_goes_in_the_middle_gives_way_to_the_next() {
    for which in [1, 3] {
        let going = move |asked: &Asked<'_>| match asked.line {
            line if line.starts_with("BDAT") && asked.times == which => Say::Close,
            _ => modern(asked),
        };
        let (house, _first, second) = two_hosts(going, modern);
        assert_eq!(house.deliver(&d(), &["a@d.example"], &large()), [SENT]);
        assert!(second.chunked() == [TRACE, &large()].concat());
    }
    // One that has all of it may have kept it.
    let silent = |asked: &Asked<'_>| if asked.is_last() { Say::Close } else { modern(asked) };
    let (house, _first, second) = two_hosts(silent, modern);
    let outcome = house.deliver_one("d.example");
    assert!(outcome.starts_with("4.4.2 lost connection with mx1.example"), "{outcome}");
    assert_eq!(second.heard().len(), 0);
}

#[test]
fn what_is_said_in_the_middle_counts() {
    // The server answers the first chunk, and takes no other.
    let (port, mut listening) = listeners(&[2]);
    let listener: TcpListener = listening.remove(0);
    std::thread::spawn(move || stubborn(&listener));
    let house = House::start(port, "d.example A 127.0.0.2", "");
    let big = large().repeat(20);
    assert_eq!(house.deliver(&d(), &["a@d.example"], &big), ["5.3.4 552 5.3.4 too big"]);
}

/// Plays one session: reads the first chunk only, refuses it, and waits for the client to give up.
fn stubborn(listener: &TcpListener) {
    use std::io::{BufRead, BufReader, Read, Write};
    let (mut socket, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    socket.write_all(b"220 mx\r\n").unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 0 {
        let answer: &[u8] = match &line[..4] {
            "EHLO" => b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            "BDAT" => {
                let length: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
                reader.read_exact(&mut vec![0; length]).unwrap();
                b"552 5.3.4 too big\r\n"
            }
            "MAIL" | "RCPT" => b"250 ok\r\n",
            _ => b"503 what?\r\n",
        };
        if socket.write_all(answer).is_err() {
            return;
        }
        line.clear();
    }
}

#[test]
fn binary_content_goes_as_it_is_to_who_takes_it() {
    let message = b"MIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\n\xff\r.\r\n.";
    let send = |house: &House| {
        let mut wishes = request(Target::Mx("d.example".into()), &["a@d.example"], message);
        wishes.body = BodyKind::BinaryMime;
        house.hand_out(&wishes, message);
        short(&house.report().outcomes[0])
    };
    let (house, sink) = one_host(modern);
    assert_eq!(send(&house), SENT);
    assert_eq!(sink.chunked(), [TRACE, message].concat());
    assert!(sink.commands("MAIL")[0].ends_with(" BODY=BINARYMIME"), "{:?}", sink.commands("MAIL"));
    // Who takes chunks, and eight bits, but nothing binary.
    let (house, sink) = one_host(|asked| match asked.line {
        line if line.starts_with("EHLO") => say("250-sink\n250-8BITMIME\n250 CHUNKING"),
        _ => modern(asked),
    });
    assert_eq!(send(&house), SENT);
    let got = String::from_utf8(sink.chunked()).unwrap();
    assert!(got.contains("Content-Transfer-Encoding: base64\r\n\r\nAAr/DS4NCi4=\r\n"), "{got}");
}
