//! What of a body only BINARYMIME takes (RFC 3030 §3): NUL, and CR and LF that are no part of a CRLF. With
//! DATA the first is not allowed (RFC 5321 §2.4, RFC 6152 §3), and the others could be taken for the end of a line by
//! somebody on the way, and a dot behind them for the end of the message. Pure.

use memchr::{memchr3, memchr3_iter};

/// Whether a line, without its CRLF, has some of them.
pub fn is_binary(line: &[u8]) -> bool {
    memchr3(b'\r', b'\n', 0, line).is_some()
}

/// Looks for them in a body that comes in pieces.
#[derive(Clone, Debug)]
pub struct BinaryScan {
    found: bool,
    /// The last two bytes.
    last: [u8; 2],
}

impl BinaryScan {
    /// Takes the next piece; what is found does not depend on where the body is cut.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.found = self.found || self.has_some(bytes);
        self.last = [bytes.len().checked_sub(2).map_or(self.last[1], |at| bytes[at]), *last];
    }

    fn has_some(&self, bytes: &[u8]) -> bool {
        let open = self.last == [self.last[0], b'\r'];
        let alone = |at: usize| match bytes[at] {
            // Of the CR at the end of a piece the next piece tells.
            b'\r' => bytes.get(at + 1).is_some_and(|next| *next != b'\n'),
            b'\n' => at.checked_sub(1).map_or(!open, |before| bytes[before] != b'\r'),
            _ => true,
        };
        (open && bytes[0] != b'\n') || memchr3_iter(b'\r', b'\n', 0, bytes).any(alone)
    }

    /// Whether DATA cannot carry the body as it is: something was found, or it does not end in CRLF.
    pub fn finish(&self) -> bool {
        self.found || self.last != *b"\r\n"
    }
}

impl Default for BinaryScan {
    /// Behind the CRLF of the header section.
    fn default() -> BinaryScan {
        BinaryScan { found: false, last: *b"\r\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every body of at most five bytes that matter, cut at every place.
    #[test]
    fn what_is_found_does_not_depend_on_the_cut() {
        let mut bodies: Vec<Vec<u8>> = vec![Vec::new()];
        for from in 0.. {
            let Some(body) = bodies.get(from).filter(|body| body.len() < 5).cloned() else { break };
            bodies.extend(b"\r\n\0a".map(|byte| [body.as_slice(), &[byte]].concat()));
        }
        assert_eq!(bodies.len(), 1 + 4 + 16 + 64 + 256 + 1024);
        for body in bodies {
            let text = String::from_utf8(body.clone()).expect("ASCII").replace("\r\n", "");
            let expected = is_binary(text.as_bytes()) && is_binary_by_lines(&body)
                || !(body.is_empty() || body.ends_with(b"\r\n"));
            for cut in 0..=body.len() {
                let mut scan = BinaryScan::default();
                scan.push(&body[..cut]);
                scan.push(&body[cut..]);
                assert_eq!(scan.finish(), expected, "{} cut at {cut}", body.escape_ascii());
            }
        }
    }

    /// The same by taking the CRLFs away from left to right, so that none is made of what is left.
    fn is_binary_by_lines(body: &[u8]) -> bool {
        let mut rest = body;
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            if is_binary(&rest[..at]) {
                return true;
            }
            rest = &rest[at + 2..];
        }
        is_binary(rest)
    }
}
