//! The bare content of a message, for an owner who must not see its envelope.
//!
//! It is a sealed file in memory, made once for all owners of the message. So much of it is held at
//! once; what finds no room waits.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::rc::{Rc, Weak};

use posta::mail::id::Id;
use posta::unix::memory;

/// Most bytes held in memory. A single message may be longer, but is then alone.
const MOST: u64 = 64 * 1024 * 1024;

/// A message's content; held until the last job that has it is done.
#[derive(Debug)]
pub struct Bare {
    /// The sealed file.
    pub file: File,
    size: u64,
    held: Rc<Cell<u64>>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.size);
    }
}

/// All contents that are held now.
#[derive(Debug)]
pub struct Contents {
    most: u64,
    known: HashMap<Id, Weak<Bare>>,
    held: Rc<Cell<u64>>,
}

impl Contents {
    /// None yet.
    pub fn new() -> Contents {
        Contents::limited(MOST)
    }

    fn limited(most: u64) -> Contents {
        Contents { most, known: HashMap::new(), held: Rc::default() }
    }

    /// The bytes 0 to `size` of a message's `file`; `None` while there is no room for them.
    pub fn of(&mut self, id: Id, file: &File, size: u64) -> io::Result<Option<Rc<Bare>>> {
        if let Some(bare) = self.known.get(&id).and_then(Weak::upgrade).filter(|bare| bare.size == size) {
            return Ok(Some(bare));
        }
        let held = self.held.get();
        if held > 0 && held + size > self.most {
            return Ok(None);
        }
        let file = memory::sealed_copy(file, size)?;
        self.held.set(held + size);
        let bare = Rc::new(Bare { file, size, held: Rc::clone(&self.held) });
        self.known.retain(|_, known| known.strong_count() > 0);
        self.known.insert(id, Rc::downgrade(&bare));
        Ok(Some(bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_serves_all_and_room_is_given_back() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(101).unwrap();
        let ids = ["0123456789ABCDE", "0123456789ABCDF"].map(|id| Id::parse(id).unwrap());
        let mut contents = Contents::limited(100);
        let first = contents.of(ids[0], &file, 100).unwrap().unwrap();
        let again = contents.of(ids[0], &file, 100).unwrap().unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        assert!(contents.of(ids[1], &file, 1).unwrap().is_none());
        drop((first, again));
        assert!(contents.of(ids[1], &file, 101).unwrap().is_some());
        assert!(contents.of(ids[1], &file, 102).is_err());
    }
}
