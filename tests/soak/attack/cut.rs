//! Sessions in good order that end at any octet.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::words;

use super::{Attacker, tls};

/// A connection over which only so many octets may be said; the next one ends it.
struct Doomed {
    stream: TcpStream,
    left: usize,
    /// It ends by a reset, or by an end in good order.
    by_reset: bool,
}

impl Read for Doomed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Doomed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let count = octets.len().min(self.left);
        if count == 0 {
            if self.by_reset {
                socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO))?;
            } else {
                self.stream.shutdown(Shutdown::Write)?;
            }
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.stream.write(&octets[..count])?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A conversation: what is said, and the code of the answer.
type Conversation = &'static [(&'static [u8], u16)];

const BY_DATA: Conversation = &[
    (b"EHLO cut.example\r\n", 250),
    (b"MAIL FROM:<a@cut.example> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=cut\r\n", 250),
    (b"RCPT TO:<cut@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;cut@example.org\r\n", 250),
    (b"RCPT TO:<nobody@nowhere.example>\r\n", 550),
    (b"DATA\r\n", 354),
    (b"Subject: cut\r\n\r\n..\r\na line\r\n.\r\n", 250),
    (b"RSET\r\n", 250),
    (b"QUIT\r\n", 221),
];

const BY_CHUNKS: Conversation = &[
    (b"EHLO cut.example\r\n", 250),
    (b"MAIL FROM:<a@cut.example> BODY=BINARYMIME\r\n", 250),
    (b"RCPT TO:<cut@example.org>\r\n", 250),
    (b"BDAT 16\r\nSubject: cut\r\n\r\n", 250),
    (b"BDAT 10\r\n0123456789", 250),
    (b"BDAT 4 LAST\r\n\0\n\r\xff", 250),
    (b"QUIT\r\n", 221),
];

/// Two logins that are no good, then one that is: carol@users.example, "secret".
const LOGIN: Conversation = &[
    (b"EHLO cut.example\r\n", 250),
    (b"AUTH LOGIN\r\n", 334),
    (b"*\r\n", 501),
    (b"AUTH PLAIN =\r\n", 501),
    (b"AUTH PLAIN AGNhcm9sQHVzZXJzLmV4YW1wbGUAc2VjcmV0\r\n", 235),
    (b"MAIL FROM:<carol@users.example>\r\n", 250),
    (b"RCPT TO:<cut@example.org>\r\n", 250),
    (b"DATA\r\n", 354),
    (b"Subject: cut\r\nBcc: x\r\n\r\n.\r\n", 250),
    (b"QUIT\r\n", 221),
];

/// Conversations in plain, after STARTTLS, and under TLS from the first octet, each cut off somewhere.
pub fn sessions(attacker: &mut Attacker<'_>) -> u64 {
    attacker.repeat(|attacker| {
        let kind = attacker.chance.u8(..4);
        let target = attacker.target;
        let to = [target.smtp, target.smtp, target.submission, target.implicit][usize::from(kind)];
        // The shorter it is the rarer: a handshake alone is some hundred octets.
        let left = attacker.chance.usize(1..if kind < 2 { 400 } else { 1500 });
        let by_reset = attacker.chance.bool();
        let mut stream = Doomed { stream: attacker.connect(to)?, left, by_reset };
        let outcome = match kind {
            0 => talk(&mut stream, true, BY_DATA),
            1 => talk(&mut stream, true, BY_CHUNKS),
            2 => turn_to_tls(stream),
            _ => tls::shake(stream).and_then(|mut stream| talk(&mut stream, true, LOGIN)),
        };
        // To have been cut off is what it was to come to.
        outcome
            .or_else(|error| if error.kind() == io::ErrorKind::UnexpectedEof { Err(error) } else { Ok(()) })
    })
}

fn turn_to_tls(mut stream: Doomed) -> io::Result<()> {
    talk(&mut stream, true, &[(b"EHLO cut.example\r\n", 250), (b"STARTTLS\r\n", 220)])?;
    talk(&mut tls::shake(stream)?, false, LOGIN)
}

fn talk(stream: &mut (impl Read + Write), greeted: bool, conversation: Conversation) -> io::Result<()> {
    if greeted {
        words::hear(stream, 220)?;
    }
    conversation.iter().try_for_each(|(words, code)| words::say(stream, words, *code))
}
