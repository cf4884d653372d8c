//! Command lines and message data as they come in: no cut makes a difference, and data ends where it ends.
#![no_main]

#[path = "bare.rs"]
mod bare;

use bare::{has_bare, has_bare_lf};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailweir::deliver::encode::{Encoder, MAX_LINE};
use mailweir::smtp::{DotReader, Fed, Line, LineEnds, LineReader};

const LIMIT: usize = 64;

/// What a reader makes of the bytes, given in two pieces.
fn data(bytes: &[u8], cut: usize, lf_only: bool) -> (Vec<u8>, Option<usize>) {
    let (mut reader, mut out) = (DotReader::new(lf_only), Vec::new());
    let (first, second) = bytes.split_at(cut);
    match reader.feed(first, |run| out.extend_from_slice(run)) {
        Fed::End(n) => return (out, Some(n)),
        Fed::More => {}
    }
    match reader.feed(second, |run| out.extend_from_slice(run)) {
        Fed::End(n) => (out, Some(cut + n)),
        Fed::More => (out, None),
    }
}

/// A body as it leaves, given in two pieces.
fn wire(body: &[u8], cut: usize, mut encoder: Encoder) -> Vec<u8> {
    let (first, second) = body.split_at(cut.min(body.len()));
    let pieces = [first, second].map(|piece| encoder.encode(Bytes::copy_from_slice(piece)));
    [&pieces[0][..], &pieces[1][..], &encoder.finish()[..]].concat()
}

/// Whatever is stored leaves as one message, and is the same at the other end.
fn leaves_as_one(body: &[u8], cut: usize) {
    let sent = wire(body, 0, Encoder::for_data());
    assert_eq!(sent, wire(body, cut, Encoder::for_data()), "a cut makes a difference on the way out");
    assert!(!has_bare(&sent), "a bare CR or LF leaves");
    assert!(sent.split(|b| *b == b'\n').all(|line| line.len() <= MAX_LINE + 2), "a line that is too long leaves");
    let end = memchr::memmem::find(&[b"\r\n", &sent[..]].concat(), b"\r\n.\r\n").expect("a dot line");
    assert_eq!(end + 3, sent.len(), "the message ends before its end");
    for lenient in [false, true] {
        let (received, at) = data(&sent, cut.min(sent.len()), lenient);
        assert_eq!(at, Some(sent.len()));
        // BDAT doubles no dot and marks no NUL; signatures are made of what neither changes.
        assert_eq!(received, wire(body, cut, Encoder::for_signing()), "what is un-dotted is not what was stored");
    }
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (at, lf_only, bytes) = input;
    let cut = usize::from(at).min(bytes.len());

    let mut reader = LineReader::default();
    let mut rest = bytes;
    loop {
        match reader.next(rest, LIMIT) {
            Line::Complete { len, used, .. } => {
                assert!(len < used && used <= rest.len() && used <= LIMIT);
                rest = &rest[used..];
            }
            Line::TooLong { used } => rest = &rest[used..],
            Line::Incomplete { discard } => {
                assert!(discard <= rest.len());
                break;
            }
        }
    }

    let whole = data(bytes, 0, lf_only);
    assert_eq!(whole, data(bytes, cut, lf_only));
    if let (_, Some(end)) = whole {
        let tail = &bytes[..end];
        assert!(tail.ends_with(b".\r\n") || lf_only && tail.ends_with(b".\n"));
    }

    if !lf_only {
        let expected = memchr::memmem::find(&[b"\r\n", bytes].concat(), b"\r\n.\r\n").map(|at| at + 3);
        assert_eq!(whole.1, expected, "data ends at CRLF . CRLF alone");
    }
    leaves_as_one(bytes, cut);
    leaves_as_one(&whole.0, cut);

    let (mut ends, mut out) = (LineEnds::new(), Vec::new());
    ends.feed(&bytes[..cut], |run| out.extend_from_slice(run));
    ends.feed(&bytes[cut..], |run| out.extend_from_slice(run));
    ends.finish(|run| out.extend_from_slice(run));
    assert!(!has_bare_lf(&out), "a bare LF");
});
