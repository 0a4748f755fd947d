//! The header of a message to be sent: whom its fields name.

use posta::mail::addresses::{ListError, parse_list};

/// Fields as they came, in order.
#[derive(Debug, Default)]
pub struct Header {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    /// In lower case.
    name: String,
    /// With its line ends.
    raw: Vec<u8>,
}

impl Field {
    fn new(raw: Vec<u8>) -> Field {
        let name = raw.split(|&b| b == b':').next().unwrap_or_default().trim_ascii();
        Field { name: String::from_utf8_lossy(name).to_ascii_lowercase(), raw }
    }

    /// What stands after the colon.
    fn body(&self) -> &[u8] {
        memchr::memchr(b':', &self.raw).map_or(&[], |colon| &self.raw[colon + 1..])
    }

    fn is_resent(&self) -> bool {
        self.name.starts_with("resent-")
    }
}

/// A field whose addresses can't be read.
#[derive(Debug, PartialEq, Eq)]
pub struct BadField {
    pub name: String,
    pub why: ListError,
}

impl Header {
    /// Of whole fields, with their line ends.
    pub fn new(fields: Vec<Vec<u8>>) -> Header {
        Header { fields: fields.into_iter().map(Field::new).collect() }
    }

    /// Whether the message is sent once more by somebody who had received it (RFC 5322 3.6.6).
    fn is_resent(&self) -> bool {
        self.fields.iter().any(Field::is_resent)
    }

    /// Whom the header names: To, Cc and Bcc; of a message that is resent the same of its topmost
    /// block of Resent fields, and only those.
    pub fn recipients(&self) -> Result<Vec<String>, BadField> {
        let wanted: Vec<&Field> = if self.is_resent() {
            let is_to = |f: &&&Field| matches!(f.name.as_str(), "resent-to" | "resent-cc" | "resent-bcc");
            self.latest_resent().iter().filter(is_to).copied().collect()
        } else {
            self.fields.iter().filter(|f| matches!(f.name.as_str(), "to" | "cc" | "bcc")).collect()
        };
        let mut recipients = Vec::new();
        for field in wanted {
            let list = parse_list(field.body()).map_err(|why| BadField { name: field.name.clone(), why })?;
            recipients.extend(list.into_iter().map(|listed| listed.spec));
        }
        Ok(recipients)
    }

    /// The first block of Resent fields: up to where one stands that the block has already.
    fn latest_resent(&self) -> Vec<&Field> {
        let mut block: Vec<&Field> = Vec::new();
        for field in self.fields.iter().filter(|field| field.is_resent()) {
            if block.iter().any(|seen| seen.name == field.name) {
                break;
            }
            block.push(field);
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Header {
        let fields = text.split_inclusive('\n').fold(Vec::new(), |mut fields: Vec<Vec<u8>>, line| {
            match fields.last_mut() {
                Some(last) if line.starts_with(' ') => last.extend_from_slice(line.as_bytes()),
                _ => fields.push(line.as_bytes().to_vec()),
            }
            fields
        });
        Header::new(fields)
    }

    #[test]
    fn recipients_come_from_all_three_fields() {
        let h = header("To: a@x, B <b@x>\nSubject: s\nCC : c\nBcc: d@x,\n e@x\nTo: f@x\n");
        assert_eq!(h.recipients().unwrap(), ["a@x", "b@x", "c", "d@x", "e@x", "f@x"]);
    }

    #[test]
    fn of_a_resent_message_only_the_topmost_block_counts() {
        let h = header(
            "Resent-From: r@x\nResent-To: new@x\nResent-Bcc: blind@x\nReceived: y\nResent-From: old@x\n\
             Resent-To: older@x\nTo: first@x\n",
        );
        assert!(h.is_resent());
        assert_eq!(h.recipients().unwrap(), ["new@x", "blind@x"]);
    }

    #[test]
    fn a_field_that_cant_be_read_is_named() {
        assert_eq!(header("To: a@x b@y\n").recipients().unwrap_err().name, "to");
    }
}
