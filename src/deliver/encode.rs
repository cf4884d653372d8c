//! The body as it goes over the wire (RFC 5321 §4.5.2 dot-stuffing, §4.5.3.1.6 line length).
//!
//! Whatever goes in, what comes out has CRLF line ends only, no line over [`MAX_LINE`] bytes, a
//! CRLF at its end and, for DATA, no line that starts with a single dot: invariant 9, and a second
//! lock against smuggling. That does not depend on what the body's traits promise. A chunk that is
//! fine as it is goes out as it is, without a copy.
//!
//! - A CR or LF alone becomes CRLF.
//! - For DATA (and in what is signed, which may go by it) a NUL that begins a line becomes `?`: a host that passes over NULs would see the line begin behind it, with a
//!   dot that nobody doubled.
//! - A line over 998 bytes is folded: CRLF and one space are put in so that no line is over 998,
//!   never inside a UTF-8 sequence. (In a header that is folding as RFC 5322 §2.2.3 knows it; in a
//!   body it adds a line break. Text parts are better re-encoded before they come here.)
//! - What comes out does not depend on how the body is cut into chunks.

use bytes::Bytes;
use memchr::{memchr, memchr2};

/// Longest line, without its CRLF.
pub const MAX_LINE: usize = 998;

/// The state between two chunks.
#[derive(Debug)]
pub struct Encoder {
    /// Double leading dots (DATA); BDAT needs none.
    stuff: bool,
    /// Mark a NUL at the start of a line.
    mark: bool,
    /// Bytes of the current line so far, as sent, without a dot that was put in.
    line: usize,
    /// The last byte was a CR whose fate depends on the next one.
    cr: bool,
    /// Start of a UTF-8 sequence that may not fit into the line any more.
    held: [u8; 4],
    held_len: usize,
}

impl Encoder {
    /// For DATA: dots are stuffed, and [`Encoder::finish`] ends with the dot line.
    pub fn for_data() -> Encoder {
        Encoder { stuff: true, mark: true, line: 0, cr: false, held: [0; 4], held_len: 0 }
    }

    /// For BDAT (RFC 3030): no dots.
    pub fn for_bdat() -> Encoder {
        Encoder { stuff: false, mark: false, ..Encoder::for_data() }
    }

    /// For what is signed before it is known how it goes: neither of the others changes anything more in it, but for
    /// dots.
    pub fn for_signing() -> Encoder {
        Encoder { stuff: false, ..Encoder::for_data() }
    }

    /// The next chunk as it goes out.
    pub fn encode(&mut self, chunk: Bytes) -> Bytes {
        if let Some(line) = self.is_fine(&chunk) {
            self.line = line;
            return chunk;
        }
        let mut out = Vec::with_capacity(chunk.len() + chunk.len() / 64 + 64);
        self.push(&chunk, &mut out);
        Bytes::from(out)
    }

    /// What follows the last chunk: a CRLF if the body has none at its end, and for DATA the dot line.
    pub fn finish(&mut self) -> Bytes {
        if !self.cr && self.held_len == 0 {
            return Bytes::from_static(match (self.line > 0, self.stuff) {
                (true, true) => b"\r\n.\r\n",
                (true, false) => b"\r\n",
                (false, true) => b".\r\n",
                (false, false) => b"",
            });
        }
        let mut out = Vec::with_capacity(16);
        self.flush_held(&mut out);
        if self.cr || self.line > 0 {
            self.end_line(&mut out);
        }
        if self.stuff {
            out.extend_from_slice(b".\r\n");
        }
        Bytes::from(out)
    }

    /// If the chunk needs no change: the length of the line that it leaves unfinished.
    fn is_fine(&self, chunk: &[u8]) -> Option<usize> {
        if self.cr || self.held_len > 0 {
            return None;
        }
        let mut line = self.line;
        let mut rest = chunk;
        let mut ends = 0;
        while !rest.is_empty() {
            if line == 0 && (self.stuff && rest[0] == b'.' || self.mark && rest[0] == 0) {
                return None;
            }
            match memchr(b'\n', rest) {
                Some(lf) => {
                    if lf == 0 || rest[lf - 1] != b'\r' || line + lf - 1 > MAX_LINE {
                        return None;
                    }
                    ends += 1;
                    line = 0;
                    rest = &rest[lf + 1..];
                }
                None => {
                    line += rest.len();
                    // The margin leaves any UTF-8 sequence at the end for the careful way.
                    if line > MAX_LINE - 4 || rest.last() == Some(&b'\r') {
                        return None;
                    }
                    rest = &[];
                }
            }
        }
        (memchr::memchr_iter(b'\r', chunk).count() == ends).then_some(line)
    }

