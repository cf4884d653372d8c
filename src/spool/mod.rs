//! The spool: a directory in which programs of any local user leave messages while the relay is
//! down, and from which it takes them up.
//!
//! Everybody may write to it, so everything in it is a stranger's word:
//! - A message is one file, written under a `new-` name, synced, and renamed to `msg-`: what has that
//!   name is whole. It says how long it is, and is not taken if it is not.
//! - The relay takes regular files with one link only, follows no links, waits for no pipe, and reads no
//!   more than a message may have. It renames a file before it takes it, and removes it when the queue
//!   has it: a crash between the two delivers it twice, never not.
//! - Whose message it is comes from the owner of the file, not from its words.
//! - What can never be taken is kept under a `bad-` name, with an ERROR in the log; it is not lost.

mod entry;
mod take;
mod write;

pub use entry::{BadEntry, Entry, MAX_RECIPIENTS};
pub use take::{Found, Refused, Spool, Taken};
pub use write::leave;

/// Being written.
const NEW: &str = "new-";
/// Waits for the relay.
const WAITING: &str = "msg-";
/// In the hands of the relay, now or when it ended.
const TAKEN: &str = "take-";
/// Cannot be taken.
const BAD: &str = "bad-";
