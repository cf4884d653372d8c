//! Where message data ends (RFC 5321 §4.1.1.4, §4.5.2), and line ends in what is stored.
//!
//! A reader that takes more than the exact bytes CRLF `.` CRLF as the end of a message can be made
//! to see two messages where its peer sees one ("SMTP smuggling", CVE-2023-51764 and its family).
//! A reader that refuses bare CR and LF loses mail of old clients. So:
//!
//! - the data ends at CRLF `.` CRLF and nowhere else (the CRLF of the DATA command line counts as
//!   the one before the first line);
//! - exactly one dot at the start of a line is removed, and a line starts after CRLF only;
//! - a bare LF becomes CRLF in what comes out, but is no line end for the two rules above. What looks
//!   like a lone dot afterwards is content, and is stuffed again on the way out;
//! - CRs in front of a CRLF are dropped: many a program makes CRLF of the LF in its CRLF. Such a line ends
//!   at its CRLF like any other, so a dot behind it that stands alone does end the data;
//! - any other CR comes out bare, by itself ([`is_bare_cr`]): whether it is white space or a line end
//!   depends on where it stands, which is for `listener::draft` to know.
//!
//! ```text
//!            ┌────────────── CRLF ──────────────┐
//!            ▼                                  │
//!        LineStart ── other ──────────────►   Text ◄─┐
//!            │                                ▲ │    │ bare LF: CRLF comes out
//!           "."                         other │ CR   │ other: the CRs come out, bare
//!            ▼                                │ ▼    │
//!           Dot ── other, the dot is gone ────┘ Cr ──┤
//!            │ CR                             ▲ ▲    │ CR: one more
//!            ▼                                │ │    │ LF: CRLF comes out, LineStart
//!          DotCr ── other, CR comes out ──────┘ │
//!            │ │                                │
//!            │ └─── CR, the dot is gone ────────┘
//!            │ LF
//!            ▼
//!           End
//! ```
//!
//! A listener for devices that know only LF (`lf_only`) treats LF as CRLF everywhere: there, and
//! only there, LF `.` LF ends a message too.
//!
//! An oversize message is read to its real end all the same: who stops before it takes content
//! for commands.

use memchr::memchr2;

const CRLF: &[u8] = b"\r\n";

/// CRs that come out at once at most.
const CRS: [u8; 64] = [b'\r'; 64];

/// Whether a run of decoded content consists of bare CRs. They come by themselves, and no other run
/// begins with a CR that has no LF behind it.
pub fn is_bare_cr(run: &[u8]) -> bool {
    run.first() == Some(&b'\r') && run.get(1) != Some(&b'\n')
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// After CRLF, or at the very start.
    LineStart,
    /// A dot at the start of a line, held back.
    Dot,
    /// A dot and CR at the start of a line, both held back.
    DotCr,
    /// Inside a line, or after a bare CR or LF.
    Text,
    /// CRs, as many as are held back.
    Cr,
}

/// What [`DotReader::feed`] made of a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fed {
    /// All of it is message data, and there is more to come.
    More,
    /// The message ended; so many bytes of the slice belong to it, dot line included.
    End(usize),
}

/// Decodes the data that follows a DATA command. One reader for one message.
#[derive(Clone, Debug)]
pub struct DotReader {
    state: State,
    /// CRs held back.
    held: u64,
    lf_only: bool,
    dots: bool,
}

impl DotReader {
    /// `lf_only`: take LF for CRLF (an exemption of a listener, never the default).
    pub fn new(lf_only: bool) -> DotReader {
        DotReader { state: State::LineStart, held: 0, lf_only, dots: true }
    }

