//! Canonicalization and hashing for signatures: no cut makes a difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::dkim::{Signer, canonical};

fn body(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut body, mut out) = (canonical::Body::default(), Vec::new());
    let mut keep = |piece: &[u8]| out.extend_from_slice(piece);
    pieces.iter().for_each(|piece| body.push(piece, &mut keep));
    body.finish(&mut keep);
    out
}

fuzz_target!(|input: (u8, &[u8])| {
    let (at, bytes) = input;
    let cut = usize::from(at).min(bytes.len());
    let whole = body(&[bytes]);
    assert_eq!(whole, body(&[&bytes[..cut], &bytes[cut..]]));
    assert!(whole.is_empty() || whole.ends_with(b"\r\n"), "a body ends in a line end");
    assert_eq!(body(&[&whole]), whole, "a canonical body is canonical");
    let field = canonical::header(bytes);
    assert!(field.ends_with(b"\r\n") && field.len() <= bytes.len() + 3);
    let halves = |b: &&u8| matches!(b, b'\r' | b'\n');
    if bytes.iter().filter(halves).count() == 2 * memchr::memmem::find_iter(bytes, b"\r\n").count() {
        assert_eq!(canonical::header(&field), field, "a canonical field is canonical");
    }
    let mut signer = Signer::new();
    if signer.push(&bytes[..cut]).is_ok() && signer.push(&bytes[cut..]).is_ok() && signer.end_header().is_ok() {
        let _ = signer.from();
        let _ = signer.finish(&[]);
    }
});
