//! A next hop of old: it knows no EHLO, so that everything has to come to it in seven bits.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The next hop. It keeps nothing of what it takes.
#[derive(Clone)]
pub struct Seven {
    taken: Arc<AtomicUsize>,
}

impl Seven {
    /// Listens at `address` until the test ends.
    pub fn start(address: SocketAddr) -> Seven {
        let listener = TcpListener::bind(address).unwrap();
        let seven = Seven { taken: Arc::default() };
        let serving = seven.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seven, Ok(stream)) = (serving.clone(), stream) else { return };
                // A client that goes away in the middle is its own business.
                std::thread::spawn(move || seven.serve(stream).unwrap_or_default());
            }
        });
        seven
    }

    /// How many messages have come.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut out = stream;
        out.write_all(b"220 seven.example\r\n")?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            match &line[..line.len().min(4)] {
                b"EHLO" => out.write_all(b"502 what is that\r\n")?,
                b"DATA" => {
                    out.write_all(b"354 go ahead\r\n")?;
                    take_data(&mut lines)?;
                    self.taken.fetch_add(1, Ordering::SeqCst);
                    out.write_all(b"250 taken\r\n")?;
                }
                b"QUIT" => return out.write_all(b"221 bye\r\n"),
                _ => out.write_all(b"250 ok\r\n")?,
            }
        }
    }
}

/// Reads a message to its end; each octet of it has seven bits.
fn take_data(lines: &mut impl BufRead) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.is_ascii(), "eight bits came to a hop of seven");
        if line == b".\r\n" {
            return Ok(());
        }
    }
}
