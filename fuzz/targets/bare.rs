//! Halves of line ends. A part of several targets, and none itself.

// Each target uses a part of this.
#![allow(dead_code)]

/// A LF without its CR.
pub fn has_bare_lf(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, b)| *b == b'\n' && (at == 0 || bytes[at - 1] != b'\r'))
}

/// A CR or LF that is half of a line end.
pub fn has_bare(bytes: &[u8]) -> bool {
    let lone_cr = |(at, b): (usize, &u8)| *b == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    has_bare_lf(bytes) || bytes.iter().enumerate().any(lone_cr)
}
