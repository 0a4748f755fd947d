//! The lines to the hands, posta-local and posta-remote.
//!
//! A thread for each line keeps it up: it connects, reads what the hand says, and tells the runner.
//! The runner sends on the other half, and never waits: a socket that is full gives the job back.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

use posta::unix::pass::{MAX_PACKET, Packets};

use posta::courier::report::FromHand;

use crate::destination::Hand;
use crate::runner::Event;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The sending half of a line.
#[derive(Debug)]
pub struct Line {
    packets: Packets,
    /// Tells this connection from those before it.
    pub connection: u64,
}

impl Line {
    /// Sends a request with the open message. `WouldBlock`: the hand has not read enough yet.
    pub fn send(&self, packet: &[u8], file: &std::fs::File) -> io::Result<()> {
        self.packets.try_send(packet, Some(file.as_fd()))
    }
}

/// Starts the thread that keeps a line up.
pub fn keep_up(hand: Hand, path: PathBuf, events: Sender<Event>) -> io::Result<()> {
    let name = match hand {
        Hand::Local => "line-local",
        Hand::Remote => "line-remote",
    };
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let mut pause = FIRST_PAUSE;
        let mut complained = false;
        for connection in 1.. {
            match Packets::connect(&path).and_then(|packets| serve(hand, connection, &packets, &events)) {
                Ok(Served::Line) => (pause, complained) = (FIRST_PAUSE, false),
                Ok(Served::Nothing) => {}
                Err(error) => {
                    // Every runner starts a little before its hands: once is no news.
                    if !complained && pause == LONGEST_PAUSE {
                        log::warn!("{}: {error}; is {} running?", path.display(), program(hand));
                        complained = true;
                    }
                }
            }
            if events.send(Event::Tick).is_err() {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })?;
    Ok(())
}

/// The program behind a hand.
pub fn program(hand: Hand) -> &'static str {
    match hand {
        Hand::Local => "posta-local",
        Hand::Remote => "posta-remote",
    }
}

enum Served {
    /// The hand greeted.
    Line,
    /// The hand went away without a greeting, or the runner is gone.
    Nothing,
}

fn serve(hand: Hand, connection: u64, packets: &Packets, events: &Sender<Event>) -> io::Result<Served> {
    let mut buffer = vec![0; MAX_PACKET];
    let mut greeted = false;
    loop {
        let length = match packets.receive(&mut buffer) {
            Ok((0, _)) => break,
            Ok((length, _)) => length,
            Err(error) => {
                log::warn!("{}: the line broke: {error}", program(hand));
                break;
            }
        };
        let event = match FromHand::decode(&buffer[..length]) {
            Ok(FromHand::Credits(credits)) => {
                greeted = true;
                let sending = packets.try_clone()?;
                let line = Line { packets: sending, connection };
                Event::HandUp { hand, line, credits: credits as usize }
            }
            Ok(FromHand::Report(report)) => Event::Report { hand, connection, report },
            Err(error) => {
                log::error!("{} sent what is no answer: {error}; the line is closed", program(hand));
                break;
            }
        };
        if events.send(event).is_err() {
            return Ok(Served::Nothing);
        }
    }
    if greeted {
        let _ = events.send(Event::HandDown { hand, connection });
        return Ok(Served::Line);
    }
    Ok(Served::Nothing)
}
