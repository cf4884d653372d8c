//! `mailweir backup`: a copy of the queue, whether the relay runs or not.
//!
//! It is made here, as the user of the command. Only if the queue's files are not in place any more, the
//! relay that still has them open is asked to make it.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::connect::{Lead, Target, running};
use super::screen;
use super::whose::must_be_its_queue;
use super::{Code, Failed, Outcome};
use crate::admin::requests::{Reply, Request};
use crate::config::Store;
use crate::config::units::Size;
use crate::queue::Counts;
use crate::queue::opening::{self, OutOfReach};

/// Arguments.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The new file; it must not be there yet
    file: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn backup(lead: &Lead, args: &BackupArgs) -> Outcome {
    let store = &lead.config().queue.store;
    must_be_its_queue(lead).await?;
    let (bytes, counts) = match displaced(lead).await? {
        Some(running) => save(&running, &args.file).await?,
        None => {
            readable(store)?;
            opening::copy(store, &args.file).map_err(|e| {
                let code = if e.temporary { Code::Temporary } else { Code::Unavailable };
                Failed::new(code, e)
            })?
        }
    };
    say(&args.file, bytes, counts, args.json)
}

/// The relay that runs, if its files are not those under the queue's name any more.
///
/// # Errors
/// None runs, and the file that would tell where the queue is cannot be taken.
async fn displaced(lead: &Lead) -> Result<Option<Target>, Failed> {
    // Whoever may not ask it makes the copy by himself, as ever.
    let Some(running) = running(lead).await.ok().flatten() else {
        lead.must_be_good()?;
        return Ok(None);
    };
    let mut trouble = false;
    let note = |reply, _: &[u8]| {
        if let Reply::Status(status) = reply {
            trouble = !status.storage.trouble.is_empty();
        }
        Ok(())
    };
    let answered = running.request(Request::Status, note).await.is_ok();
    Ok((answered && trouble).then_some(running))
}

/// Has the relay make the copy, from what it has open.
async fn save(running: &Target, file: &Path) -> Result<(u64, Counts), Failed> {
    let mut saved = None;
    let note = |reply, _: &[u8]| {
        if let Reply::Saved { bytes, counts } = reply {
            saved = Some((bytes, counts));
        }
        Ok(())
    };
    // The relay's working directory is another.
    let file = std::path::absolute(file)?;
    running.request(Request::Save { file }, note).await?;
    saved.ok_or_else(|| Failed::new(Code::Temporary, "mailweir did not say whether there is a copy"))
}

/// Says so if this user may not read the queue, before SQLite says only that it cannot open it.
fn readable(store: &Store) -> Result<(), Failed> {
    let user = rustix::process::geteuid().as_raw();
    let why = match opening::within_reach(store, false) {
        Ok(()) => return Ok(()),
        Err(OutOfReach::Missing(path)) => format!("there is no queue at {}", path.display()),
        Err(OutOfReach::Forbidden(path)) => format!(
            "no backup: user {user} may not read {}: run this as the user that mailweir runs as, or as root",
            path.display()
        ),
        Err(OutOfReach::Unknown(path, e)) => format!("no backup: {} cannot be looked at: {e}", path.display()),
    };
    Err(Failed::new(Code::Unavailable, why))
}

fn say(file: &Path, bytes: u64, counts: Counts, json: bool) -> Outcome {
    let mut out = screen::stdout();
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
