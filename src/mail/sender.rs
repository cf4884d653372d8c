//! Which senders are one: where turns are taken, and where a pace is kept for each. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Whose turn it is goes by this; a collision only makes two senders share one turn. Without what
/// senders of bulk vary from message to message (VERP, BATV, SRS: all from the first `+` or `=` of the
/// local part), or one mailing would have a turn for each message.
pub fn sender_key(sender: &str) -> u64 {
    let (local, domain) = sender.rsplit_once('@').unwrap_or((sender, ""));
    let mut hasher = DefaultHasher::new();
    local.split(['+', '=']).next().hash(&mut hasher);
    // At once: a write for each byte takes ten times as long.
    if domain.bytes().any(|b| b.is_ascii_uppercase()) {
        hasher.write(domain.to_ascii_lowercase().as_bytes());
    } else {
        hasher.write(domain.as_bytes());
    }
    hasher.finish()
}
