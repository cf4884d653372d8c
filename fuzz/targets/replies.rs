//! What hosts say: replies in whatever pieces, and what they offer.
#![no_main]

use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use mailweir::deliver::reply::ReplyParser;
use mailweir::deliver::{Capabilities, SessionLimits};

type Whole = (String, Vec<Vec<u8>>, bool);

fn replies(pieces: &[&[u8]]) -> Result<Vec<Whole>, String> {
    let (mut parser, mut out) = (ReplyParser::default(), VecDeque::new());
    parser.keep_lines(true);
    pieces.iter().try_for_each(|piece| parser.feed(piece, &mut out))?;
    for received in &out {
        let _ = Capabilities::from_lines(&received.lines);
        assert!(!received.reply.to_string().contains(['\r', '\n', '\0', '\u{1b}']), "it goes to logs and bounces");
    }
    Ok(out.into_iter().map(|received| (received.reply.to_string(), received.lines, received.mixed)).collect())
}

fuzz_target!(|input: (u8, &[u8])| {
    let (at, bytes) = input;
    let cut = usize::from(at).min(bytes.len());
    let (whole, parts) = (replies(&[bytes]), replies(&[&bytes[..cut], &bytes[cut..]]));
    assert_eq!(whole, parts, "a cut makes a difference");
    let _ = SessionLimits::parse(bytes);
});