    /// Decodes a slice; the decoded content goes to `out` in runs as long as possible. After
    /// [`Fed::End`] the reader must not be fed again.
    pub fn feed(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) -> Fed {
        let mut emit = |run: &[u8]| {
            if !run.is_empty() {
                out(run);
            }
        };
        // input[run..at] is content that goes out unchanged and has not gone yet.
        let (mut run, mut at) = (0, 0);
        loop {
            match self.state {
                State::Text => match memchr2(b'\r', b'\n', &input[at..]) {
                    None => {
                        emit(&input[run..]);
                        return Fed::More;
                    }
                    Some(n) => {
                        at += n;
                        if input[at] == b'\r' {
                            if input.get(at + 1) == Some(&b'\n') {
                                // The common case: the run just goes on.
                                at += 2;
                                self.state = State::LineStart;
                                continue;
                            }
                            emit(&input[run..at]);
                            (self.state, self.held) = (State::Cr, 1);
                        } else {
                            emit(&input[run..at]);
                            emit(CRLF);
                            self.state = if self.lf_only { State::LineStart } else { State::Text };
                        }
                        at += 1;
                        run = at;
                    }
                },
                State::LineStart => match input.get(at) {
                    None => {
                        emit(&input[run..]);
                        return Fed::More;
                    }
                    Some(b'.') if self.dots => {
                        emit(&input[run..at]);
                        at += 1;
                        run = at;
                        self.state = State::Dot;
                    }
                    Some(_) => self.state = State::Text,
                },
                State::Dot => match input.get(at) {
                    None => return Fed::More,
                    Some(b'\r') => {
                        at += 1;
                        run = at;
                        self.state = State::DotCr;
                    }
                    Some(b'\n') if self.lf_only => return Fed::End(at + 1),
                    Some(_) => self.state = State::Text,
                },
                State::DotCr => match input.get(at) {
                    None => return Fed::More,
                    Some(b'\n') => return Fed::End(at + 1),
                    // Not the end of the data, and no line of its own either: the dot is gone.
                    Some(_) => (self.state, self.held) = (State::Cr, 1),
                },
                State::Cr => match input.get(at) {
                    None => return Fed::More,
                    Some(b'\n') => {
                        emit(CRLF);
                        at += 1;
                        run = at;
                        self.state = State::LineStart;
                    }
                    Some(b'\r') => {
                        self.held += 1;
                        at += 1;
                        run = at;
                    }
                    Some(_) => {
                        bare(&mut self.held, &mut emit);
                        self.state = State::Text;
                    }
                },
            }
        }
    }
}

/// The CRs that were held back come out, bare.
fn bare(held: &mut u64, out: &mut impl FnMut(&[u8])) {
    while *held > 0 {
        let n = CRS.len().min(usize::try_from(*held).unwrap_or(CRS.len()));
        out(&CRS[..n]);
        *held -= n as u64;
    }
}

/// The same for line ends, without dots: for content whose length is told
/// beforehand (BDAT, RFC 3030) or that was unstuffed already.
#[derive(Clone, Debug)]
pub struct LineEnds(DotReader);

impl LineEnds {
    /// At the start of the content.
    pub fn new() -> LineEnds {
        LineEnds(DotReader { state: State::LineStart, held: 0, lf_only: false, dots: false })
    }

    /// Decodes a slice; see [`DotReader::feed`].
    pub fn feed(&mut self, input: &[u8], out: impl FnMut(&[u8])) {
        // Without dots there is no state from which the end is reached.
        let _ = self.0.feed(input, out);
    }

    /// The content is over: what was held back comes out.
    pub fn finish(&mut self, mut out: impl FnMut(&[u8])) {
        if self.0.state == State::Cr {
            bare(&mut self.0.held, &mut out);
        }
        self.0.state = State::LineStart;
    }
}

