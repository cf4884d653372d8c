//! Where a command goes: to the running relay over its control socket, or, if none runs, to the
//! queue itself. The commands are the same code in both cases.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::{Code, Failed};
use crate::admin::control::{ask, socket_path};
use crate::admin::requests::{Reply, Request, Sink, handle};
use crate::admin::{Controls, LaneStatus, Status, Withdrawn};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Store};
use crate::mail::{LaneName, RecipientKey};
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{Queue, QueueError};

/// Whom a command talks to.
pub enum Target {
    /// The relay that listens on this socket.
    Running(PathBuf),
    /// The queue, with nobody else at it.
    Direct(Direct),
}

/// The relay that runs, else the queue itself.
///
/// # Errors
/// Neither can be reached; the code tells whether that may change by itself.
pub async fn connect(config: &Config) -> Result<Target, Failed> {
    if let Some(target) = running(config).await? {
        return Ok(target);
    }
    let Store::Sqlite(path) = &config.queue.store;
    if !path.exists() {
        let message = format!("mailweir is not running, and there is no queue at {}", path.display());
        return Err(Failed::new(Code::Unavailable, message));
    }
    let queue: Arc<dyn Queue> = SqliteQueue::open(path, Clock::System).map_err(|e| match e {
        QueueError::InUse(_) => {
            let socket = socket_path(&config.queue.store);
            Failed::new(
                Code::Temporary,
                format!("mailweir is running but does not answer at {}: {e}", socket.display()),
            )
        }
        QueueError::Damaged(_) => Failed::new(Code::Unavailable, e),
        _ => Failed::new(Code::Temporary, e),
    })?;
    Ok(Target::Direct(Direct { queue }))
}

/// The relay that runs with this configuration; `None` if there is none.
///
/// # Errors
/// It may not be talked to.
pub async fn running(config: &Config) -> Result<Option<Target>, Failed> {
    let socket = socket_path(&config.queue.store);
    match UnixStream::connect(&socket).await {
        Ok(_) => Ok(Some(Target::Running(socket))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("cannot use {}: {e}: run this as the user that mailweir runs as", socket.display());
            Err(Failed::new(Code::Unavailable, message))
        }
        Err(_) => Ok(None),
    }
}

/// The relay that runs, for commands that make no sense without one.
///
/// # Errors
/// There is none.
pub async fn must_run(config: &Config) -> Result<Target, Failed> {
    running(config).await?.ok_or_else(|| {
        let socket = socket_path(&config.queue.store);
        Failed::new(Code::Unavailable, format!("mailweir is not running: nothing answers at {}", socket.display()))
    })
}

impl Target {
    /// Asks, and gives every part of the answer but the last to `each`; returns the last.
    ///
    /// # Errors
    /// The request failed, or its answer could not be written.
    pub async fn request<F>(&self, request: Request, each: F) -> Result<crate::admin::requests::Done, Failed>
    where
        F: FnMut(Reply, &[u8]) -> io::Result<()> + Send,
    {
        let mut sink = Collect { each, last: None };
        match self {
            Target::Running(socket) => ask(UnixStream::connect(socket).await?, &request, &mut sink).await?,
            Target::Direct(direct) => handle(direct, Clock::System, request, &mut sink).await?,
        }
        match sink.last {
            Some(Ok(done)) => Ok(done),
            Some(Err(failure)) => {
                let code = if failure.temporary { Code::Temporary } else { Code::Unavailable };
                let done = failure.done.changed;
                let sofar = if done > 0 { format!(" (after {done} recipients were changed)") } else { String::new() };
                Err(Failed::new(code, format!("{failure}{sofar}")))
            }
            None => Err(Failed::new(Code::Temporary, "the answer has no end")),
        }
    }

    /// Lets the queue go.
    pub async fn close(self) {
        if let Target::Direct(direct) = self {
            direct.queue.close().await;
        }
    }
}

struct Collect<F> {
    each: F,
    last: Option<Result<crate::admin::requests::Done, crate::admin::requests::Failure>>,
}

#[async_trait]
impl<F: FnMut(Reply, &[u8]) -> io::Result<()> + Send> Sink for Collect<F> {
    async fn put(&mut self, reply: Reply, bytes: &[u8]) -> io::Result<()> {
        match reply {
            Reply::Done(done) => self.last = Some(Ok(done)),
            Reply::Error(failure) => self.last = Some(Err(failure)),
            other => (self.each)(other, bytes)?,
        }
        Ok(())
    }
}

/// The queue without a relay: there is no scheduler to ask or to tell.
pub struct Direct {
    queue: Arc<dyn Queue>,
}

#[async_trait]
impl Controls for Direct {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue)
    }

    fn withdraw(&self, _keys: &[RecipientKey]) -> Withdrawn {
        Withdrawn::nothing()
    }

    fn wake(&self, _lanes: &[LaneName], _due: Timestamp) {}

    fn wake_all(&self, _due: Timestamp) {}

    async fn lanes(&self) -> Vec<LaneStatus> {
        Vec::new()
    }

    async fn pause(&self, _lane_or_provider: &str, _paused: bool) -> Result<bool, QueueError> {
        Ok(false)
    }

    fn status(&self) -> Status {
        Status::default()
    }
}
