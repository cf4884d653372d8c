//! Messages in chunks (RFC 3030): what is stored is what the chunks have together, octet by octet where it is binary,
//! whatever stands at their ends and however packets cut them.
#![no_main]

#[path = "played.rs"]
mod played;

use libfuzzer_sys::fuzz_target;
use played::listener::{Mood, listener};
use played::play;

const HEADER: &[u8] = b"Subject: x\r\n\r\n";

fuzz_target!(|input: (bool, u16, Vec<&[u8]>)| {
    let (binary, at, mut chunks) = input;
    chunks.truncate(16);
    let kind = if binary { "BINARYMIME" } else { "8BITMIME" };
    let mut sent = format!("EHLO x\r\nMAIL FROM:<a@x.example> BODY={kind}\r\nRCPT TO:<b@y.example>\r\n").into_bytes();
    sent.extend(format!("BDAT {}\r\n", HEADER.len()).bytes().chain(HEADER.iter().copied()));
    for (n, chunk) in chunks.iter().enumerate() {
        let last = if n + 1 == chunks.len() { " LAST" } else { "" };
        sent.extend(format!("BDAT {}{last}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
    }
    if chunks.is_empty() {
        sent.extend(b"BDAT 0 LAST\r\n");
    }
    sent.extend(b"QUIT\r\n");
    let cut = usize::from(at).min(sent.len());
    for pieces in [vec![&sent[..]], vec![&sent[..cut], &sent[cut..]]] {
        let played = play(listener(), Mood::Works, &pieces);
        assert!(played.read, "not all is read");
        let said = String::from_utf8(played.said).expect("text");
        let [one] = &played.stored[..] else { panic!("{} messages stored: {said}", played.stored.len()) };
        assert_eq!(played.left, 0, "chunks are left over");
        // Greeting, EHLO, MAIL, RCPT, each chunk, QUIT.
        let replies = said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).count();
        assert_eq!(replies, 6 + chunks.len().max(1), "{said}");
        assert!(said.lines().last().is_some_and(|line| line.starts_with("221 ")), "{said}");
        let content = chunks.concat();
        let ends = memchr::memmem::find_iter(&content, b"\r\n").count();
        let plain = content.iter().filter(|b| matches!(b, b'\r' | b'\n')).count() == 2 * ends;
        if binary {
            assert!(one.body.ends_with(&content), "an octet is lost");
        } else if plain {
            let body = if content.is_empty() || content.ends_with(b"\r\n") {
                content
            } else {
                [&content[..], b"\r\n"].concat()
            };
            assert!(one.body.ends_with(&body), "a line is lost");
        }
    }
});
