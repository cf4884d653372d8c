//! Relaxed canonicalization (RFC 6376 §3.4.2, §3.4.4).
//!
//! Invariants:
//! - What comes out does not depend on how a body is cut into pieces.
//! - Only CRLF ends a line: a CR or LF alone is a byte like any other.
//! - Nothing of a body is kept but counts, whatever its size.

/// Bytes that are collected before they are passed on.
const BLOCK: usize = 4096;

/// White space as RFC 6376 §2.8 has it.
fn is_wsp(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// The canonical form of a header field, with the CRLF at its end. `field` is a whole one, folded or not, with its
/// line end or without; one without a colon is all name.
pub fn header(field: &[u8]) -> Vec<u8> {
    let colon = memchr::memchr(b':', field).unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    let end = name.iter().rposition(|b| !is_wsp(*b) && !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
    let mut out = Vec::with_capacity(field.len() + 2);
    out.extend(name[..end].iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut gap = false;
    let mut rest = value.get(1..).unwrap_or_default();
    while let Some((first, after)) = rest.split_first() {
        // Unfolding removes the line end alone; the white space behind it is part of a run.
        if rest.starts_with(b"\r\n") {
            rest = &rest[2..];
            continue;
        }
        rest = after;
        if is_wsp(*first) {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) && out.len() > start {
            out.push(b' ');
        }
        out.push(*first);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The canonical form of a body that comes in pieces.
#[derive(Debug, Default)]
pub struct Body {
    /// White space of this line that something may still follow.
    gap: bool,
    /// The last byte was a CR.
    cr: bool,
    /// Line ends since the last byte that counts: empty lines, if nothing follows.
    ends: u64,
    /// There was a byte that counts.
    any: bool,
}

impl Body {
    /// Takes a piece; what is canonical of it goes to `out`, in blocks.
    pub fn push(&mut self, piece: &[u8], out: &mut impl FnMut(&[u8])) {
        let mut block = Vec::with_capacity(BLOCK.min(piece.len()) + 8);
        let mut rest = piece;
        while let Some((first, after)) = rest.split_first() {
            if self.cr {
                self.cr = false;
                if *first == b'\n' {
                    self.gap = false;
                    self.ends += 1;
                    rest = after;
                    continue;
                }
                self.text(b"\r", &mut block, out);
            }
            match first {
                b'\r' => {
                    self.cr = true;
                    rest = after;
                }
                b' ' | b'\t' => {
                    self.gap = true;
                    rest = after;
                }
                _ => {
                    let end = memchr::memchr3(b' ', b'\t', b'\r', rest).unwrap_or(rest.len());
                    self.text(&rest[..end], &mut block, out);
                    rest = &rest[end..];
                }
            }
        }
        out(&block);
    }

    /// What follows the last piece: the end of the last line, if there is anything at all.
    pub fn finish(mut self, out: &mut impl FnMut(&[u8])) {
        let mut block = Vec::new();
        if self.cr {
            self.text(b"\r", &mut block, out);
        }
        if self.any {
            block.extend_from_slice(b"\r\n");
        }
        out(&block);
    }

    /// Bytes of a line that are no white space.
    fn text(&mut self, text: &[u8], block: &mut Vec<u8>, out: &mut impl FnMut(&[u8])) {
        for _ in 0..std::mem::take(&mut self.ends) {
            block.extend_from_slice(b"\r\n");
            flush(block, out);
        }
        if std::mem::take(&mut self.gap) {
            block.push(b' ');
        }
        self.any = true;
        if text.len() >= BLOCK {
            out(block);
            block.clear();
            out(text);
        } else {
            block.extend_from_slice(text);
            flush(block, out);
        }
    }
}

fn flush(block: &mut Vec<u8>, out: &mut impl FnMut(&[u8])) {
    if block.len() >= BLOCK {
        out(block);
        block.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut all, mut state) = (Vec::new(), Body::default());
        let mut out = |bytes: &[u8]| all.extend_from_slice(bytes);
        for piece in pieces {
            state.push(piece, &mut out);
        }
        state.finish(&mut out);
        all
    }

    /// RFC 6376 §3.4.4 line by line, without any state.
    fn by_the_book(body: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let end = memchr::memmem::find(rest, b"\r\n");
            let line = &rest[..end.unwrap_or(rest.len())];
            rest = end.map_or(&[], |end| &rest[end + 2..]);
            let mut words: Vec<&[u8]> = line.split(|b| is_wsp(*b)).collect();
            let leads = words.first().is_some_and(|w| w.is_empty()) && line.first().is_some_and(|b| is_wsp(*b));
            words.retain(|word| !word.is_empty());
            let mut line = if leads && !words.is_empty() { vec![b' '] } else { Vec::new() };
            line.extend_from_slice(&words.join(&b' '));
            lines.push(line);
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines.iter().flat_map(|line| [line.as_slice(), b"\r\n"].concat()).collect()
    }

    /// RFC 6376 §3.4.5.
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(header(b"A: X\r\n"), b"a:X\r\n");
        assert_eq!(header(b"B : Y\t\r\n\tZ  \r\n"), b"b:Y Z\r\n");
        assert_eq!(body(&[b" C \r\nD \t E\r\n\r\n\r\n"]), b" C\r\nD E\r\n");
    }

    #[test]
    fn fields_that_are_odd() {
        for (field, expected) in [
            (&b"Subject:\r\n"[..], &b"subject:\r\n"[..]),
            (b"Subject: \r\n \r\n", b"subject:\r\n"),
            (b"SUBJect\t :\r\n a\r\n\t b", b"subject:a b\r\n"),
            (b"X: a:b\r\n", b"x:a:b\r\n"),
            (b"X", b"x:\r\n"),
            (b"X: \xff\xfe \t\xe9\r\n", b"x:\xff\xfe \xe9\r\n"),
        ] {
            assert_eq!(header(field), expected, "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn an_empty_body_is_nothing_and_every_other_ends_in_a_line_end() {
        for empty in [&b""[..], b"\r\n", b" \r\n\t\r\n\r\n", b"  "] {
            assert_eq!(body(&[empty]), b"", "{empty:?}");
        }
        assert_eq!(body(&[b"a"]), b"a\r\n");
        assert_eq!(body(&[b"a \t"]), b"a\r\n");
        assert_eq!(body(&[b"\r\n\r\na\r"]), b"\r\n\r\na\r\r\n");
    }

    proptest! {
        #[test]
        fn any_body_in_any_pieces_is_as_by_the_book(
            parts in prop::collection::vec(
                prop::sample::select(vec![&b"\r\n"[..], b" ", b"\t", b"a", b"\r", b"\n", b"long word", b"\xc3\xa9", b"."]),
                0..60,
            ),
            cut in 1usize..9,
        ) {
            let whole = parts.concat();
            let pieces: Vec<&[u8]> = whole.chunks(cut).collect();
            prop_assert_eq!(body(&pieces), by_the_book(&whole));
        }
    }

    #[test]
    fn large_runs_and_many_empty_lines_come_through() {
        let whole = [&b"x".repeat(3 * BLOCK)[..], &b"\r\n".repeat(BLOCK), b"y z".repeat(BLOCK).as_slice()].concat();
        assert_eq!(body(&whole.chunks(1000).collect::<Vec<_>>()), by_the_book(&whole));
    }
}