    fn push(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) {
        while let Some(first) = chunk.first() {
            if self.cr {
                self.end_line(out);
                if *first == b'\n' {
                    chunk = &chunk[1..];
                }
                continue;
            }
            match memchr2(b'\r', b'\n', chunk) {
                Some(0) => {
                    self.flush_held(out);
                    if *first == b'\r' {
                        self.cr = true;
                    } else {
                        self.end_line(out);
                    }
                    chunk = &chunk[1..];
                }
                end => {
                    let (run, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
                    self.push_run(run, out);
                    chunk = rest;
                }
            }
        }
    }

    /// A piece of a line, not empty, without CR and LF.
    fn push_run(&mut self, run: &[u8], out: &mut Vec<u8>) {
        let mut run = run;
        if self.line == 0 && self.held_len == 0 {
            match run.split_first() {
                Some((b'.', _)) if self.stuff => out.push(b'.'),
                Some((0, rest)) if self.mark => {
                    self.put(b'?', out);
                    run = rest;
                }
                _ => {}
            }
        }
        if self.held_len == 0 && self.line + run.len() <= MAX_LINE - 4 {
            out.extend_from_slice(run);
            self.line += run.len();
            return;
        }
        for byte in run {
            self.push_byte(*byte, out);
        }
    }

    fn push_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.held_len > 0 {
            if byte & 0xC0 == 0x80 {
                self.held[self.held_len] = byte;
                self.held_len += 1;
                if self.held_len == sequence_len(self.held[0]) {
                    if self.line + self.held_len > MAX_LINE {
                        self.fold(out);
                    }
                    out.extend_from_slice(&self.held[..self.held_len]);
                    self.line += self.held_len;
                    self.held_len = 0;
                }
                return;
            }
            self.flush_held(out);
        }
        // Near the end of the line a sequence is held until it is known whether it is one.
        if sequence_len(byte) > 1 && self.line + sequence_len(byte) > MAX_LINE {
            self.held[0] = byte;
            self.held_len = 1;
            return;
        }
        self.put(byte, out);
    }

    fn put(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.line == MAX_LINE {
            self.fold(out);
        }
        out.push(byte);
        self.line += 1;
    }

    /// What was held is no UTF-8: its bytes stand for themselves.
    fn flush_held(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held_len);
        for i in 0..held {
            self.put(self.held[i], out);
        }
    }

    fn fold(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n ");
        self.line = 1;
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.cr = false;
        self.line = 0;
    }
}

