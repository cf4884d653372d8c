//! Standard output and error of commands. To a pipe or a file bytes go as they are; on a terminal,
//! which obeys what it is told, what is hidden is shown and not sent: what a message, a reply or a file
//! name contains cannot move the cursor, rename the window, answer for its reader or look like
//! something else (`observe::visible`). What is said on standard error is for people wherever it goes.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use crate::observe::{is_hidden, show};

/// Standard output.
pub fn stdout() -> Screen<Stdout> {
    let out = io::stdout();
    Screen::new(out.is_terminal(), out)
}

/// Standard error.
pub fn stderr() -> Screen<Stderr> {
    let out = io::stderr();
    Screen::new(out.is_terminal(), out)
}

/// Tells `lines` on standard error, each after `program: `, without ever waiting long for its reader.
pub fn say(program: &str, lines: &str) {
    crate::observe::say(program, &lines.lines().map(shown).collect::<Vec<_>>().join("\n"));
}

/// The text in one line, with what is hidden written out.
pub fn shown(text: &str) -> String {
    crate::observe::shown(text).into_owned()
}

/// See the module. Tabs and line ends stay, CRLF too. What may be a part of a character or of a CRLF
/// waits for the rest, until it is dropped.
#[derive(Debug)]
pub struct Screen<W: Write> {
    out: W,
    terminal: bool,
    rest: Vec<u8>,
}

impl<W: Write> Screen<W> {
    fn new(terminal: bool, out: W) -> Screen<W> {
        Screen { out, terminal, rest: Vec::new() }
    }

    /// `last`: nothing follows.
    fn pass(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
        let all = [std::mem::take(&mut self.rest).as_slice(), bytes].concat();
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let is_last = chunks.peek().is_none();
            let mut chars = chunk.valid().chars().peekable();
            while let Some(c) = chars.next() {
                match (c, chars.peek()) {
                    ('\n' | '\t', _) => text.push(c),
                    ('\r', Some('\n')) => text.push(c),
                    ('\r', None) if is_last && chunk.invalid().is_empty() && !last => self.rest.push(b'\r'),
                    _ if is_hidden(c) => show(c, &mut text),
                    _ => text.push(c),
                }
            }
            // At the end it may be the start of a character: those are known by their first byte.
            let invalid = chunk.invalid();
            if is_last
                && !last
                && invalid.len() < 4
                && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none())
            {
                self.rest.extend_from_slice(invalid);
            } else {
                use std::fmt::Write as _;
                for byte in invalid {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
        }
        self.out.write_all(text.as_bytes())
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.terminal {
            return self.out.write(bytes);
        }
        self.pass(bytes, false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            // The terminal is gone: nobody is left to tell.
            let _ = self.pass(&[], true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(terminal: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut screen = Screen::new(terminal, &mut out);
        for piece in pieces {
            screen.write_all(piece).unwrap();
        }
        drop(screen);
        out
    }

    #[test]
    fn a_terminal_shows_what_a_pipe_gets_as_it_is() {
        let bytes =
            b"Subject: \x1b]0;owned\x07 \xc2\x9b31m j\xc3\xb6rg \xff\xe2\x80\xae\r\n\tfolded\rover\x08\n\x7f\xc3";
        let shown = "Subject: \\x1b]0;owned\\x07 \\u{9b}31m jörg \\xff\\u{202e}\r\n\tfolded\\x0dover\\x08\n\\x7f\\xc3";
        assert_eq!(String::from_utf8(written(true, &[bytes])).unwrap(), shown);
        assert_eq!(written(false, &[bytes]), bytes);
    }

    proptest! {
        #[test]
        fn any_split_shows_the_same_and_nothing_harmful_gets_through(
            bytes in prop::collection::vec(prop::sample::select(
                vec![b'a', 0x1b, b'\r', b'\n', 0xc2, 0x9b, 0xe2, 0x80, 0xae, 0xf0, 0x9f, 0xff, 0x7f]), 0..24),
            cut in 0usize..24,
        ) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let whole = written(true, &[&bytes]);
            prop_assert_eq!(&written(true, &[a, b]), &whole);
            let text = String::from_utf8(whole).unwrap();
            let rest = text.replace("\r\n", "\n");
            prop_assert!(!rest.chars().any(|c| is_hidden(c) && c != '\n' && c != '\t'), "{:?}", text);
        }
    }
}
