//! A body that comes in chunks, by lines: without a copy where a line lies in one chunk, and with at
//! most [`MAX_LINE`] and two bytes kept between chunks.
//!
//! Only CRLF ends a line; a lone CR or LF is data. A line of at most [`MAX_LINE`] bytes comes in one
//! piece whatever the chunks are, a longer one in several. The CRLF is told with the line after it
//! (or at the end), because whose it is depends on that line: the one before a delimiter of a
//! multipart belongs to the delimiter (RFC 2046 §5.1.1).

use memchr::memchr;

use super::encode::MAX_LINE;

/// A line, or a part of a long one; never the CRLF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// The line begins with it. Of a long line it has at least [`MAX_LINE`] bytes.
    pub(super) first: bool,
    /// The line ends with it.
    pub(super) last: bool,
    /// The line has more than [`MAX_LINE`] bytes.
    pub(super) long: bool,
    /// A CRLF stands before it that nobody was told of.
    pub(super) after_break: bool,
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The start of a line whose end is not known yet, or the CR at the end of a piece of a long one.
    carry: Vec<u8>,
    /// Inside a long line.
    long: bool,
    /// The last line had its CRLF.
    broken: bool,
}

impl Lines {
    /// Takes the next chunk apart.
    pub(super) fn push<E>(
        &mut self,
        mut input: &[u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !input.is_empty() {
            input = if self.long {
                self.inside(input, take)?
            } else if self.carry.is_empty() {
                self.fresh(input, take)?
            } else {
                self.carried(input, take)?
            };
        }
        Ok(())
    }

    /// The end of the body; whether a CRLF stands there.
    pub(super) fn finish<E>(&mut self, take: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<bool, E> {
        let rest = std::mem::take(&mut self.carry);
        if self.long || !rest.is_empty() {
            let (first, long) = (!self.long, self.long || rest.len() > MAX_LINE);
            let after_break = first && std::mem::take(&mut self.broken);
            take(Piece { bytes: &rest, first, last: true, long, after_break })?;
        }
        Ok(self.broken)
    }

    /// At the start of a line.
    fn fresh<'a, E>(
        &mut self,
        input: &'a [u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        match find_crlf(input) {
            Some(at) => {
                let after_break = std::mem::replace(&mut self.broken, true);
                take(Piece { bytes: &input[..at], first: true, last: true, long: at > MAX_LINE, after_break })?;
                Ok(&input[at + 2..])
            }
            // One more might be the CR of a line that is just not too long.
            None if input.len() <= MAX_LINE + 1 => {
                self.carry.extend_from_slice(input);
                Ok(&[])
            }
            None => {
                self.begin_long(input, take)?;
                Ok(&[])
            }
        }
    }

    /// After the start of a line in an earlier chunk.
    fn carried<'a, E>(
        &mut self,
        input: &'a [u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        let had = self.carry.len();
        let some = (MAX_LINE + 2 - had).min(input.len());
        self.carry.extend_from_slice(&input[..some]);
        let from = had - 1;
        if let Some(at) = find_crlf(&self.carry[from..]).map(|at| from + at) {
            let after_break = std::mem::replace(&mut self.broken, true);
            take(Piece { bytes: &self.carry[..at], first: true, last: true, long: at > MAX_LINE, after_break })?;
            self.carry.clear();
            return Ok(&input[at + 2 - had..]);
        }
        if self.carry.len() == MAX_LINE + 2 {
            let start = std::mem::take(&mut self.carry);
            self.begin_long(&start, take)?;
        }
        Ok(&input[some..])
    }

    /// The start of a long line without its end.
    fn begin_long<E>(&mut self, start: &[u8], take: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let after_break = std::mem::take(&mut self.broken);
        self.long = true;
        let bytes = self.without_cr(start);
        take(Piece { bytes, first: true, last: false, long: true, after_break })
    }

    /// A CR at the end may be half of a line's end.
    fn without_cr<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match bytes.strip_suffix(b"\r") {
            Some(bytes) => {
                self.carry.push(b'\r');
                bytes
            }
            None => bytes,
        }
    }

    /// Inside a long line.
    fn inside<'a, E>(
        &mut self,
        input: &'a [u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        let piece = |bytes, last| Piece { bytes, first: false, last, long: true, after_break: false };
        if !self.carry.is_empty() {
            self.carry.clear();
            if input.first() == Some(&b'\n') {
                (self.long, self.broken) = (false, true);
                take(piece(b"", true))?;
                return Ok(&input[1..]);
            }
            take(piece(b"\r", false))?;
        }
        match find_crlf(input) {
            Some(at) => {
                (self.long, self.broken) = (false, true);
                take(piece(&input[..at], true))?;
                Ok(&input[at + 2..])
            }
            None => {
                let bytes = self.without_cr(input);
                take(piece(bytes, false))?;
                Ok(&[])
            }
        }
    }
}

/// Where the first CRLF begins.
fn find_crlf(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr(b'\n', &bytes[from..]).map(|at| from + at) {
        if at > 0 && bytes[at - 1] == b'\r' {
            return Some(at - 1);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::encode::{content, lines};
    use super::*;

    /// The lines of a body cut like that, and the most bytes kept between two chunks.
    fn read(body: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, bool, usize) {
        let (mut reader, mut out, mut rest, mut kept) = (Lines::default(), Vec::<Vec<u8>>::new(), body, 0);
        let mut open = false;
        let mut take = |p: Piece<'_>| -> Result<(), ()> {
            assert_eq!(p.first, !open, "{p:?}");
            assert!(p.long || (p.first && p.last));
            assert!(!p.first || p.after_break != out.is_empty(), "{p:?}");
            if p.first {
                assert!(!p.long || p.bytes.len() >= MAX_LINE);
                out.push(Vec::new());
            }
            out.last_mut().unwrap().extend_from_slice(p.bytes);
            if p.last {
                assert_eq!(p.long, out.last().unwrap().len() > MAX_LINE);
            }
            open = !p.last;
            Ok(())
        };
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            reader.push(chunk, &mut take).unwrap();
            kept = kept.max(reader.carry.len());
            rest = after;
        }
        let broken = reader.finish(&mut take).unwrap();
        assert!(!open);
        (out, broken, kept)
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines_and_keeps_one_at_most(
            pieces in proptest::collection::vec(prop_oneof![
                3 => Just(b"\r\n".to_vec()), 1 => Just(b"\r".to_vec()), 1 => Just(b"\n".to_vec()),
                2 => (990usize..1005).prop_map(|n| vec![b'x'; n]), 1 => Just(b"--b".to_vec()),
            ], 0..14),
            cuts in proptest::collection::vec(prop_oneof![1usize..4, 900usize..1100], 1..20),
        ) {
            let body = pieces.concat();
            let expected: Vec<Vec<u8>> = lines(&body).map(|l| content(l).to_vec()).collect();
            let (found, broken, kept) = read(&body, &cuts);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(broken, body.ends_with(b"\r\n"));
            prop_assert!(kept <= MAX_LINE + 2);
        }
    }
}
