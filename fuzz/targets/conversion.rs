//! Conversion of messages for hosts that take less: what leaves is legal there, whatever came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweir::config::SignedConversion;
use mailweir::mail::convert::{self, Conversion, Hop, Octets, Recipe};

/// The same from pieces of this size.
fn in_pieces(recipe: &Recipe, body: &[u8], size: usize) -> Vec<u8> {
    let (mut emitter, mut new) = (recipe.emitter(), Vec::new());
    for mut piece in body.chunks(size) {
        while !piece.is_empty() {
            let mut out = Vec::new();
            let taken = emitter.push(piece, &mut out).expect("what was planned");
            new.extend_from_slice(&out);
            piece = &piece[taken..];
        }
    }
    let mut out = Vec::new();
    emitter.finish(&mut out).expect("what was planned");
    new.extend_from_slice(&out);
    new
}

fuzz_target!(|input: (u8, &[u8])| {
    let (flags, bytes) = input;
    // As it is stored: CRLF line ends only.
    let text: Vec<u8> = bytes.iter().flat_map(|b| if *b == b'\n' { b"\r\n".to_vec() } else { vec![*b] }).collect();
    let body: Vec<u8> = [text.as_slice(), b"\r\n"].concat().into_iter().filter(|b| *b != 0).collect();
    let body = String::from_utf8_lossy(&body).replace('\r', "").replace('\n', "\r\n").into_bytes();
    let eight_bit = flags & 1 != 0;
    let hop = Hop {
        eight_bit,
        smtputf8: flags & 2 != 0,
        smtputf8_asked: flags & 4 != 0,
        octets: Octets::NotAnnounced,
        signed: if flags & 8 != 0 { SignedConversion::Convert } else { SignedConversion::Bounce },
    };
    let traits = convert::scan(&body);
    if let Conversion::Converted { recipe, size, traits } = convert::convert(&body, traits, hop) {
        let new = recipe.whole(&body).expect("what was planned");
        let told = convert::scan(&new);
        assert!(eight_bit || !told.eight_bit_body, "8-bit text to a host that takes none");
        assert_eq!((size, traits.eight_bit_body), (new.len() as u64, told.eight_bit_body), "what is announced of it");
        assert_eq!(new, in_pieces(&recipe, &body, usize::from(flags) + 1), "a cut makes a difference");
        assert!(new.len() <= body.len() * 14 / 10 + 256 * 1024, "it grows without bound");
    }
});
