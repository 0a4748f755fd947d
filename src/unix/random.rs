//! Octets that nobody can guess.

use std::io;

/// As many octets of the system's random generator (getrandom(2)). It fails only on a system that has
/// none.
pub fn octets<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    let mut filled = 0;
    while filled < N {
        let rest = &mut octets[filled..];
        // SAFETY: a buffer of the length that is told.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(octets::<16>().unwrap(), octets::<16>().unwrap());
        assert_eq!(octets::<0>().unwrap(), []);
    }
}
