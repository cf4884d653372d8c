//! Takes up what local programs left in the spool while the relay was down: at the start, and every
//! minute.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::crash;
use crate::listener::{Local, NotQueued};
use crate::pipeline::Relay;
use crate::spool::{Found, Refused, Spool, Taken};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Looks at once and every minute until the relay stops; for ever idle without a spool.
pub(super) async fn keep_spool(relay: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
    let Some(path) = relay.config.sendmail.spool.clone() else { return };
    let local = Local::new(&relay.config, relay.clone());
    while !*stopping.borrow() {
        while take_up(&path, &local, &stopping).await > 0 {}
        tokio::select! {
            biased;
            () = tokio::time::sleep(EVERY) => {}
            _ = stopping.changed() => {}
        }
    }
}

/// Takes up what is there; returns how many messages the queue has now that it had not.
async fn take_up(path: &Path, local: &Local, stopping: &watch::Receiver<bool>) -> usize {
    let (at, max) = (path.to_owned(), local.max_message_size());
    let (spool, list) = match blocking(move || open(&at)).await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) => {
            tracing::error!(spool = %path.display(), %error, "cannot look at the spool");
            return 0;
        }
        None => return 0,
    };
    let spool = Arc::new(spool);
    let mut taken = 0;
    for found in list {
        if *stopping.borrow() {
            return 0;
        }
        let (at, one) = (spool.clone(), found.clone());
        match blocking(move || at.take(&one, max)).await {
            Some(Ok(message)) => match queue(&spool, local, message).await {
                Ok(queued) => taken += usize::from(queued),
                // The queue has no room: so it will be for the others.
                Err(Stopped) => return 0,
            },
            Some(Err(refused)) => refuse(&spool, &found, &refused).await,
            None => {}
        }
    }
    taken
}

fn open(path: &Path) -> std::io::Result<(Spool, Vec<Found>)> {
    let spool = Spool::open(path)?;
    let list = spool.list()?;
    Ok((spool, list))
}

/// The queue takes no message now.
struct Stopped;

/// Returns whether the queue has it; if not, it is kept aside.
async fn queue(spool: &Arc<Spool>, local: &Local, message: Taken) -> Result<bool, Stopped> {
    let (user, file) = (message.user, message.name().to_string_lossy().into_owned());
    crash::point("spool.taken");
    match local.submit(&message).await {
        Ok(id) => {
            crash::point("spool.queued");
            let at = spool.clone();
            let gone = blocking(move || at.done(&message)).await.unwrap_or(false);
            tracing::info!(%id, user, file, "taken up from the spool");
            if !gone {
                tracing::warn!(%id, user, file, "could not remove it from the spool: it may be sent again");
            }
            Ok(gone)
        }
        Err(NotQueued::Unreadable(error)) => {
            tracing::warn!(user, file, %error, "it stays in the spool: it cannot be read");
            Ok(false)
        }
        Err(NotQueued::Reply(reply)) if reply.is_transient() => {
            tracing::warn!(user, file, %reply, "it stays in the spool");
            Err(Stopped)
        }
        Err(NotQueued::Reply(reply)) => {
            let kept = set_aside(spool, message.name().to_owned()).await;
            tracing::error!(user, file, kept, %reply, "a message in the spool can never be sent, and is kept there");
            Ok(false)
        }
    }
}

async fn refuse(spool: &Arc<Spool>, found: &Found, refused: &Refused) {
    let (user, file) = (found.user, found.name());
    if let Refused::Io(error) = refused {
        if error.kind() != std::io::ErrorKind::NotFound {
            let hint = "the spool must belong to the user that mailweir runs as, and be setgid (mode 3733)";
            tracing::error!(user, file, %error, "cannot take a message from the spool: {hint}");
        }
        return;
    }
    let kept = set_aside(spool, found.claimed()).await;
    tracing::error!(user, file, kept, why = %refused, "a file in the spool is no message, and is kept there");
}

async fn set_aside(spool: &Arc<Spool>, name: OsString) -> String {
    let at = spool.clone();
    let kept = blocking(move || at.set_aside(&name)).await.flatten();
    kept.map(|name| name.to_string_lossy().escape_debug().to_string()).unwrap_or_default()
}

/// Runs what waits for a disk elsewhere; `None` if that thread ended by a fault.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