/// Length of the UTF-8 sequence that this byte starts; 1 if it starts none.
fn sequence_len(byte: u8) -> usize {
    match byte {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(mut encoder: Encoder, chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&encoder.finish());
        out
    }

    fn data(body: &[u8]) -> Vec<u8> {
        encode(Encoder::for_data(), &[body])
    }

    /// What a receiver makes of it, RFC 5321 §4.5.2.
    fn unstuff(wire: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in wire.strip_suffix(b".\r\n").expect("dot line").split_inclusive(|b| *b == b'\n') {
            assert_ne!(line, b".\r\n", "a dot line inside the body");
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        out
    }

    fn assert_legal(wire: &[u8]) {
        assert!(wire.is_empty() || wire.ends_with(b"\r\n"));
        for line in wire.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r\n").expect("no bare LF");
            assert!(!line.contains(&b'\r'), "no bare CR");
            assert!(line.len() <= MAX_LINE + 1, "{}", line.len());
        }
    }

    #[test]
    fn dots_and_line_ends() {
        assert_eq!(data(b"a\r\n.\r\n..b\r\nc.\r\n"), b"a\r\n..\r\n...b\r\nc.\r\n.\r\n");
        assert_eq!(data(b""), b".\r\n");
        assert_eq!(data(b"a"), b"a\r\n.\r\n");
        assert_eq!(data(b"a\n.\nb\r.\rc\r"), b"a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n");
        assert_eq!(encode(Encoder::for_bdat(), &[b".a\r\n", b".b"]), b".a\r\n.b\r\n");
        assert_eq!(encode(Encoder::for_data(), &[b"a\r", b"\n.", b"\r\n"]), b"a\r\n..\r\n.\r\n");
    }

    #[test]
    fn a_chunk_that_is_fine_is_not_copied() {
        let chunk = Bytes::from_static(b"Subject: x\r\n\r\nhello\r\nrest of a li");
        let mut encoder = Encoder::for_data();
        let out = encoder.encode(chunk.clone());
        assert_eq!(out.as_ptr(), chunk.as_ptr());
        assert_eq!(encoder.finish(), Bytes::from_static(b"\r\n.\r\n"));
    }

    #[test]
    fn folds_between_characters_only() {
        let long = "é".repeat(700);
        let wire = data(long.as_bytes());
        assert_legal(&wire);
        let text = String::from_utf8(wire).expect("no character is split");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0].len(), 998);
        assert_eq!(lines[1].len(), 1 + 1400 - 998);
        assert!(lines[1].starts_with(' '));
        assert_eq!(lines[2], ".");
        // Exactly 998 bytes, the last of them the start of a sequence that never comes.
        let mut latin = vec![b'x'; 997];
        latin.push(0xF0);
        latin.extend_from_slice(b"\r\n");
        assert_eq!(unstuff(&data(&latin)), latin);
    }

    /// One that takes a NUL for a byte, one that passes over it, and one whose lines end there.
    #[test]
    fn no_reader_of_nuls_sees_the_end_before_the_end() {
        let pieces: [&[u8]; 4] = [b"\0", b".", b"\r\n", b"a"];
        for length in 0..7u32 {
            for n in 0..pieces.len().pow(length) {
                let which = |at: u32| pieces[n / pieces.len().pow(at) % pieces.len()];
                let body = (0..length).map(which).collect::<Vec<_>>().concat();
                let wire = data(&body);
                assert!(data(&body) == encode(Encoder::for_data(), &body.chunks(1).collect::<Vec<_>>()), "{body:?}");
                let before = &wire[..wire.len() - 3];
                assert!(wire.ends_with(b".\r\n") && (before.is_empty() || before.ends_with(b"\r\n")), "{wire:?}");
                for line in before.split(|byte| *byte == b'\n') {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    let dropped: Vec<u8> = line.iter().copied().filter(|byte| *byte != 0).collect();
                    let cut = line.split(|byte| *byte == 0).next().unwrap_or_default();
                    assert!(![line, &dropped, cut].contains(&&b"."[..]), "{body:?} leaves as {wire:?}");
                }
            }
        }
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(b'.'), 2 => Just(b'\r'), 2 => Just(b'\n'), 6 => any::<u8>()];
        let piece = prop_oneof![
            3 => proptest::collection::vec(byte, 0..20),
            1 => (980usize..1010, any::<char>()).prop_map(|(n, c)| {
                let mut v = vec![b'x'; n];
                v.extend_from_slice(c.to_string().as_bytes());
                v
            }),
            1 => Just(b"\r\n".to_vec()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_legal_bytes(body in lines(), cuts in proptest::collection::vec(1usize..400, 1..20)) {
            for encoder in [Encoder::for_data, Encoder::for_bdat, Encoder::for_signing] {
                let whole = encode(encoder(), &[&body]);
                assert_legal(&whole);
                let (mut chunks, mut rest) = (Vec::new(), &body[..]);
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() { break }
                    let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                    chunks.push(piece);
                    rest = tail;
                }
                prop_assert_eq!(&encode(encoder(), &chunks), &whole);
            }
        }

        #[test]
        fn short_lines_arrive_as_they_are(lines in proptest::collection::vec(
            proptest::collection::vec(any::<u8>().prop_filter("text", |b| *b != b'\r' && *b != b'\n'), 0..60), 0..20)) {
            let mut body = Vec::new();
            for line in &lines {
                body.extend_from_slice(line);
                body.extend_from_slice(b"\r\n");
            }
            let sent: Vec<u8> = lines.iter().flat_map(|line| match line.split_first() {
                Some((0, rest)) => [b"?", rest, b"\r\n"].concat(),
                _ => [&line[..], b"\r\n"].concat(),
            }).collect();
            prop_assert_eq!(unstuff(&data(&body)), sent);
            prop_assert_eq!(encode(Encoder::for_bdat(), &[&body]), body);
        }

        /// Else the signature would be of something else than what a host gets.
        #[test]
        fn what_is_made_to_be_signed_is_what_a_host_gets_by_data_and_by_bdat(
            body in lines(), bytes in proptest::collection::vec(prop::sample::select(b"\0.\r\na \xc3\xa9".to_vec()), 0..60),
        ) {
            for body in [body, bytes] {
                let signed = encode(Encoder::for_signing(), &[&body]);
                prop_assert_eq!(unstuff(&data(&signed)), signed.clone());
                prop_assert_eq!(&unstuff(&data(&body)), &signed);
                prop_assert_eq!(encode(Encoder::for_bdat(), &[&signed]), signed);
            }
        }

        #[test]
        fn folding_only_adds_breaks(text in "[a-zé☃𝄞]{1200,2500}") {
            let wire = String::from_utf8(data(text.as_bytes())).expect("no character is split");
            prop_assert_eq!(wire.replace("\r\n ", "").replace("\r\n.\r\n", ""), text);
        }
    }
}
