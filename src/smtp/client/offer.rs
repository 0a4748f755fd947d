//! What a server says it can do, in its answer to EHLO (RFC 5321 4.1.1.1).

use super::reply::Reply;

/// The extensions that matter to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub start_tls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// AUTH (RFC 4954): the mechanisms, in upper case.
    pub auth: Vec<String>,
    /// SIZE (RFC 1870): with the largest message it takes, if it says so; 0 says nothing.
    pub size: Option<Option<u64>>,
}

impl Offer {
    /// Reads the lines after the first one. What is not known is passed over.
    pub fn read(reply: &Reply) -> Offer {
        let mut offer = Offer::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offer.pipelining = true,
                "8BITMIME" => offer.eight_bit_mime = true,
                "SMTPUTF8" => offer.utf8 = true,
                "DSN" => offer.dsn = true,
                "STARTTLS" => offer.start_tls = true,
                "REQUIRETLS" => offer.require_tls = true,
                "AUTH" => offer.auth = words.map(str::to_ascii_uppercase).collect(),
                "SIZE" => {
                    let most = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    offer.size = Some(most);
                }
                _ => {}
            }
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Offer {
        Offer::read(&Reply { code: 250, lines: lines.iter().map(|l| l.to_string()).collect() })
    }

    #[test]
    fn keywords_are_read_in_any_case_and_the_greeting_is_none() {
        let offer = read(&["pipelining", "Size 1000", "8bitMIME", "x-unknown 1", "DSN"]);
        let expected = Offer { eight_bit_mime: true, dsn: true, size: Some(Some(1000)), ..Offer::default() };
        assert_eq!(offer, expected);
        for unlimited in ["SIZE", "SIZE 0", "SIZE much"] {
            assert_eq!(read(&["mx", unlimited]).size, Some(None), "{unlimited}");
        }
    }
}
