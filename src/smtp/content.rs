//! What is looked at while a message comes in, whichever way it comes: how long it is, how many
//! servers it went through, and whether its lines end as they must.

use super::event::DataFault;

/// What has been seen of a message.
#[derive(Debug)]
pub struct Content {
    /// The last octet received.
    last: u8,
    head: HeaderWatch,
    size: u64,
    max_size: u64,
    max_hops: usize,
    fault: Option<DataFault>,
}

impl Content {
    /// Of a message of at most `max_size` octets that went through at most `max_hops` servers (RFC
    /// 5321 6.3).
    pub(super) fn new(max_size: u64, max_hops: usize) -> Content {
        Content { last: b'\n', head: HeaderWatch::default(), size: 0, max_size, max_hops, fault: None }
    }

    /// Octets of the message so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Octets of its header section, with the empty line that ends it; none while it goes on.
    pub fn header_size(&self) -> Option<u64> {
        self.head.ended_at
    }

    /// `Received` fields in the header section so far.
    pub fn hops(&self) -> usize {
        self.head.received
    }

    /// Why this message can't be taken, if that is known by now: the first reason found.
    pub fn fault(&self) -> Option<&DataFault> {
        self.fault.as_ref()
    }

    /// The last octet received; a line end before the first.
    pub(super) fn last(&self) -> u8 {
        self.last
    }

    /// Passes octets of the message on to `sink`, unless something is wrong with it.
    pub(super) fn give(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) {
        self.size += octets.len() as u64;
        self.head.see(octets);
        if self.size > self.max_size {
            self.fault.get_or_insert(DataFault::TooBig);
        }
        if self.head.received > self.max_hops {
            self.fault.get_or_insert(DataFault::Loop);
        }
        if self.fault.is_none() {
            sink(octets);
        }
    }

    /// Looks for a CR without LF or an LF without CR. It is a whole pass of its own over the block,
    /// but one without a branch, far cheaper than a look at every line.
    pub(super) fn note_line_ends(&mut self, block: &[u8]) {
        let Some((&first, &last)) = block.first().zip(block.last()) else { return };
        let broken = |before: u8, octet: u8| (before == b'\r') != (octet == b'\n');
        let pairs = block.iter().zip(&block[1..]);
        // The very first octet's neighbour is an LF, which an LF could only follow as a bare one.
        let bare = broken(self.last, first) | pairs.fold(false, |bare, (&a, &b)| bare | broken(a, b));
        if bare {
            self.fault.get_or_insert(DataFault::BareLineEnd);
        }
        self.last = last;
    }
}

/// The name that a hop leaves (RFC 5321 4.4).
const RECEIVED: &[u8] = b"received";

/// Follows a header section octet by octet: counts its `Received` fields, finds its end.
#[derive(Debug, Default)]
struct HeaderWatch {
    seen: u64,
    ended_at: Option<u64>,
    received: usize,
    line: HeaderLine,
    after_cr: bool,
}

/// What the current header line has been up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum HeaderLine {
    /// Nothing.
    #[default]
    Empty,
    /// So many octets of [`RECEIVED`].
    Matching(usize),
    /// Something else, or more.
    Other,
}

impl HeaderWatch {
    fn see(&mut self, octets: &[u8]) {
        if self.ended_at.is_some() {
            return;
        }
        for &octet in octets {
            self.seen += 1;
            let ends_line = octet == b'\n' && self.after_cr;
            self.after_cr = octet == b'\r';
            if ends_line && self.line == HeaderLine::Empty {
                self.ended_at = Some(self.seen);
                return;
            }
            self.line = match (self.line, octet) {
                _ if ends_line => HeaderLine::Empty,
                (HeaderLine::Empty, b'\r') => HeaderLine::Empty,
                (HeaderLine::Empty, _) if octet.eq_ignore_ascii_case(&RECEIVED[0]) => HeaderLine::Matching(1),
                (HeaderLine::Matching(8), b' ' | b'\t') => self.line, // RFC 5322 4.5.3: blanks before the colon
                (HeaderLine::Matching(8), b':') => {
                    self.received += 1;
                    HeaderLine::Other
                }
                (HeaderLine::Matching(n), _)
                    if RECEIVED.get(n).is_some_and(|b| octet.eq_ignore_ascii_case(b)) =>
                {
                    HeaderLine::Matching(n + 1)
                }
                _ => HeaderLine::Other,
            };
        }
    }
}
