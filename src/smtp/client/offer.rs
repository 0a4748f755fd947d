//! What a server says it can do, in its answer to EHLO (RFC 5321 4.1.1.1).

use super::reply::Reply;

/// The extensions that matter to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// CHUNKING (RFC 3030 2).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030 3), which nobody has without CHUNKING.
    pub binary_mime: bool,
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
    /// LIMITS (RFC 9422).
    pub limits: Limits,
}

/// What a server says it takes at most, where it says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: transactions in a session.
    pub mail: Option<usize>,
    /// RCPTMAX: recipients in a transaction.
    pub recipients: Option<usize>,
    /// RCPTDOMAINMAX: domains of the recipients in a transaction.
    pub domains: Option<usize>,
}

impl Limits {
    /// RFC 9422 4: `NAME=NUMBER`, of six digits and never 0; what is something else is passed over.
    fn read<'a>(words: impl Iterator<Item = &'a str>) -> Limits {
        let mut limits = Limits::default();
        for (name, number) in words.filter_map(|word| word.split_once('=')) {
            let most = number.parse().ok().filter(|most| (1..1_000_000).contains(most));
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => limits.mail = most,
                "RCPTMAX" => limits.recipients = most,
                "RCPTDOMAINMAX" => limits.domains = most,
                _ => {}
            }
        }
        limits
    }

    /// How many of the recipients with these domains, from the first, fit into one transaction: at
    /// least one.
    pub fn fitting<'a>(&self, domains: impl Iterator<Item = &'a str>) -> usize {
        let mut met: Vec<&str> = Vec::new();
        let mut fitting = 0;
        for domain in domains.take(self.recipients.unwrap_or(usize::MAX)) {
            if let Some(most) = self.domains
                && !met.contains(&domain)
            {
                if met.len() == most {
                    break;
                }
                met.push(domain);
            }
            fitting += 1;
        }
        fitting
    }
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
                "CHUNKING" => offer.chunking = true,
                "BINARYMIME" => offer.binary_mime = true,
                "SMTPUTF8" => offer.utf8 = true,
                "DSN" => offer.dsn = true,
                "STARTTLS" => offer.start_tls = true,
                "REQUIRETLS" => offer.require_tls = true,
                "AUTH" => offer.auth = words.map(str::to_ascii_uppercase).collect(),
                "LIMITS" => offer.limits = Limits::read(words),
                "SIZE" => {
                    let most = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    offer.size = Some(most);
                }
                _ => {}
            }
        }
        offer.binary_mime &= offer.chunking;
        offer
    }

    /// The same, of a server to which no message goes in chunks.
    pub fn without_chunking(self) -> Offer {
        Offer { chunking: false, binary_mime: false, ..self }
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
        assert!(!read(&["mx", "BINARYMIME"]).binary_mime, "it can't be sent by DATA");
        let both = read(&["mx", "BINARYMIME", "CHUNKING"]);
        assert!(both.binary_mime && both.chunking);
        assert_eq!(both.without_chunking(), Offer::default());
        for unlimited in ["SIZE", "SIZE 0", "SIZE much"] {
            assert_eq!(read(&["mx", unlimited]).size, Some(None), "{unlimited}");
        }
    }

    #[test]
    fn limits_are_read_and_say_how_many_fit() {
        let offer = read(&["mx", "LIMITS mailmax=5 RCPTMAX=3 RCPTDOMAINMAX=2 X=1"]);
        let limits = Limits { mail: Some(5), recipients: Some(3), domains: Some(2) };
        assert_eq!(offer.limits, limits);
        for senseless in ["LIMITS", "LIMITS RCPTMAX", "LIMITS RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=1000000"] {
            assert_eq!(read(&["mx", senseless]).limits, Limits::default(), "{senseless}");
        }
        assert_eq!(limits.fitting(["a", "b", "a", "a"].into_iter()), 3);
        assert_eq!(limits.fitting(["a", "b", "c"].into_iter()), 2);
        assert_eq!(Limits::default().fitting(["a", "b", "c"].into_iter()), 3);
    }
}