impl Default for LineEnds {
    fn default() -> LineEnds {
        LineEnds::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` cut at `cuts`; returns the content and where the message ended.
    fn decode(wire: &[u8], cuts: &[usize], lf_only: bool) -> (Vec<u8>, Option<usize>) {
        let mut reader = DotReader::new(lf_only);
        let mut content = Vec::new();
        let mut from = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (wire.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(wire.len());
        for to in ends {
            match reader.feed(&wire[from..to], |run| content.extend_from_slice(run)) {
                Fed::More => from = to,
                Fed::End(used) => return (content, Some(from + used)),
            }
        }
        (content, None)
    }

    /// LF stands behind one CR only, and CRs elsewhere are no more than the wire has.
    fn clean(content: &[u8]) -> bool {
        content.iter().enumerate().all(|(i, b)| match b {
            b'\n' => i > 0 && content[i - 1] == b'\r' && (i < 2 || content[i - 2] != b'\r'),
            _ => true,
        })
    }

    #[test]
    fn ends_only_at_crlf_dot_crlf() {
        for (wire, content, end) in [
            (&b".\r\n"[..], &b""[..], Some(3)),
            (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", Some(6)),
            (b"a\n.\n", b"a\r\n.\r\n", None),
            (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", Some(11)),
            (b"a\r.\r\nb\r\n.\r\n", b"a\r.\r\nb\r\n", Some(11)),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n", Some(11)),
            (b"a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n", Some(11)),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\n", Some(10)),
            (b"a\r.\r", b"a\r.", None),
            (b"a\n.\r", b"a\r\n.", None),
            (b"..\r\n...\r\n.x\r\n.\r\n", b".\r\n..\r\nx\r\n", Some(16)),
            (b"\r\n.\r\n", b"\r\n", Some(5)),
            (b"a\r\r\n.\r\n", b"a\r\n", Some(7)),
            (b"a\r\r\r\nb\r\r\n.\r\n", b"a\r\nb\r\n", Some(12)),
            (b"\r\r\n.\r\r\n.\r\r\r\n..\r\n.\r\n", b"\r\n\r\n\r\n.\r\n", Some(19)),
            (b"a\r\r\n..\r\r\n.\r\n", b"a\r\n.\r\n", Some(12)),
        ] {
            let got = decode(wire, &[], false);
            assert_eq!((got.0.as_slice(), got.1), (content, end), "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn lf_only_is_an_exemption_for_devices() {
        assert_eq!(decode(b"a\n.\nQUIT\n", &[], true), (b"a\r\n".to_vec(), Some(4)));
        assert_eq!(decode(b"a\n..b\r\n.\r\n", &[], true), (b"a\r\n.b\r\n".to_vec(), Some(10)));
    }

    #[test]
    fn a_plain_message_is_one_run() {
        let wire = [b"Subject: x\r\n\r\n".as_slice(), &b"some text\r\n".repeat(100), b".\r\n"].concat();
        let mut runs = 0;
        assert_eq!(DotReader::new(false).feed(&wire, |_| runs += 1), Fed::End(wire.len()));
        assert_eq!(runs, 1);
    }

    /// Bytes in which line ends and dots are frequent.
    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(b'\r'), 3 => Just(b'\n'), 3 => Just(b'.'), 3 => Just(b'a'), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..80)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_result(wire in wire(), cuts in prop::collection::vec(0usize..80, 0..8), lf: bool) {
            prop_assert_eq!(decode(&wire, &cuts, lf), decode(&wire, &[], lf));
        }

        #[test]
        fn what_comes_out_has_no_bare_lf_and_no_cr_before_crlf(wire in wire(), lf: bool) {
            let (content, end) = decode(&wire, &[], lf);
            prop_assert!(clean(&content), "{}", content.escape_ascii());
            if let (Some(end), false) = (end, lf) {
                let framed = [b"\r\n".as_slice(), &wire[..end]].concat();
                prop_assert!(framed.ends_with(b"\r\n.\r\n"));
                let first = framed.windows(5).position(|w| w == b"\r\n.\r\n");
                prop_assert_eq!(first, Some(framed.len() - 5));
            }
        }

        #[test]
        fn bare_crs_come_by_themselves(wire in wire(), cut in 0usize..80) {
            let mut reader = LineEnds::new();
            let mut runs: Vec<Vec<u8>> = Vec::new();
            let cut = cut.min(wire.len());
            reader.feed(&wire[..cut], |run| runs.push(run.to_vec()));
            reader.feed(&wire[cut..], |run| runs.push(run.to_vec()));
            reader.finish(|run| runs.push(run.to_vec()));
            for run in runs {
                let ends = run.windows(2).filter(|w| w == b"\r\n").count();
                let crs = run.iter().filter(|b| **b == b'\r').count();
                prop_assert!(if is_bare_cr(&run) { crs == run.len() } else { crs == ends }, "{}", run.escape_ascii());
            }
        }

        #[test]
        fn stuffed_lines_come_back(lines in prop::collection::vec("[.a-c]{0,5}", 0..12)) {
            let content: String = lines.iter().map(|l| format!("{l}\r\n")).collect();
            let dot = |l: &str| if l.starts_with('.') { "." } else { "" };
            let stuffed: String = lines.iter().map(|l| format!("{}{l}\r\n", dot(l))).collect();
            let wire = format!("{stuffed}.\r\n");
            prop_assert_eq!(decode(wire.as_bytes(), &[], false), (content.into_bytes(), Some(wire.len())));
        }

        #[test]
        fn line_ends_are_clean_however_cut(wire in wire(), cut in 0usize..80) {
            let cut = cut.min(wire.len());
            let run = |parts: &[&[u8]]| {
                let (mut ends, mut out) = (LineEnds::new(), Vec::new());
                for part in parts {
                    ends.feed(part, |run| out.extend_from_slice(run));
                }
                ends.finish(|run| out.extend_from_slice(run));
                out
            };
            let whole = run(&[&wire]);
            prop_assert!(clean(&whole));
            prop_assert_eq!(whole, run(&[&wire[..cut], &wire[cut..]]));
        }
    }
}
