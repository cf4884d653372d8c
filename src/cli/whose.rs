//! Which relay is meant: that of this configuration or of this queue, and no other that happens to run on this machine.
//!
//! Invariants: where it cannot be known that a relay is the one that is meant, no command goes to it, and what is known
//! of it is said; whoever names a socket means that one.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use super::connect::{Lead, Target};
use super::{Code, Failed};
use crate::admin::requests::{Reply, Request};

/// A store without a full path is another one in each directory: what is found there may be the relay of another file,
/// whose mail nobody wants to list or cancel by this one.
pub(super) async fn must_be_ours(lead: &Lead, target: &Target) -> Result<(), Failed> {
    let store = lead.config().queue.store.place();
    let Some(own) = lead.own.as_deref().filter(|_| !lead.named && store.is_relative()) else { return Ok(()) };
    // One of an earlier version does not know the question; one without a file has no other.
    let Some(file) = file_told(target).await?.filter(|file| !file.is_empty()) else { return Ok(()) };
    if is_same_file(own, Path::new(&file)) {
        return Ok(());
    }
    let (own, store, socket) = (own.display(), store.display(), lead.socket.display());
    let message = format!(
        "the mailweir that listens at {socket} runs with {file}, and not with {own}, whose [queue] store, {store}, is \
         looked for in the directory that this is called in: call it in the directory that its relay was started in, or \
         add --socket {socket} if the other one is meant"
    );
    Err(Failed::new(Code::Unavailable, message))
}

/// The file that the relay says it runs with, empty: with none; `None`: it does not tell.
async fn file_told(target: &Target) -> Result<Option<String>, Failed> {
    let mut file = String::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Note(text) = reply {
            file = text;
        }
        Ok(())
    };
    let told = target.answer(Request::File, keep).await?.is_ok();
    Ok(told.then_some(file))
}

/// The file that the relay runs with, if that is not the one that was found; empty: it has none.
pub(super) async fn file_of_another(lead: &Lead, target: &Target) -> Option<PathBuf> {
    let told = file_told(target).await.ok().flatten();
    let is_its = |own: &Path| match told.as_deref() {
        // By the queue that the file names: it is no other relay's.
        None | Some("") => !lead.named,
        Some(file) => is_same_file(own, Path::new(file)),
    };
    let its = match lead.own.as_deref() {
        Some(own) => is_its(own),
        None => told.as_deref().is_none_or(str::is_empty),
    };
    (!its).then(|| told.unwrap_or_default().into())
}

/// The mail of a relay that runs with this file is in the queue that it was started with, and not in the one that the
/// file names now. `what` is said to be so then.
pub(super) async fn must_have_no_other_queue(lead: &Lead, what: &str) -> Result<(), Failed> {
    let other = elsewhere_with_this_file(lead, &elsewhere(&lead.socket), what).await;
    other.map_or(Ok(()), |message| Err(Failed::new(Code::Unavailable, message)))
}

/// For commands that go to the queue's file themselves, whether a relay runs or not.
///
/// # Errors
/// The queue that the file names is that of another relay, or the relay of the file has another queue.
pub(super) async fn must_be_its_queue(lead: &Lead) -> Result<(), Failed> {
    match UnixStream::connect(&lead.socket).await {
        Ok(_) => match must_be_ours(lead, &Target::Running(lead.socket.clone())).await {
            Err(failed) if failed.code == Code::Unavailable => Err(failed),
            // What does not answer is no other relay that is known.
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(_) => must_have_no_other_queue(lead, "nothing was done").await,
    }
}

/// What is so where nothing answers at the socket: the relay of this very file may listen at the place that the
/// file named when it started. `what`: what cannot be done, or is not there.
pub(super) async fn nobody(lead: &Lead, what: &str) -> String {
    let others = elsewhere(&lead.socket);
    if let Some(told) = elsewhere_with_this_file(lead, &others, what).await {
        return told;
    }
    // Any of them may be somebody else's: none is proposed.
    let listed: Vec<&str> = others.iter().take(OTHERS_TOLD).map(String::as_str).collect();
    let more = if others.len() > listed.len() { " and others" } else { "" };
    let other = match listed.as_slice() {
        [] => String::new(),
        listed => format!(
            " (on this machine a mailweir listens at {}{more}, and none says that it runs with this configuration; --socket \
             PATH talks to one)",
            listed.join(", ")
        ),
    };
    format!("mailweir is not running: {what}{other}")
}

/// What is to be said where one of the `others` runs with this very file.
async fn elsewhere_with_this_file(lead: &Lead, others: &[String], what: &str) -> Option<String> {
    let own = lead.own.as_deref().filter(|_| !lead.named)?;
    for path in others.iter().take(OTHERS) {
        let mut config = String::new();
        let keep = |reply, _: &[u8]| {
            if let Reply::Status(status) = reply {
                config = status.config;
            }
            Ok(())
        };
        let target = Target::Running(PathBuf::from(path));
        // Who may not ask, or gets no answer, learns where it is.
        let _ = tokio::time::timeout(OTHER_ANSWERS, target.request(Request::Status, keep)).await;
        // Relays of an earlier version tell it as they were given it, from a directory that is not known.
        let config = Path::new(&config);
        if config.is_absolute() && is_same_file(own, config) {
            return Some(format!(
                "{what}: the mailweir that runs with {} has the queue that was named there when it started, and listens at \
                 {path}: add --socket {path}; a changed [queue] store holds from its next start on",
                own.display()
            ));
        }
    }
    None
}

/// Relays that listen elsewhere and are asked for their file, and how long each has to answer.
const OTHERS: usize = 16;
/// Those that are named where none of them is meant.
const OTHERS_TOLD: usize = 4;
const OTHER_ANSWERS: Duration = Duration::from_millis(500);

fn is_same_file(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    a == b || whole(a) == whole(b)
}

/// Where else on this machine a mailweir listens: the file may have named another queue when it was started.
/// Those beside it come first.
fn elsewhere(socket: &Path) -> Vec<String> {
    let whole = std::path::absolute(socket);
    let socket = whole.as_deref().unwrap_or(socket);
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let listening = sockets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (flags, path) = (words.nth(3)?, words.nth(3)?);
        // __SO_ACCEPTCON
        (flags == "00010000" && path.starts_with('/')).then_some(path)
    });
    let other = |path: &&str| queue_of(path).is_some_and(|queue| Path::new(&format!("{queue}.sock")) != socket);
    let found = listening.filter(other).filter(|path| {
        queue_of(path).and_then(|queue| std::fs::File::open(queue).ok()).is_some_and(|file| is_database(&file))
    });
    let mut found: Vec<String> = found.filter_map(queue_of).map(|queue| format!("{queue}.sock")).collect();
    found.sort_by_key(|path| Path::new(path).parent() != socket.parent());
    found
}

/// The queue beside which this socket is. The system knows it by the name under which it was made.
fn queue_of(socket: &str) -> Option<&str> {
    [".sock", ".soc+"].iter().find_map(|end| socket.strip_suffix(end))
}

/// Whether it begins as the files of SQLite do.
fn is_database(mut file: &std::fs::File) -> bool {
    let mut begin = [0; 16];
    file.read_exact(&mut begin).is_ok() && begin == *b"SQLite format 3\0"
}
