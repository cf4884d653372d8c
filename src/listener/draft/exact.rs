//! A message that was announced as BINARYMIME (RFC 3030 §3).
//!
//! Invariants:
//! - Its header section is one like any other: CRLF line ends, nothing behind a bare CR or LF that would be a
//!   field only for some readers.
//! - Behind it every octet is kept as it came, none is added and none is missing; also where there is no header
//!   section. (Of two lines that are neither, the first of which is one of a mailbox file, the first ends in CRLF.)

use memchr::memchr;

use super::{BinaryScan, Draft, Header, field_name, is_mailbox_line};

impl Draft {
    /// With octets behind the header section, which then come by [`Draft::push_exact`].
    pub fn with_exact_octets(self) -> Draft {
        Draft { exact: Some(BinaryScan::default()), ..self }
    }

    /// Takes content as it came.
    pub fn push_exact(&mut self, mut bytes: &[u8]) {
        // A line at a time, so that its end is at the end of the buffer.
        while self.header.is_some() && self.refusal.is_none() {
            let Some(lf) = memchr(b'\n', bytes) else { break };
            let (line, rest) = bytes.split_at(lf + 1);
            bytes = rest;
            if self.append(line) {
                self.mend_line_end();
                self.scan_header();
            }
        }
        if !bytes.is_empty() {
            self.push_text(bytes);
        }
    }

    /// The last line of the buffer, up to its LF, ends in CRLF if it belongs to the header section; false: it does
    /// not belong to it, and is as it came.
    fn mend_line_end(&mut self) -> bool {
        let Some(header) = &mut self.header else { return false };
        let line = self.buf.get(header.line..).unwrap_or_default();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = &text[..text.iter().rposition(|b| *b != b'\r').map_or(0, |at| at + 1)];
        if !belongs(header, text) {
            return false;
        }
        header.bare_cr |= memchr(b'\r', text).is_some();
        let end = header.line + text.len();
        // The CRs may have come before, and been looked at.
        header.searched = header.searched.min(end);
        self.buf.truncate(end);
        self.buf.extend_from_slice(b"\r\n");
        true
    }

    /// The content is complete.
    pub(super) fn end_exact(&mut self) {
        let open = self.header.as_ref().is_some_and(|header| header.line < self.buf.len());
        if self.refusal.is_some() || !open {
            return;
        }
        self.buf.push(b'\n');
        if self.mend_line_end() {
            self.scan_header();
        } else {
            self.buf.pop();
            if let Some(header) = self.header.take() {
                let at = header.complete();
                self.end_header(header, at, false);
            }
        }
    }
}

/// Whether a line without its end belongs to the header section, or ends it.
fn belongs(header: &Header, text: &[u8]) -> bool {
    match text.first() {
        None => true,
        Some(b' ' | b'\t' | b'\r') if header.any => true,
        _ => field_name(text).is_some() || (!header.any && header.mailbox().is_none() && is_mailbox_line(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{RECEIVED, build_with};
    use super::super::{CHUNK, Finished, Refusal};

    const ENOUGH: u64 = 1 << 30;
    const FIELDS: &str = "From: a@b\r\nDate: x\r\nMessage-ID: <x>\r\n";

    fn stored(content: &[u8]) -> (Finished, Vec<u8>) {
        let (finished, whole) = build_with(&[content], ENOUGH, true).expect("taken");
        let rest = whole.strip_prefix(RECEIVED.as_bytes()).expect("a Received line").to_vec();
        (finished, rest)
    }

    #[test]
    fn the_header_section_is_lines_and_the_body_is_octets() {
        for (header, expected) in [
            ("Subject: x\n\tfolded\r\r\nX-A: 1\r2\r\n\r\n", "Subject: x\r\n\tfolded\r\nX-A: 1 2\r\n"),
            ("Bcc: x\ny: z\r\n\n", "y: z\r\n"),
            ("y: z\n\rBcc: x\n\r\r\n", "y: z\r\n Bcc: x\r\n"),
        ] {
            for body in [&b"\0"[..], b"", b"\n.\n\r.\r\r\n", b"Bcc: x\ry: z\n", b"\r", b"no end"] {
                let (finished, whole) = stored(&[FIELDS.as_bytes(), header.as_bytes(), body].concat());
                let expected = [FIELDS.as_bytes(), expected.as_bytes(), b"\r\n", body].concat();
                assert_eq!(whole.escape_ascii().to_string(), expected.escape_ascii().to_string());
                assert_eq!(finished.traits.binary, !body.is_empty(), "{}", body.escape_ascii());
            }
        }
        let (finished, whole) = stored(&[FIELDS.as_bytes(), b"\r\na\r\n.b\r\n"].concat());
        assert!(whole.ends_with(b"\r\n\r\na\r\n.b\r\n") && !finished.traits.binary);
    }

    #[test]
    fn what_has_no_header_section_is_octets_from_its_first_line() {
        for body in [&b"no field\n\r\n"[..], b"\r\ra\n", b"no end", b"\0: x\n", b" x\ny", b"\xff\r.\r\n"] {
            let (_, whole) = stored(body);
            assert!(whole.ends_with(&[b"\r\n\r\n", body].concat()), "{}", whole.escape_ascii());
            assert!(whole.starts_with(b"From: <me@app.example>\r\nDate: "), "{}", whole.escape_ascii());
        }
        // Fields that end without an empty line.
        for rest in [&b"no field\n"[..], b"no end", b"\0\n\n"] {
            let (_, whole) = stored(&[FIELDS.as_bytes(), rest].concat());
            assert_eq!(whole, [FIELDS.as_bytes(), b"\r\n", rest].concat(), "{}", whole.escape_ascii());
        }
        let (finished, whole) = stored(FIELDS.trim_end().as_bytes());
        assert_eq!(whole, FIELDS.as_bytes());
        assert!(!finished.traits.binary);
    }

    #[test]
    fn a_large_body_of_octets_is_cut_into_chunks_as_it_is() {
        let body: Vec<u8> = (0..3 * CHUNK as u32 + 5).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let content = [FIELDS.as_bytes(), b"\r\n", &body].concat();
        let parts: Vec<&[u8]> = content.chunks(60_000).collect();
        let (finished, whole) = build_with(&parts, ENOUGH, true).expect("taken");
        assert!(whole.ends_with(&body) && finished.traits.binary);
        assert!(matches!(build_with(&parts, 1000, true), Err(Refusal::TooLarge)));
    }

    proptest! {
        #[test]
        fn any_cut_stores_the_same(
            content in prop::collection::vec(prop_oneof![
                3 => prop::sample::select(vec!["\r", "\n", "\r\n", "\0", ".", "a: b", "Bcc: c", "From x", " ", "\u{e9}"])
                    .prop_map(|s| s.as_bytes().to_vec()),
                1 => prop::collection::vec(any::<u8>(), 0..4),
            ], 0..16).prop_map(|pieces| pieces.concat()),
            cuts in prop::collection::vec(1usize..20, 1..6),
        ) {
            let (mut parts, mut rest): (Vec<&[u8]>, &[u8]) = (Vec::new(), &content);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = after;
            }
            let (a, whole) = build_with(&[&content], ENOUGH, true).expect("taken");
            let (b, pieces) = build_with(&parts, ENOUGH, true).expect("taken");
            prop_assert_eq!(whole.escape_ascii().to_string(), pieces.escape_ascii().to_string());
            prop_assert_eq!((a.traits, a.size), (b.traits, b.size));
        }
    }
}
