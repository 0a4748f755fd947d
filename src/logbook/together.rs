//! Several lines of the log in one write: for a thread that has much to say at once.
//!
//! Each line is still a line of its own, and no piece is longer than what a pipe takes whole
//! (pipe(7)), so that lines of other processes never stand in the middle of ours.

use std::cell::RefCell;
use std::io::{self, Write};
use std::marker::PhantomData;

use super::sink::MAX_RECORD;

thread_local! {
    static KEPT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// While it lives, lines that this thread writes to standard error are kept; then they are written.
#[derive(Debug)]
#[must_use]
pub struct Together {
    // The lines are this thread's: it stays here.
    _here: PhantomData<*const ()>,
}

/// Keeps what this thread says, until the answer is dropped.
pub fn together() -> Together {
    KEPT.with_borrow_mut(|kept| kept.get_or_insert_default().reserve(MAX_RECORD));
    Together { _here: PhantomData }
}

impl Drop for Together {
    fn drop(&mut self) {
        if let Some(lines) = KEPT.take().filter(|lines| !lines.is_empty()) {
            // As with each line by itself: there is nowhere to say that the log can't be written.
            let _ = io::stderr().write_all(&lines);
        }
    }
}

/// Standard error, or what is kept of it. Takes whole lines.
#[derive(Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        KEPT.with_borrow_mut(|kept| match kept {
            None => io::stderr().write_all(line),
            Some(lines) => keep(lines, line, &mut io::stderr()),
        })?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds a line; writes what was there before where both are more than one piece.
fn keep(lines: &mut Vec<u8>, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let full = match lines.len() + line.len() > MAX_RECORD {
        true => std::mem::take(lines),
        false => Vec::new(),
    };
    lines.extend_from_slice(line);
    if full.is_empty() { Ok(()) } else { out.write_all(&full) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Pieces(Vec<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0.push(piece.to_vec());
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_are_whole_lines_and_as_long_as_a_pipe_takes() {
        let (mut lines, mut out) = (Vec::new(), Pieces::default());
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..9 {
            keep(&mut lines, &line, &mut out).unwrap();
        }
        let sizes: Vec<usize> = out.0.iter().map(Vec::len).collect();
        assert_eq!((sizes, lines.len()), (vec![4000, 4000], 1000));
        assert!(out.0.iter().all(|piece| piece.ends_with(b"\n")));
    }

    #[test]
    fn what_is_said_is_kept_for_a_while_and_only_here() {
        let kept = || KEPT.with_borrow(Option::clone);
        let lines = together();
        Stderr.write_all(b"one\n").unwrap();
        Stderr.write_all(b"two\n").unwrap();
        assert_eq!(kept().as_deref(), Some(&b"one\ntwo\n"[..]));
        assert_eq!(std::thread::spawn(move || KEPT.with_borrow(Option::is_none)).join().ok(), Some(true));
        drop(lines);
        assert_eq!(kept(), None);
    }
}
