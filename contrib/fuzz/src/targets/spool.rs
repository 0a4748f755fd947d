//! What is on disk.

use posta::mail::id::Id;
use posta::spool::Record;
use posta::spool::format::{TRAILER, put_envelope, put_trailer, read_envelope, read_trailer};

/// The envelope of a queue file: what is read is written so that it is read again.
pub fn envelope(input: &[u8]) {
    let Ok(envelope) = read_envelope(input) else { return };
    let mut written = Vec::new();
    put_envelope(&mut written, &envelope).expect("what was read can be written");
    assert_eq!(read_envelope(&written), Ok(envelope));
}

/// The last line of a queue file: only one that was written is taken, and none with an octet changed.
pub fn trailer(input: &[u8]) {
    let id = Id::parse("0123456789ABCDE").expect("an id");
    assert!(read_trailer(input, id, 0).is_err(), "a CRC by chance");
    let Some((place, rest)) = input.split_first() else { return };
    let offset = rest.iter().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let mut written = Vec::new();
    put_trailer(&mut written, id, offset, offset as u32);
    assert_eq!(written.len(), TRAILER);
    assert_eq!(read_trailer(&written, id, offset as u32).map(|t| t.offset), Ok(offset));
    written[usize::from(*place) % TRAILER] ^= 1 << (offset % 8);
    assert!(read_trailer(&written, id, offset as u32).is_err());
}

/// The lines of a journal: what is read is written so that it is read again.
pub fn journal(input: &[u8]) {
    for line in input.split(|b| *b == b'\n') {
        let Some(record) = Record::read(line) else { continue };
        let mut written = Vec::new();
        // An address that is not in its canonical form is not written like this.
        if record.put(&mut written, 0).is_none() {
            continue;
        }
        let text = written.strip_suffix(b"\n").expect("a whole line");
        assert!(!text.contains(&b'\n'));
        assert_eq!(Record::read(text), Some(record));
    }
}
