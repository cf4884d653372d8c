//! A whole session of a client, in memory: commands, message data by DATA and BDAT, logins, XCLIENT, in whatever pieces.
#![no_main]

#[path = "bare.rs"]
mod bare;
#[path = "played.rs"]
mod played;

use std::sync::{Arc, LazyLock};

use bare::{has_bare, has_bare_lf};
use libfuzzer_sys::fuzz_target;
use mailweir::config::{Listener, ListenerAuth, Users};
use played::listener::{Mood, listener};
use played::{Played, play, users};

static USERS: LazyLock<Arc<Users>> = LazyLock::new(|| users("pencil", "pencil"));

/// What comes of it when the client sends `pieces` and closes its side.
fn session(flags: u8, pieces: &[&[u8]]) -> Played {
    let mood = [Mood::Works, Mood::Works, Mood::Full, Mood::Broken][usize::from(flags >> 4 & 3)];
    let auth = if flags & 2 != 0 { ListenerAuth::Offered } else { ListenerAuth::Off };
    let xclient_from = if flags & 8 != 0 { vec!["127.0.0.1".parse().expect("an address")] } else { Vec::new() };
    let accept_any = flags & 4 != 0;
    let (lf_only, users) = (flags & 1 != 0, USERS.clone());
    play(Listener { auth, accept_any, lf_only, users, xclient_from, ..listener() }, mood, pieces)
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (flags, at, bytes) = input;
    let cut = usize::from(at).min(bytes.len());
    let Played { said, stored, left, .. } = session(flags, &[bytes]);
    assert_eq!(left, 0, "pieces of a message that was not taken stay in the queue");
    assert!(said.is_empty() || said.starts_with(b"220 ") && said.ends_with(b"\r\n"), "replies are whole lines");
    assert!(
        !has_bare_lf(&said) && !said.contains(&0) && !said.contains(&27),
        "nothing of the client's reaches a terminal"
    );
    let count = |text: &[u8]| memchr::memmem::find_iter(&said, text).count();
    assert_eq!(count(b"Ok: queued as "), stored.len(), "a 250 for what is not stored, or none for what is");
    // The last line of a reply has a space behind its code. One is for the connection, one for a line that did not end.
    let replies = said.split(|b| *b == b'\n').filter(|line| line.get(3) == Some(&b' ')).count();
    let lines = memchr::memchr_iter(b'\n', bytes).count();
    assert!(replies <= lines + 3, "{replies} replies to {lines} lines");
    for one in &stored {
        assert!(count(one.message.id.to_string().as_bytes()) > 0, "a message that its client cannot name");
        assert!(!one.recipients.is_empty());
        assert!(one.message.traits.binary || !has_bare(&one.body), "a bare CR or LF is stored");
    }
    // Two writes are two packets: the same is stored.
    let again = session(flags, &[&bytes[..cut], &bytes[cut..]]).stored;
    assert_eq!(stored.len(), again.len(), "a cut makes a difference");
    for (one, other) in stored.iter().zip(&again) {
        assert_eq!(one.recipients.len(), other.recipients.len());
        assert_eq!(one.body.len(), other.body.len());
    }
});
