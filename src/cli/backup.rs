//! `mailweir backup`: a copy of the queue, whether the relay runs or not.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::screen;
use super::{Code, Failed, Outcome};
use crate::config::units::Size;
use crate::config::{Config, Store};
use crate::queue::sqlite::backup;

/// Arguments.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The new file; it must not be there yet
    file: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn backup(config: &Config, args: &BackupArgs) -> Outcome {
    let Store::Sqlite(store) = &config.queue.store;
    if !store.exists() {
        return Err(Failed::new(Code::Unavailable, format!("there is no queue at {}", store.display())));
    }
    let copied = backup::backup(store, &args.file).map_err(|e| {
        let code = if e.is_temporary() { Code::Temporary } else { Code::Unavailable };
        Failed::new(code, format!("no backup: {e}"))
    })?;
    say(&args.file, &copied, args.json)
}

fn say(file: &Path, copied: &backup::Copied, json: bool) -> Outcome {
    let mut out = screen::stdout();
    let (bytes, counts) = (copied.bytes, copied.counts);
    if json {
        let told = serde_json::json!({ "file": file.display().to_string(), "bytes": bytes, "queue": counts });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let waiting = counts.queued + counts.leased + counts.held + counts.uncertain;
    writeln!(
        out,
        "{}: {}, {} messages, {waiting} recipients that wait, {} dead letters",
        file.display(),
        Size(bytes),
        counts.messages,
        counts.failed
    )?;
    Ok(())
}
