//! Standard error beside the log: what a command or a start says for people.
//!
//! Whoever reads it may not: a full pipe makes a write wait for ever, and a program that has something
//! to say at its end would never end. So a thread writes, which is left behind after [`PATIENCE`].

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How long one text may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A handle of standard error without the lock of [`io::stderr`]: who waits in a write with that lock
/// holds up everybody else who has something to say, such as a panic.
///
/// # Errors
/// There is no descriptor left.
pub(super) fn handle() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Writes `lines`, each after `program: ` unless it is indented and so belongs to the one before, if standard error takes them soon. Never fails: nobody
/// could be told.
pub fn say(program: &str, lines: &str) {
    let one = |line: &str| if line.starts_with("  ") { format!("{line}\n") } else { format!("{program}: {line}\n") };
    let text: String = lines.lines().map(one).collect();
    if text.is_empty() {
        return;
    }
    let (tell, told) = sync_channel(1);
    let write = move || {
        let written = handle().and_then(|mut err| err.write_all(text.as_bytes()));
        let _ = tell.send(written);
    };
    if std::thread::Builder::new().name("stderr".into()).spawn(write).is_ok() {
        let _ = told.recv_timeout(PATIENCE);
    }
}
