//! `TLS-Required: No` (RFC 8689 §3): the sender wants a message to arrive, also where what the domain publishes on TLS
//! would hold it up. Pure.
//!
//! Any other value says nothing. Of several fields each has to say so. Only the first line of a field is read.

/// What the fields said so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TlsRequired {
    no: bool,
    other: bool,
}

impl TlsRequired {
    /// Takes note of a header field; `line` is its first line, with the name.
    pub fn field(&mut self, name: &[u8], line: &[u8]) {
        if !name.eq_ignore_ascii_case(b"tls-required") {
            return;
        }
        let value = memchr::memchr(b':', line).and_then(|colon| line.get(colon + 1..)).unwrap_or_default();
        let no = value.trim_ascii().eq_ignore_ascii_case(b"no");
        self.no |= no;
        self.other |= !no;
    }

    /// All of them say no.
    pub fn is_no(self) -> bool {
        self.no && !self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_no_says_something() {
        for (lines, no) in [
            (&["TLS-Required: No\r\n"] as &[&str], true),
            (&["tls-required:no\r\n"], true),
            (&["TLS-Required : NO \r\n", "TLS-Required: No\r\n"], true),
            (&["TLS-Required: No\r\n", "TLS-Required: Yes\r\n"], false),
            (&["TLS-Required: None\r\n"], false),
            (&["TLS-Required:\r\n"], false),
            (&["X-TLS-Required: No\r\n"], false),
            (&[], false),
        ] {
            let mut found = TlsRequired::default();
            for line in lines {
                let name = line.split(':').next().unwrap_or_default().trim();
                found.field(name.as_bytes(), line.as_bytes());
            }
            assert_eq!(found.is_no(), no, "{lines:?}");
        }
    }
}
