//! Netstrings, `length:octets,`: texts of any kind one behind the other (cr.yp.to/proto/netstrings.txt).

/// Appends one.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.push(b',');
}

/// Takes the first one off; `None` if there is none.
pub(super) fn next<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let colon = memchr::memchr(b':', bytes)?;
    let length: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = &bytes[colon + 1..];
    if rest.get(length) != Some(&b',') {
        return None;
    }
    *bytes = &rest[length + 1..];
    Some(&rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_and_nothing_else_does() {
        let mut out = Vec::new();
        put(&mut out, b"a,:b");
        put(&mut out, b"");
        assert_eq!(out, b"4:a,:b,0:,");
        let mut rest = &out[..];
        assert_eq!(next(&mut rest), Some(&b"a,:b"[..]));
        assert_eq!((next(&mut rest), rest), (Some(&b""[..]), &b""[..]));
        for bad in ["", "1:a", "2:a,", "x:a,", "1a,", "99999999999999999999:a,", "18446744073709551615:a,"] {
            assert_eq!(next(&mut bad.as_bytes()), None, "{bad}");
        }
    }
}
