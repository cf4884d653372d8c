//! Command lines: bounded, and in step with the client also when a line is too long.
//!
//! A line ends at LF; whether the CR before it was there is told, because a command that ends in a
//! bare LF is refused unless the listener takes such devices. A line over the limit is skipped to
//! its end and reported once, so that the next command is found where it starts.

use memchr::memchr;

/// What stands at the start of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// No whole line yet; the caller drops `discard` bytes (parts of a line that is too long).
    Incomplete {
        /// Bytes to drop.
        discard: usize,
    },
    /// A line.
    Complete {
        /// Length without its line end.
        len: usize,
        /// Length with its line end.
        used: usize,
        /// It ends in CRLF, not in a bare LF.
        crlf: bool,
    },
    /// A line over the limit ends here.
    TooLong {
        /// Length of what is left of it, with its line end.
        used: usize,
    },
}

/// Finds lines at the start of a buffer that grows at its end and is consumed at its start.
#[derive(Clone, Debug, Default)]
pub struct LineReader {
    /// Bytes of the buffer already searched for LF.
    searched: usize,
    /// Inside a line that is too long.
    skipping: bool,
}

impl LineReader {
    /// Looks at the buffer; `limit` is the longest line in bytes, line end included.
    pub fn next(&mut self, buffer: &[u8], limit: usize) -> Line {
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        match memchr(b'\n', unsearched) {
            Some(n) => {
                let used = self.searched + n + 1;
                self.searched = 0;
                if std::mem::take(&mut self.skipping) || used > limit {
                    return Line::TooLong { used };
                }
                let crlf = used >= 2 && buffer[used - 2] == b'\r';
                Line::Complete { len: used - 1 - usize::from(crlf), used, crlf }
            }
            None if self.skipping || buffer.len() > limit => {
                self.skipping = true;
                self.searched = 0;
                Line::Incomplete { discard: buffer.len() }
            }
            None => {
                self.searched = buffer.len();
                Line::Incomplete { discard: 0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads all lines of `input`, given in pieces.
    fn lines(pieces: &[&[u8]], limit: usize) -> Vec<Result<Vec<u8>, ()>> {
        let (mut reader, mut buffer, mut out) = (LineReader::default(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match reader.next(&buffer, limit) {
                    Line::Incomplete { discard } => {
                        buffer.drain(..discard);
                        break;
                    }
                    Line::Complete { len, used, .. } => {
                        out.push(Ok(buffer[..len].to_vec()));
                        buffer.drain(..used);
                    }
                    Line::TooLong { used } => {
                        out.push(Err(()));
                        buffer.drain(..used);
                    }
                }
            }
            assert!(buffer.len() <= limit);
        }
        out
    }

    #[test]
    fn finds_lines_and_skips_long_ones() {
        let ok = |s: &str| Ok(s.as_bytes().to_vec());
        assert_eq!(lines(&[b"NOOP\r\nQU", b"IT\n"], 10), [ok("NOOP"), ok("QUIT")]);
        assert_eq!(lines(&[b"123456789012345678", b"90\r", b"\nNOOP\r\n"], 10), [Err(()), ok("NOOP")]);
        assert_eq!(LineReader::default().next(b"a\n", 9), Line::Complete { len: 1, used: 2, crlf: false });
        assert_eq!(LineReader::default().next(b"\r\n", 9), Line::Complete { len: 0, used: 2, crlf: true });
    }

    proptest! {
        #[test]
        fn any_split_finds_the_same_lines(input in "[ab\r\n]{0,60}", cut in 0usize..60) {
            let input = input.as_bytes();
            let cut = cut.min(input.len());
            prop_assert_eq!(lines(&[input], 12), lines(&[&input[..cut], &input[cut..]], 12));
        }
    }
}
